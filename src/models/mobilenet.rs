//! MobileNetV2 (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018). Keys as in torchvision.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::pooled;
use crate::nn::blocks::residual::relu6;
use crate::nn::{ConvLayer, Ctx, InvertedResidual, Norm, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A convolution 3x3/2, seventeen inverted residual blocks that halve the resolution four times, a 1x1 convolution, mean over space
/// and a linear layer.
///
/// Input `[n, spatial.., c]` in two or three dimensions, output logits `[n, channels]`. Keys `features.{0..18}`, `classifier.1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MobilenetV2 {
    /// Factor of all channels, which are then rounded to multiples of 8.
    pub width: f64,
    /// Normalisation.
    pub norm: Norm,
    /// Probability of dropout before the linear layer.
    pub dropout: f64,
}

impl Default for MobilenetV2 {
    fn default() -> Self {
        MobilenetV2 { width: 1.0, norm: Norm::Batch, dropout: 0.2 }
    }
}

/// Expansion, channels, blocks and first stride of each stage.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

impl MobilenetV2 {
    /// The nearest multiple of 8, at least 8 and not below nine tenths of what is asked for.
    fn channels(&self, channels: usize) -> usize {
        let wanted = channels as f64 * self.width;
        let near = ((wanted as usize + 4) / 8 * 8).max(8);
        if (near as f64) < 0.9 * wanted { near + 8 } else { near }
    }
}

impl Network for MobilenetV2 {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require(self.width > 0.0 && self.width <= 4.0, "width", "above 0 and at most 4")?;
        limits.dropout(self.dropout)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let (inner, norm, bias) = (cx.at("features"), self.norm, self.norm.wants_bias());
        let layer = ConvLayer::same(self.channels(32), 3).stride(2).bias(bias);
        let mut h = relu6(&inner.at(0).conv_norm([0, 1], x, layer, norm, None));
        let mut index = 1;
        for (expansion, channels, blocks, first) in STAGES {
            for b in 0..blocks {
                let stride = if b == 0 { first } else { 1 };
                let block = InvertedResidual { out: self.channels(channels), expansion, stride, norm };
                h = block.apply(&inner.at(index), &h);
                index += 1;
            }
            inner.feature(index - 1, &h);
        }
        // Narrower networks keep the last layer's width.
        let last = ConvLayer::new(((1280.0 * self.width.max(1.0)) as usize).next_multiple_of(8), 1);
        let h = relu6(&inner.at(index).conv_norm([0, 1], &h, last.bias(bias), norm, None));
        vec![cx.linear("classifier.1", &cx.dropout(&pooled(&h), self.dropout), wanted.channels, true)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// torchvision's counts.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let of = |width| {
            let net = MobilenetV2 { width, ..Default::default() };
            describe(&net, &[2, 64, 64, 3], 1000)
        };
        let (spec, y) = of(1.0);
        assert_eq!((spec.param_count(), &y[0][..]), (3_504_872, &[2, 1000][..]));
        assert_eq!(of(0.35).0.param_count(), 1_677_128);
        assert_eq!(spec.params[0].key, "features.0.0.weight");
    }
}
