//! What is said when something is missing or breaks.

use crate::common::Outcome;
use crate::standin::Bench;
use gan::device::cuda::driver::Driver;
use std::path::Path;

#[track_caller]
fn refused(out: &Outcome, words: &[&str]) {
    assert_eq!(out.code, Some(1), "{}", out.stderr);
    for word in words {
        assert!(out.stderr.contains(word), "{word:?} is missing in: {}", out.stderr);
    }
    assert!(!out.stderr.contains("panicked"), "{}", out.stderr);
}

#[test]
fn no_driver() {
    let Some(mut bench) = Bench::new() else { return };
    if Driver::is_present() {
        eprintln!("not checked: there is a driver here");
        return;
    }
    let empty = bench.dir.path().display().to_string();
    let out = bench.set("LD_LIBRARY_PATH", empty).train(&["--steps", "1"]);
    refused(&out, &["no NVIDIA driver found", "libcuda.so.1", "install the driver", "--device cpu"]);
    // Asked for nothing, it computes on the CPU and says so.
    let out = bench.run(&["train", "r.toml", "--steps", "1"]).ok();
    assert!(out.stderr.contains("on the CPU with"), "{}", out.stderr);
}

#[test]
fn a_driver_that_lacks_a_function() {
    let Some(mut bench) = Bench::new() else { return };
    let old = bench.libraries().old_driver.display().to_string();
    let out = bench.set("LD_LIBRARY_PATH", old).train(&["--steps", "1"]);
    refused(&out, &["the NVIDIA driver is too old", "cuMemAllocAsync", "CUDA 11.4", "--device cpu"]);
}

#[test]
fn a_driver_older_than_the_compiler() {
    let Some(mut bench) = Bench::new() else { return };
    let out = bench.set("STANDIN_VERSION", 12020).train(&["--steps", "1"]);
    refused(
        &out,
        &[
            "CUDA up to 12.2",
            "NVRTC 13.0",
            "libnvrtc.so.13",
            "580 or newer",
            "pip install nvidia-cuda-nvrtc-cu12",
        ],
    );
    // Left to choose, the program takes the CPU, and says why.
    let out = bench.run(&["train", "r.toml", "--steps", "1", "--device", "auto"]).ok();
    assert!(out.stderr.contains("computing on the CPU: there is an NVIDIA driver, but"), "{}", out.stderr);
    assert!(out.stderr.contains("CUDA up to 12.2"), "{}", out.stderr);
}

/// Where nothing is asked for, a device is used only if it computes what the CPU does: the stand-in's kernels do nothing. Which
/// it is and why is one line.
#[test]
fn a_device_that_computes_something_else_is_not_used_unasked() {
    let Some(mut bench) = Bench::new() else { return };
    let out = bench.run(&["train", "r.toml", "--steps", "1", "--out", "run"]).ok();
    let why: Vec<&str> = out.stderr.lines().filter(|l| l.starts_with("computing on the CPU: ")).collect();
    assert!(
        why.len() == 1 && why[0].contains("cuda:0 computes something else than the CPU (f32"),
        "{}",
        out.stderr
    );
    assert!(out.stderr.contains("on the CPU with"), "{}", out.stderr);
    assert!(
        bench.log().iter().any(|l| l.starts_with("launch ") || l.contains("cuGraphLaunch")),
        "{:?}",
        bench.log()
    );

    // Devices that are hidden, and a machine without a driver, are nothing to speak of: nobody is asked.
    for hidden in ["", "-1"] {
        let out = bench
            .set("CUDA_VISIBLE_DEVICES", hidden)
            .run(&["train", "r.toml", "--steps", "1", "--out", "b"])
            .ok();
        assert!(!out.stderr.contains("computing on the CPU:"), "{}", out.stderr);
        assert_eq!(bench.log(), Vec::<String>::new());
        std::fs::remove_dir_all(bench.dir.path().join("b")).expect("a run");
    }
    let nowhere = bench.dir.path().display().to_string();
    bench.set("CUDA_VISIBLE_DEVICES", "0").set("LD_LIBRARY_PATH", nowhere);
    let out = bench.run(&["train", "r.toml", "--steps", "1", "--out", "c"]).ok();
    assert!(out.stderr.contains("on the CPU with") && !out.stderr.contains("computing on"), "{}", out.stderr);
    // What was named is used, or refused.
    let out = bench.run(&["train", "r.toml", "--steps", "1", "--out", "d", "--device", "cuda"]);
    refused(&out, &["no NVIDIA driver found"]);
}

