//! What makes a generator and a discriminator compete.

use crate::graph::Var;
use crate::ops::gradient::grad;
use crate::ops::sample::{Array, Domain, Sample, array, composite};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// Binary cross entropy of logits against targets in [0, 1] of the same (or a broadcasting) shape:
/// `-(w t ln p + (1 - t) ln(1 - p))` with `p = sigmoid(x)`, averaged. `pos_weight` is w, 1 where not given.
///
/// Both logarithms are softplus functions, so that neither ever overflows or loses its small values.
#[track_caller]
pub fn bce_with_logits(x: &Var, target: &Var, pos_weight: Option<&Var>) -> Var {
    bce_map(x, target, pos_weight).mean_all()
}

/// As [`bce_with_logits`], element by element.
#[track_caller]
pub(super) fn bce_map(x: &Var, target: &Var, pos_weight: Option<&Var>) -> Var {
    let of_one = target.mul(&x.neg().softplus());
    let of_one = pos_weight.map_or(of_one.clone(), |w| of_one.mul(w));
    of_one.add(&target.rsub_scalar(1.0).mul(&x.softplus()))
}

/// Binary cross entropy of logits against one number in [0, 1].
#[track_caller]
pub fn bce_with_logits_constant(x: &Var, target: f64) -> Var {
    let parts = [(target, x.neg()), (1.0 - target, x.clone())];
    let used: Vec<Var> =
        parts.iter().filter(|(w, _)| *w != 0.0).map(|(w, z)| z.softplus().mul_scalar(*w)).collect();
    used.iter().skip(1).fold(used[0].clone(), |a, b| a.add(b)).mean_all()
}

/// Mean of `(x - target)^2`: the least-squares GAN's distance.
#[track_caller]
pub fn least_squares(x: &Var, target: f64) -> Var {
    x.add_scalar(-target).square().mean_all()
}

/// How discriminator outputs become losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GanMode {
    /// Binary cross entropy, the generator's in the non-saturating form (Goodfellow et al. 2014).
    #[default]
    #[serde(rename = "vanilla")]
    Bce,
    /// Least squares to 1 and 0 (Mao et al., ICCV 2017).
    #[serde(rename = "lsgan")]
    Lsgan,
    /// Hinge at 1 and -1 (Lim and Ye 2017; Miyato et al., ICLR 2018).
    #[serde(rename = "hinge")]
    Hinge,
    /// Difference of means (Arjovsky et al., ICML 2017); the critic must be kept Lipschitz by other means.
    #[serde(rename = "wgan")]
    Wgan,
    /// Real and generated images in pairs: softplus of how much more real the generated one seems (Jolicoeur-Martineau, ICLR
    /// 2019, RpGAN; Huang et al., NeurIPS 2024, R3GAN).
    #[serde(rename = "relativistic")]
    Relativistic,
    /// Binary cross entropy of how much more real an image seems than the other kind's mean (Jolicoeur-Martineau, ICLR 2019,
    /// RaGAN; ESRGAN).
    #[serde(rename = "relativistic-average")]
    RelativisticAverage,
}

impl GanMode {
    /// The discriminator's loss on real images, from its outputs on them.
    #[track_caller]
    pub fn d_real(self, logits: &Var) -> Var {
        match self {
            GanMode::Bce => bce_with_logits_constant(logits, 1.0),
            GanMode::Lsgan => least_squares(logits, 1.0),
            GanMode::Hinge => logits.rsub_scalar(1.0).relu().mean_all(),
            GanMode::Wgan => logits.mean_all().neg(),
            GanMode::Relativistic | GanMode::RelativisticAverage => no_single(),
        }
    }

    /// The discriminator's loss on generated images.
    #[track_caller]
    pub fn d_fake(self, logits: &Var) -> Var {
        match self {
            GanMode::Bce => bce_with_logits_constant(logits, 0.0),
            GanMode::Lsgan => least_squares(logits, 0.0),
            GanMode::Hinge => logits.add_scalar(1.0).relu().mean_all(),
            GanMode::Wgan => logits.mean_all(),
            GanMode::Relativistic | GanMode::RelativisticAverage => no_single(),
        }
    }

    /// Whether its losses compare outputs on real images with those on generated ones ([`GanMode::d_pair`],
    /// [`GanMode::g_pair`]), in place of each kind by itself.
    pub fn is_relativistic(self) -> bool {
        matches!(self, GanMode::Relativistic | GanMode::RelativisticAverage)
    }

    /// The discriminator's loss from its outputs on real and on generated images, as many of each.
    #[track_caller]
    pub fn d_pair(self, real: &Var, fake: &Var) -> Var {
        match self {
            GanMode::Relativistic => fake.sub(real).softplus().mean_all(),
            GanMode::RelativisticAverage => {
                let above = |x: &Var, of: &Var| x.sub(&of.mean_all());
                let real_is_real = bce_with_logits_constant(&above(real, fake), 1.0);
                real_is_real.add(&bce_with_logits_constant(&above(fake, real), 0.0)).mul_scalar(0.5)
            }
            _ => self.d_real(real).add(&self.d_fake(fake)),
        }
    }

