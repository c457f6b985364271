//! Convolution.

pub mod cpu;
pub mod geometry;
