//! VGG (Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015), under
//! torchvision's keys.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::pooling::adaptive_avg_pool;
use crate::nn::{ConvLayer, Ctx, Norm, Scheme};
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Five levels of 3x3 convolutions with ReLU, halved by max pooling behind each; mean values of `pool` x `pool` parts; two
/// hidden fully connected layers with dropout and the output. Images `[n, spatial.., c]`, 2D or 3D, to `[n, channels]`. Keys
/// `features.N` and `classifier.N` as torchvision counts them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Vgg {
    /// Layers with weights: 11, 13, 16 or 19 (configurations A, B, D and E).
    pub depth: usize,
    /// Channels of the first level; doubled by each of the next three.
    pub width: usize,
    /// Batch norm behind each convolution (torchvision's `vgg16_bn`).
    pub batch_norm: bool,
    /// Parts of an axis before the fully connected layers; 7 in the paper.
    pub pool: usize,
    /// Width of the hidden fully connected layers.
    pub hidden: usize,
    /// Probability of dropout behind each of them.
    pub dropout: f64,
}

impl Default for Vgg {
    fn default() -> Self {
        Vgg { depth: 16, width: 64, batch_norm: false, pool: 7, hidden: 4096, dropout: 0.5 }
    }
}

impl Vgg {
    /// Convolutions of each level.
    fn levels(&self) -> Option<[usize; 5]> {
        match self.depth {
            11 => Some([1, 1, 2, 2, 2]),
            13 => Some([2, 2, 2, 2, 2]),
            16 => Some([2, 2, 3, 3, 3]),
            19 => Some([2, 2, 4, 4, 4]),
            _ => None,
        }
    }
}

impl Network for Vgg {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn mixes_batch(&self) -> bool {
        self.batch_norm
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require(self.levels().is_some(), "depth", "at 11, 13, 16 or 19")?;
        limits.width("width", self.width, 512)?;
        limits.require((1..=64).contains(&self.pool), "pool", "between 1 and 64")?;
        limits.width("hidden", self.hidden, 16384)?;
        limits.dropout(self.dropout)?;
        let fits = limits.size.is_none_or(|size| size.iter().all(|n| *n >= 32));
        crate::models::network::require(fits, "data", "canvas", "at 32 or above, as five levels halve it")
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let (features, dims) = (cx.at("features"), x.rank().saturating_sub(2));
        let norm = if self.batch_norm { Norm::Batch } else { Norm::None };
        let (mut h, mut index) = (x.clone(), 0);
        for (level, convs) in self.levels().expect("checked").into_iter().enumerate() {
            for _ in 0..convs {
                h = features.conv(index, &h, ConvLayer::same(self.width << level.min(3), 3));
                index += 1 + usize::from(self.batch_norm);
                h = features.norm(index - 1, &h, norm).relu();
                features.feature(index, &h);
                index += 1;
            }
            h = h.max_pool(&Window::new(dims, 2, 2));
            index += 1;
        }
        let h = adaptive_avg_pool(&h, self.pool);
        // PyTorch flattens channel by channel.
        let last = h.rank().saturating_sub(1);
        let order: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
        let mut h = h.permute(&order).reshape(&[h.shape()[0], h.shape().numel() / h.shape()[0]]);
        let classifier = cx.at("classifier");
        for key in [0, 3] {
            h = cx.dropout(&classifier.linear(key, &h, self.hidden, true).relu(), self.dropout);
        }
        vec![wanted.vector(&classifier.linear(6, &h, wanted.channels, true))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    /// torchvision's counts for three channels and 1000 classes, and its keys.
    #[test]
    fn parameters_are_those_of_torchvision() {
        let count = |depth, batch_norm| {
            let vgg = Vgg { depth, batch_norm, ..Vgg::default() };
            describe(&vgg, &[1, 32, 32, 3], 1000).0.param_count()
        };
        assert_eq!(
            [count(11, false), count(16, false), count(19, false)],
            [132_863_336, 138_357_544, 143_667_240]
        );
        assert_eq!(count(16, true), 138_365_992);
        let (spec, y) = describe(&Vgg { width: 4, hidden: 8, ..Vgg::default() }, &[2, 40, 32, 32, 1], 3);
        assert_eq!(y[0][..], [2, 3]);
        assert_eq!(keys(&spec, ".weight")[..4], ["features.0", "features.2", "features.5", "features.7"]);
        assert_eq!(keys(&spec, ".weight")[13..], ["classifier.0", "classifier.3", "classifier.6"]);
    }
}
