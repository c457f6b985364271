//! Where a training step's time and memory go.
//!
//! [`profile`] runs real training steps, with the recipe's data and its loader: some as training runs them, and as many
//! again in which every operation (on a GPU: every launch) is timed. From both it makes a [`Profile`], which has a
//! [text], a page ([html]) and a comparison ([diff]); the spans themselves become a [trace]. docs/profiling.md says how
//! each part is read.

pub mod diff;
pub mod gpu;
pub mod html;
pub mod measure;
pub mod memory;
pub mod report;
pub mod summary;
pub mod target;
pub mod text;
pub mod trace;

pub use report::Profile;

use crate::data::{Dataset, Notes, OpenOptions, Split};
use crate::error::Result;
use crate::exec::States;
use crate::exec::cost::Peaks;
use crate::exec::device::{Device, Planned};
use crate::exec::gpu::{DeviceStates, GpuProgram};
use crate::methods::{Method, Shapes};
use crate::recipe::Recipe;
use crate::run::programs::{StepProgram, plan_step};
use crate::train::setup::{check_batch, initial_states, open_loader};
use gpu::{GpuTarget, Timing};
use measure::{Effort, Work, measure};
use report::Subject;
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;
use target::{CpuTarget, Target};

/// Batches that are made one after the other to see how long one takes.
const BATCHES: u32 = 4;

/// Profiles a recipe's training step on a device. With the spans of the first steps, as a trace.
pub fn profile(recipe: &Recipe, device: &Device, effort: Effort, timing: Timing) -> Result<(Profile, Value)> {
    let method = recipe.method()?;
    let open = OpenOptions { multiple: method.multiple(), ..Default::default() };
    let dataset = Arc::new(Dataset::open(&recipe.data, Split::Train, None, open)?);
    check_batch(recipe, &dataset)?;
    let shapes = Shapes::new(&recipe.data, recipe.train.batch, recipe.data.size(dataset.fit()));
    let specs = method.networks(&shapes.size)?;
    // Refuses what does not fit into memory, before anything takes time.
    let programs = plan_step(recipe, device, &method, &specs, &shapes)?;
    let states = initial_states(recipe, &method, &specs, &shapes, &Notes::default())?;
    // While nothing else is going on in this process.
    let peaks = Peaks::measure(device)?;
    let losses = programs.iter().map(|p| p.scalars.clone()).collect();
    let mut target = target(device, programs, states, timing)?;
    let mut loader = open_loader(recipe, &method, dataset.clone(), 0)?;
    let mut next = || loader.next().map(|batch| (batch.input, batch.target));
    let mut work =
        Work { recipe, method: &method, specs: &specs, size: &shapes.size, losses, next: &mut next };
    let measured = measure(target.as_mut(), &mut work, effort)?;
    let mut profile =
        summary::summarise(target.as_ref(), &work, &measured, subject(recipe, &shapes, device), peaks)?;
    let trace = trace::trace(target.as_ref(), &work, &measured)?;
    drop(loader);
    profile.input.batch_ms = Some(batch_ms(recipe, &method, dataset)?);
    Ok((profile, trace))
}

fn subject(recipe: &Recipe, shapes: &Shapes, device: &Device) -> Subject {
    Subject {
        recipe: recipe.name.clone(),
        batch: shapes.batch,
        size: shapes.size.clone(),
        device: device.name(),
        // Without the precision, which stands by itself.
        on: match device {
            Device::Cpu => device.describe(),
            Device::Cuda(device) => device.describe(),
        },
        precision: device.precision().name().into(),
        threads: rayon::current_num_threads(),
    }
}

/// The programs on their device, with states of their own.
fn target(
    device: &Device,
    programs: Vec<StepProgram<Planned>>,
    states: States,
    timing: Timing,
) -> Result<Box<dyn Target>> {
    device.compile(programs.iter().map(|p| &p.program))?;
    let planned = programs.into_iter().map(|p| p.program);
    let Device::Cuda(device) = device else {
        let own = |p| match p {
            Planned::Cpu(program) => program,
            Planned::Cuda(..) => unreachable!("planned for the CPU"),
        };
        return Ok(Box::new(CpuTarget { programs: planned.map(own).collect(), states }));
    };
    let there = DeviceStates::new(device, &states)?;
    let mut other_bytes = 0;
    let mut bind = |p| match p {
        Planned::Cuda(_, prepared) => {
            other_bytes += prepared.bytes() - prepared.plan().arena_bytes as u64;
            GpuProgram::bind(device, *prepared, &there)
        }
        Planned::Cpu(_) => unreachable!("planned for the GPU"),
    };
    let programs = planned.map(&mut bind).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(GpuTarget::new(programs, there, other_bytes, timing)?))
}

/// How long one thread takes for a batch.
fn batch_ms(recipe: &Recipe, method: &Method, dataset: Arc<Dataset>) -> Result<f64> {
    let mut alone = recipe.clone();
    alone.train.workers = 0;
    let mut loader = open_loader(&alone, method, dataset, 0)?;
    let began = Instant::now();
    for _ in 0..BATCHES {
        loader.next()?;
    }
    Ok(1e3 * began.elapsed().as_secs_f64() / f64::from(BATCHES))
}
