//! Matrix products on one thread, by the `gemm` crate (picked for its run-time choice of AVX2/AVX-512 kernels, its
//! f32 and f64 support and because it is maintained). Work is split over threads by the callers, in pieces that do not
//! depend on how many threads there are: so neither does the result.

#![allow(unsafe_code)]

use crate::dtype::Real;

/// A strided read-only matrix over a slice.
#[derive(Clone, Copy)]
pub struct Mat<'a, T> {
    /// The elements, from the first one of the matrix.
    pub data: &'a [T],
    /// Elements between rows.
    pub row_stride: usize,
    /// Elements between columns.
    pub col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// Rows one after the other, `stride` elements apart.
    pub fn rows(data: &'a [T], stride: usize) -> Self {
        Mat { data, row_stride: stride, col_stride: 1 }
    }

    /// The transpose of [`Mat::rows`].
    pub fn cols(data: &'a [T], stride: usize) -> Self {
        Mat { data, row_stride: 1, col_stride: stride }
    }

    fn last(&self, rows: usize, cols: usize) -> usize {
        (rows - 1) * self.row_stride + (cols - 1) * self.col_stride
    }
}

/// `out = a b` or, with `accumulate`, `out += a b`; `a` is `m` x `k`, `b` is `k` x `n`, `out` has its rows
/// `out_stride` elements apart. Runs on the calling thread only.
pub fn gemm<T: Real>(
    m: usize,
    n: usize,
    k: usize,
    a: Mat<T>,
    b: Mat<T>,
    out: &mut [T],
    out_stride: usize,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * out_stride + n <= out.len() && (n <= out_stride || m == 1), "gemm: output too small");
    if k == 0 {
        if !accumulate {
            for row in out.chunks_mut(out_stride).take(m) {
                row[..n].fill(T::zero());
            }
        }
        return;
    }
    assert!(a.last(m, k) < a.data.len(), "gemm: left matrix too small");
    assert!(b.last(k, n) < b.data.len(), "gemm: right matrix too small");
    // SAFETY: the three assertions above keep every element that the strides reach inside its slice, and `out` is
    // borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_transposes_and_accumulation() {
        // a = [1 2 3; 4 5 6], b = [1 0; 0 1; 1 1]
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let at = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
        let b = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        for a in [Mat::rows(&a, 3), Mat::cols(&at, 2)] {
            let mut out = [9.0; 7];
            gemm(2, 2, 3, a, Mat::rows(&b, 2), &mut out, 4, false);
            assert_eq!(out, [4.0, 5.0, 9.0, 9.0, 10.0, 11.0, 9.0]);
            gemm(2, 2, 3, a, Mat::rows(&b, 2), &mut out, 4, true);
            assert_eq!(out, [8.0, 10.0, 9.0, 9.0, 20.0, 22.0, 9.0]);
        }
    }
}
