//! Products of small matrices that the caller has laid out for the registers: the inner part of a convolution, which
//! gathers its operands itself and would otherwise have them copied a second time.
//!
//! `out[r, j] (+)= sum over d of left[r, d] * right[d, j]`, on the calling thread. The right operand lies in *panels*
//! of [`panel_width`] columns, `[panel][depth][column]`, filled up with zeros; the left one in rows or in panels of its
//! own, see [`Left`]. A register tile holds up to [`panel_rows`] rows of one panel.

#![allow(unsafe_code)]

use super::blocks::BlockMut;
use super::simd::{Portable, Vector};
use crate::dtype::{DType, Real};

/// Largest depth of [`Left::Rows`].
pub const ROW_DEPTH: usize = 256;

/// Elements between rows of [`Left::Rows`]: an odd number of cache lines, lest all rows of a tile fall in one set of
/// the cache; a constant, so that the kernel's addresses are.
pub const ROW_STRIDE: usize = ROW_DEPTH + 16;

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
    if m == 0 || n == 0 {
        return;
    }
    let kernels = kernels::<T>();
    assert!(n <= out.cols(), "product wider than its output");
    match to {
        Some(to) => {
            assert!(to.len() >= m && to[..m].iter().all(|&r| r < out.rows()), "output rows out of range")
        }
        None => assert!(m <= out.rows(), "product taller than its output"),
    }
    assert!(right.len() >= right_len::<T>(n, depth), "right operand too small");
    match left {
        Left::Rows(a) => {
            assert!(depth <= ROW_DEPTH && a.len() >= (m - 1) * ROW_STRIDE + depth, "left rows too few")
        }
        Left::Panels(a) => assert!(a.len() >= left_panels_len::<T>(m, depth), "left panels too few"),
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
        for (panel, b) in
            right[..right_len::<T>(n, depth)].chunks_exact((depth * kernels.width).max(1)).enumerate()
        {
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

#[inline(always)]
fn pack<T: Real, const WIDTH: usize>(
    dst: &mut [T],
    depth: usize,
    at: usize,
    rows: usize,
    n: usize,
    src: &[T],
    stride: usize,
) {
    // Row by row: a source row is read once and from end to end, whatever the distance to the next.
    for r in 0..rows {
        if let Some(ahead) = src.get((r + AHEAD) * stride..(r + AHEAD) * stride + n) {
            prefetch(ahead);
        }
        let (full, rest) = src[r * stride..][..n].as_chunks::<WIDTH>();
        for (panel, src) in full.iter().enumerate() {
            dst[(panel * depth + at + r) * WIDTH..][..WIDTH].copy_from_slice(src);
        }
        if !rest.is_empty() {
            let dst = &mut dst[(full.len() * depth + at + r) * WIDTH..][..WIDTH];
            copy_short(&mut dst[..rest.len()], rest);
            dst[rest.len()..].fill(T::zero());
        }
    }
}

#[inline(always)]
fn put<T: Real, const WIDTH: usize>(dst: &mut [T], depth: usize, at: usize, mut col: usize, mut run: &[T]) {
    while !run.is_empty() {
        let dst = &mut dst[(col / WIDTH * depth + at) * WIDTH..][..WIDTH];
        let here = (WIDTH - col % WIDTH).min(run.len());
        if here == WIDTH {
            dst.copy_from_slice(&run[..WIDTH]);
        } else {
            copy_short(&mut dst[col % WIDTH..][..here], &run[..here]);
        }
        run = &run[here..];
        col += here;
    }
}

/// Rows that [`pack`] asks for ahead of their use: they lie far apart, where the processor does not foresee them.
const AHEAD: usize = 8;

/// Asks for the memory of a slice.
#[inline]
fn prefetch<T>(slice: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in slice.chunks(64 / size_of::<T>()) {
        // SAFETY: a prefetch has no effect but on time, whatever the address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast())
        };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}

/// Copies a few dozen elements, without the call that `copy_from_slice` makes.
#[inline]
pub fn copy_short<T: Copy>(dst: &mut [T], src: &[T]) {
    let (dst8, dst1) = dst.as_chunks_mut::<8>();
    let (src8, src1) = src.as_chunks::<8>();
    for (d, s) in dst8.iter_mut().zip(src8) {
        *d = *s;
    }
    for (d, s) in dst1.iter_mut().zip(src1) {
        *d = *s;
    }
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
    let kernels = kernels::<T>();
    let width = kernels.width;
    for (panel, dst) in dst.chunks_exact_mut(depth * width).take(n.div_ceil(width)).enumerate() {
        let col = panel * width;
        let cols = width.min(n - col);
        let dst = &mut dst[at * width..(at + count) * width];
        let src = &src[col * stride..];
        assert!(src.len() >= (cols - 1) * stride + count, "source of a transpose too small");
        // SAFETY: `cols` rows of `count` elements lie inside `src` by the assertion, and `dst` holds `count` rows of
        // `width` elements.
        unsafe { (kernels.transpose)(cols, count, src.as_ptr(), stride, dst.as_mut_ptr(), width) };
    }
}

/// Upper limit of `Kernels::rows`.
const MAX_ROWS: usize = 14;

/// `(rows, depth, left, right panel, starts of the output rows, columns, accumulate)`.
type Kernel<T> = unsafe fn(usize, usize, *const T, *const T, &[*mut T; MAX_ROWS], usize, bool);

/// `(source rows, source columns, source, its stride, target, its stride)`.
type Transpose<T> = unsafe fn(usize, usize, *const T, usize, *mut T, usize);

/// The arguments of [`pack_right`].
type Pack<T> = fn(&mut [T], usize, usize, usize, usize, &[T], usize);

/// The kernels of one instruction set.
struct Kernels<T> {
    /// Columns of a right panel: two registers.
    width: usize,
    /// Rows of a tile: as many as the registers hold beside a panel's row.
    rows: usize,
    from_rows: Kernel<T>,
    from_panels: Kernel<T>,
    transpose: Transpose<T>,
    pack_right: Pack<T>,
    pack_left: Pack<T>,
    put_right: fn(&mut [T], usize, usize, usize, &[T]),
}

/// The fastest kernels that this processor runs.
fn kernels<T: Real>() -> &'static Kernels<T> {
    let kernels: *const () = match T::DTYPE {
        DType::F32 => std::ptr::from_ref(kernels_f32()).cast(),
        DType::F64 => std::ptr::from_ref(kernels_f64()).cast(),
    };
    assert_eq!(size_of::<T>(), T::DTYPE.size());
    // SAFETY: the tag of a `Real` is that of the type itself (`f32` and `f64` are its only implementations).
    unsafe { &*kernels.cast() }
}

macro_rules! choose {
    ($name:ident, $t:ty, $avx512:ident, $avx2:ident, $portable:ident) => {
        fn $name() -> &'static Kernels<$t> {
            #[cfg(target_arch = "x86_64")]
            {
                if std::arch::is_x86_feature_detected!("avx512f") {
                    return &$avx512::KERNELS;
                }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    return &$avx2::KERNELS;
                }
            }
            &$portable::KERNELS
        }
    };
}
choose!(kernels_f32, f32, avx512_f32, avx2_f32, portable_f32);
choose!(kernels_f64, f64, avx512_f64, avx2_f64, portable_f64);

