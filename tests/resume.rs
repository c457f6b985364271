//! A run that is killed and resumed ends with the same bytes as one that was not.

#![allow(missing_docs)]

mod common;

use common::{Random, gan, leftovers, sha256, start, tree, workshop};
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The files that must be equal.
const RESULTS: [&str; 6] = [
    "checkpoints/last_net_G.safetensors",
    "checkpoints/last_net_D.safetensors",
    "checkpoints/last_state.safetensors",
    "checkpoints/best_net_G.safetensors",
    "checkpoints/best_net_D.safetensors",
    "metrics.csv",
];

/// Everything that a run remembers beside its weights: dropout's random numbers (a U-Net of six levels has dropout), a
/// pool of older images, a running mean of the weights, a plateau's counters.
const MEMORIES: [&str; 7] = [
    "model.generator.downs=6",
    "model.generator.ngf=2",
    "model.generator.dropout=0.5",
    "loss.pool=5",
    "optimiser.ema=0.9",
    "optimiser.schedule={ kind = \"plateau\", factor = 0.5, patience = 0 }",
    "train.steps=60",
];

fn train(out: &str, set: &[&str], more: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = ["train", "r.toml", "--out", out].map(String::from).into();
    for s in set {
        args.extend(["--set".to_string(), s.to_string()]);
    }
    args.extend(more.iter().map(ToString::to_string));
    args
}

