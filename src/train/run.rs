//! A run's folder: what is where, and how it is opened again.
//!
//! ```text
//! runs/mr2pet/
//!   recipe.toml       the resolved recipe
//!   data.json         what was fitted on the training split: canvas, intensity ranges
//!   run.json          program version, command, device, threads, and when it ended
//!   checkpoints/      {last,best}_net_{G,D}.safetensors, last_state.safetensors
//!   train/ val/       TensorBoard events
//!   metrics.csv       every logged loss and validation score
//!   samples/          pictures: input | target | output | error
//! ```

use super::checkpoint::{self, Progress};
use super::pix2pix::Pix2pix;
use super::recipe::{Model, Recipe};
use super::step::StepBuilder;
use crate::data::{Case, DataFit, Volume};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::States;
use crate::exec::device::{Device, LiveStates, Runner};
use crate::export::{self, Trace};
use crate::fsio;
use crate::graph::Var;
use crate::nn::NetSpec;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Slices that are predicted at once.
pub const PREDICT_BATCH: usize = 8;

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
    essential.about.clear();
    essential.train.workers = 0;
    essential.data.cache_mb = 0;
    essential
}

/// The keys in which a recipe differs from the one that a run was started with, as "`train.batch` (2 there, 4 here)".
pub fn differences(there: &Recipe, here: &Recipe) -> Vec<String> {
    fn flat(prefix: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(t) => t.iter().for_each(|(k, v)| flat(&format!("{prefix}.{k}"), v, into)),
            other => {
                into.insert(prefix.trim_start_matches('.').to_string(), other.to_string());
            }
        }
    }
    let keys = |r: &Recipe| {
        let mut all = BTreeMap::new();
        let table = toml::Value::try_from(essential(r)).expect("a recipe is plain data");
        flat("", &table, &mut all);
        all
    };
    let (a, b) = (keys(there), keys(here));
    let of = |m: &BTreeMap<String, String>, k: &str| m.get(k).cloned().unwrap_or("not set".into());
    let all: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    all.into_iter()
        .filter(|k| a.get(*k) != b.get(*k))
        .map(|k| format!("`{k}` ({} there, {} here)", of(&a, k), of(&b, k)))
        .collect()
}

/// The method of a recipe, for the extents that its data has.
pub fn method(recipe: &Recipe) -> Pix2pix {
    let Model::Pix2pix(model) = &recipe.model;
    Pix2pix {
        model: model.clone(),
        loss: recipe.loss.clone(),
        inputs: recipe.data.input.len(),
        targets: recipe.data.target.len(),
    }
}

/// One line that tells architectures apart: stored with the weights.
pub fn architecture(recipe: &Recipe, net: &str) -> String {
    let Model::Pix2pix(model) = &recipe.model;
    let part = match net {
        "G" => serde_json::to_string(&model.generator),
        _ => serde_json::to_string(&model.discriminator),
    };
    format!(
        "{} {} inputs={:?} targets={:?}",
        net,
        part.expect("plain data"),
        recipe.data.input,
        recipe.data.target
    )
}

/// A trained generator, ready to predict.
pub struct Predictor {
    recipe: Recipe,
    fit: DataFit,
    method: Pix2pix,
    spec: NetSpec,
    device: Device,
    states: LiveStates,
    programs: HashMap<[usize; 3], Runner>,
}

impl Predictor {
    /// Opens a run's checkpoint `which` ("best" or "last") on a device.
    pub fn open(run: &RunDir, which: &str, device: &Device) -> Result<Self> {
        let recipe = run.recipe()?;
        let fit: DataFit = run.load_json("data.json")?;
        let method = method(&recipe);
        let [spec, _] = method.describe(fit.canvas[0], fit.canvas[1])?;
        let mut states = States::new();
        spec.initialise::<f32>(&mut states, 0, 1);
        let path = checkpoint::weights_path(&run.checkpoints(), which, "G");
        if !path.exists() {
            return Err(Error::input(format!(
                "{} has no checkpoint {}; train first, or name another with --checkpoint",
                run.root().display(),
                path.display()
            )));
        }
        checkpoint::load_weights(&path, &spec, &mut states, &architecture(&recipe, "G"))?;
        let states = device.states(states)?;
        let programs = HashMap::new();
        Ok(Predictor { recipe, fit, method, spec, device: device.clone(), states, programs })
    }

    /// The run's recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// What was fitted on the training split.
    pub fn fit(&self) -> &DataFit {
        &self.fit
    }

    /// What a canvas must divide by ([`Case::uncropped`]).
    pub fn multiple(&self) -> usize {
        self.method.multiple()
    }

