//! Training: what a run writes for the person who watches it.

pub mod csvlog;
pub mod panels;
pub mod tensorboard;
