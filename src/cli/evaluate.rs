use super::{Which, say};
use crate::data::Split;
use crate::error::{Error, Result};
use crate::evaluate::evaluation;
use crate::evaluate::folders::{self, Compare, Folders};
use crate::exec::choice::Choice;
use crate::exec::device::Device;
use crate::fsio;
use crate::run::folder::RunDir;
use crate::run::predictor::Predictor;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Measure a trained run, or a folder of predictions
///
/// A run is measured on the subjects of a split (by default those it has never seen) beside what it must beat.
///
/// Images made from images: MAE, NMSE, PSNR and SSIM (MONAI's Gaussian window, 3D) per case, and their means with 95 %
/// intervals, beside the recipe's baselines (`validate.baselines`), fitted on the training split; and KID, which says how
/// much the slices look like true ones. The data range is fixed, never an image's own maximum. Label maps: Dice,
/// sensitivity, specificity, PPV and HD95 in mm. Classes and findings: accuracy, balanced accuracy, sensitivity, specificity,
/// precision, F1, AUROC, log loss, Brier score and calibration error over subjects with 95 % intervals, and the confusion
/// matrix; numbers: MAE, RMSE, R2 and correlation; both beside a constant answer and a linear model of the images'
/// intensities. Images made from noise: KID and sliced Wasserstein distance beside those of real images from real ones.
///
/// A folder of predictions is measured against references of the same names (those that `gan predict` makes find their
/// case's reference): images as above, label maps label by label.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan evaluate runs/mr2pet
  gan evaluate runs/mr2pet --split val --json val.json
  gan evaluate --predictions predicted --references truth --range 3.0 --mask brainmasks")]
pub struct Args {
    /// The run folder
    #[arg(required_unless_present = "predictions", conflicts_with = "predictions")]
    run: Option<PathBuf>,
    /// Which subjects: train, val or test
    #[arg(long, default_value = "test")]
    split: String,
    /// Which checkpoint [default: best, or last where there is no best]
    #[arg(long, value_enum)]
    checkpoint: Option<Which>,
    /// A folder of predicted NIfTI images
    #[arg(long, value_name = "DIR", requires = "references")]
    predictions: Option<PathBuf>,
    /// The folder of true images or label maps with the same names
    #[arg(long, value_name = "DIR", requires = "predictions")]
    references: Option<PathBuf>,
    /// A folder of masks with the same names; only voxels above 0 count
    #[arg(long, value_name = "DIR", requires = "predictions")]
    mask: Option<PathBuf>,
    /// Data range L of PSNR and SSIM, in the images' units [default: that of all references together]
    #[arg(long, value_name = "L", requires = "predictions")]
    range: Option<f64>,
    /// What two folders are compared as
    #[arg(long = "as", value_enum, default_value = "auto", requires = "predictions")]
    compare: Compare,
    /// Also write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Overwrite the JSON file if it exists
    #[arg(long, requires = "json")]
    force: bool,
    /// Where to compute: cpu, cuda, cuda:N, or auto (the first GPU that computes what the CPU does, else the CPU)
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn run(args: &Args) -> Result<()> {
    let device = super::open_device(args.device, args.threads)?;
    if let Some(path) = &args.json {
        super::may_write(path, args.force)?;
    }
    let json = match (&args.run, &args.predictions, &args.references) {
        (Some(run), _, _) => evaluate_run(args, run, &device)?,
        (None, Some(predictions), Some(references)) => evaluate_folders(args, predictions, references)?,
        _ => return Err(Error::usage("name a run folder, or --predictions and --references")),
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&json).expect("plain data");
        fsio::write_bytes(path, format!("{text}\n").as_bytes())?;
    }
    Ok(())
}

fn evaluate_run(args: &Args, run: &Path, device: &Device) -> Result<serde_json::Value> {
    let split = match args.split.as_str() {
        "train" => Split::Train,
        "val" => Split::Val,
        "test" => Split::Test,
        other => return Err(Error::usage(format!("--split {other}: write train, val or test"))),
    };
    let run = RunDir::new(run);
    let mut predictor = Predictor::open(&run, args.checkpoint.map(Which::name), device)?;
    let which = predictor.which();
    let measured = evaluation::evaluate(&mut predictor, split)?;
    let data = &predictor.recipe().data;
    say(format!(
        "{}: {} subjects of the split `{}`, checkpoint `{which}`",
        run.root().display(),
        measured.subjects,
        split.name()
    ));
    evaluation::caveats(data).into_iter().for_each(say);
    measured.notes.iter().for_each(|text| say(format!("note: {text}")));
    say("");
    say(&measured.text);
    let mut all = measured.json;
    all.insert("run".into(), json!(fsio::text(run.root())));
    all.insert("split".into(), json!(split.name()));
    all.insert("checkpoint".into(), json!(which));
    all.insert("subjects".into(), json!(measured.subjects));
    all.insert("notes".into(), json!(measured.notes));
    Ok(serde_json::Value::Object(all))
}

fn evaluate_folders(args: &Args, predictions: &Path, references: &Path) -> Result<serde_json::Value> {
    let masks = args.mask.as_deref();
    let folders = Folders { predictions, references, masks, range: args.range, compare: args.compare };
    let found = folders::compare(&folders)?;
    found.notes.iter().for_each(say);
    say(&found.headline);
    say(found.cases_shown().case_table());
    say(found.summary.table());
    Ok(found.json)
}
