//! Residual networks for classification (He et al., CVPR 2016), pre-activated ones (He et al., ECCV 2016), and those with squeeze and
//! excite (Hu et al., CVPR 2018) or CBAM (Woo et al., ECCV 2018). Keys as in torchvision, and as in timm where that has none.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::pooled;
use crate::nn::{Activation, Attention, ConvLayer, Ctx, Norm, Residual, Scheme};
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A convolution 7x7/2, max pooling, four stages of residual blocks, each of which but the first halves the resolution, mean over
/// space and a linear layer. The stride of a bottleneck is its 3x3 convolution's.
///
/// Input `[n, spatial.., c]` in two or three dimensions, output logits `[n, channels]`. Keys `conv1`, `bn1`, `layer{i}.{b}`, `fc`;
/// pre-activated `stem.conv`, `stages.{i}.blocks.{b}`, `norm`, `head.fc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resnet {
    /// Layers: 18, 34, 50, 101 or 152.
    pub depth: usize,
    /// Channels of the first stage; doubled with every stage.
    pub base: usize,
    /// Whether norms and activations stand before convolutions, that is ResNet V2.
    pub preactivated: bool,
    /// What branches are weighted by: `none`, `se` or `cbam`.
    pub attention: Attention,
    /// Normalisation.
    pub norm: Norm,
}

impl Default for Resnet {
    fn default() -> Self {
        Resnet { depth: 50, base: 64, preactivated: false, attention: Attention::None, norm: Norm::Batch }
    }
}

/// Whether blocks are bottlenecks, and how many a stage has.
fn stages(depth: usize) -> Option<(bool, [usize; 4])> {
    Some(match depth {
        18 => (false, [2, 2, 2, 2]),
        34 => (false, [3, 4, 6, 3]),
        50 => (true, [3, 4, 6, 3]),
        101 => (true, [3, 4, 23, 3]),
        152 => (true, [3, 8, 36, 3]),
        _ => return None,
    })
}

impl Network for Resnet {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch || self.attention == Attention::Cbam
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require(stages(self.depth).is_some(), "depth", "among 18, 34, 50, 101 and 152")?;
        limits.width("base", self.base, 512)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let h = self.stages(cx, x, 4).swap_remove(3);
        vec![if self.preactivated {
            let head = ConvLayer::new(wanted.channels, 1);
            pooled(&cx.conv("head.fc", &cx.norm("norm", &h, self.norm).relu().global_avg_pool(), head))
        } else {
            cx.linear("fc", &pooled(&h), wanted.channels, true)
        }]
    }
}

impl Resnet {
    /// What the four stages give. Stages from number `dilated` on keep the resolution and dilate in place of it.
    #[track_caller]
    pub(super) fn stages(&self, cx: &Ctx, x: &Var, dilated: usize) -> Vec<Var> {
        let (bottleneck, blocks) = stages(self.depth).unwrap_or((false, [2; 4]));
        let stem = ConvLayer::same(self.base, 7).stride(2).bias(self.norm.wants_bias());
        let mut h = if self.preactivated {
            cx.conv("stem.conv", x, stem.bias(false))
        } else {
            cx.conv_norm(["conv1", "bn1"], x, stem, self.norm, Some(Activation::Relu))
        };
        let dims = x.rank().saturating_sub(2);
        h = h.max_pool(&Window { padding: vec![1; dims], ..Window::new(dims, 3, 2) });
        let (mut dilation, mut all) = (1, Vec::new());
        for (i, blocks) in blocks.into_iter().enumerate() {
            for b in 0..blocks {
                let stride = if b == 0 && i > 0 && i < dilated { 2 } else { 1 };
                let (norm, attention) = (self.norm, self.attention);
                let block = Residual { width: self.base << i, bottleneck, stride, dilation, norm, attention };
                h = if self.preactivated {
                    block.apply_preactivated(&cx.at(format!("stages.{i}.blocks.{b}")), &h)
                } else {
                    block.apply(&cx.at(format!("layer{}.{b}", i + 1)), &h)
                };
                // The first block of a stage still has the dilation of the stage before.
                dilation <<= usize::from(b == 0 && i >= dilated);
            }
            cx.feature(format!("layer{}", i + 1), &h);
            all.push(h.clone());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// torchvision's counts, and timm's of the pre-activated networks and of SE-ResNet-50.
    #[test]
    fn parameters_are_those_of_the_references() {
        let of = |r: Resnet| describe(&r, &[1, 64, 64, 3], 1000).0.param_count();
        let plain = |depth| of(Resnet { depth, ..Default::default() });
        assert_eq!([18, 34, 50].map(plain), [11_689_512, 21_797_672, 25_557_032]);
        assert_eq!([101, 152].map(plain), [44_549_160, 60_192_808]);
        let v2 = |depth| of(Resnet { depth, preactivated: true, ..Default::default() });
        assert_eq!([18, 34, 50, 101].map(v2), [11_687_720, 21_795_880, 25_549_352, 44_541_480]);
        assert_eq!(of(Resnet { attention: Attention::Se, ..Default::default() }), 28_088_024);
    }
}
