//! Optimiser steps: new parameters and moments from a gradient, in one pass over flat buffers.
//!
//! A network's parameters and the rule's moments live in one state, the *store* `[slots, n]`: slot 0 holds the
//! parameters, the others what the rule remembers. Formulas and order of arithmetic are PyTorch's (`torch.optim`), so
//! that a run can be compared with it step by step. Learning rate and step number are scalars of the graph: a planned
//! step never has to be planned again for them.

mod adam;
mod clamp;
mod clip;
mod ema;
mod launch;
mod running;
mod samples;

pub use clamp::ClampParameters;
pub use clip::clip_by_norm;
pub use ema::EmaUpdate;
pub use running::RunningStats;
pub use samples::samples;

use adam::{AdamScalars, Lerp, adam};

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Var};
use crate::shape::Shape;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a gradient changes the parameters. In a recipe: `{ kind = "adam", beta1 = 0.5 }`; what is left out takes
/// PyTorch's default.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Rule {
    /// Adam (Kingma and Ba 2015), decay added to the gradient. Slots: parameters, mean, mean square, and with
    /// `amsgrad` (Reddi et al. 2018) the largest mean square so far.
    Adam {
        /// Decay of the mean.
        #[serde(default = "defaults::beta1")]
        beta1: f64,
        /// Decay of the mean square.
        #[serde(default = "defaults::beta2")]
        beta2: f64,
        /// Added to the denominator.
        #[serde(default = "defaults::eps")]
        eps: f64,
        /// L2 penalty.
        #[serde(default)]
        weight_decay: f64,
        /// Whether the denominator never shrinks.
        #[serde(default)]
        amsgrad: bool,
    },
    /// Adam with decoupled decay (Loshchilov and Hutter 2019): parameters shrink by `lr weight_decay` beforehand.
    /// Slots as [`Rule::Adam`].
    AdamW {
        /// Decay of the mean.
        #[serde(default = "defaults::beta1")]
        beta1: f64,
        /// Decay of the mean square.
        #[serde(default = "defaults::beta2")]
        beta2: f64,
        /// Added to the denominator.
        #[serde(default = "defaults::eps")]
        eps: f64,
        /// Share of the parameters that is taken off per unit of learning rate.
        #[serde(default = "defaults::adamw_decay")]
        weight_decay: f64,
        /// Whether the denominator never shrinks.
        #[serde(default)]
        amsgrad: bool,
    },
    /// RMSprop (Tieleman and Hinton 2012). Slots: parameters, mean square, then with `centered` the mean (Graves
    /// 2013), then with `momentum` the velocity.
    RmsProp {
        /// Decay of the mean square.
        #[serde(default = "defaults::alpha")]
        alpha: f64,
        /// Added to the denominator.
        #[serde(default = "defaults::eps")]
        eps: f64,
        /// Decay of the velocity; 0 for none.
        #[serde(default)]
        momentum: f64,
        /// Whether to divide by the standard deviation instead of the root mean square.
        #[serde(default)]
        centered: bool,
        /// L2 penalty.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Gradient descent. Slots: parameters, with `momentum` the velocity.
    Sgd {
        /// Decay of the velocity; 0 for none.
        #[serde(default)]
        momentum: f64,
        /// Share of a gradient that the velocity ignores (from the second step on, as in PyTorch).
        #[serde(default)]
        dampening: f64,
        /// Whether to look ahead (Nesterov 1983).
        #[serde(default)]
        nesterov: bool,
        /// L2 penalty.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adagrad (Duchi et al. 2011). Slots: parameters, sum of squares.
    Adagrad {
        /// The learning rate is divided by `1 + (t - 1) lr_decay`.
        #[serde(default)]
        lr_decay: f64,
        /// Added to the denominator.
        #[serde(default = "defaults::adagrad_eps")]
        eps: f64,
        /// What the sum of squares begins with.
        #[serde(default)]
        initial_accumulator: f64,
        /// L2 penalty.
        #[serde(default)]
        weight_decay: f64,
    },
}

/// PyTorch's.
mod defaults {
    pub fn beta1() -> f64 {
        0.9
    }
    pub fn beta2() -> f64 {
        0.999
    }
    pub fn eps() -> f64 {
        1e-8
    }
    pub fn adamw_decay() -> f64 {
        0.01
    }
    pub fn alpha() -> f64 {
        0.99
    }
    pub fn adagrad_eps() -> f64 {
        1e-10
    }
}

/// More slots than any rule has: parameters and three moments.
const MOST_SLOTS: usize = 4;

impl Rule {
    /// Adam as GANs use it, with everything but the betas at its default.
    pub fn adam(beta1: f64, beta2: f64) -> Rule {
        Rule::Adam { beta1, beta2, eps: defaults::eps(), weight_decay: 0.0, amsgrad: false }
    }

    /// Rows of the store: the parameters and the moments. All moments begin as zeros.
    pub fn slots(&self) -> usize {
        match *self {
            Rule::Adam { amsgrad, .. } | Rule::AdamW { amsgrad, .. } => 3 + usize::from(amsgrad),
            Rule::RmsProp { momentum, centered, .. } => {
                2 + usize::from(centered) + usize::from(momentum > 0.0)
            }
            Rule::Sgd { momentum, .. } => 1 + usize::from(momentum != 0.0),
            Rule::Adagrad { .. } => 2,
        }
    }

    /// The name in recipes.
    pub fn name(&self) -> &'static str {
        match self {
            Rule::Adam { .. } => "adam",
            Rule::AdamW { .. } => "adamw",
            Rule::RmsProp { .. } => "rmsprop",
            Rule::Sgd { .. } => "sgd",
            Rule::Adagrad { .. } => "adagrad",
        }
    }

    /// One sentence on what is wrong with the settings.
    pub fn check(&self) -> Result<(), String> {
        let share = |name: &str, v: f64| {
            if (0.0..1.0).contains(&v) { Ok(()) } else { Err(format!("{name} = {v} is not in [0, 1)")) }
        };
        let positive = |name: &str, v: f64| {
            if v >= 0.0 { Ok(()) } else { Err(format!("{name} = {v} is negative")) }
        };
        match *self {
            Rule::Adam { beta1, beta2, eps, weight_decay, .. }
            | Rule::AdamW { beta1, beta2, eps, weight_decay, .. } => {
                share("beta1", beta1)?;
                share("beta2", beta2)?;
                positive("eps", eps)?;
                positive("weight_decay", weight_decay)
            }
            Rule::RmsProp { alpha, eps, momentum, weight_decay, .. } => {
                share("alpha", alpha)?;
                positive("eps", eps)?;
                positive("momentum", momentum)?;
                positive("weight_decay", weight_decay)
            }
            Rule::Sgd { momentum, dampening, nesterov, weight_decay } => {
                positive("momentum", momentum)?;
                positive("weight_decay", weight_decay)?;
                if nesterov && (momentum == 0.0 || dampening != 0.0) {
                    return Err("nesterov wants a momentum and no dampening".into());
                }
                Ok(())
            }
            Rule::Adagrad { lr_decay, eps, initial_accumulator, weight_decay } => {
                positive("lr_decay", lr_decay)?;
                positive("eps", eps)?;
                positive("initial_accumulator", initial_accumulator)?;
                positive("weight_decay", weight_decay)
            }
        }
    }

    /// One step over equally long stretches of the slots; `t` is 1 in the first step. Scalars are worked out in double
    /// precision, elements in `T`.
    fn step<T: Real>(&self, slots: [&mut [T]; MOST_SLOTS], grad: &[T], lr: f64, t: f64) {
        let [p, a, b, c] = slots;
        match *self {
            Rule::Adam { beta1, beta2, eps, weight_decay, amsgrad } => {
                let shape = AdamScalars::new(beta1, beta2, eps, lr, t);
                let decay = T::of(weight_decay);
                adam(&shape, amsgrad, [p, a, b, c], grad, |g, p| (g + decay * p, p));
            }
            Rule::AdamW { beta1, beta2, eps, weight_decay, amsgrad } => {
                let shape = AdamScalars::new(beta1, beta2, eps, lr, t);
                let keep = T::of(1.0 - lr * weight_decay);
                adam(&shape, amsgrad, [p, a, b, c], grad, |g, p| (g, p * keep));
            }
            Rule::RmsProp { alpha, eps, momentum, centered, weight_decay } => {
                let (mean, velocity) = if centered { (b, c) } else { (c, b) };
                let (keep, new, eps, lr) = (T::of(alpha), T::of(1.0 - alpha), T::of(eps), T::of(lr));
                let (decay, heavy) = (T::of(weight_decay), T::of(momentum));
                let lerp = Lerp::new(1.0 - alpha);
                for i in 0..grad.len() {
                    let g = grad[i] + decay * p[i];
                    a[i] = a[i] * keep + new * g * g;
                    let mut square = a[i];
                    if centered {
                        mean[i] = lerp.at(mean[i], g);
                        square -= mean[i] * mean[i];
                    }
                    let root = square.sqrt() + eps;
                    if momentum > 0.0 {
                        velocity[i] = velocity[i] * heavy + g / root;
                        p[i] -= lr * velocity[i];
                    } else {
                        p[i] -= lr * g / root;
                    }
                }
            }
            Rule::Sgd { momentum, dampening, nesterov, weight_decay } => {
                let (lr, decay, heavy) = (T::of(lr), T::of(weight_decay), T::of(momentum));
                if momentum == 0.0 {
                    for (p, &g) in p.iter_mut().zip(grad) {
                        *p -= lr * (g + decay * *p);
                    }
                    return;
                }
                // The velocity begins as the first gradient, undampened.
                let (keep, new) =
                    if t <= 1.0 { (T::zero(), T::one()) } else { (heavy, T::of(1.0 - dampening)) };
                for i in 0..grad.len() {
                    let g = grad[i] + decay * p[i];
                    a[i] = a[i] * keep + new * g;
                    p[i] -= lr * if nesterov { g + heavy * a[i] } else { a[i] };
                }
            }
            Rule::Adagrad { lr_decay, eps, initial_accumulator, weight_decay } => {
                let lr = T::of(lr / (1.0 + (t - 1.0) * lr_decay));
                let (eps, decay) = (T::of(eps), T::of(weight_decay));
                let begin = if t <= 1.0 { T::of(initial_accumulator) } else { T::zero() };
                for i in 0..grad.len() {
                    let g = grad[i] + decay * p[i];
                    a[i] = a[i] + begin + g * g;
                    p[i] -= lr * g / (a[i].sqrt() + eps);
                }
            }
        }
    }
}

