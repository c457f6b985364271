//! Layers under PyTorch's keys: `key.weight`, `key.bias`, `key.running_mean`.

use super::params::{Ctx, Layout, Scheme};
use crate::graph::Var;
use crate::ops::norm::NormKind;
use crate::ops::optimiser::RunningStats;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// Which normalisation a network uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Batch norm with running statistics, scale and shift.
    Batch,
    /// Instance norm without parameters, as junyanz's code uses it.
    Instance,
    /// Instance norm with scale and shift, as nnU-Net uses it.
    InstanceAffine,
    /// Over all pixels and channels of an image, with scale and shift per channel: what WGAN-GP's critic takes in place
    /// of batch norm. (PyTorch: a group norm with one group.)
    Layer,
    /// Group norm with so many groups, scale and shift per channel (Wu and He, ECCV 2018). In a recipe: `{ group = 8 }`.
    Group(usize),
    /// None.
    None,
}

impl Norm {
    /// Whether a convolution before this norm has a bias: a norm's own shift makes one useless.
    pub fn wants_bias(self) -> bool {
        matches!(self, Norm::Instance | Norm::None)
    }
}

/// A pointwise non-linearity. In a recipe: `"relu"`, or `{ leaky-relu = 0.01 }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x where positive, else slope x
    LeakyRelu(f64),
    /// x where positive, else alpha (e^x - 1)
    Elu(f64),
    /// x sigmoid(x)
    Silu,
    /// x times the normal distribution function of x
    Gelu,
    /// x tanh(softplus(x))
    Mish,
    /// tanh x
    Tanh,
}

impl Activation {
    /// Applies it.
    pub fn apply(self, x: &Var) -> Var {
        match self {
            Activation::Relu => x.relu(),
            Activation::LeakyRelu(s) => x.leaky_relu(s),
            Activation::Elu(alpha) => x.elu(alpha),
            Activation::Silu => x.silu(),
            Activation::Gelu => x.gelu(),
            Activation::Mish => x.mish(),
            Activation::Tanh => x.tanh(),
        }
    }
}

/// PyTorch's default.
const MOMENTUM: f64 = 0.1;

impl Ctx {
    /// `x w^T + b` over the last axis, `w [out, in]`.
    #[track_caller]
    pub fn linear(&self, key: impl Display, x: &Var, out: usize, bias: bool) -> Var {
        self.layer(key, |cx| {
            let fan_in = x.channels();
            let w = cx.param("weight", &[out, fan_in], Layout::Plain, cx.scheme().weight(fan_in));
            let y = x.linear(&w, None);
            if bias { cx.add_bias(y, out, fan_in) } else { y }
        })
    }

    /// As [`Ctx::linear`], with a bias, its weight divided by the largest singular value (Miyato et al., ICLR 2018).
    #[track_caller]
    pub fn spectral_linear(&self, key: impl Display, x: &Var, out: usize) -> Var {
        self.layer(key, |cx| {
            let fan_in = x.channels();
            let w = cx.spectral_weight(&[out, fan_in], Layout::Plain, cx.scheme().weight(fan_in));
            cx.add_bias(x.linear(&w, None), out, fan_in)
        })
    }

    pub(super) fn add_bias(&self, y: Var, out: usize, fan_in: usize) -> Var {
        y.add(&self.param("bias", &[out], Layout::Plain, self.scheme().bias(fan_in)))
    }

    /// Scale and shift of a norm over `c` channels.
    fn affine(&self, c: usize) -> [Var; 2] {
        let gamma = self.param("weight", &[c], Layout::Plain, self.scheme().scale());
        [gamma, self.param("bias", &[c], Layout::Plain, Scheme::shift())]
    }

    /// Normalisation. Batch norm uses and updates batch statistics while training, running ones otherwise.
    #[track_caller]
    pub fn norm(&self, key: impl Display, x: &Var, norm: Norm) -> Var {
        match norm {
            Norm::None => x.clone(),
            Norm::Instance => self.layer(key, |cx| x.normalize(NormKind::Instance, cx.eps(), None)),
            Norm::InstanceAffine => self.layer(key, |cx| cx.affine_norm(x, NormKind::Instance)),
            Norm::Layer => self.layer(key, |cx| cx.affine_norm(x, NormKind::Group(1))),
            Norm::Group(groups) => self.layer(key, |cx| cx.affine_norm(x, NormKind::Group(groups))),
            Norm::Batch => self.layer(key, |cx| cx.batch_norm(x)),
        }
    }

    fn affine_norm(&self, x: &Var, kind: NormKind) -> Var {
        let [gamma, beta] = self.affine(x.channels());
        x.normalize(kind, self.eps(), Some((&gamma, &beta)))
    }

    fn batch_norm(&self, x: &Var) -> Var {
        let c = x.channels();
        let [gamma, beta] = self.affine(c);
        let offset = self.running(c);
        let affine = Some((&gamma, &beta));
        match self.buffers() {
            Some((buffers, _)) if !self.train() => {
                let stats = buffers.stretch(offset, &[2, c]);
                x.normalize_with(&stats, NormKind::Batch, self.eps(), affine, true)
            }
            bound => {
                let stats = x.norm_stats(NormKind::Batch);
                if let Some((buffers, state)) = bound {
                    let n = (x.shape().numel() / c) as f64;
                    // PyTorch keeps the unbiased variance; of a single value it has none and keeps the biased one.
                    let unbiased = if n > 1.0 { n / (n - 1.0) } else { 1.0 };
                    let op =
                        RunningStats { offset, channels: c, momentum: MOMENTUM, unbiased_factor: unbiased };
                    self.graph().write(state, &buffers.apply(op, &[&stats.detach()]));
                }
                x.normalize_with(&stats, NormKind::Batch, self.eps(), affine, false)
            }
        }
    }
}
