//! pix2pix (Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017): a generator
//! is trained to come close to the target (L1) and to make pairs that a discriminator takes for real.
//!
//! One step, as in junyanz's code: fake = G(a); D is updated on (a, fake) and (a, b), its loss halved; then G is updated
//! through the new D.

use super::recipe::{Discriminator, Generator, Loss, Pix2pixModel};
use super::step::{StepBuilder, Update};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{Ctx, Net, NetSpec};
use crate::ops::concat::concat;
use crate::ops::image_pool::{PoolQuery, PoolStore};
use crate::shape::Shape;

/// The networks and losses for images of given extents.
#[derive(Clone, Debug)]
pub struct Pix2pix {
    /// The networks' settings.
    pub model: Pix2pixModel,
    /// The losses' settings.
    pub loss: Loss,
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
        let Generator::Unet(g) = &self.model.generator;
        g.forward(cx, a, self.targets)
    }

    fn judge(&self, cx: &Ctx, pair: &Var) -> Var {
        cx.graph().scope("D", || self.discriminator(cx, pair))
    }

    fn discriminator(&self, cx: &Ctx, pair: &Var) -> Var {
        match &self.model.discriminator {
            Discriminator::Patch(d) => d.forward(cx, pair),
            Discriminator::Pixel(d) => d.forward(cx, pair),
        }
    }

    /// The spatial extents divide by this inside the generator.
    pub fn multiple(&self) -> usize {
        let Generator::Unet(g) = &self.model.generator;
        1 << g.downs
    }

    /// Which tensors the networks keep: G, D. Fails when images of `h` x `w` are too small for them.
    pub fn describe(&self, h: usize, w: usize) -> Result<[NetSpec; 2]> {
        let g = NetSpec::describe("G", |cx, graph| {
            self.generator(cx, &graph.input("input", [1, h, w, self.inputs]));
        })?;
        let d = NetSpec::describe("D", |cx, graph| {
            self.discriminator(cx, &graph.input("pair", [1, h, w, self.inputs + self.targets]));
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
        let shown = self.through_pool(step, &fake_pair);
        let mode = self.loss.gan;
        let d_fake = graph.phase("D fake", || mode.d_fake(&self.judge(&step.train(d), &shown)));
        let real_pair = concat(&[a, b], channel);
        let real_logits = graph.phase("D real", || self.judge(&step.train(d), &real_pair));
        let d_real = graph.phase("D real", || mode.d_real(&real_logits));
        let d_loss = d_fake.add(&d_real).mul_scalar(0.5);
        graph.phase("D backward", || step.update(d, &d_loss, updates[1]));

        let logits = graph.phase("G loss", || self.judge(&step.train(d), &concat(&[a, &fake], channel)));
        let g_gan = graph.phase("G loss", || mode.g(&logits).mul_scalar(self.loss.lambda_gan));
        let g_l1 = graph.phase("G loss", || fake.sub(b).abs().mean_all().mul_scalar(self.loss.lambda_l1));
        graph.phase("G backward", || step.update(g, &g_gan.add(&g_l1), updates[0]));

        for (name, value) in
            [("loss/D_fake", &d_fake), ("loss/D_real", &d_real), ("loss/G_GAN", &g_gan), ("loss/G_L1", &g_l1)]
        {
            step.output(name, value);
        }
        step.output("fake_B", &fake);
    }

    /// The pairs that the discriminator is shown: the new ones, or with a pool some older ones in their place.
    fn through_pool(&self, step: &StepBuilder, pairs: &Var) -> Var {
        if self.loss.pool == 0 {
            return pairs.clone();
        }
        let graph = step.graph();
        let shape = pairs.shape();
        let state = graph.state(POOL_STATE, shape.with(0, self.loss.pool));
        let choices = graph.input("pool.choices", [shape[0]]);
        let pool = graph.read(state);
        let shown = pool.apply(PoolQuery, &[pairs, &choices]);
        graph.write(state, &pool.apply(PoolStore, &[pairs, &choices]));
        shown
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
