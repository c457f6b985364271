//! The CPU device.

pub mod gemm;
mod io;
mod memory;
pub mod parallel;

pub use io::{Io, View};
pub use memory::{Buffer, Memory, Place, Slot};
