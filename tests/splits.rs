//! The split belongs to the run: nobody whom it was trained on is ever measured as unseen, whatever happens to the folder,
//! the manifest or the seed; and one patient, one image is in one split only.

#![allow(missing_docs)]

mod common;

use common::{Outcome, gan, nifti, tree};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const SHAPE: [u16; 3] = [16, 16, 12];

/// A subject's image: no two are alike.
fn image(subject: usize, target: bool) -> Vec<u8> {
    let [nx, ny] = [16, 16];
    nifti(&SHAPE, 0.0, |i| {
        let (x, y, z) = (i % nx, i / nx % ny, i / (nx * ny));
        let noise = (i * (31 + 2 * subject)) % 17;
        let inside = (2..14).contains(&x) && (2..14).contains(&y);
        let v = if inside { 40 + 3 * x + 2 * y + z + noise } else { 0 };
        if target { 0.01 * (300 - v) as f32 } else { v as f32 }
    })
}

fn add(dir: &Path, name: &str, subject: usize) {
    fs::create_dir_all(dir.join("data")).unwrap();
    fs::write(dir.join(format!("data/{name}_t1.nii")), image(subject, false)).unwrap();
    fs::write(dir.join(format!("data/{name}_pet.nii")), image(subject, true)).unwrap();
}

const PATTERN: &str = "pattern = \"data/{subject}_{modality}.nii\"\nsplit = [0.5, 0.25, 0.25]";
const MANIFEST: &str = "manifest = \"data/list.csv\"";

fn recipe(dir: &Path, source: &str) {
    let text = format!(
        "name = \"small\"\n[data]\n{source}\n[model]\nkind = \"pix2pix\"\ngenerator = {{ kind = \"unet\", downs = 2, ngf = 2 }}\ndiscriminator = {{ kind = \"patch\", layers = 1, ndf = 2 }}\n[train]\nbatch = 2\nsteps = 2\n[log]\nevery = 1\nsamples = 0\n"
    );
    fs::write(dir.join("r.toml"), text).unwrap();
}

/// Six subjects: four to learn from, s4 to choose by, s5 to report on.
fn six(dir: &Path) -> String {
    let mut list = "subject,split,t1,pet\n".to_string();
    for i in 0..6 {
        add(dir, &format!("s{i}"), i);
        let split = ["train", "train", "train", "train", "val", "test"][i];
        list += &format!("s{i},{split},s{i}_t1.nii,s{i}_pet.nii\n");
    }
    fs::write(dir.join("data/list.csv"), &list).unwrap();
    recipe(dir, MANIFEST);
    list
}

fn train(dir: &Path, more: &[&str]) -> Outcome {
    gan(dir, &[&["train", "r.toml", "--out", "run"], more].concat())
}

/// The subjects that are measured on a split.
fn measured(dir: &Path, split: &str) -> BTreeSet<String> {
    let out = gan(dir, &["evaluate", "run", "--split", split, "--json", "scores.json", "--force"]).ok();
    assert!(!out.stdout.is_empty());
    let all: Value = serde_json::from_slice(&fs::read(dir.join("scores.json")).unwrap()).unwrap();
    let cases = all["network"]["cases"].as_array().unwrap();
    cases.iter().map(|c| c["case"].as_str().unwrap().to_string()).collect()
}

fn notes(run: &Path) -> Vec<String> {
    let all: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    all["notes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_string()).collect()
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no `{word}` in:\n{text}");
    }
}

/// Refused by one line with these words, before anything is written.
#[track_caller]
fn refused(dir: &Path, args: &[&str], words: &[&str]) {
    let before = tree(dir);
    let out = gan(dir, args);
    assert_eq!(out.code, Some(1), "{}{}", out.stdout, out.stderr);
    let last = out.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("gan: "), "{}", out.stderr);
    says(last, words);
    assert_eq!(tree(dir), before, "something was written");
}

