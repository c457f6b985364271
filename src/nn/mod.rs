//! Layers, parameters, initialisation, optimisers.

pub mod layers;
pub mod params;
pub mod spectral;

pub use layers::{Activation, Norm};
pub use params::{Ctx, Net, NetSpec, Scheme};
