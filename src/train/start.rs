//! How a run's folder is entered: a new one is made, an old one is taken up where its last checkpoint left it, and anything
//! else is left alone.

use crate::data::splits::Splits;
use crate::data::{DataFit, Notes, folds};
use crate::error::{Error, Result};
use crate::exec::States;
use crate::exec::choices::Table;
use crate::fsio;
use crate::nn::NetSpec;
use crate::recipe::Recipe;
use crate::run::checkpoint::{self, Progress};
use crate::run::folder::{self, RunDir};
use crate::run::info::{self, RunInfo};
use crate::run::programs::StepCost;
use crate::run::splits;
use crate::run::tuning;
use crate::train::options::TrainOptions;
use crate::train::reporter::Reporter;
use std::fs::{self, File, TryLockError};
use std::path::Path;

/// What a run that was killed at its very beginning may have left.
const OURS: [&str; 9] = [
    LOCK,
    "checkpoints",
    "samples",
    tuning::FILE,
    "run.json",
    "data.json",
    SPLITS,
    splits::FILE,
    "recipe.toml",
];

/// The folds of a cross-validation, as nnU-Net names them.
const SPLITS: &str = "splits_final.json";

/// Locked by the process that trains in the folder.
const LOCK: &str = ".lock";

/// Refuses a folder that holds a run (unless it is to be resumed) or something else.
pub fn check_folder(run: &RunDir, resume: bool) -> Result<()> {
    let root = run.root().display();
    if run.exists() {
        return if resume {
            Ok(())
        } else {
            Err(Error::input(format!(
                "{root} holds a run already; continue it with --resume, or choose another folder with --out"
            )))
        };
    }
    if run.root().exists() && !run.root().is_dir() {
        return Err(Error::input(format!("{root} is a file; choose a folder for the run with --out")));
    }
    let foreign = fs::read_dir(run.root())
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .find(|name| !OURS.contains(&name.as_str()) && !fsio::is_temporary(name));
    match foreign {
        Some(name) => Err(Error::input(format!(
            "{root} is no run folder but holds other files ({name}); choose a new folder with --out"
        ))),
        None => Ok(()),
    }
}

/// Makes sure that no other process trains in the folder, as long as the returned file is open. The system drops the lock
/// when a process ends, however it ends. Where a file system knows no locks there is none.
pub fn lock(run: &RunDir) -> Result<Option<File>> {
    let path = run.join(LOCK);
    let file = File::create(&path).map_err(Error::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::input(format!(
            "another process is training in {}; wait for it or stop it, or choose another folder with --out",
            run.root().display()
        ))),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Refuses to go on with a run under other settings.
pub fn check_settings(run: &RunDir, resume: bool, recipe: &Recipe) -> Result<()> {
    if !resume || !checkpoint::state_path(&run.checkpoints(), "last").exists() {
        return Ok(());
    }
    let differences = folder::differences(&run.recipe()?, recipe);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::input(format!(
        "{} was started with other settings: {}; resume it with the same recipe and options, or start anew in another folder with --out",
        run.root().display(),
        differences.join(", ")
    )))
}

/// Reads the last checkpoint if the run is resumed and has one.
pub fn restore(
    run: &RunDir,
    options: &TrainOptions,
    specs: &[NetSpec],
    states: &mut States,
    hash: &str,
    reporter: &Reporter,
) -> Result<Progress> {
    let fresh = Progress::default();
    if !options.resume {
        return Ok(fresh);
    }
    let root = run.root().display();
    let path = checkpoint::state_path(&run.checkpoints(), "last");
    if !path.exists() {
        reporter.note(&format!("{root} has no checkpoint yet; starting over"));
        return Ok(fresh);
    }
    let progress = checkpoint::load_state(&path, specs, states, hash)?;
    reporter.note(&format!("resuming {root} at step {}", progress.step));
    Ok(progress)
}

/// Writes what a run's folder holds from the beginning.
pub fn prepare_folder(
    recipe: &Recipe,
    options: &TrainOptions,
    run: &RunDir,
    fit: &DataFit,
    specs: &[NetSpec],
    cost: &StepCost,
    table: Option<&Table>,
    notes: &Notes,
    record: Option<&Splits>,
) -> Result<()> {
    for folder in [run.checkpoints(), run.join("samples")] {
        fsio::create_dir(&folder)?;
        remove_leftovers(&folder);
    }
    remove_leftovers(run.root());
    // What earlier starts of the run have noted goes on.
    let before = if options.resume { run.load_json::<RunInfo>("run.json").ok() } else { None };
    let mut said = before.as_ref().map_or_else(Vec::new, |b| b.notes.clone());
    said.extend(notes.lines().into_iter().filter(|n| !said.contains(n)).collect::<Vec<_>>());
    let now = info::now();
    let device = match options.device.name() {
        name if name == "cpu" => String::new(),
        _ => format!("; {}", options.device.describe()),
    };
    let info = RunInfo {
        version: env!("CARGO_PKG_VERSION").into(),
        commit: info::commit(),
        command: options.command.clone(),
        device: options.device.name(),
        hardware: info::processor() + &device,
        started: before.as_ref().map_or(now.clone(), |b| b.started.clone()),
        updated: now,
        seconds: before.as_ref().map_or(0.0, |b| b.seconds),
        incidents: before.map_or_else(Vec::new, |b| b.incidents),
        threads: rayon::current_num_threads(),
        parameters: specs.iter().map(|s| (s.name.clone(), s.param_count())).collect(),
        choices: table.map(Table::digest),
        memory_bytes: [cost.temporaries, cost.states],
        flops_per_step: cost.flops,
        finished: false,
        notes: said,
    };
    if let Some(table) = table {
        table.write(&run.join(tuning::FILE))?;
    }
    run.save_json("run.json", &info)?;
    run.save_json("data.json", fit)?;
    // A run that goes on keeps those that it began with.
    if let Some(record) = record {
        run.save_json(splits::FILE, record)?;
        if recipe.data.fold.is_some() {
            folds::write(&run.join(SPLITS), &recipe.data.fold_list()?)?;
        }
    }
    // Last: this file is what makes the folder a run.
    fsio::write_bytes(&run.join("recipe.toml"), recipe.to_toml().as_bytes())
}

/// Removes the temporary files of a process that was killed while it wrote. The folder is locked: nobody else is writing.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if fsio::is_temporary(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
