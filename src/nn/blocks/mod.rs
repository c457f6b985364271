//! What published networks are built of: blocks of layers under the keys that the caller gives. Each is written for any number
//! of spatial axes.

pub mod attention;
pub mod conv_norm;
pub mod dense;
pub mod inception;
pub mod mixed;
pub mod residual;
pub mod stages;
pub mod style;
pub mod wavelet;

pub use attention::Attention;
pub use residual::{InvertedResidual, Residual};
