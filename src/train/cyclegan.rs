//! CycleGAN (Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017):
//! two generators between two sets of images of which no two belong together, kept honest by having to find back.
//!
//! One step, as in junyanz's code: fake_B = G_A(a), rec_A = G_B(fake_B), fake_A = G_B(b), rec_B = G_A(fake_A), and for the
//! identity loss G_A(b), G_B(a). Both generators are updated by the sum of all their losses, through the old
//! discriminators; then each discriminator on real images and on fakes out of its pool. D_A judges images of B, which
//! G_A makes; D_B those of A.

use super::method::{self, Method, Needs, Shapes, Task};
use super::pool::through_pool;
use super::step::{StepBuilder, Update};
use crate::error::{Error, Result};
use crate::graph::Var;
use crate::models::{ImageDiscriminator, ImageGenerator};
use crate::nn::{Ctx, Net, NetSpec};
use crate::objectives::GanMode;
use crate::objectives::pixel::l1;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// The networks. Both directions have the same settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CycleGanModel {
    /// From one kind of image to the other.
    pub generator: ImageGenerator,
    /// Judges images of one kind.
    pub discriminator: ImageDiscriminator,
}

/// The losses and their weights. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CycleGanLoss {
    /// The adversarial loss.
    pub gan: GanMode,
    /// Weight of the way from A to B and back.
    pub lambda_a: f64,
    /// Weight of the way from B to A and back.
    pub lambda_b: f64,
    /// Weight, times that of the cycle, of leaving images alone that are of the wanted kind already; 0 for none.
    pub lambda_identity: f64,
    /// Size of each discriminator's pool of generated images; 0 for none.
    pub pool: usize,
}

impl Default for CycleGanLoss {
    fn default() -> Self {
        CycleGanLoss { gan: GanMode::Lsgan, lambda_a: 10.0, lambda_b: 10.0, lambda_identity: 0.5, pool: 50 }
    }
}

/// The networks and losses for images of given extents.
#[derive(Clone, Debug)]
pub struct CycleGan {
    /// The networks' settings.
    pub model: CycleGanModel,
    /// The losses' settings.
    pub loss: CycleGanLoss,
    /// Channels of A's images.
    pub channels_a: usize,
    /// Channels of B's images.
    pub channels_b: usize,
}

/// The names of the networks, in the order of [`CycleGan::describe`].
pub const NETWORKS: [&str; 4] = ["G_A", "G_B", "D_A", "D_B"];

/// The names of the pools, each a state of this name with an input `<name>.choices`: of fakes of B, which D_A sees, and
/// of A, which D_B sees. They exist where `loss.pool` is positive.
pub const POOLS: [&str; 2] = ["pool.fake_B", "pool.fake_A"];

/// The readable scalars of a step.
pub const LOSSES: [&str; 8] = [
    "loss/G_A",
    "loss/G_B",
    "loss/cycle_A",
    "loss/cycle_B",
    "loss/idt_A",
    "loss/idt_B",
    "loss/D_A",
    "loss/D_B",
];

impl CycleGan {
    /// Spatial extents divide by this inside the generators (other extents are padded and cropped).
    pub fn multiple(&self) -> usize {
        self.model.generator.multiple()
    }

    /// Which tensors the networks keep, for images of `size` (two or three spatial extents): G_A, G_B, D_A, D_B. Fails
    /// when the images are too small for them.
    pub fn describe(&self, size: &[usize]) -> Result<Vec<NetSpec>> {
        if self.loss.lambda_identity > 0.0 && self.channels_a != self.channels_b {
            return Err(Error::input(format!(
                "`loss.lambda_identity` compares an image with itself, but A has {} channels and B {}; set it to 0",
                self.channels_a, self.channels_b
            )));
        }
        let ways = [(self.channels_a, self.channels_b), (self.channels_b, self.channels_a)];
        let image = |c: usize| Shape::from([&[1], size, &[c]].concat());
        let generators = ways.iter().zip(["G_A", "G_B"]).map(|(&(from, to), name)| {
            NetSpec::describe(name, |cx, graph| {
                self.model.generator.forward(cx, &graph.input("image", image(from)), to);
            })
        });
        let discriminators = ways.iter().zip(["D_A", "D_B"]).map(|(&(_, judged), name)| {
            NetSpec::describe(name, |cx, graph| {
                self.model.discriminator.forward(cx, &graph.input("image", image(judged)));
            })
            .map_err(|e| {
                Error::input(format!(
                    "images of {size:?} are too small for the discriminator; lower `model.discriminator.layers` or enlarge `data.canvas` ({e})"
                ))
            })
        });
        generators.chain(discriminators).collect()
    }

