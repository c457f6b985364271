use super::say;
use crate::data::Split;
use crate::data::folds::{self, Fold};
use crate::error::{Error, Result};
use crate::evaluate::evaluation::evaluate;
use crate::exec::choice::Choice;
use crate::fsio;
use crate::metrics::case::{CaseScores, Summary};
use crate::recipe::Recipe;
use crate::run::folder::RunDir;
use crate::run::info::RunInfo;
use crate::run::predictor::Predictor;
use crate::run::splits;
use crate::run::tuning::Source;
use crate::train::{options::TrainOptions, session::train};
use std::path::{Path, PathBuf};

/// Train a recipe with several seeds and folds, and summarise
///
/// Every combination becomes a run below the output folder, evaluated when it ends: with folds on the fold that it did not
/// learn from, without on the test split. `summary.json` holds all scores, `splits_final.json` the folds (nnU-Net's
/// format). The same command continues a sweep that was stopped; what is finished is not trained again.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan sweep recipes/mr2pet.toml --seeds 3
  gan sweep recipes/unet-tumour.toml --seeds 3 --folds 5 --out sweeps/tumour
  gan sweep recipes/unet-tumour.toml --folds 5 --splits splits_final.json")]
pub struct Args {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// Override a key of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How many seeds: the recipe's and those that follow it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    seeds: u16,
    /// Cross-validation with so many folds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=100))]
    folds: Option<u16>,
    /// The folds, in nnU-Net's splits_final.json [default: dealt with data.split_seed]
    #[arg(long, value_name = "FILE", requires = "folds")]
    splits: Option<PathBuf>,
    /// The folder for all runs [default: sweeps/<name>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to compute: cpu, cuda, cuda:N, or auto (the first GPU that computes what the CPU does, else the CPU)
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Show nothing but the summary
    #[arg(long)]
    pub(super) quiet: bool,
}

/// The folds of the sweep, in its folder.
const FOLDS: &str = "splits_final.json";

/// Refuses to go on with a sweep with other folds than those that it began with.
fn check_folds(path: &Path, now: &[Fold]) -> Result<()> {
    if !path.exists() || folds::read(path)? == now {
        return Ok(());
    }
    Err(Error::input(format!(
        "{} holds other folds than the data give now (patients came or went, or the splits were edited), and scores of different folds can't be put together; undo that, or start anew in another folder with --out",
        path.display()
    )))
}

/// Refuses to go on with a sweep whose runs have other subjects in their splits than new ones would get.
fn check_begun(out: &Path, recipes: &[(String, Recipe)]) -> Result<()> {
    for (name, recipe) in recipes {
        let run = RunDir::new(out.join(name));
        let Some(began) = splits::read(&run)?.filter(|_| run.exists()) else { continue };
        let now = began.apply(Ok(recipe.data.manifest()?), &recipe.data, &[])?;
        let other = now.new.first().or(now.gone.first()).or(now.moved.first().map(|(id, ..)| id));
        if let Some(id) = other {
            return Err(Error::input(format!(
                "{} began with other splits than the data give now ({id}, for one, is not where it was), and scores of different splits can't be put together; undo that, or start anew in another folder with --out",
                run.root().display()
            )));
        }
    }
    Ok(())
}

pub fn run(args: &Args) -> Result<()> {
    let device = super::open_device(args.device, args.threads)?;
    let load = |seed: Option<u64>, fold: Option<u16>| {
        let mut set = args.set.clone();
        set.extend(seed.map(|s| format!("seed={s}")));
        if let (Some(k), Some(n)) = (fold, args.folds) {
            set.extend([format!("data.folds={n}"), format!("data.fold={k}")]);
            // As a TOML string, whatever the path holds.
            let splits = args.splits.as_ref().map(|p| toml::Value::String(p.display().to_string()));
            set.extend(splits.map(|p| format!("data.splits={p}")));
        }
        Recipe::load(&args.recipe, &set)
    };
    let first = load(None, args.folds.map(|_| 0))?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("sweeps").join(&first.name));
    if let Some(n) = args.folds {
        let list = first.data.fold_list()?;
        if list.len() != usize::from(n) {
            return Err(Error::input(format!(
                "--folds {n}: the list of splits has {} folds; ask for as many",
                list.len()
            )));
        }
        check_folds(&out.join(FOLDS), &list)?;
        fsio::create_dir(&out)?;
        folds::write(&out.join(FOLDS), &list)?;
    }
    let mut recipes = Vec::new();
    for seed in (0..u64::from(args.seeds)).map(|i| first.seed + i) {
        let all: Vec<Option<u16>> = args.folds.map_or(vec![None], |n| (0..n).map(Some).collect());
        for fold in all {
            let name = match fold {
                Some(k) => format!("seed{seed}-fold{k}"),
                None => format!("seed{seed}"),
            };
            recipes.push((name, load(Some(seed), fold)?));
        }
    }
    check_begun(&out, &recipes)?;
    let stop = super::train::on_interrupt()?;
    let mut scores = Vec::new();
    for (name, recipe) in recipes {
        let run = RunDir::new(out.join(&name));
        let finished = run.exists() && run.load_json::<RunInfo>("run.json").is_ok_and(|i| i.finished);
        if finished {
            // Only a run of these very settings counts.
            let differ = crate::run::folder::differences(&run.recipe()?, &recipe);
            if !differ.is_empty() {
                return Err(Error::input(format!(
                    "{} was trained with other settings: {}; choose another folder with --out",
                    run.root().display(),
                    differ.join(", ")
                )));
            }
        } else {
            if !args.quiet {
                crate::train::reporter::line(&format!("{name}:"));
            }
            let options = TrainOptions {
                out: run.root().to_path_buf(),
                resume: run.exists(),
                quiet: args.quiet,
                json_lines: false,
                command: super::command_line(),
                device: device.clone(),
                choices: Source::Cached,
                stop: stop.clone(),
            };
            train(&recipe, &options)?;
        }
        let split = if args.folds.is_some() { Split::Val } else { Split::Test };
        let mut predictor = Predictor::open(&run, None, &device)?;
        let mut row = CaseScores::new(name);
        for (metric, value) in evaluate(&mut predictor, split)?.scores {
            row.set(metric, value);
        }
        scores.push(row);
    }
    let summary = Summary::of(scores)?;
    summary.save(&out.join("summary.json"))?;
    let on = if args.folds.is_some() { "the fold left out of training" } else { "the split `test`" };
    say(format!("{}: {} runs, each measured on {on}", first.name, summary.cases.len()));
    say("");
    say(summary.case_table());
    say(format!("{:<28}{:>12}   {}", "", "mean", "standard deviation over runs"));
    for m in &summary.metrics {
        // The deviation of a single run is unknown.
        let sd = if m.cases > 1 { format!("± {:.4}", m.sd) } else { "-".into() };
        say(format!("{:<28}{:>12.4}   {sd}", m.metric, m.mean.mean));
    }
    say(format!("\nall scores: {}", out.join("summary.json").display()));
    Ok(())
}
