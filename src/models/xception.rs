//! Xception (Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017). Keys as in timm.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::pooled;
use crate::nn::{Activation, ConvLayer, Ctx, Norm, Scheme};
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Two convolutions, three residual blocks of depthwise separable convolutions that halve the resolution, blocks that keep it, one
/// more that halves it, two separable convolutions, mean over space and a linear layer.
///
/// Input `[n, spatial.., c]` in two or three dimensions, output logits `[n, channels]`. Keys `conv{i}`, `bn{i}`,
/// `block{i}.{rep.{n}, skip, skipbn}`, of a separable convolution `{conv1, pointwise}`; `fc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Xception {
    /// Factor of all channels.
    pub width: f64,
    /// Blocks that keep the resolution.
    pub middle: usize,
    /// Normalisation.
    pub norm: Norm,
    /// Probability of dropout before the linear layer.
    pub dropout: f64,
}

impl Default for Xception {
    fn default() -> Self {
        Xception { width: 1.0, middle: 8, norm: Norm::Batch, dropout: 0.0 }
    }
}

impl Network for Xception {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require(self.width > 0.0 && self.width <= 4.0, "width", "above 0 and at most 4")?;
        limits.require(self.middle <= 64, "middle", "at most 64; 8 in the paper")?;
        limits.dropout(self.dropout)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let (relu, bias) = (Some(Activation::Relu), self.norm.wants_bias());
        let layer = |width| ConvLayer::new(self.channels(width), 3).bias(bias);
        let h = cx.conv_norm(["conv1", "bn1"], x, layer(32).stride(2), self.norm, relu);
        let mut h = cx.conv_norm(["conv2", "bn2"], &h, layer(64), self.norm, relu);
        let middle = vec![([728; 3].as_slice(), 1); self.middle];
        let entry = [([128; 2].as_slice(), 2), (&[256; 2], 2), (&[728; 2], 2)];
        let blocks = entry.into_iter().chain(middle).chain([([728, 1024].as_slice(), 2)]);
        for (i, (widths, stride)) in (1..).zip(blocks) {
            h = self.block(&cx.at(format!("block{i}")), &h, widths, stride, i > 1);
            cx.feature(format!("block{i}"), &h);
        }
        for (i, width) in [(3, 1536), (4, 2048)] {
            h = self.separable(&cx.at(format!("conv{i}")), &h, width);
            h = cx.norm(format!("bn{i}"), &h, self.norm).relu();
        }
        vec![cx.linear("fc", &cx.dropout(&pooled(&h), self.dropout), wanted.channels, true)]
    }
}

impl Xception {
    fn channels(&self, width: usize) -> usize {
        ((width as f64 * self.width).round() as usize).max(1)
    }

    fn separable(&self, cx: &Ctx, x: &Var, width: usize) -> Var {
        cx.separable_conv(["conv1", "pointwise"], x, |c| ConvLayer::same(c, 3), self.channels(width))
    }

    /// ReLU (but of the first block's first layer), separable convolution and norm per width, max pooling; beside them nothing, or
    /// a 1x1 convolution where extents or channels change.
    fn block(&self, cx: &Ctx, x: &Var, widths: &[usize], stride: usize, active: bool) -> Var {
        let (mut h, dims, rep) = (x.clone(), x.rank().saturating_sub(2), cx.at("rep"));
        for (k, &width) in widths.iter().enumerate() {
            let seen = if active || k > 0 { h.relu() } else { h };
            let at = 3 * k + usize::from(active);
            h = rep.norm(at + 1, &self.separable(&rep.at(at), &seen, width), self.norm);
        }
        if stride > 1 {
            h = h.max_pool(&Window { padding: vec![1; dims], ..Window::new(dims, 3, stride) });
        }
        if stride == 1 && h.channels() == x.channels() {
            return h.add(x);
        }
        let layer = ConvLayer::new(h.channels(), 1).stride(stride).bias(self.norm.wants_bias());
        h.add(&cx.conv_norm(["skip", "skipbn"], x, layer, self.norm, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// timm's count.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let (spec, y) = describe(&Xception::default(), &[2, 71, 64, 3], 1000);
        assert_eq!((spec.param_count(), &y[0][..]), (22_855_952, &[2, 1000][..]));
        assert!(spec.params.iter().any(|p| p.key == "block12.rep.4.conv1.weight"));
    }
}