#[test]
fn new_patients_are_in_no_split_of_a_run_that_was_dealt_before() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for i in 10..16 {
        add(dir, &format!("p{i}"), i);
    }
    recipe(dir, PATTERN);
    train(dir, &["--quiet"]).ok();
    let before = ["train", "val", "test"].map(|s| measured(dir, s));
    for i in 0..3 {
        add(dir, &format!("p0{i}"), i);
    }
    let after = ["train", "val", "test"].map(|s| measured(dir, s));
    assert_eq!(before, after);
    let out = gan(dir, &["evaluate", "run"]).ok();
    says(&out.stdout, &["note: new in", "p00, p01, p02", "left out"]);
    // Another seed in the run's recipe deals nobody anew.
    let file = dir.join("run/recipe.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("split_seed = 1", "split_seed = 9")).unwrap();
    assert_eq!(before, ["train", "val", "test"].map(|s| measured(dir, s)));
    fs::write(&file, text).unwrap();
    // It goes on with its own subjects, too.
    let out = train(dir, &["--resume"]).ok();
    says(&out.stderr, &["resuming run", "note: new in"]);
    assert_eq!(before, ["train", "val", "test"].map(|s| measured(dir, s)));
}

#[test]
fn an_edited_manifest_does_not_change_who_is_unseen() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let list = six(dir);
    train(dir, &["--quiet"]).ok();
    let edited = list.replace("s0,train", "s0,test").replace("s5,test", "s5,train");
    fs::write(dir.join("data/list.csv"), edited).unwrap();
    assert_eq!(measured(dir, "test"), ["s5".to_string()].into());
    says(
        &gan(dir, &["evaluate", "run"]).ok().stdout,
        &["would be in another split now", "s0 (train, now test)"],
    );
    refused(
        dir,
        &["train", "r.toml", "--out", "run", "--resume"],
        &["run began with s0 in `train`", "`test`", "--out"],
    );
    // Without a manifest the run still knows its files.
    fs::remove_file(dir.join("data/list.csv")).unwrap();
    assert_eq!(measured(dir, "test"), ["s5".to_string()].into());
}

#[test]
fn files_that_changed_are_noticed() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    six(dir);
    train(dir, &["--quiet"]).ok();
    let (s0, s5) = (dir.join("data/s0_t1.nii"), dir.join("data/s5_t1.nii"));
    let keep = [fs::read(&s0).unwrap(), fs::read(&s5).unwrap()];
    // A test image that is corrected is said; one that is a training image now is refused.
    fs::write(&s5, image(77, false)).unwrap();
    says(
        &gan(dir, &["evaluate", "run"]).ok().stdout,
        &["not the test image that the run began with", "s5_t1.nii of s5"],
    );
    fs::write(&s5, &keep[0]).unwrap();
    refused(dir, &["evaluate", "run"], &["s5_t1.nii", "image of s0", "trained on"]);
    fs::write(&s5, &keep[1]).unwrap();
    // Training goes on with the same images only.
    fs::write(&s0, image(78, false)).unwrap();
    refused(
        dir,
        &["train", "r.toml", "--out", "run", "--resume"],
        &["s0_t1.nii", "not the file that run began with", "--out"],
    );
    fs::write(&s0, &keep[0]).unwrap();
    train(dir, &["--resume"]).ok();
    fs::remove_file(&s5).unwrap();
    refused(dir, &["evaluate", "run"], &["s5_t1.nii", "is gone", "put it back"]);
}

#[test]
fn a_run_of_an_earlier_version_says_that_it_does_not_know_its_split() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    six(dir);
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old_run");
    for (path, kind) in tree(&old) {
        let to = dir.join("run").join(path.strip_prefix(&old).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if kind != "folder" {
            fs::copy(&path, &to).unwrap();
        }
    }
    assert!(!dir.join("run/splits.json").exists());
    let out = gan(dir, &["evaluate", "run"]).ok();
    says(&out.stdout, &["note: run has no splits.json", "can't be known whom it was trained on", "s5"]);
    assert_eq!(measured(dir, "test"), ["s5".to_string()].into());
    // It goes on, and still does not pretend to know.
    let out = train(dir, &["--resume"]).ok();
    says(&out.stderr, &["note: run has no splits.json"]);
    assert!(!dir.join("run/splits.json").exists());
}

