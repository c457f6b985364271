use super::say;
use crate::error::{Error, Result};
use crate::models::REGISTRY;
use crate::recipe::{self, Recipe};
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
    /// List the networks that recipes can name: what goes in and comes out, and who described them; with a NETWORK its settings
    #[arg(long, value_name = "NETWORK", num_args = 0..=1, default_missing_value = "", conflicts_with = "name")]
    networks: Option<String>,
    /// Print the JSON schema of recipes, for editors: every key with its type, default and meaning
    #[arg(long, conflicts_with_all = ["name", "networks"])]
    schema: bool,
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
    "vgg16-pet",
    "vox2vox",
    "r3gan-mr",
);

pub fn run(args: &Args) -> Result<()> {
    if args.schema {
        say(serde_json::to_string_pretty(&recipe::schema()).expect("plain data"));
        return Ok(());
    }
    if let Some(kind) = args.networks.as_deref().filter(|k| !k.is_empty()) {
        return network(kind);
    }
    if args.networks.is_some() {
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

/// Prints what a network is and its settings with their defaults.
fn network(kind: &str) -> Result<()> {
    let Some(entry) = REGISTRY.iter().find(|e| e.kind == kind) else {
        let nearest = REGISTRY.iter().min_by_key(|e| strsim::damerau_levenshtein(e.kind, kind));
        return Err(Error::input(format!(
            "there is no network {kind}; did you mean {}? `gan recipes --networks` lists all",
            nearest.map_or("", |e| e.kind)
        )));
    };
    let (about, settings) = entry.settings()?;
    say(format!("{}: {}\n{}\n\n{about}\n", entry.kind, entry.about, entry.signature()?.text()));
    for setting in &settings {
        say(format!("{} = {}", setting.name, setting.default));
        say(format!("    {}", setting.about));
    }
    Ok(())
}
