//! Wasserstein GANs. The critic's values on real and on generated images are pulled apart, while it is kept Lipschitz:
//! by limiting its weights (Arjovsky et al., "Wasserstein GAN", ICML 2017) or by penalising gradients that are not of
//! length one (Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017). The critic is updated several
//! times for each update of the generator.
//!
//! The two kinds of update can be traced apart ([`Wgan::trace_critic`], [`Wgan::trace_generator`]: the number of critic
//! updates may then vary, see [`WganLoss::critic_updates`]) or as one step ([`Wgan::trace_step`]). Programs that draw
//! their own noise want different seeds.

use super::adversarial;
use super::method::{self, Method, Needs, Run, Shapes, Task};
use super::step::{StepBuilder, Update};
use crate::error::{Error, Result};
use crate::graph::Var;
use crate::models::NoiseModel;
use crate::nn::{Net, NetSpec};
use crate::objectives::adversarial::{gradient_penalty, interpolate};
use crate::ops::optimiser::{ClampParameters, Rule};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// How the critic is kept Lipschitz.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lipschitz {
    /// Every weight is limited to plus and minus this after each update of the critic.
    Clip(f64),
    /// Weight of the gradient penalty.
    Penalty(f64),
}

/// The loss and how often the critic is updated. The defaults are WGAN's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WganLoss {
    /// In a recipe `{ clip = 0.01 }` or `{ penalty = 10.0 }`.
    pub lipschitz: Lipschitz,
    /// Updates of the critic for each of the generator.
    pub n_critic: usize,
    /// As many generator updates at the beginning have `warm_critic` updates of the critic each (with clipping only).
    pub warm_first: u64,
    /// So has every so-many-th one; 0 for none.
    pub warm_every: u64,
    /// Updates of the critic in those.
    pub warm_critic: usize,
}

impl Default for WganLoss {
    fn default() -> Self {
        WganLoss {
            lipschitz: Lipschitz::Clip(0.01),
            n_critic: 5,
            warm_first: 25,
            warm_every: 500,
            warm_critic: 100,
        }
    }
}

impl WganLoss {
    /// WGAN-GP's.
    pub fn gradient_penalty() -> Self {
        WganLoss { lipschitz: Lipschitz::Penalty(10.0), warm_first: 0, warm_every: 0, ..Default::default() }
    }

    /// How many updates of the critic precede the generator's update number `step` (from 0).
    pub fn critic_updates(&self, step: u64) -> usize {
        let often = step < self.warm_first || (self.warm_every > 0 && step.is_multiple_of(self.warm_every));
        match self.lipschitz {
            Lipschitz::Clip(_) if often => self.warm_critic,
            _ => self.n_critic,
        }
    }

    /// All updates of the critic before the generator's update number `step`: what a resumed run goes on from.
    pub fn critic_updates_before(&self, step: u64) -> u64 {
        let plain = step * self.n_critic as u64;
        if matches!(self.lipschitz, Lipschitz::Penalty(_)) {
            return plain;
        }
        let multiples = |n: u64| if self.warm_every > 0 { n.div_ceil(self.warm_every) } else { 0 };
        let first = step.min(self.warm_first);
        let often = first + multiples(step) - multiples(first);
        plain + often * self.warm_critic as u64 - often * self.n_critic as u64
    }

    /// The rule that the paper trains by, and its learning rate.
    pub fn usual_rule(&self) -> (Rule, f64) {
        match self.lipschitz {
            Lipschitz::Clip(_) => {
                let rule = Rule::RmsProp {
                    alpha: 0.99,
                    eps: 1e-8,
                    momentum: 0.0,
                    centered: false,
                    weight_decay: 0.0,
                };
                (rule, 5e-5)
            }
            Lipschitz::Penalty(_) => (Rule::adam(0.0, 0.9), 1e-4),
        }
    }
}

/// The networks and the loss for square images of a given extent.
#[derive(Clone, Debug)]
pub struct Wgan {
    /// The networks' settings.
    pub model: NoiseModel,
    /// The loss's settings.
    pub loss: WganLoss,
    /// Extent of the images.
    pub size: usize,
    /// Channels of the images.
    pub channels: usize,
}