    /// The generator's loss from the discriminator's outputs on real and on generated images: the other way round.
    #[track_caller]
    pub fn g_pair(self, real: &Var, fake: &Var) -> Var {
        if self.is_relativistic() { self.d_pair(fake, real) } else { self.g(fake) }
    }

    /// The share of outputs that lie on the right side of the boundary between real and generated images, one on the
    /// boundary counting half. A Wasserstein critic has no boundary.
    ///
    /// It reads what the loss reads, not the outputs themselves: a further reader of those would keep them from being fused
    /// into the loss, and so change how they are rounded.
    #[track_caller]
    pub fn accuracy(self, logits: &Var, real: bool) -> Option<Var> {
        // Positive on the right side.
        let margin = match (self, real) {
            (GanMode::Bce, true) => logits.neg().neg(),
            (GanMode::Bce, false) => logits.neg(),
            (GanMode::Lsgan, true) => logits.add_scalar(-1.0).add_scalar(0.5),
            (GanMode::Lsgan, false) => logits.rsub_scalar(0.5),
            (GanMode::Hinge, true) => logits.rsub_scalar(1.0).rsub_scalar(1.0),
            (GanMode::Hinge, false) => logits.add_scalar(1.0).rsub_scalar(1.0),
            (GanMode::Wgan | GanMode::Relativistic | GanMode::RelativisticAverage, _) => return None,
        };
        Some(margin.sign().mean_all().mul_scalar(0.5).add_scalar(0.5))
    }

    /// The generator's loss, from the discriminator's outputs on generated images.
    #[track_caller]
    pub fn g(self, logits: &Var) -> Var {
        match self {
            GanMode::Bce | GanMode::Lsgan => self.d_real(logits),
            GanMode::Hinge | GanMode::Wgan => logits.mean_all().neg(),
            GanMode::Relativistic | GanMode::RelativisticAverage => no_single(),
        }
    }
}

/// Callers ask [`GanMode::is_relativistic`] first.
fn no_single() -> Var {
    panic!("a relativistic loss compares real with generated images")
}

/// The gradient penalty of WGAN-GP (Gulrajani et al., NeurIPS 2017): mean over the images of
/// `(|d critic / d image| - 1)^2`, and the norms `[n]`. `mix [n, ..]` are images between real and generated ones (see
/// [`interpolate`]), taken as given; `critic` must not mix the images of a batch (no batch norm).
///
/// Where a gradient vanishes its norm is 0 and counts as constant, so that no NaN arises.
#[track_caller]
pub fn gradient_penalty(critic: impl Fn(&Var) -> Var, mix: &Var) -> (Var, Var) {
    let mix = mix.detach();
    let gradient = grad(&critic(&mix).sum_all(), std::slice::from_ref(&mix)).remove(0);
    let n = mix.shape().first().copied().unwrap_or(1);
    let squares =
        gradient.reshape(&[n, gradient.shape().numel() / n.max(1)]).square().sum(&[1]).reshape(&[n]);
    let any = squares.sign(); // 0 or 1
    let norm = squares.add(&any.rsub_scalar(1.0)).sqrt().mul(&any);
    (norm.add_scalar(-1.0).square().mean_all(), norm)
}

/// The gradient penalty R1 (Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018): the
/// mean over the real images of `|d D / d image|^2`, without the weight gamma / 2. `logits` are what the discriminator
/// says of `real`, which must be a variable of its own in their graph; it must not mix the images of a batch (no batch
/// norm).
#[track_caller]
pub fn r1_penalty(logits: &Var, real: &Var) -> Var {
    let gradient = grad(&logits.sum_all(), std::slice::from_ref(real)).remove(0);
    let n = real.shape().first().copied().unwrap_or(1);
    gradient.square().sum_all().mul_scalar(1.0 / n.max(1) as f64)
}

/// `alpha real + (1 - alpha) fake`, with alpha `[n, 1, ..]` (uniform random numbers): where the penalty is taken.
#[track_caller]
pub fn interpolate(alpha: &Var, real: &Var, fake: &Var) -> Var {
    alpha.mul(real).add(&alpha.rsub_scalar(1.0).mul(fake))
}