#[test]
fn no_compiler() {
    let Some(mut bench) = Bench::new() else { return };
    let empty = bench.dir.path().display().to_string();
    let out = bench.set("GAN_NVRTC", &empty).train(&["--steps", "1"]);
    if out.code == Some(0) {
        eprintln!("not checked: the system's loader knows a run-time compiler");
        return;
    }
    refused(
        &out,
        &["no CUDA run-time compiler (NVRTC) found", &empty, "pip install", "GAN_NVRTC", "CUDA_HOME"],
    );
}

#[test]
fn not_enough_memory() {
    let Some(mut bench) = Bench::new() else { return };
    let more = ["--steps", "1", "--set", "train.batch=16"];
    bench.set("STANDIN_MEMORY", 1 << 20);
    let out = bench.train(&more);
    refused(&out, &["this needs ", " MiB of the device's memory, but 1.0 MiB are free", "`train.batch = "]);
    let fits: usize = out
        .stderr
        .split("`train.batch = ")
        .nth(1)
        .and_then(|t| t.split('`').next())
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!((1..16).contains(&fits), "{}", out.stderr);
    // The batch that is named fits, the next one does not.
    let with = |batch: usize, out: &str| {
        let batch = format!("train.batch={batch}");
        bench.train_in(out, &["--steps", "1", "--set", &batch, "--set", "validate.every_epochs=0"])
    };
    with(fits, "a").ok();
    refused(&with(fits + 1, "b"), &[&format!("`train.batch = {fits}`")]);
    assert!(!bench.dir.path().join("b").exists(), "nothing is left of a run that could not begin");
    bench.set("STANDIN_MEMORY", 4096);
    refused(&bench.train(&more), &["not even one image at a time would fit", "`data.canvas`"]);
}

/// What validation takes beside the steps is known before the first one.
#[test]
fn not_enough_memory_for_validation() {
    let Some(mut bench) = Bench::new() else { return };
    let more = ["--steps", "1", "--set", "train.batch=1"];
    // Enough for steps; validation predicts eight slices.
    let (mut low, mut high) = (4096u64, 1 << 26);
    while high - low > 1024 {
        let middle = u64::midpoint(low, high);
        bench.set("STANDIN_MEMORY", middle);
        let off = [&more[..], &["--set", "validate.every_epochs=0"]].concat();
        let fits = bench.train_in(&format!("m{middle}"), &off).code == Some(0);
        if fits { high = middle } else { low = middle }
    }
    bench.set("STANDIN_MEMORY", high);
    let out = bench.train_in("v", &more);
    refused(&out, &["validation, which predicts 8 at once", "`train.batch`", "`validate.every_epochs = 0`"]);
    assert!(!bench.dir.path().join("v").exists(), "nothing is left of a run that could not begin");
}

/// A step of several programs: they must fit together, each with memory of its own.
#[test]
fn not_enough_memory_for_all_programs_of_a_step() {
    let Some(mut bench) = Bench::new() else { return };
    bench.set("STANDIN_MEMORY", 1 << 20);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/wgan-gp-mr.toml");
    let recipe = recipe.display().to_string();
    let with = |batch: usize, out: &str| {
        let batch = format!("train.batch={batch}");
        let mut args = vec!["train", &recipe, "--out", out, "--device", "cuda", "--steps", "1"];
        let tiny = ["data.phantom.dir=ph", "data.phantom.subjects=6", "data.phantom.size=[24, 28, 24]"];
        let more = ["data.phantom.spacing=8.0", "data.slice_range=[0.0, 1.0]", "data.canvas=[16, 16]"];
        let networks =
            ["model.generator.ngf=4", "model.discriminator.ndf=4", "validate.every_epochs=0", &batch];
        tiny.iter().chain(&more).chain(&networks).for_each(|set| args.extend(["--set", set]));
        bench.run(&args)
    };
    let out = with(48, "a");
    let fits = out.stderr.split("`train.batch = ").nth(1).and_then(|t| t.split('`').next());
    let fits: usize = fits.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{}", out.stderr));
    assert!((1..48).contains(&fits), "{}", out.stderr);
    with(fits, "b").ok();
    refused(&with(fits + 1, "c"), &[&format!("`train.batch = {fits}`")]);
}

