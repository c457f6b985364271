//! Targets that are no images, from a table to predictions: classes, findings, numbers.

#![allow(missing_docs)]

mod common;

use common::{gan, nifti, tree};
use std::fs;
use std::path::Path;

/// Extents of an image: three slices of 32 x 32.
const DIMS: [u16; 3] = [32, 32, 3];

/// Twenty subjects. Of every other one the images have a bright square in the upper half (finding `a`), of every third one in
/// the lower half (finding `b`); `age` is the brightness of both.
fn cohort(dir: &Path) {
    let mut table = String::from("subject,split,t1,diagnosis,findings,age\n");
    for i in 0..20usize {
        let (a, b) = (i.is_multiple_of(2), i.is_multiple_of(3));
        let bright = |p: usize| {
            let (x, y) = (p % 32, p / 32 % 32);
            let noise = ((p * 31 + i * 17) % 13) as f32 * 0.5;
            let square = |low: usize| (8..24).contains(&x) && (low..low + 12).contains(&y);
            noise + 10.0 + if a && square(18) { 60.0 } else { 0.0 } + if b && square(2) { 60.0 } else { 0.0 }
        };
        fs::write(dir.join(format!("s{i}.nii")), nifti(&DIMS, 0.0, bright)).unwrap();
        let split = ["train", "train", "train", "val", "test"][i % 5];
        let findings = match (a, b) {
            (true, true) => "a|b",
            (true, false) => "a",
            (false, true) => "b",
            (false, false) => "No Finding",
        };
        let (diagnosis, age) =
            (if a { "ill" } else { "healthy" }, 20 + 30 * usize::from(a) + 10 * usize::from(b));
        table += &format!("s{i},{split},s{i}.nii,{diagnosis},{findings},{age}\n");
    }
    fs::write(dir.join("m.csv"), table).unwrap();
}

fn recipe(target: &str, loss: &str) -> String {
    format!(
        r#"
name = "answers"
[data]
manifest = "m.csv"
input = ["t1"]
{target}
min_foreground = 0.0
augment = {{ flip = 0.0 }}
normalise_input = {{ method = "fixed", low = 0.0, high = 80.0 }}
[model]
kind = "supervised"
network = {{ kind = "vgg", depth = 11, width = 4, batch_norm = true, pool = 1, hidden = 8, dropout = 0.0 }}
[loss]
kind = "{loss}"
[optimiser]
lr = 0.003
rule = {{ kind = "adam" }}
[train]
batch = 6
steps = 60
epochs = 1
decay_epochs = 1
[validate]
every_epochs = 5
[log]
every = 10
checkpoint_every = 20
"#
    )
}

/// Trains, and gives what `gan evaluate` writes.
fn measured(dir: &Path, target: &str, loss: &str) -> serde_json::Value {
    cohort(dir);
    fs::write(dir.join("r.toml"), recipe(target, loss)).unwrap();
    gan(dir, &["train", "r.toml", "--out", "run", "--quiet"]).ok();
    let out = gan(dir, &["evaluate", "run", "--checkpoint", "last", "--json", "e.json"]).ok();
    assert!(out.stdout.contains("the network is "), "{}", out.stdout);
    serde_json::from_slice(&fs::read(dir.join("e.json")).unwrap()).unwrap()
}

fn predicted(dir: &Path) -> Vec<Vec<String>> {
    gan(dir, &["predict", "run", "s4.nii", "s9.nii", "--out", "out", "--checkpoint", "last"]).ok();
    let text = fs::read_to_string(dir.join("out/predictions.csv")).unwrap();
    text.lines().map(|l| l.split(',').map(String::from).collect()).collect()
}

#[test]
fn a_class_is_learned_measured_and_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let target = "target = [\"diagnosis\"]\nclasses = [\"healthy\", \"ill\"]\nbalance = true";
    let json = measured(dir, target, "image-class");
    let scores = &json["network"]["scores"];
    assert_eq!(scores["auroc"]["mean"], 1.0, "{json:#}");
    assert_eq!(scores["accuracy"]["mean"], 1.0);
    assert_eq!(
        json["network"]["confusion"]["rows_true_columns_predicted"],
        serde_json::json!([[2, 0], [0, 2]])
    );
    assert_eq!(json["majority_class"]["scores"]["auroc"]["mean"], 0.5);
    let rows = predicted(dir);
    assert_eq!(rows[0], ["t1", "diagnosis", "p_healthy", "p_ill"]);
    assert_eq!((rows[1][0].as_str(), rows[1][1].as_str()), ("s4.nii", "ill"));
    assert_eq!((rows[2][0].as_str(), rows[2][1].as_str()), ("s9.nii", "healthy"));
    let sum: f64 = rows[1][2..].iter().map(|p| p.parse::<f64>().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    // What is there is not overwritten, and an answer that changed is said.
    let again = gan(dir, &["predict", "run", "s4.nii", "--out", "out"]);
    assert!(again.code == Some(1) && again.stderr.contains("--force"), "{}", again.stderr);
    let table = fs::read_to_string(dir.join("m.csv")).unwrap();
    fs::write(dir.join("m.csv"), table.replace("s4.nii,ill", "s4.nii,healthy")).unwrap();
    let out = gan(dir, &["evaluate", "run"]).ok();
    assert!(out.stdout.contains("was `ill`, now `healthy`"), "{}", out.stdout);
    gan(dir, &["report", "run", "--out", "r.html"]).ok();
    let html = fs::read_to_string(dir.join("r.html")).unwrap();
    assert!(html.contains("auroc") && html.contains("majority class"));
    gan(dir, &["export", "run", "--onnx", "c.onnx"]).ok();
}

