//! The networks of StyleGAN2 (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020). Keys as in the
//! authors' code of StyleGAN2-ADA, without its buffers.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::Ctx;
use crate::nn::blocks::conv_norm::flattened;
use crate::nn::blocks::style::*;
use crate::nn::params::{Init, Layout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From noise to a style, and from a learned 4x4 image, by convolutions that the style modulates, to images: a sum of what every
/// resolution gives. One style for all layers; noise per pixel while training.
///
/// Noise `[n, nz]` to images `[n, size, size, channels]` without bounds. Keys `mapping.fc{i}`,
/// `synthesis.b{size}.{const, conv0, conv1, torgb}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stylegan2Generator {
    /// Channels of a layer times the extent of its image, up to `most` channels.
    pub base: usize,
    /// The most channels of a layer.
    pub most: usize,
    /// Numbers of the style.
    pub style: usize,
    /// Layers from noise to style.
    pub mapping: usize,
}

/// From images to one logit each: residual blocks down to 4x4, the deviation within the batch, a convolution, two linear layers.
///
/// Images `[n, size, size, c]` to `[n]`. Keys `b{size}.{fromrgb, conv0, conv1, skip}`, `b4.{conv, fc, out}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stylegan2Discriminator {
    /// Channels of a layer times the extent of its image, up to `most` channels.
    pub base: usize,
    /// The most channels of a layer.
    pub most: usize,
    /// Images among which deviations are measured; with 1 every image stands alone.
    pub group: usize,
}

impl Default for Stylegan2Generator {
    fn default() -> Self {
        Stylegan2Generator { base: 16384, most: 512, style: 512, mapping: 8 }
    }
}

impl Default for Stylegan2Discriminator {
    fn default() -> Self {
        Stylegan2Discriminator { base: 16384, most: 512, group: 4 }
    }
}

fn check(base: usize, most: usize, limits: &Limits) -> Result<()> {
    limits.width("most", most, 1024)?;
    limits.require((1..=65536).contains(&base), "base", "between 1 and 65536")?;
    let power = |size: usize| (8..=1024).contains(&size) && size.is_power_of_two();
    limits.square(power, "on a power of two from 8 on for StyleGAN2's networks")
}

impl Stylegan2Generator {
    fn layer(&self, cx: &Ctx, x: &Var, w: &Var, size: usize, padding: usize) -> Var {
        let width = (self.base / size).clamp(1, self.most);
        scaled_lrelu(&cx.noise_and_bias(&cx.modulated_conv(x, w, [width, 3, padding], true)), 1.0)
    }
}

impl Network for Stylegan2Generator {
    fn signature(&self) -> Signature {
        Signature::Noise
    }

    fn takes_volumes(&self) -> bool {
        false
    }

    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.width("style", self.style, 4096)?;
        limits.require((1..=16).contains(&self.mapping), "mapping", "between 1 and 16")?;
        check(self.base, self.most, limits)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, z: &Var, wanted: &Wanted) -> Vec<Var> {
        let n = z.shape()[0];
        let mut w = unit_rows(&z.reshape(&[n, z.shape().numel() / n]));
        for i in 0..self.mapping {
            // A hundredth of the other layers' learning rate.
            let y = cx.at("mapping").equal_linear(format!("fc{i}"), &w, self.style, 0.0, 0.01);
            w = scaled_lrelu(&y, 1.0);
        }
        let (width, mut size) = ((self.base / 4).clamp(1, self.most), 4);
        let mut image: Option<Var> = None;
        let first =
            cx.at("synthesis.b4").param("const", &[width, 4, 4], Layout::Plain, Init::Normal(0.0, 1.0));
        let mut h =
            first.permute(&[1, 2, 0]).reshape(&[1, 4, 4, width]).broadcast_to(&[n, 4, 4, width].into());
        loop {
            let cx = cx.at(format!("synthesis.b{size}"));
            if size > 4 {
                h = self.layer(&cx.at("conv0"), &filtered_up(&h, 1), &w, size, 0);
            }
            h = self.layer(&cx.at("conv1"), &h, &w, size, 1);
            let rgb = cx.at("torgb");
            let y = rgb.modulated_conv(&h, &w, [wanted.channels, 1, 0], false);
            let y = y.add(&rgb.param("bias", &[wanted.channels], Layout::Plain, Init::Constant(0.0)));
            let whole = image.map_or(y.clone(), |below| filtered_up(&below, 0).add(&y));
            if size >= wanted.size[0] {
                return vec![whole];
            }
            (image, size) = (Some(whole), 2 * size);
        }
    }
}

impl Network for Stylegan2Discriminator {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn takes_volumes(&self) -> bool {
        false
    }

    /// Deviations are of the batch, but the paper penalises gradients all the same.
    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require((1..=64).contains(&self.group), "group", "between 1 and 64")?;
        check(self.base, self.most, limits)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
        let half = std::f64::consts::FRAC_1_SQRT_2;
        let width = |size: usize| (self.base / size).clamp(1, self.most);
        let mut size = x.shape()[1];
        let rgb = cx.at(format!("b{size}")).equal_conv("fromrgb", x, [width(size), 1], [1, 0], true);
        let mut h = scaled_lrelu(&rgb, 1.0);
        while size > 4 {
            let (cx, out) = (cx.at(format!("b{size}")), width(size / 2));
            let skip = cx.equal_conv("skip", &filtered_down(&h, 0, 2), [out, 1], [1, 0], false);
            let y = scaled_lrelu(&cx.equal_conv("conv0", &h, [width(size), 3], [1, 1], true), 1.0);
            let y = cx.equal_conv("conv1", &filtered_down(&y, 1, 1), [out, 3], [2, 0], true);
            // Half of the variance is each path's.
            h = skip.mul_scalar(half).add(&scaled_lrelu(&y, half));
            cx.feature("out", &h);
            size /= 2;
        }
        let cx = cx.at("b4");
        let seen = minibatch_std(&h, self.group);
        let y = scaled_lrelu(&cx.equal_conv("conv", &seen, [h.channels(), 3], [1, 1], true), 1.0);
        let y = scaled_lrelu(&cx.equal_linear("fc", &flattened(&y), h.channels(), 0.0, 1.0), 1.0);
        vec![cx.equal_linear("out", &y, 1, 0.0, 1.0).reshape(&[x.shape()[0]])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, describe_sized};

    /// Counted by PyTorch from the layers of the authors' code.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let (g, y) = describe_sized(&Stylegan2Generator::default(), &[2, 512], 3, &[256, 256]);
        assert_eq!((g.param_count(), &y[0][..]), (24_767_458, &[2, 256, 256, 3][..]));
        let (d, y) = describe(&Stylegan2Discriminator::default(), &[2, 256, 256, 3], 1);
        assert_eq!((d.param_count(), &y[0][..]), (24_001_089, &[2][..]));
    }
}
