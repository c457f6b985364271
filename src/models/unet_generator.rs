//! The U-Net generator of pix2pix (Isola et al., CVPR 2017, appendix 6.1; keys as in junyanz's `UnetGenerator`).

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm};
use crate::ops::concat::concat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `downs` convolutions 4x4/2 down and as many transposed ones up, joined by skips.
///
/// Input `[n, h, w, c]` of any size (it is padded to a multiple of `2^downs` and the output cropped back), output
/// `[n, h, w, channels]` in (-1, 1). 3D inputs `[n, d, h, w, c]` work alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

impl Network for UnetGenerator {
    fn signature(&self) -> Signature {
        Signature::Image
    }

    fn multiple(&self) -> usize {
        1 << self.downs
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require((2..=10).contains(&self.downs), "downs", "between 2 and 10")?;
        limits.width("ngf", self.ngf, 1024)?;
        limits.dropout(self.dropout)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.at("model.model");
        vec![padded(x, self.multiple(), |x| self.level(cx, 0, x, wanted.channels).tanh())]
    }
}

impl UnetGenerator {
    fn channels(&self, level: usize) -> usize {
        self.ngf << level.min(3)
    }

    /// One level: down, the levels inside, up. `cx` is where this level's sequence of modules stands; `out` what it must return.
    /// The skip is joined by the caller, which holds the level's input.
    fn level(&self, cx: &Ctx, k: usize, x: &Var, out: usize) -> Var {
        let bias = self.norm.wants_bias();
        let down = ConvLayer::new(self.channels(k), 4).stride(2).padding(1).bias(bias);
        let up = |bias: bool| ConvLayer::transposed(out, 4).stride(2).padding(1).bias(bias);
        if k == 0 {
            let h = cx.conv(0, x, down);
            let h = self.with_skip(&cx.at(1), 1, &h);
            return cx.conv(3, &h.relu(), up(true));
        }
        // junyanz's in-place activation rewrites what the skip carries; the ReLU that follows the skip makes no
        // difference of it: relu(leaky_relu(x)) = relu(x).
        let h = cx.conv(1, &x.leaky_relu(0.2), down);
        if k == self.downs - 1 {
            return cx.norm(4, &cx.conv(3, &h.relu(), up(bias)), self.norm);
        }
        let h = cx.norm(2, &h, self.norm);
        let h = self.with_skip(&cx.at(3), k + 1, &h);
        let h = cx.norm(6, &cx.conv(5, &h.relu(), up(bias)), self.norm);
        if k >= 4 { cx.dropout(&h, self.dropout) } else { h }
    }

    /// The level's input, joined by what level `k` makes of it.
    fn with_skip(&self, cx: &Ctx, k: usize, x: &Var) -> Var {
        concat(&[x, &self.level(&cx.at("model"), k, x, self.channels(k - 1))], x.rank() - 1)
    }
}
