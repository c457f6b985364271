//! The CUDA device: our kernel sources, the run-time compiler, the cache of what it made, and the driver.
//!
//! Nothing here is linked: the libraries are looked for and loaded when they are first needed, so the same binary
//! runs on machines without them.

pub mod cache;
pub mod compiler;
pub mod device;
mod driver;
pub mod nvrtc;
pub mod sources;
pub mod usage;
