//! `gan profile` on the CPU: its sums, its files, and what it compares.

#![allow(missing_docs)]

mod common;

use common::{gan, workshop};
use gan::profile::Profile;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Steps of some milliseconds on any machine: the tiny recipe's would be done between two looks at a clock.
const LARGER: [&str; 6] = [
    "--set",
    "data.phantom={ dir = \"ph48\", subjects = 6, size = [48, 56, 48], spacing = 4.0 }",
    "--set",
    "model.generator={ kind = \"unet\", downs = 4, ngf = 16 }",
    "--set",
    "model.discriminator={ kind = \"patch\", layers = 2, ndf = 16 }",
];

fn profiled(dir: &Path, more: &[&str]) -> Profile {
    let args = [&["profile", "r.toml", "--json", "p.json", "--threads", "1"], &LARGER[..], more].concat();
    gan(dir, &args).ok();
    Profile::read(&dir.join("p.json")).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_parts_of_a_step_add_up_to_its_wall_time() {
    let dir = workshop();
    let p = profiled(dir.path(), &["--steps", "6"]);
    let rows: f64 = p.kernels.iter().map(|k| k.total_ms).sum();
    let s = &p.shares;
    assert!((rows - s.calls_ms).abs() < 1e-6 * rows, "rows {rows}, calls {}", s.calls_ms);
    // What was timed by itself: operations, copies, waiting for batches, reading losses. The rest of the wall time is what
    // the host does in between.
    let inputs = s.compute_ms + s.copies_ms - s.calls_ms;
    let timed = rows + inputs + s.idle_data_ms + s.idle_synchronisation_ms;
    assert!(timed <= s.step_ms * (1.0 + 1e-9), "{timed} ms timed within {}", s.step_ms);
    assert!(timed >= 0.95 * s.step_ms, "{timed} of {} ms are accounted for: {s:?}", s.step_ms);
    let phases: f64 = p.layers.iter().filter(|l| l.depth == 0).map(|l| l.total_ms).sum();
    assert!((phases - rows).abs() < 1e-6 * rows, "the layers have {phases}, the rows {rows}");
    for l in &p.layers {
        let sum: f64 = l.phases.values().sum();
        assert!((sum - l.total_ms).abs() < 1e-6 * rows, "{l:?}");
    }

    assert_eq!(p.step.ms.len(), 6);
    assert!(p.step.min_ms <= p.step.p25_ms && p.step.p25_ms <= p.step.median_ms, "{:?}", p.step);
    assert!(p.step.median_ms <= p.step.p75_ms && p.step.p75_ms <= p.step.max_ms, "{:?}", p.step);
    let flops: f64 = p.kernels.iter().map(|k| k.flops as f64 * k.calls).sum();
    assert_eq!(flops, p.work.flops as f64);
    let floors: f64 = p.kernels.iter().map(|k| k.floor_ms).sum();
    assert!((floors - p.work.floor_ms).abs() < 1e-6 * floors, "{floors} and {}", p.work.floor_ms);
    assert!(p.kernels.iter().all(|k| k.calls.fract() == 0.0 && k.gpu.is_none()));
    assert!(p.kernels.windows(2).all(|w| w[0].total_ms >= w[1].total_ms));
    assert_eq!(p.mending.len(), 3);
    for phase in ["D real", "D fake", "D backward", "G forward", "G loss", "G backward", "optimiser"] {
        assert!(p.kernels.iter().any(|k| k.phase == phase), "no phase {phase}");
    }
    let m = &p.memory;
    assert_eq!(m.total_bytes, m.kept.total() + m.temporaries_bytes);
    assert_eq!(m.kept.optimiser, 2 * m.kept.parameters, "Adam has two moments");
    let program = &m.programs[0];
    let peak = program.live.iter().map(|l| l.total()).max().expect("operations");
    assert_eq!(peak, program.peak.total());
    // A network's flat gradient is reserved as a whole when the first part of it is computed: more than lives.
    let reserved = program.reserved_bytes;
    assert!(peak <= reserved && 2 * peak > reserved, "{peak} of {reserved}");
    assert!(p.input.batch_ms.is_some_and(|ms| ms > 0.0) && p.input.steps == 12, "{:?}", p.input);
}

/// Step times are what the recipe's own training needs: several programs, runs without a batch, an image pool, patches.
#[test]
fn every_kind_of_step_can_be_profiled() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    for (file, set) in [
        (
            "wgan-gp-mr.toml",
            vec!["model.generator.ngf=4", "model.discriminator.ndf=4", "train.batch=2", "loss.n_critic=5"],
        ),
        (
            "mr2pet-cyclegan.toml",
            vec!["model.generator.ngf=2", "model.discriminator.ndf=2", "model.generator.blocks=1"],
        ),
        ("unet3d-tumour.toml", vec!["model.network.base=2", "data.patch=[16, 16, 16]"]),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let path = recipes.join(file).display().to_string();
        let mut args = vec!["profile", &path, "--steps", "1", "--json", "p.json"];
        set.iter().for_each(|s| args.extend(["--set", s]));
        args.extend(["--set", "data.phantom.dir=\"ph\"", "--set", "data.phantom.subjects=6"]);
        let out = gan(dir.path(), &args).ok();
        assert!(out.stdout.contains("most to gain"), "{file}: {}", out.stdout);
        let p = Profile::read(&dir.path().join("p.json")).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(p.shares.compute_ms > 0.0 && p.work.product_flops > 0, "{file}");
        let batches = if file.starts_with("wgan") { 5.0 } else { 1.0 };
        assert_eq!(p.input.batches, batches, "{file}");
    }
}

