//! Everything that only a GPU can show, in one command:
//!
//! ```text
//! cargo test --release --test gpu                # all stages
//! cargo test --release --test gpu -- parity      # the stages whose names contain a word
//! cargo test --release --test gpu -- --compile sm_90a    # no stage: compiles all kernels that they take, without a GPU
//! ```
//!
//! The program needs neither cargo nor the sources when it runs: copied with the program `gan` to another machine, it
//! does the same there. Without a GPU it says so and passes, unless `GAN_REQUIRE_GPU=1`.
//!
//! | variable | meaning | otherwise |
//! |---|---|---|
//! | `GAN_BIN` | the program `gan` | that of this build, or `gan` beside this program |
//! | `GAN_RECIPES` | the folder of the recipes | `recipes` below the working directory |
//! | `GAN_PEERS` | the folder of `torch_peer.py` | no comparison with PyTorch |
//! | `GAN_PYTHON` | a Python with PyTorch | `python3` |
//! | `GAN_SANITIZER` | `compute-sanitizer` | looked for in the path and in CUDA_HOME |
//! | `GAN_SHARD` | `i/n`: does a share, as one of n processes that do everything together | does all |
//! | `GAN_GPU_RECORD` | where the record goes | `target/gpu-record` below the working directory |

mod bench;
mod conformance;
#[path = "../emulated/convolutions.rs"]
mod convolutions;
#[path = "../common/geometry.rs"]
mod geometry;
#[path = "../emulated/layers.rs"]
mod layers;
#[path = "../emulated/oracle.rs"]
mod oracle;
#[path = "../emulated/primitives.rs"]
mod primitives;
#[path = "../emulated/primitives_hopper.rs"]
mod primitives_hopper;
mod profiles;
mod program;
mod record;
#[path = "../emulated/shard.rs"]
mod shard;
#[path = "../emulated/suite.rs"]
mod suite;
mod timed;
#[path = "../common/work.rs"]
mod work;

use gan::device::cuda::device::CudaDevice;
use gan::device::cuda::workers;
use gan::device::launch::Math;
use program::Program;
use record::Record;
use shard::Shard;
use std::process::ExitCode;
use std::sync::Arc;

/// What a stage found: a summary, or what is wrong.
pub type Outcome = Result<String, String>;

/// A part of the tests; what it measures goes into the record.
type Stage<'a> = &'a dyn Fn(&mut Record) -> Outcome;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS; // for tools that ask for the names of tests
    }
    let architecture =
        words.iter().position(|a| a == "--compile").map(|at| words.drain(at..).nth(1).unwrap_or_default());
    words.retain(|a| !a.starts_with('-'));
    match run(&words, architecture) {
        Ok(passed) => ExitCode::from(u8::from(!passed)),
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the stages that the words name, or compiles for an architecture; says whether all is well.
fn run(words: &[String], architecture: Option<String>) -> Result<bool, String> {
    let shard = match std::env::var("GAN_SHARD") {
        Ok(text) => Shard::parse(&text)?,
        Err(_) => Shard::WHOLE,
    };
    let program = Program::find();
    // One of several processes leaves the other cores to them.
    if let (Ok(program), Shard::WHOLE) = (&program, shard) {
        workers::enable(program.gan.clone());
    }
    if let Some(architecture) = architecture {
        if !architecture.starts_with("sm_") {
            return Err("--compile takes an architecture, such as --compile sm_90a".into());
        }
        println!("{}", conformance::compile(&architecture)?);
        println!("{}", program?.compile(&architecture)?);
        return Ok(true);
    }
    let required = std::env::var_os("GAN_REQUIRE_GPU").is_some_and(|v| v != "0");
    let device = match CudaDevice::open(0, Math::Fma) {
        Ok(device) => Arc::new(device),
        Err(e) if required => return Err(format!("GAN_REQUIRE_GPU is set, but there is no usable GPU: {e}")),
        Err(e) => {
            println!("not checked: nothing that takes a GPU, for there is no usable one: {e}");
            return Ok(true);
        }
    };
    let program = program?;
    println!("{}", device.describe());
    let mut record = Record::new(&device.describe());
    // The first six are shared out item by item, the others as they are.
    let stages: [(&str, Stage); 15] = [
        ("primitives", &|_| if shard.takes(0) { conformance::primitives(&device) } else { elsewhere() }),
        ("convolutions of some layers", &|_| conformance::convolutions(&device, shard)),
        ("operations f32", &|_| conformance::operations(&device, shard)),
        ("products tf32", &|_| conformance::products(Math::Tf32, shard)),
        ("products bf16", &|_| conformance::products(Math::Bf16, shard)),
        ("operations in mixed precision", &|_| conformance::mixed(shard)),
        ("doctor", &|_| program.doctor()),
        ("parity", &|r| program.parity(r)),
        ("resume", &|_| program.resume()),
        ("determinism", &|_| program.determinism()),
        ("sanitizer", &|_| program.sanitizer()),
        ("bench", &|r| program.bench(r)),
        ("profile", &|r| program.profile(r)),
        ("peers", &|r| program.peers(r)),
        ("layers", &|r| program.layers(r)),
    ];
    for (number, (name, stage)) in stages.into_iter().enumerate() {
        if !words.is_empty() && !words.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        println!("{name} ...");
        let began = std::time::Instant::now();
        let outcome = if number < SHARED || shard.takes(number) { stage(&mut record) } else { elsewhere() };
        record.stage(name, &outcome, began.elapsed());
    }
    println!("record: {}", record.write()?.display());
    Ok(!record.failed())
}

/// Stages of which every process does a share.
const SHARED: usize = 6;

fn elsewhere() -> Outcome {
    Ok("another process does it".into())
}

fn list(checked: usize, failures: &[String]) -> Outcome {
    match failures {
        [] => Ok(format!("{checked} agree")),
        _ => Err(format!("{} of {checked} fail:\n{}", failures.len(), failures.join("\n"))),
    }
}
