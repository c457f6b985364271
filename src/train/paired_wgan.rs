//! A network that betters images, trained by a Wasserstein critic with gradient penalty and by the distance to the truth
//! (Yang et al., "Low-Dose CT Image Denoising Using a Generative Adversarial Network With Wasserstein Distance and Perceptual
//! Loss", IEEE TMI 2018: their WGAN-MSE; their perceptual loss takes a network trained on photographs, which is not part of
//! this program).
//!
//! The critic sees single images, bettered and true ones, not pairs. A step is `n_critic` updates of the critic and one of
//! the network, each on a batch of its own. A critic that judges patches gives an image the mean over its patches.

use super::cyclegan::total_of;
use super::method::{self, Method, Needs, Run, Shapes, Task};
use super::step::{StepBuilder, Update};
use super::supervised::{self, Distance};
use crate::error::{Error, Result};
use crate::graph::Var;
use crate::models::{DenseNetwork, ImageDiscriminator};
use crate::nn::{Ctx, Net, NetSpec, Norm};
use crate::objectives::adversarial::{gradient_penalty, interpolate};
use serde::{Deserialize, Serialize};

/// The networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedWganModel {
    /// From input to target.
    pub network: DenseNetwork,
    /// Whether the network gives what the input lacks, instead of the target itself.
    #[serde(default)]
    pub residual: bool,
    /// The critic.
    pub discriminator: ImageDiscriminator,
}

/// The losses and their weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairedWganLoss {
    /// Weight of the gradient penalty.
    pub penalty: f64,
    /// Updates of the critic for each of the network.
    pub n_critic: usize,
    /// Weight of the critic's value in the network's loss; 0 trains by the distance alone.
    pub lambda_gan: f64,
    /// How far from the truth an image is.
    pub distance: Distance,
    /// Weight of that.
    pub lambda_distance: f64,
}

impl Default for PairedWganLoss {
    fn default() -> Self {
        PairedWganLoss {
            penalty: 10.0,
            n_critic: 4,
            lambda_gan: 1.0,
            distance: Distance::L2,
            lambda_distance: 100.0,
        }
    }
}

/// The networks and losses for given channels.
#[derive(Clone, Debug)]
pub struct PairedWgan {
    /// The networks' settings.
    pub model: PairedWganModel,
    /// The losses' settings.
    pub loss: PairedWganLoss,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the target.
    pub targets: usize,
}

/// The programs of a training step, in the order of [`Method::parts`].
const CRITIC: usize = 0;
const NETWORK: usize = 1;

impl PairedWgan {
    fn better(&self, cx: &Ctx, x: &Var) -> Var {
        cx.graph().scope("G", || {
            let y = self.model.network.forward(cx, x, self.targets).remove(0);
            if self.model.residual { y.add(x) } else { y }
        })
    }

    /// The critic's mean over a batch.
    fn judge(&self, cx: &Ctx, image: &Var) -> Var {
        let values = cx.graph().scope("D", || self.model.discriminator.forward(cx, image));
        total_of(&values, Var::mean_all)
    }

    fn trace_critic(&self, step: &mut StepBuilder, nets: &[Net], x: &Var, truth: &Var, update: &Update) {
        let [g, d] = nets else { panic!("a network and a critic") };
        let graph = step.graph().clone();
        let fake = graph.phase("critic fake", || self.better(&step.train(g), x).detach());
        let w = graph.phase("critic loss", || {
            self.judge(&step.train(d), &fake).sub(&self.judge(&step.train(d), truth))
        });
        let n = truth.shape()[0];
        let alpha = step.uniform([&[n][..], &vec![1; truth.rank() - 1]].concat());
        let penalty = graph.phase("critic penalty", || {
            let mix = interpolate(&alpha, truth, &fake);
            // The sum over the images: each one's gradient is its own.
            let critic = |x: &Var| self.judge(&step.train(d), x).mul_scalar(n as f64);
            graph.exact(|| gradient_penalty(critic, &mix).0.mul_scalar(self.loss.penalty))
        });
        graph.phase("critic backward", || step.update(d, &w.add(&penalty), update));
        step.output("loss/W", &w);
        step.output("loss/GP", &penalty);
    }

