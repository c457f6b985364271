//! A run's folder: what is where, and how it is opened again.
//!
//! ```text
//! runs/mr2pet/
//!   recipe.toml       the resolved recipe
//!   data.json         what was fitted on the training split: canvas, intensity ranges
//!   splits.json       who was in which split when the run began, with the files' digests
//!   splits_final.json the folds, where the run is one of a cross-validation
//!   choices.json      the variants of kernels, where the run takes measured ones
//!   run.json          program version, command, device, threads, and when it ended
//!   checkpoints/      {last,best}_net_<NETWORK>.safetensors, last_state.safetensors
//!   train/ val/       TensorBoard events
//!   metrics.csv       every logged loss and validation score
//!   samples/          pictures: input | target | output | error
//! ```

use super::checkpoint::{self, Progress};
use crate::data::DataFit;
use crate::error::{Error, Result};
use crate::fsio;
use crate::recipe::Recipe;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The folder of a run.
#[derive(Clone, Debug)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// Names the folder; nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        RunDir { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The checkpoints' folder.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Whether a run was started here.
    pub fn exists(&self) -> bool {
        self.join("recipe.toml").exists()
    }

    /// Writes something as JSON.
    pub fn save_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).expect("plain data");
        fsio::write_bytes(&self.join(name), format!("{text}\n").as_bytes())
    }

    /// Reads something from JSON.
    pub fn load_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.join(name);
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        serde_json::from_str(&text).map_err(|e| {
            Error::input(format!(
                "{} is damaged ({e}); restore it from a copy or train again",
                path.display()
            ))
        })
    }

    /// The resolved recipe of the run.
    pub fn recipe(&self) -> Result<Recipe> {
        let path = self.join("recipe.toml");
        if !path.exists() {
            return Err(Error::input(format!(
                "{} is no run folder (it has no recipe.toml); name the folder that `gan train` wrote",
                self.root.display()
            )));
        }
        Recipe::load(&path, &[])
    }
}

/// A fingerprint of everything in a recipe that shapes the run: a checkpoint is resumed only under the same one. What
/// may differ: how often things are logged, and what only costs time or memory. (The number of steps may not: the schedule of
/// the learning rate is stretched over them.)
pub fn recipe_hash(recipe: &Recipe, fit: &DataFit) -> String {
    let text = essential(recipe).to_toml() + &serde_json::to_string(fit).expect("plain data");
    Sha256::digest(text.as_bytes()).iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// A recipe without what may differ when a run is resumed.
fn essential(recipe: &Recipe) -> Recipe {
    let mut essential = recipe.clone();
    essential.log = Default::default();
    essential.health = Default::default();
    essential.about.clear();
    essential.train.workers = 0;
    essential.data.cache_mb = 0;
    essential
}

/// What shapes a run, by its path in the recipe.
pub fn settings(recipe: &Recipe) -> BTreeMap<String, String> {
    fn flat(prefix: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(t) => t.iter().for_each(|(k, v)| flat(&format!("{prefix}.{k}"), v, into)),
            other => {
                into.insert(prefix.trim_start_matches('.').to_string(), sorted(other).to_string());
            }
        }
    }
    // A file has the tables within a table behind its other keys, in whatever order a recipe has them.
    fn sorted(value: &toml::Value) -> toml::Value {
        match value {
            toml::Value::Array(list) => toml::Value::Array(list.iter().map(sorted).collect()),
            toml::Value::Table(t) => {
                let all: BTreeMap<&String, &toml::Value> = t.iter().collect();
                toml::Value::Table(all.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
            }
            other => other.clone(),
        }
    }
    let mut all = BTreeMap::new();
    let table = toml::Value::try_from(essential(recipe)).expect("a recipe is plain data");
    flat("", &table, &mut all);
    all
}

/// The keys in which a recipe differs from the one that a run was started with, as "`train.batch` (2 there, 4 here)".
pub fn differences(there: &Recipe, here: &Recipe) -> Vec<String> {
    let (a, b) = (settings(there), settings(here));
    let of = |m: &BTreeMap<String, String>, k: &str| m.get(k).cloned().unwrap_or("not set".into());
    let all: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    all.into_iter()
        .filter(|k| a.get(*k) != b.get(*k))
        .map(|k| format!("`{k}` ({} there, {} here)", of(&a, k), of(&b, k)))
        .collect()
}

/// How far a run got, for those who only look.
pub fn progress(run: &RunDir, which: &str) -> Result<Progress> {
    let file = checkpoint::Tensors::read(&checkpoint::state_path(&run.checkpoints(), which))?;
    file.metadata("progress").and_then(|p| serde_json::from_str(p).ok()).ok_or_else(|| {
        Error::input(format!("{}: the checkpoint does not say how far it got", run.root().display()))
    })
}
