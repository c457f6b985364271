use super::{Which, say};
use crate::error::{Error, Result};
use crate::exec::device::Device;
use crate::fsio;
use crate::run::folder::RunDir;
use crate::run::predictor::Predictor;
use std::path::PathBuf;

/// Write a trained network for other programs
///
/// As ONNX (operators of version 13): in evaluation mode, for batches and images of any size, channels first, with the
/// preprocessing and postprocessing of images in the metadata. As safetensors: the weights under PyTorch's keys.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan export runs/mr2pet --onnx mr2pet.onnx
  gan export runs/mr2pet --safetensors mr2pet.safetensors --checkpoint last")]
pub struct Args {
    /// The run folder
    run: PathBuf,
    /// The ONNX file to write
    #[arg(long, value_name = "FILE", required_unless_present = "safetensors")]
    onnx: Option<PathBuf>,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    safetensors: Option<PathBuf>,
    /// Which checkpoint [default: best, or last where there is no best]
    #[arg(long, value_enum)]
    checkpoint: Option<Which>,
}

pub fn run(args: &Args) -> Result<()> {
    if args.onnx.is_some() && args.onnx == args.safetensors {
        return Err(Error::usage("--onnx and --safetensors name the same file; give each its own"));
    }
    let run = RunDir::new(&args.run);
    let mut predictor = Predictor::open(&run, args.checkpoint.map(Which::name), &Device::Cpu)?;
    if let Some(path) = &args.onnx {
        fsio::write_bytes(path, &predictor.to_onnx()?)?;
        say(path.display());
    }
    if let Some(path) = &args.safetensors {
        predictor.save_weights(path)?;
        say(path.display());
    }
    Ok(())
}
