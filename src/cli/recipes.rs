use super::say;
use crate::error::{Error, Result};
use crate::models::REGISTRY;
use crate::recipe::Recipe;
use std::path::Path;

/// List the recipes that come with the program, or print one
///
/// A recipe is a commented TOML file that determines a training run. To change one, print it into a file of your own.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan recipes
  gan recipes dcgan-mr > my.toml
  gan train my.toml
  gan recipes dcgan-mr --expanded
  gan recipes --networks")]
pub struct Args {
    /// The recipe to print; with --expanded it may be a file
    name: Option<String>,
    /// Print the recipe with all its settings, and its method written in full: networks, updates and the terms of their losses
    #[arg(long, requires = "name")]
    expanded: bool,
    /// List the networks that recipes can name: what goes in and comes out, and who described them
    #[arg(long, conflicts_with = "name")]
    networks: bool,
}

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// Name and text, from the plainest families to the rest.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../recipes/", $name, ".toml")))),*];
    };
}

shipped!(
    "mr2pet",
    "mr2pet-cyclegan",
    "3t-to-7t",
    "t1-to-t2",
    "dcgan-mr",
    "wgan-mr",
    "wgan-gp-mr",
    "vanilla-gan",
    "unet-tumour",
    "unet-brats",
    "unet3d-tumour",
    "srcnn",
    "vdsr",
    "denoise",
    "denoise-wgan",
    "unet-plus-plus",
    "vox2vox",
    "r3gan-mr",
);

pub fn run(args: &Args) -> Result<()> {
    if args.networks {
        let width = REGISTRY.iter().map(|e| e.kind.len()).max().unwrap_or(0);
        for entry in REGISTRY {
            say(format!("{:width$}  {:24}  {}", entry.kind, entry.signature()?.text(), entry.about));
        }
        return Ok(());
    }
    if let Some(name) = &args.name {
        let file = Path::new(name);
        if args.expanded && file.is_file() {
            say(Recipe::load(file, &[])?.expanded()?.to_toml().trim_end());
            return Ok(());
        }
        let wanted = name.trim_end_matches(".toml").trim_start_matches("recipes/");
        let Some((_, text)) = SHIPPED.iter().find(|(n, _)| *n == wanted) else {
            let nearest = SHIPPED.iter().min_by_key(|(n, _)| strsim::damerau_levenshtein(n, wanted));
            return Err(Error::input(format!(
                "there is no recipe {wanted}; did you mean {}? `gan recipes` lists all",
                nearest.map_or("", |(n, _)| n)
            )));
        };
        if args.expanded {
            say(Recipe::parse(text, wanted, &[])?.expanded()?.to_toml().trim_end());
        } else {
            say(text.trim_end());
        }
        return Ok(());
    }
    let width = SHIPPED.iter().map(|(n, _)| n.len()).max().unwrap_or(0);
    for (name, text) in SHIPPED {
        let recipe = Recipe::parse(text, name, &[])?;
        say(format!("{name:width$}  {}", recipe.about));
    }
    Ok(())
}
