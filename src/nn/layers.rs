//! Layers under PyTorch's keys: `key.weight`, `key.bias`, `key.running_mean`.

use super::params::{Ctx, Layout, Scheme};
use crate::graph::Var;
use crate::ops::conv::ConvSpec;
use crate::ops::norm::NormKind;
use crate::ops::optimiser::RunningStats;
use serde::{Deserialize, Serialize};

/// Which normalisation a network uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

/// PyTorch's defaults of its norms.
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

impl Ctx {
    /// Convolution to `out` channels with a kernel of `kernel` along each axis.
    #[track_caller]
    pub fn conv(
        &self,
        key: &str,
        x: &Var,
        out: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        bias: bool,
    ) -> Var {
        self.graph().scope(key, || {
            let dims = x.rank().saturating_sub(2);
            let shape = [&[out], &vec![kernel; dims][..], &[x.channels()]].concat();
            let fan_in = shape[1..].iter().product();
            let init = self.scheme().weight(fan_in);
            let w = self.param(&format!("{key}.weight"), &shape, Layout::ChannelsSecond, init);
            let y = x.conv(&w, &ConvSpec::new(dims, stride, padding));
            self.bias(key, y, out, fan_in, bias)
        })
    }

    /// Transposed convolution to `out` channels.
    #[track_caller]
    pub fn conv_transpose(
        &self,
        key: &str,
        x: &Var,
        out: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        output_padding: usize,
        bias: bool,
    ) -> Var {
        self.graph().scope(key, || {
            let dims = x.rank().saturating_sub(2);
            let shape = [&[x.channels()], &vec![kernel; dims][..], &[out]].concat();
            // What PyTorch counts as the fan in of a transposed convolution: its weight's second axis.
            let fan_in = out * kernel.pow(dims as u32);
            let init = self.scheme().weight(fan_in);
            let w = self.param(&format!("{key}.weight"), &shape, Layout::ChannelsSecond, init);
            let y = x.conv_transpose(&w, &ConvSpec::new(dims, stride, padding), &vec![output_padding; dims]);
            self.bias(key, y, out, fan_in, bias)
        })
    }

    /// `x w^T + b` over the last axis, `w [out, in]`.
    #[track_caller]
    pub fn linear(&self, key: &str, x: &Var, out: usize, bias: bool) -> Var {
        self.graph().scope(key, || {
            let fan_in = x.channels();
            let init = self.scheme().weight(fan_in);
            let w = self.param(&format!("{key}.weight"), &[out, fan_in], Layout::Plain, init);
            self.bias(key, x.linear(&w, None), out, fan_in, bias)
        })
    }

    fn bias(&self, key: &str, y: Var, out: usize, fan_in: usize, bias: bool) -> Var {
        if !bias {
            return y;
        }
        y.add(&self.param(&format!("{key}.bias"), &[out], Layout::Plain, self.scheme().bias(fan_in)))
    }

    /// Scale and shift of a norm over `c` channels.
    fn affine(&self, key: &str, c: usize) -> [Var; 2] {
        let gamma = self.param(&format!("{key}.weight"), &[c], Layout::Plain, self.scheme().scale());
        [gamma, self.param(&format!("{key}.bias"), &[c], Layout::Plain, Scheme::shift())]
    }

    /// Normalisation. Batch norm uses and updates batch statistics while training, running ones otherwise.
    #[track_caller]
    pub fn norm(&self, key: &str, x: &Var, norm: Norm) -> Var {
        match norm {
            Norm::None => x.clone(),
            Norm::Instance => self.graph().scope(key, || x.normalize(NormKind::Instance, EPS, None)),
            Norm::InstanceAffine => self.affine_norm(key, x, NormKind::Instance),
            Norm::Layer => self.affine_norm(key, x, NormKind::Group(1)),
            Norm::Batch => self.graph().scope(key, || self.batch_norm(key, x)),
        }
    }

    fn affine_norm(&self, key: &str, x: &Var, kind: NormKind) -> Var {
        self.graph().scope(key, || {
            let [gamma, beta] = self.affine(key, x.channels());
            x.normalize(kind, EPS, Some((&gamma, &beta)))
        })
    }

    fn batch_norm(&self, key: &str, x: &Var) -> Var {
        let c = x.channels();
        let [gamma, beta] = self.affine(key, c);
        let offset = self.running(key, c);
        let affine = Some((&gamma, &beta));
        match self.buffers() {
            Some((buffers, _)) if !self.train() => {
                let stats = buffers.stretch(offset, &[2, c]);
                x.normalize_with(&stats, NormKind::Batch, EPS, affine, true)
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
                x.normalize_with(&stats, NormKind::Batch, EPS, affine, false)
            }
        }
    }
}