#[test]
fn memory_that_is_gone_when_it_is_asked_for() {
    let Some(mut bench) = Bench::new() else { return };
    // It was free when the plan was checked; somebody else took it.
    let out = bench.set("STANDIN_FAIL", "cuMemAllocAsync 3 2").train(&["--steps", "1"]);
    refused(&out, &["of the device's memory", "are free", "lower `train.batch`"]);
}

#[test]
fn a_device_that_is_lost_in_the_middle() {
    let Some(mut bench) = Bench::new() else { return };
    let steps = ["--steps", "12", "--set", "validate.every_epochs=0"];
    let out = bench.set("STANDIN_FAIL", "cuGraphLaunch 8 719").train(&steps);
    refused(
        &out,
        &[
            "unspecified launch failure (CUDA_ERROR_LAUNCH_FAILED, 719)",
            "the device is lost",
            "the last checkpoint stands: continue with --resume --out run",
        ],
    );
    bench.set("STANDIN_FAIL", "");
    let out = bench.train(&[&steps[..], &["--resume"]].concat()).ok();
    assert!(out.stderr.contains("resuming run at step 6"), "{}", out.stderr);
    // Before there was a checkpoint.
    let out = bench.set("STANDIN_FAIL", "cuGraphLaunch 2 700").train_in("early", &[]);
    refused(&out, &["CUDA_ERROR_ILLEGAL_ADDRESS", "there was no checkpoint yet"]);
}

#[test]
fn a_number_that_no_device_has() {
    let Some(mut bench) = Bench::new() else { return };
    let out = bench.run(&["train", "r.toml", "--device", "cuda:3"]);
    refused(&out, &["`cuda:3`", "there is one, `cuda:0`", "CUDA_VISIBLE_DEVICES"]);
    bench.set("STANDIN_DEVICES", 2);
    refused(&bench.run(&["train", "r.toml", "--device", "cuda:2"]), &["`cuda:0` to `cuda:1`"]);
    bench.set("STANDIN_DEVICES", 0);
    refused(&bench.run(&["train", "r.toml", "--device", "cuda"]), &["the driver shows none"]);
    assert_eq!(bench.run(&["train", "r.toml", "--device", "cuda:x"]).code, Some(2));
}

#[test]
fn precision_is_the_devices_affair() {
    let Some(bench) = Bench::new() else { return };
    let out = bench.run(&["train", "r.toml", "--device", "cpu", "--precision", "bf16"]);
    refused(&out, &["the CPU computes in f32 only", "--precision bf16", "--device cuda"]);
    assert_eq!(bench.run(&["train", "r.toml", "--precision", "fp8"]).code, Some(2));
    let out = bench.train(&["--steps", "2", "--precision", "bf16"]).ok();
    assert!(out.stderr.contains("in bf16"), "{}", out.stderr);
    let info = std::fs::read_to_string(bench.dir.path().join("run/run.json")).expect("the run's record");
    assert!(info.contains(r#""device": "cuda:0 in bf16""#), "{info}");
}

/// Widths that keep layers from the fast kernels are named in a run's first lines, others are not.
#[test]
fn channels_that_cost_fast_kernels_are_named() {
    let Some(bench) = Bench::new() else { return };
    let out = bench.train_in("even", &["--steps", "1"]).ok();
    assert!(!out.stderr.contains("slower kernels"), "{}", out.stderr);
    let out = bench.train_in("odd", &["--steps", "1", "--set", "model.generator.ngf=5"]).ok();
    assert!(out.stderr.contains("convolutions of G have channels (5, 10"), "{}", out.stderr);
    assert!(out.stderr.contains("no multiple of 4: in f32"), "{}", out.stderr);
}
