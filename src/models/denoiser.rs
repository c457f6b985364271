//! The residual denoiser with batch norm (Zhang et al., "Beyond a Gaussian Denoiser", IEEE TIP 2017; for medical images
//! Jifara et al., J. Supercomput. 2019): the network finds the noise, which is then taken off.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `x - noise(x)`, 3x3 convolutions without biases, norm and ReLU behind all but the first and the last. `[n, spatial..,
/// c]` keeps its shape; borders are padded with zeros. Keys `dncnn.{0, 2, 3, 5, 6, ..}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Denoiser {
    /// Number of convolutions, at least 2: 17 for one level of noise, 20 for several.
    pub layers: usize,
    /// Channels inside.
    pub width: usize,
    /// Normalisation.
    pub norm: Norm,
}

impl Default for Denoiser {
    fn default() -> Self {
        Denoiser { layers: 17, width: 64, norm: Norm::Batch }
    }
}

impl Network for Denoiser {
    fn signature(&self) -> Signature {
        Signature::Dense
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require((2..=100).contains(&self.layers), "layers", "between 2 and 100")?;
        limits.same_channels()?;
        limits.width("width", self.width, 1024)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He).at("dncnn");
        let conv = |width: usize| ConvLayer::same(width, 3).bias(false);
        let mut h = cx.conv(0, x, conv(self.width)).relu();
        let inner = self.layers.saturating_sub(2);
        for i in 0..inner {
            h = cx.conv(2 + 3 * i, &h, conv(self.width));
            h = cx.norm(3 + 3 * i, &h, self.norm).relu();
        }
        vec![x.sub(&cx.conv(2 + 3 * inner, &h, conv(x.channels())))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn seventeen_layers_have_556_032_parameters() {
        let (spec, y) = describe(&Denoiser::default(), &[2, 9, 8, 1], 1);
        assert_eq!(y[0][..], [2, 9, 8, 1]);
        assert_eq!(spec.param_count(), 556_032);
        assert_eq!(keys(&spec, ".weight").last().map(String::as_str), Some("dncnn.47"));
    }
}
