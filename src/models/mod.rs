//! Networks: generators and discriminators, layer by layer as in their reference implementations, with the same keys.

pub mod attention_unet;
pub mod dcgan;
pub mod deeplab;
pub mod denoiser;
pub mod densenet;
pub mod googlenet;
pub mod inception_v3;
pub mod mlp_gan;
pub mod mobilenet;
pub mod multi_scale;
pub mod mwcnn;
pub mod network;
pub mod nnunet;
pub mod nnunet_residual;
pub mod patchgan;
pub mod r2_unet;
pub mod r3gan;
pub mod registry;
pub mod residual_gan;
pub mod resnet;
pub mod resnet_generator;
pub mod rrdb;
pub mod sagan;
pub mod segmentation_unet;
pub mod srcnn;
pub mod srgan;
pub mod stylegan2;
pub mod unet_generator;
pub mod unet_plus_plus;
pub mod vdsr;
pub mod vgg;
pub mod vox2vox;
pub mod xception;

pub use attention_unet::AttentionUnet;
pub use dcgan::{DcganDiscriminator, DcganGenerator};
pub use deeplab::DeeplabV3;
pub use denoiser::Denoiser;
pub use densenet::Densenet;
pub use googlenet::Googlenet;
pub use inception_v3::InceptionV3;
pub use mlp_gan::{MlpDiscriminator, MlpGenerator};
pub use mobilenet::MobilenetV2;
pub use multi_scale::MultiScaleGan;
pub use mwcnn::Mwcnn;
pub use network::{Limits, Network, Signature, Wanted};
pub use nnunet::Nnunet;
pub use nnunet_residual::NnunetResidual;
pub use patchgan::{PatchGan, PixelGan};
pub use r2_unet::R2Unet;
pub use r3gan::{R3Discriminator, R3Generator};
pub use registry::{AnyNetwork, REGISTRY};
pub use residual_gan::{ResidualCritic, ResidualGenerator};
pub use resnet::Resnet;
pub use resnet_generator::ResnetGenerator;
pub use rrdb::Rrdb;
pub use sagan::{SaganDiscriminator, SaganGenerator};
pub use segmentation_unet::{SegmentationUnet, Widths};
pub use srcnn::Srcnn;
pub use srgan::{SrganDiscriminator, SrganGenerator};
pub use stylegan2::{Stylegan2Discriminator, Stylegan2Generator};
pub use unet_generator::UnetGenerator;
pub use unet_plus_plus::UnetPlusPlus;
pub use vdsr::Vdsr;
pub use vgg::Vgg;
pub use vox2vox::Vox2Vox;
pub use xception::Xception;

use crate::graph::Var;
use crate::ops::resample::AxisMap;

/// Pads the spatial axes of `x` to multiples of `multiple` by repeating the border, runs `f`, and crops its output back.
/// A network that halves its input `n` times takes any size this way (`multiple = 2^n`).
#[track_caller]
pub fn padded(x: &Var, multiple: usize, f: impl FnOnce(&Var) -> Var) -> Var {
    let shape = x.shape();
    let spatial = 1..shape.rank().max(2) - 1;
    let missing: Vec<usize> = shape[spatial].iter().map(|&n| n.next_multiple_of(multiple) - n).collect();
    if missing.iter().all(|&m| m == 0) {
        return f(x);
    }
    let maps: Vec<AxisMap> =
        missing.iter().map(|&m| AxisMap::Replicate { before: m / 2, behind: m - m / 2 }).collect();
    let y = f(&x.resample(&maps));
    let mut crop = vec![(0, 0)];
    crop.extend(missing.iter().map(|&m| (-((m / 2) as i64), -((m - m / 2) as i64))));
    crop.push((0, 0));
    y.pad_zero(&crop)
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    use super::{Network, Wanted};
    use crate::nn::NetSpec;
    use crate::shape::Shape;

    /// What a network keeps, and the extents of its outputs, for an input of the given extents. The images have the input's
    /// spatial extents, or are 64 x 64 where it is noise.
    pub fn describe(network: &dyn Network, shape: &[usize], channels: usize) -> (NetSpec, Vec<Shape>) {
        let size = if shape.len() > 2 { &shape[1..shape.len() - 1] } else { &[64, 64] };
        describe_sized(network, shape, channels, size)
    }

    pub fn describe_sized(
        network: &dyn Network,
        shape: &[usize],
        channels: usize,
        size: &[usize],
    ) -> (NetSpec, Vec<Shape>) {
        let mut shapes = Vec::new();
        let spec = NetSpec::describe("net", |cx, graph| {
            let wanted = Wanted { channels, size: size.to_vec() };
            let out = network.forward(cx, &graph.input("x", shape), &wanted);
            shapes = out.iter().map(|y| y.shape()).collect();
        });
        (spec.expect("the shapes fit"), shapes)
    }

    /// The keys of the parameters that end so, without the ending.
    pub fn keys(spec: &NetSpec, ending: &str) -> Vec<String> {
        spec.params.iter().filter_map(|p| p.key.strip_suffix(ending)).map(str::to_string).collect()
    }
}
