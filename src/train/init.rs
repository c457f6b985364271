//! Weights to start from in place of random ones: `train.init` of a recipe.

use crate::data::Notes;
use crate::error::{Error, Result};
use crate::exec::States;
use crate::nn::NetSpec;
use crate::recipe::Recipe;
use crate::weights::StateDict;

/// Reads the files of `train.init` into the networks that they are named for. A file must have just the network's tensors,
/// or be a checkpoint with one such part, which is noted; its own form (.safetensors, .pth) does not matter.
pub fn from_files(recipe: &Recipe, specs: &[NetSpec], states: &mut States, notes: &Notes) -> Result<()> {
    for (net, path) in &recipe.train.init {
        let spec = specs.iter().find(|s| s.name == *net).ok_or_else(|| {
            let known: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
            Error::input(format!(
                "`train.init.{net}` names no network of this recipe, which has {}",
                known.join(", ")
            ))
        })?;
        let file = StateDict::read(path)?;
        let (_, dict) = file.find(None, |d| d.check(spec))?;
        if !dict.part().is_empty() {
            let left_out = file.left_out(&dict).join(", ");
            let rest = if left_out.is_empty() { left_out } else { format!("; left out: {left_out}") };
            notes.add(format!(
                "{net} starts from `{}` of {} (`train.init`){rest}",
                dict.part(),
                path.display()
            ));
        }
        spec.import(states, dict.source(), |key| dict.get(key))?;
    }
    Ok(())
}
