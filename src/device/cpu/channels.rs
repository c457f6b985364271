//! Sums of products channel by channel: pixel times weight, added up over taps or over pixels. What convolutions are made of
//! whose channels do not see each other, or see few others.
//!
//! Results lie side by side in a register, each with weights of its own. What they are multiplied with is
//! - without groups, the source's channels as they lie;
//! - in groups of 2, 4 or 8 on both sides, the source's channels permuted within the register, once for each of the group;
//! - in groups that fill registers, one channel of the source after the other, in every lane.

#![allow(unsafe_code)]

use super::simd::{Portable, Vector};
use crate::dtype::Real;

/// Pixels whose sums are in registers at once, and vectors of channels of each.
const PIXELS: usize = 4;
const VECTORS: usize = 2;
/// Taps (times the channels of a group) whose sums are in registers at once.
const TAPS: usize = 8;
/// Pixels whose sums are in registers at once where the source is one channel in every lane.
const SPLAT_PIXELS: usize = 8;

/// Whether the source's channels are permuted within registers of `lanes` elements.
pub(super) fn permutes(from: usize, to: usize, lanes: usize) -> bool {
    from == to && [2, 4, 8].contains(&from) && lanes.is_multiple_of(from)
}

/// A row of pixels, each with the same channels, and what they see: through tap `(offset, row)` pixel `q` sees the source's
/// elements from `offset + q * step` on. Channel `c` sees those of its group, `from` of them, whose weights are element `c` of the
/// rows `row * from ..` of the weights, `channels` elements each.
#[derive(Clone, Copy)]
pub struct Run<'a, T> {
    /// How many pixels.
    pub pixels: usize,
    /// How many channels.
    pub channels: usize,
    /// Channels of the source in a group.
    pub from: usize,
    /// Channels of the pixels in a group.
    pub to: usize,
    /// What is seen.
    pub source: &'a [T],
    /// Elements of the source from what a pixel sees to what the next one sees.
    pub step: usize,
    /// Where the first pixel sees the source, and which row of the weights that is.
    pub taps: &'a [(usize, usize)],
}

impl<T: Real> Run<'_, T> {
    /// Whether all that is read lies in the source and the `rows` weights, and the pixels in `len` elements, `stride` apart.
    pub(super) fn fits(&self, rows: usize, len: usize, stride: usize) -> bool {
        let reach = |step: usize, channels: usize| (self.pixels - 1) * step + channels;
        let sources = self.channels / self.to * self.from;
        let seen = |&(offset, row): &(usize, usize)| {
            (row + 1) * self.from <= rows && offset + reach(self.step, sources) <= self.source.len()
        };
        self.channels.is_multiple_of(self.to)
            && reach(stride, self.channels) <= len
            && self.taps.iter().all(seen)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pixels * self.channels == 0
    }
}

/// See [`super::runs::over_taps`].
///
/// # Safety
/// [`Run::fits`] the weights and `out`; the processor has the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn over_taps_in<T: Real, V: Vector<T>>(
    run: &Run<T>,
    weights: *const T,
    out: *mut T,
    stride: usize,
) {
    // SAFETY: the caller's, for what follows.
    unsafe {
        match (run.from, run.to) {
            (1, 1) => plain_over_taps::<T, V>(run, weights, out, stride),
            (from, to) if permutes(from, to, V::LANES) && run.channels >= V::LANES => {
                // The last ones together with some before them, which come out the same.
                let last = run.channels - V::LANES;
                for c in (0..last).step_by(V::LANES).chain([last]) {
                    match from {
                        2 => group_over_taps::<T, V, 2>(run, weights, out, stride, c),
                        4 => group_over_taps::<T, V, 4>(run, weights, out, stride, c),
                        _ => group_over_taps::<T, V, 8>(run, weights, out, stride, c),
                    }
                }
            }
            (_, to) if to.is_multiple_of(V::LANES) => {
                for c in (0..run.channels).step_by(V::LANES) {
                    splat_over_taps::<T, V>(run, weights, out, stride, c);
                }
            }
            _ => (0..run.channels).for_each(|c| one_over_taps(run, weights, out, stride, c)),
        }
    }
}