/// Each loss of each mode, targets between, weights, and the penalty of a critic whose gradient is known in closed form.
pub fn samples() -> Vec<Sample> {
    let shape: &[usize] = &[2, 3, 4];
    let mean = |x: &Array, f: &dyn Fn(f64) -> f64| {
        array(Shape::scalar(), vec![x.data.iter().map(|&v| f(v)).sum::<f64>() / x.data.len() as f64])
    };
    let bce = |x: f64, t: f64| {
        let p = 1.0 / (1.0 + (-x).exp());
        -(t * p.ln() + (1.0 - t) * (1.0 - p).ln())
    };
    let mut all = Vec::new();
    for target in [0.0, 0.9, 1.0] {
        let build = move |x: &[Var]| bce_with_logits_constant(&x[0], target);
        let oracle = move |x: &[Array]| mean(&x[0], &|v| bce(v, target));
        all.push(
            composite("bce_with_logits_constant", &[(shape, Domain::Wide)], build, oracle)
                .noted(&target.to_string()),
        );
    }
    let inputs = [(shape, Domain::Wide), (shape, Domain::Unit), (&[3, 1], Domain::Positive)];
    all.push(composite(
        "bce_with_logits",
        &inputs[..2],
        |x| bce_with_logits(&x[0], &x[1], None),
        move |x| {
            let each = x[0].data.iter().zip(&x[1].data).map(|(&v, &t)| bce(v, t));
            array(Shape::scalar(), vec![each.sum::<f64>() / 24.0])
        },
    ));
    all.push(composite(
        "bce_with_logits weighted",
        &inputs,
        |x| bce_with_logits(&x[0], &x[1], Some(&x[2])),
        move |x| {
            let each = (0..24).map(|i| {
                let (v, t, w) = (x[0].data[i], x[1].data[i], x[2].data[i / 4 % 3]);
                t * w * bce(v, 1.0) + (1.0 - t) * bce(v, 0.0)
            });
            array(Shape::scalar(), vec![each.sum::<f64>() / 24.0])
        },
    ));
    type F = fn(f64) -> f64;
    let modes: [(GanMode, [F; 3]); 4] = [
        (GanMode::Bce, [|x| (1.0 + (-x).exp()).ln(), |x| (1.0 + x.exp()).ln(), |x| (1.0 + (-x).exp()).ln()]),
        (GanMode::Lsgan, [|x| (x - 1.0).powi(2), |x| x * x, |x| (x - 1.0).powi(2)]),
        (GanMode::Hinge, [|x| (1.0 - x).max(0.0), |x| (1.0 + x).max(0.0), |x| -x]),
        (GanMode::Wgan, [|x| -x, |x| x, |x| -x]),
    ];
    for (mode, formulas) in modes {
        for (part, f) in formulas.into_iter().enumerate() {
            let build = move |x: &[Var]| [GanMode::d_real, GanMode::d_fake, GanMode::g][part](mode, &x[0]);
            let oracle = move |x: &[Array]| mean(&x[0], &f);
            all.push(
                composite("gan", &[(shape, Domain::Distinct)], build, oracle)
                    .noted(&format!("{mode:?} {part}")),
            );
        }
    }
    // critic(x) = sum of w x^2 has the gradient 2 w x.
    all.push(
        composite(
            "gradient_penalty",
            &[(&[3, 2, 2, 1], Domain::Normal), (&[2, 2, 1], Domain::Normal)],
            |x| gradient_penalty(|v| v.square().mul(&x[1]), &x[0]).0,
            |x| {
                let norm = |image: &[f64]| {
                    image.iter().zip(&x[1].data).map(|(v, w)| (2.0 * v * w).powi(2)).sum::<f64>().sqrt()
                };
                let total: f64 = x[0].data.chunks(4).map(|i| (norm(i) - 1.0).powi(2)).sum();
                array(Shape::scalar(), vec![total / 3.0])
            },
        )
        .fixing(0),
    );
    all.push(
        composite(
            "r1_penalty",
            &[(&[3, 2, 2, 1], Domain::Normal), (&[2, 2, 1], Domain::Normal)],
            |x| {
                let real = x[0].detach();
                r1_penalty(&real.square().mul(&x[1]), &real)
            },
            |x| {
                let of = |image: &[f64]| {
                    image.iter().zip(&x[1].data).map(|(v, w)| (2.0 * v * w).powi(2)).sum::<f64>()
                };
                array(Shape::scalar(), vec![x[0].data.chunks(4).map(of).sum::<f64>() / 3.0])
            },
        )
        .fixing(0),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_the_names_that_recipes_use() {
        let modes = [GanMode::Bce, GanMode::Lsgan, GanMode::Hinge, GanMode::Wgan];
        for (mode, name) in modes.into_iter().zip(["vanilla", "lsgan", "hinge", "wgan"]) {
            assert_eq!(serde_json::to_string(&mode).expect("is written"), format!("{name:?}"));
            assert_eq!(serde_json::from_str::<GanMode>(&format!("{name:?}")).expect("is read"), mode);
        }
        assert!(serde_json::from_str::<GanMode>("\"wgangp\"").is_err());
    }
}
