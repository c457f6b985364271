//! Sums of products channel by channel (`channels`) on the instruction set of this processor.

#![allow(unsafe_code)]

pub use super::channels::Run;
use super::channels::permutes;
use super::kernels::kernels;
use crate::dtype::Real;

/// Whether groups of `from` channels of the source for `to` of the result can be taken as they lie.
pub fn suits<T: Real>(from: usize, to: usize) -> bool {
    let lanes = kernels::<T>().width / 2;
    (from, to) == (1, 1) || permutes(from, to, lanes) || to.is_multiple_of(lanes)
}

/// `out[q, c] = sum over the taps and the group of source[q, c] weights[row, c]`; the pixels of `out` are `stride` elements apart.
pub fn over_taps<T: Real>(run: &Run<T>, weights: &[T], out: &mut [T], stride: usize) {
    if run.is_empty() {
        return;
    }
    assert!(run.fits(weights.len() / run.channels, out.len(), stride), "a run beyond its operands");
    // SAFETY: the assertion keeps every access inside the slices, and the kernels were chosen for this processor.
    unsafe { (kernels::<T>().over_taps)(run, weights.as_ptr(), out.as_mut_ptr(), stride) };
}

/// `sums[row, c] += sum over the pixels of source[q, c] upstream[q, c]` for every tap and channel of the group; the pixels of `upstream` are `stride`
/// elements apart.
pub fn over_pixels<T: Real>(run: &Run<T>, upstream: &[T], stride: usize, sums: &mut [T]) {
    if run.is_empty() {
        return;
    }
    assert!(run.fits(sums.len() / run.channels, upstream.len(), stride), "a run beyond its operands");
    // SAFETY: as above.
    unsafe { (kernels::<T>().over_pixels)(run, upstream.as_ptr(), stride, sums.as_mut_ptr()) };
}
