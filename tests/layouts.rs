//! Folders as people have them: each layout, built small, is found, trained on for two steps with `--data`, and predicted from.

#![allow(missing_docs)]

mod common;

use common::{gan, nifti};
use gan::data::folder::{self, Layout};
use gan::data::{Split, Volume};
use std::fs;
use std::path::Path;

const DIMS: [u16; 3] = [16, 16, 4];

/// An image that no other is like.
fn image(path: &Path, seed: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, nifti(&DIMS, 0.0, |p| ((p * (seed + 3)) % 101) as f32 + seed as f32)).unwrap();
}

/// Labels 0, 1 and one more.
fn labels(path: &Path, most: f32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let label = |p: usize| [0.0, 1.0, most][p % 16 / 6];
    fs::write(path, nifti(&DIMS, 0.0, label)).unwrap();
}

fn picture(path: &Path, seed: usize, bright: bool) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, 16, 16);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    let value = |p: usize| ((p * (seed + 3)) % 61) as u8 + if bright { 120 } else { 0 };
    writer.write_image_data(&(0..256).map(value).collect::<Vec<u8>>()).unwrap();
    writer.finish().unwrap();
}

const PIX2PIX: &str = r#"
[model]
kind = "pix2pix"
generator = { kind = "unet", downs = 3, ngf = 4 }
discriminator = { kind = "patch", layers = 1, ndf = 4 }
"#;
const CYCLEGAN: &str = r#"
[model]
kind = "cyclegan"
generator = { kind = "resnet", ngf = 2, blocks = 1 }
discriminator = { kind = "patch", layers = 1, ndf = 4 }
"#;
const UNET: &str = r#"
[model]
kind = "supervised"
network = { kind = "unet", base = 2, downs = 2 }
[loss]
kind = "classes"
"#;
const CLASSIFIER: &str = r#"
[model]
kind = "supervised"
network = { kind = "mlp-discriminator", widths = [8] }
[loss]
kind = "image-class"
"#;

/// A recipe for `data`, whose own source is one that `--data` replaces.
fn recipe(dir: &Path, data: &str, model: &str) {
    let text = format!(
        "name = \"layout\"\n[data]\nphantom = {{ dir = \"ph\" }}\n{data}\nmin_foreground = 0.0\n[train]\nbatch = 2\nsteps = 2\n[validate]\nevery_epochs = 0\n{model}"
    );
    fs::write(dir.join("r.toml"), text).unwrap();
}

/// Trains, and gives what is said.
fn trained(dir: &Path, data: &str, model: &str) -> String {
    recipe(dir, data, model);
    let said = gan(dir, &["train", "r.toml", "--data", "d", "--out", "run"]).ok().stderr;
    assert!(!dir.join("ph").exists(), "the folder stands in the place of the recipe's own images");
    said
}

/// Predicts from files below `d`; what is printed.
fn predicted(dir: &Path, files: &[&str]) -> String {
    let files: Vec<String> = files.iter().map(|f| format!("d/{f}")).collect();
    let mut args = vec!["predict", "run", "--out", "p"];
    args.extend(files.iter().map(String::as_str));
    gan(dir, &args).ok().stdout.trim().to_string()
}

#[track_caller]
fn has_geometry_of(dir: &Path, made: &str, input: &str) {
    let (made, input) =
        (Volume::load(dir.join(made)).unwrap(), Volume::load(dir.join("d").join(input)).unwrap());
    assert_eq!((made.dims, made.affine()), (input.dims, input.affine()));
}

