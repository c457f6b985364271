//! SRCNN (Dong et al., "Learning a Deep Convolutional Network for Image Super-Resolution", ECCV 2014): three
//! convolutions that sharpen an image which was enlarged by interpolation.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// 9-1-5: patches to features, features to features, features to pixels. `[n, spatial.., c]` to `[n, spatial..,
/// channels]`; borders are padded with zeros. Keys `conv1`, `conv2`, `conv3`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Srcnn {
    /// Outputs of the first and of the second layer.
    pub widths: [usize; 2],
    /// Extents of the kernels, odd.
    pub kernels: [usize; 3],
}

impl Default for Srcnn {
    fn default() -> Self {
        Srcnn { widths: [64, 32], kernels: [9, 1, 5] }
    }
}

impl Network for Srcnn {
    fn signature(&self) -> Signature {
        Signature::Dense
    }

    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        let odd = self.kernels.iter().all(|k| k % 2 == 1 && *k < 64);
        limits.require(odd, "kernels", "below 64 and be odd, each")?;
        let fine = self.widths.iter().all(|w| (1..=1024).contains(w));
        limits.require(fine, "widths", "between 1 and 1024 each")
    }

    /// The paper's initial weights, N(0, 0.001), want its learning rates and millions of steps;
    /// these begin as He et al. (ICCV 2015) say.
    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let [k1, k2, k3] = self.kernels;
        let h = cx.conv("conv1", x, ConvLayer::same(self.widths[0], k1)).relu();
        let h = cx.conv("conv2", &h, ConvLayer::same(self.widths[1], k2)).relu();
        vec![cx.conv("conv3", &h, ConvLayer::same(wanted.channels, k3))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn the_9_1_5_network_has_its_8_032_weights() {
        let (spec, y) = describe(&Srcnn::default(), &[1, 12, 10, 1], 1);
        assert_eq!(y[0][..], [1, 12, 10, 1]);
        assert_eq!(spec.param_count(), 8_032 + 64 + 32 + 1);
        assert_eq!(keys(&spec, ".weight"), ["conv1", "conv2", "conv3"]);
    }
}
