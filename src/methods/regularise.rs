//! What regularises networks: penalties on gradients, and what keeps a discriminator's logits or a generator's steps within
//! bounds. And the terms that look into networks.

use super::kept::memory;
use super::spec::{FeatureMeasure, Term};
use super::trace::{Terms, scaled, sum, total_of};
use super::value::{Expr, Source};
use crate::graph::Var;
use crate::objectives::adversarial::{gradient_penalty, interpolate, r1_penalty};
use crate::objectives::features::style;
use crate::objectives::pixel::{kl_gaussian, l1, l2};
use crate::objectives::regularise::{around, lecam, path_lengths};
use crate::ops::concat::concat;
use crate::shape::Shape;

impl Terms<'_, '_> {
    pub fn penalty(&mut self, term: &Term, real: &Expr, fake: &Expr) -> Var {
        let (real, fake) = (self.flow.value(self.step, real), self.flow.value(self.step, fake).detach());
        let alpha = self.flow.alpha(self.step, &real);
        self.penalty_at(term, &real, || interpolate(&alpha, &real, &fake))
    }

    /// The penalty of gradients that are not of length one, around real images.
    pub fn dragan(&mut self, term: &Term, real: &Expr) -> Var {
        let real = self.flow.value(self.step, real);
        let alpha = self.flow.alpha(self.step, &real);
        let uniform = self.flow.perturbation(self.step, &real);
        self.penalty_at(term, &real, || around(&real, &alpha, &uniform))
    }

    /// The gradient penalty at images beside `real`.
    fn penalty_at(&mut self, term: &Term, real: &Var, at: impl FnOnce() -> Var) -> Var {
        let net = self.networks[0];
        let n = real.shape().first().copied().unwrap_or(1);
        let graph = self.graph.clone();
        let value = graph.phase(&format!("{} penalty", self.name), || {
            let mix = at();
            let flow = std::cell::RefCell::new(&mut *self.flow);
            let critic = |x: &Var| {
                let seen = flow.borrow_mut().seen(self.step, net, x);
                let out = flow.borrow().logits(self.step, net, &seen);
                // One number per image, or patches: then the sum over the images, so that each one's gradient is its own.
                if out.len() == 1 && out[0].rank() == 1 {
                    out[0].clone()
                } else {
                    total_of(&out, Var::mean_all).mul_scalar(n as f64)
                }
            };
            graph.exact(|| scaled(gradient_penalty(critic, &mix).0, term.weight))
        });
        let value = self.ramped(term, value);
        self.log(&term.log[0], &value);
        value
    }

    pub fn gradient(&mut self, term: &Term, at: &Expr, real: bool) -> Var {
        let net = self.networks[0];
        let images = self.flow.value(self.step, at);
        let known = self.outputs.get(&real).cloned();
        let graph = self.graph.clone();
        let value = graph.exact(|| {
            let (at, logits) = known.unwrap_or_else(|| {
                let images = images.detach();
                let seen = self.flow.seen(self.step, net, &images);
                let out = self.phase("penalty", || self.flow.logits(self.step, net, &seen));
                (images, out)
            });
            self.phase("penalty", || total_of(&logits, |l| r1_penalty(l, &at)).mul_scalar(0.5 * term.weight))
        });
        let value = self.ramped(term, value);
        self.log(&term.log[0], &value);
        value
    }

    /// What the discriminator says of images, real or generated ones: what it has said of them before, or asked anew.
    fn answer(&mut self, value: &Expr, real: bool) -> Vec<Var> {
        if let Some((_, logits)) = self.outputs.get(&real) {
            return logits.clone();
        }
        let net = self.networks[0];
        let images = self.flow.value(self.step, value).detach();
        let seen = self.flow.seen(self.step, net, &images);
        self.phase("penalty", || self.flow.logits(self.step, net, &seen))
    }

