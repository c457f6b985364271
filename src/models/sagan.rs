//! The networks of SAGAN (Zhang et al., "Self-Attention Generative Adversarial Networks", ICML 2019), for images without classes: all
//! weights spectrally normalised, self-attention at one resolution. The keys are ours.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::doubled;
use crate::nn::{ConvLayer, Ctx, Norm, Scheme};
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From noise to images: 4x4, doubled by residual blocks with batch norm until it is as large as wanted.
///
/// Noise `[n, nz]` to images `[n, size, size, channels]` in (-1, 1). Keys `linear`,
/// `blocks.{i}.{norm1, conv1, norm2, conv2, shortcut}`, `attention`, `norm`, `output`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SaganGenerator {
    /// Channels at the image's resolution; doubled with every halving.
    pub base: usize,
    /// Extent at which there is self-attention; none where no block gives it.
    pub attention: usize,
    /// Normalisation.
    pub norm: Norm,
}

/// From images to one logit each: residual blocks without norms down to 4x4, a sum over space, a linear layer.
///
/// Images `[n, size, size, c]` to `[n]`. Keys `blocks.{i}.{conv1, conv2, shortcut}`, `attention`, `linear`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SaganDiscriminator {
    /// Channels of the first block; doubled with every halving.
    pub base: usize,
    /// Extent at which there is self-attention; none where no block gives it.
    pub attention: usize,
}

impl Default for SaganGenerator {
    fn default() -> Self {
        SaganGenerator { base: 64, attention: 32, norm: Norm::Batch }
    }
}

impl Default for SaganDiscriminator {
    fn default() -> Self {
        SaganDiscriminator { base: 64, attention: 32 }
    }
}

fn check(base: usize, limits: &Limits) -> Result<()> {
    limits.width("base", base, 256)?;
    let power = |size: usize| (8..=512).contains(&size) && size.is_power_of_two();
    limits.square(power, "on a power of two from 8 on for SAGAN's networks")
}

fn three(width: usize) -> ConvLayer {
    ConvLayer::same(width, 3).spectral()
}

fn one(width: usize) -> ConvLayer {
    ConvLayer::new(width, 1).spectral()
}

/// Self-attention where `x` has the extent for it.
fn attend(cx: &Ctx, x: &Var, extent: usize) -> Var {
    let none = x.shape()[1] != extent;
    if none { x.clone() } else { cx.at("attention").self_attention(x, |c| one(c).bias(false)) }
}

impl Network for SaganGenerator {
    fn signature(&self) -> Signature {
        Signature::Noise
    }

    fn takes_volumes(&self) -> bool {
        false
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        check(self.base, limits)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, z: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Gain(1.0));
        let (n, blocks) = (z.shape()[0], (wanted.size[0].max(8) / 4).ilog2() as usize);
        let width = self.base << (blocks - 1);
        let z = z.reshape(&[n, z.shape().numel() / n]);
        let mut h = cx.spectral_linear("linear", &z, 16 * width).reshape(&[n, 4, 4, width]);
        for i in 0..blocks {
            let (inner, width) = (cx.at("blocks").at(i), self.base << (blocks - 1 - i));
            let shortcut = inner.conv("shortcut", &doubled(&h), one(width));
            h = doubled(&inner.norm("norm1", &h, self.norm).relu());
            h = inner.norm("norm2", &inner.conv("conv1", &h, three(width)), self.norm).relu();
            h = attend(cx, &shortcut.add(&inner.conv("conv2", &h, three(width))), self.attention);
        }
        let h = cx.norm("norm", &h, self.norm).relu();
        vec![cx.conv("output", &h, three(wanted.channels)).tanh()]
    }
}

impl Network for SaganDiscriminator {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn takes_volumes(&self) -> bool {
        false
    }

    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        check(self.base, limits)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Gain(1.0));
        let downs = (x.shape()[1].max(8) / 4).ilog2() as usize;
        let halved = |h: &Var| h.avg_pool(&Window::new(2, 2, 2), true);
        let mut h = x.clone();
        for i in 0..=downs {
            let (inner, width) = (cx.at("blocks").at(i), self.base << i.min(downs - 1));
            // The image itself is not cut off at 0.
            let seen = if i == 0 { h.clone() } else { h.relu() };
            let y = inner.conv("conv2", &inner.conv("conv1", &seen, three(width)).relu(), three(width));
            h = match i {
                _ if i == downs => h.add(&y),
                _ => halved(&y).add(&inner.conv("shortcut", &halved(&h), one(width))),
            };
            cx.feature(format!("blocks.{i}"), &h);
            h = attend(cx, &h, self.attention);
        }
        let sums = h.relu().sum(&[1, 2]).reshape(&[x.shape()[0], h.channels()]);
        vec![cx.spectral_linear("linear", &sums, 1).reshape(&[x.shape()[0]])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, describe_sized};

    /// Counted by PyTorch from the layers of the authors' code, without classes.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let (g, y) = describe_sized(&SaganGenerator::default(), &[2, 128], 3, &[128, 128]);
        assert_eq!((g.param_count(), &y[0][..]), (32_232_708, &[2, 128, 128, 3][..]));
        let (d, y) = describe(&SaganDiscriminator::default(), &[2, 128, 128, 3], 1);
        assert_eq!((d.param_count(), &y[0][..]), (38_439_618, &[2][..]));
        assert!(d.buffers.iter().any(|b| b.key == "attention.theta.weight_u"));
    }
}
