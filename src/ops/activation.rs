//! Activation functions built from pointwise operations. (ReLU, leaky ReLU, tanh, sigmoid and softplus are operations of
//! their own: [`super::unary`].)
//!
//! Each is written so that neither the value nor the derivative overflows for inputs as large as 1e4, and so that the
//! derivative at a kink is PyTorch's.

use crate::graph::Var;
use crate::ops::sample::{self, Domain, Sample};

/// The constants with which activations keep zero mean and unit variance (Klambauer et al., NeurIPS 2017).
const SELU: (f64, f64) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);

impl Var {
    /// min(x, 0), with derivative 1 at 0 (unlike that of a clamp).
    #[track_caller]
    fn below_zero(&self) -> Var {
        self.sub(&self.gate(self, 0.0))
    }

    /// e^x - 1 for x <= 0, exact near zero: `2 h / (1 - h)` with `h = tanh(x / 2)`.
    #[track_caller]
    fn exp_m1_below_zero(&self) -> Var {
        let h = self.mul_scalar(0.5).tanh();
        h.mul_scalar(2.0).div(&h.rsub_scalar(1.0))
    }

    /// x where positive, else `alpha (e^x - 1)` (Clevert et al., ICLR 2016).
    #[track_caller]
    pub fn elu(&self, alpha: f64) -> Var {
        self.relu().add(&self.below_zero().exp_m1_below_zero().mul_scalar(alpha))
    }

    /// A scaled ELU that keeps zero mean and unit variance (Klambauer et al., NeurIPS 2017).
    #[track_caller]
    pub fn selu(&self) -> Var {
        self.elu(SELU.1).mul_scalar(SELU.0)
    }

    /// x sigmoid(x), also called swish (Elfwing et al. 2018).
    #[track_caller]
    pub fn silu(&self) -> Var {
        self.mul(&self.sigmoid())
    }

    /// x times the normal distribution function of x (Hendrycks and Gimpel 2016).
    #[track_caller]
    pub fn gelu(&self) -> Var {
        let twice = self.mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0);
        self.mul_scalar(0.5).mul(&twice)
    }

    /// The approximation of [`Var::gelu`] by a hyperbolic tangent.
    #[track_caller]
    pub fn gelu_tanh(&self) -> Var {
        let inner = self.square().mul_scalar(0.044_715).add_scalar(1.0).mul(self);
        let twice = inner.mul_scalar((2.0 * std::f64::consts::FRAC_1_PI).sqrt()).tanh().add_scalar(1.0);
        self.mul_scalar(0.5).mul(&twice)
    }

    /// x tanh(softplus(x)) (Misra, BMVC 2020).
    #[track_caller]
    pub fn mish(&self) -> Var {
        self.mul(&self.softplus().tanh())
    }

    /// x clamp(x + 3, 0, 6) / 6 (Howard et al., ICCV 2019).
    #[track_caller]
    pub fn hardswish(&self) -> Var {
        self.mul(&self.add_scalar(3.0).clamp(0.0, 6.0)).mul_scalar(1.0 / 6.0)
    }

    /// x limited to `[low, high]`; the derivative is 0 on the bounds.
    #[track_caller]
    pub fn hardtanh(&self, low: f64, high: f64) -> Var {
        self.clamp(low, high)
    }

    /// ln sigmoid(x).
    #[track_caller]
    pub fn logsigmoid(&self) -> Var {
        self.neg().softplus().neg()
    }

    /// `ln(1 + e^(beta x)) / beta`.
    #[track_caller]
    pub fn softplus_beta(&self, beta: f64) -> Var {
        self.mul_scalar(beta).softplus().mul_scalar(1.0 / beta)
    }

    /// x where positive, else w x with a learnt slope per channel, `w [c]` or `[1]` (He et al., ICCV 2015).
    #[track_caller]
    pub fn prelu(&self, w: &Var) -> Var {
        self.relu().add(&self.below_zero().mul(w))
    }

    /// Dropout by a given mask of zeros and ones: `x mask / (1 - p)`. (Training draws its own: [`super::dropout`].)
    #[track_caller]
    pub fn dropout_with_mask(&self, mask: &Var, p: f64) -> Var {
        self.mul(mask).mul_scalar(1.0 / (1.0 - p))
    }
}