#[test]
fn findings_are_learned_measured_and_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let json = measured(dir, "target = [\"findings\"]\nfindings = [\"a\", \"b\"]", "findings");
    assert_eq!(json["network"]["scores"]["auroc"]["mean"], 1.0, "{json:#}");
    assert_eq!(json["network"]["classes"]["a"]["cases"], 2);
    let rows = predicted(dir);
    assert_eq!(rows[0], ["t1", "findings", "p_a", "p_b"]);
    assert_eq!((rows[1][1].as_str(), rows[2][1].as_str()), ("a", "b"));
}

#[test]
fn numbers_are_learned_measured_and_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let json = measured(dir, "target = [\"age\"]\nnumbers = true", "numbers");
    let scores = &json["network"]["scores"];
    // Ages are 20 to 60, the mean's error is 14.
    assert!(scores["mae"]["mean"].as_f64().unwrap() < 4.0, "{json:#}");
    let rows = predicted(dir);
    assert_eq!(rows[0], ["t1", "age"]);
    let age = |i: usize| rows[i][1].parse::<f64>().unwrap();
    assert!((age(1) - 50.0).abs() < 8.0 && (age(2) - 30.0).abs() < 8.0, "{rows:?}");
}

/// A volume at a time in place of slices: what it says of overlapping patches is averaged.
#[test]
fn volumes_are_classified_by_patches() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    cohort(dir);
    for i in 0..20 {
        fs::write(
            dir.join(format!("s{i}.nii")),
            nifti(&[32, 32, 40], 0.0, |p| ((p * (i + 1) + i) % 37) as f32),
        )
        .unwrap();
    }
    let target = |depth| {
        format!("target = [\"diagnosis\"]\nclasses = [\"healthy\", \"ill\"]\npatch = [{depth}, 32, 32]")
    };
    let write = |depth, network: &str| {
        let vgg = "{ kind = \"vgg\", depth = 11, width = 4, batch_norm = true, pool = 1, hidden = 8, dropout = 0.0 }";
        let text = recipe(&target(depth), "image-class");
        assert!(text.contains(vgg));
        fs::write(dir.join("r.toml"), text.replace(vgg, network)).unwrap();
        gan(dir, &["train", "r.toml", "--out", "run", "--steps", "2", "--set", "train.batch=2"])
    };
    let vgg = "{ kind = \"vgg\", depth = 11, width = 1, pool = 1, hidden = 4 }";
    // Five halvings do not fit eight slices, and patches' logits are no class of the whole.
    for (depth, network, words) in [
        (8, vgg, "32 or above"),
        (32, "{ kind = \"patch\", layers = 1, ndf = 2 }", "must be image -> vector"),
    ] {
        let out = write(depth, network);
        assert!(out.code == Some(1) && out.stderr.contains(words), "{}", out.stderr);
    }
    write(32, vgg).ok();
    gan(dir, &["predict", "run", "s4.nii", "--out", "out"]).ok();
    let text = fs::read_to_string(dir.join("out/predictions.csv")).unwrap();
    let p: Vec<f64> = text.lines().nth(1).unwrap().split(',').skip(2).map(|v| v.parse().unwrap()).collect();
    assert!(p.len() == 2 && (p[0] + p[1] - 1.0).abs() < 1e-5, "{text}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    cohort(dir);
    let classes = "target = [\"diagnosis\"]\nclasses = [\"healthy\", \"ill\"]";
    for (target, loss, words) in [
        (
            "target = [\"diagnosis\"]\nclasses = [\"healthy\", \"sick\"]",
            "image-class",
            ["`ill`", "data.classes"],
        ),
        (
            "target = [\"diagnose\"]\nclasses = [\"healthy\", \"ill\"]",
            "image-class",
            ["`diagnose`", "did you mean `diagnosis`"],
        ),
        ("target = [\"diagnosis\"]", "image-class", ["data.classes", "for example"]),
        (classes, "numbers", ["data.numbers", "for example"]),
        (classes, "distance", ["data.classes", "image-class"]),
        ("target = [\"age\"]\nnumbers = true\nbalance = true", "numbers", ["balance", "classes"]),
        ("target = [\"diagnosis\"]\nnumbers = true", "numbers", ["`ill`", "no number"]),
        ("target = [\"findings\"]\nfindings = [\"a\", \"c\"]", "findings", ["lists `b`", "data.findings"]),
        ("target = [\"diagnosis\"]\nclasses = [\"ill\"]", "image-class", ["classes", "two"]),
        ("target = [\"age\"]\nnumbers = true\nfindings = [\"a\"]", "numbers", ["findings", "keep one"]),
    ] {
        fs::write(dir.join("r.toml"), recipe(target, loss)).unwrap();
        let before = tree(dir);
        let out = gan(dir, &["train", "r.toml", "--out", "run", "--quiet"]);
        assert_eq!(out.code, Some(1), "{target}\n{}", out.stderr);
        let line = out.stderr.lines().find(|l| l.starts_with("gan: ")).unwrap_or_default().to_string();
        words.iter().for_each(|w| assert!(line.contains(w), "{target}: no `{w}` in {line}"));
        assert_eq!(tree(dir), before, "{target}");
    }
}
