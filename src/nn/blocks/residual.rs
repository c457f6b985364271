//! Residual blocks: a branch of convolutions beside a shortcut.

use super::Attention;
use crate::graph::Var;
use crate::nn::{Activation, ConvLayer, Ctx, Norm};

/// What ResNet's blocks differ in.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    /// Channels of the 3x3 convolutions; a bottleneck gives [`EXPANSION`] times as many.
    pub width: usize,
    /// Whether it is a bottleneck: 1x1, 3x3, 1x1 in place of 3x3, 3x3.
    pub bottleneck: bool,
    /// Steps between outputs.
    pub stride: usize,
    /// Steps between the taps of the 3x3 convolution (of a bottleneck).
    pub dilation: usize,
    /// Normalisation.
    pub norm: Norm,
    /// On the branch.
    pub attention: Attention,
}

/// Channels that a bottleneck gives, by those that it has inside.
pub const EXPANSION: usize = 4;

/// Kernel and share of the width of each convolution, and which of them carries the stride.
type Layers = (&'static [(usize, usize)], usize);

impl Residual {
    fn layers(&self) -> Layers {
        if self.bottleneck { (&[(1, 1), (3, 1), (1, EXPANSION)], 1) } else { (&[(3, 1), (3, 1)], 0) }
    }

    /// Channels that it gives.
    pub fn out(&self) -> usize {
        if self.bottleneck { EXPANSION * self.width } else { self.width }
    }

    fn layer(&self, i: usize) -> ConvLayer {
        let (layers, strided) = self.layers();
        let (kernel, times) = layers[i];
        let stride = if i == strided { self.stride } else { 1 };
        let dilation = if kernel == 3 { self.dilation } else { 1 };
        let layer = ConvLayer::new(times * self.width, kernel).padding(kernel / 2 * dilation);
        layer.stride(stride).dilation(dilation).bias(self.norm.wants_bias())
    }

    fn shortcut(&self) -> ConvLayer {
        ConvLayer::new(self.out(), 1).stride(self.stride).bias(self.norm.wants_bias())
    }

    fn reshapes(&self, x: &Var) -> bool {
        self.stride != 1 || x.channels() != self.out()
    }

    /// Norm behind each convolution, ReLU behind the sum (He et al., CVPR 2016). Keys as in torchvision: `conv{i}`, `bn{i}`,
    /// `downsample.{0,1}`; attention `se`.
    #[track_caller]
    pub fn apply(&self, cx: &Ctx, x: &Var) -> Var {
        let last = self.layers().0.len() - 1;
        let branch = (0..=last).fold(x.clone(), |h, i| {
            let keys = [format!("conv{}", i + 1), format!("bn{}", i + 1)];
            cx.conv_norm(keys, &h, self.layer(i), self.norm, (i < last).then_some(Activation::Relu))
        });
        let branch = self.attention.apply(&cx.at("se"), &branch);
        let shortcut = match self.reshapes(x) {
            true => cx.at("downsample").conv_norm([0, 1], x, self.shortcut(), self.norm, None),
            false => x.clone(),
        };
        branch.add(&shortcut).relu()
    }

    /// Norm and ReLU before each convolution, nothing behind the sum (He et al., ECCV 2016). Keys as in timm: `norm{i}`,
    /// `conv{i}`, `downsample.conv`; attention `se`.
    #[track_caller]
    pub fn apply_preactivated(&self, cx: &Ctx, x: &Var) -> Var {
        let active = |i: usize, h: &Var| cx.norm(format!("norm{}", i + 1), h, self.norm).relu();
        let first = active(0, x);
        let shortcut = match self.reshapes(x) {
            true => cx.conv("downsample.conv", &first, self.shortcut()),
            false => x.clone(),
        };
        let branch = (0..self.layers().0.len()).fold(first, |h, i| {
            let h = if i == 0 { h } else { active(i, &h) };
            cx.conv(format!("conv{}", i + 1), &h, self.layer(i))
        });
        self.attention.apply(&cx.at("se"), &branch).add(&shortcut)
    }
}

/// MobileNetV2's block (Sandler et al., CVPR 2018): to many channels, a depthwise 3x3 convolution, back to few without an
/// activation; the input is added where extents and channels allow it.
#[derive(Clone, Copy, Debug)]
pub struct InvertedResidual {
    /// Channels that it gives.
    pub out: usize,
    /// Channels inside, by those that come in; 1 leaves the first convolution out.
    pub expansion: usize,
    /// Steps between outputs.
    pub stride: usize,
    /// Normalisation.
    pub norm: Norm,
}

/// max(0, min(x, 6))
#[track_caller]
pub fn relu6(x: &Var) -> Var {
    x.clamp(0.0, 6.0)
}

impl InvertedResidual {
    /// Keys as in torchvision: `conv.{0,1}.{0,1}`, then `conv.2` and `conv.3`.
    #[track_caller]
    pub fn apply(&self, cx: &Ctx, x: &Var) -> Var {
        let (cx, bias, c) = (cx.at("conv"), self.norm.wants_bias(), x.channels() * self.expansion);
        let (mut h, mut at) = (x.clone(), 0);
        if self.expansion != 1 {
            h = relu6(&cx.at(at).conv_norm([0, 1], &h, ConvLayer::new(c, 1).bias(bias), self.norm, None));
            at += 1;
        }
        let depthwise = ConvLayer::same(c, 3).stride(self.stride).groups(c).bias(bias);
        h = relu6(&cx.at(at).conv_norm([0, 1], &h, depthwise, self.norm, None));
        h = cx.conv_norm([at + 1, at + 2], &h, ConvLayer::new(self.out, 1).bias(bias), self.norm, None);
        if self.stride == 1 && x.channels() == self.out { x.add(&h) } else { h }
    }
}