/// What an update of the critic is drawn from.
#[derive(Clone, Debug)]
pub struct CriticInputs {
    /// Real images `[n, size, size, channels]`.
    pub real: Var,
    /// Noise `[n, nz]`.
    pub z: Var,
    /// Where between real and generated images the penalty is taken, `[n, 1, 1, 1]` in [0, 1); not used with clipping.
    pub alpha: Var,
}

/// The losses of an update of the critic.
#[derive(Clone, Debug)]
pub struct CriticLosses {
    /// Mean of the critic on generated images less that on real ones: the negative of the estimated distance.
    pub w: Var,
    /// The penalty with its weight; 0 with clipping.
    pub penalty: Var,
}

impl Wgan {
    /// Which tensors the networks keep: G, D (the critic).
    pub fn describe(&self) -> Result<Vec<NetSpec>> {
        if matches!(self.loss.lipschitz, Lipschitz::Penalty(_)) {
            adversarial::check_judge(&self.model, "the gradient penalty", "critic")?;
        }
        if self.loss.n_critic == 0 {
            return Err(Error::input("`loss.n_critic` must be at least 1; 5 is usual"));
        }
        adversarial::describe(&self.model, self.size, self.channels)
    }

    /// Inputs drawn inside the step for a batch of real images.
    pub fn draw(&self, step: &StepBuilder, real: &Var) -> CriticInputs {
        let n = real.shape()[0];
        CriticInputs {
            real: real.clone(),
            z: step.normal([n, self.model.nz]),
            alpha: step.uniform([n, 1, 1, 1]),
        }
    }

    /// Traces an update of the critic; `nets` are G and D.
    pub fn trace_critic(
        &self,
        step: &mut StepBuilder,
        nets: &[Net],
        inputs: &CriticInputs,
        update: &Update,
    ) -> CriticLosses {
        let [g, d] = nets else { panic!("a GAN has two networks") };
        let graph = step.graph().clone();
        let critic = |step: &StepBuilder, x: &Var| graph.scope("D", || self.model.judge(&step.train(d), x));
        let fake = graph.phase("critic fake", || self.generate(step, g, &inputs.z).detach());
        let w = graph.phase("critic loss", || {
            let of_fake = critic(step, &fake).mean_all();
            of_fake.sub(&critic(step, &inputs.real).mean_all())
        });
        let penalty = match self.loss.lipschitz {
            Lipschitz::Clip(_) => graph.full(&Shape::scalar(), 0.0),
            Lipschitz::Penalty(lambda) => graph.phase("critic penalty", || {
                let mix = interpolate(&inputs.alpha, &inputs.real, &fake);
                graph.exact(|| gradient_penalty(|x| critic(step, x), &mix).0.mul_scalar(lambda))
            }),
        };
        graph.phase("critic backward", || step.update(d, &w.add(&penalty), update));
        if let Lipschitz::Clip(limit) = self.loss.lipschitz {
            graph.phase("optimiser", || {
                let clamp = ClampParameters { n: d.spec().param_count(), low: -limit, high: limit };
                graph.write(d.store(), &graph.read(d.store()).apply(clamp, &[]));
            });
        }
        CriticLosses { w, penalty }
    }

    /// Traces an update of the generator from noise `z`; leaves `loss/G` and `fake` readable.
    pub fn trace_generator(&self, step: &mut StepBuilder, nets: &[Net], z: &Var, update: &Update) {
        let [g, d] = nets else { panic!("a GAN has two networks") };
        let graph = step.graph().clone();
        let fake = graph.phase("G forward", || self.generate(step, g, z));
        let loss = graph.phase("G loss", || {
            graph.scope("D", || self.model.judge(&step.train(d), &fake)).mean_all().neg()
        });
        graph.phase("G backward", || step.update(g, &loss, update));
        step.output("loss/G", &loss);
        step.output("fake", &fake);
    }

    /// Traces one whole step: as many updates of the critic as `inputs` are given, then one of the generator from noise
    /// `z`. `updates` are those of G and of D; `t.D` is the number of the step's first critic update. Leaves `loss/W` and
    /// `loss/GP` of the last critic update, `loss/G` and `fake` readable; returns the losses of all critic updates.
    pub fn trace_step(
        &self,
        step: &mut StepBuilder,
        nets: &[Net],
        inputs: &[CriticInputs],
        z: &Var,
        updates: [&Update; 2],
    ) -> Vec<CriticLosses> {
        let losses: Vec<CriticLosses> =
            inputs.iter().map(|i| self.trace_critic(step, nets, i, updates[1])).collect();
        if let Some(last) = losses.last() {
            step.output("loss/W", &last.w);
            step.output("loss/GP", &last.penalty);
        }
        self.trace_generator(step, nets, z, updates[0]);
        losses
    }

