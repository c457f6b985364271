use super::say;
use crate::compile::plan::Step as PlanStep;
use crate::device::launch::Math;
use crate::error::{Error, Result};
use crate::exec::States;
use crate::exec::choice::Choice;
use crate::exec::device::Device;
use crate::graph::Cost;
use crate::methods::{Run, Shapes};
use crate::recipe::Recipe;
use crate::rng::Philox;
use crate::run::programs::plan_step;
use crate::run::tuning::Source;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// Time training steps
///
/// `gan bench step RECIPE` times whole training steps on random images that are in memory already: no reading, no
/// augmentation, no logging. It says what a step computes, how long it takes and what share each kind of operation has.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Time whole training steps of a recipe
    Step(Step),
}

#[derive(clap::Args)]
#[command(after_help = "Example (the step of the paper):
  gan bench step recipes/mr2pet.toml --size 256 --threads 2 \\
    --set train.batch=1 --set model.generator.downs=8 --set model.generator.ngf=64 \\
    --set model.discriminator.layers=3 --set model.discriminator.ndf=64")]
struct Step {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// Override a key of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Height and width of the images
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Timed steps (one more warms up)
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to compute: cpu, cuda, cuda:N, or auto (the first GPU that computes what the CPU does, else the CPU)
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// How a GPU multiplies: f32, tf32 or bf16 (mixed precision)
    #[arg(long, default_value = "f32")]
    precision: Math,
    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn run(args: &Args) -> Result<()> {
    let What::Step(args) = &args.what;
    let device = super::open_device_in(args.device, args.precision, args.threads)?;
    Source::Cached.apply(&device)?;
    if args.steps == 0 {
        return Err(Error::usage("--steps 0: at least one step must be timed"));
    }
    let recipe = Recipe::load(&args.recipe, &args.set)?;
    let method = recipe.method()?;
    let shapes = Shapes::new(
        &recipe.data,
        recipe.train.batch,
        recipe.data.patch.map_or(vec![args.size; 2], |p| p.to_vec()),
    );
    let specs = method.networks(&shapes.size)?;
    let mut states = States::new();
    for spec in &specs {
        let slots = method.slots(&spec.name, recipe.optimiser.rule.slots());
        spec.initialise::<f32>(&mut states, recipe.seed, slots);
        let start = states.get::<f32>(&spec.store_name())[..spec.param_count()].to_vec();
        states.set(&spec.ema_name(), &start);
    }
    let pools = method.pools(&shapes.size);
    for (name, shape) in pools.iter().chain(&method.memories()) {
        states.set(name, &vec![0f32; shape.numel()]);
    }
    let planned = plan_step(&recipe, &device, &method, &specs, &shapes)?;
    let runs = method.runs(u64::from(u32::MAX));
    // As traced: the same on every device and in every precision.
    let work: Cost = runs.iter().map(|r| planned[r.part].program.plan().work).sum();
    // FLOPs and bytes of every operation, for who wants to know the least time that a step takes.
    let parts = |r: &Run| {
        let steps = &planned[r.part].program.plan().steps;
        steps.iter().map(|s| [s.cost.flops, s.cost.bytes]).collect::<Vec<_>>()
    };
    let costs: Vec<[u64; 2]> = runs.iter().flat_map(parts).collect();
    let arena: usize = planned.iter().map(|p| p.program.plan().arena_bytes).sum();
    let mut states = device.states(states)?;
    device.compile(planned.iter().map(|p| &p.program))?;
    let mut programs = planned.into_iter().map(|p| p.bind(&states)).collect::<Result<Vec<_>>>()?;
    let mut rng = Philox::named(1, "bench");
    let mut image = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.range(-1.0, 1.0) as f32).collect() };
    let (input, mut target) = (image(shapes.input().numel()), image(shapes.target().numel()));
    if recipe.data.labels.is_some() {
        target.iter_mut().for_each(|v| *v = f32::from(u8::from(*v > 0.0)));
    }
    // Every image is passed on.
    let pass = vec![-1f32; shapes.batch];
    let choices: Vec<String> = pools.iter().map(|(name, _)| format!("{name}.choices")).collect();
    let mut times = Vec::new();
    let mut by_kind: BTreeMap<(String, bool), (f64, u64)> = BTreeMap::new();
    let mut observed = 0.0;
    // A GPU is asked for several steps at once: what waiting for it costs is no part of a step.
    let at_once = if matches!(device, Device::Cpu) { 1 } else { 10 };
    let scalars: Vec<_> = runs.iter().map(|r| method.scalars(&specs, *r, [2e-4; 2])).collect();
    let given: Vec<Vec<(&str, &[f32])>> = scalars
        .iter()
        .map(|scalars| {
            let scalars = scalars.iter().map(|(n, v)| (n.as_str(), v.as_slice()));
            let images = [("input", input.as_slice()), ("target", target.as_slice())];
            let choices = choices.iter().map(|n| (n.as_str(), pass.as_slice()));
            scalars.chain(images).chain(choices).collect()
        })
        .collect();
    for i in 0..=args.steps {
        let mut observe = |step: &PlanStep, go: &mut dyn FnMut()| {
            let began = Instant::now();
            go();
            if i > 0 {
                let entry = by_kind.entry((step.op.name().to_string(), step.backward)).or_default();
                entry.0 += began.elapsed().as_secs_f64();
                entry.1 += 1;
                observed += began.elapsed().as_secs_f64();
            }
        };
        let began = Instant::now();
        for _ in 0..at_once {
            for (run, given) in runs.iter().zip(&given) {
                let program = &mut programs[run.part].program;
                match device {
                    Device::Cpu => program.run_observed(&mut states, given, &mut observe)?,
                    Device::Cuda(_) => program.run(&mut states, given)?,
                }
            }
        }
        device.finish()?;
        if i > 0 {
            times.push(began.elapsed().as_secs_f64() * 1e3 / at_once as f64);
        }
        if at_once > 1 {
            for (run, given) in runs.iter().zip(&given) {
                programs[run.part].program.run_observed(&mut states, given, &mut observe)?;
            }
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let extents = shapes.size.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    say(format!(
        "{} {} batch {} {}, {}: median {median:.1} ms a step (fastest {:.1}), {:.1} GFLOP (of which products {:.1}) on {:.1} MB as traced, {:.1} GFLOP/s, {:.1} MB moved, {:.1} MB of temporaries",
        recipe.name,
        extents,
        recipe.train.batch,
        args.precision.name(),
        device.describe(),
        times[0],
        work.flops as f64 / 1e9,
        work.products as f64 / 1e9,
        work.bytes as f64 / 1e6,
        work.flops as f64 / 1e6 / median,
        costs.iter().map(|c| c[1]).sum::<u64>() as f64 / 1e6,
        arena as f64 / 1e6
    ));
    let mut kinds: Vec<_> = by_kind.into_iter().collect();
    kinds.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    for ((name, backward), (seconds, calls)) in
        kinds.iter().filter(|k| k.1.0 * 1e3 / args.steps as f64 > 0.05)
    {
        let direction = if *backward { "backward" } else { "" };
        let each = seconds * 1e3 / args.steps as f64;
        say(format!(
            "{each:>9.2} ms {:>5.1} %  {:>4} calls  {name} {direction}",
            100.0 * seconds / observed,
            calls / args.steps as u64
        ));
    }
    if let Some(path) = &args.json {
        let result = json!({
            "recipe": recipe.name, "size": shapes.size, "batch": recipe.train.batch, "dtype": args.precision.name(), "device": device.name(), "on": device.describe(),
            "threads": rayon::current_num_threads(), "ms_median": median, "ms_min": times[0], "ms": times,
            "flop_per_step": work.flops, "product_flop_per_step": work.products, "bytes_per_step": work.bytes, "flops_and_bytes": costs, "arena_bytes": arena,
        });
        crate::fsio::write_bytes(path, format!("{result:#}\n").as_bytes())?;
    }
    Ok(())
}
