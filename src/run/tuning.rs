//! Which variants of kernels a run takes. A new run takes those that `gan kernels tune` measured on its device, if there is
//! such a table, and keeps them in its folder; from then on only those count: resuming the run, or predicting with it, gives
//! the same bits whatever was measured since.

use crate::error::{Error, Result};
use crate::exec::choices::{Place, Table};
use crate::exec::device::Device;
use crate::run::folder::RunDir;
use crate::run::info::RunInfo;
use std::convert::Infallible;
use std::path::PathBuf;

/// The table in a run's folder.
pub const FILE: &str = "choices.json";

/// Where a new run takes its table from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// From beside the compiled kernels, if there is one.
    #[default]
    Cached,
    /// From nowhere: the rule by shape holds.
    Rule,
    /// From a file, such as another run's.
    File(PathBuf),
}

/// As on the command line.
impl std::str::FromStr for Source {
    type Err = Infallible;

    fn from_str(s: &str) -> std::result::Result<Self, Infallible> {
        Ok(match s {
            "auto" => Source::Cached,
            "none" => Source::Rule,
            file => Source::File(file.into()),
        })
    }
}

impl Source {
    /// Lets programs that are planned on a device from now on take the table's variants; gives the table.
    pub fn apply(&self, device: &Device) -> Result<Option<Table>> {
        let Device::Cuda(cuda) = device else { return Ok(None) };
        let table = match self {
            Source::Cached => Table::cached(&Place::of(cuda), cuda.compiler().cache())?,
            Source::Rule => None,
            Source::File(path) => Some(Table::read(path)?),
        };
        take(device, table.as_ref());
        Ok(table)
    }
}

/// Lets programs that are planned on a device from now on take what a run recorded; gives the table.
pub fn apply_recorded(run: &RunDir, device: &Device) -> Result<Option<Table>> {
    if matches!(device, Device::Cpu) {
        return Ok(None);
    }
    let table = recorded(run)?;
    take(device, table.as_ref());
    Ok(table)
}

/// The table that a run recorded.
fn recorded(run: &RunDir) -> Result<Option<Table>> {
    if !run.join("run.json").exists() {
        return Ok(None);
    }
    let Some(digest) = run.load_json::<RunInfo>("run.json")?.choices else { return Ok(None) };
    let path = run.join(FILE);
    let other = |why: String| {
        Error::input(format!(
            "{} is not the table of kernel variants that the run was begun with ({why}); restore it from a copy, or train again",
            path.display()
        ))
    };
    let table = Table::read(&path).map_err(|e| other(e.to_string()))?;
    match table.digest() {
        own if own == digest => Ok(Some(table)),
        own => Err(other(format!("its fingerprint is {own}, run.json says {digest}"))),
    }
}

fn take(device: &Device, table: Option<&Table>) {
    if let Device::Cuda(cuda) = device {
        cuda.choose(table.map(Table::choices));
    }
}
