//! `gan doctor` and `gan kernels`.

use crate::standin::Bench;

#[test]
fn the_doctor_names_what_is_there_and_checks_what_it_computes() {
    let Some(bench) = Bench::new() else { return };
    let out = bench.run(&["doctor"]).ok();
    for word in [
        "driver     runs CUDA up to 13.0",
        "compiler   NVRTC 13.0",
        "cache      ",
        "cuda:0 Stand-in 0 (compute capability 9.0)",
        "1.00 GiB of memory",
        // The stand-in's kernels do nothing: a device that computes nonsense must not pass.
        "cuda:0 computes something else than the CPU",
        "--device cpu can be used; --device cuda cannot:",
    ] {
        assert!(out.stdout.contains(word), "{word:?} is missing in:\n{}", out.stdout);
    }
}

#[test]
fn the_doctor_says_what_to_install() {
    let Some(mut bench) = Bench::new() else { return };
    let out = bench.set("STANDIN_VERSION", 12020).run(&["doctor"]).ok();
    for word in ["driver     runs CUDA up to 12.2", "pip install nvidia-cuda-nvrtc-cu12", "cuda cannot"] {
        assert!(out.stdout.contains(word), "{word:?} is missing in:\n{}", out.stdout);
    }
    let old = bench.libraries().old_driver.display().to_string();
    let out = bench.set("LD_LIBRARY_PATH", old).run(&["doctor"]).ok();
    assert!(out.stdout.contains("install one for CUDA 11.4 or newer"), "{}", out.stdout);
    let driver = bench.libraries().driver.display().to_string();
    let out = bench.set("LD_LIBRARY_PATH", driver).set("STANDIN_DEVICES", 0).run(&["doctor"]).ok();
    assert!(out.stdout.contains("shows no device"), "{}", out.stdout);
}

/// Everything that a run compiles was compiled ahead, without a driver.
#[test]
fn kernels_are_built_listed_used_and_cleared() {
    let Some(mut bench) = Bench::new() else { return };
    let entries = |bench: &Bench| -> usize {
        let out = bench.run(&["kernels", "list"]).ok();
        let last = out.stdout.lines().last().expect("a line").to_string();
        assert_eq!(
            out.stdout.lines().count() - 1,
            last.split(' ').next().and_then(|n| n.parse::<usize>().ok()).expect("a number")
        );
        out.stdout.lines().count() - 1
    };
    let driver = bench.libraries().driver.display().to_string();
    let nowhere = bench.dir.path().display().to_string();
    bench.set("LD_LIBRARY_PATH", nowhere);
    assert_eq!(entries(&bench), 0);
    let build = ["kernels", "build", "r.toml", "--arch", "sm_80,sm_90a", "--multiprocessors", "132"];
    let out = bench.run(&build).ok();
    let built = entries(&bench);
    assert!(built > 60 && built.is_multiple_of(2), "{built} kernels for two architectures\n{}", out.stdout);
    let out = bench.run(&build).ok();
    assert_eq!(out.stdout.matches("0 compiled").count(), 2, "{}", out.stdout);
    assert_eq!(entries(&bench), built);

    bench.set("LD_LIBRARY_PATH", driver);
    bench.train(&["--steps", "4"]).ok();
    bench.run(&["evaluate", "run", "--device", "cuda"]).ok();
    assert_eq!(entries(&bench), built, "a run needed kernels that were not built");

    let out = bench.run(&["kernels", "clear"]).ok();
    assert!(out.stdout.starts_with(&format!("removed {built} kernels")), "{}", out.stdout);
    assert_eq!(entries(&bench), 0);
    // Without an architecture: that of the device.
    let out = bench.run(&["kernels", "build", "r.toml", "--size", "32,24"]).ok();
    assert!(out.stdout.contains("for sm_90a (132 multiprocessors)"), "{}", out.stdout);
    assert_eq!(bench.run(&["kernels", "build", "r.toml", "--arch", "hopper"]).code, Some(2));
    bench.set("LD_LIBRARY_PATH", bench.dir.path().display().to_string());
    let out = bench.run(&["kernels", "build", "r.toml"]);
    assert_eq!(out.code, Some(1));
    assert!(out.stderr.contains("name the architectures to compile for with --arch"), "{}", out.stderr);
}
