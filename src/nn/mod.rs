//! Layers, parameters, initialisation, optimisers.

pub mod init;
pub mod layers;
pub mod params;
pub mod schedule;
pub mod spectral;

pub use layers::{Activation, Norm};
pub use params::{Ctx, Net, NetSpec, Scheme};
