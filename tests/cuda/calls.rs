//! The order of the calls: one launch a step, nothing reserved and nothing waited for in between.

use crate::standin::Bench;

/// Steps without validation and histograms, and with few reads in between.
const PLAIN: [&str; 10] = [
    "--steps",
    "20",
    "--set",
    "validate.every_epochs=0",
    "--set",
    "log.every=5",
    "--set",
    "log.checkpoint_every=100",
    "--set",
    "log.histograms=0",
];

fn count(log: &[String], name: &str) -> usize {
    log.iter().filter(|l| l.split(' ').next() == Some(name)).count()
}

#[test]
fn a_step_is_one_launch_and_nothing_is_reserved_or_waited_for_in_the_loop() {
    let Some(bench) = Bench::new() else { return };
    bench.train(&PLAIN).ok();
    let log = bench.log();
    let launches: Vec<usize> = (0..log.len()).filter(|&i| log[i].starts_with("cuGraphLaunch")).collect();
    assert_eq!(launches.len(), 20, "one launch a step");
    assert_eq!(count(&log, "cuStreamBeginCapture_v2"), 1, "recorded once");
    let nodes = log[launches[0]].split(' ').nth(1).expect("a number").parse::<usize>().expect("a number");
    assert_eq!(count(&log, "cuLaunchKernel"), nodes, "no kernel is launched but for the recording");
    assert!(nodes > 50, "only {nodes} kernels");

    let within = &log[launches[0]..=launches[19]];
    let allowed = [
        "cuGraphLaunch",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuEventRecord",
        "cuEventQuery",
        "cuStreamWaitEvent",
        "cuStreamSynchronize",
    ];
    for line in within {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(allowed.contains(&name), "in the loop: {line}");
    }
    // After steps 1, 5, 10 and 15; step 20 is read behind the last launch.
    assert_eq!(count(within, "cuStreamSynchronize"), 4, "the losses are waited for when they are read");
    assert_eq!(count(within, "cuMemcpyDtoHAsync_v2"), 4 * 8, "four losses and four signs of health");
    assert!(within.iter().filter(|l| l.starts_with("cuMemcpyDtoH")).all(|l| l.contains("pinned")));
}

#[test]
fn inputs_come_from_pinned_memory_on_a_stream_of_their_own_ordered_by_events() {
    let Some(bench) = Bench::new() else { return };
    bench.train(&PLAIN).ok();
    let log = bench.log();
    let first = log.iter().position(|l| l.starts_with("cuGraphLaunch")).expect("a launch");
    // Between two launches: wait until the area was taken, send, mark; the other stream waits for the mark, distributes,
    // marks that it has.
    let second =
        first + 1 + log[first + 1..].iter().position(|l| l.starts_with("cuGraphLaunch")).expect("two");
    let step: Vec<&str> = log[first + 1..second]
        .iter()
        .map(String::as_str)
        .filter(|l| !l.starts_with("cuMemcpyDtoH") && !l.starts_with("cuStreamSynchronize"))
        .collect();
    let starts: Vec<&str> = step.iter().map(|l| l.split(' ').next().unwrap_or_default()).collect();
    let copies = starts.iter().filter(|s| **s == "cuMemcpyDtoDAsync_v2").count();
    assert!(copies > 2, "{step:#?}");
    let mut expected = vec![
        "cuEventQuery",
        "cuStreamWaitEvent",
        "cuMemcpyHtoDAsync_v2",
        "cuEventRecord",
        "cuStreamWaitEvent",
    ];
    expected.extend(vec!["cuMemcpyDtoDAsync_v2"; copies]);
    expected.push("cuEventRecord");
    assert_eq!(starts, expected);
    assert!(step[1].starts_with("cuStreamWaitEvent 2"), "{}", step[1]);
    assert!(step[2].contains("pinned on 2"), "{}", step[2]);
    let mark =
        step[3].strip_prefix("cuEventRecord ").and_then(|l| l.strip_suffix(" on 2")).expect("on stream 2");
    assert_eq!(step[4], format!("cuStreamWaitEvent 1 {mark}"));
    assert!(step.last().is_some_and(|l| l.ends_with("on 1")), "{step:#?}");
}

/// The stand-in makes copies as late as a real device may, and ends the process if their source has changed by then.
#[test]
fn no_copy_is_overtaken_when_the_host_runs_ahead() {
    let Some(mut bench) = Bench::new() else { return };
    bench.set("STANDIN_LATE", 1).train(&[&PLAIN[..], &["--set", "log.every=20"]].concat()).ok();
    assert!(!bench.log().iter().any(|l| l.starts_with("FAULT")));
}

