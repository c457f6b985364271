//! The CPU device.

pub mod blocks;
mod channels;
pub mod gemm;
mod io;
mod kernels;
pub mod load;
mod memory;
pub mod parallel;
pub mod runs;
pub mod scratch;
mod simd;
pub mod tile;

pub use io::{Io, View};
pub use memory::{Buffer, Memory, Place, Slot, available};
