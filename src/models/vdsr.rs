//! VDSR (Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016): what an
//! interpolated image lacks, by twenty layers.

use crate::graph::Var;
use crate::nn::{Ctx, Scheme};
use serde::{Deserialize, Serialize};

/// `x + convs(x)`, all 3x3, no biases. `[n, spatial.., c]` keeps its shape; borders are padded with zeros. Keys
/// `input`, `residual_layer.{i}.conv`, `output`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl Vdsr {
    /// Traces the network.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var) -> Var {
        let cx = &cx.with_scheme(Scheme::He);
        let mut h = cx.conv("input", x, self.width, 3, 1, 1, false).relu();
        for i in 0..self.layers.saturating_sub(2) {
            h = cx.conv(&format!("residual_layer.{i}.conv"), &h, self.width, 3, 1, 1, false).relu();
        }
        x.add(&cx.conv("output", &h, x.channels(), 3, 1, 1, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn twenty_layers_have_664_704_parameters() {
        let spec = describe(&[1, 9, 8, 1], |cx, x| {
            let y = Vdsr::default().forward(cx, x);
            assert_eq!(y.shape(), x.shape());
            y
        });
        assert_eq!((spec.param_count(), keys(&spec, ".weight").len()), (664_704, 20));
    }
}
