use super::say;
use crate::device::cuda::cache::Cache;
use crate::device::cuda::compiler::Compiler;
use crate::device::cuda::target;
use crate::device::cuda::workers;
use crate::device::launch::Math;
use crate::error::{Error, Result};
use crate::exec::choice::Choice;
use crate::exec::device::Device;
use crate::recipe::Recipe;
use crate::train::kernels::{Extents, specialisations};
use crate::watch::csvlog::bytes;
use std::path::PathBuf;

/// Show, empty or fill the cache of compiled CUDA kernels, and find the fastest for a device
///
/// Kernels are compiled for their exact shapes when a run first needs them, and kept in GAN_CACHE_DIR, else in the
/// user's cache folder. `build` compiles ahead everything that recipes need; it takes NVIDIA's run-time compiler (NVRTC), but
/// neither a driver nor a GPU.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// List what is in the cache
    List,
    /// Empty the cache
    Clear,
    /// Compile everything that recipes need
    Build(Build),
    /// Time every variant of every convolution of recipes on a GPU, and keep a table of the fastest
    ///
    /// Training takes the table's variants from then on, and records them in the run's folder. Without a table a rule by shape
    /// holds. The table counts for this device, driver, compiler and version of the kernels alone.
    Tune(super::tune::Args),
    /// Compile what another process of this program asks for
    #[command(hide = true)]
    Worker,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan kernels build recipes/mr2pet.toml                         for the device of this machine
  gan kernels build recipes/mr2pet.toml --arch sm_80,sm_90a     for an A100 and an H100 or H200
  gan kernels build recipes/mr2pet.toml --arch sm_90a --size 256 without reading the recipe's data")]
struct Build {
    /// The recipes (TOML)
    #[arg(required = true, value_name = "RECIPE")]
    recipes: Vec<PathBuf>,
    /// Override a key of every recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Architectures, such as sm_80,sm_90a, or compute_90 for PTX [default: that of the first device]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = architecture)]
    arch: Vec<String>,
    /// Precision to compile for: f32, tf32 or bf16
    #[arg(long, default_value = "f32")]
    precision: Math,
    /// Multiprocessors of the devices: sums are divided among so many [default: those of the usual device of an
    /// architecture]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    multiprocessors: Option<u16>,
    /// Height and width of slices, as N or H,W [default: what the recipe's data gives, which is read; patches have the
    /// extents that the recipe says]
    #[arg(long, value_parser = super::size::size)]
    size: Option<[usize; 2]>,
    /// Processes that compile at the same time [default: as many as there are cores]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::List => list(&Cache::open()?),
        What::Clear => {
            let cache = Cache::open()?;
            say(format!("removed {} kernels from {}", cache.clear(), cache.folder().display()));
        }
        What::Build(args) => build(args)?,
        What::Tune(args) => super::tune::run(args)?,
        What::Worker => workers::serve()?,
    }
    Ok(())
}

fn list(cache: &Cache) {
    let entries = cache.list();
    for entry in &entries {
        say(format!("{:>10}  {}", bytes(entry.bytes), entry.name));
    }
    let total = entries.iter().map(|e| e.bytes).sum();
    say(format!("{} kernels, {} in {}", entries.len(), bytes(total), cache.folder().display()));
}

fn build(args: &Build) -> Result<()> {
    let mut targets: Vec<(String, usize)> =
        args.arch.iter().map(|a| (a.clone(), target::usual_multiprocessors(a))).collect();
    let compiler = Compiler::new()?;
    if targets.is_empty() {
        let (Device::Cuda(device), _) = Choice::Cuda(0).open(args.precision).map_err(|e| {
            Error::input(format!(
                "{e}; or name the architectures to compile for with --arch, such as --arch sm_90"
            ))
        })?
        else {
            unreachable!("a GPU was asked for")
        };
        targets.push((device.target().to_string(), device.multiprocessors()));
    }
    for path in &args.recipes {
        let recipe = Recipe::load(path, &args.set)?;
        let extents = match args.size {
            Some(size) if recipe.data.patch.is_none() => Extents::given(size.to_vec()),
            _ => Extents::of(&recipe)?,
        };
        for (architecture, usual) in &targets {
            let multiprocessors = args.multiprocessors.map_or(*usual, usize::from);
            let gpu = target::traits(architecture, Some(multiprocessors), args.precision)?;
            let all = specialisations(&recipe, &extents, &gpu)?;
            let new = compiler.compile_all(&all, architecture, args.jobs.map(usize::from))?;
            say(format!(
                "{}: {} kernels for {architecture} ({multiprocessors} multiprocessors), {new} compiled, {} there already",
                recipe.name,
                all.len(),
                all.len() - new
            ));
        }
    }
    say(format!("in {}", compiler.cache().folder().display()));
    Ok(())
}

fn architecture(text: &str) -> Result<String, String> {
    let number = text.strip_prefix("sm_").or_else(|| text.strip_prefix("compute_")).unwrap_or_default();
    let digits = number.trim_end_matches(['a', 'f']);
    if digits.len() >= 2 && number.len() <= digits.len() + 1 && digits.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text.to_string())
    } else {
        Err("write sm_NN or compute_NN, for example sm_90".into())
    }
}
