//! The work of a recipe's training step, counted without running it.

use gan::compile::plan::{Passes, plan_with};
use gan::graph::Cost;
use gan::methods::Shapes;
use gan::recipe::Recipe;
use gan::run::programs::trace_step;
use std::path::Path;

/// FLOPs and bytes of a whole training step at a size and a batch: that of a critic's family with all updates of the
/// critic, as late in the training, where every step is like the others.
pub fn of_step(path: &Path, set: &[&str], size: usize, batch: usize) -> Result<Cost, String> {
    let text = |e: gan::error::Error| e.to_string();
    let set: Vec<String> =
        set.iter().map(ToString::to_string).chain([format!("train.batch={batch}")]).collect();
    let recipe = Recipe::load(path, &set).map_err(text)?;
    let method = recipe.method().map_err(text)?;
    let shapes = Shapes::new(
        &recipe.data,
        recipe.train.batch,
        recipe.data.patch.map_or(vec![size; 2], |p| p.to_vec()),
    );
    let specs = method.networks(&shapes.size).map_err(text)?;
    let parts = trace_step(&recipe, &method, &specs, &shapes)
        .iter()
        .map(|step| Ok(plan_with(step.graph(), &step.outputs(), Passes::default()).map_err(text)?.work))
        .collect::<Result<Vec<Cost>, String>>()?;
    Ok(method.runs(u64::from(u32::MAX)).iter().map(|run| parts[run.part]).sum())
}
