//! Whole programs on the GPU's kernels without a GPU: the emulator is one more device, with the launches that a real one
//! would get.

mod checked;
mod convolutions;
mod device;
#[path = "../common/geometry.rs"]
mod geometry;
mod hopper;
mod layers;
mod layers_rehearsed;
mod odd;
mod operations;
mod oracle;
mod primitives;
mod primitives_hopper;
mod probe;
mod profile;
mod shard;
mod shares;
mod suite;
mod tune;
mod window;
