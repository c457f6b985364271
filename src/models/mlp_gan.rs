//! The fully connected pair of the first GAN (Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014), with leaky
//! ReLUs in place of maxout. Keys: the modules of a PyTorch `Sequential` named `model`.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{Ctx, Norm, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From noise to images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MlpGenerator {
    /// Outputs of the hidden layers.
    pub widths: Vec<usize>,
    /// Normalisation of all hidden layers but the first: "batch" or "none".
    pub norm: Norm,
}

/// From images to one logit each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MlpDiscriminator {
    /// Outputs of the hidden layers.
    pub widths: Vec<usize>,
}

impl Default for MlpGenerator {
    fn default() -> Self {
        MlpGenerator { widths: vec![128, 256, 512, 1024], norm: Norm::Batch }
    }
}

impl Default for MlpDiscriminator {
    fn default() -> Self {
        MlpDiscriminator { widths: vec![512, 256] }
    }
}

fn check_widths(widths: &[usize], limits: &Limits) -> Result<()> {
    let fine = widths.iter().all(|w| (1..=65536).contains(w));
    limits.require(fine, "widths", "between 1 and 65536 each")
}

impl Network for MlpGenerator {
    fn signature(&self) -> Signature {
        Signature::Noise
    }

    fn takes_volumes(&self) -> bool {
        false
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        check_widths(&self.widths, limits)
    }

    /// Noise `[n, nz]` to images `[n, h, w, channels]` in (-1, 1).
    #[track_caller]
    fn forward(&self, cx: &Ctx, z: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Torch).at("model");
        let (n, h, w) = (z.shape()[0], wanted.size[0], wanted.size[1]);
        let (mut x, mut module) = (z.reshape(&[n, z.shape().numel() / n]), 0);
        for (i, &width) in self.widths.iter().enumerate() {
            x = cx.linear(module, &x, width, true);
            module += 1;
            if i > 0 && self.norm != Norm::None {
                x = cx.norm(module, &x, self.norm);
                module += 1;
            }
            x = x.leaky_relu(0.2);
            module += 1;
        }
        let y = cx.linear(module, &x, h * w * wanted.channels, true).tanh();
        // The outputs are numbered as PyTorch's images are, channels first.
        vec![y.reshape(&[n, wanted.channels, h, w]).permute(&[0, 2, 3, 1])]
    }
}

impl Network for MlpDiscriminator {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn takes_volumes(&self) -> bool {
        false
    }

    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        check_widths(&self.widths, limits)
    }

    /// Images `[n, h, w, c]` to logits `[n]`, or to vectors `[n, channels]`.
    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Torch).at("model");
        let n = x.shape()[0];
        let mut h = x.permute(&[0, 3, 1, 2]).reshape(&[n, x.shape().numel() / n]);
        for (i, &width) in self.widths.iter().enumerate() {
            h = cx.linear(2 * i, &h, width, true).leaky_relu(0.2);
            cx.feature(2 * i, &h);
        }
        vec![wanted.vector(&cx.linear(2 * self.widths.len(), &h, wanted.channels, true))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, describe_sized, keys};

    #[test]
    fn layers_are_numbered_as_in_a_sequential() {
        let (g, y) = describe_sized(&MlpGenerator::default(), &[4, 100], 1, &[28, 28]);
        assert_eq!(y[0][..], [4, 28, 28, 1]);
        assert_eq!(keys(&g, ".weight"), [0, 2, 3, 5, 6, 8, 9, 11].map(|i| format!("model.{i}")));
        // 100 -> 128 -> 256 -> 512 -> 1024 -> 784, with biases and three norms.
        let linear = |a: usize, b: usize| a * b + b;
        let layers =
            linear(100, 128) + linear(128, 256) + linear(256, 512) + linear(512, 1024) + linear(1024, 784);
        assert_eq!(g.param_count(), layers + 2 * (256 + 512 + 1024));
        let (d, _) = describe(&MlpDiscriminator::default(), &[4, 28, 28, 1], 1);
        assert_eq!(d.param_count(), linear(784, 512) + linear(512, 256) + linear(256, 1));
        assert_eq!(keys(&d, ".weight"), [0, 2, 4].map(|i| format!("model.{i}")));
    }
}
