//! The generator of ESRGAN (Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018), at
//! the target's size as Real-ESRGAN has it (Wang et al., ICCV Workshops 2021). Keys as in BasicSR.

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::doubled;
use crate::nn::{ConvLayer, Ctx, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pixels into channels, residual in residual dense blocks, and back to the input's size by repeated pixels and convolutions.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output `[n, spatial.., channels]` without bounds. Keys
/// `conv_first`, `body.{i}.rdb{1..3}.conv{1..5}`, `conv_body`, `conv_up{1..}`, `conv_hr`, `conv_last`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rrdb {
    /// Channels of the blocks.
    pub width: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Channels that a convolution of a dense block adds.
    pub growth: usize,
    /// How many times smaller than the image the blocks work: 1, 2, 4 or 8.
    pub scale: usize,
}

impl Default for Rrdb {
    fn default() -> Self {
        Rrdb { width: 64, blocks: 23, growth: 32, scale: 4 }
    }
}

impl Network for Rrdb {
    fn signature(&self) -> Signature {
        Signature::Dense
    }

    fn multiple(&self) -> usize {
        self.scale
    }

    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require([1, 2, 4, 8].contains(&self.scale), "scale", "among 1, 2, 4 and 8")?;
        limits.require((1..=64).contains(&self.blocks), "blocks", "between 1 and 64")?;
        limits.width("width", self.width, 512)?;
        limits.width("growth", self.growth, 256)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Torch);
        vec![padded(x, self.scale, |x| self.inside(cx, x, wanted.channels))]
    }
}

impl Rrdb {
    fn inside(&self, cx: &Ctx, x: &Var, channels: usize) -> Var {
        let layer = || ConvLayer::same(self.width, 3);
        // Residual branches begin at a tenth of He's initial weights.
        let small = cx.with_scheme(Scheme::Gain(0.1 * std::f64::consts::SQRT_2));
        let first = cx.conv("conv_first", &x.pixel_unshuffle(self.scale), layer());
        let inner = (0..self.blocks).fold(first.clone(), |h, i| small.at("body").at(i).rrdb(&h, self.growth));
        let mut h = first.add(&cx.conv("conv_body", &inner, layer()));
        cx.feature("conv_body", &h);
        for i in 1..=self.scale.ilog2() {
            h = cx.conv(format!("conv_up{i}"), &doubled(&h), layer()).leaky_relu(0.2);
        }
        let h = cx.conv("conv_hr", &h, layer()).leaky_relu(0.2);
        cx.conv("conv_last", &h, ConvLayer::same(channels, 3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// The published 16,697,987 of colour images that are enlarged four times, and 15 times as many inputs of the first layer.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let of = |net: Rrdb| describe(&net, &[1, 17, 18, 3], 3);
        let (spec, y) = of(Rrdb::default());
        assert_eq!(spec.param_count(), 16_697_987 + 15 * 3 * 64 * 9);
        assert_eq!(y[0][..], [1, 17, 18, 3]);
        let plain = of(Rrdb { scale: 1, ..Default::default() }).0.param_count();
        assert_eq!(plain, 16_697_987 - 2 * (64 * 64 * 9 + 64));
    }
}