/// One register tile: `M` rows and `NV` registers of columns. Element `(r, d)` of the left operand is at
/// `r * RS + d * CS`.
///
/// # Safety
/// See the call in [`multiply`].
#[inline(always)]
unsafe fn tile<T: Real, V: Vector<T>, const M: usize, const NV: usize, const RS: usize, const CS: usize>(
    depth: usize,
    mut a: *const T,
    mut b: *const T,
    starts: &[*mut T; MAX_ROWS],
    cols: usize,
    accumulate: bool,
) {
    // SAFETY: the caller's, for every pointer below.
    unsafe {
        let mut acc = [[V::zero(); NV]; M];
        for _ in 0..depth {
            let mut right = [V::zero(); NV];
            for (j, right) in right.iter_mut().enumerate() {
                *right = V::load(b.add(j * V::LANES));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let left = V::splat(*a.add(i * RS));
                for (acc, right) in acc.iter_mut().zip(right) {
                    *acc = left.mul_add(right, *acc);
                }
            }
            a = a.add(CS);
            b = b.add(2 * V::LANES);
        }
        if cols == NV * V::LANES {
            for (acc, &start) in acc.iter().zip(starts) {
                for (j, &acc) in acc.iter().enumerate() {
                    let out = start.add(j * V::LANES);
                    if accumulate { V::load(out).add(acc).store(out) } else { acc.store(out) }
                }
            }
            return;
        }
        for (acc, &start) in acc.iter().zip(starts) {
            let mut row = [T::zero(); 2 * 16];
            for (j, acc) in acc.iter().enumerate() {
                acc.store(row.as_mut_ptr().add(j * V::LANES));
            }
            for (j, &v) in row[..cols].iter().enumerate() {
                let out = start.add(j);
                *out = if accumulate { *out + v } else { v };
            }
        }
    }
}

