//! Inception v3 (Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016). Keys as in torchvision.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::pooled;
use crate::nn::blocks::mixed::{Kind, Mixed};
use crate::nn::{Ctx, Norm, Scheme};
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Five convolutions and two poolings, then eleven blocks of branches side by side, whose large fields are rows of small and of flat
/// convolutions; mean over space and a linear layer; without the auxiliary classifier.
///
/// Input `[n, h, w, c]` of at least 75 x 75, output logits `[n, channels]`. Keys `Conv2d_1a_3x3.{conv, bn}` to `Conv2d_4a_3x3`,
/// `Mixed_{5b..7c}.branch..`, `fc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InceptionV3 {
    /// Factor of all channels.
    pub width: f64,
    /// Normalisation.
    pub norm: Norm,
    /// Probability of dropout before the linear layer.
    pub dropout: f64,
}

impl Default for InceptionV3 {
    fn default() -> Self {
        InceptionV3 { width: 1.0, norm: Norm::Batch, dropout: 0.5 }
    }
}

/// The blocks at 35 x 35, 17 x 17 and 8 x 8 pixels.
const BLOCKS: [(&str, Kind); 11] = [
    ("5b", Kind::A(32)),
    ("5c", Kind::A(64)),
    ("5d", Kind::A(64)),
    ("6a", Kind::B),
    ("6b", Kind::C(128)),
    ("6c", Kind::C(160)),
    ("6d", Kind::C(160)),
    ("6e", Kind::C(192)),
    ("7a", Kind::D),
    ("7b", Kind::E),
    ("7c", Kind::E),
];

impl Network for InceptionV3 {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn takes_volumes(&self) -> bool {
        false
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        let large = limits.size.is_none_or(|s| s.iter().all(|e| *e >= 75));
        limits.require(large, "kind", "among networks for smaller images: this one needs 75 x 75")?;
        limits.require(self.width > 0.0 && self.width <= 4.0, "width", "above 0 and at most 4")?;
        limits.dropout(self.dropout)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        // The norms' epsilon is torchvision's.
        let cx = &cx.with_scheme(Scheme::He).with_eps(1e-3);
        let mixed = Mixed { width: self.width, norm: self.norm };
        let unit = |name: &str, x: &Var, c, kernel, stride, pad| {
            mixed.unit(&cx.at(format!("Conv2d_{name}")), x, c, [kernel; 2], stride, [pad; 2])
        };
        let h = unit("1a_3x3", x, 32, 3, 2, 0);
        let h = unit("2b_3x3", &unit("2a_3x3", &h, 32, 3, 1, 0), 64, 3, 1, 1).max_pool(&Window::new(2, 3, 2));
        let h = unit("4a_3x3", &unit("3b_1x1", &h, 80, 1, 1, 0), 192, 3, 1, 0);
        let mut h = h.max_pool(&Window::new(2, 3, 2));
        for (name, kind) in BLOCKS {
            h = mixed.apply(&cx.at(format!("Mixed_{name}")), &h, kind);
            cx.feature(format!("Mixed_{name}"), &h);
        }
        vec![cx.linear("fc", &cx.dropout(&pooled(&h), self.dropout), wanted.channels, true)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// torchvision's count without the auxiliary classifier.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let (spec, y) = describe(&InceptionV3::default(), &[2, 75, 80, 3], 1000);
        assert_eq!((spec.param_count(), &y[0][..]), (23_834_568, &[2, 1000][..]));
    }
}
