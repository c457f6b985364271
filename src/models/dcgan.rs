//! The convolutional pair of DCGAN (Radford et al., "Unsupervised Representation Learning with Deep Convolutional
//! Generative Adversarial Networks", ICLR 2016; keys as in PyTorch's `examples/dcgan`).

use crate::graph::Var;
use crate::nn::{Ctx, Norm};
use serde::{Deserialize, Serialize};

/// From noise to images: a 4x4 image, doubled by transposed convolutions until it is as large as wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DcganGenerator {
    /// Channels before the last layer; doubled with every halving of the image.
    pub ngf: usize,
    /// Normalisation of all but the last layer.
    pub norm: Norm,
}

/// From images to one logit each: convolutions 4x4/2 down to 4x4, then one over all that is left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DcganDiscriminator {
    /// Channels of the first layer; doubled with every halving of the image.
    pub ndf: usize,
    /// Normalisation of all but the first and the last layer. With "none" every convolution has a bias, and the network
    /// can be WGAN-GP's critic.
    pub norm: Norm,
}

impl Default for DcganGenerator {
    fn default() -> Self {
        DcganGenerator { ngf: 64, norm: Norm::Batch }
    }
}

impl Default for DcganDiscriminator {
    fn default() -> Self {
        DcganDiscriminator { ndf: 64, norm: Norm::Batch }
    }
}

/// How often 4x4 is doubled to reach an extent, a power of two from 8 on.
fn doublings(size: usize) -> usize {
    (size.max(8) / 4).ilog2() as usize
}

impl DcganGenerator {
    /// Traces the network: noise `[n, nz]` to images `[n, size, size, channels]` in (-1, 1). `size` is a power of two
    /// from 8 on.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, z: &Var, size: usize, channels: usize) -> Var {
        let levels = doublings(size);
        let key = |i: usize| format!("main.{i}");
        let bias = self.norm.wants_bias();
        let shape = z.shape();
        let mut h = z.reshape(&[shape[0], 1, 1, shape.numel() / shape[0]]);
        for level in 0..levels {
            let (stride, padding) = if level == 0 { (1, 0) } else { (2, 1) };
            let width = self.ngf << (levels - 1 - level);
            h = cx.conv_transpose(&key(3 * level), &h, width, 4, stride, padding, 0, bias);
            h = cx.norm(&key(3 * level + 1), &h, self.norm).relu();
        }
        cx.conv_transpose(&key(3 * levels), &h, channels, 4, 2, 1, 0, bias).tanh()
    }
}

impl DcganDiscriminator {
    /// Traces the network: images `[n, size, size, c]`, `size` a power of two from 8 on, to logits `[n]`.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var) -> Var {
        let levels = doublings(x.shape()[1]);
        let key = |i: usize| format!("main.{i}");
        let bias = self.norm.wants_bias();
        let mut h = cx.conv(&key(0), x, self.ndf, 4, 2, 1, bias).leaky_relu(0.2);
        let mut index = 2;
        for level in 1..levels {
            h = cx.conv(&key(index), &h, self.ndf << level, 4, 2, 1, bias);
            h = cx.norm(&key(index + 1), &h, self.norm).leaky_relu(0.2);
            // Without a norm there is no module in its place.
            index += if self.norm == Norm::None { 2 } else { 3 };
        }
        let logits = cx.conv(&key(index), &h, 1, 4, 1, 0, bias);
        logits.reshape(&[logits.shape()[0]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn parameters_and_keys_are_those_of_the_reference() {
        let numbers = |list: &[usize]| list.iter().map(|i| format!("main.{i}")).collect::<Vec<_>>();
        let g = describe(&[2, 100], |cx, z| {
            let y = DcganGenerator::default().forward(cx, z, 64, 3);
            assert_eq!(y.shape()[..], [2, 64, 64, 3]);
            y
        });
        assert_eq!(g.param_count(), 3_576_704);
        assert_eq!(keys(&g, ".bias"), numbers(&[1, 4, 7, 10]));
        assert_eq!(g.params.len() - keys(&g, ".bias").len(), 9);
        let d = describe(&[2, 64, 64, 3], |cx, x| {
            let y = DcganDiscriminator::default().forward(cx, x);
            assert_eq!(y.shape()[..], [2]);
            y
        });
        assert_eq!(d.param_count(), 2_765_568);
        assert_eq!(keys(&d, ".weight"), numbers(&[0, 2, 3, 5, 6, 8, 9, 11]));
    }

    #[test]
    fn other_powers_of_two_work() {
        for size in [8, 16, 128] {
            let g = DcganGenerator { ngf: 2, ..Default::default() };
            describe(&[1, 5], |cx, z| {
                let y = g.forward(cx, z, size, 1);
                assert_eq!(y.shape()[..], [1, size, size, 1]);
                y
            });
            let d = DcganDiscriminator { ndf: 2, norm: Norm::None };
            let spec = describe(&[3, size, size, 1], |cx, x| d.forward(cx, x));
            assert_eq!(keys(&spec, ".weight").len(), keys(&spec, ".bias").len());
        }
    }
}
