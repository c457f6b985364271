//! Training: recipes, the session, checkpoints, and what a run writes for the person who watches it.

pub mod adversarial;
pub mod baselines;
pub mod checkpoint;
pub mod csvlog;
pub mod cyclegan;
pub mod evaluation;
pub mod forward;
pub mod generation;
pub mod init;
pub mod method;
pub mod panels;
pub mod pix2pix;
pub mod pool;
pub mod recipe;
mod recipe_text;
pub mod reporter;
pub mod run;
pub mod schedule;
pub mod score;
pub mod segmentation;
pub mod session;
pub mod start;
pub mod step;
pub mod supervised;
pub mod tensorboard;
pub mod validation;
pub mod wgan;
