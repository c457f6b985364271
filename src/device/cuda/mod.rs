//! The CUDA device: our kernel sources, the run-time compiler, the cache of what it made, and the driver.
//!
//! Nothing here is linked: the libraries are looked for and loaded when they are first needed, so the same binary
//! runs on machines without them.

pub mod cache;
pub mod compiler;
mod context;
pub mod cupti;
pub mod device;
pub mod driver;
pub mod nvrtc;
mod nvtx;
mod search;
pub mod sources;
pub mod target;
mod tensor_map;
pub mod usage;
pub mod workers;

/// Why a library could not be loaded, in the words of the system's loader.
fn reason(e: &libloading::Error) -> String {
    std::error::Error::source(e).map_or_else(|| e.to_string(), ToString::to_string)
}
