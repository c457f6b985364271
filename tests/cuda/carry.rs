//! `tests/gpu/run.sh`, which runs the tests of a device where no cargo is, with programs that note how they were called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// A packed folder whose tests append their shard and words to a log, and fail in shard `failing`.
fn packed(folder: &Path, failing: &str) {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    let script = |name: &str, text: String| {
        fs::write(bin.join(name), format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("executable");
    };
    script("gan", "echo doctor: $1".into());
    let log = folder.join("calls").display().to_string();
    script(
        "gpu",
        format!(
            "echo \"$GAN_SHARD: $*\" >> {log}\necho \"in $GAN_CACHE_DIR, record $GAN_GPU_RECORD\"\n[ \"$GAN_SHARD\" != \"{failing}\" ]"
        ),
    );
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu/run.sh");
    fs::copy(source, folder.join("run.sh")).expect("copied");
}

fn run(folder: &Path, words: &[&str]) -> (Output, Vec<String>) {
    let _ = fs::remove_file(folder.join("calls"));
    let mut command = Command::new("bash");
    command.arg(folder.join("run.sh")).args(words).env("SHARDS", "3").current_dir("/");
    for variable in ["GAN_CACHE_DIR", "GAN_GPU_RECORD", "GAN_SHARD"] {
        command.env_remove(variable);
    }
    let out = command.output().expect("bash");
    let text = fs::read_to_string(folder.join("calls")).unwrap_or_default();
    let mut calls: Vec<String> = text.lines().map(String::from).collect();
    calls.sort();
    (out, calls)
}

#[test]
fn every_shard_is_run_once_and_a_failure_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    packed(folder.path(), "none");
    let (out, calls) = run(folder.path(), &[]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(0), "{text}");
    let words = "primitives convolutions operations products";
    assert_eq!(calls, [0, 1, 2].map(|i| format!("{i}/3: {words}")));
    assert!(text.contains("doctor: doctor") && text.contains("3 of 3 processes passed"), "{text}");
    let log = fs::read_to_string(folder.path().join("record/1.log")).expect("a log");
    assert!(log.contains("/cache, record") && log.contains("/record/1"), "{log}");

    packed(folder.path(), "1/3");
    let (out, calls) = run(folder.path(), &[]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!((out.status.code(), calls.len()), (Some(1), 3), "{text}");
    assert!(text.contains("process 1 of 3 failed") && text.contains("2 of 3 processes passed"), "{text}");

    let (out, calls) = run(folder.path(), &["parity", "bench"]);
    assert_eq!((out.status.code(), calls), (Some(0), vec![": parity bench".to_string()]));
}
