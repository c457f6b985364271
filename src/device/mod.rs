//! Devices: bytes, threads and matrix products. This level knows no operation.

pub mod cpu;
pub mod cuda;
