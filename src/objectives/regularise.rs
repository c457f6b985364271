//! What keeps discriminators and generators within bounds, beside the penalties of [`super::adversarial`].

use crate::graph::Var;
use crate::ops::gradient::grad;
use crate::ops::sample::{Domain, Sample, array, composite};
use crate::shape::Shape;

/// Where DRAGAN takes its gradient penalty (Kodali et al., "On Convergence and Stability of GANs", 2017, and their code): images
/// moved from the real ones by half of the standard deviation of all their values, times `uniform [n, ..]` element by element
/// and `alpha [n, 1, ..]` image by image, both in [0, 1).
#[track_caller]
pub fn around(real: &Var, alpha: &Var, uniform: &Var) -> Var {
    let n = real.shape().numel();
    let deviation = real.reshape(&[n]).variance(&[0], false).sqrt().reshape(&[]);
    real.add(&alpha.mul(uniform).mul(&deviation.mul_scalar(0.5)))
}

/// LeCam's regularisation (Tseng et al., CVPR 2021, equation 4, one-sided as in their code): means over everything of
/// `relu(real - anchor of fake)^2` and of `relu(anchor of real - fake)^2`, added. `anchors` are running means of logits, of real
/// and of generated images.
#[track_caller]
pub fn lecam(real: &Var, fake: &Var, [of_real, of_fake]: &[Var; 2]) -> Var {
    let above = real.sub(of_fake).relu().square().mean_all();
    above.add(&of_real.sub(fake).relu().square().mean_all())
}

/// The lengths `[n]` of the paths in the space of images (Karras et al., StyleGAN2, CVPR 2020, equation 4): the norm of the
/// gradient by `noise [n, numbers]` of the product of `images [n, spatial.., c]`, which are made of it one by one, and
/// `direction`, normal random numbers of their extents, divided by the square root of the number of pixels.
#[track_caller]
pub fn path_lengths(images: &Var, noise: &Var, direction: &Var) -> Var {
    let shape = images.shape();
    let pixels: usize = shape.iter().skip(1).take(shape.rank().saturating_sub(2)).product();
    let product = images.mul(direction).sum_all().mul_scalar(1.0 / (pixels as f64).sqrt());
    let gradient = grad(&product, std::slice::from_ref(noise)).remove(0);
    let n = noise.shape().first().copied().unwrap_or(1);
    // As for the gradient penalty: where it vanishes, the length is a constant.
    let squares = gradient.square().sum(&[1]).reshape(&[n]);
    let any = squares.sign();
    squares.add(&any.rsub_scalar(1.0)).sqrt().mul(&any)
}

/// Against the formulas; of a generator whose derivative is known in closed form.
pub fn samples() -> Vec<Sample> {
    let shape: &[usize] = &[2, 3, 2, 1];
    let mut all = vec![composite(
        "around",
        &[(shape, Domain::Normal), (&[2, 1, 1, 1], Domain::Unit), (shape, Domain::Unit)],
        |x| around(&x[0], &x[1], &x[2]),
        |x| {
            let n = x[0].data.len() as f64;
            let mean = x[0].data.iter().sum::<f64>() / n;
            let sd = (x[0].data.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            let at = |i: usize| x[0].data[i] + 0.5 * sd * x[1].data[i / 6] * x[2].data[i];
            array(x[0].shape.clone(), (0..x[0].data.len()).map(at).collect())
        },
    )];
    let logits: &[usize] = &[3, 4, 2];
    all.push(composite(
        "lecam",
        &[(logits, Domain::Distinct), (logits, Domain::Distinct), (&[1], Domain::Unit), (&[1], Domain::Unit)],
        |x| lecam(&x[0], &x[1], &[x[2].reshape(&[]), x[3].reshape(&[])]),
        |x| {
            let (of_real, of_fake) = (x[2].data[0], x[3].data[0]);
            let above: f64 = x[0].data.iter().map(|r| (r - of_fake).max(0.0).powi(2)).sum();
            let below: f64 = x[1].data.iter().map(|f| (of_real - f).max(0.0).powi(2)).sum();
            array(Shape::scalar(), vec![(above + below) / x[0].data.len() as f64])
        },
    ));
    // G(z)[i] = sum over k of w[i, k] z_k^2: the derivative of sum over i of y_i G_i by z_k is 2 z_k sum over i of y_i w[i, k].
    all.push(
        composite(
            "path_lengths",
            &[(&[3, 2], Domain::Distinct), (&[4, 2], Domain::Normal), (&[3, 2, 2, 1], Domain::Normal)],
            |x| {
                let z = x[0].detach();
                let images = z.square().matmul(&x[1], false, true).reshape(&[3, 2, 2, 1]);
                path_lengths(&images, &z, &x[2])
            },
            |x| {
                let of = |n: usize| {
                    let by = |k: usize| {
                        let sum: f64 = (0..4).map(|i| x[2].data[n * 4 + i] * x[1].data[i * 2 + k]).sum();
                        2.0 * x[0].data[n * 2 + k] * sum / 4f64.sqrt()
                    };
                    by(0).hypot(by(1))
                };
                array([3], (0..3).map(of).collect())
            },
        )
        .fixing(0),
    );
    all
}
