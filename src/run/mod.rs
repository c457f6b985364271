//! A run's folder, what it holds, and a trained network out of it.

pub mod checkpoint;
pub mod folder;
pub mod forward;
pub mod info;
pub mod predictor;
pub mod programs;
pub mod splits;
pub mod tuning;
