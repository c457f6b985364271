use super::recipes::SHIPPED;
use super::say;
use crate::device::backend::Backend;
use crate::device::choices::Choices;
use crate::device::launch::{GpuTraits, Math};
use crate::error::{Error, Result};
use crate::exec::choice::Choice;
use crate::exec::choices::{Chosen, Place, Table};
use crate::exec::device::Device;
use crate::exec::tune::tune;
use crate::ops::conv::cuda::variants::ConvShape;
use crate::recipe::Recipe;
use crate::train::kernels::{Extents, programs};
use crate::train::reporter::line;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan kernels tune recipes/mr2pet.toml --precision bf16
  gan kernels tune --all")]
pub struct Args {
    /// The recipes (TOML)
    #[arg(required_unless_present = "all", value_name = "RECIPE")]
    recipes: Vec<PathBuf>,
    /// All recipes that come with the program and whose data can be read
    #[arg(long, conflicts_with = "recipes")]
    all: bool,
    /// Override a key of every recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The device to time on: cuda or cuda:N
    #[arg(long, default_value = "cuda")]
    device: Choice,
    /// Precision to time in: f32, tf32 or bf16
    #[arg(long, default_value = "f32")]
    precision: Math,
    /// Height and width of slices, as N or H,W [default: what the recipe's data gives, which is read]
    #[arg(long, value_parser = super::size::size)]
    size: Option<[usize; 2]>,
}

pub fn run(args: &Args) -> Result<()> {
    let (Device::Cuda(device), _) = args.device.open(args.precision)? else {
        return Err(Error::usage("variants are timed on a GPU: name one with --device cuda or cuda:N"));
    };
    let place = Place::of(&device);
    let path = place.path(device.compiler().cache());
    // What was measured for other recipes stays.
    let mut table = Table::cached(&place, device.compiler().cache())?.unwrap_or_else(|| Table::new(place));
    let traits = device.traits();
    let shapes = shapes(args, &traits)?;
    for (i, shape) in shapes.iter().enumerate() {
        let found = tune(&device, shape)?;
        let us = |seconds: f64| 1e6 * seconds;
        line(&format!(
            "{}/{} {shape}: {} in {:.1} us, by the rule {} in {:.1} us",
            i + 1,
            shapes.len(),
            found.variant,
            us(found.seconds),
            shape.default(&traits),
            us(found.default_seconds)
        ));
        let chosen = Chosen {
            variant: found.variant.to_string(),
            us: us(found.seconds),
            default_us: us(found.default_seconds),
        };
        table.choices.insert(shape.to_string(), chosen);
        // After each: what was measured is not lost when this is stopped.
        table.write(&path)?;
    }
    let own = || shapes.iter().filter_map(|s| table.choices.get(&s.to_string()));
    let (best, rule): (f64, f64) = (own().map(|c| c.us).sum(), own().map(|c| c.default_us).sum());
    say(format!(
        "{} shapes of convolutions: {best:.0} us for each once, {rule:.0} us by the rule; {} in the table {}",
        shapes.len(),
        table.choices.len(),
        path.display()
    ));
    Ok(())
}

/// The convolutions of the recipes' programs, each once: what their planning asks a table for.
fn shapes(args: &Args, traits: &GpuTraits) -> Result<Vec<ConvShape>> {
    let asked = Choices::leak(BTreeMap::new());
    let traits = GpuTraits { choices: Some(asked), ..*traits };
    let plan = |recipe: &Recipe| -> Result<()> {
        let extents = match args.size {
            Some(size) if recipe.data.patch.is_none() => Extents::given(size.to_vec()),
            _ => Extents::of(recipe)?,
        };
        programs(recipe, &extents, &traits).map(drop)
    };
    for path in &args.recipes {
        plan(&Recipe::load(path, &args.set)?)?;
    }
    for (name, text) in SHIPPED.iter().filter(|_| args.all) {
        let recipe = Recipe::parse(text, name, &args.set)?;
        if let Err(e) = plan(&recipe) {
            line(&format!("{name} is left out: {e}"));
        }
    }
    let shape = |name: &String| name.parse::<ConvShape>().expect("a name that a shape was given");
    Ok(asked.asked().iter().map(shape).collect())
}
