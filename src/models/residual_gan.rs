//! The residual pair of WGAN-GP (Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, appendix F;
//! `gan_64x64` of the authors' code, whose order of layers it keeps; the keys are ours).

use crate::graph::Var;
use crate::nn::{Ctx, Norm, Scheme};
use crate::ops::max_pool::Window;
use serde::{Deserialize, Serialize};

/// From noise to images: a linear layer, four residual blocks that double the image, a 3x3 convolution, tanh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResidualGenerator {
    /// Channels of the last block; the blocks have 8, 4, 2 and 1 times as many.
    pub dim: usize,
}

/// From images to one number each: a 3x3 convolution, four residual blocks that halve the image, a linear layer.
///
/// Layer norm stands where a discriminator would have batch norm: the penalty judges every image by itself, so images
/// of a batch must not be mixed. Its scale and shift are per channel, as in the authors' code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

impl ResidualGenerator {
    /// Image extents divide by this.
    pub const MULTIPLE: usize = 16;

    /// Traces the network: noise `[n, nz]` to images `[n, size, size, channels]` in (-1, 1).
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, z: &Var, size: usize, channels: usize) -> Var {
        let cx = &cx.with_scheme(Scheme::He);
        let (n, start) = (z.shape()[0], size / Self::MULTIPLE);
        let z = z.reshape(&[n, z.shape().numel() / n]);
        let h = cx.linear("input", &z, start * start * 8 * self.dim, true);
        // The linear layer's outputs are numbered as in the reference, channels first.
        let mut h = h.reshape(&[n, 8 * self.dim, start, start]).permute(&[0, 2, 3, 1]);
        for (i, times) in [8, 4, 2, 1].into_iter().enumerate() {
            h = up(cx, &format!("res{}", i + 1), &h, times * self.dim);
        }
        let h = cx.norm("output_norm", &h, Norm::Batch).relu();
        cx.conv("output", &h, channels, 3, 1, 1, true).tanh()
    }
}

impl ResidualCritic {
    /// Traces the network: images `[n, h, w, c]`, h and w multiples of 16, to `[n]`.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var) -> Var {
        let cx = &cx.with_scheme(Scheme::He);
        let mut h = cx.conv("input", x, self.dim, 3, 1, 1, true);
        for (i, times) in [2, 4, 8, 8].into_iter().enumerate() {
            h = down(cx, &format!("res{}", i + 1), &h, times * self.dim, self.norm);
        }
        let shape = h.shape();
        let n = shape[0];
        let flat = h.permute(&[0, 3, 1, 2]).reshape(&[n, shape.numel() / n]);
        cx.linear("output", &flat, 1, true).reshape(&[n])
    }
}

/// `shortcut(x) + conv(relu(norm(conv(upsample(relu(norm(x)))))))`, twice as large.
fn up(cx: &Ctx, key: &str, x: &Var, width: usize) -> Var {
    let at = |part: &str| format!("{key}.{part}");
    let double = |v: &Var| v.resize_nearest(&[2 * v.shape()[1], 2 * v.shape()[2]]);
    // A 1x1 convolution and a repetition of pixels commute; this order is the cheaper one.
    let shortcut = double(&cx.conv(&at("shortcut"), x, width, 1, 1, 0, true));
    let h = double(&cx.norm(&at("norm1"), x, Norm::Batch).relu());
    let h = cx.conv(&at("conv1"), &h, width, 3, 1, 1, false);
    let h = cx.norm(&at("norm2"), &h, Norm::Batch).relu();
    shortcut.add(&cx.conv(&at("conv2"), &h, width, 3, 1, 1, true))
}

/// `shortcut(x) + pool(conv(relu(norm(conv(relu(norm(x)))))))`, half as large.
fn down(cx: &Ctx, key: &str, x: &Var, width: usize, norm: Norm) -> Var {
    let at = |part: &str| format!("{key}.{part}");
    let halve = |v: &Var| v.avg_pool(&Window::new(2, 2, 2), true);
    let shortcut = cx.conv(&at("shortcut"), &halve(x), width, 1, 1, 0, true);
    let h = cx.norm(&at("norm1"), x, norm).relu();
    let h = cx.conv(&at("conv1"), &h, x.channels(), 3, 1, 1, false);
    let h = cx.norm(&at("norm2"), &h, norm).relu();
    shortcut.add(&halve(&cx.conv(&at("conv2"), &h, width, 3, 1, 1, true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    #[test]
    fn parameters_are_those_of_gan_64x64() {
        let critic = describe(&[2, 64, 64, 3], |cx, x| {
            let y = ResidualCritic::default().forward(cx, x);
            assert_eq!(y.shape()[..], [2]);
            y
        });
        assert_eq!(critic.param_count(), 7_491_841);
        assert_eq!(critic.params.last().expect("parameters").key, "output.bias");
        let linear = &critic.params[critic.params.len() - 2];
        assert_eq!(linear.shape[..], [1, 8192]);
        let generator = describe(&[2, 128], |cx, z| {
            let y = ResidualGenerator::default().forward(cx, z, 64, 3);
            assert_eq!(y.shape()[..], [2, 64, 64, 3]);
            y
        });
        assert_eq!(generator.param_count(), 8_540_483);
    }

    #[test]
    fn a_critic_without_norm_and_other_sizes_work() {
        let plain = ResidualCritic { dim: 2, norm: Norm::None };
        describe(&[1, 32, 48, 1], |cx, x| plain.forward(cx, x));
        describe(&[1, 7], |cx, z| {
            let y = ResidualGenerator { dim: 2 }.forward(cx, z, 32, 1);
            assert_eq!(y.shape()[..], [1, 32, 32, 1]);
            y
        });
    }
}
