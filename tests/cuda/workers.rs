//! Compiling by processes of the program itself. Here rather than beside the other tests of compiled kernels: those let workers
//! compile from the beginning.

use crate::common;
use gan::device::cuda::cache::Cache;
use gan::device::cuda::compiler::{Compiler, Specialisation};
use gan::device::cuda::nvrtc::Nvrtc;
use gan::device::cuda::workers;
use std::sync::{Arc, Mutex};

/// A program that never said that it can be started as a worker compiles by itself; both give the same code.
#[test]
fn worker_processes_compile_the_same() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let types = ["float", "bf16"];
    let mut all: Vec<Specialisation> =
        types.iter().map(|t| Specialisation::new("pool.cu", [format!("TYPE={t}")])).collect();
    for (x, y) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let constants = [format!("IN={}", types[x]), format!("OUT={}", types[y])];
        all.push(Specialisation::new("resample.cu", constants));
    }
    let begun: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = begun.clone();
    workers::watch(move |now| {
        if now.done == 0 {
            seen.lock().unwrap().push(now.processes);
        }
    });
    let mut codes = Vec::new();
    for folder in &folders {
        let Ok(nvrtc) = Nvrtc::find() else {
            return common::not_checked("no NVRTC");
        };
        let compiler = Compiler::with(nvrtc, Cache::at(folder.path()).unwrap());
        assert_eq!(compiler.compile_all(&all, "sm_80", Some(2)).unwrap(), all.len());
        assert_eq!(compiler.compile_all(&all, "sm_80", Some(2)).unwrap(), 0, "all there");
        let code = |what| compiler.image(what, "sm_80").unwrap().bytes;
        codes.push(all.iter().map(code).collect::<Vec<_>>());
        workers::enable(env!("CARGO_BIN_EXE_gan").into());
    }
    assert_eq!(*begun.lock().unwrap(), [1, 2]);
    assert!(codes[0] == codes[1]);
    workers::watch(|_| {});
}
