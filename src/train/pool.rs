//! The pool of generated images in a training step.

use super::step::StepBuilder;
use crate::graph::Var;
use crate::ops::image_pool::{PoolQuery, PoolStore};

/// What a discriminator is shown: the new images, or some older ones in their place (see [`crate::ops::image_pool`]).
/// The pool is the state `name`, of `size` images; the input `<name>.choices` decides image by image. Without a size the
/// images are passed on.
pub fn through_pool(step: &StepBuilder, images: &Var, size: usize, name: &str) -> Var {
    if size == 0 {
        return images.clone();
    }
    let graph = step.graph();
    let shape = images.shape();
    let state = graph.state(name, shape.with(0, size));
    let choices = graph.input(&format!("{name}.choices"), [shape[0]]);
    let pool = graph.read(state);
    let shown = pool.apply(PoolQuery, &[images, &choices]);
    graph.write(state, &pool.apply(PoolStore, &[images, &choices]));
    shown
}
