//! The U-Net generator of pix2pix (Isola et al., CVPR 2017, appendix 6.1; keys as in junyanz's `UnetGenerator`).

use super::padded;
use crate::graph::Var;
use crate::nn::{Ctx, Norm};
use serde::{Deserialize, Serialize};

/// `downs` convolutions 4x4/2 down and as many transposed ones up, joined by skips.
///
/// Input `[n, h, w, c]` of any size (it is padded to a multiple of `2^downs` and the output cropped back), output
/// `[n, h, w, channels]` in (-1, 1). 3D inputs `[n, d, h, w, c]` work alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetGenerator {
    /// How often the resolution is halved: at least 2; 8 takes 256x256 down to 1x1.
    #[serde(default = "default_downs")]
    pub downs: usize,
    /// Channels of the first level; doubled with every level up to eight times.
    #[serde(default = "default_ngf")]
    pub ngf: usize,
    /// Normalisation.
    #[serde(default = "default_norm")]
    pub norm: Norm,
    /// Probability of dropout behind the inner up-convolutions (levels 4 to `downs` - 2).
    #[serde(default = "default_dropout")]
    pub dropout: f64,
}

fn default_downs() -> usize {
    8
}

fn default_ngf() -> usize {
    64
}

fn default_norm() -> Norm {
    Norm::Batch
}

fn default_dropout() -> f64 {
    0.5
}

impl UnetGenerator {
    /// Traces the network.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var, channels: usize) -> Var {
        padded(x, 1 << self.downs, |x| self.level(cx, 0, "model.model".into(), x, channels).tanh())
    }

    fn channels(&self, level: usize) -> usize {
        self.ngf << level.min(3)
    }

    /// One level: down, the levels inside, up. `inner` is the key of this level's sequence of modules; `out` what it
    /// must return. The skip is joined by the caller, which holds the level's input.
    fn level(&self, cx: &Ctx, k: usize, key: String, x: &Var, out: usize) -> Var {
        let bias = self.norm.wants_bias();
        let width = self.channels(k);
        let at = |i: usize| format!("{key}.{i}");
        if k == 0 {
            let h = cx.conv(&at(0), x, width, 4, 2, 1, bias);
            let h = self.with_skip(cx, 1, at(1), &h);
            return cx.conv_transpose(&at(3), &h.relu(), out, 4, 2, 1, 0, true);
        }
        // junyanz's in-place activation rewrites what the skip carries; the ReLU that follows the skip makes no
        // difference of it: relu(leaky_relu(x)) = relu(x).
        let h = cx.conv(&at(1), &x.leaky_relu(0.2), width, 4, 2, 1, bias);
        if k == self.downs - 1 {
            let h = cx.conv_transpose(&at(3), &h.relu(), out, 4, 2, 1, 0, bias);
            return cx.norm(&at(4), &h, self.norm);
        }
        let h = cx.norm(&at(2), &h, self.norm);
        let h = self.with_skip(cx, k + 1, at(3), &h);
        let h = cx.conv_transpose(&at(5), &h.relu(), out, 4, 2, 1, 0, bias);
        let h = cx.norm(&at(6), &h, self.norm);
        if k >= 4 { cx.dropout(&h, self.dropout) } else { h }
    }

    /// The level's input, joined by what level `k` makes of it.
    fn with_skip(&self, cx: &Ctx, k: usize, key: String, x: &Var) -> Var {
        let inner = self.level(cx, k, format!("{key}.model"), x, self.channels(k - 1));
        crate::ops::concat::concat(&[x, &inner], x.rank() - 1)
    }
}
