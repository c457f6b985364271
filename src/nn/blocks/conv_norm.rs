//! A convolution with what usually follows it, and blocks that are nothing but several of them.

use crate::graph::Var;
use crate::nn::params::{Init, Layout};
use crate::nn::{Activation, ConvLayer, Ctx, Norm};
use std::fmt::Display;

impl Ctx {
    /// Convolution, norm and activation of `x [n, spatial.., c]`; `keys` are those of the convolution and the norm.
    #[track_caller]
    pub fn conv_norm(
        &self,
        [conv, norm_key]: [impl Display; 2],
        x: &Var,
        layer: ConvLayer,
        norm: Norm,
        activation: Option<Activation>,
    ) -> Var {
        let h = self.norm(norm_key, &self.conv(conv, x, layer), norm);
        activation.map_or(h.clone(), |a| a.apply(&h))
    }

    /// Depthwise separable: every channel by itself, then a 1x1 convolution to `out` channels, without anything between.
    /// Keys `<keys[0]>` and `<keys[1]>`.
    #[track_caller]
    pub fn separable_conv(
        &self,
        [depthwise, pointwise]: [impl Display; 2],
        x: &Var,
        layer: impl Fn(usize) -> ConvLayer,
        out: usize,
    ) -> Var {
        let c = x.channels();
        let h = self.conv(depthwise, x, layer(c).groups(c).bias(false));
        self.conv(pointwise, &h, ConvLayer::new(out, 1).bias(false))
    }

    /// Recurrent convolution (Liang and Hu, CVPR 2015): `h = f(x)`, then `h = f(x + h)` so many times, by one `f`: 3x3
    /// convolution, batch norm, ReLU. Keys `conv.0`, `conv.1`.
    #[track_caller]
    pub fn recurrent_conv(&self, x: &Var, norm: Norm, steps: usize) -> Var {
        let cx = self.at("conv");
        let f = |x: &Var| {
            let layer = ConvLayer::same(x.channels(), 3);
            cx.conv_norm([0, 1], x, layer, norm, Some(Activation::Relu))
        };
        (0..steps).fold(f(x), |h, _| f(&x.add(&h)))
    }

    /// PReLU with one slope for all channels, which begins at 0.25 (He et al., ICCV 2015).
    #[track_caller]
    pub fn prelu(&self, key: impl Display, x: &Var) -> Var {
        self.layer(key, |cx| x.prelu(&cx.param("weight", &[1], Layout::Plain, Init::Constant(0.25))))
    }
}

/// `x [n, spatial.., c]` at twice its extents: every pixel repeated.
#[track_caller]
pub fn doubled(x: &Var) -> Var {
    let size: Vec<usize> = x.shape()[1..x.rank().max(2) - 1].iter().map(|e| 2 * e).collect();
    x.resize_nearest(&size)
}

/// The mean over space of `x [n, spatial.., c]`: `[n, c]`.
#[track_caller]
pub fn pooled(x: &Var) -> Var {
    x.global_avg_pool().reshape(&[x.shape()[0], x.channels()])
}

/// All values of each image of `x [n, spatial.., c]` as PyTorch's `flatten` orders them, channels first: `[n, c spatial..]`.
#[track_caller]
pub fn flattened(x: &Var) -> Var {
    let shape = x.shape();
    let last = shape.rank().saturating_sub(1);
    let order: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
    x.permute(&order).reshape(&[shape[0], shape.numel() / shape[0]])
}