#[test]
fn bids() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    for i in 1..=6 {
        for session in ["ses-a", "ses-b"].iter().take(if i == 1 { 2 } else { 1 }) {
            let at = |name: &str| dir.join(format!("d/sub-{i:02}/{session}/{name}"));
            let stem = format!("sub-{i:02}_{session}");
            let seed = 10 * i + usize::from(*session == "ses-b");
            image(&at(&format!("anat/{stem}_T1w.nii")), seed);
            image(&at(&format!("anat/{stem}_ce-gadolinium_T1w.nii")), seed + 100);
            image(&at(&format!("pet/{stem}_trc-18FFDG_pet.nii")), seed + 200);
            labels(
                &dir.join(format!("d/derivatives/seg/sub-{i:02}/{session}/anat/{stem}_desc-tumour_dseg.nii")),
                2.0,
            );
        }
    }
    fs::write(dir.join("d/dataset_description.json"), "{}").unwrap();
    let rows: String = (1..=6)
        .map(|i| format!("sub-{i:02}\t{}\t{}\n", 30 + i, if i % 2 == 0 { "F" } else { "M" }))
        .collect();
    fs::write(dir.join("d/participants.tsv"), format!("participant_id\tage\tsex\n{rows}sub-99\tn/a\tF\n"))
        .unwrap();
    let found = folder::find(&dir.join("d")).unwrap();
    assert_eq!((found.layout, found.entries.len(), found.split), (Layout::Bids, 7, false));
    assert_eq!(found.modalities(), ["age", "ce-gadolinium_t1w", "dseg", "pet", "sex", "t1w"]);
    assert_eq!((found.entries[1].id.as_str(), found.entries[1].subject.as_str()), ("sub-01_ses-b", "sub-01"));
    assert_eq!(found.entries[1].cells["age"], "31");
    let said = trained(dir, "input = [\"t1w\"]\ntarget = [\"pet\"]", PIX2PIX);
    assert!(said.contains("d is read as BIDS: 7 cases"), "{said}");
    let input = "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii";
    let made = predicted(dir, &[input]);
    assert_eq!(made, "p/sub-02_ses-a_desc-synth_pet.nii.gz");
    has_geometry_of(dir, &made, input);
    // A column of participants.tsv is a target, too; a modality that is not there names those that are.
    recipe(dir, "input = [\"t1w\"]\ntarget = [\"sex\"]\nclasses = [\"M\", \"F\"]", CLASSIFIER);
    gan(dir, &["train", "r.toml", "--data", "d", "--out", "sex"]).ok();
    recipe(dir, "input = [\"flair\"]\ntarget = [\"pet\"]", PIX2PIX);
    let out = gan(dir, &["train", "r.toml", "--data", "d", "--out", "no"]);
    assert!(
        out.code == Some(1) && out.stderr.contains("`flair`") && out.stderr.contains("`t1w`"),
        "{}",
        out.stderr
    );
}

#[test]
fn nn_unet() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    for i in 0..6 {
        image(&dir.join(format!("d/imagesTr/case{i}_0000.nii")), i);
        image(&dir.join(format!("d/imagesTr/case{i}_0001.nii")), 50 + i);
        labels(&dir.join(format!("d/labelsTr/case{i}.nii")), 2.0);
    }
    image(&dir.join("d/imagesTs/case9_0000.nii"), 90);
    image(&dir.join("d/imagesTr/stray.nii"), 91);
    let about = r#"{ "channel_names": { "0": "T1", "1": "FLAIR" }, "labels": { "background": 0, "core": 1, "rim": 2 }, "numTraining": 6, "file_ending": ".nii" }"#;
    fs::write(dir.join("d/dataset.json"), about).unwrap();
    let found = folder::find(&dir.join("d")).unwrap();
    assert_eq!(
        (found.layout, found.modalities()),
        (Layout::NnUnet, ["flair", "label", "t1"].map(String::from).into())
    );
    let said = trained(
        dir,
        "input = [\"t1\", \"flair\"]\ntarget = [\"label\"]\nlabels = { values = [0, 1, 2] }",
        UNET,
    );
    for words in ["nnU-Net raw: 6 cases", "1 core", "2 rim", "imagesTs", "stray.nii"] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    let made = predicted(dir, &["imagesTr/case3_0000.nii", "imagesTr/case3_0001.nii"]);
    has_geometry_of(dir, &made, "imagesTr/case3_0000.nii");
    fs::write(dir.join("d/dataset.json"), "{ \"channel_names\": ").unwrap();
    let out = gan(dir, &["train", "r.toml", "--data", "d", "--out", "no"]);
    assert!(out.code == Some(1) && out.stderr.contains("dataset.json"), "{}", out.stderr);
}

