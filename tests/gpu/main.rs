//! Everything that only a GPU can show, in one command:
//!
//! ```text
//! cargo test --release --test gpu                # all stages
//! cargo test --release --test gpu -- parity      # the stages whose names contain a word
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
//! | `GAN_GPU_RECORD` | where the record goes | `target/gpu-record` below the working directory |

mod bench;
#[path = "../emulated/convolutions.rs"]
mod convolutions;
#[path = "../common/geometry.rs"]
mod geometry;
#[path = "../emulated/layers.rs"]
mod layers;
#[path = "../emulated/primitives.rs"]
mod primitives;
#[path = "../emulated/primitives_hopper.rs"]
mod primitives_hopper;
mod profiles;
mod program;
mod record;
#[path = "../emulated/suite.rs"]
mod suite;
mod timed;
#[path = "../common/work.rs"]
mod work;

use convolutions::Kind;
use gan::device::cuda::device::CudaDevice;
use gan::device::launch::Math;
use gan::exec::States;
use gan::exec::gpu::{DeviceStates, GpuProgram};
use gan::graph::{Graph, Var};
use gan::ops::conv::geometry::ConvGeometry;
use geometry::{cube, row, square};
use program::Program;
use record::Record;
use std::process::ExitCode;
use std::sync::Arc;

/// What a stage found: a summary, or what is wrong.
pub type Outcome = Result<String, String>;

