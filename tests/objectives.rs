//! What losses do where formulas have no answer.

use gan::dtype::DType;
use gan::exec::evaluate;
use gan::graph::Var;
use gan::objectives::GanMode;
use gan::objectives::adversarial::{bce_with_logits, bce_with_logits_constant, gradient_penalty};
use gan::objectives::segmentation::{CrossEntropy, cross_entropy, focal_sigmoid};
use gan::ops::gradient::grad;
use gan::shape::Shape;

/// A loss and its gradient by the first input, in single precision.
fn loss_and_gradient(inputs: &[(Shape, Vec<f64>)], f: impl Fn(&[Var]) -> Var) -> (f64, Vec<f64>) {
    let build = |v: &[Var]| {
        let loss = f(v);
        vec![loss.clone(), grad(&loss, &v[..1]).remove(0)]
    };
    let mut out = evaluate(DType::F32, inputs, build).expect("runs");
    let gradient = out.remove(1).1;
    (out[0].1[0], gradient)
}

/// A critic that ignores its image has a gradient of norm 0: the penalty is 1, and nothing becomes NaN.
#[test]
fn a_flat_critic_has_a_finite_penalty() {
    let inputs = [(Shape::from([4]), vec![0.0; 4]), (Shape::from([2, 4]), vec![0.5; 8])];
    let (loss, gradient) =
        loss_and_gradient(&inputs, |v| gradient_penalty(|x| x.mul(&v[0]).sum(&[1]), &v[1]).0);
    assert_eq!((loss, gradient), (1.0, vec![0.0; 4]));
}

/// One flat image among others changes nothing for those.
#[test]
fn penalties_of_images_are_independent() {
    let critic = |w: &Var, x: &Var| x.square().mul(w).sum(&[1]);
    let of = |images: Vec<f64>| {
        let n = images.len() / 2;
        let inputs = [(Shape::from([2]), vec![0.7, -0.4]), (Shape::from([n, 2]), images)];
        loss_and_gradient(&inputs, |v| gradient_penalty(|x| critic(&v[0], x), &v[1]).0)
    };
    let (alone, slope) = of(vec![1.0, 2.0]);
    let (both, slopes) = of(vec![1.0, 2.0, 0.0, 0.0]);
    assert!((both - (alone + 1.0) / 2.0).abs() < 1e-6, "{both} and {alone}");
    slopes.iter().zip(&slope).for_each(|(a, b)| assert!((a - b / 2.0).abs() < 1e-6, "{a} and {b}"));
}

/// The loss and the metric are written apart from each other: one image, five scales.
#[test]
fn similarity_at_several_scales_is_the_metric_that_scores_it() {
    use gan::metrics::ssim::{MS_SSIM_WEIGHTS, Ssim, Window};
    let side = 177;
    let wave = |i: usize| ((i / side) as f64 * 0.21).sin() + ((i % side) as f64 * 0.13).cos();
    let x: Vec<f64> = (0..side * side).map(|i| 0.4 * wave(i)).collect();
    let y: Vec<f64> =
        x.iter().enumerate().map(|(i, v)| 0.9 * v + 0.05 * ((i * 7919 % 97) as f64 / 97.0)).collect();
    let shape = Shape::from([1, side, side, 1]);
    let inputs = [(shape.clone(), x.clone()), (shape, y.clone())];
    let build = |v: &[Var]| vec![gan::objectives::ssim::MsSsim::of(&v[0], 2.0).index(&v[0], &v[1])];
    let index = evaluate(DType::F64, &inputs, build).expect("runs").remove(0).1[0];
    let metric = Ssim::new(Window::Gaussian, 2.0).expect("valid");
    let want = metric.multi_scale(&x, &y, [1, side, side], &MS_SSIM_WEIGHTS).expect("large enough");
    let total: f64 = MS_SSIM_WEIGHTS.iter().sum();
    assert!((index - want.powf(1.0 / total)).abs() < 1e-10 && index < 0.999, "{index} {want}");
}

#[test]
fn a_batch_without_labels_costs_nothing() {
    let inputs = [(Shape::from([3, 2]), vec![0.3; 6]), (Shape::from([3]), vec![255.0; 3])];
    let options = CrossEntropy { ignore: Some(255), smoothing: 0.1, weights: None };
    let (loss, gradient) = loss_and_gradient(&inputs, |v| cross_entropy(&v[0], &v[1], &options));
    assert_eq!((loss, gradient), (0.0, vec![0.0; 6]));
}

/// Saturated logits: the loss is linear in them, its gradient at most 1 per element, and a right answer costs nothing.
#[test]
fn saturated_logits_stay_finite() {
    let x = vec![-1e4, 1e4, -1e4, 1e4];
    let inputs = [(Shape::from([4]), x.clone()), (Shape::from([4]), vec![0.0, 1.0, 1.0, 0.0])];
    let (loss, gradient) = loss_and_gradient(&inputs, |v| bce_with_logits(&v[0], &v[1], None));
    assert_eq!((loss, gradient), (5e3, vec![0.0, 0.0, -0.25, 0.25]));
    for gamma in [0.0, 0.5, 2.0] {
        let (focal, gradient) = loss_and_gradient(&inputs, |v| focal_sigmoid(&v[0], &v[1], gamma, None));
        assert_eq!((focal, gradient), (5e3, vec![0.0, 0.0, -0.25, 0.25]), "gamma {gamma}");
    }
    let (loss, gradient) = loss_and_gradient(&inputs[..1], |v| bce_with_logits_constant(&v[0], 1.0));
    assert_eq!((loss, gradient), (5e3, vec![-0.25, 0.0, -0.25, 0.0]));
}

/// A discriminator's accuracy is the share of its outputs on the right side of its mode's boundary.
#[test]
fn accuracy_counts_the_right_side() {
    for (mode, boundary) in [(GanMode::Bce, 0.0), (GanMode::Lsgan, 0.5), (GanMode::Hinge, 0.0)] {
        // Three above, one below, and one on the boundary, which counts half.
        let logits: Vec<f64> = [1.0, 0.25, 3.0, -0.75, 0.0].map(|v| v + boundary).into();
        let inputs = [(Shape::from([5]), logits)];
        let build =
            |v: &[Var]| [true, false].map(|real| mode.accuracy(&v[0], real).expect("a boundary")).to_vec();
        let out = evaluate(DType::F32, &inputs, build).expect("runs");
        let [real, fake] = [out[0].1[0], out[1].1[0]];
        assert!((real - 0.7).abs() < 1e-6 && (fake - 0.3).abs() < 1e-6, "{mode:?}: {real} {fake}");
    }
    let out = evaluate(DType::F32, &[(Shape::from([1]), vec![1.0])], |v| {
        assert!(GanMode::Wgan.accuracy(&v[0], true).is_none());
        v.to_vec()
    });
    assert!(out.is_ok());
}
