//! Convolution.

pub mod geometry;
pub mod launch;
