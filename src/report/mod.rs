//! One page about a run, or about several beside each other: a self-contained HTML file.

mod cases;
mod chart;
mod html;
mod page;

use crate::data::Split;
use crate::error::{Error, Result};
use crate::exec::device::Device;
use crate::fsio;
use crate::recipe::Recipe;
use crate::run::checkpoint::Progress;
use crate::run::folder::{self, RunDir};
use crate::run::info::RunInfo;
use crate::watch::table::Table;
use cases::Measured;
use std::path::{Path, PathBuf};

/// What is to be on the page.
pub struct Options {
    /// Whose cases are measured, if any are.
    pub split: Option<Split>,
    /// By which checkpoint: "best" or "last"; without a wish the best, or the last where there is no best.
    pub checkpoint: Option<&'static str>,
    /// Where that is computed.
    pub device: Device,
}

/// What is known of a run. Whatever a run lacks is said in `missing`.
struct Story {
    /// As on the command line.
    name: String,
    recipe: Recipe,
    info: Option<RunInfo>,
    progress: Option<Progress>,
    table: Table,
    samples: Vec<(u64, PathBuf)>,
    measured: Option<Measured>,
    missing: Vec<String>,
}

/// Writes a page about runs; returns what is not on it. Fails when a folder is no run, or the page can't be written.
pub fn write(runs: &[RunDir], options: &Options, out: &Path) -> Result<Vec<String>> {
    if out.is_dir() {
        return Err(Error::input(format!("{} is a folder; name a file with --out", out.display())));
    }
    // All recipes first: a wrong folder is refused before anything is measured.
    let recipes = runs.iter().map(RunDir::recipe).collect::<Result<Vec<_>>>()?;
    let stories: Vec<Story> =
        runs.iter().zip(recipes).map(|(run, recipe)| Story::of(run, recipe, options)).collect();
    fsio::write_bytes(out, page::page(&stories)?.as_bytes())?;
    Ok(stories.iter().flat_map(|s| s.missing.iter().map(|m| format!("{}: {m}", s.name))).collect())
}

impl Story {
    fn of(run: &RunDir, recipe: Recipe, options: &Options) -> Story {
        let mut missing = Vec::new();
        let info: Option<RunInfo> = run.load_json("run.json").map_err(|e| missing.push(e.to_string())).ok();
        let progress = folder::progress(run, "last")
            .map_err(|_| {
                missing.push("there is no last checkpoint (checkpoints/last_state.safetensors)".into())
            })
            .ok();
        let table = Table::read(&run.join("metrics.csv")).unwrap_or_else(|e| {
            missing.push(e.to_string());
            Table::default()
        });
        if table.steps.is_empty() {
            missing.push("no step was logged yet, so there are no curves".into());
        }
        let samples = samples(run);
        if samples.is_empty() {
            missing
                .push("there are no sample pictures (`log.samples` is 0, or there was no validation)".into());
        }
        if info.as_ref().is_some_and(|i| !i.finished) {
            missing.push(
                "the run is not finished: what is here is what there was when the page was written".into(),
            );
        }
        let measured = options.split.and_then(|split| {
            Measured::of(run, split, options)
                .map_err(|e| missing.push(format!("no scores of the split `{}`: {e}", split.name())))
                .ok()
        });
        let name = run.root().display().to_string();
        Story { name, recipe, info, progress, table, samples, measured, missing }
    }
}

/// The sample pictures with their steps, in order.
fn samples(run: &RunDir) -> Vec<(u64, PathBuf)> {
    let step = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("step-")?.strip_suffix(".png")?.parse().ok()
    };
    let folder = std::fs::read_dir(run.join("samples"));
    let mut all: Vec<(u64, PathBuf)> =
        folder.into_iter().flatten().flatten().filter_map(|e| Some((step(&e.path())?, e.path()))).collect();
    all.sort();
    all
}