#[test]
fn decathlon() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let mut list = Vec::new();
    for i in 0..6 {
        image(&dir.join(format!("d/imagesTr/spleen_{i}.nii")), i);
        image(&dir.join(format!("d/imagesTr/._spleen_{i}.nii")), i);
        labels(&dir.join(format!("d/labelsTr/spleen_{i}.nii")), 0.0);
        list.push(serde_json::json!({ "image": format!("./imagesTr/spleen_{i}.nii"), "label": format!("./labelsTr/spleen_{i}.nii") }));
    }
    let about = serde_json::json!({ "modality": { "0": "CT" }, "labels": { "0": "background", "1": "spleen" }, "training": list, "test": ["./imagesTs/x.nii"] });
    fs::write(dir.join("d/dataset.json"), about.to_string()).unwrap();
    let said = trained(dir, "input = [\"ct\"]\ntarget = [\"label\"]\nlabels = { values = [0, 1] }", UNET);
    assert!(said.contains("Medical Segmentation Decathlon: 6 cases") && said.contains("1 spleen"), "{said}");
    has_geometry_of(dir, &predicted(dir, &["imagesTr/spleen_2.nii"]), "imagesTr/spleen_2.nii");
    // Several modalities in one file of four axes.
    let about = about.to_string().replace("{\"0\":\"CT\"}", "{\"0\":\"FLAIR\",\"1\":\"T1w\"}");
    fs::write(dir.join("d/dataset.json"), about).unwrap();
    let out = gan(dir, &["train", "r.toml", "--data", "d", "--out", "no"]);
    assert!(out.code == Some(1) && out.stderr.contains("four axes"), "{}", out.stderr);
}

#[test]
fn brats_of_either_year() {
    for (case, endings, most) in [
        ("BraTS20_Training_00", ["_t1", "_t1ce", "_t2", "_flair", "_seg"], 4.0),
        ("BraTS-GLI-0000", ["-t1n", "-t1c", "-t2w", "-t2f", "-seg"], 3.0),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        for i in 0..6 {
            let id = if most == 4.0 { format!("{case}{i}") } else { format!("{case}{i}-000") };
            let at = |ending: &str| dir.join(format!("d/Training/{id}/{id}{ending}.nii"));
            (0..4).for_each(|k| image(&at(endings[k]), 10 * i + k));
            labels(&at(endings[4]), most);
        }
        image(&dir.join("d/Training/other/brain1_t1.nii"), 99);
        let found = folder::find(&dir.join("d")).unwrap();
        let said = found.notes.lines().join("\n");
        assert!(said.contains("left out, as they are no case of BraTS") && said.contains("other"), "{said}");
        assert_eq!(found.layout, Layout::Brats);
        assert_eq!(found.modalities(), ["flair", "seg", "t1", "t1ce", "t2"]);
        let patient = if most == 4.0 { "BraTS20_Training_003" } else { "BraTS-GLI-00003" };
        assert_eq!(found.entries[3].subject, patient, "visits of one patient stay together");
        let data = format!(
            "input = [\"t1ce\", \"flair\"]\ntarget = [\"seg\"]\nlabels = {{ values = [0, 1, {most}] }}"
        );
        let said = trained(dir, &data, UNET);
        assert!(
            said.contains("BraTS: 6 cases") && said.contains(&format!("{most} enhancing tumour")),
            "{said}"
        );
        let id = &found.entries[3].id;
        let inputs = [1, 3].map(|k| format!("Training/{id}/{id}{}.nii", endings[k]));
        has_geometry_of(dir, &predicted(dir, &[&inputs[0], &inputs[1]]), &inputs[0]);
    }
}

#[test]
fn synthrad() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    for i in 1..=6 {
        let at = |name: &str| dir.join(format!("d/Task1/brain/1BA00{i}/{name}.mha"));
        image(&dir.join("x.nii"), i);
        let volume = Volume::load(dir.join("x.nii")).unwrap();
        fs::create_dir_all(at("mr").parent().unwrap()).unwrap();
        volume.save(at("mr")).unwrap();
        let ct = Volume::like(&volume, volume.voxels.iter().map(|v| 10.0 * v - 1000.0).collect());
        ct.save(at("ct")).unwrap();
        ct.save(at("mask")).unwrap();
    }
    let said = trained(dir, "input = [\"mr\"]\ntarget = [\"ct\"]", PIX2PIX);
    assert!(said.contains("SynthRAD: 6 cases of `ct`, `mask`, `mr`"), "{said}");
    let made = predicted(dir, &["Task1/brain/1BA002/mr.mha"]);
    assert_eq!(made, "p/mr_desc-synth_ct.mha");
    has_geometry_of(dir, &made, "Task1/brain/1BA002/mr.mha");
}

