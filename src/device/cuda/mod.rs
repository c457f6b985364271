//! The CUDA device: our kernel sources, the run-time compiler, the cache of what it made, and the driver.
//!
//! Nothing here is linked: the libraries are looked for and loaded when they are first needed, so the same binary
//! runs on machines without them.
//!
//! The driver is called through cudarc. Its bindings of NVRTC, NVTX and CUPTI can't take the place of our declarations: each finds its
//! library by names of its own, once for the process, and panics where there is none. Ours try one folder after another, refuse a
//! library that the driver is too old for, and say what to install. Also, its results are Rust enums, of which a newer library's
//! codes are no values.

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
