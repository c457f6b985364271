//! U-Net++ (Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", DLMIA 2018; IEEE TMI 2020): a
//! U-Net whose skips are nested, dense paths. Keys as in pytorch-nested-unet.

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm, Scheme};
use crate::ops::concat::concat;
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Node `x[i][j]` (level `i`, column `j`) sees all nodes of its level before it and the enlarged node `x[i + 1][j - 1]`; two
/// convolutions 3x3 with norm and ReLU each; max pooling down, linear interpolation up.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output logits `[n, spatial.., channels]`. Keys
/// `conv{i}_{j}.{conv1, bn1, conv2, bn2}`, `final`; with deep supervision `final{j}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UnetPlusPlus {
    /// Channels of the first level; doubled with every level.
    pub base: usize,
    /// How often the resolution is halved.
    pub downs: usize,
    /// Normalisation.
    pub norm: Norm,
    /// Whether every node of the first level predicts; the last column is the network's prediction.
    pub deep_supervision: bool,
}

impl Default for UnetPlusPlus {
    fn default() -> Self {
        UnetPlusPlus { base: 32, downs: 4, norm: Norm::Batch, deep_supervision: false }
    }
}

impl Network for UnetPlusPlus {
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
        let (cx, channels) = (&cx.with_scheme(Scheme::Torch), wanted.channels);
        let columns: Vec<usize> =
            if self.deep_supervision { (1..=self.downs).rev().collect() } else { vec![self.downs] };
        let last = x.rank().saturating_sub(1);
        let all = padded(x, self.multiple(), |x| {
            let first = self.first_level(cx, x);
            let heads = columns.iter().map(|&j| {
                let key = if self.deep_supervision { format!("final{j}") } else { "final".into() };
                cx.conv(key, &first[j], ConvLayer::new(channels, 1))
            });
            concat(&heads.collect::<Vec<_>>().iter().collect::<Vec<_>>(), last)
        });
        (0..columns.len()).map(|i| all.slice(last, i * channels, channels)).collect()
    }
}

impl UnetPlusPlus {
    /// The nodes of the first level.
    fn first_level(&self, cx: &Ctx, x: &Var) -> Vec<Var> {
        let dims = x.rank().saturating_sub(2);
        let mut nodes: Vec<Vec<Var>> = Vec::new();
        for level in 0..=self.downs {
            let below = nodes.last().map_or(x.clone(), |above| above[0].max_pool(&Window::new(dims, 2, 2)));
            nodes.push(vec![self.node(cx, level, 0, &below)]);
            // Every new level gives each level above one more column.
            for i in (0..level).rev() {
                let j = level - i;
                let size: Vec<usize> = nodes[i][0].shape()[1..=dims].to_vec();
                let up = nodes[i + 1][j - 1].resize_linear(&size, true);
                let seen = concat(&nodes[i].iter().chain([&up]).collect::<Vec<_>>(), dims + 1);
                let node = self.node(cx, i, j, &seen);
                nodes[i].push(node);
            }
        }
        nodes.swap_remove(0)
    }

    fn node(&self, cx: &Ctx, i: usize, j: usize, x: &Var) -> Var {
        let cx = cx.at(format!("conv{i}_{j}"));
        let layer = || ConvLayer::same(self.base << i, 3);
        let h = cx.norm("bn1", &cx.conv("conv1", x, layer()), self.norm).relu();
        cx.norm("bn2", &cx.conv("conv2", &h, layer()), self.norm).relu()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// pytorch-nested-unet's counts for colour images and one mask.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let of = |u: UnetPlusPlus| describe(&u, &[1, 32, 32, 3], 1).0.param_count();
        assert_eq!(of(UnetPlusPlus::default()), 9_163_329);
        assert_eq!(of(UnetPlusPlus { deep_supervision: true, ..Default::default() }), 9_163_428);
    }
}
