//! The networks of SRGAN (Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", CVPR
//! 2017), the generator at the target's size. The keys are ours.

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::flattened;
use crate::nn::{Activation, ConvLayer, Ctx, Norm, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// SRResNet: pixels into channels, residual blocks, and channels into pixels again.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output in (-1, 1). Keys `input.{conv, prelu}`,
/// `blocks.{i}.{conv1, norm1, prelu, conv2, norm2}`, `trunk.{conv, norm}`, `up.{i}.{conv, prelu}`, `output`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SrganGenerator {
    /// Channels.
    pub width: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// How many times smaller than the image the blocks work: 1, 2, 4 or 8.
    pub scale: usize,
    /// Normalisation.
    pub norm: Norm,
}

/// Eight convolutions 3x3, every second with stride 2, and two linear layers.
///
/// Input `[n, spatial.., c]`, extents multiples of 16; one logit each. Keys `features.{i}.{conv, norm}`, `fc1`, `fc2`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SrganDiscriminator {
    /// Channels of the first two layers; doubled with every second one, up to eight times as many.
    pub width: usize,
    /// Outputs of the first linear layer.
    pub hidden: usize,
    /// Normalisation of all but the first layer.
    pub norm: Norm,
}

impl Default for SrganGenerator {
    fn default() -> Self {
        SrganGenerator { width: 64, blocks: 16, scale: 4, norm: Norm::Batch }
    }
}

impl Default for SrganDiscriminator {
    fn default() -> Self {
        SrganDiscriminator { width: 64, hidden: 1024, norm: Norm::Batch }
    }
}

impl Network for SrganGenerator {
    fn signature(&self) -> Signature {
        Signature::Image
    }

    fn multiple(&self) -> usize {
        self.scale
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require([1, 2, 4, 8].contains(&self.scale), "scale", "among 1, 2, 4 and 8")?;
        limits.require((1..=64).contains(&self.blocks), "blocks", "between 1 and 64")?;
        limits.width("width", self.width, 512)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Torch);
        vec![padded(x, self.scale, |x| self.inside(cx, x, wanted.channels)).tanh()]
    }
}

impl SrganGenerator {
    fn inside(&self, cx: &Ctx, x: &Var, channels: usize) -> Var {
        let (width, norm) = (self.width, self.norm);
        let corners = 1 << x.rank().saturating_sub(2);
        let input = cx.at("input");
        let first = input.conv("conv", &x.pixel_unshuffle(self.scale), ConvLayer::same(width, 9));
        let first = input.prelu("prelu", &first);
        let mut h = first.clone();
        for i in 0..self.blocks {
            let cx = cx.at("blocks").at(i);
            let y = cx.conv_norm(["conv1", "norm1"], &h, ConvLayer::same(width, 3), norm, None);
            let y = cx.prelu("prelu", &y);
            h = h.add(&cx.conv_norm(["conv2", "norm2"], &y, ConvLayer::same(width, 3), norm, None));
        }
        let trunk = cx.at("trunk").conv_norm(["conv", "norm"], &h, ConvLayer::same(width, 3), norm, None);
        h = first.add(&trunk);
        for i in 0..self.scale.ilog2() {
            let cx = cx.at("up").at(i);
            h = cx.prelu("prelu", &cx.conv("conv", &h, ConvLayer::same(corners * width, 3)).pixel_shuffle(2));
        }
        cx.conv("output", &h, ConvLayer::same(channels, 9))
    }
}

impl Network for SrganDiscriminator {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.width("width", self.width, 256)?;
        limits.width("hidden", self.hidden, 8192)?;
        let fits = limits.size.is_none_or(|s| s.iter().all(|e| *e > 0 && e.is_multiple_of(16)));
        limits.require(fits, "width", "in a network whose images have extents that divide by 16")
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Torch);
        let active = Activation::LeakyRelu(0.2);
        let mut h = x.clone();
        for i in 0..8 {
            let norm = if i == 0 { Norm::None } else { self.norm };
            let layer = ConvLayer::same(self.width << (i / 2), 3).stride(1 + i % 2);
            h = cx.at("features").at(i).conv_norm(["conv", "norm"], &h, layer, norm, Some(active));
            cx.feature(format!("features.{i}"), &h);
        }
        let h = active.apply(&cx.linear("fc1", &flattened(&h), self.hidden, true));
        vec![cx.linear("fc2", &h, 1, true).reshape(&[x.shape()[0]])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// The paper's 1,549,462 of colour images that are enlarged four times, and 15 times as many inputs of the first layer; the
    /// discriminator's for its crops.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let (g, y) = describe(&SrganGenerator::default(), &[1, 9, 12, 3], 3);
        assert_eq!((g.param_count(), &y[0][..]), (1_549_462 + 15 * 3 * 64 * 81, &[1, 9, 12, 3][..]));
        let (d, y) = describe(&SrganDiscriminator::default(), &[2, 96, 96, 3], 1);
        assert_eq!((d.param_count(), &y[0][..]), (23_565_505, &[2][..]));
    }
}
