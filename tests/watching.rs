//! What a run leaves for those who watch it: events, lines of JSON, the summary; and how it survives numbers that stop being
//! numbers.

#![allow(missing_docs)]

mod common;

use common::{gan, nifti, not_checked, sha256, workshop};
use gan::run::checkpoint::{Tensors, write};
use gan::watch::table::Table;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const FEW: [&str; 4] = ["--steps", "6", "--set", "log.checkpoint_every=3"];

fn train(dir: &Path, out: &str, more: &[&str]) -> common::Outcome {
    gan(dir, &[&["train", "r.toml", "--out", out], more].concat())
}

/// The message of a run that must have failed.
#[track_caller]
fn refused(out: &common::Outcome) -> String {
    assert_eq!(out.code, Some(1), "{}", out.stderr);
    let lines: Vec<&str> = out.stderr.lines().filter(|l| l.starts_with("gan: ")).collect();
    assert_eq!(lines.len(), 1, "{}", out.stderr);
    lines[0].to_string()
}

#[test]
fn watching_changes_no_bit_of_what_is_trained() {
    let dir = workshop();
    let dir = dir.path();
    train(dir, "watched", &[&FEW[..], &["--set", "log.histograms=1"]].concat()).ok();
    let unwatched = ["--set", "log.histograms=0", "--set", "health.watch=false", "--set", "log.samples=0"];
    train(dir, "unwatched", &[&FEW[..], &unwatched].concat()).ok();
    for file in ["last_net_G", "last_net_D", "best_net_G", "last_state"] {
        let of = |run: &str| sha256(&dir.join(run).join(format!("checkpoints/{file}.safetensors")));
        assert_eq!(of("watched"), of("unwatched"), "{file}");
    }
    let table = |run: &str| Table::read(&dir.join(run).join("metrics.csv")).expect("a table");
    let (with, without) = (table("watched"), table("unwatched"));
    assert!(!without.columns.is_empty());
    for column in &without.columns {
        assert_eq!(with.series(column), without.series(column), "{column}");
    }
    let more: Vec<&String> = with.columns.iter().filter(|c| !without.columns.contains(c)).collect();
    assert_eq!(
        more,
        [
            "health/D_acc_real",
            "health/D_acc_fake",
            "grad_norm/D",
            "grad_norm/G",
            "health/diversity",
            "health/nearest"
        ]
    );
}

/// A program reads every line; the numbers are those of the table.
#[test]
fn lines_of_json_tell_a_program_how_it_goes() {
    let dir = workshop();
    let dir = dir.path();
    let out = train(dir, "run", &[&FEW[..], &["--json-lines", "--quiet"]].concat()).ok();
    assert!(out.stderr.is_empty(), "{}", out.stderr);
    let lines: Vec<Value> =
        out.stdout.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect();
    let of = |event: &str| lines.iter().filter(|l| l["event"] == event).collect::<Vec<_>>();
    assert_eq!((lines[0]["event"].as_str(), lines[0]["steps"].as_u64()), (Some("start"), Some(6)));
    assert_eq!(lines[0]["run"], "run");
    let steps = of("step");
    let table = Table::read(&dir.join("run/metrics.csv")).expect("a table");
    assert_eq!(steps.iter().filter_map(|s| s["step"].as_u64()).collect::<Vec<_>>(), table.steps);
    for (step, loss) in table.series("loss/G_L1") {
        let line = steps.iter().find(|l| l["step"] == step).expect("a line");
        // The value is an f32; this reader of JSON may miss its last bit as an f64.
        assert_eq!(line["values"]["loss/G_L1"].as_f64().map(|v| v as f32), Some(loss as f32));
        assert!(line["images_per_second"].as_f64().expect("a number") > 0.0);
    }
    assert!(of("checkpoint").iter().any(|c| c["which"] == "last" && c["step"] == 3));
    let (step, psnr) = *table.series("val/psnr").last().expect("a validation");
    let last = of("validation").pop().expect("a validation");
    assert_eq!(last["step"].as_u64(), Some(step));
    let shown = last["values"]["val/psnr"].as_f64().expect("a number");
    assert!((shown - psnr).abs() < 1e-12 * psnr, "{shown} {psnr}");
    let end = lines.last().expect("an end");
    assert_eq!(
        (&end["event"], &end["status"], &end["message"]),
        (&"end".into(), &"finished".into(), &Value::Null)
    );

    let out = train(dir, "run", &["--json-lines", "--quiet"]);
    let end: Value = serde_json::from_str(out.stdout.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&end["status"], out.code), (&"failed".into(), Some(1)));
    assert!(end["message"].as_str().is_some_and(|m| m.contains("--resume")), "{end}");
}

