//! Discriminators of patches (Isola et al., CVPR 2017, appendix 6.1.2; keys as in junyanz's
//! `NLayerDiscriminator` and `PixelDiscriminator`).

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// 4x4 convolutions, `layers` of them with stride 2; one logit per patch. With 3 layers a patch is 70x70 and
/// 256x256 gives 30x30 logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// 1x1 convolutions: every pixel by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

impl Default for PatchGan {
    fn default() -> Self {
        PatchGan { layers: 3, ndf: 64, norm: Norm::Batch }
    }
}

impl PatchGan {
    /// The network's modules, numbered from 0 where `cx` stands: `[n, spatial.., c]` to logits `[n, spatial'.., 1]`.
    #[track_caller]
    pub fn modules(&self, cx: &Ctx, x: &Var) -> Var {
        let conv = |width: usize, stride: usize| ConvLayer::new(width, 4).stride(stride).padding(1);
        let mut h = cx.conv(0, x, conv(self.ndf, 2)).leaky_relu(0.2);
        cx.feature(0, &h);
        let mut index = 2;
        for layer in 1..=self.layers {
            let stride = if layer < self.layers { 2 } else { 1 };
            let layer = conv(self.ndf << layer.min(3), stride).bias(self.norm.wants_bias());
            h = cx.norm(index + 1, &cx.conv(index, &h, layer), self.norm).leaky_relu(0.2);
            cx.feature(index, &h);
            // Without a norm there is no module in its place.
            index += if self.norm == Norm::None { 2 } else { 3 };
        }
        cx.conv(index, &h, conv(1, 1))
    }
}

impl Network for PatchGan {
    fn signature(&self) -> Signature {
        Signature::Patches
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.width("ndf", self.ndf, 1024)?;
        limits.require((1..=8).contains(&self.layers), "layers", "between 1 and 8; 3 is the 70 x 70 PatchGAN")
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
        vec![self.modules(&cx.at("model"), x)]
    }
}

impl Network for PixelGan {
    fn signature(&self) -> Signature {
        Signature::Patches
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.width("ndf", self.ndf, 1024)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
        let cx = &cx.at("net");
        let bias = self.norm.wants_bias();
        let h = cx.conv(0, x, ConvLayer::new(self.ndf, 1)).leaky_relu(0.2);
        cx.feature(0, &h);
        let h = cx.conv(2, &h, ConvLayer::new(2 * self.ndf, 1).bias(bias));
        let h = cx.norm(3, &h, self.norm).leaky_relu(0.2);
        cx.feature(2, &h);
        vec![cx.conv(5, &h, ConvLayer::new(1, 1).bias(bias))]
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
            describe(&d, &[1, 64, 64, c], 1).0
        };
        assert_eq!(patch(6, Norm::Batch).param_count(), 2_768_705);
        let instance = patch(3, Norm::Instance);
        assert_eq!(instance.param_count(), 2_764_737);
        assert_eq!(keys(&instance, ".weight"), [0, 2, 5, 8, 11].map(|i| format!("model.{i}")));
        let pixel = PixelGan { ndf: 64, norm: Norm::Batch };
        assert_eq!(describe(&pixel, &[1, 8, 8, 6], 1).0.param_count(), 9_024);
    }

    #[test]
    fn a_256_image_has_30_x_30_patches() {
        let d = PatchGan { layers: 3, ndf: 4, norm: Norm::Batch };
        assert_eq!(describe(&d, &[1, 256, 256, 2], 1).1[0][..], [1, 30, 30, 1]);
    }
}
