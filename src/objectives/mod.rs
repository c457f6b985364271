//! Losses: functions of values of the graph that give a scalar.
//!
//! Images are channels last. Losses average over everything unless they say otherwise; logits are what a network gives
//! before any sigmoid or softmax.

pub mod adversarial;
pub mod divergence;
pub mod features;
pub mod pixel;
pub mod regularise;
pub mod segmentation;
pub mod ssim;

pub use adversarial::GanMode;
pub use ssim::Ssim;

use crate::ops::sample::Sample;

/// The samples of every loss: they are tested as the operations are.
pub fn samples() -> Vec<Sample> {
    [
        adversarial::samples(),
        divergence::samples(),
        features::samples(),
        pixel::samples(),
        regularise::samples(),
        segmentation::samples(),
        ssim::samples(),
    ]
    .concat()
}