/// Every activation, from its definition.
pub fn samples() -> Vec<Sample> {
    type Build = fn(&Var) -> Var;
    type F = fn(f64) -> f64;
    let table: [(&str, Build, F); 12] = [
        ("elu", |x| x.elu(0.7), |x| if x > 0.0 { x } else { 0.7 * x.exp_m1() }),
        ("selu", Var::selu, |x| SELU.0 * if x > 0.0 { x } else { SELU.1 * (x.exp() - 1.0) }),
        ("silu", Var::silu, |x| x / (1.0 + (-x).exp())),
        ("gelu", Var::gelu, |x| x * normal_distribution(x)),
        ("gelu_tanh", Var::gelu_tanh, |x| {
            x / (1.0 + (-2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).exp())
        }),
        ("mish", Var::mish, |x| x * (1.0 + x.exp()).ln().tanh()),
        (
            "hardswish",
            |x| x.mul_scalar(2.3).hardswish(),
            |x| {
                let x = 2.3 * x;
                if x < -3.0 {
                    0.0
                } else if x > 3.0 {
                    x
                } else {
                    x * (x + 3.0) / 6.0
                }
            },
        ),
        ("hardtanh", |x| x.hardtanh(-0.9, 1.1), |x| x.clamp(-0.9, 1.1)),
        ("logsigmoid", Var::logsigmoid, |x| (1.0 / (1.0 + (-x).exp())).ln()),
        ("softplus_beta", |x| x.softplus_beta(3.0), |x| (1.0 + (3.0 * x).exp()).ln() / 3.0),
        ("below_zero", Var::below_zero, |x| x.min(0.0)),
        ("exp_m1", |x| x.below_zero().exp_m1_below_zero(), |x| x.min(0.0).exp_m1()),
    ];
    let sizes: [&[usize]; 2] = [&[3, 7], &[2, 2, 3, 5]];
    let mut all: Vec<Sample> = table
        .into_iter()
        .flat_map(|(name, build, f)| {
            sizes.iter().map(move |size| {
                let oracle = move |x: &[sample::Array]| {
                    sample::array(x[0].shape.clone(), x[0].data.iter().map(|&v| f(v)).collect())
                };
                sample::composite(name, &[(*size, Domain::Distinct)], move |x| build(&x[0]), oracle)
            })
        })
        .collect();
    for slopes in [3, 1] {
        let inputs: [(&[usize], Domain); 2] = [(&[2, 4, 3], Domain::Distinct), (&[slopes], Domain::Positive)];
        all.push(sample::composite(
            "prelu",
            &inputs,
            |x| x[0].prelu(&x[1]),
            move |x| {
                sample::fill([2, 4, 3], |i| {
                    let v = x[0].at(i);
                    if v > 0.0 { v } else { v * x[1].data[i[2] % slopes] }
                })
            },
        ));
    }
    all.push(sample::composite(
        "dropout_with_mask",
        &[(&[4, 5], Domain::Normal), (&[4, 5], Domain::Binary)],
        |x| x[0].dropout_with_mask(&x[1], 0.2),
        |x| sample::fill([4, 5], |i| if x[1].at(i) > 0.5 { 1.25 * x[0].at(i) } else { 0.0 }),
    ));
    all
}

/// The normal distribution function by Simpson's rule from 0.
fn normal_distribution(x: f64) -> f64 {
    let panels = 2000;
    let h = x / f64::from(2 * panels);
    let density = |i: i32| (-0.5 * (f64::from(i) * h).powi(2)).exp();
    let sum: f64 = (0..panels).map(|p| density(2 * p) + 4.0 * density(2 * p + 1) + density(2 * p + 2)).sum();
    0.5 + sum * h / 3.0 / (2.0 * std::f64::consts::PI).sqrt()
}