#[test]
fn the_last_lines_are_a_table_with_the_course_of_every_number() {
    let dir = workshop();
    let out = train(dir.path(), "run", &FEW).ok();
    let line = |name: &str| out.stderr.lines().find(|l| l.starts_with(name)).map(String::from);
    let loss = line("loss/G_L1").unwrap_or_else(|| panic!("{}", out.stderr));
    let table = Table::read(&dir.path().join("run/metrics.csv")).expect("a table");
    let values: Vec<f64> = table.series("loss/G_L1").into_iter().map(|(_, v)| v).collect();
    let shown: Vec<f64> =
        loss.split_whitespace().skip(1).take(2).map(|w| w.parse().expect("a number")).collect();
    for (shown, exact) in shown.iter().zip([values[0], values[values.len() - 1]]) {
        assert!((shown - exact).abs() <= 1e-3 * exact.abs(), "{loss}");
    }
    assert!(loss.chars().any(|c| ('▁'..='█').contains(&c)), "{loss}");
    assert!(line("val/psnr").is_some() && out.stderr.contains("gan report run"), "{}", out.stderr);
}

/// A weights' file in which one value of the tensor number `which` is NaN; returns the tensor's key.
fn corrupt(from: &Path, to: &Path, which: usize) -> String {
    let file = Tensors::read(from).expect("weights");
    let names: Vec<String> =
        file.list().into_iter().map(|(n, ..)| n).filter(|n| n.ends_with(".weight")).collect();
    let mut tensors = Vec::new();
    for (name, ..) in file.list() {
        let (shape, mut values) = file.get(&name).expect("a tensor");
        if name == names[which] {
            values[1] = f32::NAN;
        }
        tensors.push((name, shape, values));
    }
    let metadata: Vec<(&str, &str)> = ["format", "network", "architecture"]
        .into_iter()
        .filter_map(|k| Some((k, file.metadata(k)?)))
        .collect();
    write(to, tensors, &metadata).expect("written");
    names[which].clone()
}

#[test]
fn a_nan_in_a_weight_is_found_and_named() {
    let dir = workshop();
    let dir = dir.path();
    train(dir, "good", &FEW).ok();
    // The innermost convolution's.
    let key = corrupt(&dir.join("good/checkpoints/last_net_G.safetensors"), &dir.join("bad.safetensors"), 1);
    let out = train(dir, "bad", &[&FEW[..], &["--set", "train.init={ G = \"bad.safetensors\" }"]].concat());
    let message = refused(&out);
    let layer = key.trim_end_matches(".weight");
    for word in [
        "in step 1",
        "conv",
        &format!("layer G/{layer}"),
        "(G forward)",
        "NaN",
        &format!("the weight {key} of G was so already"),
        "no checkpoint yet",
        "health.nan",
    ] {
        assert!(message.contains(word), "no `{word}`: {message}");
    }
    assert!(!dir.join("bad/checkpoints/last_state.safetensors").exists());
}

/// A voxel that is a number in the file, and none any more once it is normalised.
#[test]
fn a_value_that_slips_in_is_named_with_its_slice() {
    let dir = workshop();
    let dir = dir.path();
    let mut table = "subject,split,t1,pet\n".to_string();
    for (k, (subject, split)) in [("a", "train"), ("b", "val"), ("c", "test")].into_iter().enumerate() {
        // No two images alike.
        let ramp = |i: usize| ((i + 7 * k) % 97) as f32 / 194.0;
        let target = |i: usize| 0.5 - ramp(i);
        let spike = |i: usize| if subject == "a" && i == 2 * 1024 + 500 { 3e38 } else { ramp(i) };
        fs::write(dir.join(format!("{subject}-t1.nii")), nifti(&[32, 32, 4], 0.0, spike)).expect("written");
        fs::write(dir.join(format!("{subject}-pet.nii")), nifti(&[32, 32, 4], 0.0, target)).expect("written");
        table += &format!("{subject},{split},{subject}-t1.nii,{subject}-pet.nii\n");
    }
    fs::write(dir.join("pairs.csv"), table).expect("written");
    let data = "manifest = \"pairs.csv\"\nmin_foreground = 0.0\nnormalise_input = { method = \"fixed\", low = 0.0, high = 0.5 }";
    let phantom = common::RECIPE.lines().find(|l| l.starts_with("phantom")).expect("a line");
    fs::write(dir.join("r.toml"), common::RECIPE.replace(phantom, data)).expect("written");
    let message = refused(&train(dir, "run", &["--steps", "2"]));
    assert!(message.contains("because the input (a:") && message.contains("holds inf"), "{message}");
    assert!(message.contains("in layer G/") && message.contains("(G forward)"), "{message}");
}

