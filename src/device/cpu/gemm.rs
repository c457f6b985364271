//! Matrix products on one thread, by the crates `gemm-f32` and `gemm-f64` (picked for their run-time choice of AVX2/AVX-512
//! kernels and because they are maintained; `gemm`, which chooses between them, would have the kernels of complex numbers
//! compiled, too). Work is split over threads by the callers, in pieces that do not
//! depend on how many threads there are: so neither does the result.

#![allow(unsafe_code)]

use crate::dtype::{DType, Real};
use gemm_common::Parallelism;

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

    fn transposed(self) -> Self {
        Mat { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
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
    // The kernels write columns; where rows are what lies together, the transposed product is computed.
    let by_rows = out_stride > 1;
    let (m, n, left, right) = if by_rows { (n, m, b.transposed(), a.transposed()) } else { (m, n, a, b) };
    let (out_cs, out_rs) = if by_rows { (out_stride as isize, 1) } else { (1, out_stride as isize) };
    macro_rules! product {
        ($kernel:path) => {
            // SAFETY: the three assertions above keep every element that the strides reach inside its slice, `out` is
            // borrowed mutably, so it overlaps neither operand, and the casts are from a type to itself, as DTYPE tells.
            unsafe {
                $kernel()(
                    m,
                    n,
                    k,
                    out.as_mut_ptr().cast(),
                    out_cs,
                    out_rs,
                    accumulate,
                    left.data.as_ptr().cast(),
                    left.col_stride as isize,
                    left.row_stride as isize,
                    right.data.as_ptr().cast(),
                    right.col_stride as isize,
                    right.row_stride as isize,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    Parallelism::None,
                )
            }
        };
    }
    match T::DTYPE {
        DType::F32 => product!(gemm_f32::gemm::f32::get_gemm_fn),
        DType::F64 => product!(gemm_f64::gemm::f64::get_gemm_fn),
        DType::Bf16 => unreachable!("the CPU computes in f32 and f64"),
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
