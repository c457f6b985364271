//! Products of small matrices that the caller has laid out for the registers: the inner part of a convolution, which
//! gathers its operands itself and would otherwise have them copied a second time.
//!
//! `out[r, j] (+)= sum over d of left[r, d] * right[d, j]`, on the calling thread. The right operand lies in *panels*
//! of [`panel_width`] columns, `[panel][depth][column]`, filled up with zeros; the left one in rows or in panels of its
//! own, see [`Left`]. A register tile holds up to [`panel_rows`] rows of one panel.

#![allow(unsafe_code)]

use super::blocks::BlockMut;
use super::kernels::{Kernels, MAX_ROWS, kernels};
pub use super::kernels::{ROW_DEPTH, ROW_STRIDE, copy_short};
use crate::dtype::Real;

/// The left operand.
#[derive(Clone, Copy)]
pub enum Left<'a, T> {
    /// Row `r` starts at `r * ROW_STRIDE` and is contiguous along the depth.
    Rows(&'a [T]),
    /// Panels of [`panel_rows`] rows: `[panel][depth][row]`.
    Panels(&'a [T]),
}

/// Columns of a panel of the right operand.
pub fn panel_width<T: Real>() -> usize {
    kernels::<T>().width
}

/// Rows of a panel of the left operand.
pub fn panel_rows<T: Real>() -> usize {
    kernels::<T>().rows
}

/// Elements of a right operand with `n` columns.
pub fn right_len<T: Real>(n: usize, depth: usize) -> usize {
    n.next_multiple_of(panel_width::<T>()) * depth
}

/// Elements of a left operand in panels with `m` rows.
pub fn left_panels_len<T: Real>(m: usize, depth: usize) -> usize {
    m.next_multiple_of(panel_rows::<T>()) * depth
}

/// Multiplies `m` rows by `n` columns into the first `n` columns of `out`. Row `r` of the product goes to row
/// `to[r]`, or to row `r` where `to` is `None`.
pub fn multiply<T: Real>(
    (m, n, depth): (usize, usize, usize),
    left: Left<T>,
    right: &[T],
    out: &mut BlockMut<T>,
    to: Option<&[usize]>,
    accumulate: bool,
) {
    multiply_by(kernels::<T>(), (m, n, depth), left, right, out, to, accumulate);
}

fn multiply_by<T: Real>(
    kernels: &Kernels<T>,
    (m, n, depth): (usize, usize, usize),
    left: Left<T>,
    right: &[T],
    out: &mut BlockMut<T>,
    to: Option<&[usize]>,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= out.cols(), "product wider than its output");
    match to {
        Some(to) => {
            assert!(to.len() >= m && to[..m].iter().all(|&r| r < out.rows()), "output rows out of range")
        }
        None => assert!(m <= out.rows(), "product taller than its output"),
    }
    assert!(right.len() >= n.next_multiple_of(kernels.width) * depth, "right operand too small");
    match left {
        Left::Rows(a) => {
            assert!(depth <= ROW_DEPTH && a.len() >= (m - 1) * ROW_STRIDE + depth, "left rows too few")
        }
        Left::Panels(a) => {
            assert!(a.len() >= m.next_multiple_of(kernels.rows) * depth, "left panels too few")
        }
    }
    let (out, stride) = out.raw();
    // Rows of equal share rather than full tiles and a remainder: a tile of two rows cannot keep the pipeline full.
    let tiles = m.div_ceil(kernels.rows);
    let mut row = 0;
    for tile in 0..tiles {
        let (a, kernel, rows) = match left {
            Left::Rows(a) => {
                (a[row * ROW_STRIDE..].as_ptr(), kernels.from_rows, (m - row).div_ceil(tiles - tile))
            }
            Left::Panels(a) => (a[row * depth..].as_ptr(), kernels.from_panels, kernels.rows.min(m - row)),
        };
        let mut starts = [std::ptr::null_mut(); MAX_ROWS];
        for (i, start) in starts[..rows].iter_mut().enumerate() {
            let r = to.map_or(row + i, |to| to[row + i]);
            *start = out.wrapping_add(r * stride);
        }
        let panels = &right[..n.next_multiple_of(kernels.width) * depth];
        for (panel, b) in panels.chunks_exact((depth * kernels.width).max(1)).enumerate() {
            let col = panel * kernels.width;
            let cols = kernels.width.min(n - col);
            let starts = starts.map(|s| s.wrapping_add(col));
            // SAFETY: the kernel reads `rows` rows and `depth` steps of the left operand and one panel of the right
            // one, and writes `cols` elements at each of the first `rows` starts; the assertions above keep all of
            // them inside their slices and the block. `kernels` was chosen for this processor.
            unsafe { kernel(rows, depth, a, b.as_ptr(), &starts, cols, accumulate) };
        }
        if depth == 0 && !accumulate {
            for start in &starts[..rows] {
                // SAFETY: `n` elements of a row of the output, as above.
                unsafe { std::slice::from_raw_parts_mut(*start, n) }.fill(T::zero());
            }
        }
        row += rows;
    }
}

