//! The U-Net for dense prediction, in 2D (Ronneberger et al., MICCAI 2015) and 3D (Cicek et al., MICCAI 2016).

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{Activation, ConvLayer, Ctx, Norm, Scheme};
use crate::ops::concat::concat;
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Two convolutions 3x3 (norm and activation behind each) a level, max pooling down, transposed convolutions 2x2 up,
/// skips by concatenation, a 1x1 convolution at the end. Images keep their size: borders are padded with zeros.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size (it is padded to a multiple of `2^downs` and the
/// output cropped back); output logits `[n, spatial.., channels]`.
///
/// Keys: `enc.{level}` and `dec.{level}` hold the modules convolution (0, 3), norm (1, 4), activation; `upc.{level}`
/// leads from the level below; `head`; with deep supervision `heads.{level}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SegmentationUnet {
    /// Channels of the first level; doubled with every level.
    pub base: usize,
    /// How often the resolution is halved.
    pub downs: usize,
    /// Normalisation.
    pub norm: Norm,
    /// Behind every norm.
    pub activation: Activation,
    /// Where channels are doubled.
    pub widths: Widths,
    /// Whether lower levels of the decoder predict too; their logits take part in the loss.
    pub deep_supervision: bool,
}

/// Where a U-Net doubles its channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Widths {
    /// Behind pooling: both convolutions of a level have the level's width; the way up halves it (2D original).
    #[default]
    AfterPooling,
    /// Before pooling: the second convolution of a level doubles; the way up keeps the width (3D original).
    BeforePooling,
}

impl Default for SegmentationUnet {
    fn default() -> Self {
        SegmentationUnet {
            base: 64,
            downs: 4,
            norm: Norm::Batch,
            activation: Activation::Relu,
            widths: Widths::AfterPooling,
            deep_supervision: false,
        }
    }
}

impl SegmentationUnet {
    /// The 3D original: three halvings, 32 channels, widths doubled before pooling.
    pub fn original_3d() -> Self {
        SegmentationUnet { base: 32, downs: 3, widths: Widths::BeforePooling, ..Default::default() }
    }

    /// Channels behind the first and the second convolution of a level.
    fn width(&self, level: usize) -> [usize; 2] {
        match self.widths {
            Widths::AfterPooling => [self.base << level; 2],
            Widths::BeforePooling => [self.base << level, self.base << (level + 1)],
        }
    }
}

impl Network for SegmentationUnet {
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

    /// With deep supervision also the logits of the lower levels (but the two lowest, as in nnU-Net), the finest first.
    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let (cx, channels) = (&cx.with_scheme(Scheme::He), wanted.channels);
        let levels = if self.deep_supervision { self.downs.saturating_sub(1).max(1) } else { 1 };
        let all = padded(x, self.multiple(), |x| {
            let parts = self.decode(cx, x, channels, levels);
            concat(&parts.iter().collect::<Vec<_>>(), x.rank() - 1)
        });
        let last = x.rank().saturating_sub(1);
        (0..levels).map(|i| all.slice(last, i * channels, channels)).collect()
    }
}

impl SegmentationUnet {
    fn decode(&self, cx: &Ctx, x: &Var, channels: usize, levels: usize) -> Vec<Var> {
        let dims = x.rank().saturating_sub(2);
        let size: Vec<usize> = x.shape()[1..=dims].to_vec();
        let mut skips: Vec<Var> = Vec::new();
        let mut h = x.clone();
        for level in 0..=self.downs {
            if let Some(skip) = skips.last() {
                h = skip.max_pool(&Window::new(dims, 2, 2));
            }
            h = self.conv_pair(&cx.at("enc").at(level), &h, self.width(level));
            skips.push(h.clone());
        }
        let mut out = Vec::new();
        for level in (0..self.downs).rev() {
            let (width, bias) = match self.widths {
                Widths::AfterPooling => (self.base << level, true),
                Widths::BeforePooling => (h.channels(), false),
            };
            let up = cx.at("upc").conv(level, &h, ConvLayer::transposed(width, 2).stride(2).bias(bias));
            let joined = concat(&[&skips[level], &up], dims + 1);
            h = self.conv_pair(&cx.at("dec").at(level), &joined, [self.width(level)[1]; 2]);
            if level == 0 {
                out.push(cx.conv("head", &h, ConvLayer::new(channels, 1)));
            } else if level < levels {
                let logits = cx.at("heads").conv(level, &h, ConvLayer::new(channels, 1));
                out.push(logits.resize_linear(&size, false));
            }
        }
        out.reverse();
        out
    }

    fn conv_pair(&self, cx: &Ctx, x: &Var, widths: [usize; 2]) -> Var {
        let mut h = x.clone();
        for (i, width) in widths.into_iter().enumerate() {
            h = cx.conv(3 * i, &h, ConvLayer::same(width, 3).bias(self.norm.wants_bias()));
            h = self.activation.apply(&cx.norm(3 * i + 1, &h, self.norm));
        }
        h
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    /// Cicek et al. give 19,069,955 for 3 input and 3 output channels: every convolution has one shift per channel,
    /// the transposed ones have none, and the scales of batch norm are not counted.
    #[test]
    fn the_3d_original_has_its_19_069_955_parameters() {
        let shape = [1, 8, 8, 8, 3];
        let of = |u: &SegmentationUnet| describe(u, &shape, 3).0.param_count();
        let normed = SegmentationUnet::original_3d();
        assert_eq!(of(&SegmentationUnet { norm: Norm::None, ..normed.clone() }), 19_069_955);
        let scales = [32, 64, 64, 128, 128, 256, 256, 512, 256, 256, 128, 128, 64, 64].iter().sum::<usize>();
        assert_eq!(of(&normed), 19_069_955 + scales);
    }

    /// The original, one channel in and two classes out, and its usual descendant with batch norm, colour in.
    #[test]
    fn the_2d_original_has_31_million_parameters() {
        let of = |u: &SegmentationUnet, inputs: usize, outputs: usize| {
            describe(u, &[1, 16, 16, inputs], outputs).0.param_count()
        };
        let plain = SegmentationUnet { norm: Norm::None, ..Default::default() };
        assert_eq!(of(&plain, 1, 2), 31_030_658);
        assert_eq!(of(&SegmentationUnet::default(), 3, 2), 31_037_698);
    }

    #[test]
    fn any_size_comes_back_at_every_resolution() {
        let u = SegmentationUnet { base: 2, downs: 3, deep_supervision: true, ..Default::default() };
        for shape in [vec![2, 13, 10, 1], vec![1, 9, 8, 11, 2]] {
            let (spec, all) = describe(&u, &shape, 4);
            assert_eq!(all.len(), 2);
            let wanted = [&shape[..shape.len() - 1], &[4]].concat();
            assert!(all.iter().all(|y| y[..] == wanted[..]));
            assert!(keys(&spec, ".bias").contains(&"heads.1".to_string()));
        }
    }
}
