//! How far distributions are from each other.

use crate::graph::Var;
use crate::ops::sample::{Array, Domain, Sample, array, composite};
use crate::shape::Shape;

/// The Kullback-Leibler divergence of the classes' probabilities that logits `x [.., classes]` give from those of logits `y`:
/// the mean over everything but the classes of `sum p_y (ln p_y - ln p_x)`, both softened by a `temperature`, times its square
/// (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).
#[track_caller]
pub fn kl_divergence(x: &Var, y: &Var, temperature: f64) -> Var {
    let axis = x.rank().saturating_sub(1);
    let soft = |v: &Var| if temperature == 1.0 { v.clone() } else { v.mul_scalar(1.0 / temperature) };
    let (of, to) = (soft(x).log_softmax(axis), soft(y).log_softmax(axis));
    let rows = x.shape().numel() / x.channels().max(1);
    to.exp().mul(&to.sub(&of)).sum_all().mul_scalar(temperature * temperature / rows as f64)
}

/// Vectors and maps of logits, at two temperatures.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], f64); 3] = [(&[4, 5], 1.0), (&[2, 3, 2, 3], 1.0), (&[3, 4], 2.5)];
    cases
        .into_iter()
        .map(|(shape, temperature)| {
            let build = move |v: &[Var]| kl_divergence(&v[0], &v[1], temperature);
            let oracle = move |v: &[Array]| {
                let classes = shape[shape.len() - 1];
                let probabilities = |row: &[f64]| -> Vec<f64> {
                    let each: Vec<f64> = row.iter().map(|v| (v / temperature).exp()).collect();
                    let total: f64 = each.iter().sum();
                    each.into_iter().map(|e| e / total).collect()
                };
                let rows = v[0].data.chunks(classes).zip(v[1].data.chunks(classes));
                let each: Vec<f64> = rows
                    .map(|(x, y)| {
                        let (px, py) = (probabilities(x), probabilities(y));
                        px.iter().zip(&py).map(|(a, b)| b * (b / a).ln()).sum::<f64>()
                    })
                    .collect();
                let mean = each.iter().sum::<f64>() / each.len() as f64;
                array(Shape::scalar(), vec![mean * temperature * temperature])
            };
            let inputs = [(shape, Domain::Normal), (shape, Domain::Normal)];
            composite("kl_divergence", &inputs, build, oracle).noted(&temperature.to_string())
        })
        .collect()
}
