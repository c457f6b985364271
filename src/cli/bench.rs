use super::{Device, say, set_threads};
use crate::error::{Error, Result};
use crate::exec::States;
use crate::rng::Philox;
use crate::train::recipe::Recipe;
use crate::train::run;
use crate::train::session::step_program;
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
    let method = run::method(&recipe);
    let specs = method.describe(args.size, args.size)?;
    let mut states = States::new();
    for spec in &specs {
        spec.initialise::<f32>(&mut states, recipe.seed, recipe.optimiser.rule.slots());
    }
    let mut program = step_program(&recipe, &method, &specs, [args.size; 2])?;
    let plan = program.plan();
    let (cost, arena) = (plan.cost(), plan.arena_bytes);
    let mut rng = Philox::named(1, "bench");
    let mut image = |c: usize| -> Vec<f32> {
        (0..recipe.train.batch * args.size * args.size * c).map(|_| rng.range(-1.0, 1.0) as f32).collect()
    };
    let (input, target) = (image(method.inputs), image(method.targets));
    let mut times = Vec::new();
    let mut by_kind: std::collections::BTreeMap<(String, bool), (f64, u64)> = Default::default();
    for i in 0..=args.steps {
        let (step, t) = ([i as f32], [(i + 1) as f32]);
        let inputs: [(&str, &[f32]); 7] = [
            ("input", &input),
            ("target", &target),
            ("step", &step),
            ("lr.G", &[2e-4]),
            ("lr.D", &[2e-4]),
            ("t.G", &t),
            ("t.D", &t),
        ];
        let began = Instant::now();
        program.run_observed(&mut states, &inputs, |s, go| {
            let began = Instant::now();
            go();
            if i > 0 {
                let entry = by_kind.entry((s.op.name().to_string(), s.backward)).or_default();
                entry.0 += began.elapsed().as_secs_f64();
                entry.1 += 1;
            }
        });
        if i > 0 {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    say(format!(
        "{} {}x{} batch {} f32, cpu, {} threads: median {median:.1} ms a step (fastest {:.1}), {:.1} GFLOP, {:.1} GFLOP/s, {:.1} MB of temporaries",
        recipe.name,
        args.size,
        args.size,
        recipe.train.batch,
        rayon::current_num_threads(),
        times[0],
        cost.flops as f64 / 1e9,
        cost.flops as f64 / 1e6 / median,
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
            "recipe": recipe.name, "size": args.size, "batch": recipe.train.batch, "dtype": "f32", "device": "cpu",
            "threads": rayon::current_num_threads(), "ms_median": median, "ms_min": times[0], "ms": times,
            "flop_per_step": cost.flops, "arena_bytes": arena,
        });
        crate::fsio::write_bytes(path, format!("{result:#}\n").as_bytes())?;
    }
    Ok(())
}
