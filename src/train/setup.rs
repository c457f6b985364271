//! What a training starts from: its batches, its states, its extents.

use super::init;
use crate::data::{DataFit, Dataset, Loader, LoaderConfig, Notes};
use crate::error::{Error, Result};
use crate::exec::States;
use crate::methods::{Method, Shapes};
use crate::nn::NetSpec;
use crate::ops::image_pool;
use crate::recipe::Recipe;
use crate::shape::Shape;
use std::sync::Arc;

/// What each image pool does with the images of step `step`: its input's name and value.
pub fn pool_choices(recipe: &Recipe, pools: &[(String, Shape)], step: u64) -> Vec<(String, Vec<f32>)> {
    let choices = |(name, shape): &(String, Shape)| {
        let stream = name.trim_start_matches("pool.");
        let choices = image_pool::choices(recipe.seed, stream, step, recipe.train.batch, shape[0]);
        (format!("{name}.choices"), choices.into_iter().map(|c| c as f32).collect())
    };
    pools.iter().map(choices).collect()
}

/// Refuses a batch of more images than there are.
pub fn check_batch(recipe: &Recipe, dataset: &Dataset) -> Result<()> {
    if recipe.train.batch > dataset.len() {
        return Err(Error::input(format!(
            "`train.batch` is {}, but the split `train` has {} slices only; lower it, or add images",
            recipe.train.batch,
            dataset.len()
        )));
    }
    Ok(())
}

/// Opens the training batches, from batch `first_batch` (counted over all epochs) on.
pub fn open_loader(
    recipe: &Recipe,
    method: &Method,
    dataset: Arc<Dataset>,
    first_batch: u64,
) -> Result<Loader> {
    let config = LoaderConfig {
        batch: recipe.train.batch,
        seed: recipe.seed,
        workers: recipe.train.workers,
        shuffle: true,
        augment: recipe.data.augment,
        drop_last: true,
        balance: recipe.data.balance,
        unpaired: method.unpaired(),
    };
    Loader::new(dataset, config, first_batch)
}

/// Steps of the whole training, with `per_epoch` batches in an epoch.
pub fn total_steps(recipe: &Recipe, per_epoch: u64) -> u64 {
    recipe.train.steps.unwrap_or((recipe.train.epochs + recipe.train.decay_epochs) as u64 * per_epoch)
}

/// What all states begin with: weights out of the seed or from files, their running means, empty pools.
pub fn initial_states(
    recipe: &Recipe,
    method: &Method,
    specs: &[NetSpec],
    shapes: &Shapes,
    notes: &Notes,
) -> Result<States> {
    let mut states = States::new();
    for spec in specs {
        let slots = method.slots(&spec.name, recipe.optimiser.rule.slots());
        spec.initialise::<f32>(&mut states, recipe.seed, slots);
    }
    init::from_files(recipe, method, specs, &mut states, notes)?;
    init::frozen(method, specs, &mut states, notes)?;
    if recipe.optimiser.ema.is_some() {
        for spec in specs.iter().filter(|s| method.averages(&s.name)) {
            let start = states.get::<f32>(&spec.store_name())[..spec.param_count()].to_vec();
            states.set(&spec.ema_name(), &start);
        }
    }
    for (name, shape) in method.pools(&shapes.size).into_iter().chain(method.memories()) {
        states.set(&name, &vec![0f32; shape.numel()]);
    }
    Ok(states)
}

/// The states of a network that predictions use: its parameters (or their running mean) without moments.
pub fn prediction_states(recipe: &Recipe, method: &Method, all: &States, net: &NetSpec) -> States {
    let mut states = States::new();
    let averaged = recipe.optimiser.ema.is_some() && method.averages(&net.name);
    let source = if averaged { net.ema_name() } else { net.store_name() };
    states.set(&net.store_name(), &all.get::<f32>(&source)[..net.param_count()]);
    states.set(&net.buffers_name(), all.get::<f32>(&net.buffers_name()));
    states
}

/// What a step of a recipe sees, on the data that was fitted.
pub fn shapes(recipe: &Recipe, fit: &DataFit) -> Shapes {
    Shapes::new(&recipe.data, recipe.train.batch, recipe.data.size(fit))
}
