//! The CPU device.

pub mod gemm;
pub mod parallel;
