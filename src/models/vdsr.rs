//! VDSR (Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016): what an
//! interpolated image lacks, by twenty layers.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `x + convs(x)`, all 3x3, no biases. `[n, spatial.., c]` keeps its shape; borders are padded with zeros. Keys
/// `input`, `residual_layer.{i}.conv`, `output`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Vdsr {
    /// Number of convolutions, at least 2.
    pub layers: usize,
    /// Channels inside.
    pub width: usize,
}

impl Default for Vdsr {
    fn default() -> Self {
        Vdsr { layers: 20, width: 64 }
    }
}

impl Network for Vdsr {
    fn signature(&self) -> Signature {
        Signature::Dense
    }

    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require((2..=100).contains(&self.layers), "layers", "between 2 and 100")?;
        limits.same_channels()?;
        limits.width("width", self.width, 1024)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let conv = |width: usize| ConvLayer::same(width, 3).bias(false);
        let mut h = cx.conv("input", x, conv(self.width)).relu();
        for i in 0..self.layers.saturating_sub(2) {
            h = cx.at("residual_layer").at(i).conv("conv", &h, conv(self.width)).relu();
        }
        vec![x.add(&cx.conv("output", &h, conv(x.channels())))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn twenty_layers_have_664_704_parameters() {
        let (spec, y) = describe(&Vdsr::default(), &[1, 9, 8, 1], 1);
        assert_eq!(y[0][..], [1, 9, 8, 1]);
        assert_eq!((spec.param_count(), keys(&spec, ".weight").len()), (664_704, 20));
    }
}
