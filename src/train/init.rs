//! Weights to start from in place of random ones: `train.init` of a recipe.

use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::exec::States;
use crate::nn::NetSpec;
use crate::weights::StateDict;

/// Reads the files of `train.init` into the networks that they are named for. A file must have just the network's tensors,
/// or be a checkpoint with one such part; its own form (.safetensors, .pth) does not matter.
pub fn from_files(recipe: &Recipe, specs: &[NetSpec], states: &mut States) -> Result<()> {
    for (net, path) in &recipe.train.init {
        let spec = specs.iter().find(|s| s.name == *net).ok_or_else(|| {
            let known: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
            Error::input(format!(
                "`train.init.{net}` names no network of this recipe, which has {}",
                known.join(", ")
            ))
        })?;
        let (_, dict) = StateDict::read(path)?.find(None, |d| d.check(spec))?;
        spec.import(states, dict.source(), |key| dict.get(key))?;
    }
    Ok(())
}
