//! The Haar wavelets (Haar, Mathematische Annalen 1910), orthonormal: a resolution lost for bands of channels, and nothing else.

use crate::graph::Var;
use crate::ops::concat::concat;
use std::f64::consts::FRAC_1_SQRT_2;

/// The spatial axes' extents around one of them: before it, its own, behind it, and the channels.
fn around(x: &Var, axis: usize) -> [usize; 4] {
    let (s, last) = (x.shape(), x.rank().saturating_sub(1));
    [s[..axis].iter().product(), s[axis], s[axis + 1..last].iter().product(), s.channels()]
}

/// `x [n, spatial.., c]`, of even extents, to `[n, spatial / 2.., 2^d c]`: along every axis the sums of neighbours, then their
/// differences, first minus second, by the square root of 2. The last axis' bands are the slowest to change.
#[track_caller]
pub fn haar(x: &Var) -> Var {
    let dims = x.rank().saturating_sub(2);
    (1..=dims).fold(x.clone(), |x, axis| {
        let [outer, extent, inner, c] = around(&x, axis);
        let pairs = x.reshape(&[outer, extent / 2, 2, inner, c]);
        let [a, b] = [0, 1].map(|i| pairs.slice(2, i, 1));
        let both = concat(&[&a.add(&b), &a.sub(&b)], 4).mul_scalar(FRAC_1_SQRT_2);
        both.reshape(&x.shape().with(axis, extent / 2).with(dims + 1, 2 * c))
    })
}

/// The inverse of [`haar`].
#[track_caller]
pub fn inverse_haar(x: &Var) -> Var {
    let dims = x.rank().saturating_sub(2);
    (1..=dims).rev().fold(x.clone(), |x, axis| {
        let [outer, extent, inner, c] = around(&x, axis);
        let bands = x.reshape(&[outer, extent, 1, inner, c]);
        let [sum, difference] = [0, 1].map(|i| bands.slice(4, i * c / 2, c / 2));
        let both = concat(&[&sum.add(&difference), &sum.sub(&difference)], 2).mul_scalar(FRAC_1_SQRT_2);
        both.reshape(&x.shape().with(axis, 2 * extent).with(dims + 1, c / 2))
    })
}
