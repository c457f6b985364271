//! MWCNN (Liu et al., "Multi-level Wavelet-CNN for Image Restoration", CVPR Workshops 2018): a U-Net that changes resolution by Haar
//! wavelets, which lose nothing. The keys are ours.

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::wavelet::{haar, inverse_haar};
use crate::nn::{Activation, ConvLayer, Ctx, Norm, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// At every resolution wavelets' bands and convolutions 3x3 down, as many up, whose last gives the bands of the resolution above;
/// skips are added. The output is added to the input.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output of the same channels. Keys `down.{level}.{i}` and
/// `up.{level}.{i}`, each `{conv, norm}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mwcnn {
    /// Channels of the levels.
    pub widths: Vec<usize>,
    /// Convolutions of a level, on the way down and up.
    pub convs: usize,
    /// Normalisation of all but the last layer.
    pub norm: Norm,
}

impl Default for Mwcnn {
    fn default() -> Self {
        Mwcnn { widths: vec![160, 256, 256], convs: 4, norm: Norm::Batch }
    }
}

impl Network for Mwcnn {
    fn signature(&self) -> Signature {
        Signature::Dense
    }

    fn multiple(&self) -> usize {
        1 << self.widths.len()
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        let fine = (1..=6).contains(&self.widths.len()) && self.widths.iter().all(|w| (1..=1024).contains(w));
        limits.require(fine, "widths", "in number between 1 and 6, each between 1 and 1024")?;
        limits.require((1..=16).contains(&self.convs), "convs", "between 1 and 16")?;
        limits.same_channels()
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        vec![padded(x, self.multiple(), |x| self.inside(cx, x))]
    }
}

impl Mwcnn {
    fn inside(&self, cx: &Ctx, x: &Var) -> Var {
        let bands = 1 << x.rank().saturating_sub(2);
        let mut above = vec![x.clone()];
        for (level, &width) in self.widths.iter().enumerate() {
            let cx = cx.at("down").at(level);
            let h = haar(&above[level]);
            above.push((0..self.convs).fold(h, |h, i| self.unit(&cx.at(i), &h, width)));
        }
        let last = self.widths.len() - 1;
        let mut h = above[last + 1].clone();
        for level in (0..=last).rev() {
            let cx = cx.at("up").at(level);
            h = (1..self.convs).fold(h, |h, i| self.unit(&cx.at(i - 1), &h, self.widths[level]));
            let (cx, width) = (cx.at(self.convs - 1), bands * above[level].channels());
            // The last layer's bands may have any sign.
            h = if level > 0 {
                self.unit(&cx, &h, width)
            } else {
                cx.conv("conv", &h, ConvLayer::same(width, 3))
            };
            h = above[level].add(&inverse_haar(&h));
        }
        h
    }

    fn unit(&self, cx: &Ctx, x: &Var, width: usize) -> Var {
        let layer = ConvLayer::same(width, 3).bias(self.norm.wants_bias());
        cx.conv_norm(["conv", "norm"], x, layer, self.norm, Some(Activation::Relu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// The 24 layers of the paper, counted by PyTorch; and any size in three dimensions.
    #[test]
    fn parameters_are_those_of_the_paper() {
        let (spec, _) = describe(&Mwcnn::default(), &[1, 16, 16, 1], 1);
        let convs = spec.params.iter().filter(|p| p.key.ends_with("conv.weight")).count();
        assert_eq!((spec.param_count(), convs), (16_152_260, 24));
        let small = Mwcnn { widths: vec![4, 5], convs: 2, ..Default::default() };
        assert_eq!(describe(&small, &[1, 7, 8, 9, 2], 2).1[0][..], [1, 7, 8, 9, 2]);
    }
}
