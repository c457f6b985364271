//! Vox2Vox (Cirillo et al., "Vox2Vox: 3D-GAN for Brain Tumour Segmentation", BrainLes 2020): pix2pix's idea in 3D, label maps in
//! place of images. Layers as in the authors' code; the keys are ours.

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm, Scheme};
use crate::ops::concat::concat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The generator: convolutions 4/2 down, a bottleneck of four convolutions that also pass on what they see before their norm,
/// transposed convolutions up with skips by concatenation.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output logits `[n, spatial.., channels]`. Keys `down.{i}`,
/// `middle.{i}`, `up.{i}`, each `{conv, norm}`; `head`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Vox2Vox {
    /// Channels of the first level; doubled with every level.
    pub base: usize,
    /// Convolutions of the bottleneck.
    pub middle: usize,
    /// Probability of dropout on the way down and up.
    pub dropout: f64,
}

impl Default for Vox2Vox {
    fn default() -> Self {
        Vox2Vox { base: 64, middle: 4, dropout: 0.2 }
    }
}

/// Keras's slope of the leaky ReLU.
const SLOPE: f64 = 0.3;

impl Network for Vox2Vox {
    fn signature(&self) -> Signature {
        Signature::Dense
    }

    fn multiple(&self) -> usize {
        16
    }

    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.width("base", self.base, 256)?;
        limits.require(self.middle <= 16, "middle", "at most 16; 4 in the paper")?;
        limits.dropout(self.dropout)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        vec![padded(x, self.multiple(), |x| self.inside(cx, x, wanted.channels))]
    }
}

impl Vox2Vox {
    fn inside(&self, cx: &Ctx, x: &Var, channels: usize) -> Var {
        let (last, dims) = (x.rank() - 1, x.rank() - 2);
        let normed = |cx: &Ctx, h: &Var| cx.norm("norm", h, Norm::InstanceAffine).leaky_relu(SLOPE);
        let mut skips = vec![x.clone()];
        for i in 0..4 {
            let cx = cx.at("down").at(i);
            let layer = ConvLayer::new(self.base << i, 4).stride(2).padding(1);
            let h = cx.conv("conv", &skips[i], layer);
            let h = if i == 0 { h.leaky_relu(SLOPE) } else { normed(&cx, &h) };
            skips.push(if i < 3 { cx.dropout(&h, self.dropout) } else { h });
        }
        let mut h = skips[4].clone();
        for i in 0..self.middle {
            let cx = cx.at("middle").at(i);
            // An even kernel keeps the size when one more element is padded behind.
            let pads: Vec<(i64, i64)> =
                [(0, 0)].into_iter().chain(vec![(1, 2); dims]).chain([(0, 0)]).collect();
            let y = cx.conv("conv", &h.pad_zero(&pads), ConvLayer::new(self.base << 3, 4));
            h = concat(&[&normed(&cx, &y), &y], last);
        }
        for i in (0..3).rev() {
            let cx = cx.at("up").at(i);
            let layer = ConvLayer::transposed(self.base << i, 4).stride(2).padding(1);
            let y = normed(&cx, &cx.conv("conv", &h, layer));
            h = cx.dropout(&concat(&[&y, &skips[i + 1]], last), self.dropout);
        }
        cx.conv("head", &h, ConvLayer::transposed(channels, 4).stride(2).padding(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// The authors' network for four sequences and four labels.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let (spec, y) = describe(&Vox2Vox::default(), &[1, 16, 16, 16, 4], 4);
        assert_eq!(spec.param_count(), 150_530_052);
        assert_eq!(y[0][..], [1, 16, 16, 16, 4]);
    }
}
