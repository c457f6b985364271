//! Distances between what networks make of images inside.

use crate::graph::Var;
use crate::ops::sample::{Array, Domain, Sample, array, composite, fill};
use crate::shape::Shape;

/// The Gram matrices `[n, c, c]` of features `[n, spatial.., c]`: the products of channels, summed over all positions, divided
/// by the number of positions and of channels (Johnson et al., ECCV 2016, equation 3).
#[track_caller]
pub fn gram(x: &Var) -> Var {
    let (n, c) = (x.shape().first().copied().unwrap_or(1), x.channels());
    let positions = x.shape().numel() / (n * c).max(1);
    let flat = x.reshape(&[n, positions, c]);
    flat.matmul(&flat, true, false).mul_scalar(1.0 / (positions * c) as f64)
}

/// The squared Frobenius norm of the difference of Gram matrices, averaged over the images (Gatys et al., CVPR 2016; Johnson et
/// al., equation 4).
#[track_caller]
pub fn style(x: &Var, y: &Var) -> Var {
    let n = x.shape().first().copied().unwrap_or(1);
    gram(x).sub(&gram(y)).square().sum_all().mul_scalar(1.0 / n.max(1) as f64)
}

/// Vectors, slices and volumes, against the definition element by element.
pub fn samples() -> Vec<Sample> {
    fn products(x: &Array) -> Array {
        let shape = &x.shape[..];
        let (n, c) = (shape[0], shape[shape.len() - 1]);
        let positions = x.data.len() / (n * c);
        fill(vec![n, c, c], |at| {
            let value = |p: usize, c_: usize| x.data[(at[0] * positions + p) * c + c_];
            (0..positions).map(|p| value(p, at[1]) * value(p, at[2])).sum::<f64>() / (c * positions) as f64
        })
    }
    let shapes: [&[usize]; 3] = [&[3, 4], &[2, 3, 4, 5], &[2, 2, 3, 2, 3]];
    let style_of = |v: &[Array]| {
        let (a, b) = (products(&v[0]), products(&v[1]));
        let total: f64 = a.data.iter().zip(&b.data).map(|(a, b)| (a - b).powi(2)).sum();
        array(Shape::scalar(), vec![total / v[0].shape[0] as f64])
    };
    let of_one =
        shapes.map(|s| composite("gram", &[(s, Domain::Normal)], |v| gram(&v[0]), |v| products(&v[0])));
    let of_two = shapes.map(|s| {
        composite("style", &[(s, Domain::Normal), (s, Domain::Normal)], |v| style(&v[0], &v[1]), style_of)
    });
    of_one.into_iter().chain(of_two).collect()
}
