use super::{Device, say, set_threads};
use crate::error::{Error, Result};
use crate::exec::States;
use crate::rng::Philox;
use crate::train::method::{self, Shapes};
use crate::train::recipe::Recipe;
use crate::train::session::step_programs;
use serde_json::json;
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
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn run(args: &Args) -> Result<()> {
    let What::Step(args) = &args.what;
    args.device.check()?;
    set_threads(args.threads)?;
    if args.steps == 0 {
        return Err(Error::usage("--steps 0: at least one step must be timed"));
    }
    let recipe = Recipe::load(&args.recipe, &args.set)?;
    let method = method::build(&recipe)?;
    let shapes = Shapes {
        batch: recipe.train.batch,
        size: recipe.data.patch.map_or(vec![args.size; 2], |p| p.to_vec()),
        inputs: recipe.data.input.len(),
        targets: recipe.data.target_channels(),
    };
    let specs = method.networks(&shapes.size)?;
    let mut states = States::new();
    for spec in &specs {
        spec.initialise::<f32>(&mut states, recipe.seed, recipe.optimiser.rule.slots());
        let start = states.get::<f32>(&spec.store_name())[..spec.param_count()].to_vec();
        states.set(&spec.ema_name(), &start);
    }
    let pools = method.pools(&shapes.size);
    for (name, shape) in &pools {
        states.set(name, &vec![0f32; shape.numel()]);
    }
    let mut programs = step_programs(&recipe, method.as_ref(), &specs, &shapes)?;
    let runs = method.runs(u64::from(u32::MAX));
    let plans = || runs.iter().map(|r| programs[r.part].program.plan());
    let flops: u64 = plans().map(|p| p.cost().flops).sum();
    let arena: usize = programs.iter().map(|p| p.program.plan().arena_bytes).sum();
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
    let mut by_kind: std::collections::BTreeMap<(String, bool), (f64, u64)> = Default::default();
    for i in 0..=args.steps {
        let began = Instant::now();
        for &run in &runs {
            let scalars = method::scalars(&specs, run, [2e-4; 2]);
            let mut inputs: Vec<(&str, &[f32])> =
                scalars.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            inputs.extend([("input", input.as_slice()), ("target", target.as_slice())]);
            inputs.extend(choices.iter().map(|n| (n.as_str(), pass.as_slice())));
            programs[run.part].program.run_observed(&mut states, &inputs, |s, go| {
                let began = Instant::now();
                go();
                if i > 0 {
                    let entry = by_kind.entry((s.op.name().to_string(), s.backward)).or_default();
                    entry.0 += began.elapsed().as_secs_f64();
                    entry.1 += 1;
                }
            });
        }
        if i > 0 {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let extents = shapes.size.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    say(format!(
        "{} {} batch {} f32, cpu, {} threads: median {median:.1} ms a step (fastest {:.1}), {:.1} GFLOP, {:.1} GFLOP/s, {:.1} MB of temporaries",
        recipe.name,
        extents,
        recipe.train.batch,
        rayon::current_num_threads(),
        times[0],
        flops as f64 / 1e9,
        flops as f64 / 1e6 / median,
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
            100.0 * each / median,
            calls / args.steps as u64
        ));
    }
    if let Some(path) = &args.json {
        let result = json!({
            "recipe": recipe.name, "size": shapes.size, "batch": recipe.train.batch, "dtype": "f32", "device": "cpu",
            "threads": rayon::current_num_threads(), "ms_median": median, "ms_min": times[0], "ms": times,
            "flop_per_step": flops, "arena_bytes": arena,
        });
        crate::fsio::write_bytes(path, format!("{result:#}\n").as_bytes())?;
    }
    Ok(())
}
