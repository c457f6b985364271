//! The split is part of the run: who is in which, as `splits.json` recorded it when the run began.

use crate::data::manifest::Manifest;
use crate::data::splits::{Fault, Kind, Splits};
use crate::data::{DataConfig, Split};
use crate::error::{Error, Result};
use crate::run::checkpoint;
use crate::run::folder::RunDir;
use std::time::Instant;

/// The file in a run's folder.
pub const FILE: &str = "splits.json";

/// What a run's folder says of its splits; none if it was begun by a version that did not write it.
pub fn read(run: &RunDir) -> Result<Option<Splits>> {
    let path = run.join(FILE);
    if path.exists() { Splits::read(&path).map(Some) } else { Ok(None) }
}

/// What must be said of a run that does not know its split.
fn unknown(run: &RunDir) -> String {
    format!(
        "{} has no {FILE} (an earlier version of the program began it), so it can't be known whom it was trained on; the splits are those that the recipe and the data give now",
        run.root().display()
    )
}

/// The cases of a run that is to be measured on splits. Says what is new, gone or changed since it began.
pub fn of_run(run: &RunDir, data: &DataConfig, wanted: &[Split]) -> Result<Manifest> {
    let Some(splits) = read(run)? else {
        let manifest = data.manifest()?;
        manifest.notes.add(unknown(run));
        return Ok(manifest);
    };
    let found = splits.apply(data.manifest(), data, wanted)?;
    let lost = |f: &&Fault| f.kind == Kind::Gone && (wanted.contains(&f.split) || found.manifest.shared);
    if let Some(f) = found.faults.iter().find(lost) {
        return Err(gone(f));
    }
    found.check_leaks(&splits)?;
    found.say();
    Ok(found.manifest)
}

fn gone(f: &Fault) -> Error {
    Error::input(format!(
        "{}, the `{}` image of {} (in {}), is gone; put it back, or correct its path in the manifest",
        f.path.display(),
        f.modality,
        f.id,
        f.split.name()
    ))
}

/// The cases that a run trains with. One that goes on from a checkpoint has them from its own record, and is refused if
/// images that it learns from or is chosen by are no longer the same, or if a list now says other splits.
pub fn of_training(run: &RunDir, data: &DataConfig, resume: bool, note: &dyn Fn(&str)) -> Result<Manifest> {
    let goes_on = resume && checkpoint::state_path(&run.checkpoints(), "last").exists();
    if !goes_on {
        return data.manifest();
    }
    let root = run.root().display();
    let Some(splits) = read(run)? else {
        let manifest = data.manifest()?;
        manifest.notes.add(unknown(run));
        return Ok(manifest);
    };
    let began = Instant::now();
    let found = splits.apply(data.manifest(), data, &[Split::Train, Split::Val])?;
    if let Some((id, ours, theirs)) = found.moved.first().filter(|_| found.explicit) {
        return Err(Error::input(format!(
            "{root} began with {id} in `{}`, but {} now says `{}`{}; put it back to go on, or start anew in another folder with --out",
            ours.name(),
            found.manifest.source,
            theirs.name(),
            match found.moved.len() {
                1 => String::new(),
                n => format!(" (and {} more like it)", n - 1),
            }
        )));
    }
    let ours = |f: &&Fault| f.split != Split::Test;
    if let Some(f) = found.faults.iter().find(ours) {
        return Err(match f.kind {
            Kind::Gone => gone(f),
            Kind::Changed(_) => Error::input(format!(
                "{}, the `{}` image of {} (in {}), is not the file that {root} began with; put that one back to go on, or start anew in another folder with --out",
                f.path.display(),
                f.modality,
                f.id,
                f.split.name()
            )),
        });
    }
    found.say();
    note(&hashed(&splits, began));
    Ok(found.manifest)
}

/// Records the cases of a run that begins.
pub fn record(manifest: &Manifest, data: &DataConfig, note: &dyn Fn(&str)) -> Result<Splits> {
    let began = Instant::now();
    let splits = Splits::of(manifest, data)?;
    note(&hashed(&splits, began));
    Ok(splits)
}

fn hashed(splits: &Splits, began: Instant) -> String {
    format!(
        "splits: {} images, their digests taken in {:.1} s ({FILE})",
        splits.images(),
        began.elapsed().as_secs_f64()
    )
}
