//! Distances between images, element by element, and what smooths one.

use super::ssim::{MsSsim, Ssim};
use crate::graph::Var;
use crate::ops::sample::{Array, Domain, Sample, array, composite};
use serde::{Deserialize, Serialize};

/// How far an image is from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// Mean absolute difference.
    L1,
    /// Mean squared difference.
    #[default]
    L2,
    /// An L1 that is smooth at zero, with 1e-3 for its width.
    Charbonnier,
    /// Quadratic up to 1, linear beyond.
    Huber,
    /// 1 less the structural similarity, for values that span 2, as images in [-1, 1] do.
    Ssim,
    /// 1 less the structural similarity at several scales, for values that span 2: see [`MsSsim`].
    MsSsim,
    /// Of the images' edges: see [`gradient_difference`].
    GradientDifference,
}

impl Distance {
    /// Traces it.
    #[track_caller]
    pub fn between(self, y: &Var, target: &Var) -> Var {
        match self {
            Distance::L1 => l1(y, target),
            Distance::L2 => l2(y, target),
            Distance::Charbonnier => charbonnier(y, target, 1e-3),
            Distance::Huber => smooth_l1(y, target, 1.0),
            Distance::Ssim => Ssim::new(2.0).index(y, target).rsub_scalar(1.0),
            Distance::MsSsim => MsSsim::of(y, 2.0).index(y, target).rsub_scalar(1.0),
            Distance::GradientDifference => gradient_difference(y, target),
        }
    }
}

/// Mean of |x - y|.
#[track_caller]
pub fn l1(x: &Var, y: &Var) -> Var {
    x.sub(y).abs().mean_all()
}

/// Mean of (x - y)^2.
#[track_caller]
pub fn l2(x: &Var, y: &Var) -> Var {
    x.sub(y).square().mean_all()
}

/// Quadratic up to `beta` (positive), linear beyond (Girshick, ICCV 2015): mean of `d^2 / (2 beta)` or `|d| - beta / 2`
/// with `d = x - y`.
#[track_caller]
pub fn smooth_l1(x: &Var, y: &Var, beta: f64) -> Var {
    let d = x.sub(y).abs();
    let near = d.clamp(f64::NEG_INFINITY, beta);
    // |d| - near is what lies beyond beta.
    near.square().mul_scalar(0.5 / beta).add(&d.sub(&near)).mean_all()
}

/// Mean of `sqrt((x - y)^2 + eps^2)`: an L1 that is smooth at zero (Charbonnier et al., ICIP 1994).
#[track_caller]
pub fn charbonnier(x: &Var, y: &Var, eps: f64) -> Var {
    x.sub(y).square().add_scalar(eps * eps).sqrt().mean_all()
}

/// Peak signal-to-noise ratio in decibels for values that span `range`.
#[track_caller]
pub fn psnr(x: &Var, y: &Var, range: f64) -> Var {
    l2(x, y).mul_scalar(1.0 / (range * range)).log().mul_scalar(-10.0 / std::f64::consts::LN_10)
}

/// Total variation of `x [n, spatial.., c]` (Rudin et al. 1992, the anisotropic form): for each spatial axis the mean of
/// the absolute difference of neighbours, summed over the axes.
#[track_caller]
pub fn total_variation(x: &Var) -> Var {
    let shape = x.shape();
    (1..shape.rank().saturating_sub(1))
        .filter(|&axis| shape[axis] > 1)
        .map(|axis| {
            let n = shape[axis] - 1;
            x.slice(axis, 1, n).sub(&x.slice(axis, 0, n)).abs().mean_all()
        })
        .reduce(|a, b| a.add(&b))
        .unwrap_or_else(|| x.mean_all().mul_scalar(0.0))
}

