use crate::device::launch::Math;
use crate::error::{Error, Result};
use crate::exec::choice::Choice;
use crate::recipe::Recipe;
use crate::run::folder::RunDir;
use crate::run::tuning::Source;
use crate::train::reporter;
use crate::train::{options::TrainOptions, session::train};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Train a recipe
///
/// Writes a run folder: the resolved recipe, TensorBoard events (train/ and val/), checkpoints (safetensors with
/// PyTorch's keys), metrics.csv and sample pictures. Ctrl-C saves a checkpoint and exits with 130. `--resume` continues a
/// run bit for bit as if it had not been interrupted, whatever ended it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan train recipes/mr2pet.toml
  gan train recipes/mr2pet.toml --set train.batch=4 --set model.generator.ngf=64 --out runs/wide
  gan train recipes/mr2pet.toml --out runs/wide --resume
  gan train recipes/unet-tumour.toml --fold 0")]
pub struct Args {
    /// The recipe (TOML)
    recipe: PathBuf,
    /// Learn from a folder of your own in place of the recipe's images: BIDS, nnU-Net raw, Medical Segmentation Decathlon, BraTS,
    /// SynthRAD, A and B, trainA and trainB, or class folders (docs/data.md)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Override a key of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to compute: cpu, cuda, cuda:N, or auto (the first GPU that computes what the CPU does, else the CPU)
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// How a GPU multiplies: f32, tf32 or bf16 (mixed precision)
    #[arg(long, default_value = "f32")]
    precision: Math,
    /// Which variants of a GPU's kernels a new run takes: auto (as `gan kernels tune` measured, where it did), none (by the rule
    /// for shapes), or a file, such as another run's choices.json. A resumed run takes those that it recorded
    #[arg(long, value_name = "FILE", default_value = "auto")]
    choices: Source,
    /// The run folder [default: runs/<name>, numbered if it exists]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Continue the run in the run folder from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Stop after so many steps; the learning-rate schedule is stretched over them
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Seed of weights, order, augmentation and dropout
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Cross-validation: validate on this fold (from 0) and train on the others; see `data.folds`
    #[arg(long, value_name = "K")]
    fold: Option<usize>,
    /// Threads of the CPU device [default: all]; the result does not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Show nothing but errors
    #[arg(long)]
    pub(super) quiet: bool,
    /// Tell programs how it goes: a JSON object a line on standard output (docs/watching.md)
    #[arg(long)]
    json_lines: bool,
}

pub fn run(args: Args) -> Result<()> {
    let device = super::open_device_in(args.device, args.precision, args.threads)?;
    if args.steps == Some(0) {
        return Err(Error::usage("--steps 0: there would be nothing to do; ask for at least one step"));
    }
    let mut set = args.set.clone();
    if let Some(folder) = &args.data {
        let text = folder.to_str().ok_or_else(|| {
            Error::input(format!("--data {}: the name is no Unicode; rename the folder", folder.display()))
        })?;
        set.insert(0, format!("data.folder={}", toml::Value::String(text.into())));
    }
    set.extend(args.steps.map(|n| format!("train.steps={n}")));
    set.extend(args.seed.map(|n| format!("seed={n}")));
    set.extend(args.fold.map(|k| format!("data.fold={k}")));
    let recipe = Recipe::load(&args.recipe, &set)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None if args.resume => recipe.default_out(),
        None => free_folder(&recipe.default_out()),
    };
    let options = TrainOptions {
        out,
        resume: args.resume,
        quiet: args.quiet,
        json_lines: args.json_lines,
        command: super::command_line(),
        device,
        choices: args.choices,
        stop: on_interrupt()?,
    };
    train(&recipe, &options)
}

/// `path`, or `path-2`, `path-3`, ... if runs are there already: nothing is ever overwritten.
pub(super) fn free_folder(path: &Path) -> PathBuf {
    let taken = |p: &Path| RunDir::new(p).exists();
    if !taken(path) {
        return path.to_path_buf();
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    (2u32..)
        .map(|i| path.with_file_name(format!("{name}-{i}")))
        .find(|p| !taken(p))
        .unwrap_or_else(|| path.into())
}

/// A flag that Ctrl-C and SIGTERM raise; the second one ends the program at once.
pub(super) fn on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(Error::Interrupted.exit_code()));
        }
        reporter::line("\nstopping after this step; press Ctrl-C again to stop at once");
    })
    .map_err(|e| Error::input(format!("cannot listen for Ctrl-C ({e})")))?;
    Ok(stop)
}