/// The rules of the Trace Event Format for the kinds of events that there are: keys, types, nesting.
fn check_trace(trace: &Value) {
    let events = trace["traceEvents"].as_array().expect("a list of events");
    assert!(trace["displayTimeUnit"] == "ms" && trace["otherData"].is_object());
    let mut threads: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    let mut named = Vec::new();
    for e in events {
        let number = |key: &str| e[key].as_f64().unwrap_or_else(|| panic!("{key} of {e}"));
        assert!(e["name"].as_str().is_some_and(|n| !n.is_empty()), "{e}");
        assert!(e["pid"].is_u64() && e["args"].is_object(), "{e}");
        match e["ph"].as_str().expect("a kind") {
            "X" => {
                let (ts, dur) = (number("ts"), number("dur"));
                assert!(ts >= 0.0 && dur >= 0.0 && e["cat"].is_string(), "{e}");
                threads.entry(e["tid"].as_u64().expect("a thread")).or_default().push((ts, ts + dur));
            }
            "C" => {
                assert!(number("ts") >= 0.0, "{e}");
                let values = e["args"].as_object().expect("series");
                assert!(!values.is_empty() && values.values().all(Value::is_number), "{e}");
            }
            "M" => {
                assert!(e["args"]["name"].is_string(), "{e}");
                named.extend(e["tid"].as_u64());
            }
            other => panic!("no such kind is written: {other}"),
        }
    }
    for (thread, mut spans) in threads {
        assert!(named.contains(&thread), "thread {thread} has no name");
        spans.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<f64> = Vec::new();
        for (from, to) in spans {
            // Times are decimal microseconds: neighbours may overlap by a rounding.
            open.retain(|end| *end > from + 1e-3);
            assert!(open.iter().all(|end| to <= end + 1e-3), "spans of thread {thread} overlap at {from}");
            open.push(to);
        }
    }
}

#[test]
fn the_trace_keeps_to_its_format_and_stays_small() {
    let dir = workshop();
    let p = profiled(dir.path(), &["--steps", "5", "--trace", "t.json"]);
    let text = fs::read_to_string(dir.path().join("t.json")).expect("written");
    let trace: Value = serde_json::from_str(&text).expect("JSON");
    check_trace(&trace);
    let count = |name: &str| {
        let events = trace["traceEvents"].as_array().expect("a list");
        events.iter().filter(|e| e["name"].as_str().is_some_and(|n| n.starts_with(name))).count()
    };
    assert_eq!(count("step "), 3, "three steps, however many were measured");
    assert_eq!(count("temporaries of program"), 3 * p.work.calls as usize);
    assert!(count("wait for a batch") == 3 && count("read losses") == 3 && count("copy inputs") == 3);
    assert!(text.len() < 2_000_000, "{} bytes", text.len());
}

