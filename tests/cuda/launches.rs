//! Launches that a driver takes and launches that it refuses, and what is printed of a step.

use crate::common;
use crate::standin::{Bench, libraries, program};
use gan::device::cuda::cache::Cache;
use gan::device::cuda::compiler::{Compiler, Specialisation};
use gan::device::cuda::nvrtc::Nvrtc;
use gan::device::cuda::usage;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const PRECISIONS: [&str; 3] = ["f32", "tf32", "bf16"];

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let files = std::fs::read_dir(folder).expect("the recipes").map(|f| f.expect("a file").path());
    let mut all: Vec<PathBuf> = files.filter(|f| f.extension().is_some_and(|e| e == "toml")).collect();
    all.sort();
    all
}

/// The stand-in refuses each of a driver's reasons, once planted.
#[test]
fn the_stand_in_refuses_what_a_driver_refuses() {
    let Some(refusals) = libraries().and_then(|_| program("refusals.c")) else { return };
    let out = Command::new(refusals).output().expect("it runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.lines().count() > 30,
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let wrong: Vec<&str> = text.lines().filter(|l| !l.starts_with("ok ")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Of a real cubin the stand-in knows what the compiler says.
#[test]
fn the_stand_in_reads_cubins() {
    let Some(refusals) = libraries().and_then(|_| program("refusals.c")) else { return };
    let Ok(nvrtc) = Nvrtc::find() else {
        return common::not_checked("no NVRTC");
    };
    let dir = tempfile::tempdir().expect("a folder");
    let compiler = Compiler::with(nvrtc, Cache::at(dir.path()).expect("a cache"));
    let norm =
        Specialisation::new("norm.cu", ["IN=float", "OUT=float", "LANES=32", "AFFINE=0", "ACTIVATION(v)=v"]);
    for architecture in ["sm_80", "sm_90a", "sm_100"] {
        let image = compiler.image(&norm, architecture).unwrap_or_else(|e| panic!("{e}"));
        let path = dir.path().join("cubin");
        std::fs::write(&path, &image.bytes).expect("written");
        let kernels = usage::parse(&image.log);
        assert!(kernels.len() > 2);
        for kernel in kernels {
            let mut command = Command::new(&refusals);
            command.arg(&path).arg(&kernel.kernel);
            command.env("STANDIN_CAPABILITY", architecture.trim_matches(|c: char| !c.is_ascii_digit()));
            let out = command.output().expect("it runs");
            let told = String::from_utf8_lossy(&out.stdout).into_owned();
            let wanted = format!("{} registers, {} static, 256 threads", kernel.registers, kernel.shared);
            assert!(told.starts_with(&wanted), "{architecture} {}: {told} for {wanted}", kernel.kernel);
            assert!(told.trim_end().ends_with(&format!("{} bytes", image.bytes.len())), "{told}");
        }
    }
}

/// On the stand-in for an H100: kernels do nothing, but every one is launched as a driver would take it.
#[test]
fn every_recipe_trains_two_steps_in_every_precision() {
    let Some(mut bench) = Bench::new() else { return };
    bench.set("STANDIN_MEMORY", 16u64 << 30).set("STANDIN_SMS", 132);
    let mut asked = 0;
    for path in recipes() {
        let file = path.display().to_string();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        for precision in PRECISIONS {
            let out = format!("{name}-{precision}");
            let common = ["--device", "cuda", "--precision", precision];
            // Fewer subjects of the recipe's own size: the networks and their images are what is shipped.
            let few = ["data.phantom.subjects=8", "validate.every_epochs=0", "log.samples=0"];
            let mut args = vec!["train", &file, "--out", &out, "--steps", "2"];
            if name == "t1-to-t2" {
                // Its images are real ones, which need not be at hand.
                args = vec!["bench", "step", &file, "--size", "256", "--steps", "1"];
            } else {
                few.iter().for_each(|s| args.extend(["--set", s]));
            }
            args.extend(common);
            let ran = bench.run(&args);
            let log = bench.log();
            let refused: Vec<&String> = log.iter().filter(|l| l.starts_with("REFUSED")).collect();
            assert!(ran.code == Some(0) && refused.is_empty(), "{out}: {}{refused:#?}", ran.stderr);
            let runs = log.iter().filter(|l| l.starts_with("cuGraphLaunch")).count();
            assert!(runs >= 2, "{out}: {runs} runs");
            asked += log.iter().filter(|l| l.starts_with("cuFuncSetAttribute 8 49152")).count();
        }
    }
    // 48 KiB are more than plain with what is static beside them.
    assert!(asked > 100, "48 KiB were asked for only {asked} times");
}

/// What the device has not is refused before anything runs, in a sentence.
#[test]
fn what_the_device_cannot_launch_is_refused_before_training() {
    let Some(mut bench) = Bench::new() else { return };
    let train = |bench: &Bench| bench.train(&["--steps", "2", "--set", "validate.every_epochs=0"]);
    let refused = |bench: &Bench, words: &[&str]| {
        let out = train(bench);
        assert_eq!(out.code, Some(1), "{}", out.stderr);
        for word in words.iter().chain(&["Stand-in 0 cannot run this: ", "or `--device cpu`"]) {
            assert!(out.stderr.contains(word), "{word:?} is missing in: {}", out.stderr);
        }
        assert!(!bench.log().iter().any(|l| l.starts_with("cuGraphLaunch")), "nothing has run");
    };
    bench.set("STANDIN_STATIC", 240_000);
    refused(&bench, &["bytes of shared memory a block (240000 static", "the device has 232448"]);
    bench.set("STANDIN_STATIC", 150_000).set("STANDIN_CAPABILITY", 80);
    refused(&bench, &["the device has 166912"]);
    bench.set("STANDIN_STATIC", 2560).set("STANDIN_THREADS", 16);
    refused(&bench, &["it was compiled for 1 to 16"]);
    bench.set("STANDIN_THREADS", 1024).set("STANDIN_CAPABILITY", 90);
    train(&bench).ok();
}

/// FLOPs and bytes of a step, as they are printed and written: whatever computes it.
#[test]
fn a_step_is_the_same_work_on_every_device() {
    let Some(mut bench) = Bench::new() else { return };
    bench.set("STANDIN_MEMORY", 16u64 << 30);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/mr2pet.toml").display().to_string();
    let step = |device: &str, precision: &str| {
        let json = format!("{device}-{precision}.json");
        let args = ["bench", "step", &recipe, "--size", "256", "--steps", "1", "--device", device];
        let out = bench.run(&[&args[..], &["--precision", precision, "--json", &json]].concat()).ok();
        // "93.1 GFLOP (of which products 92.0) on 1234.5 MB as traced".
        let printed = out.stdout.split(", ").find(|part| part.contains(" GFLOP (")).map(str::to_string);
        let text = std::fs::read_to_string(bench.dir.path().join(json)).expect("written");
        let told: Value = serde_json::from_str(&text).expect("JSON");
        let operations = told["flops_and_bytes"].as_array().expect("a list").iter();
        let launched: u64 = operations.map(|c| c[0].as_u64().expect("FLOPs")).sum();
        assert_eq!(told["flop_per_step"].as_u64(), Some(launched), "every FLOP has its operation");
        let work = ["flop_per_step", "product_flop_per_step", "bytes_per_step"].map(|k| told[k].clone());
        (printed.expect("the figures"), work)
    };
    let cpu = step("cpu", "f32");
    assert!(cpu.0.ends_with("as traced") && cpu.1.iter().all(|v| v.as_u64() > Some(1_000_000)), "{cpu:?}");
    for precision in PRECISIONS {
        assert_eq!(step("cuda", precision), cpu, "{precision}");
    }
}
