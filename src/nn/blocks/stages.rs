//! Stages of nnU-Net's networks. Keys as in dynamic-network-architectures.

use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm};
use crate::ops::concat::concat;
use crate::ops::max_pool::Window;

/// The slope of all leaky ReLUs.
const SLOPE: f64 = 0.01;

/// Resolutions and widths.
#[derive(Clone, Copy, Debug)]
pub struct Stages<'a> {
    /// Channels of the stages.
    pub widths: &'a [usize],
    /// Stages that neither see nor halve the first axis.
    pub flat: usize,
    /// Whether lower resolutions predict too.
    pub deep_supervision: bool,
}

impl Ctx {
    /// Convolution and instance norm, and leaky ReLU where `active`. Keys `conv`, `norm`.
    #[track_caller]
    pub fn stage_conv(&self, x: &Var, layer: ConvLayer, active: bool) -> Var {
        let h = self.norm("norm", &self.conv("conv", x, layer), Norm::InstanceAffine);
        if active { h.leaky_relu(SLOPE) } else { h }
    }
}

impl Stages<'_> {
    /// What spatial extents divide by.
    pub fn multiple(&self) -> usize {
        1 << (self.widths.len() - 1)
    }

    /// `flat` along the first axis in flat stages, else `full`.
    fn each(&self, stage: usize, x: &Var, flat: usize, full: usize) -> Vec<usize> {
        let mut all = vec![full; x.rank().saturating_sub(2)];
        if stage < self.flat && !all.is_empty() {
            all[0] = flat;
        }
        all
    }

    /// Along each axis, the steps into a stage.
    fn strides(&self, stage: usize, x: &Var) -> Vec<usize> {
        self.each(stage, x, 1, if stage == 0 { 1 } else { 2 })
    }

    /// A convolution of a stage of `x`; the stage's `first` halves.
    pub fn layer(&self, stage: usize, x: &Var, first: bool) -> ConvLayer {
        let (kernel, padding) = (self.each(stage, x, 1, 3), self.each(stage, x, 0, 1));
        let stride = if first { self.strides(stage, x) } else { vec![1] };
        let layer = ConvLayer::new(self.widths[stage], &kernel[..]).padding(&padding[..]);
        if first { layer.stride(&stride[..]) } else { layer }
    }

    /// A residual block: two convolutions beside mean pooling (of a stage's `first` block) and a 1x1 convolution (to other
    /// channels). Keys `conv1`, `conv2`, `skip.{i}`, each `{conv, norm}`.
    #[track_caller]
    pub fn residual(&self, cx: &Ctx, x: &Var, stage: usize, first: bool) -> Var {
        let h = cx.at("conv1").stage_conv(x, self.layer(stage, x, first), true);
        let h = cx.at("conv2").stage_conv(&h, self.layer(stage, x, false), false);
        let strides = self.strides(stage, x);
        let halves = first && strides.iter().any(|&s| s > 1);
        let mut skip = x.clone();
        if halves {
            let padding = vec![0; strides.len()];
            let window = Window { kernel: strides.clone(), stride: strides, padding, ceil: false };
            skip = skip.avg_pool(&window, true);
        }
        let width = self.widths[stage];
        if x.channels() != width {
            let layer = ConvLayer::new(width, 1).bias(false);
            skip = cx.at("skip").at(usize::from(halves)).stage_conv(&skip, layer, false);
        }
        h.add(&skip).leaky_relu(SLOPE)
    }

    /// The way up from the stages' last values: predictions of `channels` logits, the finest first, the others enlarged, one
    /// behind the other. Keys `transpconvs.{k}`, `stages.{k}.convs.{i}`, `seg_layers.{k}`, k from the lowest resolution.
    #[track_caller]
    pub fn decode(&self, cx: &Ctx, skips: &[Var], convs: usize, channels: usize) -> Var {
        let last = skips.len() - 1;
        let dims = skips[0].rank().saturating_sub(2);
        let size = skips[0].shape()[1..=dims].to_vec();
        let (mut h, mut out) = (skips[last].clone(), Vec::new());
        for (k, level) in (0..last).rev().enumerate() {
            let strides = self.strides(level + 1, &h);
            let up = ConvLayer::transposed(self.widths[level], &strides[..]).stride(&strides[..]);
            h = concat(&[&cx.at("transpconvs").conv(k, &h, up), &skips[level]], dims + 1);
            for i in 0..convs {
                let layer = self.layer(level, &h, false);
                h = cx.at(format!("stages.{k}.convs.{i}")).stage_conv(&h, layer, true);
            }
            if self.deep_supervision || level == 0 {
                let logits = cx.at("seg_layers").conv(k, &h, ConvLayer::new(channels, 1));
                out.push(if level == 0 { logits } else { logits.resize_linear(&size, false) });
            }
        }
        out.reverse();
        concat(&out.iter().collect::<Vec<_>>(), dims + 1)
    }

    /// Predictions by themselves.
    pub fn apart(&self, channels: usize, all: &Var) -> Vec<Var> {
        let heads = if self.deep_supervision { self.widths.len() - 1 } else { 1 };
        (0..heads).map(|i| all.slice(all.rank().saturating_sub(1), i * channels, channels)).collect()
    }
}
