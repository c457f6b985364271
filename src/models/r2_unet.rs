//! R2U-Net (Alom et al., "Recurrent Residual Convolutional Neural Network based on U-Net", 2018), in the form and under the keys of
//! LeeJunHyun's Image_Segmentation.

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::doubled;
use crate::nn::{Activation, ConvLayer, Ctx, Norm, Scheme};
use crate::ops::concat::concat;
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A U-Net whose levels are a 1x1 convolution and a residual branch of two recurrent convolutions.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output logits `[n, spatial.., channels]`. Keys
/// `RRCNN{i}.{RCNN.{0,1}.conv.{0,1}, Conv_1x1}`, `Up{i}.up.{1,2}`, `Up_RRCNN{i}`, `Conv_1x1`, with levels from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct R2Unet {
    /// Channels of the first level; doubled with every level.
    pub base: usize,
    /// How often the resolution is halved.
    pub downs: usize,
    /// How often a recurrent convolution sees its own output.
    pub steps: usize,
    /// Normalisation. Batch norm's running statistics mix all steps.
    pub norm: Norm,
}

impl Default for R2Unet {
    fn default() -> Self {
        R2Unet { base: 64, downs: 4, steps: 2, norm: Norm::Batch }
    }
}

impl Network for R2Unet {
    fn signature(&self) -> Signature {
        Signature::Dense
    }

    fn multiple(&self) -> usize {
        1 << self.downs
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require((1..=6).contains(&self.downs), "downs", "between 1 and 6")?;
        limits.require(self.steps <= 16, "steps", "at most 16; 2 or 3 in the paper")?;
        limits.width("base", self.base, 512)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Torch);
        vec![padded(x, self.multiple(), |x| self.inside(cx, x, wanted.channels))]
    }
}

impl R2Unet {
    fn inside(&self, cx: &Ctx, x: &Var, channels: usize) -> Var {
        let dims = x.rank().saturating_sub(2);
        let mut skips: Vec<Var> = Vec::new();
        for level in 0..=self.downs {
            let below = skips.last().map_or(x.clone(), |above| above.max_pool(&Window::new(dims, 2, 2)));
            skips.push(self.block(&cx.at(format!("RRCNN{}", level + 1)), &below, level));
        }
        let mut h = skips[self.downs].clone();
        for level in (0..self.downs).rev() {
            let layer = ConvLayer::same(self.base << level, 3);
            let up = cx.at(format!("Up{}.up", level + 2));
            let up = up.conv_norm([1, 2], &doubled(&h), layer, self.norm, Some(Activation::Relu));
            let seen = concat(&[&skips[level], &up], dims + 1);
            h = self.block(&cx.at(format!("Up_RRCNN{}", level + 2)), &seen, level);
        }
        cx.conv("Conv_1x1", &h, ConvLayer::new(channels, 1))
    }

    fn block(&self, cx: &Ctx, x: &Var, level: usize) -> Var {
        let x = cx.conv("Conv_1x1", x, ConvLayer::new(self.base << level, 1));
        let branch =
            (0..2).fold(x.clone(), |h, i| cx.at("RCNN").at(i).recurrent_conv(&h, self.norm, self.steps));
        x.add(&branch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// The counts of the reference for one channel and for colour, whatever the steps.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let of = |steps, inputs| {
            describe(&R2Unet { steps, ..Default::default() }, &[1, 32, 32, inputs], 1).0.param_count()
        };
        assert_eq!([of(2, 1), of(3, 3)], [39_091_265, 39_091_393]);
        let small = R2Unet { base: 2, downs: 2, ..Default::default() };
        assert_eq!(describe(&small, &[1, 9, 8, 7, 1], 3).1[0][..], [1, 9, 8, 7, 3]);
    }
}
