//! What the command line adds to a recipe.

use crate::exec::device::Device;
use crate::run::tuning;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How and where a recipe is trained.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// The run folder.
    pub out: PathBuf,
    /// Continue the run that is there.
    pub resume: bool,
    /// Show nothing but errors.
    pub quiet: bool,
    /// Tell programs how it goes, on standard output.
    pub json_lines: bool,
    /// The command, for `run.json`.
    pub command: String,
    /// Where to compute.
    pub device: Device,
    /// Which variants of kernels a new run takes.
    pub choices: tuning::Source,
    /// Set from outside to stop after the current step.
    pub stop: Arc<AtomicBool>,
}
