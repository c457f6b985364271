//! Discriminators that judge patches (Isola et al., CVPR 2017, appendix 6.1.2; keys as in junyanz's
//! `NLayerDiscriminator` and `PixelDiscriminator`).

use crate::graph::Var;
use crate::nn::{Ctx, Norm};
use serde::{Deserialize, Serialize};

/// 4x4 convolutions, `layers` of them with stride 2; one logit per patch. With 3 layers a patch is 70x70 and
/// 256x256 gives 30x30 logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchGan {
    /// Number of convolutions with stride 2.
    #[serde(default = "default_layers")]
    pub layers: usize,
    /// Channels of the first layer; doubled with every layer up to eight times.
    #[serde(default = "default_ndf")]
    pub ndf: usize,
    /// Normalisation of all but the first and the last layer.
    #[serde(default = "default_norm")]
    pub norm: Norm,
}

/// 1x1 convolutions: judges every pixel by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelGan {
    /// Channels of the first layer.
    #[serde(default = "default_ndf")]
    pub ndf: usize,
    /// Normalisation of the second layer.
    #[serde(default = "default_norm")]
    pub norm: Norm,
}

fn default_layers() -> usize {
    3
}

fn default_ndf() -> usize {
    64
}

fn default_norm() -> Norm {
    Norm::Batch
}

impl PatchGan {
    /// Traces the network: `[n, h, w, c]` to logits `[n, h', w', 1]`.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var) -> Var {
        self.forward_as(cx, "model", x)
    }

    /// As [`PatchGan::forward`], with the keys behind another prefix than `model`.
    #[track_caller]
    pub fn forward_as(&self, cx: &Ctx, prefix: &str, x: &Var) -> Var {
        let key = |i: usize| format!("{prefix}.{i}");
        let mut h = cx.conv(&key(0), x, self.ndf, 4, 2, 1, true).leaky_relu(0.2);
        let mut index = 2;
        for layer in 1..=self.layers {
            let stride = if layer < self.layers { 2 } else { 1 };
            let width = self.ndf << layer.min(3);
            h = cx.conv(&key(index), &h, width, 4, stride, 1, self.norm.wants_bias());
            h = cx.norm(&key(index + 1), &h, self.norm).leaky_relu(0.2);
            // Without a norm there is no module in its place.
            index += if self.norm == Norm::None { 2 } else { 3 };
        }
        cx.conv(&key(index), &h, 1, 4, 1, 1, true)
    }
}

impl PixelGan {
    /// Traces the network: `[n, h, w, c]` to logits `[n, h, w, 1]`.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var) -> Var {
        let bias = self.norm.wants_bias();
        let h = cx.conv("net.0", x, self.ndf, 1, 1, 0, true).leaky_relu(0.2);
        let h = cx.conv("net.2", &h, 2 * self.ndf, 1, 1, 0, bias);
        let h = cx.norm("net.3", &h, self.norm).leaky_relu(0.2);
        cx.conv("net.5", &h, 1, 1, 1, 0, bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn parameters_and_keys_are_those_of_the_reference() {
        let patch = |c: usize, norm| {
            let d = PatchGan { layers: 3, ndf: 64, norm };
            describe(&[1, 64, 64, c], |cx, x| d.forward(cx, x))
        };
        assert_eq!(patch(6, Norm::Batch).param_count(), 2_768_705);
        let instance = patch(3, Norm::Instance);
        assert_eq!(instance.param_count(), 2_764_737);
        assert_eq!(keys(&instance, ".weight"), [0, 2, 5, 8, 11].map(|i| format!("model.{i}")));
        let pixel = PixelGan { ndf: 64, norm: Norm::Batch };
        assert_eq!(describe(&[1, 8, 8, 6], |cx, x| pixel.forward(cx, x)).param_count(), 9_024);
    }

    #[test]
    fn a_256_image_has_30_x_30_patches() {
        let d = PatchGan { layers: 3, ndf: 4, norm: Norm::Batch };
        describe(&[1, 256, 256, 2], |cx, x| {
            let y = d.forward(cx, x);
            assert_eq!(y.shape()[..], [1, 30, 30, 1]);
            y
        });
    }
}
