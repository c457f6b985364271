//! The residual denoiser with batch norm (Zhang et al., "Beyond a Gaussian Denoiser", IEEE TIP 2017; for medical images
//! Jifara et al., J. Supercomput. 2019): the network finds the noise, which is then taken off.

use crate::graph::Var;
use crate::nn::{Ctx, Norm, Scheme};
use serde::{Deserialize, Serialize};

/// `x - noise(x)`, 3x3 convolutions without biases, norm and ReLU behind all but the first and the last. `[n, spatial..,
/// c]` keeps its shape; borders are padded with zeros. Keys `dncnn.{0, 2, 3, 5, 6, ..}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl Denoiser {
    /// Traces the network.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var) -> Var {
        let cx = &cx.with_scheme(Scheme::He);
        let key = |i: usize| format!("dncnn.{i}");
        let mut h = cx.conv(&key(0), x, self.width, 3, 1, 1, false).relu();
        let inner = self.layers.saturating_sub(2);
        for i in 0..inner {
            h = cx.conv(&key(2 + 3 * i), &h, self.width, 3, 1, 1, false);
            h = cx.norm(&key(3 + 3 * i), &h, self.norm).relu();
        }
        x.sub(&cx.conv(&key(2 + 3 * inner), &h, x.channels(), 3, 1, 1, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn seventeen_layers_have_556_032_parameters() {
        let spec = describe(&[2, 9, 8, 1], |cx, x| {
            let y = Denoiser::default().forward(cx, x);
            assert_eq!(y.shape(), x.shape());
            y
        });
        assert_eq!(spec.param_count(), 556_032);
        assert_eq!(keys(&spec, ".weight").last().map(String::as_str), Some("dncnn.47"));
    }
}