#[test]
#[should_panic(expected = "overlap")]
fn a_trace_whose_spans_cross_is_found_out() {
    let span = |ts: f64, dur: f64| json!({"ph": "X", "pid": 1, "tid": 1, "ts": ts, "dur": dur, "name": "a", "cat": "b", "args": {}});
    let name = json!({"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "x"}});
    let events = [name, span(0.0, 10.0), span(5.0, 10.0)];
    check_trace(&json!({"traceEvents": events, "displayTimeUnit": "ms", "otherData": {}}));
}

#[test]
fn the_page_needs_nothing_else() {
    let dir = workshop();
    profiled(dir.path(), &["--steps", "2", "--html", "p.html"]);
    let page = fs::read_to_string(dir.path().join("p.html")).expect("written");
    assert!(!page.contains("{{"), "a place was not filled");
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "the page refers to something else: {outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("@media print"));
    let data = page.split("type=\"application/json\">").nth(1).and_then(|t| t.split("</script>").next());
    let data: Value = serde_json::from_str(data.expect("data")).expect("JSON");
    assert_eq!(data["format"], "gan-profile");
}

/// A stored profile, changed.
fn variant(change: impl Fn(&mut Value)) -> String {
    let mut p: Value = serde_json::from_str(include_str!("profile-v1.json")).expect("JSON");
    change(&mut p);
    p.to_string()
}

fn slowed(factor: f64) -> String {
    variant(|p| {
        let step = p["step"].as_object_mut().expect("times");
        for (key, value) in step.iter_mut().filter(|(k, _)| k.contains("ms")) {
            match value {
                Value::Array(all) => all.iter_mut().for_each(|v| *v = json!(v.as_f64().unwrap() * factor)),
                v => *v = json!(v.as_f64().unwrap_or_else(|| panic!("{key}")) * factor),
            }
        }
        let kernel = &mut p["kernels"][0]["total_ms"];
        *kernel = json!(kernel.as_f64().unwrap() * factor * factor);
    })
}

/// Files of this version are read by every program of this version: the stored one is from the first.
#[test]
fn a_comparison_fails_only_where_the_step_is_slower() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| fs::write(dir.path().join(name), text).expect("written");
    write("old.json", variant(|_| {}));
    let diff =
        |new: &str, more: &[&str]| gan(dir.path(), &[&["profile", "diff", "old.json", new], more].concat());
    let same = diff("old.json", &[]);
    assert!(same.code == Some(0) && same.stdout.contains("no change beyond the noise"), "{same:?}");
    for (factor, more, code, word) in [
        (1.2, &[][..], 1, "slower"),
        (0.8, &[], 0, "faster"),
        (1.02, &[], 0, "no change"),
        (1.2, &["--threshold", "30"], 0, "no change"),
    ] {
        write("new.json", slowed(factor));
        let out = diff("new.json", more);
        assert_eq!(out.code, Some(code), "{factor}: {out:?}");
        assert!(out.stdout.contains(word), "{factor}: {}", out.stdout);
        // The one that changed most is named first.
        let table = out.stdout.split("the largest changes:").nth(1).expect("a table");
        assert!(table.trim_start().lines().next().is_some_and(|l| l.contains("conv")), "{table}");
    }
    // Steps that scatter this much say nothing about a fifth.
    write("new.json", slowed(1.2));
    write("old.json", variant(|p| p["step"]["ms"] = json!([1.0, 9.0, 2.0, 8.0])));
    let noisy = diff("new.json", &[]);
    assert!(noisy.code == Some(0) && noisy.stdout.contains("no change"), "{noisy:?}");
    write("old.json", variant(|p| p["subject"]["batch"] = json!(7)));
    assert!(diff("old.json", &[]).code == Some(0));
    write("new.json", variant(|_| {}));
    assert!(diff("new.json", &[]).stdout.contains("not alike: batch: 7 then"));
}

#[test]
fn what_cannot_be_compared_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    write("good.json", &variant(|_| {}));
    write("later.json", &variant(|p| p["version"] = json!(2)));
    write("other.json", "{\"format\": \"something\", \"version\": 1}");
    write("damaged.json", "{\"format\": ");
    for (file, word) in [
        ("later.json", "profile of version 2"),
        ("other.json", "is no profile"),
        ("damaged.json", "is no profile"),
        ("absent.json", "cannot read"),
    ] {
        let out = gan(dir.path(), &["profile", "diff", "good.json", file]);
        assert!(
            out.code == Some(1) && out.stderr.contains(word) && out.stderr.lines().count() == 1,
            "{out:?}"
        );
    }
    for args in [
        &["profile"][..],
        &["profile", "diff", "good.json"],
        &["profile", "diff", "good.json", "good.json", "--threshold", "-1"],
        &["profile", "r.toml", "--steps", "0"],
    ] {
        let out = gan(dir.path(), args);
        assert_eq!(out.code, Some(2), "{args:?}: {out:?}");
    }
}

/// Nothing is left in the working directory but what was asked for, and the phantom.
#[test]
fn a_profile_leaves_no_run() {
    let dir = workshop();
    gan(dir.path(), &["profile", "r.toml", "--steps", "1"]).ok();
    let mut left: Vec<_> =
        fs::read_dir(dir.path()).expect("readable").map(|e| e.expect("readable").file_name()).collect();
    left.sort();
    assert_eq!(left, ["ph", "r.toml"]);
}