/// The gradient difference loss of `[n, spatial.., c]` (Mathieu et al., ICLR 2016, with the square; Nie et al., IEEE TBME 2018):
/// for each spatial axis the mean squared difference between the absolute differences of neighbours, summed over the axes.
#[track_caller]
pub fn gradient_difference(x: &Var, y: &Var) -> Var {
    let shape = x.shape();
    let edges = |v: &Var, axis: usize| {
        let n = shape[axis] - 1;
        v.slice(axis, 1, n).sub(&v.slice(axis, 0, n)).abs()
    };
    (1..shape.rank().saturating_sub(1))
        .filter(|&axis| shape[axis] > 1)
        .map(|axis| l2(&edges(x, axis), &edges(y, axis)))
        .reduce(|a, b| a.add(&b))
        .unwrap_or_else(|| l2(x, y).mul_scalar(0.0))
}

/// The divergence of the normal distributions `N(mu, e^logvar)` from the standard one (Kingma and Welling, ICLR 2014):
/// `-1/2 mean(1 + logvar - mu^2 - e^logvar)`.
#[track_caller]
pub fn kl_gaussian(mu: &Var, logvar: &Var) -> Var {
    logvar.add_scalar(1.0).sub(&mu.square()).sub(&logvar.exp()).mean_all().mul_scalar(-0.5)
}

/// Each distance on small images; variation in one to three dimensions.
pub fn samples() -> Vec<Sample> {
    type Build = fn(&[Var]) -> Var;
    type F = fn(f64, f64) -> f64;
    let table: [(&str, Build, F); 6] = [
        ("l1", |x| l1(&x[0], &x[1]), |a, b| (a - b).abs()),
        ("l2", |x| l2(&x[0], &x[1]), |a, b| (a - b).powi(2)),
        (
            "smooth_l1",
            |x| smooth_l1(&x[0], &x[1], 0.7),
            |a, b| {
                let d = (a - b).abs();
                if d < 0.7 { d * d / 1.4 } else { d - 0.35 }
            },
        ),
        ("charbonnier", |x| charbonnier(&x[0], &x[1], 0.1), |a, b| (a - b).hypot(0.1)),
        ("kl_gaussian", |x| kl_gaussian(&x[0], &x[1]), |m, v| 0.5 * (m * m + v.exp() - v - 1.0)),
        // ln of the mean square, undone: what is left is linear in the oracle's mean.
        (
            "psnr",
            |x| psnr(&x[0], &x[1], 2.0).mul_scalar(-std::f64::consts::LN_10 / 10.0).exp(),
            |a, b| (a - b).powi(2) / 4.0,
        ),
    ];
    let scalar = |v: f64| array(crate::shape::Shape::scalar(), vec![v]);
    let shape: &[usize] = &[2, 3, 4, 2];
    let mut all: Vec<Sample> = table
        .into_iter()
        .map(|(name, build, f)| {
            let oracle = move |x: &[Array]| {
                let total: f64 = x[0].data.iter().zip(&x[1].data).map(|(&a, &b)| f(a, b)).sum();
                scalar(total / x[0].data.len() as f64)
            };
            composite(name, &[(shape, Domain::Distinct), (shape, Domain::Distinct)], build, oracle)
        })
        .collect();
    let shapes: [&[usize]; 4] = [&[2, 6, 2], &[1, 4, 5, 3], &[2, 3, 2, 4, 1], &[2, 1, 5, 1]];
    for shape in shapes {
        let oracle = move |x: &[Array]| {
            let strides = x[0].shape.strides();
            let mut total = 0.0;
            for axis in 1..shape.len() - 1 {
                let differences: Vec<f64> = (0..x[0].data.len())
                    .filter(|i| i / strides[axis] % shape[axis] + 1 < shape[axis])
                    .map(|i| (x[0].data[i + strides[axis]] - x[0].data[i]).abs())
                    .collect();
                if !differences.is_empty() {
                    total += differences.iter().sum::<f64>() / differences.len() as f64;
                }
            }
            scalar(total)
        };
        let build = |x: &[Var]| total_variation(&x[0]);
        all.push(composite("total_variation", &[(shape, Domain::Distinct)], build, oracle));
    }
    all
}