/// # Safety
/// See [`over_taps_in`].
#[inline(always)]
unsafe fn plain_over_taps<T: Real, V: Vector<T>>(
    run: &Run<T>,
    weights: *const T,
    out: *mut T,
    stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let channels = run.channels;
        let mut c = 0;
        while c + VECTORS * V::LANES <= channels {
            tap_columns::<T, V, VECTORS>(run, weights, out, stride, c);
            c += VECTORS * V::LANES;
        }
        while c + V::LANES <= channels {
            tap_columns::<T, V, 1>(run, weights, out, stride, c);
            c += V::LANES;
        }
        if c < channels && channels >= V::LANES {
            // As above.
            return tap_columns::<T, V, 1>(run, weights, out, stride, channels - V::LANES);
        }
        while c + Portable::<T>::LANES <= channels {
            tap_columns::<T, Portable<T>, 1>(run, weights, out, stride, c);
            c += Portable::<T>::LANES;
        }
        (c..channels).for_each(|c| one_over_taps(run, weights, out, stride, c));
    }
}

/// One channel.
///
/// # Safety
/// See [`over_taps_in`].
#[inline(always)]
unsafe fn one_over_taps<T: Real>(run: &Run<T>, weights: *const T, out: *mut T, stride: usize, c: usize) {
    // SAFETY: the caller's.
    unsafe {
        let source = run.source.as_ptr().add(c / run.to * run.from);
        for q in 0..run.pixels {
            let mut sum = T::zero();
            for &(offset, row) in run.taps {
                for j in 0..run.from {
                    let weight = *weights.add((row * run.from + j) * run.channels + c);
                    sum += *source.add(offset + q * run.step + j) * weight;
                }
            }
            *out.add(q * stride + c) = sum;
        }
    }
}

/// Groups of `G` on both sides, the channels of one vector from `c` on.
///
/// # Safety
/// See [`over_taps_in`].
#[inline(always)]
unsafe fn group_over_taps<T: Real, V: Vector<T>, const G: usize>(
    run: &Run<T>,
    weights: *const T,
    out: *mut T,
    stride: usize,
    c: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut q = 0;
        while q + PIXELS <= run.pixels {
            group_tile::<T, V, PIXELS, G>(run, weights, out, stride, c, q);
            q += PIXELS;
        }
        for q in q..run.pixels {
            group_tile::<T, V, 1, G>(run, weights, out, stride, c, q);
        }
    }
}

/// # Safety
/// See [`over_taps_in`].
#[inline(always)]
unsafe fn group_tile<T: Real, V: Vector<T>, const P: usize, const G: usize>(
    run: &Run<T>,
    weights: *const T,
    out: *mut T,
    stride: usize,
    c: usize,
    q: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut index = [V::index(G, 0); G];
        for (j, index) in index.iter_mut().enumerate() {
            *index = V::index(G, j);
        }
        let source = run.source.as_ptr().add(q * run.step + c);
        let mut sums = [V::zero(); P];
        for &(offset, row) in run.taps {
            let mut seen = [V::zero(); P];
            for (p, seen) in seen.iter_mut().enumerate() {
                *seen = V::load(source.add(offset + p * run.step));
            }
            for (j, index) in index.iter().enumerate() {
                let weight = V::load(weights.add((row * G + j) * run.channels + c));
                for (sum, seen) in sums.iter_mut().zip(seen) {
                    *sum = seen.permute(*index).mul_add(weight, *sum);
                }
            }
        }
        for (p, sum) in sums.iter().enumerate() {
            sum.store(out.add((q + p) * stride + c));
        }
    }
}

/// Groups that fill vectors, the channels of one from `c` on.
///
/// # Safety
/// See [`over_taps_in`].
#[inline(always)]
unsafe fn splat_over_taps<T: Real, V: Vector<T>>(
    run: &Run<T>,
    weights: *const T,
    out: *mut T,
    stride: usize,
    c: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut q = 0;
        while q + SPLAT_PIXELS <= run.pixels {
            splat_tile::<T, V, SPLAT_PIXELS>(run, weights, out, stride, c, q);
            q += SPLAT_PIXELS;
        }
        for q in q..run.pixels {
            splat_tile::<T, V, 1>(run, weights, out, stride, c, q);
        }
    }
}

