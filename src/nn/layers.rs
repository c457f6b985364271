//! Layers under PyTorch's keys: `key.weight`, `key.bias`, `key.running_mean`.

use super::params::{Ctx, Init, Layout};
use crate::graph::Var;
use crate::ops::conv::ConvSpec;
use crate::ops::norm::NormKind;
use crate::ops::optimiser::RunningStats;
use serde::{Deserialize, Serialize};

/// Which normalisation a network uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Batch norm with running statistics, scale and shift.
    Batch,
    /// Instance norm without parameters, as junyanz's code uses it.
    Instance,
    /// None.
    None,
}

impl Norm {
    /// Whether a convolution before this norm has a bias: batch norm's shift makes one useless.
    pub fn wants_bias(self) -> bool {
        self != Norm::Batch
    }
}

/// A pointwise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x where positive, else slope x
    LeakyRelu(f64),
    /// tanh x
    Tanh,
}

impl Activation {
    /// Applies it.
    pub fn apply(self, x: &Var) -> Var {
        match self {
            Activation::Relu => x.relu(),
            Activation::LeakyRelu(s) => x.leaky_relu(s),
            Activation::Tanh => x.tanh(),
        }
    }
}

/// PyTorch's defaults of its norms.
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;
/// The GAN literature's initialisation: N(0, 0.02).
const GAIN: f64 = 0.02;

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
            let w =
                self.param(&format!("{key}.weight"), &shape, Layout::ChannelsSecond, Init::Normal(0.0, GAIN));
            let y = x.conv(&w, &ConvSpec::new(dims, stride, padding));
            self.bias(key, y, out, bias)
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
            let w =
                self.param(&format!("{key}.weight"), &shape, Layout::ChannelsSecond, Init::Normal(0.0, GAIN));
            let y = x.conv_transpose(&w, &ConvSpec::new(dims, stride, padding), &vec![output_padding; dims]);
            self.bias(key, y, out, bias)
        })
    }

    fn bias(&self, key: &str, y: Var, out: usize, bias: bool) -> Var {
        if !bias {
            return y;
        }
        y.add(&self.param(&format!("{key}.bias"), &[out], Layout::Plain, Init::Constant(0.0)))
    }

    /// Normalisation. Batch norm uses and updates batch statistics while training, running ones otherwise.
    #[track_caller]
    pub fn norm(&self, key: &str, x: &Var, norm: Norm) -> Var {
        match norm {
            Norm::None => x.clone(),
            Norm::Instance => self.graph().scope(key, || x.normalize(NormKind::Instance, EPS, None)),
            Norm::Batch => self.graph().scope(key, || self.batch_norm(key, x)),
        }
    }

    fn batch_norm(&self, key: &str, x: &Var) -> Var {
        let c = x.channels();
        let gamma = self.param(&format!("{key}.weight"), &[c], Layout::Plain, Init::Normal(1.0, GAIN));
        let beta = self.param(&format!("{key}.bias"), &[c], Layout::Plain, Init::Constant(0.0));
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
