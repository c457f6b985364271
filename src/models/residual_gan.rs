//! The residual pair of WGAN-GP (Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, appendix F;
//! `gan_64x64` of the authors' code, whose order of layers it keeps; the keys are ours).

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm, Scheme};
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From noise to images: a linear layer, four residual blocks that double the image, a 3x3 convolution, tanh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResidualGenerator {
    /// Channels of the last block; the blocks have 8, 4, 2 and 1 times as many.
    pub dim: usize,
}

/// From images to one number each: a 3x3 convolution, four residual blocks that halve the image, a linear layer.
///
/// Layer norm stands where a discriminator would have batch norm: the penalty takes every image by itself, so images
/// of a batch must not be mixed. Its scale and shift are per channel, as in the authors' code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResidualCritic {
    /// Channels of the first layer; the blocks give 2, 4, 8 and 8 times as many.
    pub dim: usize,
    /// Normalisation: "layer" or "none".
    pub norm: Norm,
}

impl Default for ResidualGenerator {
    fn default() -> Self {
        ResidualGenerator { dim: 64 }
    }
}

impl Default for ResidualCritic {
    fn default() -> Self {
        ResidualCritic { dim: 64, norm: Norm::Layer }
    }
}

/// Image extents divide by this.
const MULTIPLE: usize = 16;

impl Network for ResidualGenerator {
    fn signature(&self) -> Signature {
        Signature::Noise
    }

    fn takes_volumes(&self) -> bool {
        false
    }

    fn mixes_batch(&self) -> bool {
        true
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.width("dim", self.dim, 512)?;
        let fits = |size: usize| size >= MULTIPLE && size.is_multiple_of(MULTIPLE);
        limits.square(fits, "on a multiple of 16 for the residual networks")
    }

    /// Noise `[n, nz]` to images `[n, size, size, channels]` in (-1, 1).
    #[track_caller]
    fn forward(&self, cx: &Ctx, z: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let (n, start) = (z.shape()[0], wanted.size[0] / MULTIPLE);
        let z = z.reshape(&[n, z.shape().numel() / n]);
        let h = cx.linear("input", &z, start * start * 8 * self.dim, true);
        // The linear layer's outputs are numbered as in the reference, channels first.
        let mut h = h.reshape(&[n, 8 * self.dim, start, start]).permute(&[0, 2, 3, 1]);
        for (i, times) in [8, 4, 2, 1].into_iter().enumerate() {
            h = up(&cx.at(format!("res{}", i + 1)), &h, times * self.dim);
        }
        let h = cx.norm("output_norm", &h, Norm::Batch).relu();
        vec![cx.conv("output", &h, ConvLayer::same(wanted.channels, 3)).tanh()]
    }
}

impl Network for ResidualCritic {
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
        limits.width("dim", self.dim, 512)?;
        let fits = |size: usize| size >= MULTIPLE && size.is_multiple_of(MULTIPLE);
        limits.square(fits, "on a multiple of 16 for the residual networks")
    }

    /// Images `[n, h, w, c]`, h and w multiples of 16, to `[n]`.
    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::He);
        let mut h = cx.conv("input", x, ConvLayer::same(self.dim, 3));
        for (i, times) in [2, 4, 8, 8].into_iter().enumerate() {
            h = down(&cx.at(format!("res{}", i + 1)), &h, times * self.dim, self.norm);
            cx.feature(format!("res{}", i + 1), &h);
        }
        let shape = h.shape();
        let n = shape[0];
        let flat = h.permute(&[0, 3, 1, 2]).reshape(&[n, shape.numel() / n]);
        vec![wanted.vector(&cx.linear("output", &flat, wanted.channels, true))]
    }
}

/// `shortcut(x) + conv(relu(norm(conv(upsample(relu(norm(x)))))))`, twice as large.
fn up(cx: &Ctx, x: &Var, width: usize) -> Var {
    let double = |v: &Var| v.resize_nearest(&[2 * v.shape()[1], 2 * v.shape()[2]]);
    // A 1x1 convolution and a repetition of pixels commute; this order is the cheaper one.
    let shortcut = double(&cx.conv("shortcut", x, ConvLayer::new(width, 1)));
    let h = double(&cx.norm("norm1", x, Norm::Batch).relu());
    let h = cx.conv("conv1", &h, ConvLayer::same(width, 3).bias(false));
    let h = cx.norm("norm2", &h, Norm::Batch).relu();
    shortcut.add(&cx.conv("conv2", &h, ConvLayer::same(width, 3)))
}

/// `shortcut(x) + pool(conv(relu(norm(conv(relu(norm(x)))))))`, half as large.
fn down(cx: &Ctx, x: &Var, width: usize, norm: Norm) -> Var {
    let halve = |v: &Var| v.avg_pool(&Window::new(2, 2, 2), true);
    let shortcut = cx.conv("shortcut", &halve(x), ConvLayer::new(width, 1));
    let h = cx.norm("norm1", x, norm).relu();
    let h = cx.conv("conv1", &h, ConvLayer::same(x.channels(), 3).bias(false));
    let h = cx.norm("norm2", &h, norm).relu();
    shortcut.add(&halve(&cx.conv("conv2", &h, ConvLayer::same(width, 3))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, describe_sized};

    #[test]
    fn parameters_are_those_of_gan_64x64() {
        let (critic, y) = describe(&ResidualCritic::default(), &[2, 64, 64, 3], 1);
        assert_eq!(y[0][..], [2]);
        assert_eq!(critic.param_count(), 7_491_841);
        assert_eq!(critic.params.last().expect("parameters").key, "output.bias");
        let linear = &critic.params[critic.params.len() - 2];
        assert_eq!(linear.shape[..], [1, 8192]);
        let (generator, y) = describe(&ResidualGenerator::default(), &[2, 128], 3);
        assert_eq!(y[0][..], [2, 64, 64, 3]);
        assert_eq!(generator.param_count(), 8_540_483);
    }

    #[test]
    fn a_critic_without_norm_and_other_sizes_work() {
        let plain = ResidualCritic { dim: 2, norm: Norm::None };
        describe(&plain, &[1, 32, 48, 1], 1);
        let (_, y) = describe_sized(&ResidualGenerator { dim: 2 }, &[1, 7], 1, &[32, 32]);
        assert_eq!(y[0][..], [1, 32, 32, 1]);
    }
}