/// A part of the tests; what it measures goes into the record.
type Stage<'a> = &'a dyn Fn(&mut Record) -> Outcome;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS; // for tools that ask for the names of tests
    }
    let required = std::env::var_os("GAN_REQUIRE_GPU").is_some_and(|v| v != "0");
    let device = match CudaDevice::open(0, Math::Fma) {
        Ok(device) => Arc::new(device),
        Err(e) if required => {
            eprintln!("GAN_REQUIRE_GPU is set, but there is no usable GPU: {e}");
            return ExitCode::FAILURE;
        }
        Err(e) => {
            println!("not checked: nothing that takes a GPU, for there is no usable one: {e}");
            return ExitCode::SUCCESS;
        }
    };
    let program = match Program::find() {
        Ok(program) => program,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", device.describe());
    let mut record = Record::new(&device.describe());
    let stages: [(&str, Stage); 15] = [
        ("primitives", &|_| conformance(&device)),
        ("convolutions of some layers", &|_| own_convolutions(&device)),
        ("operations f32", &|_| operations(&device)),
        ("products tf32", &|_| products(Math::Tf32)),
        ("products bf16", &|_| products(Math::Bf16)),
        ("operations in mixed precision", &|_| mixed()),
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
    for (name, stage) in stages {
        if words.is_empty() || words.iter().any(|w| name.contains(w.as_str())) {
            println!("{name} ...");
            let began = std::time::Instant::now();
            let outcome = stage(&mut record);
            record.stage(name, &outcome, began.elapsed());
        }
    }
    match record.write() {
        Ok(folder) => println!("record: {}", folder.display()),
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    }
    if record.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn list(checked: usize, failures: &[String]) -> Outcome {
    match failures {
        [] => Ok(format!("{checked} agree")),
        _ => Err(format!("{} of {checked} fail:\n{}", failures.len(), failures.join("\n"))),
    }
}

fn has_tensor_cores(device: &CudaDevice) -> bool {
    device.capability() >= 80
}

fn conformance(device: &CudaDevice) -> Outcome {
    let mut faults = primitives::faults(device, has_tensor_cores(device));
    if device.target() == "sm_90a" {
        faults.extend(primitives_hopper::faults(device));
    }
    if faults.is_empty() { Ok("all as documented".into()) } else { Err(faults.join("\n")) }
}

/// As in training: every width of a tile, many tiles a block, long sums, slices.
fn large() -> Vec<ConvGeometry> {
    vec![
        row(square(1, 64, 128, 128, 4, 2, 1, 1, 1)),
        row(square(1, 256, 66, 256, 3, 1, 0, 1, 1)),
        row(square(4, 512, 16, 512, 4, 2, 1, 1, 1)),
        row(cube(1, 32, 32, 64, 3, 1, 1, 1, 1)),
        row(cube(2, 64, 16, 128, 2, 2, 0, 1, 1)),
    ]
}

/// Of few channels, as in training: many boxes a block, and slices.
fn large_windows() -> Vec<ConvGeometry> {
    vec![
        row(cube(2, 32, 40, 32, 3, 1, 1, 1, 1)),
        row(cube(1, 64, 33, 64, 3, 1, 1, 1, 1)),
        row(cube(2, 16, 32, 8, 3, 1, 0, 1, 1)),
        row(square(4, 64, 130, 64, 3, 1, 1, 1, 1)),
    ]
}

/// Small ones and those of training, where the device has the kernels.
fn own_convolutions(device: &CudaDevice) -> Outcome {
    let mut checked = 0;
    let mut faults = Vec::new();
    let mut check = |kind, geometries: Vec<ConvGeometry>| {
        checked += 3 * geometries.len();
        faults.extend(convolutions::faults(device, kind, &geometries));
    };
    if has_tensor_cores(device) {
        check(Kind::Window, [convolutions::small_windows(), large_windows()].concat());
    }
    if device.target() == "sm_90a" {
        check(Kind::Hopper, [convolutions::small(), large()].concat());
    }
    list(checked, &faults)
}

/// A device, as the suite wants one: recorded and replayed, as in training.
fn on(
    device: &Arc<CudaDevice>,
) -> impl Fn(&Graph, &suite::Named<&Var>, &suite::Named<&[f32]>) -> suite::Results {
    let device = device.clone();
    move |graph, outputs, inputs| {
        let run = || -> gan::error::Result<Vec<Vec<f32>>> {
            let states = DeviceStates::new(&device, &States::new())?;
            let mut program = GpuProgram::new(&device, graph, outputs, &states)?;
            program.run(&states, inputs)?;
            let names: Vec<&str> = outputs.iter().map(|(n, _)| *n).collect();
            let first = program.outputs(&states, &names)?;
            program.run(&states, inputs)?;
            let again = program.outputs(&states, &names)?;
            let bits = |v: &[Vec<f32>]| -> Vec<u32> { v.concat().iter().map(|x| x.to_bits()).collect() };
            if bits(&first) != bits(&again) {
                return Err(gan::error::Error::input("a replay gives other bits than the first run"));
            }
            Ok(first)
        };
        run().map_err(|e| e.to_string())
    }
}

fn operations(device: &Arc<CudaDevice>) -> Outcome {
    let samples = suite::registry();
    let run = on(device);
    let wrong =
        |s: &gan::ops::sample::Sample| suite::check(s, &run).err().map(|e| format!("{}: {e}", s.name));
    list(samples.len(), &samples.iter().filter_map(wrong).collect::<Vec<_>>())
}

fn mixed() -> Outcome {
    let device = Arc::new(CudaDevice::open(0, Math::Bf16).map_err(|e| e.to_string())?);
    let samples = suite::registry();
    let halves: usize = samples.iter().map(suite::stored_in_half).sum();
    if halves < samples.len() {
        return Err(format!("only {halves} values of {} samples are stored in bf16", samples.len()));
    }
    let run = on(&device);
    let wrong =
        |s: &gan::ops::sample::Sample| suite::check_mixed(s, &run).err().map(|e| format!("{}: {e}", s.name));
    list(samples.len(), &samples.iter().filter_map(wrong).collect::<Vec<_>>())
}

fn products(math: Math) -> Outcome {
    let device = Arc::new(CudaDevice::open(0, math).map_err(|e| e.to_string())?);
    let samples: Vec<_> = suite::registry().into_iter().filter(suite::is_product).collect();
    let run = on(&device);
    let wrong = |s: &gan::ops::sample::Sample| {
        suite::check_product(s, &run).err().map(|e| format!("{}: {e}", s.name))
    };
    list(samples.len(), &samples.iter().filter_map(wrong).collect::<Vec<_>>())
}
