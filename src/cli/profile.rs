use super::say;
use crate::device::launch::Math;
use crate::error::{Error, Result};
use crate::exec::choice::Choice;
use crate::exec::device::Device;
use crate::fsio;
use crate::profile::diff::{Diff, Verdict};
use crate::profile::gpu::Timing;
use crate::profile::measure::Effort;
use crate::profile::{Profile, html, profile, text};
use crate::recipe::Recipe;
use crate::run::tuning::Source;
use std::path::PathBuf;

/// Tell where a training step's time and memory go
///
/// `gan profile RECIPE` runs real training steps, reading the recipe's data, and shows what takes how long and how fast it
/// could be. No run folder is written. `gan profile diff OLD.json NEW.json` tells whether a step has become slower. How each
/// part is read: docs/profiling.md.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  gan profile recipes/mr2pet.toml
  gan profile recipes/mr2pet.toml --device cuda --precision bf16 --trace trace.json --html profile.html
  gan profile recipes/mr2pet.toml --json new.json && gan profile diff old.json new.json")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    run: Run,
}

#[derive(clap::Subcommand)]
enum What {
    /// Compare two profiles: exit code 0 if the step is not slower, 1 if it is
    Diff(Compare),
}

#[derive(clap::Args)]
struct Run {
    /// The recipe (TOML)
    #[arg(required = true)]
    recipe: Option<PathBuf>,
    /// Override a key of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Steps that are measured as in training; as many more are measured call by call
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// Where to compute: cpu, cuda, cuda:N, or auto (the first GPU that computes what the CPU does, else the CPU)
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// How a GPU multiplies: f32, tf32 or bf16 (mixed precision)
    #[arg(long, default_value = "f32")]
    precision: Math,
    /// How a GPU's kernels are timed: cupti (inside of the CUDA graph, by NVIDIA's library CUPTI), events (around every launch,
    /// without a graph), or auto (cupti where it can be used)
    #[arg(long, default_value = "auto")]
    timing: Timing,
    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Write a trace of a few steps for https://ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write the profile as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the profile as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Compare {
    /// The earlier profile, written by `gan profile --json`
    old: PathBuf,
    /// The later one
    new: PathBuf,
    /// By how many per cent the median must change to count; more is asked for where the steps scatter more
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    threshold: f64,
}

/// Steps before, of which no times are taken: one of each kind.
const WARM_UP: usize = 2;
/// Steps in a trace.
const TRACED: usize = 3;

pub fn run(args: &Args) -> Result<()> {
    match (&args.what, &args.run.recipe) {
        (Some(What::Diff(args)), _) => diff(args),
        (None, Some(recipe)) => measure(recipe, &args.run),
        (None, None) => Err(Error::usage("name a recipe, or use `gan profile diff`")),
    }
}

fn measure(recipe: &std::path::Path, args: &Run) -> Result<()> {
    let device = super::open_device_in(args.device, args.precision, args.threads)?;
    Source::Cached.apply(&device)?;
    if matches!(device, Device::Cpu) && args.timing != Timing::Auto {
        return Err(Error::usage("--timing is of kernels on a GPU; on the CPU it is by the host's clock"));
    }
    let recipe = Recipe::load(recipe, &args.set)?;
    let effort = Effort { warm_up: WARM_UP, steps: usize::from(args.steps), traced: TRACED };
    let (profile, trace) = profile(&recipe, &device, effort, args.timing)?;
    say(text::whole(&profile).trim_end());
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
        Some(path) => fsio::write_bytes(path, text().as_bytes()),
        None => Ok(()),
    };
    write(&args.trace, &|| trace.to_string())?;
    write(&args.json, &|| profile.to_json())?;
    write(&args.html, &|| html::page(&profile))
}

fn diff(args: &Compare) -> Result<()> {
    if !(args.threshold >= 0.0 && args.threshold.is_finite()) {
        return Err(Error::usage(format!(
            "--threshold {}: write a number of per cent, 0 or more",
            args.threshold
        )));
    }
    let (old, new) = (Profile::read(&args.old)?, Profile::read(&args.new)?);
    let diff = Diff::new(&old, &new, args.threshold / 100.0);
    say(diff.text().trim_end());
    match diff.verdict() {
        Verdict::Slower => Err(Error::input(format!(
            "{} is slower than {} by {:.1} % (what counts: {:.1} %); the largest changes are listed above",
            args.new.display(),
            args.old.display(),
            100.0 * diff.change,
            100.0 * diff.noise
        ))),
        Verdict::Same | Verdict::Faster => Ok(()),
    }
}