/// Transposes element by element; `fill` columns of the target are written, with zeros behind the last source row.
///
/// # Safety
/// See [`pack_right_transposed`].
#[inline(always)]
unsafe fn transpose_any<T: Real>(
    rows: usize,
    cols: usize,
    src: *const T,
    stride: usize,
    dst: *mut T,
    width: usize,
    fill: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        for c in 0..cols {
            for r in 0..rows {
                *dst.add(c * width + r) = *src.add(r * stride + c);
            }
            for r in rows..fill {
                *dst.add(c * width + r) = T::zero();
            }
        }
    }
}

/// # Safety
/// See [`pack_right_transposed`].
unsafe fn transpose_whole<T: Real>(
    rows: usize,
    cols: usize,
    src: *const T,
    stride: usize,
    dst: *mut T,
    width: usize,
) {
    // SAFETY: the caller's.
    unsafe { transpose_any(rows, cols, src, stride, dst, width, width) }
}

macro_rules! instruction_set {
    ($name:ident, [$($feature:meta)?], $t:ty, $vector:ty, $rows:literal, [$($m:literal)*], $transpose:expr) => {
        mod $name {
            use super::*;

            pub(super) static KERNELS: Kernels<$t> = Kernels {
                width: WIDTH,
                rows: $rows,
                from_rows: dispatch::<ROW_STRIDE, 1>,
                from_panels: dispatch::<1, $rows>,
                transpose: $transpose,
                // SAFETY: these kernels are chosen only where the processor has the instruction set.
                pack_right: |dst, depth, at, rows, n, src, stride| unsafe {
                    pack_in::<WIDTH>(dst, depth, at, rows, n, src, stride)
                },
                // SAFETY: as above.
                pack_left: |dst, depth, at, rows, n, src, stride| unsafe {
                    pack_in::<$rows>(dst, depth, at, rows, n, src, stride)
                },
                // SAFETY: as above.
                put_right: |dst, depth, at, col, run| unsafe { put_in(dst, depth, at, col, run) },
            };

            const WIDTH: usize = 2 * <$vector as Vector<$t>>::LANES;

            $(#[$feature])?
            unsafe fn pack_in<const W: usize>(
                dst: &mut [$t],
                depth: usize,
                at: usize,
                rows: usize,
                n: usize,
                src: &[$t],
                stride: usize,
            ) {
                pack::<$t, W>(dst, depth, at, rows, n, src, stride);
            }

            $(#[$feature])?
            unsafe fn put_in(dst: &mut [$t], depth: usize, at: usize, col: usize, run: &[$t]) {
                put::<$t, WIDTH>(dst, depth, at, col, run);
            }

            $(#[$feature])?
            unsafe fn one<const M: usize, const NV: usize, const RS: usize, const CS: usize>(
                depth: usize,
                a: *const $t,
                b: *const $t,
                starts: &[*mut $t; MAX_ROWS],
                cols: usize,
                accumulate: bool,
            ) {
                // SAFETY: the caller's.
                unsafe { tile::<$t, $vector, M, NV, RS, CS>(depth, a, b, starts, cols, accumulate) }
            }

            unsafe fn dispatch<const RS: usize, const CS: usize>(
                rows: usize,
                depth: usize,
                a: *const $t,
                b: *const $t,
                starts: &[*mut $t; MAX_ROWS],
                cols: usize,
                accumulate: bool,
            ) {
                let wide = cols > <$vector as Vector<$t>>::LANES;
                // SAFETY: the caller's.
                unsafe {
                    match (rows, wide) {
                        $(
                            ($m, true) => one::<$m, 2, RS, CS>(depth, a, b, starts, cols, accumulate),
                            ($m, false) => one::<$m, 1, RS, CS>(depth, a, b, starts, cols, accumulate),
                        )*
                        _ => unreachable!("a tile of {rows} rows"),
                    }
                }
            }
        }
    };
}

/// Transposes by square blocks of one register's width, each in registers: at stage `s` every pair of rows `s` apart
/// swaps its off-diagonal blocks of `s` columns. What does not fill a block goes element by element.
macro_rules! transpose {
    ($name:ident, $t:ty, $lanes:literal, $vector:ty, $index:ty, $load_index:ident, $select:ident) => {
        /// # Safety
        /// See [`pack_right_transposed`]; the processor has AVX-512.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f")]
        unsafe fn $name(rows: usize, cols: usize, src: *const $t, stride: usize, dst: *mut $t, width: usize) {
            const L: usize = $lanes;
            // SAFETY: the caller's.
            unsafe {
                let mut choice = [[[0 as $index; L]; 2]; L.ilog2() as usize];
                for (stage, [low, high]) in choice.iter_mut().enumerate() {
                    let s = 1 << stage;
                    for l in 0..L {
                        low[l] = (if l & s == 0 { l } else { L + l - s }) as $index;
                        high[l] = (if l & s == 0 { l + s } else { L + l }) as $index;
                    }
                }
                let full = cols / L * L;
                for r in (0..rows / L * L).step_by(L) {
                    for c in (0..full).step_by(L) {
                        let mut block = [<$vector as Vector<$t>>::zero(); L];
                        for (i, row) in block.iter_mut().enumerate() {
                            *row = <$vector as Vector<$t>>::load(src.add((r + i) * stride + c));
                        }
                        for (stage, [low, high]) in choice.iter().enumerate() {
                            let s = 1 << stage;
                            let (low, high) =
                                ($load_index(low.as_ptr().cast()), $load_index(high.as_ptr().cast()));
                            for i in 0..L {
                                if i & s == 0 {
                                    let (a, b) = (block[i], block[i + s]);
                                    block[i] = $select(a, low, b);
                                    block[i + s] = $select(a, high, b);
                                }
                            }
                        }
                        for (i, row) in block.iter().enumerate() {
                            row.store(dst.add((c + i) * width + r));
                        }
                    }
                    if full < cols {
                        transpose_any(
                            L,
                            cols - full,
                            src.add(r * stride + full),
                            stride,
                            dst.add(full * width + r),
                            width,
                            L,
                        );
                    }
                }
                let r = rows / L * L;
                if r < width {
                    transpose_any(rows - r, cols, src.add(r * stride), stride, dst.add(r), width, width - r);
                }
            }
        }
    };
}
transpose!(transpose_f32, f32, 16, __m512, i32, _mm512_loadu_si512, _mm512_permutex2var_ps);
transpose!(transpose_f64, f64, 8, __m512d, i64, _mm512_loadu_si512, _mm512_permutex2var_pd);

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "x86_64")]
instruction_set!(avx512_f32, [target_feature(enable = "avx512f")], f32, __m512, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], transpose_f32);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx512_f64, [target_feature(enable = "avx512f")], f64, __m512d, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], transpose_f64);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2_f32, [target_feature(enable = "avx2,fma")], f32, __m256, 6, [1 2 3 4 5 6], transpose_whole::<f32>);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2_f64, [target_feature(enable = "avx2,fma")], f64, __m256d, 6, [1 2 3 4 5 6], transpose_whole::<f64>);
instruction_set!(portable_f32, [], f32, Portable<f32>, 6, [1 2 3 4 5 6], transpose_whole::<f32>);
instruction_set!(portable_f64, [], f64, Portable<f64>, 6, [1 2 3 4 5 6], transpose_whole::<f64>);
