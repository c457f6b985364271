//! GANs from noise: the first one (Goodfellow et al., NeurIPS 2014) and DCGAN (Radford et al., ICLR 2016), which differ
//! in their networks only.
//!
//! One step, as in PyTorch's `examples/dcgan`: fake = G(z); D is updated on real and on fake images, in separate passes
//! (batch norm sees them apart); then G is updated through the new D, on the same fakes.

use super::method::{self, Method, Needs, Shapes, Task};
use super::step::{StepBuilder, Update};
use crate::error::Result;
use crate::graph::Var;
use crate::models::NoiseModel;
use crate::nn::{Net, NetSpec};
use crate::objectives::GanMode;
use serde::{Deserialize, Serialize};

/// The loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdversarialLoss {
    /// How logits become losses; BCE in both papers.
    pub gan: GanMode,
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
        let of_real = graph.phase("D real", || judge(step, real));
        let d_real = graph.phase("D real", || mode.d_real(&of_real));
        let of_fake = graph.phase("D fake", || judge(step, &fake.detach()));
        let d_fake = graph.phase("D fake", || mode.d_fake(&of_fake));
        step.accuracy("D", mode, &[of_real], &[of_fake]);
        graph.phase("D backward", || step.update(d, &d_real.add(&d_fake), updates[1]));
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
