//! Scaled dot-product attention (Vaswani et al., NeurIPS 2017).

use crate::graph::Var;
use crate::ops::sample::{self, Domain, Sample};

impl Var {
    /// `softmax(q k^T / sqrt(d)) v` for queries `self [.., m, d]`, keys `[.., n, d]` and values `[.., n, e]`; the axes
    /// before the last two (batch, heads) agree. Result `[.., m, e]`.
    #[track_caller]
    pub fn attention(&self, keys: &Var, values: &Var) -> Var {
        let scores = self.matmul(keys, false, true).mul_scalar(1.0 / (self.channels() as f64).sqrt());
        scores.softmax(scores.rank().saturating_sub(1)).matmul(values, false, false)
    }
}

/// One head and several.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], [usize; 4]); 2] = [(&[], [3, 4, 2, 5]), (&[2, 3], [2, 3, 4, 1])];
    cases
        .into_iter()
        .map(|(lead, [m, n, d, e])| {
            let shape = |a: usize, b: usize| [lead, &[a, b]].concat();
            let (q, k, v, out) = (shape(m, d), shape(n, d), shape(n, e), shape(m, e));
            let inputs: [(&[usize], Domain); 3] =
                [(&q, Domain::Normal), (&k, Domain::Normal), (&v, Domain::Normal)];
            let oracle = move |x: &[sample::Array]| {
                sample::fill(out.clone(), |i| {
                    let (lead, last) = i.split_at(i.len() - 2);
                    let at = |x: &sample::Array, a: usize, b: usize| x.at(&[lead, &[a, b]].concat());
                    let weight = |j: usize| {
                        let dot: f64 = (0..d).map(|c| at(&x[0], last[0], c) * at(&x[1], j, c)).sum();
                        (dot / (d as f64).sqrt()).exp()
                    };
                    let total: f64 = (0..n).map(weight).sum();
                    (0..n).map(|j| weight(j) * at(&x[2], j, last[1])).sum::<f64>() / total
                })
            };
            sample::composite("attention", &inputs, |x| x[0].attention(&x[1], &x[2]), oracle)
        })
        .collect()
}