/// Copies rows of `n` elements, `stride` apart in `src`, to depths `at..at + rows` of a right operand of depth
/// `depth`.
pub fn pack_right<T: Real>(
    dst: &mut [T],
    depth: usize,
    at: usize,
    rows: usize,
    n: usize,
    src: &[T],
    stride: usize,
) {
    (kernels::<T>().pack_right)(dst, depth, at, rows, n, src, stride);
}

/// As [`pack_right`], to the panels of a left operand: element `j` of a source row belongs to row `j` of the operand.
pub fn pack_left<T: Real>(
    dst: &mut [T],
    depth: usize,
    at: usize,
    rows: usize,
    n: usize,
    src: &[T],
    stride: usize,
) {
    (kernels::<T>().pack_left)(dst, depth, at, rows, n, src, stride);
}

/// Copies `run` to the columns from `col` on of depth `at` of a right operand of depth `depth`.
pub fn put_right<T: Real>(dst: &mut [T], depth: usize, at: usize, col: usize, run: &[T]) {
    (kernels::<T>().put_right)(dst, depth, at, col, run);
}

/// Writes the transpose of `n` rows of `count` elements, `stride` apart in `src`, to depths `at..at + count` of a
/// right operand of depth `depth`: row `j` becomes column `j`.
pub fn pack_right_transposed<T: Real>(
    dst: &mut [T],
    depth: usize,
    at: usize,
    count: usize,
    n: usize,
    src: &[T],
    stride: usize,
) {
    transpose_by(kernels::<T>(), dst, depth, at, count, n, src, stride);
}

