//! `gan profile` on a device.

use crate::standin::Bench;
use serde_json::Value;

fn read(bench: &Bench, name: &str) -> Value {
    let text = std::fs::read_to_string(bench.dir.path().join(name)).expect("written");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_step_is_profiled_as_it_is_trained_and_launch_by_launch() {
    let Some(bench) = Bench::new() else { return };
    let args =
        ["profile", "r.toml", "--device", "cuda", "--steps", "3", "--json", "p.json", "--trace", "t.json"];
    let out = bench.run(&[&args[..], &["--timing", "events"]].concat()).ok();
    for word in ["events around every launch", "Stand-in 0", "grid", "regs", "spills", "occ.", "GFLOP/s"] {
        assert!(out.stdout.contains(word), "{word:?} is missing in:\n{}", out.stdout);
    }
    let log = bench.log();
    assert!(!log.iter().any(|l| l.starts_with("FAULT")));
    let read = |name: &str| read(&bench, name);
    let p = read("p.json");
    assert_eq!(p["mode"], "events");
    let kernels = p["kernels"].as_array().expect("a list");
    assert!(kernels.len() > 60, "{} rows", kernels.len());
    for k in kernels {
        let gpu = &k["gpu"];
        assert!(
            gpu["registers"] == 40 && gpu["spilled"] == 16 && gpu["shared"].as_u64() >= Some(2560),
            "{k}"
        );
        assert!(gpu["occupancy"].as_f64().is_some_and(|o| o > 0.0 && o <= 1.0), "{k}");
        assert!(k["variant"].is_string() && k["kernel"].is_string(), "{k}");
    }
    let told: f64 = kernels
        .iter()
        .map(|k| k["flops"].as_f64().expect("a number") * k["calls"].as_f64().expect("a number"))
        .sum();
    // A row tells the whole number nearest to its launches' average.
    let all = p["work"]["flops"].as_f64().expect("a number");
    let rounded: f64 = kernels.iter().map(|k| 0.5 * k["calls"].as_f64().expect("a number")).sum();
    assert!((told - all).abs() <= rounded.min(1e-4 * all), "each FLOP is told once: {told} of {all}");
    // Warm-up and three steps are replayed; before, the peaks were measured, two to seven runs of them recorded in turn.
    let calls = p["work"]["calls"].as_f64().expect("a number") as usize;
    let replay = format!("cuGraphLaunch {calls} nodes on 1");
    assert_eq!(log.iter().filter(|l| **l == replay).count(), 1 + 3, "the step's recording");
    // One more warm-up step and three steps are launched one by one; recording counts as launching, too.
    let launched = log.iter().filter(|l| l.starts_with("cuLaunchKernel") && !l.ends_with("recorded")).count();
    assert_eq!(launched, (1 + 3) * calls);
    let trace = read("t.json");
    let events = trace["traceEvents"].as_array().expect("a list");
    assert_eq!(events.iter().filter(|e| e["args"]["grid"].is_array()).count(), 3 * calls);

    // Ranges for NVIDIA's profilers: phases, and the operations in them.
    let pushed: Vec<&String> = log.iter().filter(|l| l.starts_with("nvtx push")).collect();
    let popped = log.iter().filter(|l| l.starts_with("nvtx pop")).count();
    assert_eq!(pushed.len(), popped);
    assert!(pushed.iter().any(|l| **l == "nvtx push 0 G backward"), "{:?}", &pushed[..5]);
    assert!(pushed.iter().any(|l| l.starts_with("nvtx push 1 conv") && l.contains("G/")));
}

/// Training takes no times and names no ranges.
#[test]
fn training_knows_nothing_of_it() {
    let Some(bench) = Bench::new() else { return };
    bench.train(&["--set", "train.steps=3", "--quiet"]).ok();
    let log = bench.log();
    assert!(!log.iter().any(|l| l.starts_with("nvtx")));
    let events: Vec<&String> = log.iter().filter(|l| l.starts_with("cuEventCreate")).collect();
    // Disabled timing: the driver then does not even note the time.
    assert!(!events.is_empty() && events.iter().all(|l| l.ends_with("flags 2")), "{events:?}");
}

const STEPS: usize = 3;

/// Profiles with the stand-in for CUPTI, which does `how`.
fn profiled(bench: &mut Bench, how: &str, more: &[&str]) -> crate::common::Outcome {
    let cupti = bench.libraries().cupti.display().to_string();
    bench.set("GAN_CUPTI", cupti).set("STANDIN_CUPTI", how);
    let args =
        ["profile", "r.toml", "--device", "cuda", "--steps", "3", "--json", "p.json", "--trace", "t.json"];
    bench.run(&[&args[..], more].concat())
}

#[test]
fn kernels_are_timed_inside_of_the_graph() {
    let Some(mut bench) = Bench::new() else { return };
    let out = profiled(&mut bench, "", &["--timing", "cupti"]).ok();
    let how = "kernels by CUPTI activity inside the CUDA graph, in further steps (CUPTI 130001, ";
    assert!(out.stdout.contains(how), "{}", out.stdout);
    let p = read(&bench, "p.json");
    assert_eq!(p["mode"], "cupti");
    let number = |v: &Value| v.as_f64().expect("a number");
    let near = |a: f64, b: f64| (a - b).abs() < 1e-3;
    let kernels = p["kernels"].as_array().expect("a list");
    let calls: f64 = kernels.iter().map(|k| number(&k["calls"])).sum();
    // The stand-in runs every kernel for 2 us, half a microsecond behind the one before. (Times are told by way of the host's
    // clock, in seconds: nanoseconds are at the end of its precision.)
    for k in kernels {
        assert!(near(number(&k["median_us"]), 2.0) && near(number(&k["p95_us"]), 2.0), "{k}");
        let gpu = &k["gpu"];
        // Not what the stand-in for the driver says of a function: 40 registers, 2560 bytes, 16 spilled.
        assert!(gpu["registers"] == 96 && gpu["spilled"] == 8 && gpu["shared"].as_u64() >= Some(4096), "{k}");
    }
    let short: Vec<&Value> = kernels.iter().filter(|k| !near(number(&k["gpu"]["gap_us"]), 0.5)).collect();
    assert!(short.len() <= 1, "only the first kernel waits for the inputs: {short:?}");
    assert!(near(number(&p["shares"]["calls_ms"]), 2e-3 * calls), "{}", p["shares"]);

    let log = bench.log();
    let launched = log.iter().filter(|l| l.starts_with("cuLaunchKernel") && !l.ends_with("recorded")).count();
    assert_eq!(launched, 0, "nothing is launched outside of a graph");
    let replays = |from: usize, to: usize| {
        let replay = format!("cuGraphLaunch {calls} nodes on 1");
        log[from..to].iter().filter(|l| **l == replay).count()
    };
    let places = |what: &str| -> Vec<usize> {
        (0..log.len()).filter(|&i| log[i] == format!("cupti {what}")).collect()
    };
    let (on, off) = (places("enable"), places("disable"));
    assert_eq!((on.len(), off.len()), (1 + STEPS, 1 + STEPS), "a warm-up step, and each that is timed");
    assert!(on.iter().zip(&off).all(|(&a, &b)| replays(a, b) == 1), "one replay while it is on");
    // Training's own recording is made and replayed without: one warm-up step, three steps.
    assert_eq!(replays(0, log.len()), 2 * (1 + STEPS));
    let recorded: Vec<usize> =
        (0..log.len()).filter(|&i| log[i] == format!("cuStreamEndCapture {calls} nodes")).collect();
    assert_eq!(recorded.len(), 2, "training's recording, and one that was made under CUPTI's eyes");
    assert!(recorded[0] < on[0] && (on[0]..off[0]).contains(&recorded[1]), "{recorded:?} {on:?} {off:?}");

    let trace = read(&bench, "t.json");
    let events = trace["traceEvents"].as_array().expect("a list");
    let kernels: Vec<&Value> = events.iter().filter(|e| e["args"]["grid"].is_array()).collect();
    assert_eq!(kernels.len() as f64, STEPS as f64 * calls);
    assert!(kernels.iter().all(|k| near(number(&k["dur"]), 2.0)), "as long as they ran");
}

/// Whatever is wrong with CUPTI, the profile is made by events and says why; asked for CUPTI, it is not made.
#[test]
fn without_cupti_kernels_are_timed_by_events() {
    let Some(mut bench) = Bench::new() else { return };
    profiled(&mut bench, "", &["--timing", "events"]).ok();
    let calls = read(&bench, "p.json")["work"]["calls"].as_f64().expect("a number");
    let (last, later) = (format!("miss {calls}"), format!("rename {}", (2.5 * calls) as usize));
    let cases = [
        ("version 17", "has version 17 of its API"),
        (
            "refuse 35",
            "cannot note kernels: CUPTI_ERROR_INSUFFICIENT_PRIVILEGES (35); the driver lets only administrators profile here",
        ),
        ("miss 7", "was noted as "),
        (&last, "kernels of a recording were noted, and it launches"),
        // After the warm-up, in a step that counts.
        (&later, "was noted as another, and "),
        ("lose 3", "CUPTI lost 3 records"),
        ("zero 50", "CUPTI has no times for the kernel "),
    ];
    for (how, why) in cases {
        let out = profiled(&mut bench, how, &[]).ok();
        for word in ["kernels by events around every launch", "(not by CUPTI activity: ", why] {
            assert!(out.stdout.contains(word), "{how}: {word:?} is missing in:\n{}", out.stdout);
        }
        let p = read(&bench, "p.json");
        assert_eq!(p["mode"], "events", "{how}");
        let kernels = p["kernels"].as_array().expect("a list");
        assert!(kernels.iter().all(|k| k["gpu"]["registers"] == 40), "{how}: what the driver says");
        let launched = bench
            .log()
            .iter()
            .filter(|l| l.starts_with("cuLaunchKernel") && !l.ends_with("recorded"))
            .count();
        // With a step to warm up, if that one told already.
        let steps = STEPS + usize::from(how != later);
        assert_eq!(launched as f64 / calls, steps as f64, "{how}: steps launch by launch");
    }
    for (how, why) in
        [("version 140000", "has version 140000 of its API"), (&later, "was noted as another, and ")]
    {
        let out = profiled(&mut bench, how, &["--timing", "cupti"]);
        assert_eq!(out.code, Some(1), "{how}: {}", out.stderr);
        assert!(
            out.stderr.contains(why) && out.stderr.contains("use `--timing events`"),
            "{how}: {}",
            out.stderr
        );
    }
    // An older driver than the library, and no library.
    bench.set("STANDIN_VERSION", 12080).set("STANDIN_NVRTC", 1280);
    let out = profiled(&mut bench, "", &[]).ok();
    let why = "the CUPTI found is for CUDA 13";
    assert!(
        out.stdout.contains(why) && out.stdout.contains("`pip install nvidia-cuda-cupti-cu12`"),
        "{}",
        out.stdout
    );
    bench.set("STANDIN_VERSION", "").set("STANDIN_NVRTC", "");
    let empty = bench.dir.path().display().to_string();
    let out =
        bench.set("GAN_CUPTI", empty).run(&["profile", "r.toml", "--device", "cuda", "--steps", "1"]).ok();
    assert!(out.stdout.contains("(not by CUPTI activity: "), "{}", out.stdout);
    let none = "no libcupti found; install one with `pip install 'nvidia-cuda-cupti==13.*'`";
    if !out.stdout.contains(none) {
        eprintln!("not checked: the system's loader knows a CUPTI");
    }
    // It is not looked for where there is no GPU to look at.
    let out = bench.run(&["profile", "r.toml", "--timing", "cupti"]);
    assert_eq!(out.code, Some(2), "{}", out.stderr);
}
