//! The networks of R3GAN (Huang et al., "The GAN is dead; long live the GAN! A Modern Baseline GAN", NeurIPS 2024): residual
//! blocks of a grouped convolution between two 1x1 convolutions, without norms. The keys are ours.

use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::params::{Init, Layout};
use crate::nn::{ConvLayer, Ctx, Scheme};
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From noise to images: a learned 4x4 image, weighted by the noise, and stages of residual blocks that double it. No tanh:
/// the output has no bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct R3Generator {
    /// Channels of the stages, from 4x4 up; images have `4 x 2^(stages - 1)` pixels a side.
    pub widths: Vec<usize>,
    /// Residual blocks of a stage.
    pub blocks: usize,
    /// Channels of a group of the grouped convolutions.
    pub group: usize,
}

/// From images to one logit each: the generator's stages in the opposite order, a depthwise 4x4 convolution, a linear layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct R3Discriminator {
    /// Channels of the stages, from 4x4 up.
    pub widths: Vec<usize>,
    /// Residual blocks of a stage.
    pub blocks: usize,
    /// Channels of a group of the grouped convolutions.
    pub group: usize,
}

impl Default for R3Generator {
    fn default() -> Self {
        R3Generator { widths: vec![768, 768, 768, 768, 384], blocks: 2, group: 16 }
    }
}

impl Default for R3Discriminator {
    fn default() -> Self {
        R3Discriminator { widths: vec![768, 768, 768, 768, 384], blocks: 2, group: 16 }
    }
}

/// The gain of a leaky ReLU of slope 0.2.
const GAIN: f64 = 1.386_750_490_563_073;

fn check(widths: &[usize], blocks: usize, group: usize, limits: &Limits) -> Result<()> {
    limits.require((1..=8).contains(&widths.len()), "widths", "in number between 1 and 8")?;
    limits.require(widths.iter().all(|w| (1..=4096).contains(w)), "widths", "between 1 and 4096 each")?;
    limits.require((1..=8).contains(&blocks), "blocks", "between 1 and 8")?;
    let fits = group > 0 && widths.iter().all(|w| (2 * w).is_multiple_of(group));
    limits.require(fits, "group", "so that twice each of `widths` divides by it")?;
    let side = 4 << (widths.len() - 1);
    limits.square(|size| size == side, &format!("at {side} x {side}, which {} stages make", widths.len()))
}

/// `x + out(act(grouped(act(in(x)))))`, where `blocks` is the number of blocks in the network.
fn block(cx: &Ctx, x: &Var, group: usize, blocks: usize) -> Var {
    let gain = |g: f64| cx.with_scheme(Scheme::Gain(g));
    let inner = gain(GAIN * (blocks as f64).powf(-0.25));
    let width = 2 * x.channels();
    let h = inner.conv("in", x, ConvLayer::new(width, 1)).leaky_relu(0.2);
    let h = inner.conv("mid", &h, ConvLayer::same(width, 3).groups(width / group)).leaky_relu(0.2);
    x.add(&gain(0.0).conv("out", &h, ConvLayer::new(x.channels(), 1).bias(false)))
}

/// To another number of channels, where it is another.
fn convert(cx: &Ctx, x: &Var, width: usize) -> Var {
    if x.channels() == width {
        x.clone()
    } else {
        cx.conv("convert", x, ConvLayer::new(width, 1).bias(false))
    }
}

/// The filter [1, 3, 3, 1] / 8 along each axis, every second value: the mean of neighbours, three times.
fn down(x: &Var) -> Var {
    let first = Window { padding: vec![1, 1], ..Window::new(2, 2, 1) };
    x.avg_pool(&first, true).avg_pool(&Window::new(2, 2, 1), true).avg_pool(&Window::new(2, 2, 2), true)
}

impl Network for R3Generator {
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
        check(&self.widths, self.blocks, self.group, limits)
    }

    /// Noise `[n, nz]` to images `[n, size, size, channels]`.
    #[track_caller]
    fn forward(&self, cx: &Ctx, z: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Gain(1.0));
        let basis = cx.param("basis", &[4, 4, self.widths[0]], Layout::Plain, Init::Normal(0.0, 1.0));
        let factors = cx.linear("linear", z, self.widths[0], false);
        let mut h = factors.reshape(&[z.shape()[0], 1, 1, self.widths[0]]).mul(&basis);
        for (i, &width) in self.widths.iter().enumerate() {
            let cx = cx.at("stages").at(i);
            h = convert(&cx, &h, width);
            if i > 0 {
                // The same filter, up to the border, where it repeats the image's own values.
                h = h.resize_linear(&[2 * h.shape()[1], 2 * h.shape()[2]], false);
            }
            for j in 0..self.blocks {
                h = block(&cx.at("blocks").at(j), &h, self.group, self.blocks * self.widths.len());
            }
        }
        vec![cx.conv("output", &h, ConvLayer::new(wanted.channels, 1).bias(false))]
    }
}

impl Network for R3Discriminator {
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
        check(&self.widths, self.blocks, self.group, limits)
    }

    /// Images `[n, size, size, c]` to logits `[n]`, or to vectors `[n, channels]`.
    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let cx = &cx.with_scheme(Scheme::Gain(1.0));
        let last = self.widths.len() - 1;
        let mut h = cx.conv("input", x, ConvLayer::new(self.widths[last], 1).bias(false));
        for (i, stage) in (0..=last).rev().enumerate() {
            let cx = cx.at("stages").at(i);
            for j in 0..self.blocks {
                h = block(&cx.at("blocks").at(j), &h, self.group, self.blocks * self.widths.len());
            }
            cx.feature("out", &h);
            if stage > 0 {
                h = convert(&cx, &down(&h), self.widths[stage - 1]);
            }
        }
        let width = self.widths[0];
        let h = cx.conv("depthwise", &h, ConvLayer::new(width, 4).groups(width).bias(false));
        let n = x.shape()[0];
        vec![wanted.vector(&cx.linear("linear", &h.reshape(&[n, width]), wanted.channels, false))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// Counted by hand from the layers of the authors' code.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let widths = vec![256, 256, 256, 256, 128];
        let g = R3Generator { widths: widths.clone(), ..Default::default() };
        let (spec, y) = describe(&g, &[2, 64], 1);
        assert_eq!(spec.param_count(), 2_954_368);
        assert_eq!(y[0][..], [2, 64, 64, 1]);
        let (_, y) = describe(&R3Discriminator { widths, ..Default::default() }, &[2, 64, 64, 1], 1);
        assert_eq!(y[0][..], [2]);
    }
}
