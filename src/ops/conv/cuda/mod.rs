//! Convolutions on the GPU: which kernels a pass takes, in which of their variants, and how they are launched.
//!
//! From the bottom up: [`product`] has the arithmetic that all share, [`epilogue`] what is done to sums, [`variant`] the names of
//! ways to compute a pass; [`hopper`], [`window`] and [`depthwise`] are kernels made for some layers; [`variants`] chooses among
//! them, and [`launch`] launches what was chosen.

pub mod depthwise;
pub mod epilogue;
pub mod hopper;
pub mod launch;
pub mod product;
pub mod variant;
pub mod variants;
pub mod window;
