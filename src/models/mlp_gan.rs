//! The fully connected pair of the first GAN (Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014), with leaky
//! ReLUs in place of maxout. Keys: the modules of a PyTorch `Sequential` named `model`.

use crate::graph::Var;
use crate::nn::{Ctx, Norm, Scheme};
use serde::{Deserialize, Serialize};

/// From noise to images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MlpGenerator {
    /// Outputs of the hidden layers.
    pub widths: Vec<usize>,
    /// Normalisation of all hidden layers but the first: "batch" or "none".
    pub norm: Norm,
}

/// From images to one logit each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

fn key(module: usize) -> String {
    format!("model.{module}")
}

impl MlpGenerator {
    /// Traces the network: noise `[n, nz]` to images `[n, h, w, channels]` in (-1, 1).
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, z: &Var, [h, w]: [usize; 2], channels: usize) -> Var {
        let cx = &cx.with_scheme(Scheme::Torch);
        let n = z.shape()[0];
        let (mut x, mut module) = (z.reshape(&[n, z.shape().numel() / n]), 0);
        for (i, &width) in self.widths.iter().enumerate() {
            x = cx.linear(&key(module), &x, width, true);
            module += 1;
            if i > 0 && self.norm != Norm::None {
                x = cx.norm(&key(module), &x, self.norm);
                module += 1;
            }
            x = x.leaky_relu(0.2);
            module += 1;
        }
        let y = cx.linear(&key(module), &x, h * w * channels, true).tanh();
        // The outputs are numbered as PyTorch's images are, channels first.
        y.reshape(&[n, channels, h, w]).permute(&[0, 2, 3, 1])
    }
}

impl MlpDiscriminator {
    /// Traces the network: images `[n, h, w, c]` to logits `[n]`.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var) -> Var {
        let cx = &cx.with_scheme(Scheme::Torch);
        let n = x.shape()[0];
        let mut h = x.permute(&[0, 3, 1, 2]).reshape(&[n, x.shape().numel() / n]);
        for (i, &width) in self.widths.iter().enumerate() {
            h = cx.linear(&key(2 * i), &h, width, true).leaky_relu(0.2);
        }
        cx.linear(&key(2 * self.widths.len()), &h, 1, true).reshape(&[n])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn layers_are_numbered_as_in_a_sequential() {
        let g = describe(&[4, 100], |cx, z| {
            let y = MlpGenerator::default().forward(cx, z, [28, 28], 1);
            assert_eq!(y.shape()[..], [4, 28, 28, 1]);
            y
        });
        assert_eq!(keys(&g, ".weight"), [0, 2, 3, 5, 6, 8, 9, 11].map(key));
        // 100 -> 128 -> 256 -> 512 -> 1024 -> 784, with biases and three norms.
        let linear = |a: usize, b: usize| a * b + b;
        let layers =
            linear(100, 128) + linear(128, 256) + linear(256, 512) + linear(512, 1024) + linear(1024, 784);
        assert_eq!(g.param_count(), layers + 2 * (256 + 512 + 1024));
        let d = describe(&[4, 28, 28, 1], |cx, x| MlpDiscriminator::default().forward(cx, x));
        assert_eq!(d.param_count(), linear(784, 512) + linear(512, 256) + linear(256, 1));
        assert_eq!(keys(&d, ".weight"), [0, 2, 4].map(key));
    }
}
