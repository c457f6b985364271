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

/// What was compiled, and by which process.
fn compiled(bench: &Bench) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(bench.dir.path().join("compiled.log")).unwrap_or_default();
    let line = |l: &str| l.split_once(' ').map(|(process, what)| (process.to_string(), what.to_string()));
    text.lines().map(|l| line(l).expect("a process and what it compiled")).collect()
}

const BUILD: [&str; 7] = ["kernels", "build", "r.toml", "--arch", "sm_90a", "--jobs", "3"];

/// As many kernels as `kernels build` says, compiled by how many processes, each once.
fn built_by(bench: &Bench, stdout: &str) -> usize {
    let all = compiled(bench);
    let count: usize = stdout.split(": ").nth(1).and_then(|t| t.split(' ').next()).unwrap().parse().unwrap();
    let distinct: std::collections::BTreeSet<&String> = all.iter().map(|(_, what)| what).collect();
    assert_eq!((all.len(), distinct.len()), (count, count), "{stdout}");
    assert!(stdout.contains(&format!("{count} compiled, 0 there already")), "{stdout}");
    all.iter().map(|(process, _)| process).collect::<std::collections::BTreeSet<_>>().len()
}

fn slow_compiler() -> Option<Bench> {
    let mut bench = Bench::new()?;
    let log = bench.dir.path().join("compiled.log").display().to_string();
    bench.set("STANDIN_COMPILED", log).set("STANDIN_COMPILE_MS", 20);
    Some(bench)
}

/// The compiler works on one kernel at a time in a process: so there are several.
#[test]
fn kernels_are_compiled_by_several_processes() {
    let Some(bench) = slow_compiler() else { return };
    let out = bench.run(&BUILD).ok();
    assert_eq!(built_by(&bench, &out.stdout), 3);
    assert!(out.stderr.contains("kernels for sm_90a in 3 processes"), "{}", out.stderr);
    let entries = std::fs::read_dir(bench.dir.path().join("cache/kernels")).unwrap();
    let left = |name: &String| name.starts_with('.');
    let names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(left), "{names:?}");
}

/// A worker that ends in the middle of its work leaves it to others.
#[test]
fn what_a_lost_worker_had_is_compiled_by_others() {
    let Some(mut bench) = slow_compiler() else { return };
    let out = bench.set("STANDIN_WORKERS_DIE", 1).run(&BUILD).ok();
    assert_eq!(built_by(&bench, &out.stdout), 3, "two workers compiled a kernel each, and ended");
}

/// What does not compile ends the work, whichever process had it.
#[test]
fn a_kernel_that_does_not_compile_is_named() {
    let Some(mut bench) = slow_compiler() else { return };
    for file in ["conv.cu", "optim.cu"] {
        let out = bench.set("STANDIN_REFUSES", file).run(&BUILD);
        assert_eq!(out.code, Some(1), "{}", out.stderr);
        assert!(
            out.stderr.contains(&format!("kernel {file} does not compile with NVRTC 13.0")),
            "{}",
            out.stderr
        );
    }
}

/// A run knows all of its kernels before it launches the first, and compiles them together.
#[test]
fn a_run_compiles_its_kernels_at_once() {
    let Some(bench) = slow_compiler() else { return };
    let out = bench.train(&["--steps", "2", "--set", "validate.every_epochs=0"]).ok();
    let begun = out.stderr.lines().filter(|l| l.starts_with("compiling ")).count();
    assert_eq!(begun, 1, "{}", out.stderr);
    let quiet = bench.train_in("other", &["--steps", "2", "--quiet", "--set", "train.batch=1"]).ok();
    assert_eq!(quiet.stderr, "");
}

/// The worker is no command for people.
#[test]
fn a_worker_without_a_master_says_what_it_is() {
    let Some(bench) = Bench::new() else { return };
    let out = bench.run(&["kernels", "--help"]).ok();
    assert!(!out.stdout.contains("worker"), "{}", out.stdout);
    assert_eq!(bench.run(&["kernels", "worker"]).ok().stdout, "", "nothing was asked");
}