/// One optimiser step. Inputs: the store `[slots, n]`, the gradient (n elements), the learning rate and the step number
/// (scalars; 1 in the first step). Output: the new store, in the old one's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimiserStep {
    /// The formula.
    pub rule: Rule,
    /// Number of parameters.
    pub n: usize,
}

impl OptimiserStep {
    fn run<T: Real>(&self, io: &mut Io) {
        let (grad, lr, t) = (io.input::<T>(1), io.input::<T>(2)[0].f64(), io.input::<T>(3)[0].f64());
        parallel::for_rows(
            io.output::<T>(),
            self.n,
            parallel::CHUNK,
            |start, slots: [&mut [T]; MOST_SLOTS]| {
                let end = start + slots[0].len();
                self.rule.step(slots, &grad[start..end], lr, t);
            },
        );
    }
}

impl Op for OptimiserStep {
    fn name(&self) -> &'static str {
        "optimiser_step"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        self.rule.check()?;
        if inputs[0][..] != [self.rule.slots(), self.n] {
            return Err(format!(
                "a store of shape {}; {} wants [{}, {}]",
                inputs[0],
                self.rule.name(),
                self.rule.slots(),
                self.n
            ));
        }
        if inputs[1].numel() != self.n || inputs[2..].iter().any(|s| s.numel() != 1) {
            return Err(format!("gradient, rate and step have shapes {:?}", &inputs[1..]));
        }
        Ok(inputs[0].clone())
    }

    /// The update is where a step ends: nothing is differentiated through it.
    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![None; a.inputs.len()]
    }

    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        let each = match self.rule {
            Rule::Adam { .. } | Rule::AdamW { .. } => 14,
            Rule::RmsProp { .. } => 10,
            Rule::Sgd { .. } => 6,
            Rule::Adagrad { .. } => 8,
        };
        each * self.n as u64
    }

    fn memory(&self) -> Memory {
        Memory::InPlace(0)
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn launches(&self, _: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        Ok(LaunchList::of(launch::step(self, gpu)))
    }
}