    /// Traces a training step on `a` and `b`, `[n, spatial.., channels]`; `nets` as described, `updates` of the
    /// generators and of the discriminators. Leaves [`LOSSES`], `fake_A` and `fake_B` readable.
    pub fn trace_step(&self, step: &mut StepBuilder, nets: &[Net], a: &Var, b: &Var, updates: [&Update; 2]) {
        let [g_a, g_b, d_a, d_b] = nets else { panic!("CycleGAN has four networks") };
        let graph = step.graph().clone();
        let pass = |step: &StepBuilder, net: &Net, x: &Var| self.generate(&step.train(net), net, x);
        let (fake_b, rec_a, fake_a, rec_b) = graph.phase("G forward", || {
            let fake_b = pass(step, g_a, a);
            let rec_a = pass(step, g_b, &fake_b);
            let fake_a = pass(step, g_b, b);
            let rec_b = pass(step, g_a, &fake_a);
            (fake_b, rec_a, fake_a, rec_b)
        });
        let mut losses: Vec<(&str, Var)> = Vec::new();
        graph.phase("G loss", || {
            let l = &self.loss;
            if l.lambda_identity > 0.0 {
                let idt = |step: &StepBuilder, net: &Net, x: &Var, lambda: f64| {
                    l1(&pass(step, net, x), x).mul_scalar(lambda * l.lambda_identity)
                };
                losses.push(("loss/idt_A", idt(step, g_a, b, l.lambda_b)));
                losses.push(("loss/idt_B", idt(step, g_b, a, l.lambda_a)));
            }
            losses.push(("loss/G_A", self.fooled(&step.train(d_a), d_a, &fake_b)));
            losses.push(("loss/G_B", self.fooled(&step.train(d_b), d_b, &fake_a)));
            losses.push(("loss/cycle_A", l1(&rec_a, a).mul_scalar(l.lambda_a)));
            losses.push(("loss/cycle_B", l1(&rec_b, b).mul_scalar(l.lambda_b)));
        });
        let total = graph
            .phase("G loss", || losses[1..].iter().fold(losses[0].1.clone(), |sum, (_, loss)| sum.add(loss)));
        graph.phase("G backward", || step.update_all(&[g_a, g_b], &total, updates[0]));
        if self.loss.lambda_identity == 0.0 {
            // Always there, so that every run has the same curves.
            for name in ["loss/idt_A", "loss/idt_B"] {
                losses.push((name, graph.full(&Shape::scalar(), 0.0)));
            }
        }

        for (i, (net, real, fake)) in [(d_a, b, &fake_b), (d_b, a, &fake_a)].into_iter().enumerate() {
            let name = &net.spec().name;
            let shown = through_pool(step, &fake.detach(), self.loss.pool, POOLS[i]);
            let mode = self.loss.gan;
            let (of_real, of_fake, loss) = graph.phase(&format!("{name} loss"), || {
                let of_real = self.judge(&step.train(net), net, real);
                let of_fake = self.judge(&step.train(net), net, &shown);
                let loss = total_of(&of_real, |l| mode.d_real(l))
                    .add(&total_of(&of_fake, |l| mode.d_fake(l)))
                    .mul_scalar(0.5);
                (of_real, of_fake, loss)
            });
            step.accuracy(name, mode, &of_real, &of_fake);
            graph.phase(&format!("{name} backward"), || step.update(net, &loss, updates[1]));
            losses.push((["loss/D_A", "loss/D_B"][i], loss));
        }
        for (name, value) in &losses {
            step.output(name, value);
        }
        step.output("fake_A", &fake_a);
        step.output("fake_B", &fake_b);
    }

    /// Traces a prediction by a generator, G_A (`to_b`) or G_B, in evaluation mode.
    pub fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var, to_b: bool) -> Var {
        let channels = if to_b { self.channels_b } else { self.channels_a };
        step.graph().scope(&net.spec().name, || self.model.generator.forward(&step.eval(net), x, channels))
    }

    /// Extents of each pool's state, for images of `size`, in the order of [`POOLS`]; none without pools.
    pub fn pool_shapes(&self, size: &[usize]) -> Vec<Shape> {
        let of = |c: usize| Shape::from([&[self.loss.pool], size, &[c]].concat());
        if self.loss.pool == 0 { Vec::new() } else { vec![of(self.channels_b), of(self.channels_a)] }
    }

    fn generate(&self, cx: &Ctx, net: &Net, x: &Var) -> Var {
        let name = &net.spec().name;
        let channels = if name == "G_A" { self.channels_b } else { self.channels_a };
        cx.graph().scope(name, || self.model.generator.forward(cx, x, channels))
    }

    fn judge(&self, cx: &Ctx, net: &Net, x: &Var) -> Vec<Var> {
        cx.graph().scope(&net.spec().name, || self.model.discriminator.forward(cx, x))
    }

    fn fooled(&self, cx: &Ctx, net: &Net, fake: &Var) -> Var {
        total_of(&self.judge(cx, net, fake), |l| self.loss.gan.g(l))
    }
}

impl Method for CycleGan {
    fn check(&self) -> Result<()> {
        self.model.generator.check("model.generator")?;
        self.model.discriminator.check("model.discriminator")?;
        method::check_pool(self.loss.pool)
    }

    fn needs(&self) -> Needs {
        Needs::Unpaired
    }

    fn task(&self) -> Task {
        Task::Translate
    }

    fn multiple(&self) -> usize {
        CycleGan::multiple(self)
    }

    fn networks(&self, size: &[usize]) -> Result<Vec<NetSpec>> {
        self.describe(size)
    }

    fn pools(&self, size: &[usize]) -> Vec<(&'static str, Shape)> {
        POOLS.into_iter().zip(self.pool_shapes(size)).collect()
    }

    fn trace(&self, _: usize, step: &mut StepBuilder, nets: &[Net], shapes: &Shapes, updates: [&Update; 2]) {
        let a = step.graph().input("input", shapes.input());
        let b = step.graph().input("target", shapes.target());
        self.trace_step(step, nets, &a, &b, updates);
    }

    fn headline(&self) -> &'static str {
        "loss/cycle_A"
    }

    fn predictor(&self) -> &'static str {
        "G_A"
    }

    fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var, _: &[usize]) -> Var {
        CycleGan::trace_predict(self, step, net, x, true)
    }

    fn settings(&self, net: &str) -> String {
        if net.starts_with('G') {
            method::json(&self.model.generator)
        } else {
            method::json(&self.model.discriminator)
        }
    }
}

/// The sum of a loss over the resolutions of a discriminator.
pub(super) fn total_of(logits: &[Var], loss: impl Fn(&Var) -> Var) -> Var {
    logits[1..].iter().fold(loss(&logits[0]), |sum, l| sum.add(&loss(l)))
}
