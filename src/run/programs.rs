//! The programs of a recipe's training step: traced, and planned on a device.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::device::{Device, LiveStates, Planned, Runner, Traced, fitting};
use crate::methods::step::{StepBuilder, Update, Watch};
use crate::methods::{Given, Method, Shapes};
use crate::nn::{Net, NetSpec};
use crate::recipe::Recipe;
use crate::run::forward;

/// One of the programs of a training step, planned or ready to run.
pub struct StepProgram<P> {
    /// The program.
    pub program: P,
    /// The scalars to log: losses, and what tells a GAN's health.
    pub scalars: Vec<String>,
    /// The networks whose gradient is readable, as `gradient/<net>`.
    pub gradients: Vec<String>,
}

impl StepProgram<Planned> {
    /// Makes it ready to run on these states, and no others.
    pub fn bind(self, states: &LiveStates) -> Result<StepProgram<Runner>> {
        let StepProgram { program, scalars, gradients } = self;
        Ok(StepProgram { program: program.bind(states)?, scalars, gradients })
    }
}

/// Traces the programs of a recipe's training step.
pub fn trace_step(recipe: &Recipe, method: &Method, specs: &[NetSpec], shapes: &Shapes) -> Vec<StepBuilder> {
    let updates = [&update(recipe, true), &update(recipe, false)];
    let slots = recipe.optimiser.rule.slots();
    let watch = Watch { health: recipe.health.watch, gradients: recipe.log.histograms > 0 };
    let trace = |part: usize| {
        // Each draws its own random numbers.
        let seed = recipe.seed ^ (part as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut step = StepBuilder::new(DType::F32, seed).watching(watch);
        let nets: Vec<Net> = specs.iter().map(|s| step.bind(s, method.slots(&s.name, slots))).collect();
        method.trace(part, &mut step, &nets, shapes, updates, &Given::default());
        step
    };
    (0..method.parts()).map(trace).collect()
}

/// Plans the programs of a recipe's training step on a device. Where they do not fit, says which batch would.
pub fn plan_step(
    recipe: &Recipe,
    device: &Device,
    method: &Method,
    specs: &[NetSpec],
    shapes: &Shapes,
) -> Result<Vec<StepProgram<Planned>>> {
    fn traced(steps: &[StepBuilder]) -> Vec<Traced<'_>> {
        steps.iter().map(|s| (s.graph(), s.outputs())).collect()
    }
    let steps = trace_step(recipe, method, specs, shapes);
    let planned = device.plan_all(&traced(&steps)).map_err(|e| {
        fitting(e, shapes.batch, |batch| {
            let smaller = Shapes { batch, ..shapes.clone() };
            device.needs(&traced(&trace_step(recipe, method, specs, &smaller)))
        })
    })?;
    let scalars = |step: &StepBuilder| {
        let outputs = step.outputs();
        let group = |g: &str| {
            let own = outputs.iter().filter(|(n, _)| n.starts_with(g));
            own.map(|(n, _)| n.to_string()).collect::<Vec<_>>()
        };
        ["loss/", "health/", "grad_norm/"].into_iter().flat_map(group).collect()
    };
    let gradients = |step: &StepBuilder| {
        let outputs = step.outputs();
        outputs.iter().filter_map(|(n, _)| n.strip_prefix("gradient/").map(String::from)).collect()
    };
    Ok(planned
        .into_iter()
        .zip(&steps)
        .map(|(program, s)| StepProgram { program, scalars: scalars(s), gradients: gradients(s) })
        .collect())
}

/// Refuses a training whose steps fit into the memory, but not together with the predictions of the validation: otherwise it
/// would be known at the end of the first epoch.
pub fn check_validation(
    recipe: &Recipe,
    device: &Device,
    method: &Method,
    net: &NetSpec,
    programs: &[StepProgram<Planned>],
    shapes: &Shapes,
) -> Result<()> {
    let Some(free) = device.free() else { return Ok(()) };
    let item = match method.noise() {
        Some(numbers) => vec![numbers],
        None => [shapes.size.as_slice(), &[shapes.inputs]].concat(),
    };
    // Patches of volumes are predicted one by one.
    let at_once = if recipe.data.patch.is_some() { 1 } else { forward::BATCH };
    let (step, y) = forward::trace(method, net, &[&[at_once], item.as_slice()].concat(), &shapes.size);
    let predicting = device.needs(&[(step.graph(), vec![("output", &y)])])?;
    let plans = || programs.iter().map(|p| p.program.plan());
    let states = plans().map(|p| p.state_bytes()).max().unwrap_or(0);
    let training = (plans().map(|p| p.arena_bytes).sum::<usize>() + states) as u64;
    if training + predicting <= free {
        return Ok(());
    }
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    Err(Error::input(format!(
        "a training step takes {} of memory and validation, which predicts {at_once} at once beside it, {}, but {} are free; lower `train.batch`, `data.canvas` or `data.patch`, or set `validate.every_epochs = 0`",
        mib(training),
        mib(predicting),
        mib(free)
    )))
}

/// What a training step takes.
#[derive(Clone, Copy, Debug)]
pub struct StepCost {
    /// Operations of the last step.
    pub operations: usize,
    /// FLOPs of the last step.
    pub flops: u64,
    /// Bytes of temporaries.
    pub temporaries: usize,
    /// Bytes of parameters and moments.
    pub states: usize,
}

impl StepCost {
    /// Of a training of `total` steps.
    pub fn of(method: &Method, programs: &[StepProgram<Planned>], total: u64) -> Self {
        let plans = || programs.iter().map(|p| p.program.plan());
        let runs = method.runs(total.saturating_sub(1));
        let over = |f: &dyn Fn(usize) -> u64| runs.iter().map(|r| f(r.part)).sum::<u64>();
        StepCost {
            operations: over(&|i| programs[i].program.plan().steps.len() as u64) as usize,
            flops: over(&|i| programs[i].program.plan().work.flops),
            temporaries: plans().map(|p| p.arena_bytes).sum(),
            states: plans().map(|p| p.state_bytes()).max().unwrap_or(0),
        }
    }
}

fn update(recipe: &Recipe, ema: bool) -> Update {
    let o = &recipe.optimiser;
    Update { rule: o.rule, clip_norm: o.clip_norm, ema: o.ema.filter(|_| ema) }
}