/// From step 7 on the learning rate is absurd.
const ABSURD: [&str; 14] = [
    "--steps",
    "12",
    "--set",
    "train.epochs=1",
    "--set",
    "train.decay_epochs=1",
    "--set",
    "optimiser.schedule={ kind = \"step\", every = 1, gamma = 1e22 }",
    "--set",
    "log.checkpoint_every=3",
    "--set",
    "health.lr_factor=1e-22",
    "--set",
    "validate.every_epochs=0",
];

#[test]
fn a_run_that_blows_up_keeps_its_last_good_checkpoint() {
    let dir = workshop();
    let dir = dir.path();
    let message = refused(&train(dir, "run", &ABSURD));
    assert!(message.contains("the last good checkpoint, of step 6, stands"), "{message}");
    assert!(message.contains("was the first to give") && message.contains("layer "), "{message}");
    let info = gan(dir, &["info", "run", "--json"]).ok();
    let info: Value = serde_json::from_str(&info.stdout).expect("JSON");
    assert_eq!((info["steps"].as_u64(), info["finished"].as_bool()), (Some(6), Some(false)));
    let file = Tensors::read(&dir.join("run/checkpoints/last_state.safetensors")).expect("a checkpoint");
    for (name, ..) in file.list() {
        assert!(file.get(&name).expect("a tensor").1.iter().all(|v| v.is_finite()), "{name}");
    }
}

#[test]
fn a_run_that_blows_up_rolls_back_and_goes_on_if_the_recipe_says_so() {
    let dir = workshop();
    let dir = dir.path();
    let out =
        train(dir, "run", &[&ABSURD[..], &["--set", "health.nan=roll-back", "--json-lines"]].concat()).ok();
    assert!(out.stderr.contains("rolled back to step 6, learning rate times"), "{}", out.stderr);
    let warned =
        out.stdout.lines().filter(|l| l.contains("\"warning\"") && l.contains("rolled back")).count();
    assert_eq!(warned, 1, "{}", out.stdout);
    let table = Table::read(&dir.join("run/metrics.csv")).expect("a table");
    assert_eq!(table.steps, (1..=12).collect::<Vec<_>>());
    let rates = table.series("lr/G");
    // 2e-4 before, and 2e-4 times 1e22 times 1e-22 behind.
    assert!(rates.iter().all(|(_, lr)| (lr / 2e-4 - 1.0).abs() < 1e-6), "{rates:?}");
    assert!(table.columns.iter().flat_map(|c| table.series(c)).all(|(_, v)| v.is_finite()));
    let info: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("run/run.json")).expect("read")).expect("JSON");
    assert_eq!(info["incidents"].as_array().map(Vec::len), Some(1), "{info}");
    // The same as a run that never had that learning rate.
    let calm = ["--set", "optimiser.schedule={ kind = \"constant\" }"];
    train(dir, "calm", &[&ABSURD[..6], &calm, &ABSURD[8..]].concat()).ok();
    for net in ["G", "D"] {
        let of = |run: &str| sha256(&dir.join(run).join(format!("checkpoints/last_net_{net}.safetensors")));
        assert_eq!(of("run"), of("calm"), "{net}");
    }
}

#[test]
fn roll_backs_that_do_not_help_end() {
    let dir = workshop();
    let more =
        ["--set", "health.nan=roll-back", "--set", "health.retries=2", "--set", "health.lr_factor=0.5"];
    let message = refused(&train(dir.path(), "run", &[&ABSURD[..], &more].concat()));
    assert!(message.contains("rolled back 2 times already") && message.contains("step 6"), "{message}");
}

