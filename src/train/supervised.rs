//! Training against known answers: segmentation (U-Net), super-resolution (SRCNN, VDSR), denoising.

use super::method::{self, Method, Needs, Shapes, Task};
use super::step::{StepBuilder, Update};
use crate::error::{Error, Result};
use crate::graph::Var;
use crate::models::DenseNetwork;
use crate::nn::{Ctx, Net, NetSpec};
use crate::objectives::adversarial::bce_with_logits;
use crate::objectives::pixel::{charbonnier, l1, l2};
use crate::objectives::segmentation::{CrossEntropy, cross_entropy, dice};
use serde::{Deserialize, Serialize};

/// The network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupervisedModel {
    /// From input to target.
    pub network: DenseNetwork,
    /// Whether the network gives what the input lacks, instead of the target itself.
    #[serde(default)]
    pub residual: bool,
}

/// What the network is trained for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SupervisedLoss {
    /// Segmentation into regions that may overlap, each by a sigmoid: BCE and soft Dice. The target has a mask of zeros
    /// and ones per region.
    Regions {
        /// Weight of the cross entropy.
        #[serde(default = "one")]
        bce: f64,
        /// Weight of the Dice loss.
        #[serde(default = "one")]
        dice: f64,
        /// Added to both sides of the Dice fraction.
        #[serde(default = "one")]
        smooth: f64,
    },
    /// Segmentation into classes that exclude each other, by a softmax: cross entropy and soft Dice. The target has one
    /// channel of class numbers.
    Classes {
        /// Weight of the cross entropy.
        #[serde(default = "one")]
        ce: f64,
        /// Weight of the Dice loss.
        #[serde(default = "one")]
        dice: f64,
        /// Added to both sides of the Dice fraction.
        #[serde(default = "small")]
        smooth: f64,
        /// Whether class 0 counts in the Dice loss.
        #[serde(default)]
        background: bool,
    },
    /// Images.
    Distance {
        /// Which.
        #[serde(default)]
        distance: Distance,
    },
}

fn one() -> f64 {
    1.0
}

fn small() -> f64 {
    1e-5
}

/// How far an image is from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distance {
    /// Mean absolute difference.
    L1,
    /// Mean squared difference.
    #[default]
    L2,
    /// An L1 that is smooth at zero, with 1e-3 for its width.
    Charbonnier,
}

impl Distance {
    /// Traces it.
    pub fn between(self, y: &Var, target: &Var) -> Var {
        match self {
            Distance::L1 => l1(y, target),
            Distance::L2 => l2(y, target),
            Distance::Charbonnier => charbonnier(y, target, 1e-3),
        }
    }
}

/// The network and the loss for given channels.
#[derive(Clone, Debug)]
pub struct Supervised {
    /// The network's settings.
    pub network: DenseNetwork,
    /// Whether the input is added to what the network gives.
    pub residual: bool,
    /// The loss's settings.
    pub loss: SupervisedLoss,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output: regions, classes, or those of the target image.
    pub outputs: usize,
}

impl Supervised {
    /// Which tensors the network keeps (it is called "U"), for images of `size` (two or three spatial extents).
    pub fn describe(&self, size: &[usize]) -> Result<Vec<NetSpec>> {
        self.network.check("model.network", self.inputs, self.outputs)?;
        if matches!(self.loss, SupervisedLoss::Classes { .. }) && self.outputs < 2 {
            return Err(Error::input(
                "classes that exclude each other are at least two; use `regions` for one mask",
            ));
        }
        let shape = [&[1], size, &[self.inputs]].concat();
        let spec = NetSpec::describe("U", |cx, graph| {
            self.network.forward(cx, &graph.input("image", shape.clone()), self.outputs);
        })?;
        Ok(vec![spec])
    }

    /// Spatial extents divide by this inside (other extents are padded and cropped).
    pub fn multiple(&self) -> usize {
        self.network.multiple()
    }

    /// Channels of the target.
    pub fn target_channels(&self) -> usize {
        if matches!(self.loss, SupervisedLoss::Classes { .. }) { 1 } else { self.outputs }
    }