#[test]
fn visits_of_a_patient_stay_together() {
    for (names, patients) in [
        (
            [
                "sub-00_ses-1",
                "sub-00_ses-2",
                "sub-01_ses-1",
                "sub-01_ses-2",
                "sub-02_ses-1",
                "sub-02_ses-2",
                "sub-03_ses-1",
                "sub-03_ses-2",
            ],
            6,
        ),
        (
            [
                "BraTS-GLI-00000-000",
                "BraTS-GLI-00000-001",
                "BraTS-GLI-00001-000",
                "BraTS-GLI-00001-001",
                "BraTS-GLI-00002-000",
                "BraTS-GLI-00002-001",
                "BraTS-GLI-00003-000",
                "BraTS-GLI-00003-001",
            ],
            15,
        ),
    ] {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        for (i, name) in names.iter().enumerate() {
            add(dir, name, i);
        }
        recipe(dir, PATTERN);
        let out = train(dir, &[]).ok();
        says(&out.stderr, &["visits of one patient", "data.visits_in_names", names[0]]);
        let of = |s| measured(dir, s).iter().map(|id| id[..patients].to_string()).collect::<BTreeSet<_>>();
        let (a, b, c) = (of("train"), of("val"), of("test"));
        assert!(a.is_disjoint(&b) && a.is_disjoint(&c) && b.is_disjoint(&c), "{a:?} {b:?} {c:?}");
        assert_eq!((a.len(), b.len(), c.len()), (2, 1, 1));
        // A list that tears them apart is refused, unless it says that they are different people.
        let row = |i: usize, split: &str| format!("{0},{split},{0}_t1.nii,{0}_pet.nii\n", names[i]);
        let list =
            ["subject,split,t1,pet\n".to_string(), row(0, "train"), row(1, "test"), row(2, "val")].concat();
        fs::write(dir.join("data/list.csv"), list).unwrap();
        recipe(dir, MANIFEST);
        let args = ["train", "r.toml", "--out", "other"];
        refused(dir, &args, &[names[0], names[1], "visits of one patient", "data.visits_in_names"]);
        gan(dir, &[&args[..], &["--set", "data.visits_in_names=false"]].concat()).ok();
    }
}

#[test]
fn channel_suffixes_are_no_visits() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for i in 0..6 {
        add(dir, &format!("case_{i:04}_0000"), i);
    }
    recipe(dir, PATTERN);
    let out = train(dir, &[]).ok();
    assert!(!out.stderr.contains("visits"), "{}", out.stderr);
    assert_eq!(measured(dir, "train").len(), 2);
}

#[test]
fn the_split_column_is_known_under_other_names_or_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let list = six(dir).replace("s0,train", "s0,TEST ").replace("s5,test", "s5,Train");
    let with = |header: &str| {
        fs::write(dir.join("data/list.csv"), list.replacen("subject,split", header, 1)).unwrap()
    };
    for header in [
        "subject,Split",
        "subject, SPLIT ",
        "subject,set",
        "Subject ,split",
        "subject_id,partition",
        "Patient ID,fold",
    ] {
        with(header);
        let out = train(dir, &[]).ok();
        says(&out.stderr, &["note: ", "is read as `"]);
        assert_eq!(measured(dir, "test"), ["s0".to_string()].into(), "{header}");
        fs::remove_dir_all(dir.join("run")).unwrap();
    }
    let args = ["train", "r.toml", "--out", "run"];
    with("subject,gruppe");
    refused(dir, &args, &["list.csv", "`gruppe`", "rename it to `split`"]);
    with("who,split");
    refused(dir, &args, &["list.csv", "no column `subject`"]);
    fs::write(
        dir.join("data/list.csv"),
        list.replacen("split", "fold", 1).replace("TEST ", "0").replace("train", "1"),
    )
    .unwrap();
    refused(dir, &args, &["list.csv", "`fold`", "data.splits"]);
    fs::write(dir.join("data/list.csv"), list.replacen("split", "set", 1).replace(",val,", ",vla,")).unwrap();
    refused(dir, &args, &["list.csv", "`set`", "`vla`"]);
    // What is in no use is said.
    let aged = list
        .replacen("split,", "split,age,", 1)
        .replace("n,s", "n,44,s")
        .replace("TEST ,", "TEST,50,")
        .replace("val,", "val,51,");
    fs::write(dir.join("data/list.csv"), aged).unwrap();
    says(&train(dir, &[]).ok().stderr, &["columns of the manifest that are not used: age"]);
}