    fn generate(&self, step: &StepBuilder, g: &Net, z: &Var) -> Var {
        step.graph().scope("G", || self.model.generate(&step.train(g), z, self.size, self.channels))
    }

    /// Traces images out of noise `z [n, nz]`, in evaluation mode.
    pub fn trace_sample(&self, step: &StepBuilder, g: &Net, z: &Var) -> Var {
        step.graph().scope("G", || self.model.generate(&step.eval(g), z, self.size, self.channels))
    }
}

/// The programs of a training step, in the order of [`Method::parts`].
const CRITIC: usize = 0;
const GENERATOR: usize = 1;

impl Method for Wgan {
    fn check(&self) -> Result<()> {
        let (key, limit) = match self.loss.lipschitz {
            Lipschitz::Clip(limit) => ("clip", limit),
            Lipschitz::Penalty(weight) => ("penalty", weight),
        };
        if !(limit > 0.0 && limit.is_finite()) {
            return Err(Error::input(format!(
                "`loss.lipschitz` needs a positive number for {key}; 0.01 is usual for clip, 10.0 for penalty"
            )));
        }
        if self.loss.n_critic == 0 || self.loss.warm_critic == 0 {
            return Err(Error::input(
                "`loss.n_critic` and `loss.warm_critic` must be at least 1; 5 is usual",
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
        Wgan { size: method::square(size)?, ..self.clone() }.describe()
    }

    fn parts(&self) -> usize {
        2
    }

    /// Each update of the critic sees a batch of its own; the generator's needs none.
    fn runs(&self, step: u64) -> Vec<Run> {
        let before = self.loss.critic_updates_before(step);
        let critic = (0..self.loss.critic_updates(step) as u64).map(|i| Run {
            part: CRITIC,
            number: before + i,
            takes_batch: true,
        });
        critic.chain([Run { part: GENERATOR, number: step, takes_batch: false }]).collect()
    }

    fn batches_before(&self, step: u64) -> u64 {
        self.loss.critic_updates_before(step)
    }

    fn trace(
        &self,
        part: usize,
        step: &mut StepBuilder,
        nets: &[Net],
        shapes: &Shapes,
        updates: [&Update; 2],
    ) {
        let method = Wgan { size: shapes.size[0], ..self.clone() };
        if part == CRITIC {
            let real = step.graph().input("input", shapes.input());
            let inputs = method.draw(step, &real);
            let losses = method.trace_critic(step, nets, &inputs, updates[1]);
            step.output("loss/W", &losses.w);
            step.output("loss/GP", &losses.penalty);
        } else {
            let z = step.normal([shapes.batch, self.model.nz]);
            method.trace_generator(step, nets, &z, updates[0]);
        }
    }

    fn headline(&self) -> &'static str {
        "loss/W"
    }

    fn noise(&self) -> Option<usize> {
        Some(self.model.nz)
    }

    fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var, size: &[usize]) -> Var {
        Wgan { size: size[0], ..self.clone() }.trace_sample(step, net, x)
    }

    fn settings(&self, net: &str) -> String {
        adversarial::settings(&self.model, net)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_critic_is_updated_often_at_first_and_now_and_then() {
        let clip = WganLoss::default();
        let counts: Vec<usize> = (0..1001).map(|s| clip.critic_updates(s)).collect();
        assert!(counts[..25].iter().all(|c| *c == 100));
        assert_eq!((0..1001).filter(|&s| s >= 25 && counts[s] == 100).collect::<Vec<_>>(), [500, 1000]);
        assert!(counts.iter().all(|c| *c == 5 || *c == 100));
        let mut sum = 0;
        for (s, c) in counts.iter().enumerate() {
            assert_eq!(clip.critic_updates_before(s as u64), sum, "before step {s}");
            sum += *c as u64;
        }
        let penalty = WganLoss::gradient_penalty();
        assert!(
            (0..600).all(|s| penalty.critic_updates(s) == 5 && penalty.critic_updates_before(s) == 5 * s)
        );
    }
}
