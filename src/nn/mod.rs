//! Layers, their parameters, how those begin, and how the learning rate changes.

pub mod blocks;
pub mod conv;
pub mod layers;
pub mod params;
pub mod pooling;
pub mod schedule;
pub mod spectral;

pub use blocks::{Attention, InvertedResidual, Residual};
pub use conv::ConvLayer;
pub use layers::{Activation, Norm};
pub use params::{Ctx, Net, NetSpec, Scheme};