fn run(dir: &Path, out: &str, set: &[&str], more: &[&str]) -> common::Outcome {
    let args = train(out, set, more);
    gan(dir, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn begin(dir: &Path, out: &str, set: &[&str], more: &[&str]) -> Child {
    let args = train(out, set, more);
    start(dir, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The last step in `metrics.csv`.
fn step(run: &Path) -> u64 {
    let text = fs::read_to_string(run.join("metrics.csv")).unwrap_or_default();
    text.lines().rev().find_map(|l| l.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// Waits until the run is past `steps` and a little more; false if it ended before.
fn wait_for(child: &mut Child, run: &Path, steps: u64, extra: Duration) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while step(run) < steps {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "no step {steps} within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(extra);
    child.try_wait().expect("a child").is_none()
}

/// Kills the run (SIGKILL) at a random moment beyond `from`; false if it had ended before.
fn kill(mut child: Child, run: &Path, from: u64, to: u64, random: &mut Random) -> bool {
    let moment = from + random.below(to - from);
    let caught = wait_for(&mut child, run, moment, Duration::from_micros(random.below(9000)));
    child.kill().expect("killed");
    child.wait().expect("ended").code().is_none() && caught
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status();
    assert!(sent.expect("a shell").success());
}

#[track_caller]
fn assert_equal(dir: &Path, reference: &str, other: &str) {
    for file in RESULTS {
        let (a, b) = (dir.join(reference).join(file), dir.join(other).join(file));
        assert_eq!(sha256(&a), sha256(&b), "{other}/{file} differs from {reference}'s");
    }
    assert_eq!(leftovers(&dir.join(other)), Vec::<std::path::PathBuf>::new());
}

/// No step stands twice in the table, and none is missing.
#[track_caller]
fn assert_every_step_once(run: &Path, steps: u64) {
    let text = fs::read_to_string(run.join("metrics.csv")).expect("a table");
    let found: Vec<u64> =
        text.lines().skip(1).map(|l| l.split(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!(found, (1..=steps).collect::<Vec<_>>());
}

/// Starts runs and kills them at seeded-random moments, every other one twice, until `wanted` were really caught.
fn survive_kills(set: &[&str], steps: u64, wanted: u32, seed: u64) {
    survive_kills_of(workshop().path(), set, steps, wanted, seed);
}

/// As [`survive_kills`], of the recipe that lies in a folder.
fn survive_kills_of(dir: &Path, set: &[&str], steps: u64, wanted: u32, seed: u64) {
    run(dir, "whole", set, &["--quiet"]).ok();
    assert_every_step_once(&dir.join("whole"), steps);
    let mut random = Random(seed);
    let (mut caught, mut resumed) = (0, 0);
    for attempt in 0..4 * wanted {
        if caught == wanted {
            break;
        }
        let name = format!("killed-{attempt}");
        let folder = dir.join(&name);
        let child = begin(dir, &name, set, &["--quiet"]);
        caught += u32::from(kill(child, &folder, 1, steps * 3 / 5, &mut random));
        if attempt % 2 == 1 {
            let from = step(&folder).min(steps / 2);
            let child = begin(dir, &name, set, &["--quiet", "--resume"]);
            kill(child, &folder, from + 1, steps * 4 / 5, &mut random);
        }
        // Starting over would end with the same bytes too, but is no resuming.
        let saved = folder.join(RESULTS[2]).exists();
        resumed += u32::from(saved);
        let out = run(dir, &name, set, &["--resume"]).ok();
        let says = if saved { "resuming" } else { "starting over" };
        assert!(out.stderr.contains(says), "{}", out.stderr);
        assert_equal(dir, "whole", &name);
    }
    assert_eq!(caught, wanted, "too few runs could be killed in time");
    assert!(resumed > wanted / 2, "hardly a run had a checkpoint when it was killed");
}

#[test]
fn killed_five_times_it_ends_with_the_same_bytes() {
    survive_kills(&[], 48, 5, 1);
}

#[test]
fn dropout_pool_mean_weights_and_plateau_survive_kills() {
    survive_kills(&MEMORIES, 60, 3, 2);
}

/// A method that is written in full, with all that terms remember: running means of logits and of path lengths, a weight that
/// changes, updates in some steps only; and a network that learns nothing, from another run's weights.
const TERMS: &str = r#"
name = "terms"
[data]
phantom = { dir = "ph", subjects = 6, size = [24, 28, 24], spacing = 8.0 }
target = []
canvas = [16, 16]
[method]
predict = "G(noise)"
target = "nothing"
noise = 4
watch = "D"
[networks.G]
role = "generator"
kind = "mlp"
widths = [8]
norm = "none"
takes = ["noise"]
gives = "input"
[networks.D]
role = "discriminator"
kind = "mlp"
widths = [8]
takes = ["input"]
[networks.F]
role = "frozen"
kind = "patch"
layers = 1
ndf = 4
weights = "first/checkpoints/last_net_D.safetensors"
[[train.update]]
network = "D"
terms = [
    { adversarial = "vanilla", real = "input", fake = "G(noise)", log = "D" },
    { lecam = 0.3, real = "input", fake = "G(noise)" },
    { dragan = 10.0, real = "input" },
]
[[train.update]]
network = "G"
terms = [
    { adversarial = "vanilla", by = "D", fake = "G(noise)", log = "G" },
    { perceptual = { by = "F", layers = ["model.0"] }, weight = { from = 0.0, to = 1.0, steps = 40 }, of = "G(noise)", to = "input" },
    { style = { by = "F", weight = 10.0 }, of = "G(noise)", to = "input" },
]
[[train.update]]
network = "G"
every = 4
from = 2
lr = 0.5
terms = [{ path_length = 2.0, of = "G(noise)" }]
[train]
batch = 2
steps = 48
[validate]
every_epochs = 1
[log]
every = 1
checkpoint_every = 3
samples = 1
"#;

#[test]
fn running_means_of_terms_and_frozen_networks_survive_kills() {
    let dir = workshop();
    let dir = dir.path();
    run(dir, "first", &["train.steps=2"], &["--quiet"]).ok();
    fs::write(dir.join("r.toml"), TERMS).expect("written");
    let out = run(dir, "noted", &["train.steps=2"], &[]).ok();
    assert!(out.stderr.contains("F sees the image's one channel 2 times"), "{}", out.stderr);
    survive_kills_of(dir, &[], 48, 3, 3);
    let table = fs::read_to_string(dir.join("whole/metrics.csv")).expect("a table");
    let names: Vec<&str> = table.lines().next().expect("a head").split(',').collect();
    let column = |name: &str| -> Vec<&str> {
        let all: Vec<usize> = (0..names.len()).filter(|&i| names[i] == name).collect();
        assert_eq!(all.len(), 1, "{name} in {names:?}");
        table.lines().skip(1).map(|l| l.split(',').nth(all[0]).expect("a cell")).collect()
    };
    // In the third step for the first time, then in every fourth; it stands in between.
    let lengths = column("loss/G_path_length");
    assert!(
        lengths[..2] == ["", ""] && !lengths[2].is_empty() && lengths[2..6].iter().all(|v| *v == lengths[2])
    );
    assert_ne!(lengths[6], lengths[2]);
    let norms = column("grad_norm/G");
    assert!(norms.windows(2).all(|w| w[0] != w[1]), "that of the update of each step: {norms:?}");
    // What the file holds, summed over its two channels, is what the state holds at the end.
    let tensors = |path: &str| {
        let bytes = fs::read(dir.join(path)).expect("read");
        gan::weights::StateDict::parse(bytes, path).expect("weights")
    };
    let file = tensors("first/checkpoints/last_net_D.safetensors");
    let state = tensors("whole/checkpoints/last_state.safetensors");
    let (shape, kernel) = file.get("model.0.weight").expect("a kernel");
    assert_eq!(shape, [4, 2, 4, 4]);
    let (_, all) = state.get("F.params").expect("the frozen network");
    // Of a kernel with one input channel the two orders of axes are the same.
    for (i, sum) in all[..64].iter().enumerate() {
        let (output, at) = (i / 16, i % 16);
        let both = f64::from(kernel[output * 32 + at]) + f64::from(kernel[output * 32 + 16 + at]);
        assert_eq!(*sum, both as f32, "element {i}");
    }
    assert!(state.get("lecam.D_lecam").is_some() && state.get("path_length.G_path_length").is_some());
    assert!(!dir.join("whole/checkpoints/last_net_F.safetensors").exists(), "it is no result");
}

/// Each of them changes the result, so the test above would notice its loss.
#[test]
fn every_memory_matters() {
    let dir = workshop();
    let dir = dir.path();
    run(dir, "all", &MEMORIES, &["--quiet"]).ok();
    let without = [
        (2, "model.generator.dropout=0.0"),
        (3, "loss.pool=0"),
        (4, "optimiser.ema=0.0"),
        (5, "optimiser.schedule={ kind = \"constant\" }"),
    ];
    for (i, (at, instead)) in without.into_iter().enumerate() {
        let mut set = MEMORIES;
        set[at] = instead;
        let name = format!("without-{i}");
        run(dir, &name, &set, &["--quiet"]).ok();
        let state = |run: &str| sha256(&dir.join(run).join(RESULTS[2]));
        assert_ne!(state("all"), state(&name), "{instead}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let dir = workshop();
    let dir = dir.path();
    for set in [&[][..], &MEMORIES[..]] {
        let (one, two) = (format!("one-{}", set.len()), format!("two-{}", set.len()));
        run(dir, &one, set, &["--quiet", "--threads", "1"]).ok();
        run(dir, &two, set, &["--quiet", "--threads", "2"]).ok();
        assert_equal(dir, &one, &two);
    }
}

#[test]
fn a_signal_saves_and_the_run_goes_on() {
    let dir = workshop();
    let dir = dir.path();
    // Only the signal makes a checkpoint.
    let set = ["log.checkpoint_every=1000"];
    run(dir, "whole", &set, &["--quiet"]).ok();
    for name in ["INT", "TERM"] {
        let caught = (0..5).any(|attempt| {
            let out = format!("{name}-{attempt}");
            let mut child = begin(dir, &out, &set, &["--quiet"]);
            if !wait_for(&mut child, &dir.join(&out), 5, Duration::ZERO) {
                return false;
            }
            signal(&child, name);
            match child.wait().expect("ended").code() {
                Some(130) => {
                    assert!(dir.join(&out).join("checkpoints/last_state.safetensors").exists());
                    let stopped = step(&dir.join(&out));
                    assert!((5..48).contains(&stopped), "{stopped}");
                    let resumed = run(dir, &out, &set, &["--resume"]).ok();
                    assert!(resumed.stderr.contains("resuming"), "{}", resumed.stderr);
                    assert_equal(dir, "whole", &out);
                    true
                }
                // The signal came too late.
                Some(0) => false,
                other => panic!("SIG{name} ended the run with {other:?}"),
            }
        });
        assert!(caught, "no run was caught by SIG{name}");
    }
}

#[test]
fn killed_before_the_first_checkpoint_it_starts_over_and_says_so() {
    let dir = workshop();
    let dir = dir.path();
    let set = ["log.checkpoint_every=1000"];
    run(dir, "whole", &set, &["--quiet"]).ok();
    let mut child = begin(dir, "early", &set, &["--quiet"]);
    assert!(wait_for(&mut child, &dir.join("early"), 2, Duration::ZERO), "it was too fast");
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(!dir.join("early").join(RESULTS[2]).exists());
    let resumed = run(dir, "early", &set, &["--resume"]).ok();
    assert!(resumed.stderr.contains("early has no checkpoint yet; starting over"), "{}", resumed.stderr);
    assert_equal(dir, "whole", "early");
}

#[test]
fn what_is_not_the_same_run_is_not_resumed() {
    let dir = workshop();
    let dir = dir.path();
    run(dir, "run", &["train.steps=4"], &["--quiet"]).ok();
    let before = tree(&dir.join("run"));
    let refused = |set: &[&str], words: &[&str]| {
        let out = run(dir, "run", set, &["--resume", "--quiet"]);
        assert_eq!(out.code, Some(1), "{}", out.stderr);
        assert_eq!(out.stderr.lines().count(), 1, "{}", out.stderr);
        words.iter().for_each(|w| assert!(out.stderr.contains(w), "no {w} in {}", out.stderr));
        assert_eq!(tree(&dir.join("run")), before, "something was written");
    };
    let lr = "optimiser.lr=0.001";
    refused(&["train.steps=4", lr], &["`optimiser.lr` (0.0002 there, 0.001 here)", "--out"]);
    refused(&["train.steps=8"], &["`train.steps` (4 there, 8 here)"]);
    refused(&["train.steps=4", "seed=2"], &["`seed`"]);
    refused(&["train.steps=4", "model.generator.ngf=8"], &["`model.generator.ngf`"]);
    // What shapes nothing may change, and a finished run stays as it is.
    run(dir, "run", &["train.steps=4", "log.every=2", "train.workers=1"], &["--resume", "--quiet"]).ok();
    for file in RESULTS {
        assert_eq!(before[&dir.join("run").join(file)], sha256(&dir.join("run").join(file)), "{file}");
    }
}

#[test]
fn two_processes_do_not_share_a_run() {
    let dir = workshop();
    let dir = dir.path();
    let mut child = begin(dir, "run", &["train.steps=100000"], &["--quiet"]);
    assert!(wait_for(&mut child, &dir.join("run"), 1, Duration::ZERO));
    let second = run(dir, "run", &["train.steps=100000"], &["--quiet", "--resume"]);
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("another process is training in run"), "{}", second.stderr);
}
