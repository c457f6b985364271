//! The CPU's loops. Sums are taken per channel in double precision over fixed pieces, then folded into sets.

use super::Sets;
use crate::device::cpu::parallel;
use crate::dtype::Real;
use crate::ops::sum::column_sums;

/// Per-channel sums `[outer][c]` folded into sets `[outer][groups]`.
fn fold(sets: Sets, channels: &[f64]) -> Vec<f64> {
    channels.chunks(sets.c / sets.groups).map(|g| g.iter().sum()).collect()
}

/// Rows that a double-precision accumulator receives as one single-precision partial sum.
const BLOCK: usize = 16;

/// Adds `f(row)` element-wise over all rows: short stretches in `T` (vectorised), the rest in f64.
fn sums<T: Real>(sets: Sets, x: &[T], f: impl Fn(usize, usize, T) -> T + Sync + Send) -> Vec<f64> {
    let c = sets.c;
    let rows = (parallel::CHUNK / c).max(BLOCK);
    let pieces = sets.rows.div_ceil(rows).max(1);
    let parts = parallel::map_chunks(sets.outer * pieces, 1, |r| {
        let (o, p) = (r.start / pieces, r.start % pieces);
        let (first, last) = (p * rows, ((p + 1) * rows).min(sets.rows));
        let mut total = vec![0.0; c];
        let mut block = vec![T::zero(); c];
        let mut row = first;
        while row < last {
            let end = (row + BLOCK).min(last);
            block.fill(T::zero());
            for r in row..end {
                let at = (o * sets.rows + r) * c;
                block
                    .iter_mut()
                    .zip(&x[at..at + c])
                    .enumerate()
                    .for_each(|(i, (b, &v))| *b += f(o * c + i, at + i, v));
            }
            total.iter_mut().zip(&block).for_each(|(t, b)| *t += b.f64());
            row = end;
        }
        total
    });
    let mut out = vec![0.0; sets.outer * c];
    for (r, part) in parts.iter().enumerate() {
        let line = &mut out[r / pieces * c..(r / pieces + 1) * c];
        line.iter_mut().zip(part).for_each(|(t, v)| *t += v);
    }
    out
}

/// A value per set spread over the set's channels: `[outer][c]`.
fn spread<T: Real>(sets: Sets, f: impl Fn(usize) -> f64) -> Vec<T> {
    let per = sets.c / sets.groups;
    (0..sets.outer * sets.c).map(|i| T::of(f(i / per))).collect()
}

/// Mean and biased variance, in two passes.
pub fn stats<T: Real>(sets: Sets, x: &[T], out: &mut [T]) {
    let n = sets.size() as f64;
    let total = column_sums(x, sets.outer, sets.rows, sets.c, |row: &[T], acc: &mut [f64]| {
        acc.iter_mut().zip(row).for_each(|(a, v)| *a += v.f64());
    });
    let mean: Vec<f64> = fold(sets, &total).into_iter().map(|s| s / n).collect();
    // The rounded mean is subtracted; what rounding leaves is corrected from the sum of deviations.
    let centre = spread::<T>(sets, |s| mean[s]);
    let square = sums(sets, x, |channel, _, v| {
        let d = v - centre[channel];
        d * d
    });
    let (means, vars) = out.split_at_mut(sets.count());
    let per = sets.c / sets.groups;
    for (s, total) in fold(sets, &square).into_iter().enumerate() {
        means[s] = T::of(mean[s]);
        let off = mean[s] - centre[s * per].f64();
        vars[s] = T::of((total / n - off * off).max(0.0));
    }
}

/// Reciprocal standard deviation per set.
fn rstd<T: Real>(sets: Sets, eps: f64, stats: &[T]) -> Vec<f64> {
    stats[sets.count()..2 * sets.count()].iter().map(|v| 1.0 / (v.f64() + eps).sqrt()).collect()
}

/// `f(channel slot, position, x)` for every element, in parallel pieces of whole rows.
fn each_row<T: Real>(sets: Sets, out: &mut [T], f: impl Fn(usize, usize, &mut [T]) + Sync) {
    let c = sets.c;
    let rows = (parallel::CHUNK / c).max(1);
    parallel::for_chunks(out, rows * c, |start, piece| {
        for (r, line) in piece.chunks_mut(c).enumerate() {
            let row = start / c + r;
            f(row / sets.rows * c, row * c, line);
        }
    });
}

