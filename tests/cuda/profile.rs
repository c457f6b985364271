//! `gan profile` on a device.

use crate::standin::Bench;
use serde_json::Value;

#[test]
fn a_step_is_profiled_as_it_is_trained_and_launch_by_launch() {
    let Some(bench) = Bench::new() else { return };
    let args =
        ["profile", "r.toml", "--device", "cuda", "--steps", "3", "--json", "p.json", "--trace", "t.json"];
    let out = bench.run(&args).ok();
    for word in ["events around every launch", "Stand-in 0", "grid", "regs", "spills", "occ.", "GFLOP/s"] {
        assert!(out.stdout.contains(word), "{word:?} is missing in:\n{}", out.stdout);
    }
    let log = bench.log();
    assert!(!log.iter().any(|l| l.starts_with("FAULT")));
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(bench.dir.path().join(name)).expect("written");
        serde_json::from_str(&text).expect("JSON")
    };
    let p = read("p.json");
    let kernels = p["kernels"].as_array().expect("a list");
    assert!(kernels.len() > 60, "{} rows", kernels.len());
    for k in kernels {
        let gpu = &k["gpu"];
        assert!(
            gpu["registers"] == 40 && gpu["spilled"] == 16 && gpu["shared"].as_u64() >= Some(2048),
            "{k}"
        );
        assert!(gpu["occupancy"].as_f64().is_some_and(|o| o > 0.0 && o <= 1.0), "{k}");
        assert!(k["variant"].is_string() && k["kernel"].is_string(), "{k}");
    }
    let told: f64 = kernels
        .iter()
        .map(|k| k["flops"].as_f64().expect("a number") * k["calls"].as_f64().expect("a number"))
        .sum();
    assert_eq!(told, p["work"]["flops"].as_f64().expect("a number"), "each FLOP is told once");
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
