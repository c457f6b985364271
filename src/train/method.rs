//! What a family of models is to a training run: the networks, the programs of a step, how a prediction is made, and what
//! data that takes. Everything around it (sessions, checkpoints, predictions, scores) knows families by this alone;
//! [`build`] is the one place that tells them apart.

use super::adversarial::Adversarial;
use super::cyclegan::CycleGan;
use super::paired_wgan::PairedWgan;
use super::pix2pix::Pix2pix;
use super::recipe::{Loss, Metric, Model, Recipe};
use super::step::{StepBuilder, Update};
use super::supervised::Supervised;
use super::wgan::Wgan;
use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::graph::Var;
use crate::nn::{Net, NetSpec};
use crate::rng::step_input;
use crate::shape::Shape;
use serde::Serialize;

/// What a method learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Inputs with their targets.
    Pairs,
    /// Inputs and targets, of which no two belong together.
    Unpaired,
    /// Images alone.
    Images,
    /// Images with a label map, of which regions are masks that may overlap.
    Regions,
    /// Images with a label map, of which labels are classes that exclude each other.
    Classes,
}

/// What a trained network does, and so how it is measured and what its predictions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Makes an image from an image.
    Translate,
    /// Makes a label map from an image.
    Segment,
    /// Makes images from noise.
    Generate,
}

impl Task {
    /// What may decide on the best checkpoint.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Task::Translate => &[Metric::Psnr, Metric::Ssim, Metric::Mae, Metric::Nmse],
            Task::Segment => &[Metric::Dice, Metric::Sensitivity],
            Task::Generate => &[Metric::Kid, Metric::Swd],
        }
    }

    /// The task whose metrics can be taken: without pairs, images are compared as sets.
    pub fn measured(self, data: &DataConfig) -> Task {
        if data.unpaired { Task::Generate } else { self }
    }

    /// What decides where a recipe does not say it.
    pub fn usual_metric(self) -> Metric {
        self.metrics()[0]
    }
}

/// Extents of what a step sees.
#[derive(Clone, Debug)]
pub struct Shapes {
    /// Images at once.
    pub batch: usize,
    /// Two or three spatial extents.
    pub size: Vec<usize>,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the target.
    pub targets: usize,
}

impl Shapes {
    /// What a recipe's step sees, of images of these extents.
    pub fn new(recipe: &Recipe, size: Vec<usize>) -> Self {
        let data = &recipe.data;
        Shapes { batch: recipe.train.batch, size, inputs: data.input.len(), targets: data.target_channels() }
    }

    /// Of a batch of inputs.
    pub fn input(&self) -> Shape {
        self.with(self.inputs)
    }

    /// Of a batch of targets.
    pub fn target(&self) -> Shape {
        self.with(self.targets)
    }

    fn with(&self, channels: usize) -> Shape {
        Shape::from([&[self.batch], self.size.as_slice(), &[channels]].concat())
    }
}

/// One run of one program within a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which program.
    pub part: usize,
    /// How often it ran before, over all steps: its random numbers and its optimisers' counters come from this.
    pub number: u64,
    /// Whether it sees a new batch.
    pub takes_batch: bool,
}

/// A family of models with its settings. `size` is always the spatial extents of the images.
pub trait Method: Send {
    /// Whether the settings make sense, as far as that can be said without knowing the images' size.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// What it learns from.
    fn needs(&self) -> Needs;

    /// What the trained network does.
    fn task(&self) -> Task;

    /// The spatial extents must divide by this.
    fn multiple(&self) -> usize {
        1
    }

    /// Whether images may have three spatial extents.
    fn takes_volumes(&self) -> bool {
        false
    }

    /// Which tensors the networks keep. Fails when the images are too small for them.
    fn networks(&self, size: &[usize]) -> Result<Vec<NetSpec>>;

    /// States that hold older generated images, by name; each with an input `<name>.choices`.
    fn pools(&self, _size: &[usize]) -> Vec<(&'static str, Shape)> {
        Vec::new()
    }

    /// How many programs a training step is made of.
    fn parts(&self) -> usize {
        1
    }

    /// What training step `step` (from 0) runs, in this order.
    fn runs(&self, step: u64) -> Vec<Run> {
        vec![Run { part: 0, number: step, takes_batch: true }]
    }

    /// Batches that all steps before `step` took: where a resumed run goes on.
    fn batches_before(&self, step: u64) -> u64 {
        step
    }

    /// Traces program `part` of a step. Its inputs may be `input` and `target`; `nets` are as described, `updates` those
    /// of generators and of discriminators. Leaves scalars named `loss/..` readable.
    fn trace(
        &self,
        part: usize,
        step: &mut StepBuilder,
        nets: &[Net],
        shapes: &Shapes,
        updates: [&Update; 2],
    );

    /// Whether a network is trained to judge another's images, so that the two must be kept in balance.
    fn adversarial(&self) -> bool {
        true
    }

    /// The loss that a person watches first.
    fn headline(&self) -> &'static str;

    /// The network that predicts.
    fn predictor(&self) -> &'static str {
        "G"
    }

    /// Numbers of noise per image, for what predicts from noise.
    fn noise(&self) -> Option<usize> {
        None
    }

    /// Traces a prediction from images `[n, size.., inputs]`, or from noise `[n, noise]`, in evaluation mode.
    fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var, size: &[usize]) -> Var;

    /// The settings that tell a network's architecture from others; stored with its weights.
    fn settings(&self, net: &str) -> String;
}