/// The normalised values.
pub fn normalize<T: Real>(
    sets: Sets,
    eps: f64,
    x: &[T],
    stats: &[T],
    affine: Option<(&[T], &[T])>,
    out: &mut [T],
) {
    let rstd = rstd(sets, eps, stats);
    let mean = spread::<T>(sets, |s| stats[s].f64());
    let mut scale = spread::<T>(sets, |s| rstd[s]);
    let mut shift = vec![T::zero(); sets.c];
    if let Some((gamma, beta)) = affine {
        scale.iter_mut().enumerate().for_each(|(i, v)| *v = T::of(v.f64() * gamma[i % sets.c].f64()));
        shift.copy_from_slice(beta);
    }
    each_row(sets, out, |slot, at, line| {
        let (mean, scale, x) = (&mean[slot..slot + sets.c], &scale[slot..slot + sets.c], &x[at..at + sets.c]);
        for i in 0..line.len() {
            line[i] = (x[i] - mean[i]) * scale[i] + shift[i];
        }
    });
}

/// `[2, outer, c]`: the sum of `dy xhat` and the sum of `dy` over the rows.
pub fn grad_sums<T: Real>(sets: Sets, eps: f64, x: &[T], stats: &[T], dy: &[T], out: &mut [T]) {
    let rstd = rstd(sets, eps, stats);
    let mean = spread::<T>(sets, |s| stats[s].f64());
    let plain = sums(sets, dy, |_, _, g| g);
    let with = sums(sets, dy, |channel, at, g| g * (x[at] - mean[channel]));
    let per = sets.c / sets.groups;
    let (first, second) = out.split_at_mut(sets.outer * sets.c);
    first.iter_mut().zip(with).enumerate().for_each(|(i, (o, v))| *o = T::of(v * rstd[i / per]));
    second.iter_mut().zip(plain).for_each(|(o, v)| *o = T::of(v));
}

/// The gradient by `x`: `rstd (g - mean(g) - xhat mean(g xhat))` with `g = dy gamma`; the means are of `shared` neighbouring sets.
pub fn grad_x<T: Real>(
    sets: Sets,
    shared: usize,
    eps: f64,
    x: &[T],
    stats: &[T],
    dy: &[T],
    totals: &[T],
    gamma: Option<&[T]>,
    out: &mut [T],
) {
    let rstd = rstd(sets, eps, stats);
    let gamma_at = |i: usize| gamma.map_or(1.0, |g| g[i % sets.c].f64());
    let joint = Sets { groups: sets.groups / shared, ..sets };
    let weighted = |totals: &[T]| -> Vec<f64> {
        fold(joint, &totals.iter().enumerate().map(|(i, v)| v.f64() * gamma_at(i)).collect::<Vec<_>>())
    };
    let n = joint.size() as f64;
    let (with, plain) = totals.split_at(sets.outer * sets.c);
    let (a, b) = (weighted(plain), weighted(with));
    let per = sets.c / sets.groups;
    let mean = spread::<T>(sets, |s| stats[s].f64());
    // dx = dy * scale - centre - (x - mean) * slope
    let scale: Vec<T> = (0..sets.outer * sets.c).map(|i| T::of(rstd[i / per] * gamma_at(i))).collect();
    let centre = spread::<T>(sets, |s| rstd[s] * a[s / shared] / n);
    let slope = spread::<T>(sets, |s| rstd[s] * rstd[s] * b[s / shared] / n);
    each_row(sets, out, |slot, at, line| {
        let r = slot..slot + sets.c;
        let (mean, scale, centre, slope) =
            (&mean[r.clone()], &scale[r.clone()], &centre[r.clone()], &slope[r]);
        let (x, dy) = (&x[at..at + sets.c], &dy[at..at + sets.c]);
        for i in 0..line.len() {
            line[i] = dy[i] * scale[i] - centre[i] - (x[i] - mean[i]) * slope[i];
        }
    });
}
