//! pix2pix (Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017): a generator
//! is trained to come close to the target (L1) and to make pairs that a discriminator takes for real.
//!
//! One step, as in junyanz's code: fake = G(a); D is updated on (a, fake) and (a, b), its loss halved; then G is updated
//! through the new D.

use super::cyclegan::total_of;
use super::method::{self, Method, Needs, Shapes, Task};
use super::pool::through_pool;
use super::step::{StepBuilder, Update};
use crate::error::Result;
use crate::graph::Var;
use crate::models::{ImageDiscriminator, ImageGenerator};
use crate::nn::{Ctx, Net, NetSpec};
use crate::objectives::GanMode;
use crate::ops::concat::concat;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// The networks of pix2pix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pix2pixModel {
    /// From input to target.
    pub generator: ImageGenerator,
    /// Judges pairs.
    pub discriminator: ImageDiscriminator,
}

/// The losses and their weights. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pix2pixLoss {
    /// The adversarial loss: "vanilla" (BCE), "lsgan", "hinge" or "wgan".
    pub gan: GanMode,
    /// Weight of the L1 distance to the target.
    pub lambda_l1: f64,
    /// Weight of the adversarial loss in the generator's; 0 trains the generator by L1 alone.
    pub lambda_gan: f64,
    /// Size of the pool of generated images that the discriminator is shown; 0 for none.
    pub pool: usize,
}

impl Default for Pix2pixLoss {
    fn default() -> Self {
        Pix2pixLoss { gan: GanMode::Bce, lambda_l1: 100.0, lambda_gan: 1.0, pool: 0 }
    }
}

/// The networks and losses for images of given extents.
#[derive(Clone, Debug)]
pub struct Pix2pix {
    /// The networks' settings.
    pub model: Pix2pixModel,
    /// The losses' settings.
    pub loss: Pix2pixLoss,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the target.
    pub targets: usize,
}

/// The name of the state that holds the pool of generated pairs.
pub const POOL_STATE: &str = "pool.AB";

impl Pix2pix {
    fn generate(&self, cx: &Ctx, a: &Var) -> Var {
        cx.graph().scope("G", || self.generator(cx, a))
    }

    fn generator(&self, cx: &Ctx, a: &Var) -> Var {
        self.model.generator.forward(cx, a, self.targets)
    }

    fn judge(&self, cx: &Ctx, pair: &Var) -> Vec<Var> {
        cx.graph().scope("D", || self.model.discriminator.forward(cx, pair))
    }

    /// The spatial extents divide by this inside the generator.
    pub fn multiple(&self) -> usize {
        self.model.generator.multiple()
    }

    /// Which tensors the networks keep: G, D. Fails when images of `h` x `w` are too small for them.
    pub fn describe(&self, h: usize, w: usize) -> Result<[NetSpec; 2]> {
        let g = NetSpec::describe("G", |cx, graph| {
            self.generator(cx, &graph.input("input", [1, h, w, self.inputs]));
        })?;
        let d = NetSpec::describe("D", |cx, graph| {
            self.model.discriminator.forward(cx, &graph.input("pair", [1, h, w, self.inputs + self.targets]));
        })
        .map_err(|e| {
            crate::error::Error::input(format!(
                "slices of {h} x {w} are too small for the discriminator; lower `model.discriminator.layers` or enlarge `data.canvas` ({e})"
            ))
        })?;
        Ok([g, d])
    }

    /// Traces a training step on `a [n, h, w, inputs]` and `b [n, h, w, targets]`; leaves the losses and `fake_B` readable.
    pub fn trace_step(
        &self,
        step: &mut StepBuilder,
        g: &Net,
        d: &Net,
        a: &Var,
        b: &Var,
        updates: [&Update; 2],
    ) {
        let graph = step.graph().clone();
        let channel = a.rank().saturating_sub(1);
        let fake = graph.phase("G forward", || self.generate(&step.train(g), a));
        let fake_pair = concat(&[a, &fake.detach()], channel);
        let shown = through_pool(step, &fake_pair, self.loss.pool, POOL_STATE);
        let mode = self.loss.gan;
        let fake_logits = graph.phase("D fake", || self.judge(&step.train(d), &shown));
        let d_fake = graph.phase("D fake", || total_of(&fake_logits, |l| mode.d_fake(l)));
        let real_pair = concat(&[a, b], channel);
        let real_logits = graph.phase("D real", || self.judge(&step.train(d), &real_pair));
        let d_real = graph.phase("D real", || total_of(&real_logits, |l| mode.d_real(l)));
        step.accuracy("D", mode, &real_logits, &fake_logits);
        let d_loss = d_fake.add(&d_real).mul_scalar(0.5);
        graph.phase("D backward", || step.update(d, &d_loss, updates[1]));

        let logits = graph.phase("G loss", || self.judge(&step.train(d), &concat(&[a, &fake], channel)));
        let g_gan =
            graph.phase("G loss", || total_of(&logits, |l| mode.g(l)).mul_scalar(self.loss.lambda_gan));
        let g_l1 = graph.phase("G loss", || fake.sub(b).abs().mean_all().mul_scalar(self.loss.lambda_l1));
        graph.phase("G backward", || step.update(g, &g_gan.add(&g_l1), updates[0]));

        for (name, value) in
            [("loss/D_fake", &d_fake), ("loss/D_real", &d_real), ("loss/G_GAN", &g_gan), ("loss/G_L1", &g_l1)]
        {
            step.output(name, value);
        }
        step.output("fake_B", &fake);
    }

    /// Extents of the pool's state, if there is a pool.
    pub fn pool_shape(&self, h: usize, w: usize) -> Option<Shape> {
        (self.loss.pool > 0).then(|| Shape::from([self.loss.pool, h, w, self.inputs + self.targets]))
    }

    /// Traces a prediction: evaluation mode, no dropout, running statistics.
    pub fn trace_predict(&self, step: &StepBuilder, g: &Net, a: &Var) -> Var {
        self.generate(&step.eval(g), a)
    }
}

impl Method for Pix2pix {
    fn check(&self) -> Result<()> {
        self.model.generator.check("model.generator")?;
        self.model.discriminator.check("model.discriminator")?;
        method::check_pool(self.loss.pool)
    }

    fn needs(&self) -> Needs {
        Needs::Pairs
    }

    fn task(&self) -> Task {
        Task::Translate
    }

    fn multiple(&self) -> usize {
        Pix2pix::multiple(self)
    }

    fn networks(&self, size: &[usize]) -> Result<Vec<NetSpec>> {
        let [h, w] = method::slice_size(size)?;
        Ok(self.describe(h, w)?.to_vec())
    }

    fn pools(&self, size: &[usize]) -> Vec<(&'static str, Shape)> {
        let shape = size.first().zip(size.get(1)).and_then(|(h, w)| self.pool_shape(*h, *w));
        shape.map(|s| (POOL_STATE, s)).into_iter().collect()
    }

    fn trace(&self, _: usize, step: &mut StepBuilder, nets: &[Net], shapes: &Shapes, updates: [&Update; 2]) {
        let [g, d] = nets else { panic!("pix2pix has two networks") };
        let a = step.graph().input("input", shapes.input());
        let b = step.graph().input("target", shapes.target());
        self.trace_step(step, g, d, &a, &b, updates);
    }

    fn headline(&self) -> &'static str {
        "loss/G_L1"
    }

    fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var, _: &[usize]) -> Var {
        Pix2pix::trace_predict(self, step, net, x)
    }

    fn settings(&self, net: &str) -> String {
        if net == "G" { method::json(&self.model.generator) } else { method::json(&self.model.discriminator) }
    }
}