/// # Safety
/// See [`over_taps_in`].
#[inline(always)]
unsafe fn splat_tile<T: Real, V: Vector<T>, const P: usize>(
    run: &Run<T>,
    weights: *const T,
    out: *mut T,
    stride: usize,
    c: usize,
    q: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let source = run.source.as_ptr().add(q * run.step + c / run.to * run.from);
        let mut sums = [V::zero(); P];
        for &(offset, row) in run.taps {
            let (source, weights) = (source.add(offset), weights.add(row * run.from * run.channels + c));
            for j in 0..run.from {
                let weight = V::load(weights.add(j * run.channels));
                for (p, sum) in sums.iter_mut().enumerate() {
                    *sum = V::splat(*source.add(p * run.step + j)).mul_add(weight, *sum);
                }
            }
        }
        for (p, sum) in sums.iter().enumerate() {
            sum.store(out.add((q + p) * stride + c));
        }
    }
}

/// The channels of `NV` vectors from `c` on.
///
/// # Safety
/// See [`over_taps_in`].
#[inline(always)]
unsafe fn tap_columns<T: Real, V: Vector<T>, const NV: usize>(
    run: &Run<T>,
    weights: *const T,
    out: *mut T,
    stride: usize,
    c: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let (weights, out, source) = (weights.add(c), out.add(c), run.source.as_ptr().add(c));
        let mut q = 0;
        while q + PIXELS <= run.pixels {
            tap_tile::<T, V, PIXELS, NV>(run, weights, source.add(q * run.step), out.add(q * stride), stride);
            q += PIXELS;
        }
        for q in q..run.pixels {
            tap_tile::<T, V, 1, NV>(run, weights, source.add(q * run.step), out.add(q * stride), stride);
        }
    }
}

/// # Safety
/// See [`over_taps_in`].
#[inline(always)]
unsafe fn tap_tile<T: Real, V: Vector<T>, const P: usize, const NV: usize>(
    run: &Run<T>,
    weights: *const T,
    source: *const T,
    out: *mut T,
    stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[V::zero(); NV]; P];
        for &(offset, row) in run.taps {
            let (source, weights) = (source.add(offset), weights.add(row * run.channels));
            for v in 0..NV {
                let weight = V::load(weights.add(v * V::LANES));
                for (p, sums) in sums.iter_mut().enumerate() {
                    sums[v] = V::load(source.add(p * run.step + v * V::LANES)).mul_add(weight, sums[v]);
                }
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(out.add(p * stride + v * V::LANES));
            }
        }
    }
}

/// See [`super::runs::over_pixels`].
///
/// # Safety
/// [`Run::fits`] the sums and `upstream`; the processor has the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn over_pixels_in<T: Real, V: Vector<T>>(
    run: &Run<T>,
    upstream: *const T,
    stride: usize,
    sums: *mut T,
) {
    // SAFETY: the caller's, for what follows.
    unsafe {
        let mut c = 0;
        let permutes = permutes(run.from, run.to, V::LANES);
        let whole = permutes || (run.from, run.to) == (1, 1) || run.to.is_multiple_of(V::LANES);
        while whole && c + V::LANES <= run.channels {
            match run.from {
                1 if run.to == 1 => pixel_columns::<T, V>(run, upstream, stride, sums, c),
                2 if permutes => group_columns::<T, V, 2, 4>(run, upstream, stride, sums, c),
                4 if permutes => group_columns::<T, V, 4, 2>(run, upstream, stride, sums, c),
                8 if permutes => group_columns::<T, V, 8, 1>(run, upstream, stride, sums, c),
                _ => splat_columns::<T, V>(run, upstream, stride, sums, c),
            }
            c += V::LANES;
        }
        while (run.from, run.to) == (1, 1) && c + Portable::<T>::LANES <= run.channels {
            pixel_columns::<T, Portable<T>>(run, upstream, stride, sums, c);
            c += Portable::<T>::LANES;
        }
        for c in c..run.channels {
            let source = run.source.as_ptr().add(c / run.to * run.from);
            for &(offset, row) in run.taps {
                for j in 0..run.from {
                    let product =
                        |q: usize| *source.add(offset + q * run.step + j) * *upstream.add(q * stride + c);
                    let sum = (0..run.pixels).map(product).fold(T::zero(), |a, b| a + b);
                    *sums.add((row * run.from + j) * run.channels + c) += sum;
                }
            }
        }
    }
}

