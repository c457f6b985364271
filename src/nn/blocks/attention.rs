//! Attention: factors between 0 and 1 by channels, by pixels or both, and weighted means over all pixels.

use crate::graph::Var;
use crate::nn::params::{Init, Layout};
use crate::nn::{ConvLayer, Ctx, Norm};
use crate::ops::concat::concat;
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a residual block's branch is multiplied by before the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// Nothing.
    #[default]
    None,
    /// Squeeze and excite: channels by their means (Hu et al., CVPR 2018).
    Se,
    /// Channels by their means and maxima, then pixels by theirs (CBAM: Woo et al., ECCV 2018).
    Cbam,
}

/// Channels of the inner layer of squeeze and excite are multiples of this.
const DIVISOR: usize = 8;

impl Attention {
    /// Applies it to `x [n, spatial.., c]`. Keys as in timm: `fc1`, `fc2`; `channel.{fc1, fc2}`, `spatial.conv.{conv, bn}`.
    #[track_caller]
    pub fn apply(self, cx: &Ctx, x: &Var) -> Var {
        match self {
            Attention::None => x.clone(),
            Attention::Se => cx.squeeze_excite(x),
            Attention::Cbam => {
                let x = cx.at("channel").channel_attention(x);
                cx.at("spatial").spatial_attention(&x)
            }
        }
    }
}

impl Ctx {
    /// Channels of `x` weighted by what two 1x1 convolutions make of their means; a sixteenth of the channels between.
    #[track_caller]
    pub fn squeeze_excite(&self, x: &Var) -> Var {
        let c = x.channels();
        let inner = ((c / 16 + DIVISOR / 2) / DIVISOR * DIVISOR).max(DIVISOR);
        let h = self.conv("fc1", &x.global_avg_pool(), ConvLayer::new(inner, 1)).relu();
        x.mul(&self.conv("fc2", &h, ConvLayer::new(c, 1)).sigmoid())
    }

    /// As [`Ctx::squeeze_excite`], without biases, by the sum of what the layers make of means and of maxima.
    #[track_caller]
    pub fn channel_attention(&self, x: &Var) -> Var {
        let (c, dims) = (x.channels(), x.rank().saturating_sub(2));
        let of = |pooled: &Var| {
            let h = self.conv("fc1", pooled, ConvLayer::new((c / 16).max(1), 1).bias(false)).relu();
            self.conv("fc2", &h, ConvLayer::new(c, 1).bias(false))
        };
        let all = x.shape()[1..=dims].to_vec();
        let window = Window { kernel: all.clone(), stride: all, ..Window::new(dims, 1, 1) };
        x.mul(&of(&x.global_avg_pool()).add(&of(&x.max_pool(&window))).sigmoid())
    }

    /// Pixels of `x` weighted by what a 7x7 convolution and batch norm make of their channels' means and maxima.
    #[track_caller]
    pub fn spatial_attention(&self, x: &Var) -> Var {
        let (shape, last) = (x.shape(), x.rank().saturating_sub(1));
        let c = x.channels();
        let one = shape.with(last, 1);
        // A maximum over channels is a pooling over the pixel's channels as if they were a line.
        let line = x.reshape(&[shape.numel() / c, c, 1]);
        let most = line.max_pool(&Window::new(1, c, c)).reshape(&one);
        let seen = concat(&[&x.mean(&[last]), &most], last);
        let cx = self.at("conv");
        let layer = ConvLayer::same(1, 7).bias(false);
        x.mul(&cx.conv_norm(["conv", "bn"], &seen, layer, Norm::Batch, None).sigmoid())
    }

    /// Attention gate (Oktay et al. 2018, as in LeeJunHyun's code): what `gate` and `x` say of each pixel, 1x1 convolutions to
    /// `inner` channels and to one, weighs `x`. Keys `W_g.{0,1}`, `W_x.{0,1}`, `psi.{0,1}`.
    #[track_caller]
    pub fn attention_gate(&self, gate: &Var, x: &Var, inner: usize, norm: Norm) -> Var {
        let one = |key: &str, x: &Var, width: usize| {
            self.at(key).conv_norm([0, 1], x, ConvLayer::new(width, 1), norm, None)
        };
        let h = one("W_g", gate, inner).add(&one("W_x", x, inner)).relu();
        x.mul(&one("psi", &h, 1).sigmoid())
    }

    /// Self-attention (SAGAN: Zhang et al., ICML 2019; a non-local block: Wang et al., CVPR 2018): every pixel adds a mean of
    /// all pixels, weighted by their likeness. Queries and keys have an eighth of the channels, values half; keys and values
    /// come at half the resolution. Keys `theta`, `phi`, `g`, `o`, and the sum's factor `gamma`, which begins at 0.
    #[track_caller]
    pub fn self_attention(&self, x: &Var, layer: impl Fn(usize) -> ConvLayer) -> Var {
        let (shape, dims) = (x.shape(), x.rank().saturating_sub(2));
        let (n, c) = (shape[0], x.channels());
        let flat = |v: &Var| v.reshape(&[n, v.shape().numel() / n / v.channels(), v.channels()]);
        let halved = |v: &Var| v.max_pool(&Window::new(dims, 2, 2));
        let queries = flat(&self.conv("theta", x, layer((c / 8).max(1))));
        let keys = flat(&halved(&self.conv("phi", x, layer((c / 8).max(1)))));
        let values = flat(&halved(&self.conv("g", x, layer((c / 2).max(1)))));
        // Not scaled by the number of channels, as in the papers.
        let weights = queries.matmul(&keys, false, true).softmax(2);
        let seen = weights.matmul(&values, false, false);
        let seen = seen.reshape(&shape.with(dims + 1, values.channels()));
        let gamma = self.param("gamma", &[1], Layout::Plain, Init::Constant(0.0));
        x.add(&self.conv("o", &seen, layer(c)).mul(&gamma))
    }
}