#[test]
fn pairs_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    for i in 0..8 {
        let part = ["train", "train", "train", "test"][i % 4];
        picture(&dir.join(format!("d/A/{part}/x{i}.png")), i, false);
        picture(&dir.join(format!("d/B/{part}/x{i}.png")), 30 + i, true);
    }
    picture(&dir.join("d/A/train/alone.png"), 77, false);
    let said = trained(dir, "input = [\"A\"]\ntarget = [\"B\"]", PIX2PIX);
    for words in ["paired folders A and B: 8 cases", "alone.png", "no validation split"] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    let made = predicted(dir, &["A/test/x3.png"]);
    assert_eq!(made, "p/x3_desc-synth_B.png");
    has_geometry_of(dir, &made, "A/test/x3.png");
    // One name in two splits would be one patient in both.
    picture(&dir.join("d/A/test/x0.png"), 78, false);
    picture(&dir.join("d/B/test/x0.png"), 79, false);
    let out = gan(dir, &["train", "r.toml", "--data", "d", "--out", "no"]);
    assert!(out.code == Some(1) && out.stderr.contains("`x0` stands in"), "{}", out.stderr);
}

#[test]
fn two_sets_without_pairs() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    for i in 0..6 {
        let part = ["train", "train", "test"][i % 3];
        picture(&dir.join(format!("d/{part}A/x{i}.png")), i, false);
        picture(&dir.join(format!("d/{part}B/y{i}.png")), 30 + i, true);
    }
    let found = folder::find(&dir.join("d")).unwrap();
    assert_eq!((found.layout, found.entries.len(), found.split), (Layout::Unpaired, 12, true));
    let said =
        trained(dir, "input = [\"A\"]\ntarget = [\"B\"]\nunpaired = true\nsplit = [1.0, 0.0, 0.0]", CYCLEGAN);
    assert!(said.contains("trainA and trainB: 12 cases"), "{said}");
    has_geometry_of(dir, &predicted(dir, &["testA/x2.png"]), "testA/x2.png");
}

#[test]
fn classes() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    for i in 0..16 {
        let (part, ill) = (["train", "val"][i % 8 / 6], i % 2 == 1);
        let class = if ill { "ill" } else { "healthy" };
        picture(&dir.join(format!("d/{part}/{class}/x{i}.png")), i, ill);
    }
    picture(&dir.join("d/train/stray.png"), 99, true);
    let found = folder::find(&dir.join("d")).unwrap();
    assert!(found.notes.lines().join("\n").contains("stray.png"));
    assert_eq!((found.layout, found.split), (Layout::Classes, true));
    assert_eq!(
        (found.classes.join(" "), found.modalities().join(" ")),
        ("healthy ill".into(), "class image".into())
    );
    assert_eq!(found.entries.iter().filter(|e| e.split == Split::Val).count(), 4);
    // The classes are those of the folder.
    let said = trained(dir, "input = [\"image\"]\ntarget = [\"class\"]", CLASSIFIER);
    assert!(
        said.contains("class folders: 16 cases") && said.contains("every image counts as a patient"),
        "{said}"
    );
    let recipe = fs::read_to_string(dir.join("run/recipe.toml")).unwrap();
    assert!(recipe.contains("healthy") && recipe.contains("ill"), "{recipe}");
    let made = predicted(dir, &["val/ill/x7.png"]);
    let text = fs::read_to_string(dir.join(made)).unwrap();
    assert!(text.starts_with("image,class,p_healthy,p_ill\n"), "{text}");
}

#[test]
fn folders_of_no_layout_are_refused_with_what_they_hold() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    recipe(dir, "input = [\"t1\"]\ntarget = [\"pet\"]", PIX2PIX);
    let refused = |words: &[&str]| {
        let out = gan(dir, &["train", "r.toml", "--data", "d", "--out", "run"]);
        assert_eq!(out.code, Some(1), "{}", out.stderr);
        words.iter().for_each(|w| assert!(out.stderr.contains(w), "no `{w}` in {}", out.stderr));
    };
    refused(&["d does not exist"]);
    fs::write(dir.join("d"), "").unwrap();
    refused(&["d is no folder"]);
    fs::remove_file(dir.join("d")).unwrap();
    fs::create_dir_all(dir.join("d/stuff")).unwrap();
    refused(&["no layout that is known", "`stuff`", "data.pattern"]);
    // A folder for each patient is no class.
    for i in 0..4 {
        (0..2).for_each(|k| image(&dir.join(format!("d/patient{i}/m{k}.nii")), 10 * i + k));
    }
    refused(&["no layout that is known", "`patient0`"]);
    fs::create_dir_all(dir.join("d/A")).unwrap();
    fs::create_dir_all(dir.join("d/B")).unwrap();
    refused(&["looks like paired folders A and B, but holds no case"]);
}
