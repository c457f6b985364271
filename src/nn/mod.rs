//! Layers, parameters, initialisation, optimisers.

pub mod layers;
pub mod params;

pub use layers::{Activation, Norm};
pub use params::{Ctx, Net, NetSpec};
