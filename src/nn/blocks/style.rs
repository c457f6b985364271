//! Layers of StyleGAN2 (Karras et al., CVPR 2020): weights of equal learning rates, convolutions modulated by a style, resampling
//! with the filter [1, 3, 3, 1], statistics over a batch. Keys as in the authors' code.

use crate::graph::Var;
use crate::nn::Ctx;
use crate::nn::blocks::conv_norm::doubled;
use crate::nn::params::{Init, Layout};
use crate::ops::concat::concat;
use crate::ops::conv::ConvSpec;
use crate::ops::max_pool::Window;
use std::fmt::Display;

/// Leaky ReLU of slope 0.2, times the square root of 2 and `gain`.
#[track_caller]
pub fn scaled_lrelu(x: &Var, gain: f64) -> Var {
    x.leaky_relu(0.2).mul_scalar(std::f64::consts::SQRT_2 * gain)
}

/// Bounds the sums of squares that are divided by.
const SMALL: f64 = 1e-8;

/// Each row of `x [n, c]` divided by the root of its mean square.
#[track_caller]
pub fn unit_rows(x: &Var) -> Var {
    x.div(&x.square().mean(&[1]).add_scalar(SMALL).sqrt())
}

fn margin(x: &Var, amount: i64) -> Var {
    let dims = x.rank().saturating_sub(2);
    let mut all = vec![(amount, amount); dims + 2];
    (all[0], all[dims + 1]) = ((0, 0), (0, 0));
    x.pad_zero(&all)
}

/// Means of neighbours along every axis.
fn mean2(x: &Var, stride: usize) -> Var {
    x.avg_pool(&Window::new(x.rank().saturating_sub(2), 2, stride), true)
}

/// Twice the extents: zeros between pixels, then the filter, which repeated pixels and two means of neighbours make. `border` more
/// pixels all round.
#[track_caller]
pub fn filtered_up(x: &Var, border: usize) -> Var {
    mean2(&mean2(&margin(&doubled(x), 1 + border as i64), 1), 1)
}

/// The filter, then every `stride`th pixel; `border` more pixels before that.
#[track_caller]
pub fn filtered_down(x: &Var, border: usize, stride: usize) -> Var {
    mean2(&mean2(&mean2(&margin(x, 1 + border as i64), 1), 1), stride)
}

impl Ctx {
    /// A linear layer whose weight begins as N(0, 1 / `rate`^2) and is scaled when it is used, so that Adam's steps are as large for
    /// every layer, times `rate`. The bias begins at `bias`.
    #[track_caller]
    pub fn equal_linear(&self, key: impl Display, x: &Var, out: usize, bias: f64, rate: f64) -> Var {
        self.layer(key, |cx| {
            let w = cx.param("weight", &[out, x.channels()], Layout::Plain, Init::Normal(0.0, 1.0 / rate));
            let b = cx.param("bias", &[out], Layout::Plain, Init::Constant(bias / rate));
            let y = x.linear(&w.mul_scalar(rate / (x.channels() as f64).sqrt()), None);
            y.add(&if rate == 1.0 { b } else { b.mul_scalar(rate) })
        })
    }

    fn kernel(&self, x: &Var, out: usize, kernel: usize) -> Var {
        let dims = x.rank().saturating_sub(2);
        let shape = [&[out], &vec![kernel; dims][..], &[x.channels()]].concat();
        self.param("weight", &shape, Layout::ChannelsSecond, Init::Normal(0.0, 1.0))
    }

    /// A convolution with equal learning rate; `padding` zeros around.
    #[track_caller]
    pub fn equal_conv(
        &self,
        key: impl Display,
        x: &Var,
        [out, kernel]: [usize; 2],
        [stride, padding]: [usize; 2],
        bias: bool,
    ) -> Var {
        self.layer(key, |cx| {
            let w = cx.kernel(x, out, kernel);
            let gain = 1.0 / ((w.shape().numel() / out) as f64).sqrt();
            let y = x.conv(&w.mul_scalar(gain), &ConvSpec::new(x.rank().saturating_sub(2), stride, padding));
            if bias { y.add(&cx.param("bias", &[out], Layout::Plain, Init::Constant(0.0))) } else { y }
        })
    }

    /// A convolution whose input channels `x [n, spatial.., c]` are scaled by what the style `w [n, numbers]` says;
    /// with `demodulate` its outputs are scaled to the variance that they would have for inputs of unit variance. A bias of
    /// its own is left to the caller. `layer` is channels, kernel and padding. Keys `affine.{weight, bias}`, `weight`.
    #[track_caller]
    pub fn modulated_conv(&self, x: &Var, w: &Var, layer: [usize; 3], demodulate: bool) -> Var {
        let [out, kernel, padding] = layer;
        let (n, c, dims) = (x.shape()[0], x.channels(), x.rank().saturating_sub(2));
        let across = |v: &Var| v.reshape(&[&[n][..], &vec![1; dims], &[v.channels()]].concat());
        let weight = self.kernel(x, out, kernel);
        let styles = self.equal_linear("affine", w, c, 1.0, 1.0);
        let spec = ConvSpec::new(dims, 1, padding);
        if !demodulate {
            let gain = 1.0 / ((weight.shape().numel() / out) as f64).sqrt();
            return x.mul(&across(&styles.mul_scalar(gain))).conv(&weight, &spec);
        }
        let squares = weight.square().sum(&(1..=dims).collect::<Vec<_>>()).reshape(&[out, c]);
        let size = styles.square().matmul(&squares, false, true).add_scalar(SMALL).sqrt();
        x.mul(&across(&styles)).conv(&weight, &spec).div(&across(&size))
    }

    /// The parameter `bias` of this module, added, with noise per pixel of a learnt strength while training. Key `noise_strength`.
    #[track_caller]
    pub fn noise_and_bias(&self, x: &Var) -> Var {
        let strength = self.param("noise_strength", &[], Layout::Plain, Init::Constant(0.0));
        let noise = self.noise(&x.shape().with(x.rank().saturating_sub(1), 1));
        let h = noise.map_or(x.clone(), |noise| x.add(&noise.mul(&strength)));
        h.add(&self.param("bias", &[x.channels()], Layout::Plain, Init::Constant(0.0)))
    }
}

/// Minibatch standard deviation (Karras et al., ICLR 2018): a channel more, which holds the mean deviation of all values within
/// groups of up to `group` images, those that stand a whole number of groups apart.
#[track_caller]
pub fn minibatch_std(x: &Var, group: usize) -> Var {
    let (shape, last) = (x.shape(), x.rank().saturating_sub(1));
    let n = shape[0];
    let size = (1..=group.clamp(1, n)).rev().find(|g| n.is_multiple_of(*g)).unwrap_or(1);
    let sets = x.reshape(&[size, n / size, shape.numel() / n]);
    let deviation = sets.variance(&[0], false).add_scalar(SMALL).sqrt().mean(&[2]);
    let each = deviation.broadcast_to(&[size, n / size, 1].into());
    let plane: Vec<usize> = [n].into_iter().chain(vec![1; last]).collect();
    concat(&[x, &each.reshape(&plane).broadcast_to(&shape.with(last, 1))], last)
}
