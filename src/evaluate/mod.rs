//! How good predictions are: of a run on its splits, of folders of images, in validation and beside baselines.

pub mod answers;
pub mod baselines;
pub mod evaluation;
pub mod folders;
pub mod generation;
pub mod pairing;
pub mod score;
pub mod segmentation;
pub mod validation;
