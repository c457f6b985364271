//! The CUDA kernels, run on the CPU by `gan-emu` and compared with plain double-precision loops, under all thread
//! orders and all timings of asynchronous copies; and compiled for real devices where the run-time compiler is at hand.

mod common;
mod compile;
mod conv;
mod cubin;
mod depthwise;
mod distinct;
mod elementwise;
#[path = "../common/geometry.rs"]
mod geometry;
mod hopper;
mod hopper_compile;
mod launches;
mod matmul;
mod pixels;
mod planted;
mod recipes;
mod reductions;
mod refused;
mod window;
