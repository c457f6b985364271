//! `gan evaluate --predictions --references`: what belongs together, what is left out, label maps, masks, nothing overwritten.

#![allow(missing_docs)]

mod common;

use common::{Outcome, gan, nifti};
use serde_json::Value;
use std::fs;
use std::path::Path;

const DIMS: [u16; 3] = [16, 14, 12];

struct Folders(tempfile::TempDir);

impl Folders {
    fn new() -> Self {
        Folders(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// An image whose values are `i` and what is added.
    fn image(&self, name: &str, more: f32) {
        self.write(name, &nifti(&DIMS, 0.0, |i| i as f32 * 0.01 + more));
    }

    fn compare(&self, more: &[&str]) -> Outcome {
        let args = ["evaluate", "--predictions", "p", "--references", "r"];
        gan(self.path(), &[&args[..], more].concat())
    }

    fn json(&self, more: &[&str]) -> Value {
        let all = [&["--json", "e.json", "--force"], more].concat();
        self.compare(&all).ok();
        serde_json::from_str(&fs::read_to_string(self.path().join("e.json")).unwrap()).unwrap()
    }
}

fn mean(json: &Value, metric: &str) -> f64 {
    let all = json["predictions"]["metrics"].as_array().unwrap();
    let found = all.iter().find(|m| m["metric"] == metric);
    found.unwrap_or_else(|| panic!("no {metric} in {json}"))["mean"]["mean"].as_f64().unwrap()
}

#[test]
fn every_spelling_of_an_extension_counts_and_a_pair_once() {
    let dir = Folders::new();
    for (folder, more) in [("p", 0.5), ("r", 0.0)] {
        for name in ["a.nii", "B.NII", "c.Nii"] {
            dir.image(&format!("{folder}/{name}"), more);
        }
        // Other systems' leftovers.
        dir.write(&format!("{folder}/._a.nii"), b"\0\x05\x16\x07");
        dir.write(&format!("{folder}/.DS_Store"), b"x");
        dir.write(&format!("{folder}/Thumbs.db"), b"x");
        let file = nifti(&DIMS, 0.0, |i| i as f32 * 0.01 + more);
        let mut head = file[..348].to_vec();
        head[344..348].copy_from_slice(b"ni1\0");
        head[108..112].copy_from_slice(&0f32.to_le_bytes());
        dir.write(&format!("{folder}/d.HDR"), &head);
        dir.write(&format!("{folder}/d.IMG"), &file[352..]);
    }
    let out = dir.compare(&[]).ok();
    assert!(out.stdout.lines().any(|l| l.starts_with("4 cases")), "{}", out.stdout);
    assert!((mean(&dir.json(&[]), "mae") - 0.5).abs() < 1e-6);
}

#[test]
fn two_files_of_one_case_are_refused_by_name() {
    let dir = Folders::new();
    dir.image("r/a.nii", 0.0);
    dir.image("p/a.nii", 0.0);
    dir.image("p/a.NII", 1.0);
    let out = dir.compare(&[]);
    assert_eq!(out.code, Some(1));
    assert!(out.stderr.contains("two files of one case, a.NII and a.nii"), "{}", out.stderr);
    // Two predictions of one reference.
    fs::rename(dir.path().join("p/a.NII"), dir.path().join("p/a_desc-synth_pet.nii")).unwrap();
    let out = dir.compare(&[]);
    assert!(out.code == Some(1) && out.stderr.contains("two predictions of r/a.nii"), "{}", out.stderr);
}

#[test]
fn what_is_left_out_is_listed() {
    let dir = Folders::new();
    for (name, more) in [("p/a.nii", 0.5), ("r/a.nii", 0.0), ("p/new.nii", 0.0), ("r/old.nii", 0.0)] {
        dir.image(name, more);
    }
    dir.write("r/b.mnc", b"CDF");
    fs::create_dir(dir.path().join("p/deeper")).unwrap();
    let out = dir.compare(&[]).ok().stdout;
    for line in [
        "1 predictions have no reference and are left out: new",
        "1 references have no prediction and are left out: old",
        "left out (convert them to .nii.gz): b.mnc",
        "p has 1 subfolders, which are not searched",
        "1 cases",
    ] {
        assert!(out.contains(line), "no `{line}` in {out}");
    }
    let json = dir.json(&[]);
    assert_eq!(json["files"]["predictions_without_reference"], serde_json::json!(["new"]));
    assert_eq!(json["files"]["references_without_prediction"], serde_json::json!(["old"]));
}

#[test]
fn predictions_of_this_program_find_their_references() {
    let dir = Folders::new();
    dir.image("p/sub-01_desc-synth_pet.nii", 0.5);
    dir.image("p/s005_t1_desc-synth_pet.nii", 0.5);
    dir.image("r/sub-01_pet.nii", 0.0);
    dir.image("r/s005_pet.nii", 0.0);
    dir.image("r/s006_pet.nii", 9.0);
    let out = dir.compare(&[]).ok().stdout;
    assert!(out.contains("sub-01_desc-synth_pet with sub-01_pet") && out.contains("2 cases"), "{out}");
    assert!((mean(&dir.json(&[]), "mae") - 0.5).abs() < 1e-6);
}

/// Two labels, the second one voxel further along x in the prediction.
fn labels(shift: usize) -> Vec<u8> {
    nifti(&DIMS, 0.0, |i| {
        let (x, y, z) = (i % 16, i / 16 % 14, i / 224);
        let within =
            |from: usize| (from..from + 4).contains(&x) && (4..8).contains(&y) && (4..8).contains(&z);
        f32::from(u8::from(within(2))) + 4.0 * f32::from(u8::from(within(9 + shift)))
    })
}

#[test]
fn label_maps_are_scored_label_by_label() {
    let dir = Folders::new();
    dir.write("p/a.nii", &labels(1));
    dir.write("r/a.nii", &labels(0));
    let out = dir.compare(&[]).ok().stdout;
    assert!(
        out.contains("compared as label maps") && out.contains("1 cases, label maps with the labels 1, 4"),
        "{out}"
    );
    let json = dir.json(&[]);
    // 64 voxels each; three of four layers agree. The surfaces are a voxel of 2 mm apart.
    assert_eq!((mean(&json, "dice_label1"), mean(&json, "dice_label4")), (1.0, 0.75));
    assert_eq!((mean(&json, "dice"), mean(&json, "sensitivity_label4")), (0.875, 0.75));
    assert_eq!((mean(&json, "hd95_label1"), mean(&json, "hd95_label4")), (0.0, 2.0));
    assert_eq!(json["labels"], serde_json::json!([1, 4]));
    // As images on request; and where a data range is given.
    assert!(dir.compare(&["--as", "images"]).ok().stdout.contains("data range 4"));
    assert!(dir.compare(&["--range", "4"]).ok().stdout.contains("data range 4"));
    // A mask hides a label; a prediction of fractions is no label map.
    dir.write("m/a.nii", &nifti(&DIMS, 0.0, |i| f32::from(u8::from(i % 16 < 8))));
    let json = dir.json(&["--mask", "m"]);
    assert_eq!((mean(&json, "dice_label1"), mean(&json, "dice_label4")), (1.0, 1.0));
    dir.write("p/a.nii", &nifti(&DIMS, 0.0, |i| (i % 10) as f32 * 0.1));
    let out = dir.compare(&[]).ok().stdout;
    assert!(out.contains("p/a.nii does not: compared as images"), "{out}");
    let out = dir.compare(&["--as", "labels"]);
    assert!(out.code == Some(1) && out.stderr.contains("p/a.nii is no label map"), "{}", out.stderr);
}

#[test]
fn a_label_in_neither_image_is_said_to_be_so() {
    let dir = Folders::new();
    dir.write("p/a.nii", &labels(0));
    dir.write("r/a.nii", &labels(0));
    let none = nifti(&DIMS, 0.0, |_| 0.0);
    dir.write("p/b.nii", &none);
    dir.write("r/b.nii", &none);
    let out = dir.compare(&[]).ok().stdout;
    assert!(out.contains("Dice 1 and HD95 0 there: 1 in b, 4 in b"), "{out}");
}

#[test]
fn what_is_no_number_outside_of_a_mask_does_not_matter() {
    let dir = Folders::new();
    let inside = |i: usize| (i / 16) % 14 >= 2;
    let image =
        |more: f32| nifti(&DIMS, 0.0, |i| if inside(i) { (i % 97) as f32 * 0.31 + more } else { f32::NAN });
    dir.write("p/a.nii", &image(0.25));
    dir.write("r/a.nii", &image(0.0));
    let out = dir.compare(&["--range", "2"]);
    assert!(
        out.code == Some(1) && out.stderr.contains("--mask") && !out.stderr.contains("data.nan"),
        "{}",
        out.stderr
    );
    // The mask itself may have NaN for "outside".
    dir.write("m/a.nii", &nifti(&DIMS, 0.0, |i| if inside(i) { 1.0 } else { f32::NAN }));
    let json = dir.json(&["--range", "2", "--mask", "m"]);
    assert!((mean(&json, "mae") - 0.25).abs() < 1e-6, "{json}");
    assert!(mean(&json, "ssim").is_finite());
    let said = dir.compare(&["--range", "2", "--mask", "m"]).ok().stdout;
    assert!(
        said.contains("read as 0 in both images: a") && said.contains("NaN in a mask is outside of it"),
        "{said}"
    );
    // Inside it does.
    dir.write("m/a.nii", &nifti(&DIMS, 0.0, |_| 1.0));
    let out = dir.compare(&["--range", "2", "--mask", "m"]);
    assert!(out.code == Some(1) && out.stderr.contains("inside of the mask"), "{}", out.stderr);
}

#[test]
fn another_order_of_the_same_voxels_is_the_same_image() {
    let dir = Folders::new();
    dir.image("p/a.nii", 0.5);
    // The reference runs to the left.
    let [w, h, d] = DIMS.map(usize::from);
    let at = |i: usize| (i / w) * w + (w - 1 - i % w);
    let mut mirrored = nifti(&DIMS, 0.0, |i| at(i) as f32 * 0.01);
    mirrored[280..284].copy_from_slice(&(-2f32).to_le_bytes());
    mirrored[292..296].copy_from_slice(&(2.0 * (w as f32 - 1.0)).to_le_bytes());
    assert_eq!(mirrored.len(), 352 + 4 * w * h * d);
    dir.write("r/a.nii", &mirrored);
    assert!((mean(&dir.json(&[]), "mae") - 0.5).abs() < 1e-6);
}

#[test]
fn nothing_is_overwritten_without_force() {
    let dir = Folders::new();
    dir.image("p/a.nii", 0.5);
    dir.image("r/a.nii", 0.0);
    dir.write("e.json", b"precious");
    let out = dir.compare(&["--json", "e.json"]);
    assert!(out.code == Some(1) && out.stderr.contains("e.json exists already"), "{}", out.stderr);
    assert_eq!(fs::read(dir.path().join("e.json")).unwrap(), b"precious");
    dir.compare(&["--json", "e.json", "--force"]).ok();
}

#[cfg(unix)]
mod bytes {
    use super::*;
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    fn run(dir: &Path, args: &[&OsStr]) -> (Option<i32>, String, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_gan")).current_dir(dir).args(args).output().unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    }

    fn os(bytes: &[u8]) -> OsString {
        OsStr::from_bytes(bytes).to_os_string()
    }

    #[track_caller]
    fn ok(dir: &Path, args: &[&[u8]]) -> String {
        let args: Vec<OsString> = args.iter().map(|a| os(a)).collect();
        let (code, out, err) = run(dir, &args.iter().map(OsString::as_os_str).collect::<Vec<_>>());
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    }

    /// Names as old file servers and archives leave them: Latin-1.
    #[test]
    fn paths_that_are_no_utf8_work_in_every_command() {
        let dir = common::workshop();
        let dir = dir.path();
        let folder = dir.join(os(b"J\xfcrgen"));
        fs::create_dir(&folder).unwrap();
        // The recipe's own relative paths start where the command runs.
        ok(dir, &[b"train", b"r.toml", b"--out", b"J\xfcrgen/run", b"--steps", b"2", b"--json-lines"]);
        fs::copy(dir.join("ph/sub-0001/anat/sub-0001_T1w.nii.gz"), folder.join(os(b"k\xf6pfe_t1.nii.gz")))
            .unwrap();
        let info = ok(dir, &[b"info", b"--json", b"J\xfcrgen/k\xf6pfe_t1.nii.gz"]);
        let info: Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["file"], r"J\xFCrgen/k\xF6pfe_t1.nii.gz");
        ok(dir, &[b"info", b"J\xfcrgen/run"]);
        ok(dir, &[b"info", b"J\xfcrgen/run/checkpoints/last_net_G.safetensors"]);
        ok(dir, &[b"predict", b"J\xfcrgen/run", b"J\xfcrgen/k\xf6pfe_t1.nii.gz", b"--out", b"J\xfcrgen/p"]);
        assert!(folder.join("p").join(os(b"k\xf6pfe_t1_desc-synth_pet.nii.gz")).is_file());
        ok(dir, &[b"evaluate", b"J\xfcrgen/run", b"--json", b"J\xfcrgen/e.json"]);
        let folders = [&b"evaluate"[..], b"--predictions", b"J\xfcrgen/p", b"--references", b"J\xfcrgen/p"];
        let said = ok(dir, &[&folders[..], &[&b"--range"[..], b"1"]].concat());
        assert!(said.contains(r"k\xF6pfe_t1_desc-synth_pet"), "{said}");
        ok(dir, &[b"report", b"J\xfcrgen/run"]);
        ok(dir, &[b"export", b"J\xfcrgen/run", b"--safetensors", b"J\xfcrgen/g.safetensors"]);
        ok(
            dir,
            &[b"train", b"r.toml", b"--out", b"J\xfcrgen/run", b"--steps", b"2", b"--resume", b"--quiet"],
        );
        ok(
            dir,
            &[b"sweep", b"r.toml", b"--seeds", b"1", b"--out", b"J\xfcrgen/s", b"--set", b"train.steps=2"],
        );
        // A recipe there, and a manifest that the recipe names by such a path.
        fs::copy(dir.join("r.toml"), folder.join("r.toml")).unwrap();
        ok(dir, &[b"train", b"J\xfcrgen/r.toml", b"--out", b"other", b"--steps", b"2", b"--quiet"]);
    }

    #[test]
    fn a_pattern_finds_files_below_such_a_folder() {
        let dir = common::workshop();
        let dir = dir.path();
        common::gan(dir, &["phantom", "ph", "--subjects", "6", "--size", "24,28,24", "--spacing", "8"]).ok();
        let folder = dir.join(os(b"J\xfcrgen"));
        fs::create_dir(&folder).unwrap();
        for i in 1..=6 {
            for (from, to) in [("anat", "T1w"), ("pet", "pet")] {
                let id = format!("sub-{i:04}");
                let found = fs::read_dir(dir.join(format!("ph/{id}/{from}"))).unwrap().flatten().find(|e| {
                    let name = e.file_name().into_string().unwrap();
                    name.ends_with(&format!("_{to}.nii.gz"))
                });
                fs::copy(found.unwrap().path(), folder.join(format!("{id}_{to}.nii.gz"))).unwrap();
            }
        }
        let text = fs::read_to_string(dir.join("r.toml")).unwrap();
        let line = text.lines().find(|l| l.starts_with("phantom")).unwrap();
        let own = "pattern = \"{subject}_{modality}.nii.gz\"\ninput = [\"T1w\"]\ntarget = [\"pet\"]";
        fs::write(folder.join("r.toml"), text.replace(line, own)).unwrap();
        let (code, _, err) = {
            let args = ["train", "r.toml", "--out", "run", "--steps", "2", "--quiet"].map(OsString::from);
            run(&folder, &args.iter().map(OsString::as_os_str).collect::<Vec<_>>())
        };
        assert_eq!(code, Some(0), "{err}");
    }
}