impl Var {
    /// This store `[slots, n]` after a step of `rule` along `gradient`.
    #[track_caller]
    pub fn optimiser_step(&self, rule: Rule, gradient: &Var, lr: &Var, step: &Var) -> Var {
        let n = self.channels();
        self.apply(OptimiserStep { rule, n }, &[gradient, lr, step])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Recipe {
        optimiser: Rule,
    }

    fn parse(text: &str) -> Result<Rule, String> {
        toml::from_str::<Recipe>(&format!("optimiser = {text}"))
            .map(|r| r.optimiser)
            .map_err(|e| e.message().to_string())
    }

    #[test]
    fn recipes_name_rules_and_leave_out_defaults() {
        assert_eq!(parse(r#"{ kind = "adam", beta1 = 0.5, weight_decay = 0 }"#), Ok(Rule::adam(0.5, 0.999)));
        let adamw = Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, amsgrad: false };
        assert_eq!(parse(r#"{ kind = "adamw" }"#), Ok(adamw));
        let plain = Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
        assert_eq!(parse(r#"{ kind = "sgd" }"#), Ok(plain));
        for rule in [
            plain,
            adamw,
            parse(r#"{ kind = "rmsprop", centered = true }"#).expect("a rule"),
            parse(r#"{ kind = "adagrad" }"#).expect("a rule"),
        ] {
            let text = serde_json::to_string(&rule).expect("a rule is written");
            assert!(text.contains(&format!(r#""kind":"{}""#, rule.name())), "{text}");
            assert_eq!(serde_json::from_str::<Rule>(&text).expect("and read"), rule);
        }
    }

    #[test]
    fn misspelt_settings_are_errors() {
        let why = parse(r#"{ kind = "adam", beta_1 = 0.5 }"#).expect_err("an unknown key");
        assert!(why.contains("beta_1"), "{why}");
        assert!(parse(r#"{ kind = "adan" }"#).is_err());
        assert!(Rule::adam(1.0, 0.999).check().is_err_and(|e| e.contains("beta1")));
        let lost = Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: true, weight_decay: 0.0 };
        assert!(lost.check().is_err());
    }

    /// Whole stores in stretches that do not divide them give what one stretch gives.
    #[test]
    fn stretches_do_not_matter() {
        let rules = [
            Rule::adam(0.5, 0.999),
            Rule::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, amsgrad: true },
            Rule::RmsProp { alpha: 0.9, eps: 1e-8, momentum: 0.9, centered: true, weight_decay: 0.0 },
            Rule::RmsProp { alpha: 0.9, eps: 1e-8, momentum: 0.9, centered: false, weight_decay: 0.0 },
            Rule::Sgd { momentum: 0.9, dampening: 0.0, nesterov: true, weight_decay: 0.0 },
        ];
        let n = 1000;
        let grad: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        for rule in rules {
            let run = |chunk: usize| {
                let mut store: Vec<f32> = vec![0.25; rule.slots() * n];
                for t in 1..4 {
                    parallel::for_rows(&mut store, n, chunk, |start, slots: [&mut [f32]; MOST_SLOTS]| {
                        let end = start + slots[0].len();
                        rule.step(slots, &grad[start..end], 0.01, f64::from(t));
                    });
                }
                store
            };
            assert_eq!(run(n), run(96), "{rule:?}");
        }
    }

    /// Adam's first step has the size of the learning rate, whatever the gradient's.
    #[test]
    fn first_step_of_adam() {
        let (mut p, mut m, mut v) = ([1.0f64; 3], [0.0; 3], [0.0; 3]);
        Rule::adam(0.5, 0.999).step([&mut p, &mut m, &mut v, &mut []], &[3.0, -1e-3, 0.0], 0.1, 1.0);
        for (got, want) in p.iter().zip([0.9, 1.1, 1.0]) {
            assert!((got - want).abs() < 2e-6, "{p:?}");
        }
    }
}
