use super::say;
use crate::data::phantom::{PhantomConfig, ensure};
use crate::error::Result;
use std::path::PathBuf;

/// Write made-up patients as NIfTI files
///
/// Each subject has T1, T1ce, T2, FLAIR, a 3T/7T MPRAGE pair, FDG-PET, tissue and tumour labels on one grid, laid out as
/// BIDS with a manifest.csv that `gan train` reads. The same settings give the same files on every machine.
#[derive(clap::Args)]
#[command(after_help = "Example:
  gan phantom data/phantom --subjects 20 --seed 7
  gan info data/phantom/sub-0001/anat/sub-0001_T1w.nii.gz")]
pub struct Args {
    /// The folder to write
    dir: PathBuf,
    /// Number of subjects
    #[arg(long, default_value_t = PhantomConfig::default().subjects)]
    subjects: usize,
    /// Voxels along x, y, z
    #[arg(long, value_name = "X,Y,Z", value_parser = extents)]
    size: Option<[usize; 3]>,
    /// Voxel size in mm
    #[arg(long, default_value_t = PhantomConfig::default().spacing)]
    spacing: f64,
    /// Seed of everything
    #[arg(long, default_value_t = PhantomConfig::default().seed)]
    seed: u64,
}

pub fn run(args: &Args) -> Result<()> {
    let mut config = PhantomConfig {
        dir: args.dir.clone(),
        subjects: args.subjects,
        spacing: args.spacing,
        seed: args.seed,
        ..Default::default()
    };
    config.size = args.size.unwrap_or(config.size);
    config.check()?;
    let phantom = ensure(&config)?;
    let what = if phantom.generated { "wrote" } else { "found, complete and unchanged:" };
    say(format!("{what} {} subjects; manifest {}", args.subjects, phantom.manifest.display()));
    say(format!(
        "no predictor of the PET from the MR can exceed {:.1} dB on the test subjects (range {} SUVR)",
        phantom.summary.oracle_psnr_test, phantom.summary.pet_range
    ));
    Ok(())
}

/// Three whole numbers, `96,112,96`.
fn extents(text: &str) -> Result<[usize; 3], String> {
    let numbers: Vec<usize> = text.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    match <[usize; 3]>::try_from(numbers) {
        Ok(size) if text.matches(',').count() == 2 => Ok(size),
        _ => Err("write three whole numbers with commas between them, for example 96,112,96".into()),
    }
}