#[test]
fn a_whole_run_with_validation_checkpoints_and_resume() {
    let Some(mut bench) = Bench::new() else { return };
    bench.set("STANDIN_LATE", 1);
    let out = bench.train(&["--steps", "12"]).ok();
    assert!(
        out.stderr
            .contains("on cuda:0 Stand-in 0 (compute capability 9.0), driver for CUDA 13.0, NVRTC 13.0"),
        "{}",
        out.stderr
    );
    let log = bench.log();
    // All that was reserved is given back.
    assert_eq!(count(&log, "cuMemAllocAsync"), count(&log, "cuMemFreeAsync"));
    assert_eq!(count(&log, "cuMemHostAlloc"), count(&log, "cuMemFreeHost"));
    assert_eq!(count(&log, "cuDevicePrimaryCtxRelease_v2"), 1);
    let info = std::fs::read_to_string(bench.dir.path().join("run/run.json")).expect("written");
    assert!(info.contains(r#""device": "cuda:0""#), "{info}");
    bench.run(&["evaluate", "run", "--device", "cuda"]).ok();
    assert!(count(&bench.log(), "cuGraphLaunch") > 0);
    bench.run(&["bench", "step", "r.toml", "--size", "32", "--steps", "2", "--device", "cuda:0"]).ok();
    assert!(count(&bench.log(), "cuGraphLaunch") == 30, "three times ten steps");
}

#[test]
fn a_device_without_a_memory_pool_is_used_and_named() {
    let Some(mut bench) = Bench::new() else { return };
    let out = bench.set("STANDIN_POOLS", 0).train(&["--steps", "3"]).ok();
    assert!(out.stderr.contains("without a memory pool"), "{}", out.stderr);
    let log = bench.log();
    assert!(count(&log, "cuMemAlloc_v2") > 0 && count(&log, "cuMemAllocAsync") == 0);
}

/// A device that is newer than the compiler gets PTX, and this is said.
#[test]
fn a_newer_device_is_reached_through_ptx() {
    let Some(mut bench) = Bench::new() else { return };
    let out = bench.set("STANDIN_CAPABILITY", 130).train(&["--steps", "1"]).ok();
    assert!(out.stderr.contains("the driver translates compute_120"), "{}", out.stderr);
    bench.set("STANDIN_NVRTC", 1310);
    let out = bench.train_in("other", &["--steps", "1"]);
    assert_eq!(out.code, Some(1));
    assert!(out.stderr.contains("makes PTX for CUDA 13.1"), "{}", out.stderr);
    assert!(out.stderr.contains("'nvidia-cuda-nvrtc==13.0.*'"), "{}", out.stderr);
}

/// What TMA is told of tensors is told once, before the first step; the stand-in checks it.
#[test]
fn maps_are_encoded_where_sm_90a_s_convolutions_are_taken() {
    let Some(mut bench) = Bench::new() else { return };
    let wide =
        ["--precision", "bf16", "--set", "model.generator.ngf=8", "--set", "model.discriminator.ndf=8"];
    let run = |bench: &mut Bench, hopper: &str, out: &str| {
        let out = bench.set("GAN_HOPPER", hopper).train_in(out, &[&PLAIN[..], &wide].concat());
        (out, bench.log())
    };
    let (out, log) = run(&mut bench, "always", "run");
    let stderr = out.ok().stderr;
    assert!(stderr.contains("sm_90a's own convolutions wherever they can"), "{stderr}");
    let (tiled, im2col) = (count(&log, "cuTensorMapEncodeTiled"), count(&log, "cuTensorMapEncodeIm2col"));
    assert!(tiled > 10 && im2col > tiled, "{tiled} {im2col}: a map for each phase of a gradient");
    let first = log.iter().position(|l| l.starts_with("cuGraphLaunch")).expect("a launch");
    assert!(!log[first..].iter().any(|l| l.starts_with("cuTensorMap")), "in the loop");
    let info = std::fs::read_to_string(bench.dir.path().join("run/run.json")).expect("written");
    assert!(info.contains("sm_90a's own convolutions wherever they can"), "{info}");

    let (out, log) = run(&mut bench, "off", "other");
    assert!(out.ok().stderr.contains("without sm_90a's own convolutions"));
    assert_eq!(count(&log, "cuTensorMapEncodeTiled"), 0);
    let (out, _) = run(&mut bench, "perhaps", "third");
    assert_eq!(out.code, Some(1));
    assert!(out.stderr.contains("GAN_HOPPER = \"perhaps\": write off, auto or always"), "{}", out.stderr);
}
