use super::{Device, Which, say, set_threads};
use crate::data::Case;
use crate::error::{Error, Result};
use crate::fsio;
use crate::train::run::{Predictor, RunDir};
use std::path::{Path, PathBuf};

/// Predict target images with a trained run
///
/// NIfTI in, NIfTI out: float32, with the input's shape, affine, qform and sform, in the target's units. A run with
/// several input modalities takes the files of one subject in the recipe's order; more files are further subjects.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan predict runs/mr2pet data/phantom/sub-0013/anat/sub-0013_T1w.nii.gz --out predicted
  gan predict runs/mr2pet *_T1w.nii.gz --out predicted")]
pub struct Args {
    /// The run folder
    run: PathBuf,
    /// Input images
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Folder for the predicted images
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which checkpoint [default: best, or last where there is no best]
    #[arg(long, value_enum)]
    checkpoint: Option<Which>,
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Threads of the CPU device [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn run(args: &Args) -> Result<()> {
    args.device.check()?;
    set_threads(args.threads)?;
    let run = RunDir::new(&args.run);
    let mut predictor = Predictor::open(&run, Which::resolve(args.checkpoint, &run))?;
    let data = predictor.recipe().data.clone();
    let per_case = data.input.len();
    if !args.inputs.len().is_multiple_of(per_case) {
        return Err(Error::usage(format!(
            "the run takes {per_case} images a subject ({}), but {} files are given; name them subject by subject in this order",
            data.input.join(", "),
            args.inputs.len()
        )));
    }
    fsio::create_dir(&args.out)?;
    let mut written: Vec<PathBuf> = Vec::new();
    for files in args.inputs.chunks(per_case) {
        let names: Vec<PathBuf> =
            data.target.iter().map(|t| args.out.join(output_name(&files[0], t))).collect();
        for path in &names {
            if written.contains(path) {
                return Err(Error::input(format!(
                    "two inputs would both become {}; predict them into different folders",
                    path.display()
                )));
            }
            if files.iter().any(|f| same_file(f, path)) {
                return Err(Error::input(format!("{} is an input; choose another --out", path.display())));
            }
        }
        let case = Case::open(files, &data, predictor.fit())?;
        for (path, volume) in names.iter().zip(predictor.volumes(&case)?) {
            volume.save(path)?;
            say(path.display());
        }
        written.extend(names);
    }
    Ok(())
}

/// `sub-01_T1w.nii.gz` and target `pet` give `sub-01_desc-synth_pet.nii.gz`: the input's BIDS entities, marked as made up.
fn output_name(input: &Path, target: &str) -> String {
    let name = input.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = [".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img"]
        .iter()
        .find_map(|e| name.strip_suffix(e))
        .unwrap_or(&name);
    // The last part of a BIDS name is the modality; a name without parts keeps all of itself.
    let entities = match stem.rsplit_once('_') {
        Some((entities, _)) if stem.starts_with("sub-") => entities,
        _ => stem,
    };
    format!("{entities}_desc-synth_{target}.nii.gz")
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_bids() {
        assert_eq!(
            output_name(Path::new("x/sub-01_ses-2_T1w.nii.gz"), "pet"),
            "sub-01_ses-2_desc-synth_pet.nii.gz"
        );
        assert_eq!(output_name(Path::new("case.01.nii"), "pet"), "case.01_desc-synth_pet.nii.gz");
        assert_eq!(output_name(Path::new("my_brain.nii.gz"), "t2"), "my_brain_desc-synth_t2.nii.gz");
    }
}
