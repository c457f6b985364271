//! Spectral normalisation (Miyato et al., ICLR 2018): a weight divided by its largest singular value, which power
//! iteration follows from step to step.

use crate::graph::Var;

/// A normalised weight, and the estimates that the next step goes on from.
#[derive(Clone, Debug)]
pub struct SpectralNorm {
    /// The weight divided by `sigma`.
    pub weight: Var,
    /// The largest singular value, a scalar.
    pub sigma: Var,
    /// The left singular vector `[rows]`; constant for differentiation.
    pub u: Var,
    /// The right singular vector `[columns]`; constant for differentiation.
    pub v: Var,
}

/// Normalises `w`, seen as a matrix with a row for every index along `axis` (0 for convolutions and linear layers, the
/// last for transposed convolutions) and the other axes flattened in order. `u [rows]` and `v [columns]` are the last
/// step's; `iterations` is 1 in training and 0 in evaluation. `eps` bounds the norms that vectors are divided by.
///
/// As in PyTorch the vectors count as constants: `sigma = u^T W v`.
#[track_caller]
pub fn spectral_norm(w: &Var, axis: usize, u: &Var, v: &Var, iterations: usize, eps: f64) -> SpectralNorm {
    let shape = w.shape();
    let order: Vec<usize> = [axis].into_iter().chain((0..shape.rank()).filter(|&a| a != axis)).collect();
    let rows = shape.get(axis).copied().unwrap_or(1);
    let columns = shape.numel() / rows.max(1);
    let matrix = w.permute(&order).reshape(&[rows, columns]);
    let frozen = matrix.detach();
    let unit = |x: Var| x.div(&x.square().sum_all().sqrt().clamp(eps, f64::INFINITY));
    let (mut u, mut v) = (u.reshape(&[rows, 1]).detach(), v.reshape(&[columns, 1]).detach());
    for _ in 0..iterations {
        v = unit(frozen.matmul(&u, true, false));
        u = unit(frozen.matmul(&v, false, false));
    }
    let sigma = u.mul(&matrix.matmul(&v, false, false)).sum_all();
    SpectralNorm { weight: w.div(&sigma), sigma, u: u.reshape(&[rows]), v: v.reshape(&[columns]) }
}
