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
use super::forward::{self, Forward};
use super::recipe::Recipe;
use super::segmentation;
use super::splits;
use super::tuning;
use crate::data::manifest::Manifest;
use crate::data::nifti_io::Stored;
use crate::data::{Case, DataFit, Split, Volume};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::States;
use crate::exec::device::Device;
use crate::export::{self, Trace};
use crate::fsio;
use crate::methods::step::StepBuilder;
use crate::methods::{Method, Task};
use crate::nn::NetSpec;
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
                into.insert(prefix.trim_start_matches('.').to_string(), other.to_string());
            }
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

/// One line that tells architectures apart: stored with the weights.
pub fn architecture(recipe: &Recipe, method: &Method, net: &str) -> String {
    format!("{net} {} inputs={:?} targets={:?}", method.settings(net), recipe.data.input, recipe.data.target)
}

/// The network of a run that predicts.
pub struct Predictor {
    recipe: Recipe,
    fit: DataFit,
    method: Method,
    spec: NetSpec,
    forward: Forward,
    which: String,
    run: RunDir,
}

impl Predictor {
    /// Opens a run's checkpoint `which` on a device: "best" or "last"; without a wish the best, or the last where there is no
    /// best.
    pub fn open(run: &RunDir, which: Option<&str>, device: &Device) -> Result<Self> {
        let recipe = run.recipe()?;
        let fit: DataFit = run.load_json("data.json")?;
        let method = recipe.method()?;
        let name = method.predictor();
        let spec = predicting(&method, &method.networks(&recipe.data.size(&fit))?).clone();
        let mut states = States::new();
        spec.initialise::<f32>(&mut states, 0, 1);
        let path = |which: &str| checkpoint::weights_path(&run.checkpoints(), which, name);
        let which = which.unwrap_or(if path("best").exists() { "best" } else { "last" }).to_string();
        let path = path(&which);
        if !path.exists() {
            return Err(Error::input(format!(
                "{} has no checkpoint {}; train first, or name another with --checkpoint",
                run.root().display(),
                path.display()
            )));
        }
        let architecture = architecture(&recipe, &method, name);
        checkpoint::load_weights(&path, &spec, &mut states, &architecture)?;
        tuning::apply_recorded(run, device)?;
        let forward = Forward::new(device, states)?;
        Ok(Predictor { recipe, fit, method, spec, forward, which, run: run.clone() })
    }

    /// The checkpoint: "best" or "last".
    pub fn which(&self) -> String {
        self.which.clone()
    }

    /// The run's cases, in the splits that it began with; images of the `wanted` splits are compared with those of then.
    pub fn cases(&self, wanted: &[Split]) -> Result<Manifest> {
        splits::of_run(&self.run, &self.recipe.data, wanted)
    }

    /// The run's recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// What was fitted on the training split.
    pub fn fit(&self) -> &DataFit {
        &self.fit
    }

    /// The run's method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// What a canvas must divide by ([`Case::uncropped`]).
    pub fn multiple(&self) -> usize {
        self.method.multiple()
    }

    /// Predicts all slices of a case: `[n, h, w, outputs]`; images in [-1, 1], or probabilities.
    pub fn slices(&mut self, case: &Case) -> Result<Vec<f32>> {
        predict_case(&mut self.forward, &self.method, &self.spec, case, &self.recipe)
    }

    /// Makes `n` images out of noise: `[n, h, w, channels]` in [-1, 1].
    pub fn images(&mut self, n: usize, seed: u64) -> Result<Vec<f32>> {
        let nz = self.method.noise().unwrap_or(0);
        let z = forward::noise(seed, n, nz);
        let size = self.recipe.data.size(&self.fit);
        self.forward.images(&self.method, &self.spec, &z, nz, &size)
    }

    /// The network as an ONNX file, for images of any size; its metadata say how images get in and out.
    pub fn to_onnx(&mut self) -> Result<Vec<u8>> {
        if self.method.task() == Task::Generate || self.recipe.data.patch.is_some() {
            return Err(Error::input(
                "ONNX files are written of networks that take slices; write the weights of this one with --safetensors",
            ));
        }
        let multiple = self.multiple();
        let least = 32usize.div_ceil(multiple);
        let channels = self.recipe.data.input.len();
        let trace = |n: usize, [h, w]: [usize; 2]| {
            let step = StepBuilder::new(DType::F32, 0);
            let size = [h * multiple, w * multiple];
            let input = step.graph().input("input", [n, size[0], size[1], channels]);
            let output = self.method.trace_predict(&step, &step.bind(&self.spec, 1), &input, &size);
            Trace { graph: step.graph().clone(), input, output }
        };
        let traces = [trace(2, [least, least + 1]), trace(3, [least + 2, least + 3])];
        let (data, fit) = (&self.recipe.data, &self.fit);
        let text = |v: serde_json::Value| v.to_string();
        let postprocessing = match self.method.task() {
            // Probabilities of regions or classes.
            Task::Segment => serde_json::json!({ "labels": data.labels }),
            _ => serde_json::json!({ "formula": "output * half + centre", "fit": fit.target }),
        };
        let metadata = [
            ("architecture", self.architecture()),
            ("inputs", text(serde_json::json!(data.input))),
            ("outputs", text(serde_json::json!(data.target))),
            ("preprocessing", text(serde_json::json!({ "data": data, "fit": fit.input }))),
            ("postprocessing", text(postprocessing)),
        ];
        export::onnx([&traces[0], &traces[1]], self.forward.states().host_copy()?, multiple, &metadata)
    }

    /// Writes the network's weights under PyTorch's keys, with the architecture in the metadata.
    pub fn save_weights(&mut self, path: &Path) -> Result<()> {
        let architecture = self.architecture();
        checkpoint::save_weights(path, &self.spec, self.forward.states().host()?, &architecture)
    }

    fn architecture(&self) -> String {
        architecture(&self.recipe, &self.method, &self.spec.name)
    }

    /// Predicts volumes in the input's geometry, with how they are stored: one per target modality in its units, or a
    /// label map.
    pub fn volumes(&mut self, case: &Case) -> Result<Vec<(Volume, Stored)>> {
        let slices = self.slices(case)?;
        if self.method.task() == Task::Segment {
            let map = segmentation::label_map(case, &slices, &self.recipe.data)?;
            return Ok(vec![(map, Stored::Uint8)]);
        }
        Ok(case.assemble(&slices)?.into_iter().map(|v| (v, Stored::Float32)).collect())
    }
}

/// The network that predicts, out of all of a method.
pub fn predicting<'a>(method: &Method, specs: &'a [NetSpec]) -> &'a NetSpec {
    let found = specs.iter().find(|s| s.name == method.predictor());
    found.expect("a method's predictor is one of its networks")
}

/// Predicts a whole case.
pub fn predict_case(
    forward: &mut Forward,
    method: &Method,
    net: &NetSpec,
    case: &Case,
    recipe: &Recipe,
) -> Result<Vec<f32>> {
    if let Some(patch) = recipe.data.patch {
        return forward.volume(method, net, &case.input, case.input_shape, patch);
    }
    forward.slices(method, net, &case.input, case.input_shape)
}

/// How far a run got, for those who only look.
pub fn progress(run: &RunDir, which: &str) -> Result<Progress> {
    let file = checkpoint::Tensors::read(&checkpoint::state_path(&run.checkpoints(), which))?;
    file.metadata("progress").and_then(|p| serde_json::from_str(p).ok()).ok_or_else(|| {
        Error::input(format!("{}: the checkpoint does not say how far it got", run.root().display()))
    })
}
