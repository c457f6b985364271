//! The convolutional pair of DCGAN (Radford et al., "Unsupervised Representation Learning with Deep Convolutional
//! Generative Adversarial Networks", ICLR 2016; keys as in PyTorch's `examples/dcgan`).

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From noise to images: a 4x4 image, doubled by transposed convolutions until it is as large as wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DcganGenerator {
    /// Channels before the last layer; doubled with every halving of the image.
    pub ngf: usize,
    /// Normalisation of all but the last layer.
    pub norm: Norm,
}

/// From images to one logit each: convolutions 4x4/2 down to 4x4, then one over all that is left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

impl Network for DcganGenerator {
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
        limits.width("ngf", self.ngf, 1024)?;
        let power = |size: usize| (8..=1024).contains(&size) && size.is_power_of_two();
        limits.square(power, "on a power of two from 8 on for DCGAN's networks")
    }

    /// Noise `[n, nz]` to images `[n, size, size, channels]` in (-1, 1).
    #[track_caller]
    fn forward(&self, cx: &Ctx, z: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.at("main");
        let levels = doublings(wanted.size[0]);
        let conv = |width: usize| ConvLayer::transposed(width, 4).bias(self.norm.wants_bias());
        let shape = z.shape();
        let mut h = z.reshape(&[shape[0], 1, 1, shape.numel() / shape[0]]);
        for level in 0..levels {
            let layer = conv(self.ngf << (levels - 1 - level));
            let layer = if level == 0 { layer } else { layer.stride(2).padding(1) };
            h = cx.norm(3 * level + 1, &cx.conv(3 * level, &h, layer), self.norm).relu();
        }
        vec![cx.conv(3 * levels, &h, conv(wanted.channels).stride(2).padding(1)).tanh()]
    }
}

impl Network for DcganDiscriminator {
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
        limits.width("ndf", self.ndf, 1024)?;
        let power = |size: usize| (8..=1024).contains(&size) && size.is_power_of_two();
        limits.square(power, "on a power of two from 8 on for DCGAN's networks")
    }

    /// Images `[n, size, size, c]` to logits `[n]`, or to vectors `[n, channels]`.
    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.at("main");
        let levels = doublings(x.shape()[1]);
        let conv = |width: usize| ConvLayer::new(width, 4).bias(self.norm.wants_bias());
        let down = |width: usize| conv(width).stride(2).padding(1);
        let mut h = cx.conv(0, x, down(self.ndf)).leaky_relu(0.2);
        cx.feature(0, &h);
        let mut index = 2;
        for level in 1..levels {
            h = cx.conv(index, &h, down(self.ndf << level));
            h = cx.norm(index + 1, &h, self.norm).leaky_relu(0.2);
            cx.feature(index, &h);
            // Without a norm there is no module in its place.
            index += if self.norm == Norm::None { 2 } else { 3 };
        }
        vec![wanted.vector(&cx.conv(index, &h, conv(wanted.channels)))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, describe_sized, keys};

    #[test]
    fn parameters_and_keys_are_those_of_the_reference() {
        let numbers = |list: &[usize]| list.iter().map(|i| format!("main.{i}")).collect::<Vec<_>>();
        let (g, y) = describe(&DcganGenerator::default(), &[2, 100], 3);
        assert_eq!(y[0][..], [2, 64, 64, 3]);
        assert_eq!(g.param_count(), 3_576_704);
        assert_eq!(keys(&g, ".bias"), numbers(&[1, 4, 7, 10]));
        assert_eq!(g.params.len() - keys(&g, ".bias").len(), 9);
        let (d, y) = describe(&DcganDiscriminator::default(), &[2, 64, 64, 3], 1);
        assert_eq!(y[0][..], [2]);
        assert_eq!(d.param_count(), 2_765_568);
        assert_eq!(keys(&d, ".weight"), numbers(&[0, 2, 3, 5, 6, 8, 9, 11]));
    }

    #[test]
    fn other_powers_of_two_work() {
        for size in [8, 16, 128] {
            let g = DcganGenerator { ngf: 2, ..Default::default() };
            let (_, y) = describe_sized(&g, &[1, 5], 1, &[size, size]);
            assert_eq!(y[0][..], [1, size, size, 1]);
            let d = DcganDiscriminator { ndf: 2, norm: Norm::None };
            let (spec, _) = describe(&d, &[3, size, size, 1], 1);
            assert_eq!(keys(&spec, ".weight").len(), keys(&spec, ".bias").len());
        }
    }
}
