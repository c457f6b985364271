//! The CPU device.

pub mod blocks;
pub mod gemm;
pub mod parallel;
pub mod scratch;
pub mod simd;
pub mod tile;