#[test]
fn the_same_image_in_two_splits_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let list = six(dir);
    let args = ["train", "r.toml", "--out", "run"];
    // A line that was copied under a new name.
    fs::write(dir.join("data/list.csv"), list.replace("s5_t1", "s0_t1").replace("s5_pet", "s0_pet")).unwrap();
    refused(dir, &args, &["the same file", "s0 (in train", "s5 (in test"]);
    // Input and target are one file.
    fs::write(dir.join("data/list.csv"), list.replace("s3_t1", "s3_pet")).unwrap();
    refused(dir, &args, &["input and target of s3", "s3_pet.nii", "data.degrade"]);
    gan(dir, &["train", "r.toml", "--out", "degraded", "--set", "data.degrade={ downsample = 2 }"]).ok();
    fs::write(dir.join("data/list.csv"), &list).unwrap();
    // The same voxels in other bytes: of validation and of test subjects.
    let own = [fs::read(dir.join("data/s4_pet.nii")).unwrap(), fs::read(dir.join("data/s5_t1.nii")).unwrap()];
    let mut copy = image(1, true);
    copy[148..152].copy_from_slice(b"copy");
    fs::write(dir.join("data/s4_pet.nii"), &copy).unwrap();
    refused(dir, &args, &["the same image", "s1 (in train", "s4 (in val", "s4_pet.nii"]);
    fs::write(dir.join("data/s4_pet.nii"), &own[0]).unwrap();
    let mut copy = image(2, false);
    copy[148..152].copy_from_slice(b"copy");
    fs::write(dir.join("data/s5_t1.nii"), &copy).unwrap();
    refused(dir, &args, &["the same image", "s2 (in train", "s5 (in test", "s5_t1.nii"]);
    fs::write(dir.join("data/s5_t1.nii"), &own[1]).unwrap();
    // Within a split it is said.
    fs::write(dir.join("data/list.csv"), list.replace("s1_t1", "s0_t1")).unwrap();
    says(&train(dir, &[]).ok().stderr, &["the same image stands twice", "s0_t1.nii of s0"]);
}

#[test]
#[cfg(unix)]
fn links_to_one_file_are_one_file() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    six(dir);
    fs::remove_file(dir.join("data/s5_t1.nii")).unwrap();
    std::os::unix::fs::symlink("s0_t1.nii", dir.join("data/s5_t1.nii")).unwrap();
    refused(dir, &["train", "r.toml", "--out", "run"], &["the same file", "s0_t1.nii", "s5_t1.nii"]);
}

#[test]
fn what_is_done_to_the_data_is_said_and_stands_in_run_json() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for i in 10..16 {
        add(dir, &format!("p{i}"), i);
    }
    fs::write(dir.join("data/p99_pet.nii"), image(99, true)).unwrap();
    recipe(dir, &format!("{PATTERN}\ncanvas = [12, 20]\nslice_range = [0.2, 0.9]"));
    let set = ["--set", "train.batch=4", "--set", "data.augment={ flip = 0.5, noise = 0.1 }"];
    let out = train(dir, &set).ok();
    let all = notes(&dir.join("run"));
    for words in [
        "dealt by data.split",
        "`pet` but no `t1`: p99",
        "padded with their volume's smallest value",
        "cropped to the canvas of 12 x 20",
        "training slices of `t1` are left out",
        "training slices are mirrored with probability 0.5 (`data.augment.flip`)",
        "changed at random (data.augment): noise",
        "a predicted `pet` lies between",
        "left out of each epoch",
    ] {
        let note = all.iter().find(|n| n.contains(words));
        let note = note.unwrap_or_else(|| panic!("no `{words}` in {all:#?}"));
        says(&out.stderr, &[&format!("note: {note}")]);
    }
    // Before step 1.
    let step = out.stderr.find("step 1/").unwrap();
    assert!(out.stderr.rfind("note: ").unwrap() < step);
}

