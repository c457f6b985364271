//! `gan kernels tune`, and what training does with its table.

use crate::standin::Bench;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The one table in the cache.
fn table(bench: &Bench) -> PathBuf {
    let folder = bench.dir.path().join("cache/kernels/choices");
    let files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn json(path: &std::path::Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("written")).expect("JSON")
}

/// Gives every shape of the table the smallest tiles and one slice.
fn replace_all(path: &std::path::Path) {
    let mut all = json(path);
    for chosen in all["choices"].as_object_mut().expect("a map").values_mut() {
        chosen["variant"] = "16x16/1".into();
    }
    std::fs::write(path, all.to_string()).expect("written");
}

/// The grids that were recorded, each once.
fn grids(bench: &Bench) -> BTreeSet<String> {
    bench.log().into_iter().filter(|l| l.starts_with("cuLaunchKernel") && l.ends_with("recorded")).collect()
}

const TRAIN: [&str; 4] = ["--steps", "2", "--set", "validate.every_epochs=0"];

#[test]
fn variants_are_timed_taken_and_recorded() {
    let Some(bench) = Bench::new() else { return };
    let plain = bench.train_in("plain", &TRAIN).ok();
    assert!(!plain.stderr.contains("as they were measured"), "{}", plain.stderr);
    let by_rule = grids(&bench);

    let out = bench.run(&["kernels", "tune", "r.toml", "--size", "16"]).ok();
    assert!(out.stdout.contains(" shapes of convolutions: "), "{}", out.stdout);
    let path = table(&bench);
    let first = json(&path);
    assert_eq!(first["place"]["device"], "Stand-in 0");
    let shapes = first["choices"].as_object().expect("a map").len();
    assert!(shapes > 10, "{first}");
    // Another precision adds to it.
    bench.run(&["kernels", "tune", "r.toml", "--size", "16", "--precision", "bf16"]).ok();
    let both = json(&path);
    assert!(both["choices"].as_object().expect("a map").len() > shapes);

    // The recipe's own extents, which the table was not asked for yet.
    bench.run(&["kernels", "tune", "r.toml"]).ok();
    replace_all(&path);
    let out = bench.train_in("tuned", &TRAIN).ok();
    assert!(out.stderr.contains("shapes are as they were measured (choices.json)"), "{}", out.stderr);
    let tuned = grids(&bench);
    assert_ne!(tuned, by_rule, "other tiles, other grids");
    let run = bench.dir.path().join("tuned");
    assert_eq!(json(&run.join("choices.json")), json(&path), "kept in the run's folder");
    let digest = json(&run.join("run.json"))["choices"].clone();
    assert!(digest.as_str().is_some_and(|d| d.len() == 32), "{digest}");

    // Another run by the same choices, and one by the rule.
    bench.train_in("again", &[&TRAIN[..], &["--choices", "tuned/choices.json"]].concat()).ok();
    assert_eq!(grids(&bench), tuned);
    assert_eq!(json(&bench.dir.path().join("again/run.json"))["choices"], digest);
    bench.train_in("ruled", &[&TRAIN[..], &["--choices", "none"]].concat()).ok();
    assert_eq!(grids(&bench), by_rule);
    assert!(json(&bench.dir.path().join("ruled/run.json")).get("choices").is_none());
}

#[test]
fn a_run_keeps_the_variants_that_it_was_begun_with() {
    let Some(mut bench) = Bench::new() else { return };
    // Stopped in the middle: with more steps than are left to it.
    let steps = ["--steps", "12", "--set", "validate.every_epochs=0"];
    let lost = |bench: &mut Bench, out: &str, more: &[&str]| {
        bench.set("STANDIN_FAIL", "cuGraphLaunch 8 719");
        let stopped = bench.train_in(out, &[&steps[..], more].concat());
        assert_eq!(stopped.code, Some(1), "{}", stopped.stderr);
        bench.set("STANDIN_FAIL", "");
        grids(bench)
    };
    let by_rule = lost(&mut bench, "before", &[]);
    bench.run(&["kernels", "tune", "r.toml"]).ok();
    let path = table(&bench);
    replace_all(&path);
    let tuned = lost(&mut bench, "tuned", &[]);
    assert_ne!(tuned, by_rule);
    // The table goes bad. A run that was begun before it goes on by the rule; one that took it goes on by its own copy.
    std::fs::write(&path, "no table").expect("written");
    bench.train_in("before", &[&steps[..], &["--resume"]].concat()).ok();
    assert_eq!(grids(&bench), by_rule);
    bench.train_in("tuned", &[&steps[..], &["--resume"]].concat()).ok();
    assert_eq!(grids(&bench), tuned);
    let predicted = |bench: &Bench, run: &str| {
        bench.run(&["evaluate", run, "--device", "cuda"]).ok();
        grids(bench)
    };
    assert_ne!(predicted(&bench, "tuned"), predicted(&bench, "before"));

    // A new run is refused, in a sentence that names the file; and so is one whose own copy was changed.
    let refused = |out: crate::common::Outcome, words: &[&str]| {
        assert_eq!(out.code, Some(1), "{}", out.stderr);
        for word in words {
            assert!(out.stderr.contains(word), "{word:?} is missing in: {}", out.stderr);
        }
    };
    let file = path.file_name().expect("a file").to_string_lossy().into_owned();
    let new = bench.train_in("new", &steps);
    refused(
        new,
        &[&file, "is no table of kernel variants", "delete it, and make it anew with `gan kernels tune`"],
    );
    assert!(!bench.dir.path().join("new").exists());
    refused(bench.run(&["kernels", "tune", "r.toml"]), &[&file, "is no table of kernel variants"]);
    refused(bench.train_in("new", &[&steps[..], &["--choices", "none.json"]].concat()), &["none.json"]);
    bench.train_in("new", &[&steps[..], &["--choices", "none"]].concat()).ok();
    let own = bench.dir.path().join("tuned/choices.json");
    let text = std::fs::read_to_string(&own).expect("there").replacen("16x16/1", "32x16/1", 1);
    std::fs::write(&own, text).expect("written");
    let changed = bench.run(&["evaluate", "tuned", "--device", "cuda"]);
    refused(changed, &["choices.json is not the table of kernel variants that the run was begun with"]);
    std::fs::remove_file(&own).expect("there");
    refused(
        bench.run(&["evaluate", "tuned", "--device", "cuda"]),
        &["choices.json", "restore it from a copy"],
    );
    // On the CPU none of it matters.
    bench.run(&["evaluate", "tuned"]).ok();
    let out = bench.run(&["kernels", "tune", "r.toml", "--device", "cpu"]);
    assert_eq!(out.code, Some(2), "{}", out.stderr);
}
