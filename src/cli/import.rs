use super::say;
use crate::error::Result;
use crate::run::checkpoint;
use crate::weights::{Kind, StateDict};
use std::path::PathBuf;

/// Bring weights of PyTorch's into this program's form
///
/// Reads state dicts of junyanz's pytorch-CycleGAN-and-pix2pix (latest_net_G.pth) and of PyTorch's DCGAN example, from
/// .pth files of every age and from .safetensors, and finds them in checkpoints of Lightning, MONAI and others. Nothing in a
/// file is executed. Sizes, norm
/// and channels are read from the tensors; it prints the network as a recipe writes it. A recipe starts from the result
/// with `train.init`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan import latest_net_G.pth --as pix2pix-generator --out G.safetensors
  gan train recipes/mr2pet.toml --set train.init.G=G.safetensors
  gan import netG_epoch_24.pth --as dcgan-generator --out G.safetensors")]
pub struct Args {
    /// A .pth, .pt or .safetensors file
    weights: PathBuf,
    /// What the weights are of
    #[arg(long = "as", value_enum, value_name = "NETWORK")]
    kind: Kind,
    /// Which of several networks that a checkpoint holds: where its state dict is, and what stands before its keys, such as
    /// state_dict.generator [default: the only one that fits]
    #[arg(long, value_name = "PART")]
    part: Option<String>,
    /// Overwrite the file if it exists
    #[arg(long)]
    force: bool,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let file = StateDict::read(&args.weights)?;
    let (found, dict) = file.find(args.part.as_deref(), |d| args.kind.recognise(d))?;
    super::may_write(&args.out, args.force)?;
    let network = found.network.to_toml();
    let architecture = format!("{network} inputs={} outputs={}", found.inputs, found.outputs);
    let tensors = found.tensors(&dict);
    checkpoint::write(&args.out, tensors, &[("format", "pt"), ("architecture", &architecture)])?;
    if !dict.part().is_empty() {
        say(format!("read from {} of {}", dict.part(), args.weights.display()));
    }
    let left_out = file.left_out(&dict);
    if !left_out.is_empty() {
        say(format!("left out: {}", left_out.join(", ")));
    }
    let size = found.size.map_or(String::new(), |s| format!(", images of {s} x {s}"));
    say(format!(
        "{}: {network}, {} channels in, {} out{size}; {} parameters",
        args.out.display(),
        found.inputs,
        found.outputs,
        found.spec.param_count()
    ));
    Ok(())
}
