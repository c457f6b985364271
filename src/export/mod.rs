//! Networks for other programs: ONNX.

mod convert;
mod proto;

pub use convert::{Trace, onnx};
