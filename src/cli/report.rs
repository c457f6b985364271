use super::Which;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::exec::choice::Choice;
use crate::report::{self, Options};
use crate::run::folder::RunDir;
use crate::train::reporter;
use std::path::PathBuf;

/// Put a run, or several beside each other, on one page
///
/// Writes one HTML file that needs nothing else: the recipe, curves, how samples changed, scores per case with the best and
/// the worst case and their errors, what it was trained with and for how long, and how to do it again. Several runs are
/// also compared. It opens without a network, in light and dark, and prints.
///
/// Scores are measured anew, as by `gan evaluate`; this takes as long as that does. What a run lacks (a checkpoint, its
/// images) is said on the page.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan report runs/mr2pet
  gan report runs/mr2pet runs/wide --out comparison.html
  gan report runs/mr2pet --split none --out curves.html")]
pub struct Args {
    /// The run folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Whose scores: train, val, test, or none
    #[arg(long, default_value = "test")]
    split: String,
    /// Which checkpoint [default: best, or last where there is no best]
    #[arg(long, value_enum)]
    checkpoint: Option<Which>,
    /// Where to compute: cpu, cuda, cuda:N, or auto (the first GPU that computes what the CPU does, else the CPU)
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn run(args: &Args) -> Result<()> {
    let split = match args.split.as_str() {
        "train" => Some(Split::Train),
        "val" => Some(Split::Val),
        "test" => Some(Split::Test),
        "none" => None,
        other => return Err(Error::usage(format!("--split {other}: write train, val, test or none"))),
    };
    let device = super::open_device(args.device, args.threads)?;
    let options = Options { split, checkpoint: args.checkpoint.map(Which::name), device };
    let runs: Vec<RunDir> = args.runs.iter().map(RunDir::new).collect();
    let missing = report::write(&runs, &options, &args.out)?;
    missing.iter().for_each(|m| reporter::line(&format!("not on the page: {m}")));
    super::say(args.out.display());
    Ok(())
}
