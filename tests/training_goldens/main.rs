//! Whole training steps against PyTorch: losses of five steps, weights and running statistics after one and five.
//!
//! The fixtures are written by `tests/goldens/generate.py` (or any program in that format); the folder is
//! `GAN_GOLDENS`, else `tests/goldens`. Sizes are read off the fixture's own weights, so that others of the same kind
//! work too. Weights carry the fixture's own names, which are mapped to ours.

mod cyclegan;
#[path = "../emulated/device.rs"]
mod device;
mod emulated;
mod harness;
#[path = "../common/methods.rs"]
mod methods;
mod noise;
mod pix2pix;
mod unet;
