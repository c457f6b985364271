//! GoogLeNet (Szegedy et al., "Going Deeper with Convolutions", CVPR 2015), with batch norm and under the keys of torchvision.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::conv_norm::pooled;
use crate::nn::{Activation, ConvLayer, Ctx, Norm, Scheme};
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Three convolutions, then nine inception blocks: 1x1, 3x3 and two stacked 3x3 fields and a pooled one side by side. (torchvision's
/// 5x5 branch has a 3x3 kernel.) Mean over space and a linear layer; without the paper's auxiliary classifiers.
///
/// Input `[n, spatial.., c]` in two or three dimensions, output logits `[n, channels]`. Keys `conv{1..3}.{conv, bn}`,
/// `inception{3a..5b}.branch{1..4}`, `fc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Googlenet {
    /// Factor of all channels.
    pub width: f64,
    /// Normalisation.
    pub norm: Norm,
    /// Probability of dropout before the linear layer.
    pub dropout: f64,
}

impl Default for Googlenet {
    fn default() -> Self {
        Googlenet { width: 1.0, norm: Norm::Batch, dropout: 0.2 }
    }
}

/// Name and channels of the inception blocks, as the paper's table has them: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; behind pooling.
const BLOCKS: [(&str, [usize; 6]); 9] = [
    ("3a", [64, 96, 128, 16, 32, 32]),
    ("3b", [128, 128, 192, 32, 96, 64]),
    ("4a", [192, 96, 208, 16, 48, 64]),
    ("4b", [160, 112, 224, 24, 64, 64]),
    ("4c", [128, 128, 256, 24, 64, 64]),
    ("4d", [112, 144, 288, 32, 64, 64]),
    ("4e", [256, 160, 320, 32, 128, 128]),
    ("5a", [256, 160, 320, 32, 128, 128]),
    ("5b", [384, 192, 384, 48, 128, 128]),
];

impl Network for Googlenet {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require(self.width > 0.0 && self.width <= 4.0, "width", "above 0 and at most 4")?;
        limits.dropout(self.dropout)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        // The norms' epsilon is torchvision's.
        let cx = &cx.with_scheme(Scheme::He).with_eps(1e-3);
        let dims = x.rank().saturating_sub(2);
        let channels = |c: usize| ((c as f64 * self.width).round() as usize).max(1);
        let layer = |c: usize, kernel| ConvLayer::same(channels(c), kernel).bias(self.norm.wants_bias());
        let unit = |cx: &Ctx, x: &Var, layer| {
            cx.conv_norm(["conv", "bn"], x, layer, self.norm, Some(Activation::Relu))
        };
        let halved = |h: &Var, kernel| h.max_pool(&Window { ceil: true, ..Window::new(dims, kernel, 2) });
        let h = halved(&unit(&cx.at("conv1"), x, layer(64, 7).stride(2)), 3);
        let h = unit(&cx.at("conv2"), &h, layer(64, 1));
        let mut h = halved(&unit(&cx.at("conv3"), &h, layer(192, 3)), 3);
        for (name, [one, few3, three, few5, five, after]) in BLOCKS {
            let cx = cx.at(format!("inception{name}"));
            h = cx.inception(
                &h,
                [
                    &|cx, x| unit(cx, x, layer(one, 1)),
                    &|cx, x| unit(&cx.at(1), &unit(&cx.at(0), x, layer(few3, 1)), layer(three, 3)),
                    &|cx, x| unit(&cx.at(1), &unit(&cx.at(0), x, layer(few5, 1)), layer(five, 3)),
                    &|cx, x| {
                        let window = Window { padding: vec![1; dims], ..Window::new(dims, 3, 1) };
                        unit(&cx.at(1), &x.max_pool(&window), layer(after, 1))
                    },
                ],
            );
            cx.feature("out", &h);
            h = match name {
                "3b" => halved(&h, 3),
                "4e" => halved(&h, 2),
                _ => h,
            };
        }
        vec![cx.linear("fc", &cx.dropout(&pooled(&h), self.dropout), wanted.channels, true)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// torchvision's count without auxiliary classifiers.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let (spec, y) = describe(&Googlenet::default(), &[2, 64, 64, 3], 1000);
        assert_eq!((spec.param_count(), &y[0][..]), (6_624_904, &[2, 1000][..]));
        assert!(spec.params.iter().any(|p| p.key == "inception4b.branch3.1.bn.weight"));
    }
}