/// A GAN of 16 x 16 pixels, and the same with a discriminator that does not learn: its generator ends with the one image
/// that this discriminator likes best.
#[test]
fn a_generator_that_collapses_is_named_and_a_healthy_one_is_not() {
    let dir = workshop();
    let dir = dir.path();
    let toy = r#"
name = "toy"
[data]
phantom = { dir = "toy", subjects = 8, size = [24, 28, 24], spacing = 8.0 }
input = ["t1"]
target = []
canvas = [16, 16]
slice_range = [0.4, 0.75]
[model]
kind = "gan"
nz = 16
generator = { kind = "mlp", widths = [32, 64], norm = "batch" }
discriminator = { kind = "mlp", widths = [32] }
[optimiser]
lr = 0.002
rule = { kind = "adam", beta1 = 0.5, beta2 = 0.999 }
schedule = { kind = "constant" }
[train]
batch = 16
steps = 600
[validate]
every_epochs = 40
[log]
samples = 0
histograms = 0
"#;
    fs::write(dir.join("toy.toml"), toy).expect("written");
    let train = |out: &str, more: &[&str]| {
        let said = gan(dir, &[&["train", "toy.toml", "--out", out], more].concat()).ok().stderr;
        let table = Table::read(&dir.join(out).join("metrics.csv")).expect("a table");
        let last = |name: &str| table.series(name).last().expect("a validation").1;
        let warned = said.lines().filter(|l| l.starts_with("health") && l.contains("collapsed")).count();
        (warned, last("health/diversity").min(last("health/nearest")), said)
    };
    let (warned, diversity, said) = train("healthy", &[]);
    assert!(warned == 0 && diversity > 0.5, "{diversity}\n{said}");
    let (warned, diversity, said) = train("collapsing", &["--set", "optimiser.lr_discriminator=1e-9"]);
    assert!(warned == 1 && diversity < 0.2, "{diversity}\n{said}");
}

/// A Python with TensorBoard, or none.
fn python() -> Option<String> {
    let python = std::env::var("GAN_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import tensorboard, numpy, PIL"]).output();
    if !has.is_ok_and(|o| o.status.success()) {
        not_checked(&format!(
            "{python} has no tensorboard, numpy and pillow; install them or set GAN_PYTHON"
        ));
        return None;
    }
    Some(python)
}

#[track_caller]
fn check(script: &str, args: &[&str], dir: &Path) {
    let Some(python) = python() else { return };
    let script = format!("{}/tests/python/{script}", env!("CARGO_MANIFEST_DIR"));
    let out = Command::new(&python).arg(script).args(args).current_dir(dir).output().expect("it starts");
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && text.contains("agrees"), "{text}{errors}");
}

/// Every kind of tag of a whole run, which went back once, with the values of its table, checkpoints and pictures.
#[test]
fn tensorboard_reads_a_whole_run() {
    let dir = workshop();
    let dir = dir.path();
    let more = ["--set", "log.histograms=2", "--set", "health.nan=roll-back"];
    let out = train(dir, "runs/pix2pix", &[&ABSURD[..12], &more].concat()).ok();
    assert!(out.stderr.contains("rolled back to step 6"), "{}", out.stderr);
    let regions = "{ values = [0, 1, 2, 4], regions = [{ name = \"WT\", labels = [1, 2, 4] }, { name = \"TC\", labels = [1, 4] }] }";
    let unet = format!(
        "name = \"seg\"\n[data]\nphantom = {{ dir = \"tumours\", subjects = 6, size = [24, 28, 24], spacing = 8.0, tumours = 1.0 }}\ninput = [\"t1ce\"]\ntarget = [\"tumour\"]\nlabels = {regions}\n[model]\nkind = \"supervised\"\nnetwork = {{ kind = \"unet\", base = 4, downs = 2 }}\n[loss]\nkind = \"regions\"\n[train]\nbatch = 2\nsteps = 4\n[log]\nevery = 1\nhistograms = 2\n"
    );
    fs::write(dir.join("seg.toml"), unet).expect("written");
    gan(dir, &["train", "seg.toml", "--out", "runs/seg"]).ok();
    check("check_run_events.py", &["runs/pix2pix", "runs/seg"], dir);
}
