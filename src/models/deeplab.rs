//! DeepLabv3 (Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017). Keys as in torchvision.

use super::network::{Limits, Network, Signature, Wanted};
use super::resnet::Resnet;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{Activation, ConvLayer, Ctx, Norm, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A ResNet whose last two stages dilate in place of halving the resolution, atrous spatial pyramid pooling and two convolutions;
/// logits at an eighth of the resolution, enlarged.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output logits `[n, spatial.., channels]`. Keys
/// `backbone.{conv1, bn1, layer{1..4}}`, `classifier.{0.convs, 0.project, 1, 2, 4}`, `aux_classifier.{0, 1, 4}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeeplabV3 {
    /// Layers of the ResNet: 18, 34, 50, 101 or 152.
    pub depth: usize,
    /// Channels of its first stage; doubled with every stage.
    pub base: usize,
    /// Channels of the pyramid.
    pub width: usize,
    /// Dilations of the pyramid's 3x3 convolutions.
    pub dilations: Vec<usize>,
    /// Normalisation.
    pub norm: Norm,
    /// Probability of dropout behind the pyramid.
    pub dropout: f64,
    /// Whether the last stage but one predicts too; its logits take part in the loss.
    pub deep_supervision: bool,
}

impl Default for DeeplabV3 {
    fn default() -> Self {
        DeeplabV3 {
            depth: 50,
            base: 64,
            width: 256,
            dilations: vec![12, 24, 36],
            norm: Norm::Batch,
            dropout: 0.5,
            deep_supervision: false,
        }
    }
}

impl DeeplabV3 {
    fn backbone(&self) -> Resnet {
        Resnet { depth: self.depth, base: self.base, norm: self.norm, ..Default::default() }
    }

    /// 3x3 convolution to `width` channels at the keys 0 and 1 behind `first`, dropout, 1x1 to logits at key 4, enlarged.
    fn head(&self, cx: &Ctx, first: usize, x: &Var, width: usize, to: (&Var, usize), dropout: f64) -> Var {
        let layer = ConvLayer::same(width, 3).bias(self.norm.wants_bias());
        let h = cx.conv_norm([first, first + 1], x, layer, self.norm, Some(Activation::Relu));
        let logits = cx.conv(4, &cx.dropout(&h, dropout), ConvLayer::new(to.1, 1));
        logits.resize_linear(&to.0.shape()[1..to.0.rank().max(2) - 1], false)
    }
}

impl Network for DeeplabV3 {
    fn signature(&self) -> Signature {
        Signature::Dense
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.width("width", self.width, 2048)?;
        let fine =
            (1..=8).contains(&self.dilations.len()) && self.dilations.iter().all(|d| (1..=64).contains(d));
        limits.require(fine, "dilations", "in number between 1 and 8, each between 1 and 64")?;
        limits.dropout(self.dropout)?;
        self.backbone().check(limits)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let stages = self.backbone().stages(&cx.at("backbone"), x, 2);
        let inner = cx.at("classifier");
        let seen = inner.at(0).aspp(&stages[3], self.width, &self.dilations, self.norm, self.dropout);
        let to = (x, wanted.channels);
        let mut all = vec![self.head(&inner, 1, &seen, self.width, to, 0.0)];
        if self.deep_supervision {
            let width = stages[2].channels() / 4;
            all.push(self.head(&cx.at("aux_classifier"), 0, &stages[2], width, to, 0.1));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// torchvision's counts for 21 classes, with and without the auxiliary classifier.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let of = |deep_supervision| {
            let net = DeeplabV3 { deep_supervision, ..Default::default() };
            describe(&net, &[1, 41, 50, 3], 21)
        };
        let (spec, y) = of(true);
        assert_eq!((spec.param_count(), y.len(), &y[1][..]), (42_004_074, 2, &[1, 41, 50, 21][..]));
        assert_eq!(of(false).0.param_count(), 39_638_869);
    }
}
