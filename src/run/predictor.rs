//! A run opened again: its network, and what it predicts.

use super::checkpoint;
use super::folder::RunDir;
use crate::data::manifest::Manifest;
use crate::data::nifti_io::Stored;
use crate::data::{Answers, Case, DataFit, Split, Volume};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::States;
use crate::exec::device::Device;
use crate::export::{self, Trace};
use crate::methods::step::StepBuilder;
use crate::methods::{Method, Task};
use crate::nn::NetSpec;
use crate::recipe::Recipe;
use crate::run::forward::{self, Forward};
use crate::run::splits;
use crate::run::tuning;
use std::path::Path;

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

    /// What is said of a case whose target is no image: probabilities of classes or findings, or numbers in their units.
    pub fn answers(&mut self, case: &Case) -> Result<Vec<f64>> {
        predict_answers(&mut self.forward, &self.method, &self.spec, case, &self.recipe)
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
            Task::Classify => serde_json::json!({
                data.answers().map_or("classes", Answers::key): data.answers().map(Answers::names)
            }),
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
            let map = label_map(case, &slices, &self.recipe.data)?;
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

/// Predicts what is no image: the mean over the slices that training would use, or over patches of the volume that overlap by
/// half; numbers in their own units.
pub fn predict_answers(
    forward: &mut Forward,
    method: &Method,
    net: &NetSpec,
    case: &Case,
    recipe: &Recipe,
) -> Result<Vec<f64>> {
    let data = &recipe.data;
    let [_, h, w, c] = case.input_shape;
    let each = match data.patch {
        Some(patch) => forward.patches(method, net, &case.input, case.input_shape, patch)?,
        None => {
            let shown = case.shown(data);
            let slice = |k: &usize| &case.input[k * h * w * c..(k + 1) * h * w * c];
            let input: Vec<f32> = shown.iter().flat_map(slice).copied().collect();
            forward.slices(method, net, &input, [shown.len(), h, w, c])?
        }
    };
    let outputs = data.outputs();
    let n = (each.len() / outputs) as f64;
    let mean = |k: usize| each.iter().skip(k).step_by(outputs).map(|v| f64::from(*v)).sum::<f64>() / n;
    let unit = |k: usize| match data.answers() {
        Some(Answers::Numbers(_)) => f64::from(case.target_fit(k).invert(mean(k) as f32)),
        _ => mean(k),
    };
    Ok((0..outputs).map(unit).collect())
}

/// A case's prediction as one label map in the geometry of its first input.
fn label_map(case: &Case, probabilities: &[f32], data: &crate::data::DataConfig) -> Result<Volume> {
    let labels = data.known_labels()?;
    let decided = labels.decide(probabilities);
    let map: Vec<f32> = decided.chunks(labels.target_channels()).map(|v| labels.label(v)).collect();
    Ok(case.assemble_labels(&map, f32::from(labels.values[0])))
}