#[test]
fn what_can_be_known_is_said_before_the_first_step() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let list = six(dir);
    let args = ["train", "r.toml", "--out", "run", "--set"];
    let with = |set: &'static str| [&args[..], &[set]].concat();
    refused(
        dir,
        &with("data.canvas=[8, 8]"),
        &["8 x 8", "SSIM's window", "data.canvas", "validate.every_epochs"],
    );
    refused(dir, &with("train.batch=500"), &["`train.batch` is 500"]);
    fs::write(dir.join("data/list.csv"), list.replace(",val,", ",train,")).unwrap();
    refused(dir, &with("seed=1"), &["no subject is in the split `val`"]);
    fs::write(dir.join("data/list.csv"), list.replace(",test,", ",train,")).unwrap();
    says(&train(dir, &[]).ok().stderr, &["no subject is in the split `test`"]);
}

#[test]
fn a_prediction_of_a_training_image_is_called_that() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    six(dir);
    train(dir, &["--quiet"]).ok();
    fs::copy(dir.join("data/s1_t1.nii"), dir.join("renamed.nii")).unwrap();
    let out = gan(dir, &["predict", "run", "renamed.nii", "--out", "a"]).ok();
    says(&out.stderr, &["renamed.nii is an image of s1", "trained on"]);
    let out = gan(dir, &["predict", "run", "data/s5_t1.nii", "--out", "b"]).ok();
    assert!(!out.stderr.contains("trained on"), "{}", out.stderr);
}

#[test]
fn a_sweep_keeps_its_splits() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for i in 10..16 {
        add(dir, &format!("p{i}"), i);
    }
    recipe(dir, PATTERN);
    for folds in [&[][..], &["--folds", "2"][..]] {
        let args = [&["sweep", "r.toml", "--out", "sw", "--quiet"], folds].concat();
        gan(dir, &args).ok();
        let more = [&args[..], &["--seeds", "2"]].concat();
        add(dir, "p00", 0);
        refused(dir, &more, &["sw", "--out"]);
        fs::remove_file(dir.join("data/p00_t1.nii")).unwrap();
        fs::remove_file(dir.join("data/p00_pet.nii")).unwrap();
        gan(dir, &more).ok();
        fs::remove_dir_all(dir.join("sw")).unwrap();
    }
}

#[test]
fn the_record_names_files_with_their_digests() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    six(dir);
    let out = train(dir, &[]).ok();
    says(&out.stderr, &["splits: 12 images, their digests taken in"]);
    let all: Value = serde_json::from_slice(&fs::read(dir.join("run/splits.json")).unwrap()).unwrap();
    assert_eq!(all["train"].as_array().unwrap().len(), 4);
    let case = &all["test"][0]["cases"][0];
    assert_eq!((&all["test"][0]["subject"], &case["id"]), (&"s5".into(), &"s5".into()));
    let file = &case["images"]["t1"];
    assert_eq!(file["file"], "data/s5_t1.nii");
    assert_eq!(file["sha256"], common::sha256(&dir.join("data/s5_t1.nii")).as_str());
    assert_eq!(file["bytes"], fs::metadata(dir.join("data/s5_t1.nii")).unwrap().len());
    // A damaged record is refused: nobody is guessed.
    fs::write(dir.join("run/splits.json"), "{").unwrap();
    refused(dir, &["evaluate", "run"], &["splits.json is damaged", "restore it from a copy"]);
}
