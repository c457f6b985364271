//! DenseNet (Huang et al., "Densely Connected Convolutional Networks", CVPR 2017). Keys as in torchvision.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::pooled;
use crate::nn::{Activation, ConvLayer, Ctx, Norm, Scheme};
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A convolution 7x7/2, max pooling, dense blocks, between them convolutions that halve the channels and pooling that halves the
/// resolution; mean over space and a linear layer.
///
/// Input `[n, spatial.., c]` in two or three dimensions, output logits `[n, channels]`. Keys
/// `features.{conv0, norm0, denseblock{i}, transition{i}.{norm, conv}, norm5}`, `classifier`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Densenet {
    /// Layers of each dense block: 6, 12, 24, 16 in DenseNet-121; 6, 12, 48, 32 in DenseNet-201.
    pub blocks: Vec<usize>,
    /// Channels that a layer adds.
    pub growth: usize,
    /// Channels of the first convolution.
    pub base: usize,
    /// Channels inside a layer, by those that it adds.
    pub bottleneck: usize,
    /// Normalisation.
    pub norm: Norm,
    /// Probability of dropout behind each layer.
    pub dropout: f64,
}

impl Default for Densenet {
    fn default() -> Self {
        Densenet {
            blocks: vec![6, 12, 24, 16],
            growth: 32,
            base: 64,
            bottleneck: 4,
            norm: Norm::Batch,
            dropout: 0.0,
        }
    }
}

impl Network for Densenet {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        let fine = (1..=5).contains(&self.blocks.len()) && self.blocks.iter().all(|b| (1..=64).contains(b));
        limits.require(fine, "blocks", "in number between 1 and 5, each between 1 and 64")?;
        limits.width("growth", self.growth, 128)?;
        limits.width("base", self.base, 512)?;
        limits.require((1..=16).contains(&self.bottleneck), "bottleneck", "between 1 and 16")?;
        limits.dropout(self.dropout)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let (inner, dims, bias) = (cx.at("features"), x.rank().saturating_sub(2), self.norm.wants_bias());
        let layer = ConvLayer::same(self.base, 7).stride(2).bias(bias);
        let h = inner.conv_norm(["conv0", "norm0"], x, layer, self.norm, Some(Activation::Relu));
        let mut h = h.max_pool(&Window { padding: vec![1; dims], ..Window::new(dims, 3, 2) });
        for (i, &layers) in self.blocks.iter().enumerate() {
            let cx = inner.at(format!("denseblock{}", i + 1));
            h = cx.dense_block(&h, layers, self.growth, self.bottleneck, self.norm, self.dropout);
            inner.feature(format!("denseblock{}", i + 1), &h);
            if i + 1 < self.blocks.len() {
                let cx = inner.at(format!("transition{}", i + 1));
                let layer = ConvLayer::new(h.channels() / 2, 1).bias(bias);
                h = cx.conv("conv", &cx.norm("norm", &h, self.norm).relu(), layer);
                h = h.avg_pool(&Window::new(dims, 2, 2), true);
            }
        }
        // The reference's name, whatever the number of blocks.
        let h = inner.norm("norm5", &h, self.norm).relu();
        vec![cx.linear("classifier", &pooled(&h), wanted.channels, true)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// torchvision's counts.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let of = |blocks: &[usize]| {
            let net = Densenet { blocks: blocks.to_vec(), ..Default::default() };
            describe(&net, &[1, 64, 64, 3], 1000)
        };
        let (small, y) = of(&[6, 12, 24, 16]);
        assert_eq!((small.param_count(), &y[0][..]), (7_978_856, &[1, 1000][..]));
        assert_eq!(of(&[6, 12, 48, 32]).0.param_count(), 20_013_928);
        assert!(small.params.iter().any(|p| p.key == "features.denseblock4.denselayer16.norm2.weight"));
    }
}
