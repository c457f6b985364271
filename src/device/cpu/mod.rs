//! The CPU device.

pub mod blocks;
pub mod gemm;
mod kernels;
pub mod parallel;
pub mod scratch;
mod simd;
pub mod tile;
