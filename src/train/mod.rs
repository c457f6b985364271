//! Training: recipes, the session, checkpoints, and what a run writes for the person who watches it.

pub mod adversarial;
pub mod checkpoint;
pub mod csvlog;
pub mod cyclegan;
pub mod init;
pub mod kernels;
pub mod panels;
pub mod pix2pix;
pub mod pool;
pub mod recipe;
pub mod reporter;
pub mod run;
pub mod schedule;
pub mod score;
pub mod session;
pub mod start;
pub mod step;
pub mod supervised;
pub mod tensorboard;
pub mod wgan;
