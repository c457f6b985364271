//! What is said when a training begins.

use super::advice;
use super::options::TrainOptions;
use crate::data::Dataset;
use crate::data::normalise::Method as Normal;
use crate::evaluate::validation::SSIM_SIDE;
use crate::exec::device::Device;
use crate::methods::{Method, Task};
use crate::nn::NetSpec;
use crate::recipe::Recipe;
use crate::run::info;
use crate::run::programs::StepCost;
use crate::train::reporter::Reporter;
use crate::watch::csvlog;

/// Notes what training leaves out of the data, and what a prediction can't hold.
pub(super) fn tell(recipe: &Recipe, method: &Method, dataset: &Dataset) {
    let (n, batch) = (dataset.len(), recipe.train.batch);
    if n % batch > 0 {
        dataset.notes().add(format!(
            "{} of {n} training slices are left out of each epoch, other ones each time, as `train.batch` = {batch} does not divide them",
            n % batch
        ));
    }
    for note in method.notes(&recipe.data.size(dataset.fit())) {
        dataset.notes().add(note);
    }
    let bounded = matches!(method.task(), Task::Translate) && method.bounded();
    let limits = recipe.data.target_normalisation().method;
    if bounded && !matches!(limits, Normal::None) {
        for (target, fit) in recipe.data.target.iter().zip(&dataset.fit().target) {
            let (low, high) = (fit.invert(-1.0), fit.invert(1.0));
            dataset.notes().add(format!(
                "a predicted `{target}` lies between {low} and {high}: what is beyond in a target can't be predicted (data.normalise_target)"
            ));
        }
    }
    let size = recipe.data.size(dataset.fit());
    let [h, w] = dataset.fit().canvas;
    if size.len() == 2 && matches!(method.task(), Task::Translate) && h.min(w) < SSIM_SIDE {
        dataset.notes().add(format!(
            "`gan evaluate` can't measure slices of {h} x {w}, smaller than SSIM's window of {SSIM_SIDE} x {SSIM_SIDE}; set a larger `data.canvas`"
        ));
    }
}

/// What a run is, for people, in Markdown.
pub(super) fn about(options: &TrainOptions, specs: &[NetSpec]) -> String {
    // A list: TensorBoard breaks words in the narrow columns of a table.
    let mut text = String::new();
    let mut row = |name: &str, value: &str| text += &format!("- **{name}**: {value}\n");
    row("program", &format!("gan {}", env!("CARGO_PKG_VERSION")));
    if let Some(commit) = info::commit() {
        row("commit", &commit);
    }
    row("command", &format!("`{}`", options.command));
    row("device", &options.device.describe());
    row("begun", &info::now());
    for net in specs {
        row(&net.name, &format!("{} parameters", csvlog::count(net.param_count() as u64)));
    }
    text
}

pub(super) fn describe_plan(
    reporter: &mut Reporter,
    specs: &[NetSpec],
    cost: &StepCost,
    device: &Device,
    total: u64,
    per_epoch: u64,
) {
    let params: Vec<String> =
        specs.iter().map(|s| format!("{} {}", s.name, csvlog::count(s.param_count() as u64))).collect();
    reporter.note(&format!("networks: {} parameters", params.join(", ")));
    reporter.note(&format!(
        "a step: {} operations, {:.2} GFLOP; memory {} of temporaries (peak) and {} of parameters and moments",
        cost.operations,
        cost.flops as f64 / 1e9,
        csvlog::bytes(cost.temporaries as u64),
        csvlog::bytes(cost.states as u64)
    ));
    if let (Device::Cuda(_), Some(line)) = (device, advice::channels(specs, device.precision())) {
        reporter.note(&line);
    }
    reporter.note(&format!("training: {total} steps, {per_epoch} an epoch, on {}", device.describe()));
}
