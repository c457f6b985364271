//! Seeds and folds: every run is made once, measured on what it has not seen, and summarised.

#![allow(missing_docs)]

mod common;

use common::{gan, tree, workshop};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON")
}

fn names(v: &Value) -> BTreeSet<String> {
    v.as_array().expect("a list").iter().map(|s| s.as_str().expect("a name").to_string()).collect()
}

#[test]
fn seeds_times_folds_is_summarised_and_goes_on() {
    let dir = workshop();
    let dir = dir.path();
    let args = [
        "sweep",
        "r.toml",
        "--seeds",
        "2",
        "--folds",
        "2",
        "--out",
        "s",
        "--quiet",
        "--set",
        "train.steps=4",
    ];
    let out = gan(dir, &args).ok();
    for run in ["seed1-fold0", "seed1-fold1", "seed2-fold0", "seed2-fold1"] {
        assert!(dir.join("s").join(run).join("checkpoints/last_state.safetensors").exists(), "{run}");
        assert!(out.stdout.contains(run), "{}", out.stdout);
    }
    // Each fold is validated on by itself, and nobody from the test split is in any.
    let folds = json(&dir.join("s/splits_final.json"));
    let (a, b) = (names(&folds[0]["val"]), names(&folds[1]["val"]));
    assert!(a.is_disjoint(&b) && !a.is_empty() && !b.is_empty());
    assert_eq!((names(&folds[0]["train"]), names(&folds[1]["train"])), (b.clone(), a.clone()));
    let phantom = fs::read_to_string(dir.join("ph/manifest.csv")).expect("a manifest");
    let test: BTreeSet<String> = phantom
        .lines()
        .filter(|l| l.contains(",test,"))
        .map(|l| l.split(',').next().expect("a subject").to_string())
        .collect();
    assert!(!test.is_empty() && test.is_disjoint(&a) && test.is_disjoint(&b));
    assert_eq!(json(&dir.join("s/seed2-fold1/splits_final.json")), folds);
    // A run says which subjects it was measured on.
    let measured = gan(dir, &["evaluate", "s/seed1-fold1", "--split", "val", "--json", "e.json"]).ok();
    assert!(b.iter().all(|s| measured.stdout.contains(s)) && !a.iter().any(|s| measured.stdout.contains(s)));
    // The summary's mean and deviation are those of the runs.
    let summary = json(&dir.join("s/summary.json"));
    let runs = summary["cases"].as_array().expect("cases");
    assert_eq!(runs.len(), 4);
    let psnr: Vec<f64> =
        runs.iter().map(|r| r["psnr"].as_f64().or(r["scores"]["psnr"].as_f64()).expect("psnr")).collect();
    let mean = psnr.iter().sum::<f64>() / 4.0;
    let sd = (psnr.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
    let metrics = summary["metrics"].as_array().expect("metrics");
    let row = metrics.iter().find(|m| m["metric"] == "psnr").expect("psnr");
    assert!((row["sd"].as_f64().expect("a number") - sd).abs() < 1e-9 && sd > 0.0);
    let line = out.stdout.lines().find(|l| l.starts_with("psnr ")).expect("a line");
    assert!(line.contains(&format!("{mean:.4}")) && line.contains(&format!("± {sd:.4}")), "{line}");
    // The same command finds everything done.
    let before = tree(&dir.join("s"));
    assert_eq!(gan(dir, &args).ok().stdout, out.stdout);
    assert_eq!(tree(&dir.join("s")), before);
    // Lost in the middle, a run is made again with the same bytes.
    fs::remove_dir_all(dir.join("s/seed2-fold0")).expect("removed");
    gan(dir, &args).ok();
    let weights = "s/seed2-fold0/checkpoints/last_state.safetensors";
    assert_eq!(tree(&dir.join("s"))[&dir.join(weights)], before[&dir.join(weights)]);
    // Other settings are not mixed in.
    let mut other = args;
    other[10] = "train.steps=5";
    let refused = gan(dir, &other);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("`train.steps` (4 there, 5 here)"),
        "{}",
        refused.stderr
    );
}

#[test]
fn given_splits_are_used_and_without_folds_the_test_split_counts() {
    let dir = workshop();
    let dir = dir.path();
    gan(dir, &["phantom", "ph", "--subjects", "6", "--size", "24,28,24", "--spacing", "8"]).ok();
    let splits = r#"[{"train": ["sub-0001"], "val": ["sub-0002"]}, {"train": ["sub-0002"], "val": ["sub-0001", "sub-0003"]}]"#;
    fs::write(dir.join("mine.json"), splits).expect("written");
    let base = ["sweep", "r.toml", "--quiet", "--set", "train.steps=2"];
    let with = [&base[..], &["--folds", "2", "--splits", "mine.json", "--out", "s"]].concat();
    gan(dir, &with).ok();
    assert_eq!(json(&dir.join("s/splits_final.json")), serde_json::from_str::<Value>(splits).expect("JSON"));
    let three = [&base[..], &["--folds", "3", "--splits", "mine.json", "--out", "t"]].concat();
    let out = gan(dir, &three);
    assert!(out.code == Some(1) && out.stderr.contains("has 2 folds"), "{}", out.stderr);
    let out = gan(dir, &[&base[..], &["--out", "u"]].concat()).ok();
    assert!(out.stdout.contains("1 runs, each measured on the split `test`"), "{}", out.stdout);
    // The deviation of one run is unknown, and said to be.
    assert!(
        out.stdout.lines().any(|l| l.starts_with("psnr") && l.trim_end().ends_with('-')),
        "{}",
        out.stdout
    );
    // A single fold has a folder of its own.
    gan(dir, &["train", "r.toml", "--fold", "1", "--steps", "2", "--quiet", "--set", "data.folds=2"]).ok();
    assert!(dir.join("runs/tiny-fold1/splits_final.json").exists());
}
