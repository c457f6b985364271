use super::{Which, say};
use crate::data::{Split, Volume};
use crate::error::{Error, Result};
use crate::exec::device::{Choice, Device};
use crate::fsio;
use crate::metrics::case::{CaseScores, Summary};
use crate::metrics::ssim::{Ssim, Window};
use crate::train::evaluation;
use crate::train::run::{Predictor, RunDir};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Measure a trained run, or a folder of predictions
///
/// A run is measured on the subjects of a split (by default those it has never seen) beside what it must beat.
///
/// Images made from images: MAE, NMSE, PSNR and SSIM (MONAI's Gaussian window, 3D) per case, and their means with 95 %
/// intervals, beside the recipe's baselines (`validate.baselines`), fitted on the training split; and KID, which says how
/// much the slices look like true ones. The data range is fixed, never an image's own maximum. Label maps: Dice,
/// sensitivity, specificity, PPV and HD95 in mm. Images made from noise: KID and sliced Wasserstein distance beside those
/// of real images from real ones.
///
/// A folder of predictions is measured against references of the same names.
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
    /// The folder of true images with the same names
    #[arg(long, value_name = "DIR", requires = "predictions")]
    references: Option<PathBuf>,
    /// A folder of masks with the same names; only voxels above 0 count
    #[arg(long, value_name = "DIR", requires = "predictions")]
    mask: Option<PathBuf>,
    /// Data range L of PSNR and SSIM, in the images' units [default: that of all references together]
    #[arg(long, value_name = "L", requires = "predictions")]
    range: Option<f64>,
    /// Also write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to compute: cpu, cuda, cuda:N, or auto (the first GPU that computes what the CPU does, else the CPU)
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn run(args: &Args) -> Result<()> {
    let device = super::open_device(args.device, args.threads)?;
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
    say("");
    say(&measured.text);
    let mut all = measured.json;
    all.insert("run".into(), json!(run.root()));
    all.insert("split".into(), json!(split.name()));
    all.insert("checkpoint".into(), json!(which));
    all.insert("subjects".into(), json!(measured.subjects));
    Ok(serde_json::Value::Object(all))
}

/// NIfTI files of a folder by name.
fn images(dir: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("read the folder", dir))?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read the folder", dir))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(stem) = name.strip_suffix(".nii.gz").or_else(|| name.strip_suffix(".nii")) {
            found.insert(stem.to_string(), path.clone());
        }
    }
    if found.is_empty() {
        return Err(Error::input(format!(
            "{} holds no .nii or .nii.gz file; name a folder of images",
            dir.display()
        )));
    }
    Ok(found)
}

fn evaluate_folders(args: &Args, predictions: &Path, references: &Path) -> Result<serde_json::Value> {
    let (outputs, truths) = (images(predictions)?, images(references)?);
    let masks = args.mask.as_deref().map(images).transpose()?;
    let lacking = |name: &str, dir: &Path| {
        Error::input(format!("{name} has no counterpart in {}; give both the same file name", dir.display()))
    };
    let unused = truths.keys().filter(|name| !outputs.contains_key(*name)).count();
    if unused > 0 {
        say(format!("{unused} references have no prediction and are left out"));
    }
    let mut triples = Vec::new();
    for (name, path) in &outputs {
        let output = Volume::load(path)?;
        let truth = truths.get(name).ok_or_else(|| lacking(name, references))?;
        let truth = Volume::load(truth)?;
        same_grid(name, &output, &truth)?;
        let mask = match (&masks, &args.mask) {
            (Some(masks), Some(dir)) => {
                let mask = Volume::load(masks.get(name).ok_or_else(|| lacking(name, dir))?)?;
                same_grid(name, &output, &mask)?;
                Some(mask.voxels.iter().map(|v| *v > 0.0).collect::<Vec<bool>>())
            }
            _ => None,
        };
        triples.push((name, output, truth, mask));
    }
    let range = match args.range {
        Some(r) if r > 0.0 && r.is_finite() => r,
        Some(r) => {
            return Err(Error::usage(format!("--range {r}: the data range must be a positive number")));
        }
        None => {
            let all = triples.iter().flat_map(|(_, _, t, _)| &t.voxels);
            let (low, high) =
                all.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
            f64::from(high - low)
        }
    };
    if range <= 0.0 {
        return Err(Error::input("all references are constant; give the data range with --range"));
    }
    let ssim = Ssim::new(Window::Gaussian, range)?;
    let mut scores = Vec::new();
    for (name, output, truth, mask) in &triples {
        let [x, y, z] = output.dims;
        let dims = [z, y, x];
        scores.push(CaseScores::synthesis(
            name.as_str(),
            &output.voxels,
            &truth.voxels,
            dims,
            mask.as_deref(),
            &ssim,
        )?);
    }
    let summary = Summary::of(scores)?;
    say(format!("{} cases, data range {range}", triples.len()));
    say(summary.case_table());
    say(summary.table());
    Ok(json!({ "range": range, "predictions": serde_json::to_value(&summary).expect("plain data") }))
}

fn same_grid(name: &str, a: &Volume, b: &Volume) -> Result<()> {
    if a.dims != b.dims {
        return Err(Error::input(format!(
            "{name}: the images have {:?} and {:?} voxels; resample one onto the other's grid first",
            a.dims, b.dims
        )));
    }
    if a.affine().distance(&b.affine(), a.dims) > 1e-3 {
        return Err(Error::input(format!(
            "{name}: the images have the same extents but different affines, so their voxels are not the same places; resample one onto the other's grid first"
        )));
    }
    Ok(())
}
