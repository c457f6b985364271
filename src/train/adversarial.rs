//! GANs from noise: the first one (Goodfellow et al., NeurIPS 2014) and DCGAN (Radford et al., ICLR 2016), which differ
//! in their networks only.
//!
//! One step, as in PyTorch's `examples/dcgan`: fake = G(z); D is updated on real and on fake images, in separate passes
//! (batch norm sees them apart); then G is updated through the new D, on the same fakes.

use super::method::{self, Method, Needs, Shapes, Task};
use super::step::{StepBuilder, Update};
use crate::error::{Error, Result};
use crate::graph::Var;
use crate::models::NoiseModel;
use crate::nn::{Net, NetSpec};
use crate::objectives::GanMode;
use crate::objectives::adversarial::r1_penalty;
use serde::{Deserialize, Serialize};

/// The loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdversarialLoss {
    /// How logits become losses; BCE in both papers.
    pub gan: GanMode,
    /// Weight gamma of the penalty R1 on the discriminator's gradients at real images; 0 in both papers. It keeps the
    /// discriminator from knowing few images by heart, and training from circling.
    pub r1: f64,
}

/// The networks and the loss for square images of a given extent.
#[derive(Clone, Debug)]
pub struct Adversarial {
    /// The networks' settings.
    pub model: NoiseModel,
    /// The loss's settings.
    pub loss: AdversarialLoss,
    /// Extent of the images.
    pub size: usize,
    /// Channels of the images.
    pub channels: usize,
}

/// The readable scalars of a step.
pub const LOSSES: [&str; 3] = ["loss/D_real", "loss/D_fake", "loss/G"];

/// Whether the network that judges looks at every image by itself, as a penalty on its gradients wants.
pub(super) fn check_judge(model: &NoiseModel, penalty: &str, judge: &str) -> Result<()> {
    if model.judges_batches() {
        return Err(Error::input(format!(
            "{penalty} judges every image by itself, but batch norm in the {judge} mixes them; set `model.discriminator.norm` to \"none\" or \"layer\""
        )));
    }
    Ok(())
}

/// Which tensors a pair from noise keeps: G, D. Fails when the settings do not suit the images.
pub(super) fn describe(model: &NoiseModel, size: usize, channels: usize) -> Result<Vec<NetSpec>> {
    model.check(size)?;
    let g = NetSpec::describe("G", |cx, graph| {
        model.generate(cx, &graph.input("z", [2, model.nz]), size, channels);
    })?;
    let d = NetSpec::describe("D", |cx, graph| {
        model.judge(cx, &graph.input("image", [2, size, size, channels]));
    })?;
    Ok(vec![g, d])
}

impl Adversarial {
    /// Which tensors the networks keep: G, D.
    pub fn describe(&self) -> Result<Vec<NetSpec>> {
        if self.loss.r1 > 0.0 {
            check_judge(&self.model, "`loss.r1`", "discriminator")?;
        }
        describe(&self.model, self.size, self.channels)
    }

    /// Traces a training step on `real [n, size, size, channels]` and noise `z [n, nz]` ([`StepBuilder::normal`] gives
    /// some); `nets` as described, `updates` of G and of D. Leaves [`LOSSES`] and `fake` readable.
    pub fn trace_step(
        &self,
        step: &mut StepBuilder,
        nets: &[Net],
        real: &Var,
        z: &Var,
        updates: [&Update; 2],
    ) {
        let [g, d] = nets else { panic!("a GAN has two networks") };
        let (graph, mode) = (step.graph().clone(), self.loss.gan);
        let judge =
            |step: &StepBuilder, x: &Var| step.graph().scope("D", || self.model.judge(&step.train(d), x));
        let fake = graph.phase("G forward", || self.generate(step, g, z));
        // With R1 the discriminator is differentiated twice at real images, for which lower precision is too coarse.
        let (of_real, penalty) = if self.loss.r1 > 0.0 {
            graph.exact(|| {
                let of_real = graph.phase("D real", || judge(step, real));
                let r1 =
                    graph.phase("D penalty", || r1_penalty(&of_real, real).mul_scalar(0.5 * self.loss.r1));
                (of_real, Some(r1))
            })
        } else {
            (graph.phase("D real", || judge(step, real)), None)
        };
        let d_real = graph.phase("D real", || mode.d_real(&of_real));
        let of_fake = graph.phase("D fake", || judge(step, &fake.detach()));
        let d_fake = graph.phase("D fake", || mode.d_fake(&of_fake));
        step.accuracy("D", mode, &[of_real], &[of_fake]);
        let d_loss = graph.phase("D backward", || match &penalty {
            Some(r1) => d_real.add(&d_fake).add(r1),
            None => d_real.add(&d_fake),
        });
        graph.phase("D backward", || step.update(d, &d_loss, updates[1]));
        if let Some(r1) = &penalty {
            step.output("loss/R1", r1);
        }
        let loss = graph.phase("G loss", || mode.g(&judge(step, &fake)));
        graph.phase("G backward", || step.update(g, &loss, updates[0]));
        for (name, value) in LOSSES.into_iter().zip([&d_real, &d_fake, &loss]) {
            step.output(name, value);
        }
        step.output("fake", &fake);
    }

    fn generate(&self, step: &StepBuilder, g: &Net, z: &Var) -> Var {
        step.graph().scope("G", || self.model.generate(&step.train(g), z, self.size, self.channels))
    }

    /// Traces images out of noise `z [n, nz]`, in evaluation mode.
    pub fn trace_sample(&self, step: &StepBuilder, g: &Net, z: &Var) -> Var {
        step.graph().scope("G", || self.model.generate(&step.eval(g), z, self.size, self.channels))
    }
}

impl Method for Adversarial {
    fn check(&self) -> Result<()> {
        if !(self.loss.r1 >= 0.0 && self.loss.r1.is_finite()) {
            return Err(Error::input(
                "`loss.r1` must not be negative; 0 is without, 0.2 suits images of 32 x 32",
            ));
        }
        Ok(())
    }

    fn needs(&self) -> Needs {
        Needs::Images
    }

    fn task(&self) -> Task {
        Task::Generate
    }

    fn networks(&self, size: &[usize]) -> Result<Vec<NetSpec>> {
        Adversarial { size: method::square(size)?, ..self.clone() }.describe()
    }

    fn trace(&self, _: usize, step: &mut StepBuilder, nets: &[Net], shapes: &Shapes, updates: [&Update; 2]) {
        let real = step.graph().input("input", shapes.input());
        let z = step.normal([shapes.batch, self.model.nz]);
        Adversarial { size: shapes.size[0], ..self.clone() }.trace_step(step, nets, &real, &z, updates);
    }

    fn headline(&self) -> &'static str {
        "loss/G"
    }

    fn noise(&self) -> Option<usize> {
        Some(self.model.nz)
    }

    fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var, size: &[usize]) -> Var {
        Adversarial { size: size[0], ..self.clone() }.trace_sample(step, net, x)
    }

    fn settings(&self, net: &str) -> String {
        settings(&self.model, net)
    }
}

/// What tells the networks of a pair from noise apart from others.
pub(super) fn settings(model: &NoiseModel, net: &str) -> String {
    if net == "G" {
        format!("{} nz={}", method::json(&model.generator), model.nz)
    } else {
        method::json(&model.discriminator)
    }
}
