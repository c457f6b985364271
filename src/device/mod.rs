//! Devices: bytes, threads, launches and matrix products. This level knows no operation.

pub mod backend;
pub mod choices;
pub mod cpu;
pub mod cuda;
pub mod launch;
pub mod limits;
pub mod occupancy;
pub mod pointwise;
pub mod tensor_map;
