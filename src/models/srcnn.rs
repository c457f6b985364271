//! SRCNN (Dong et al., "Learning a Deep Convolutional Network for Image Super-Resolution", ECCV 2014): three
//! convolutions that sharpen an image which was enlarged by interpolation.

use crate::graph::Var;
use crate::nn::{Ctx, Scheme};
use serde::{Deserialize, Serialize};

/// 9-1-5: patches to features, features to features, features to pixels. `[n, spatial.., c]` to `[n, spatial..,
/// channels]`; borders are padded with zeros. Keys `conv1`, `conv2`, `conv3`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl Srcnn {
    /// Traces the network. The paper's initial weights, N(0, 0.001), want its learning rates and millions of steps;
    /// these begin as He et al. (ICCV 2015) say.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var, channels: usize) -> Var {
        let cx = &cx.with_scheme(Scheme::He);
        let [k1, k2, k3] = self.kernels;
        let h = cx.conv("conv1", x, self.widths[0], k1, 1, k1 / 2, true).relu();
        let h = cx.conv("conv2", &h, self.widths[1], k2, 1, k2 / 2, true).relu();
        cx.conv("conv3", &h, channels, k3, 1, k3 / 2, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn the_9_1_5_network_has_its_8_032_weights() {
        let spec = describe(&[1, 12, 10, 1], |cx, x| {
            let y = Srcnn::default().forward(cx, x, 1);
            assert_eq!(y.shape(), x.shape());
            y
        });
        assert_eq!(spec.param_count(), 8_032 + 64 + 32 + 1);
        assert_eq!(keys(&spec, ".weight"), ["conv1", "conv2", "conv3"]);
    }
}
