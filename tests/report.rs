//! `gan report`: the page is well-formed, needs nothing else, and says what the run's files say.

#![allow(missing_docs)]

mod common;

use common::{gan, not_checked, workshop};
use std::fs;
use std::path::Path;
use std::process::Command;

fn train(dir: &Path, out: &str, more: &[&str]) {
    gan(dir, &[&["train", "r.toml", "--out", out, "--quiet", "--steps", "6"], more].concat()).ok();
}

/// Compares a page with the runs' files, by Python's own XML parser.
#[track_caller]
fn check(dir: &Path, args: &[&str]) {
    let python = std::env::var("GAN_PYTHON").unwrap_or_else(|_| "python3".into());
    if !Command::new(&python).arg("--version").output().is_ok_and(|o| o.status.success()) {
        return not_checked(&format!("there is no {python}; set GAN_PYTHON"));
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/check_report.py");
    let out = Command::new(&python).arg(script).args(args).current_dir(dir).output().expect("it starts");
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && text.contains("the page agrees"), "{text}{errors}");
}

#[test]
fn a_page_agrees_with_the_run_s_files() {
    let dir = workshop();
    let dir = dir.path();
    train(dir, "a", &[]);
    train(dir, "b", &["--set", "loss.lambda_l1=10", "--set", "about=\"a < b & \\\"c\\\" > d\""]);
    gan(dir, &["evaluate", "a", "--json", "a.json"]).ok();
    let out = gan(dir, &["report", "a"]).ok();
    assert_eq!((out.stdout.trim(), out.stderr.as_str()), ("report.html", ""));
    check(dir, &["report.html", "a", "a.json"]);
    gan(dir, &["evaluate", "b", "--split", "val", "--json", "b.json"]).ok();
    gan(dir, &["report", "b", "a", "--split", "val", "--out", "two.html"]).ok();
    check(dir, &["two.html", "b", "b.json"]);
    let two = fs::read_to_string(dir.join("two.html")).expect("a page");
    assert!(two.contains("loss.lambda_l1") && two.contains("Difference from b"), "what differs is shown");
}

#[test]
fn what_is_missing_is_said_on_the_page() {
    let dir = workshop();
    let dir = dir.path();
    train(dir, "half", &[]);
    for gone in ["checkpoints", "samples"] {
        fs::remove_dir_all(dir.join("half").join(gone)).expect("there");
    }
    for (file, said) in [("metrics.csv", "no step was logged yet"), ("run.json", "run.json")] {
        fs::remove_file(dir.join("half").join(file)).expect("there");
        let out = gan(dir, &["report", "half", "--out", "half.html"]).ok();
        let page = fs::read_to_string(dir.join("half.html")).expect("a page");
        for word in [said, "no last checkpoint", "no sample pictures", "no scores of the split"] {
            assert!(page.contains(word) && out.stderr.contains(word), "no `{word}`: {}", out.stderr);
        }
        check(dir, &["half.html"]);
    }
    fs::write(dir.join("half/metrics.csv"), "not a table").expect("written");
    let out = gan(dir, &["report", "half", "--split", "none", "--out", "half.html"]).ok();
    assert!(out.stderr.contains("metrics.csv is no table"), "{}", out.stderr);
    check(dir, &["half.html"]);
}

#[test]
fn bad_wishes_are_refused() {
    let dir = workshop();
    let dir = dir.path();
    fs::create_dir(dir.join("empty")).expect("made");
    for (args, code, word) in [
        (&["report", "nowhere"][..], 1, "no run folder"),
        (&["report", "empty"], 1, "no run folder"),
        (&["report", "empty", "--split", "some"], 2, "train, val, test or none"),
        (&["report"], 2, "RUN"),
    ] {
        let out = gan(dir, args);
        assert!(
            out.code == Some(code) && out.stderr.contains(word),
            "{args:?}: {:?} {}",
            out.code,
            out.stderr
        );
    }
    train(dir, "run", &[]);
    let out = gan(dir, &["report", "run", "--out", "empty"]);
    assert!(out.code == Some(1) && out.stderr.contains("is a folder"), "{}", out.stderr);
    let out = gan(dir, &["report", "run", "--split", "none", "--out", "no/such/folder.html"]);
    assert!(out.code == Some(1) && out.stderr.contains("folder.html"), "{}", out.stderr);
    assert!(!dir.join("report.html").exists());
}