/// Groups of `G` on both sides, the channels of one vector from `c` on; `N` taps at once.
///
/// # Safety
/// See [`over_pixels_in`].
#[inline(always)]
unsafe fn group_columns<T: Real, V: Vector<T>, const G: usize, const N: usize>(
    run: &Run<T>,
    upstream: *const T,
    stride: usize,
    sums: *mut T,
    c: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let (all, rest) = run.taps.as_chunks::<N>();
        for taps in all {
            group_sums::<T, V, G, N>(run, taps, upstream.add(c), stride, sums.add(c), c);
        }
        for tap in rest {
            group_sums::<T, V, G, 1>(run, &[*tap], upstream.add(c), stride, sums.add(c), c);
        }
    }
}

/// # Safety
/// See [`over_pixels_in`].
#[inline(always)]
unsafe fn group_sums<T: Real, V: Vector<T>, const G: usize, const N: usize>(
    run: &Run<T>,
    taps: &[(usize, usize); N],
    upstream: *const T,
    stride: usize,
    sums: *mut T,
    c: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut index = [V::index(G, 0); G];
        for (j, index) in index.iter_mut().enumerate() {
            *index = V::index(G, j);
        }
        let source = run.source.as_ptr().add(c);
        let mut own = [[V::zero(); G]; N];
        for q in 0..run.pixels {
            let upstream = V::load(upstream.add(q * stride));
            for (own, tap) in own.iter_mut().zip(taps) {
                let seen = V::load(source.add(tap.0 + q * run.step));
                for (sum, index) in own.iter_mut().zip(index) {
                    *sum = seen.permute(index).mul_add(upstream, *sum);
                }
            }
        }
        for (own, tap) in own.iter().zip(taps) {
            for (j, sum) in own.iter().enumerate() {
                let to = sums.add((tap.1 * G + j) * run.channels);
                V::load(to).add(*sum).store(to);
            }
        }
    }
}

/// Groups that fill vectors, the channels of one from `c` on.
///
/// # Safety
/// See [`over_pixels_in`].
#[inline(always)]
unsafe fn splat_columns<T: Real, V: Vector<T>>(
    run: &Run<T>,
    upstream: *const T,
    stride: usize,
    sums: *mut T,
    c: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let first = c / run.to * run.from;
        for &(offset, row) in run.taps {
            let mut j = 0;
            while j < run.from {
                let at = (offset + first + j, row * run.from + j);
                if j + TAPS <= run.from {
                    splat_sums::<T, V, TAPS>(run, at, upstream.add(c), stride, sums.add(c));
                    j += TAPS;
                } else {
                    splat_sums::<T, V, 1>(run, at, upstream.add(c), stride, sums.add(c));
                    j += 1;
                }
            }
        }
    }
}

/// `N` channels of the source.
///
/// # Safety
/// See [`over_pixels_in`].
#[inline(always)]
unsafe fn splat_sums<T: Real, V: Vector<T>, const N: usize>(
    run: &Run<T>,
    (offset, row): (usize, usize),
    upstream: *const T,
    stride: usize,
    sums: *mut T,
) {
    // SAFETY: the caller's.
    unsafe {
        let source = run.source.as_ptr().add(offset);
        let mut own = [V::zero(); N];
        for q in 0..run.pixels {
            let upstream = V::load(upstream.add(q * stride));
            for (j, sum) in own.iter_mut().enumerate() {
                *sum = V::splat(*source.add(q * run.step + j)).mul_add(upstream, *sum);
            }
        }
        for (j, sum) in own.iter().enumerate() {
            let to = sums.add((row + j) * run.channels);
            V::load(to).add(*sum).store(to);
        }
    }
}

/// The channels of a vector from `c` on.
///
/// # Safety
/// See [`over_pixels_in`].
#[inline(always)]
unsafe fn pixel_columns<T: Real, V: Vector<T>>(
    run: &Run<T>,
    upstream: *const T,
    stride: usize,
    sums: *mut T,
    c: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let (all, rest) = run.taps.as_chunks::<TAPS>();
        for taps in all {
            pixel_tile::<T, V, TAPS>(run, taps, upstream.add(c), stride, sums.add(c), c);
        }
        for tap in rest {
            pixel_tile::<T, V, 1>(run, &[*tap], upstream.add(c), stride, sums.add(c), c);
        }
    }
}