/// Whether a network judges others: it has the discriminator's learning rate and no running mean of its weights.
pub fn judges(net: &str) -> bool {
    net.starts_with('D')
}

/// The small inputs of a run: its number, and of every network the learning rate (`rates` of generators and of
/// discriminators) and the number of the update. That one is an f32: a bias correction has long been 1 where it rounds.
pub fn scalars(specs: &[NetSpec], run: Run, rates: [f64; 2]) -> Vec<(String, Vec<f32>)> {
    let mut all = vec![("step".to_string(), step_input(run.number).to_vec())];
    for spec in specs {
        let lr = rates[usize::from(judges(&spec.name))] as f32;
        all.push((format!("lr.{}", spec.name), vec![lr]));
        all.push((format!("t.{}", spec.name), vec![(run.number + 1) as f32]));
    }
    all
}

/// The method of a recipe.
pub fn build(recipe: &Recipe) -> Result<Box<dyn Method>> {
    let data = &recipe.data;
    let (inputs, targets) = (data.input.len(), data.target_channels());
    let method: Box<dyn Method> = match (&recipe.model, &recipe.loss) {
        (Model::Pix2pix(model), Loss::Pix2pix(loss)) => {
            Box::new(Pix2pix { model: model.clone(), loss: loss.clone(), inputs, targets })
        }
        (Model::CycleGan(model), Loss::CycleGan(loss)) => Box::new(CycleGan {
            model: model.clone(),
            loss: loss.clone(),
            channels_a: inputs,
            channels_b: targets,
        }),
        (Model::Gan(model), Loss::Gan(loss)) => {
            Box::new(Adversarial { model: model.clone(), loss: loss.clone(), size: 0, channels: inputs })
        }
        (Model::Wgan(model), Loss::Wgan(loss)) => {
            Box::new(Wgan { model: model.clone(), loss: loss.clone(), size: 0, channels: inputs })
        }
        (Model::PairedWgan(model), Loss::PairedWgan(loss)) => {
            Box::new(PairedWgan { model: model.clone(), loss: loss.clone(), inputs, targets })
        }
        (Model::Supervised(model), Loss::Supervised(loss)) => Box::new(Supervised {
            network: model.network.clone(),
            residual: model.residual,
            loss: loss.clone(),
            inputs,
            outputs: data.outputs(),
        }),
        _ => {
            return Err(Error::input(
                "`loss` belongs to another model than `model`; write the one that fits",
            ));
        }
    };
    check_data(recipe, method.as_ref())?;
    Ok(method)
}

/// Whether `data` gives what the method learns from.
fn check_data(recipe: &Recipe, method: &dyn Method) -> Result<()> {
    let data = &recipe.data;
    let wrong = |why: &str| Err(Error::input(why.to_string()));
    match method.needs() {
        Needs::Images if !data.target.is_empty() => wrong(
            "`data.target` names what an image is turned into, but this model makes images from noise; set it to []",
        ),
        needs if data.unpaired && needs != Needs::Unpaired => wrong(
            "`data.unpaired` gives two sets of images without pairs, which only CycleGAN learns from; remove it",
        ),
        Needs::Pairs | Needs::Unpaired if data.target.is_empty() => {
            wrong("`data.target` lists no modality; name at least one")
        }
        Needs::Regions | Needs::Classes if data.labels.is_none() => {
            wrong("this loss compares label maps; say in `data.labels` what the target's labels mean")
        }
        Needs::Regions if data.labels.as_ref().is_some_and(|l| l.regions.is_empty()) => wrong(
            "`loss.kind` is \"regions\", but `data.labels.regions` names none; add some, or use \"classes\"",
        ),
        Needs::Classes if data.labels.as_ref().is_some_and(|l| !l.regions.is_empty()) => wrong(
            "`loss.kind` is \"classes\", but `data.labels.regions` may overlap; remove them, or use \"regions\"",
        ),
        Needs::Pairs | Needs::Unpaired | Needs::Images if data.labels.is_some() => {
            wrong("`data.labels` belongs to segmentation, which this model does not do; remove it")
        }
        _ if data.patch.is_some() && !method.takes_volumes() => {
            wrong("`data.patch` cuts volumes, but this model takes slices; remove it")
        }
        _ => Ok(()),
    }
}

/// The extents of a slice.
pub(super) fn slice_size(size: &[usize]) -> Result<[usize; 2]> {
    <[usize; 2]>::try_from(size)
        .map_err(|_| Error::input("this model takes slices, not volumes; remove `data.patch`"))
}

/// The extent of a square slice.
pub(super) fn square(size: &[usize]) -> Result<usize> {
    let [h, w] = slice_size(size)?;
    if h != w {
        return Err(Error::input(format!(
            "this model makes square images, but slices are {h} x {w}; set for example `data.canvas` = [64, 64]"
        )));
    }
    Ok(h)
}

/// Most images in a pool.
const LARGEST_POOL: usize = 4096;

pub(super) fn check_pool(size: usize) -> Result<()> {
    if size > LARGEST_POOL {
        return Err(Error::input(
            "`loss.pool` must be at most 4096; 50 is usual where there is one, 0 is none",
        ));
    }
    Ok(())
}

/// Settings as one line.
pub(super) fn json(settings: &impl Serialize) -> String {
    serde_json::to_string(settings).expect("plain data")
}