    /// Predicts all slices of a case: `[n, h, w, targets]` in [-1, 1].
    pub fn slices(&mut self, case: &Case) -> Result<Vec<f32>> {
        let (method, spec, states) = (&self.method, &self.spec, &mut self.states);
        let (input, shape) = (&case.input, case.input_shape);
        predict_slices(&mut self.programs, &self.device, method, spec, 1, states, input, shape)
    }

    /// The network as an ONNX file, for images of any size; its metadata say how images get in and out.
    pub fn to_onnx(&mut self) -> Result<Vec<u8>> {
        let multiple = self.multiple();
        let least = 32usize.div_ceil(multiple);
        let trace = |n: usize, [h, w]: [usize; 2]| {
            let step = StepBuilder::new(DType::F32, 0);
            let input = step.graph().input("input", [n, h * multiple, w * multiple, self.method.inputs]);
            let output = self.method.trace_predict(&step, &step.bind(&self.spec, 1), &input);
            Trace { graph: step.graph().clone(), input, output }
        };
        let traces = [trace(2, [least, least + 1]), trace(3, [least + 2, least + 3])];
        let (data, fit) = (&self.recipe.data, &self.fit);
        let text = |v: serde_json::Value| v.to_string();
        let metadata = [
            ("architecture", architecture(&self.recipe, "G")),
            ("inputs", text(serde_json::json!(data.input))),
            ("outputs", text(serde_json::json!(data.target))),
            ("preprocessing", text(serde_json::json!({ "data": data, "fit": fit.input }))),
            (
                "postprocessing",
                text(serde_json::json!({ "formula": "output * half + centre", "fit": fit.target })),
            ),
        ];
        export::onnx([&traces[0], &traces[1]], self.states.host_copy()?, multiple, &metadata)
    }

    /// Writes the network's weights under PyTorch's keys, with the architecture in the metadata.
    pub fn save_weights(&mut self, path: &Path) -> Result<()> {
        checkpoint::save_weights(path, &self.spec, self.states.host()?, &architecture(&self.recipe, "G"))
    }

    /// Predicts one volume per target modality, in its units and in the input's geometry.
    pub fn volumes(&mut self, case: &Case) -> Result<Vec<Volume>> {
        let slices = self.slices(case)?;
        case.assemble(&slices)
    }
}

/// Predicts slices in batches; programs are kept by batch, height and width, and belong to these states. `slots` is the
/// number of rows of the store in `states`.
pub fn predict_slices(
    programs: &mut HashMap<[usize; 3], Runner>,
    device: &Device,
    method: &Pix2pix,
    spec: &NetSpec,
    slots: usize,
    states: &mut LiveStates,
    input: &[f32],
    [n, h, w, c]: [usize; 4],
) -> Result<Vec<f32>> {
    let each = h * w * c;
    let mut out = Vec::with_capacity(n * h * w * method.targets);
    for first in (0..n).step_by(PREDICT_BATCH) {
        let batch = PREDICT_BATCH.min(n - first);
        if let std::collections::hash_map::Entry::Vacant(slot) = programs.entry([batch, h, w]) {
            slot.insert(predict_program(device, method, spec, slots, [batch, h, w, c], states)?);
        }
        let program = programs.get_mut(&[batch, h, w]).expect("just made");
        program.run(states, &[("input", &input[first * each..(first + batch) * each]), ("step", &[0f32])])?;
        out.extend(program.output(states, "output")?);
    }
    Ok(out)
}

fn predict_program(
    device: &Device,
    method: &Pix2pix,
    spec: &NetSpec,
    slots: usize,
    shape: [usize; 4],
    states: &LiveStates,
) -> Result<Runner> {
    let (step, y) = trace_predict(method, spec, slots, shape);
    device.plan(step.graph(), &[("output", &y)])?.bind(states)
}

/// Traces a prediction of slices of the given extents.
pub fn trace_predict(
    method: &Pix2pix,
    spec: &NetSpec,
    slots: usize,
    shape: [usize; 4],
) -> (StepBuilder, Var) {
    let step = StepBuilder::new(DType::F32, 0);
    let a = step.graph().input("input", shape);
    let g = step.bind(spec, slots);
    let y = step.graph().phase("predict", || method.trace_predict(&step, &g, &a));
    (step, y)
}

/// How far a run got, for those who only look.
pub fn progress(run: &RunDir, which: &str) -> Result<Progress> {
    let file = checkpoint::Tensors::read(&checkpoint::state_path(&run.checkpoints(), which))?;
    file.metadata("progress").and_then(|p| serde_json::from_str(p).ok()).ok_or_else(|| {
        Error::input(format!("{}: the checkpoint does not say how far it got", run.root().display()))
    })
}