/// # Safety
/// See [`over_pixels_in`].
#[inline(always)]
unsafe fn pixel_tile<T: Real, V: Vector<T>, const N: usize>(
    run: &Run<T>,
    taps: &[(usize, usize); N],
    upstream: *const T,
    stride: usize,
    sums: *mut T,
    c: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut source = [run.source.as_ptr(); N];
        for (source, tap) in source.iter_mut().zip(taps) {
            *source = source.add(tap.0 + c);
        }
        let mut own = [V::zero(); N];
        for q in 0..run.pixels {
            let upstream = V::load(upstream.add(q * stride));
            for (sum, source) in own.iter_mut().zip(source) {
                *sum = V::load(source.add(q * run.step)).mul_add(upstream, *sum);
            }
        }
        for (sum, tap) in own.iter().zip(taps) {
            let to = sums.add(tap.1 * run.channels);
            V::load(to).add(*sum).store(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::{Kernels, for_f32, for_f64};
    use super::super::runs::over_taps;
    use super::*;

    /// Small whole numbers, whose products are exact.
    fn numbers<T: Real>(n: usize, seed: usize) -> Vec<T> {
        (0..n).map(|i| T::of((i * 7 + seed) as f64 % 11.0 - 5.0)).collect()
    }

    fn check<T: Real>(
        kernels: &Kernels<T>,
        pixels: usize,
        groups: usize,
        taps: usize,
        from: usize,
        to: usize,
    ) {
        let (channels, sources) = (groups * to, groups * from);
        let (step, stride) = (2 * sources + 1, channels + 3);
        let source = numbers::<T>(taps * 5 + pixels * step + sources, 3);
        let taps: Vec<(usize, usize)> = (0..taps).map(|t| (t * 5, taps - 1 - t)).collect();
        let run = Run { pixels, channels, from, to, source: &source, step, taps: &taps };
        let weights = numbers::<T>(taps.len() * from * channels, 1);
        let rows = numbers::<T>(pixels * stride, 2);
        assert!(run.fits(taps.len() * from, rows.len(), stride));
        let mut out = vec![T::nan(); pixels * stride];
        // SAFETY: it fits, as was asserted, and the kernels are for this processor.
        unsafe { (kernels.over_taps)(&run, weights.as_ptr(), out.as_mut_ptr(), stride) };
        let mut sums = vec![T::one(); weights.len()];
        // SAFETY: as above.
        unsafe { (kernels.over_pixels)(&run, rows.as_ptr(), stride, sums.as_mut_ptr()) };
        let seen =
            |offset: usize, q: usize, c: usize, j: usize| source[offset + q * step + c / to * from + j];
        for (i, v) in out.iter().enumerate() {
            let (q, c) = (i / stride, i % stride);
            let product = |&(offset, row): &(usize, usize)| {
                (0..from).map(|j| seen(offset, q, c, j) * weights[(row * from + j) * channels + c]).sum::<T>()
            };
            let want = (c < channels).then(|| taps.iter().map(product).sum::<T>());
            assert!(want.map_or(v.is_nan(), |w| w == *v), "{q}, {c}: {v} for {want:?}");
        }
        for &(offset, row) in &taps {
            for (j, c) in (0..from).flat_map(|j| (0..channels).map(move |c| (j, c))) {
                let product = |q: usize| seen(offset, q, c, j) * rows[q * stride + c];
                let want = (0..pixels).map(product).sum::<T>() + T::one();
                assert_eq!(sums[(row * from + j) * channels + c], want, "{row}, {j}, {c}");
            }
        }
    }

    #[test]
    fn every_instruction_set_adds_over_taps_and_pixels() {
        for (pixels, groups, taps) in
            [(1, 1, 1), (5, 3, 9), (4, 16, 2), (9, 7, 8), (11, 35, 17), (6, 64, 9), (3, 40, 0), (7, 18, 27)]
        {
            for (from, to) in [(1, 1), (2, 2), (4, 4), (8, 8), (3, 16), (16, 32), (1, 16), (3, 2)] {
                for_f32().iter().for_each(|k| check::<f32>(k, pixels, groups, taps, from, to));
                for_f64().iter().for_each(|k| check::<f64>(k, pixels, groups, taps, from, to));
            }
        }
    }

    #[test]
    #[should_panic(expected = "beyond its operands")]
    fn nothing_is_read_beyond_the_source() {
        let run =
            Run { pixels: 3, channels: 2, from: 1, to: 1, source: &[0.0f32; 6], step: 2, taps: &[(1, 0)] };
        over_taps(&run, &[1.0; 2], &mut [0.0; 6], 2);
    }
}
