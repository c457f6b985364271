//! Convolution.

pub mod geometry;