fn transpose_by<T: Real>(
    kernels: &Kernels<T>,
    dst: &mut [T],
    depth: usize,
    at: usize,
    count: usize,
    n: usize,
    src: &[T],
    stride: usize,
) {
    if n == 0 || count == 0 {
        return;
    }
    let width = kernels.width;
    assert!(
        at + count <= depth && dst.len() >= n.next_multiple_of(width) * depth,
        "target of a transpose too small"
    );
    assert!(src.len() >= (n - 1) * stride + count, "source of a transpose too small");
    for (panel, dst) in dst.chunks_exact_mut(depth * width).take(n.div_ceil(width)).enumerate() {
        let col = panel * width;
        let cols = width.min(n - col);
        let dst = &mut dst[at * width..(at + count) * width];
        // SAFETY: `cols` rows of `count` elements lie inside `src` by the assertion, and `dst` holds `count` rows of
        // `width` elements. `kernels` was chosen for this processor.
        unsafe {
            (kernels.transpose)(cols, count, src[col * stride..].as_ptr(), stride, dst.as_mut_ptr(), width)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::{for_f32, for_f64};
    use super::*;

    /// Operands of small whole numbers, whose products are exact.
    fn number<T: Real>(i: usize, j: usize) -> T {
        T::of((i * 7 + j * 13) as f64 % 11.0 - 5.0)
    }

    fn check<T: Real>(kernels: &Kernels<T>, (m, n, depth): (usize, usize, usize), accumulate: bool) {
        let mut rows = vec![T::nan(); m * ROW_STRIDE];
        for (r, row) in rows.chunks_exact_mut(ROW_STRIDE).enumerate() {
            row[..depth].iter_mut().enumerate().for_each(|(d, v)| *v = number(r, d));
        }
        let left: Vec<T> = (0..depth * m).map(|i| number(i % m, i / m)).collect();
        let mut panels = vec![T::nan(); m.next_multiple_of(kernels.rows) * depth];
        (kernels.pack_left)(&mut panels, depth, 0, depth, m, &left, m);

        // The right operand by rows, by columns, and by pieces of rows.
        let right: Vec<T> = (0..depth * n).map(|i| number(i / n, i % n + 3)).collect();
        let columns: Vec<T> = (0..depth * n).map(|i| number(i % depth, i / depth + 3)).collect();
        let mut packed = vec![T::nan(); n.next_multiple_of(kernels.width) * depth];
        (kernels.pack_right)(&mut packed, depth, 0, depth, n, &right, n);
        let mut transposed = vec![T::nan(); packed.len()];
        transpose_by(kernels, &mut transposed, depth, 0, depth / 2, n, &columns, depth);
        transpose_by(
            kernels,
            &mut transposed,
            depth,
            depth / 2,
            depth - depth / 2,
            n,
            &columns[depth / 2..],
            depth,
        );
        let mut pieces = vec![T::zero(); packed.len()];
        for (d, row) in right.chunks_exact(n).enumerate() {
            let (a, b) = row.split_at(n / 3);
            (kernels.put_right)(&mut pieces, depth, d, 0, a);
            (kernels.put_right)(&mut pieces, depth, d, n / 3, b);
        }
        assert!(packed == transposed && packed == pieces, "layouts of {n} columns, depth {depth}");

        let start = if accumulate { T::one() } else { T::nan() };
        let to: Vec<usize> = (0..m).map(|r| m - 1 - r).collect();
        for (left, to) in [(Left::Rows(&rows), Some(&to[..])), (Left::Panels(&panels), None)] {
            let mut out = vec![start; m * (n + 1)];
            let mut block = BlockMut::new(&mut out, n + 1);
            multiply_by(kernels, (m, n, depth), left, &packed, &mut block.part(0, m, 0, n), to, accumulate);
            for r in 0..m {
                let row = block.row(to.map_or(r, |to| to[r]));
                for (j, &got) in row[..n].iter().enumerate() {
                    let sum: f64 = (0..depth).map(|d| number::<f64>(r, d) * number::<f64>(d, j + 3)).sum();
                    assert_eq!(
                        got.f64(),
                        sum + f64::from(u8::from(accumulate)),
                        "({r}, {j}) of {m} x {n} x {depth}"
                    );
                }
                assert!(row[n].is_nan() || row[n] == start, "written behind the last column");
            }
        }
    }

    #[test]
    fn every_instruction_set_multiplies_and_packs() {
        for sizes in [(1, 1, 1), (3, 5, 7), (14, 32, 9), (15, 33, 20), (29, 70, 37), (8, 16, 256), (13, 8, 2)]
        {
            for accumulate in [false, true] {
                for_f32().iter().for_each(|kernels| check::<f32>(kernels, sizes, accumulate));
                for_f64().iter().for_each(|kernels| check::<f64>(kernels, sizes, accumulate));
            }
        }
    }

    #[test]
    fn an_empty_sum_is_zero() {
        let mut out = [f32::NAN; 6];
        multiply(
            (2, 3, 0),
            Left::Rows(&[0.0; ROW_STRIDE]),
            &[],
            &mut BlockMut::new(&mut out, 3),
            None,
            false,
        );
        assert_eq!(out, [0.0; 6]);
    }
}
