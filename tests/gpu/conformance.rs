//! Whether a device computes what it should: every primitive, convolutions of its own, and every operation. What is to be
//! compiled is compiled together beforehand, and the right values are worked out on all cores; the device itself does one thing at a
//! time.

use crate::convolutions::{self, Kind, Task, tasks};
use crate::geometry::{cube, row, square};
use crate::shard::Shard;
use crate::suite::{self, Run};
use crate::{Outcome, list, primitives, primitives_hopper};
use gan::device::backend::Backend;
use gan::device::cuda::compiler::{Compiler, Specialisation};
use gan::device::cuda::device::CudaDevice;
use gan::device::cuda::target;
use gan::device::launch::{GpuTraits, Math};
use gan::exec::States;
use gan::exec::gpu::{DeviceStates, GpuProgram};
use gan::graph::{Graph, Var};
use gan::ops::conv::geometry::ConvGeometry;
use gan::ops::sample::Sample;
use rayon::prelude::*;
use std::sync::{Arc, Mutex};

/// How a sample is compared.
type Check = fn(&Sample, Run) -> Result<(), String>;

/// Whether a device of this capability or architecture has tensor cores, and the kernels of sm_90a.
#[derive(Clone, Copy)]
pub struct Kinds {
    tensor_cores: bool,
    hopper: bool,
}

impl Kinds {
    pub fn of(device: &CudaDevice) -> Self {
        Kinds { tensor_cores: device.capability() >= 80, hopper: device.target() == "sm_90a" }
    }

    fn of_architecture(name: &str) -> Self {
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        Kinds { tensor_cores: digits.parse().is_ok_and(|n: u32| n >= 80), hopper: name == "sm_90a" }
    }

    fn primitives(self) -> Vec<Specialisation> {
        let mut all = primitives::kernels(self.tensor_cores);
        if self.hopper {
            all.extend(primitives_hopper::kernels());
        }
        all
    }

    /// Small convolutions and those of training, where the device has the kernels.
    fn convolutions(self) -> Vec<Task> {
        let mut all = Vec::new();
        if self.tensor_cores {
            all.extend(tasks(Kind::Window, &[convolutions::small_windows(), large_windows()].concat()));
        }
        if self.hopper {
            all.extend(tasks(Kind::Hopper, &[convolutions::small(), large()].concat()));
        }
        all
    }
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

pub fn primitives(device: &CudaDevice) -> Outcome {
    let kinds = Kinds::of(device);
    device.compile(&mut kinds.primitives().iter()).map_err(|e| e.to_string())?;
    let mut faults = primitives::faults(device, kinds.tensor_cores);
    if kinds.hopper {
        faults.extend(primitives_hopper::faults(device));
    }
    if faults.is_empty() { Ok("all as documented".into()) } else { Err(faults.join("\n")) }
}

/// Small convolutions and those of training by the kernels that only some devices or layers take.
pub fn convolutions(device: &CudaDevice, shard: Shard) -> Outcome {
    let mine = shard.share(1, Kinds::of(device).convolutions());
    let kernels = kernels_of(&mine, &device.traits());
    device.compile(&mut kernels.iter()).map_err(|e| e.to_string())?;
    list(mine.len(), &mine.iter().filter_map(|task| task.fault(device)).collect::<Vec<_>>())
}

fn kernels_of(tasks: &[Task], gpu: &GpuTraits) -> Vec<Specialisation> {
    let lists = tasks.iter().filter_map(|task| task.list(gpu));
    lists.flat_map(|l| l.launches).map(|l| l.specialisation).collect()
}

/// Every operation in single precision.
pub fn operations(device: &Arc<CudaDevice>, shard: Shard) -> Outcome {
    samples(device, shard.share(2, suite::registry()), suite::check, false)
}

/// Convolutions and matrix products on tensor cores.
pub fn products(math: Math, shard: Shard) -> Outcome {
    let device = Arc::new(CudaDevice::open(0, math).map_err(|e| e.to_string())?);
    let own = suite::registry().into_iter().filter(suite::is_product).collect();
    samples(&device, shard.share(3 + usize::from(math == Math::Bf16), own), suite::check_product, false)
}

/// Every operation in mixed precision.
pub fn mixed(shard: Shard) -> Outcome {
    let device = Arc::new(CudaDevice::open(0, Math::Bf16).map_err(|e| e.to_string())?);
    let all = suite::registry();
    let halves: usize = all.iter().map(suite::stored_in_half).sum();
    if halves < all.len() {
        return Err(format!("only {halves} values of {} samples are stored in bf16", all.len()));
    }
    samples(&device, shard.share(5, all), suite::check_mixed, true)
}

fn samples(device: &Arc<CudaDevice>, mine: Vec<Sample>, check: Check, half: bool) -> Outcome {
    let gpu = device.traits();
    let kernels: Vec<Specialisation> = mine.par_iter().flat_map(|s| suite::kernels(s, half, &gpu)).collect();
    device.compile(&mut kernels.iter()).map_err(|e| e.to_string())?;
    let run = on(device);
    let wrong = |s: &Sample| check(s, &run).err().map(|e| format!("{}: {e}", s.name));
    let failures: Vec<String> = mine.par_iter().filter_map(wrong).collect();
    list(mine.len(), &failures)
}

/// A device, as the suite wants one: recorded and replayed, as in training. What it is asked for on one thread waits for what it
/// is asked for on others: a recording takes in everything that goes by the same stream.
fn on(
    device: &Arc<CudaDevice>,
) -> impl Fn(&Graph, &suite::Named<&Var>, &suite::Named<&[f32]>) -> suite::Results + Sync {
    let (device, turn) = (device.clone(), Mutex::new(()));
    move |graph, outputs, inputs| {
        let _turn = turn.lock().unwrap_or_else(|e| e.into_inner());
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

/// Compiles what all of these stages take on the usual device of an architecture, which need not be at hand; says how many kernels.
pub fn compile(architecture: &str) -> Outcome {
    let (kinds, all) = (Kinds::of_architecture(architecture), suite::registry());
    let products: Vec<&Sample> = all.iter().filter(|s| suite::is_product(s)).collect();
    let compiler = Compiler::new().map_err(|e| e.to_string())?;
    let traits = |math| target::traits(architecture, None, math).map_err(|e| e.to_string());
    let of = |some: &[&Sample], half: bool, math: Math| -> Result<Vec<Specialisation>, String> {
        let gpu = traits(math)?;
        Ok(some.par_iter().flat_map(|s| suite::kernels(s, half, &gpu)).collect())
    };
    let every: Vec<&Sample> = all.iter().collect();
    let mut kernels = kinds.primitives();
    kernels.extend(of(&every, false, Math::Fma)?);
    if kinds.tensor_cores {
        kernels.extend(of(&products, false, Math::Tf32)?);
        kernels.extend(of(&products, false, Math::Bf16)?);
        kernels.extend(of(&every, true, Math::Bf16)?);
        kernels.extend(kernels_of(&kinds.convolutions(), &traits(Math::Bf16)?));
    }
    let began = std::time::Instant::now();
    let new = compiler.compile_all(&kernels, architecture, None).map_err(|e| e.to_string())?;
    Ok(format!(
        "{new} kernels compiled for {architecture} in {:.1} s, into {}",
        began.elapsed().as_secs_f64(),
        compiler.cache().folder().display()
    ))
}
