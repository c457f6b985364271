//! The register tiles behind [`super::tile`], for each instruction set, chosen at run time.

#![allow(unsafe_code)]

use super::channels::{self, Run};
use super::simd::{Portable, Vector};
use crate::dtype::Real;
use std::any::TypeId;
#[cfg(target_arch = "x86_64")]
use std::arch::{is_x86_feature_detected, x86_64::*};

/// Upper limit of `Kernels::rows`.
pub(super) const MAX_ROWS: usize = 14;

/// `(rows, depth, left, right panel, starts of the output rows, columns, accumulate)`.
pub(super) type Kernel<T> = unsafe fn(usize, usize, *const T, *const T, &[*mut T; MAX_ROWS], usize, bool);

/// `(source rows, source columns, source, its stride, target, its stride)`.
pub(super) type Transpose<T> = unsafe fn(usize, usize, *const T, usize, *mut T, usize);

/// Largest depth of [`super::tile::Left::Rows`].
pub const ROW_DEPTH: usize = 256;

/// Elements between rows of [`super::tile::Left::Rows`]: an odd number of cache lines, lest all rows of a tile fall in one set of
/// the cache; a constant, so that the kernel's addresses are.
pub const ROW_STRIDE: usize = ROW_DEPTH + 16;

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

/// The arguments of [`super::tile::pack_right`].
pub(super) type Pack<T> = fn(&mut [T], usize, usize, usize, usize, &[T], usize);

/// `(run, weights, results, their stride)`, see [`super::runs::over_taps`].
pub(super) type OverTaps<T> = unsafe fn(&Run<T>, *const T, *mut T, usize);

/// `(run, upstream, its stride, sums)`, see [`super::runs::over_pixels`].
pub(super) type OverPixels<T> = unsafe fn(&Run<T>, *const T, usize, *mut T);

/// The kernels of one instruction set.
pub(super) struct Kernels<T> {
    /// Columns of a right panel: two registers.
    pub width: usize,
    /// Rows of a tile: as many as the registers hold beside a panel's row.
    pub rows: usize,
    pub from_rows: Kernel<T>,
    pub from_panels: Kernel<T>,
    pub transpose: Transpose<T>,
    pub pack_right: Pack<T>,
    pub pack_left: Pack<T>,
    pub put_right: fn(&mut [T], usize, usize, usize, &[T]),
    pub over_taps: OverTaps<T>,
    pub over_pixels: OverPixels<T>,
}

/// The fastest kernels that this processor runs.
pub(super) fn kernels<T: Real>() -> &'static Kernels<T> {
    let of = TypeId::of::<T>();
    let kernels: *const () = if of == TypeId::of::<f32>() {
        std::ptr::from_ref(for_f32()[0]).cast()
    } else {
        assert!(of == TypeId::of::<f64>(), "no kernels for this type");
        std::ptr::from_ref(for_f64()[0]).cast()
    };
    // SAFETY: `T` is the very type that the kernels are for.
    unsafe { &*kernels.cast() }
}

macro_rules! choose {
    ($name:ident, $t:ty, $avx512:ident, $avx2:ident, $portable:ident) => {
        /// All kernels that this processor runs, the fastest first.
        pub(super) fn $name() -> &'static [&'static Kernels<$t>] {
            #[cfg(target_arch = "x86_64")]
            {
                static ALL: [&Kernels<$t>; 3] = [&$avx512::KERNELS, &$avx2::KERNELS, &$portable::KERNELS];
                let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                if avx2 && is_x86_feature_detected!("avx512f") {
                    return &ALL;
                }
                if avx2 {
                    return &ALL[1..];
                }
            }
            static PORTABLE: [&Kernels<$t>; 1] = [&$portable::KERNELS];
            &PORTABLE
        }
    };
}
choose!(for_f32, f32, avx512_f32, avx2_f32, portable_f32);
choose!(for_f64, f64, avx512_f64, avx2_f64, portable_f64);

/// One register tile: `M` rows and `NV` registers of columns. Element `(r, d)` of the left operand is at
/// `r * RS + d * CS`.
///
/// # Safety
/// See the call in [`super::tile::multiply`].
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

/// See [`super::tile::pack_right`].
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

/// See [`super::tile::put_right`].
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

/// Transposes element by element; `fill` columns of the target are written, with zeros behind the last source row.
///
/// # Safety
/// See [`super::tile::pack_right_transposed`].
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
/// See [`super::tile::pack_right_transposed`].
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
                over_taps,
                over_pixels,
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
            unsafe fn over_taps(run: &Run<$t>, weights: *const $t, out: *mut $t, stride: usize) {
                // SAFETY: the caller's.
                unsafe { channels::over_taps_in::<$t, $vector>(run, weights, out, stride) }
            }

            $(#[$feature])?
            unsafe fn over_pixels(run: &Run<$t>, upstream: *const $t, stride: usize, sums: *mut $t) {
                // SAFETY: the caller's.
                unsafe { channels::over_pixels_in::<$t, $vector>(run, upstream, stride, sums) }
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
        /// See [`super::tile::pack_right_transposed`]; the processor has AVX-512.
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
instruction_set!(avx512_f32, [target_feature(enable = "avx512f")], f32, __m512, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], transpose_f32);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx512_f64, [target_feature(enable = "avx512f")], f64, __m512d, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], transpose_f64);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2_f32, [target_feature(enable = "avx2,fma")], f32, __m256, 6, [1 2 3 4 5 6], transpose_whole::<f32>);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2_f64, [target_feature(enable = "avx2,fma")], f64, __m256d, 6, [1 2 3 4 5 6], transpose_whole::<f64>);
instruction_set!(portable_f32, [], f32, Portable<f32>, 6, [1 2 3 4 5 6], transpose_whole::<f32>);
instruction_set!(portable_f64, [], f64, Portable<f64>, 6, [1 2 3 4 5 6], transpose_whole::<f64>);