    /// The readable scalars of a step.
    pub fn losses(&self) -> Vec<&'static str> {
        match self.loss {
            SupervisedLoss::Regions { .. } => vec!["loss/bce", "loss/dice"],
            SupervisedLoss::Classes { .. } => vec!["loss/ce", "loss/dice"],
            SupervisedLoss::Distance { distance: Distance::L1 } => vec!["loss/l1"],
            SupervisedLoss::Distance { distance: Distance::L2 } => vec!["loss/l2"],
            SupervisedLoss::Distance { distance: Distance::Charbonnier } => vec!["loss/charbonnier"],
        }
    }

    /// Traces a training step on `x [n, spatial.., inputs]` and `target [n, spatial.., target_channels]`. Leaves
    /// [`Supervised::losses`] (with their weights, of the full resolution), with deep supervision `loss/deep`, and
    /// `output` (before sigmoid or softmax) readable.
    pub fn trace_step(&self, step: &mut StepBuilder, nets: &[Net], x: &Var, target: &Var, update: &Update) {
        let [net] = nets else { panic!("one network is supervised") };
        let graph = step.graph().clone();
        let out = graph.phase("forward", || graph.scope("U", || self.forward(&step.train(net), x)));
        let (terms, total, deep) = graph.phase("loss", || {
            let terms = self.terms(&out[0], target);
            let full = sum(&terms);
            // nnU-Net's weights: halved with every resolution, one in all.
            let weights: Vec<f64> = (0..out.len()).map(|i| 0.5f64.powi(i as i32)).collect();
            let all: f64 = weights.iter().sum();
            let deep = (1..out.len())
                .map(|i| sum(&self.terms(&out[i], target)).mul_scalar(weights[i] / all))
                .reduce(|a, b| a.add(&b));
            let total = match &deep {
                Some(deep) => full.mul_scalar(weights[0] / all).add(deep),
                None => full,
            };
            (terms, total, deep)
        });
        graph.phase("backward", || step.update(net, &total, update));
        for (name, value) in self.losses().into_iter().zip(&terms) {
            step.output(name, value);
        }
        if let Some(deep) = &deep {
            step.output("loss/deep", deep);
        }
        step.output("output", &out[0]);
    }

    fn forward(&self, cx: &Ctx, x: &Var) -> Vec<Var> {
        let out = self.network.forward(cx, x, self.outputs);
        if self.residual { out.iter().map(|y| y.add(x)).collect() } else { out }
    }

    /// The losses of one output, weighted, in the order of their names.
    fn terms(&self, y: &Var, target: &Var) -> Vec<Var> {
        let channel = y.rank().saturating_sub(1);
        match self.loss {
            SupervisedLoss::Regions { bce, dice: weight, smooth } => vec![
                bce_with_logits(y, target, None).mul_scalar(bce),
                dice(&y.sigmoid(), target, smooth).mul_scalar(weight),
            ],
            SupervisedLoss::Classes { ce, dice: weight, smooth, background } => {
                let labels = target.reshape(&target.shape()[..channel]);
                let entropy = cross_entropy(y, &labels, &CrossEntropy::default());
                let (mut p, mut t) = (y.softmax(channel), labels.one_hot(y.channels()));
                if !background {
                    let classes = y.channels() - 1;
                    (p, t) = (p.slice(channel, 1, classes), t.slice(channel, 1, classes));
                }
                vec![entropy.mul_scalar(ce), dice(&p, &t, smooth).mul_scalar(weight)]
            }
            SupervisedLoss::Distance { distance } => vec![distance.between(y, target)],
        }
    }

    /// Traces a prediction in evaluation mode: probabilities of regions or classes, or an image.
    pub fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var) -> Var {
        step.graph().scope("U", || {
            let y = self.forward(&step.eval(net), x).remove(0);
            match self.loss {
                SupervisedLoss::Regions { .. } => y.sigmoid(),
                SupervisedLoss::Classes { .. } => y.softmax(y.rank().saturating_sub(1)),
                SupervisedLoss::Distance { .. } => y,
            }
        })
    }
}

impl Method for Supervised {
    fn check(&self) -> Result<()> {
        check_residual(self.residual, self.inputs == self.outputs && self.task() == Task::Translate)?;
        self.network.check("model.network", self.inputs, self.outputs)
    }

    fn needs(&self) -> Needs {
        match self.loss {
            SupervisedLoss::Regions { .. } => Needs::Regions,
            SupervisedLoss::Classes { .. } => Needs::Classes,
            SupervisedLoss::Distance { .. } => Needs::Pairs,
        }
    }

    fn task(&self) -> Task {
        match self.loss {
            SupervisedLoss::Distance { .. } => Task::Translate,
            _ => Task::Segment,
        }
    }

    fn multiple(&self) -> usize {
        Supervised::multiple(self)
    }

    fn takes_volumes(&self) -> bool {
        true
    }

    fn networks(&self, size: &[usize]) -> Result<Vec<NetSpec>> {
        self.describe(size)
    }

    fn trace(&self, _: usize, step: &mut StepBuilder, nets: &[Net], shapes: &Shapes, updates: [&Update; 2]) {
        let x = step.graph().input("input", shapes.input());
        let target = step.graph().input("target", shapes.target());
        self.trace_step(step, nets, &x, &target, updates[0]);
    }

    fn adversarial(&self) -> bool {
        false
    }

    fn headline(&self) -> &'static str {
        self.losses().last().copied().unwrap_or("loss")
    }

    fn predictor(&self) -> &'static str {
        "U"
    }

    fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var, _: &[usize]) -> Var {
        Supervised::trace_predict(self, step, net, x)
    }

    fn settings(&self, _: &str) -> String {
        settings(&self.network, self.residual, self.outputs)
    }
}

/// Whether an input can be added to what is made of it; `alike`: both are images of as many channels.
pub(super) fn check_residual(residual: bool, alike: bool) -> Result<()> {
    if residual && !alike {
        return Err(Error::input(
            "`model.residual` adds the input to an image of as many channels; set it to false, or make `data.input` and `data.target` equally long",
        ));
    }
    Ok(())
}

/// What tells such a network apart from others.
pub(super) fn settings(network: &DenseNetwork, residual: bool, outputs: usize) -> String {
    let residual = if residual { " residual" } else { "" };
    format!("{} outputs={outputs}{residual}", method::json(network))
}

fn sum(terms: &[Var]) -> Var {
    terms[1..].iter().fold(terms[0].clone(), |a, b| a.add(b))
}
