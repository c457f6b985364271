use super::say;
use crate::device::cpu::available;
use crate::device::cuda::cache::Cache;
use crate::device::cuda::driver::Driver;
use crate::device::cuda::nvrtc::Nvrtc;
use crate::device::launch::Math;
use crate::error::{Error, Result};
use crate::exec::choice::Choice;
use crate::exec::probe::probe_all;
use crate::watch::csvlog::bytes;

/// Tell what this machine can compute on, and what is missing
///
/// Looks for the NVIDIA driver, its devices, the run-time compiler (NVRTC) and the cache of compiled kernels; for every missing
/// piece says what to install. Where all is there, runs small programs on each device in every precision, with every set of
/// kernels that it has, and compares with the CPU. The
/// exit code is 0 if the CPU can be used, which is all that this program must have.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> Result<()> {
    let row = |what: &str, text: String| say(format!("{what:<10} {text}"));
    let free = available().map_or(String::new(), |b| format!(", {} of memory free", bytes(b)));
    row("cpu", format!("{} threads{free}", rayon::current_num_threads()));
    let mut missing = Vec::new();
    let keep = |missing: &mut Vec<String>, e: &Error| {
        missing.push(e.to_string());
        format!("missing: {e}")
    };

    let driver = Driver::load();
    let version = driver.as_ref().ok().map(|d| d.version);
    row(
        "driver",
        match &driver {
            Ok(d) => format!("runs CUDA up to {}.{}", d.version.0, d.version.1),
            Err(e) => keep(&mut missing, e),
        },
    );
    row(
        "compiler",
        match Nvrtc::find_for(version) {
            Ok(n) => format!("NVRTC {}.{}, {}", n.version.0, n.version.1, n.origin),
            Err(e) => keep(&mut missing, &e),
        },
    );
    row(
        "cache",
        match Cache::open() {
            Ok(cache) => {
                let entries = cache.list();
                let total = entries.iter().map(|e| e.bytes).sum();
                format!("{} kernels, {} in {}", entries.len(), bytes(total), cache.folder().display())
            }
            Err(e) => keep(&mut missing, &e),
        },
    );
    let count = match driver.as_ref().map(Driver::devices) {
        Ok(Ok(0)) => {
            let none = "the driver shows no device; see CUDA_VISIBLE_DEVICES and nvidia-smi";
            row("device", keep(&mut missing, &Error::input(none)));
            0
        }
        Ok(Ok(count)) => count,
        Ok(Err(e)) => {
            row("device", keep(&mut missing, &e));
            0
        }
        Err(_) => 0,
    };
    let mut usable = 0;
    for n in 0..count {
        match Choice::Cuda(n)
            .open(Math::Fma)
            .and_then(|(device, _)| Ok((device.describe(), device.memory()?, probe_all(&device))))
        {
            Ok((about, memory, checked)) => {
                let memory = memory.map_or(String::new(), |(free, total)| {
                    format!("; {} of memory, {} free", bytes(total), bytes(free))
                });
                row("device", format!("{about}{memory}"));
                match checked {
                    Ok(parts) => {
                        usable += 1;
                        let parts: Vec<String> =
                            parts.iter().map(|(what, error)| format!("{what} to {error:.1e}")).collect();
                        row("", format!("convolutions agree with the CPU's: {}", parts.join(", ")));
                    }
                    Err(e) => {
                        row("", e.to_string());
                        missing.push(e.to_string());
                    }
                }
            }
            Err(e) => {
                let text = e.to_string();
                // What is missing for all of them was said above.
                if missing.contains(&text) {
                    row("device", format!("cuda:{n}"));
                } else {
                    row("device", format!("cuda:{n}: missing: {text}"));
                    missing.push(text);
                }
            }
        }
    }
    say("");
    match usable {
        0 => {
            say("--device cpu can be used; --device cuda cannot:");
            missing.iter().for_each(|m| say(format!("- {m}")));
        }
        1 => say("--device cpu and --device cuda can be used"),
        n => say(format!("--device cpu and --device cuda:0 to cuda:{} can be used", n - 1)),
    }
    Ok(())
}