    /// Keeps the logits near the running means of the other kind's. Of several resolutions the mean is taken, and the losses
    /// are added.
    pub fn lecam(&mut self, term: &Term, [real, fake]: [&Expr; 2], decay: f64) -> Var {
        let (real, fake) = (self.answer(real, true), self.answer(fake, false));
        let graph = self.graph.clone();
        let name = memory(term).expect("such a term has one");
        let value = graph.exact(|| {
            self.phase("penalty", || {
                // Sums of weights that fall with age, and the sum of the weights: their quotients are means from the first step on.
                let state = graph.state(&name, [3]);
                let mean = |l: &[Var]| total_of(l, Var::mean_all).mul_scalar(1.0 / l.len() as f64).detach();
                let parts =
                    [mean(&real), mean(&fake), graph.full(&Shape::scalar(), 1.0)].map(|p| p.reshape(&[1]));
                let new = concat(&parts.iter().collect::<Vec<_>>(), 0).mul_scalar(1.0 - decay);
                let new = graph.read(state).mul_scalar(decay).add(&new);
                graph.write(state, &new);
                let part = |i: usize| new.slice(0, i, 1).reshape(&[]);
                let anchors = [part(0).div(&part(2)), part(1).div(&part(2))];
                let each: Vec<Var> = real.iter().zip(&fake).map(|(r, f)| lecam(r, f, &anchors)).collect();
                self.weighted(term, sum(&each).expect("a discriminator has outputs"))
            })
        });
        self.log(&term.log[0], &value);
        value
    }

    /// How much the lengths of steps in the image for steps in the noise differ from their running mean. The generator is run
    /// for it once more, on the same noise.
    pub fn path_length(&mut self, term: &Term, of: &Expr, decay: f64) -> Var {
        let Expr::Apply(net, _) = of else { unreachable!("checked when it was read") };
        let noise = self.flow.value(self.step, &Expr::Source(Source::Noise)).detach();
        let graph = self.graph.clone();
        let name = memory(term).expect("such a term has one");
        let value = graph.exact(|| {
            self.phase("penalty", || {
                let cx = self.step.train(&self.flow.nets[*net]);
                let images = self.flow.method.apply(&cx, *net, &noise, &self.flow.shapes.size).remove(0);
                let direction = self.flow.direction(self.step, &images);
                let lengths = path_lengths(&images, &noise, &direction);
                let state = graph.state(&name, [1]);
                let old = graph.read(state);
                let mean = lengths.mean_all().detach().reshape(&[1]);
                let new = old.add(&mean.sub(&old).mul_scalar(decay));
                graph.write(state, &new);
                self.weighted(term, lengths.sub(&new).square().mean_all())
            })
        });
        self.log(&term.log[0], &value);
        value
    }

    /// How far what a network makes of one value inside is from what it makes of another: the sum over layers.
    pub fn features(
        &mut self,
        term: &Term,
        net: usize,
        [of, to]: [&Expr; 2],
        layers: &[String],
        measure: FeatureMeasure,
    ) -> Var {
        let (of, to) = (self.flow.value(self.step, of), self.flow.value(self.step, to));
        let (of, to) = (self.pass(net, &of).1, self.pass(net, &to).1);
        let value = self.phase("loss", || {
            let chosen = of.iter().zip(&to).filter(|((n, _), _)| layers.is_empty() || layers.contains(n));
            let each: Vec<Var> = chosen
                .map(|((_, a), (_, b))| match measure {
                    FeatureMeasure::L1 => l1(a, b),
                    FeatureMeasure::L2 => l2(a, b),
                    FeatureMeasure::Gram => self.graph.exact(|| style(a, b)),
                })
                .collect();
            let none = || self.graph.full(&Shape::scalar(), 0.0);
            self.weighted(term, sum(&each).unwrap_or_else(none))
        });
        self.log(&term.log[0], &value);
        value
    }

    /// The divergence of normal distributions from the standard one: the sum over a code's numbers, the mean over the images.
    pub fn gaussian(&mut self, term: &Term, of: &Expr) -> Var {
        let x = self.flow.value(self.step, of);
        let value = self.phase("loss", || {
            let (axis, half) = (x.rank().saturating_sub(1), x.channels() / 2);
            let (mu, logvar) = (x.slice(axis, 0, half), x.slice(axis, half, half));
            let numbers = mu.shape().numel() / mu.shape().first().copied().unwrap_or(1).max(1);
            self.weighted(term, kl_gaussian(&mu, &logvar).mul_scalar(numbers as f64))
        });
        self.log(&term.log[0], &value);
        value
    }
}
