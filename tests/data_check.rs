//! `gan data check`: what a cohort is like, and what is planted in it to spoil a result.

#![allow(missing_docs)]

mod common;

use common::{gan, nifti};
use std::fs;
use std::path::Path;

const DIMS: [u16; 3] = [16, 16, 6];

fn image(path: &Path, seed: usize, shift: f32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A bright block in the middle, so that there is a foreground.
    let value = |p: usize| {
        let (x, y) = (p % 16, p / 16 % 16);
        let inside = (3..13).contains(&x) && (3..13).contains(&y);
        ((p * (seed + 3)) % 97) as f32 + if inside { 200.0 } else { 0.0 }
    };
    fs::write(path, nifti(&DIMS, shift, value)).unwrap();
}

/// Six BIDS subjects with T1w, PET and a label map.
fn cohort(dir: &Path) {
    for i in 1..=6 {
        let at = |name: &str| dir.join(format!("d/sub-{i:02}/{name}"));
        image(&at(&format!("anat/sub-{i:02}_T1w.nii")), i, 0.0);
        image(&at(&format!("pet/sub-{i:02}_pet.nii")), 50 + i, 0.0);
        let label = |p: usize| f32::from(u8::from((4..8).contains(&(p % 16)))) * 2.0;
        fs::write(at(&format!("anat/sub-{i:02}_dseg.nii")), nifti(&DIMS, 0.0, label)).unwrap();
    }
    let rows: String = (1..=6).map(|i| format!("sub-{i:02}\t{}\n", ["F", "M"][i % 2])).collect();
    fs::write(dir.join("d/participants.tsv"), format!("participant_id\tsex\n{rows}")).unwrap();
}

#[test]
fn a_clean_cohort_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    cohort(dir);
    let out = gan(dir, &["data", "check", "d", "--picture", "d.png"]).ok().stdout;
    for words in [
        "6 cases of 6 patients; train 4, val 1, test 1",
        "note: d is read as BIDS",
        "t1w: 6 images\n  shapes        16 x 16 x 6\n  voxels in mm  2 x 2 x 2\n  orientations  RAS",
        "dseg: 6 images",
        "labels        0 (75.000 %), 2 (25.000 %)",
        "sex\n  values        F (3), M (3)",
        // The files that the tests write say no unit.
        "\nwarning: lengths without a unit",
    ] {
        assert!(out.contains(words), "no `{words}` in\n{out}");
    }
    let file = fs::File::open(dir.join("d.png")).unwrap();
    let info = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
    // Three tiles of 160 pixels, and gaps of two.
    assert_eq!(info.info().size(), (484, 970));
    let out = gan(dir, &["data", "check", "d", "--picture", "d.png"]);
    assert!(out.code == Some(1) && out.stderr.contains("--force"), "{}", out.stderr);
    let json: serde_json::Value =
        serde_json::from_str(&gan(dir, &["data", "check", "d", "--json"]).ok().stdout).unwrap();
    assert_eq!(json["modalities"]["pet"]["images"], 6);
    assert_eq!(json["modalities"]["dseg"]["labels"]["2"], 6 * 4 * 16 * 6);
    assert_eq!(json["findings"].as_array().unwrap().len(), 1, "{json:#}");
    assert_eq!(json["findings"][0]["count"], 18);
}

#[test]
fn what_is_planted_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    cohort(dir);
    let at = |name: &str| dir.join("d").join(name);
    // NaN, another grid, the image of another subject, a missing one, one that lies elsewhere, one that is cut off.
    fs::write(
        at("sub-01/pet/sub-01_pet.nii"),
        nifti(&DIMS, 0.0, |p| if p == 7 { f32::NAN } else { p as f32 }),
    )
    .unwrap();
    image(&at("sub-02/pet/sub-02_pet.nii"), 52, 9.0);
    for i in 3..=6 {
        fs::copy(at("sub-01/anat/sub-01_T1w.nii"), at(&format!("sub-{i:02}/anat/sub-{i:02}_T1w.nii")))
            .unwrap();
    }
    fs::remove_file(at("sub-03/pet/sub-03_pet.nii")).unwrap();
    let corner = |p: usize| if p % 16 < 2 && p / 16 % 16 < 2 { 100.0 } else { (p % 7) as f32 };
    fs::write(at("sub-04/pet/sub-04_pet.nii"), nifti(&DIMS, 0.0, corner)).unwrap();
    let whole = fs::read(at("sub-05/pet/sub-05_pet.nii")).unwrap();
    fs::write(at("sub-05/pet/sub-05_pet.nii"), &whole[..whole.len() - 100]).unwrap();
    let out = gan(dir, &["data", "check", "d"]);
    assert_eq!(out.code, Some(1));
    assert!(out.stderr.contains("findings would spoil a result"), "{}", out.stderr);
    for words in [
        "error: NaN or infinite voxels: d/sub-01/pet/sub-01_pet.nii\n  clean the files, or set `data.nan = \"zero\"`",
        "mm apart",
        "resample one on the other's grid",
        "error: the same image in two splits",
        "warning: `pet` is missing: sub-03",
        "warning: two images of a case hardly overlap: d/sub-04/pet/sub-04_pet.nii and d/sub-04/anat/sub-04_T1w.nii",
        "sub-05_pet.nii ends after",
    ] {
        assert!(out.stdout.contains(words), "no `{words}` in\n{}", out.stdout);
    }
}

#[test]
fn a_recipe_s_images_are_checked() {
    let dir = common::workshop();
    let dir = dir.path();
    let out = gan(dir, &["data", "check", "r.toml"]).ok().stdout;
    assert!(out.contains("pet: 6 images") && out.contains("t1: 6 images") && !out.contains("flair"), "{out}");
    let out = gan(dir, &["data", "check", "r.toml", "--set", "data.target=[\"pett\"]"]);
    assert!(out.code == Some(1) && out.stderr.contains("`pett`"), "{}", out.stderr);
}