    fn trace_network(&self, step: &mut StepBuilder, nets: &[Net], x: &Var, truth: &Var, update: &Update) {
        let [g, d] = nets else { panic!("a network and a critic") };
        let graph = step.graph().clone();
        let fake = graph.phase("G forward", || self.better(&step.train(g), x));
        let (gan, distance) = graph.phase("G loss", || {
            let gan = self.judge(&step.train(d), &fake).neg().mul_scalar(self.loss.lambda_gan);
            (gan, self.loss.distance.between(&fake, truth).mul_scalar(self.loss.lambda_distance))
        });
        graph.phase("G backward", || step.update(g, &gan.add(&distance), update));
        step.output("loss/G_GAN", &gan);
        step.output("loss/G_distance", &distance);
    }
}

impl Method for PairedWgan {
    fn check(&self) -> Result<()> {
        self.model.network.check("model.network", self.inputs, self.targets)?;
        self.model.discriminator.check("model.discriminator")?;
        if self.model.discriminator.norm() == Norm::Batch {
            return Err(Error::input(
                "`model.discriminator.norm` can't be \"batch\" here: the gradient penalty takes each image by itself; use \"none\" or \"instance\"",
            ));
        }
        supervised::check_residual(self.model.residual, self.inputs == self.targets)?;
        let l = &self.loss;
        for (key, weight) in
            [("penalty", l.penalty), ("lambda_gan", l.lambda_gan), ("lambda_distance", l.lambda_distance)]
        {
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(Error::input(format!("`loss.{key}` must be a number of 0 or more")));
            }
        }
        if l.n_critic == 0 {
            return Err(Error::input("`loss.n_critic` must be at least 1; 4 is usual"));
        }
        Ok(())
    }

    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn task(&self) -> Task {
        Task::Translate
    }

    fn multiple(&self) -> usize {
        self.model.network.multiple()
    }

    fn networks(&self, size: &[usize]) -> Result<Vec<NetSpec>> {
        let [h, w] = method::slice_size(size)?;
        let g = NetSpec::describe("G", |cx, graph| {
            self.model.network.forward(cx, &graph.input("input", [1, h, w, self.inputs]), self.targets);
        })?;
        let d = NetSpec::describe("D", |cx, graph| {
            self.model.discriminator.forward(cx, &graph.input("image", [1, h, w, self.targets]));
        })
        .map_err(|e| {
            Error::input(format!(
                "slices of {h} x {w} are too small for the critic; lower `model.discriminator.layers` or enlarge `data.canvas` ({e})"
            ))
        })?;
        Ok(vec![g, d])
    }

    fn parts(&self) -> usize {
        2
    }

    fn runs(&self, step: u64) -> Vec<Run> {
        let often = self.loss.n_critic as u64;
        let critic = (0..often).map(|i| Run { part: CRITIC, number: often * step + i, takes_batch: true });
        critic.chain([Run { part: NETWORK, number: step, takes_batch: true }]).collect()
    }

    fn batches_before(&self, step: u64) -> u64 {
        (self.loss.n_critic as u64 + 1) * step
    }

    fn trace(
        &self,
        part: usize,
        step: &mut StepBuilder,
        nets: &[Net],
        shapes: &Shapes,
        updates: [&Update; 2],
    ) {
        let x = step.graph().input("input", shapes.input());
        let truth = step.graph().input("target", shapes.target());
        if part == CRITIC {
            self.trace_critic(step, nets, &x, &truth, updates[1]);
        } else {
            self.trace_network(step, nets, &x, &truth, updates[0]);
        }
    }

    fn headline(&self) -> &'static str {
        "loss/G_distance"
    }

    fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var, _: &[usize]) -> Var {
        self.better(&step.eval(net), x)
    }

    fn settings(&self, net: &str) -> String {
        if net != "G" {
            return method::json(&self.model.discriminator);
        }
        supervised::settings(&self.model.network, self.model.residual, self.targets)
    }
}
