//! Attention U-Net (Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018), in the form and under the
//! keys of LeeJunHyun's Image_Segmentation.

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

/// A U-Net whose skips are weighted, pixel by pixel, by gates that see the skip and what comes from below; two convolutions 3x3
/// a level, max pooling down, repeated pixels and a convolution up.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output logits `[n, spatial.., channels]`. Keys
/// `Conv{i}.conv`, `Up{i}.up`, `Att{i}.{W_g, W_x, psi}`, `Up_conv{i}.conv`, `Conv_1x1`, with levels from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AttentionUnet {
    /// Channels of the first level; doubled with every level.
    pub base: usize,
    /// How often the resolution is halved.
    pub downs: usize,
    /// Normalisation.
    pub norm: Norm,
}

impl Default for AttentionUnet {
    fn default() -> Self {
        AttentionUnet { base: 64, downs: 4, norm: Norm::Batch }
    }
}

impl Network for AttentionUnet {
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
        limits.width("base", self.base, 512)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Torch);
        vec![padded(x, self.multiple(), |x| self.inside(cx, x, wanted.channels))]
    }
}

impl AttentionUnet {
    fn inside(&self, cx: &Ctx, x: &Var, channels: usize) -> Var {
        let dims = x.rank().saturating_sub(2);
        let mut skips: Vec<Var> = Vec::new();
        for level in 0..=self.downs {
            let below = skips.last().map_or(x.clone(), |above| above.max_pool(&Window::new(dims, 2, 2)));
            let cx = cx.at(format!("Conv{}.conv", level + 1));
            skips.push(self.convs(&cx, [0, 3], &below, level));
        }
        let mut h = skips[self.downs].clone();
        for level in (0..self.downs).rev() {
            let at = |name: &str| cx.at(format!("{name}{}", level + 2));
            let up = self.convs(&at("Up").at("up"), [1], &doubled(&h), level);
            let skip =
                at("Att").attention_gate(&up, &skips[level], (self.base << level).div_ceil(2), self.norm);
            h = self.convs(&at("Up_conv").at("conv"), [0, 3], &concat(&[&skip, &up], dims + 1), level);
        }
        cx.conv("Conv_1x1", &h, ConvLayer::new(channels, 1))
    }

    /// Convolutions with norm and ReLU at the given keys.
    fn convs<const N: usize>(&self, cx: &Ctx, keys: [usize; N], x: &Var, level: usize) -> Var {
        let layer = || ConvLayer::same(self.base << level, 3);
        let relu = Some(Activation::Relu);
        keys.into_iter().fold(x.clone(), |h, key| cx.conv_norm([key, key + 1], &h, layer(), self.norm, relu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// The counts of the reference for one channel and for colour.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let of = |inputs| describe(&AttentionUnet::default(), &[1, 32, 32, inputs], 1).0.param_count();
        assert_eq!([of(1), of(3)], [34_877_421, 34_878_573]);
        let small = AttentionUnet { base: 2, downs: 2, ..Default::default() };
        assert_eq!(describe(&small, &[1, 9, 8, 7, 1], 3).1[0][..], [1, 9, 8, 7, 3]);
    }
}
