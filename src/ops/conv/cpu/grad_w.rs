//! The weight gradient: output gradients, transposed, times gathered inputs, summed over the pixels.

use super::{Gather, narrow};
use crate::device::cpu::blocks::{self, BlockMut, Cut};
use crate::device::cpu::tile::{self, Left};
use crate::device::cpu::{parallel, scratch};
use crate::dtype::Real;
use crate::ops::conv::geometry::ConvGeometry;
use rayon::prelude::*;
use std::ops::Range;

/// Pixels summed at once.
const PIXELS: usize = 192;

/// Columns of a block: taps times channels.
const COLUMNS: usize = 256;

/// Rows of a block: output channels.
const ROWS: usize = 256;

/// Slices of the pixels that are summed separately, at most.
const SLICES: usize = 16;

/// `dw` of the convolution.
pub(super) fn grad_w<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    if narrow::grad_w_pays(g) {
        let pixels = g.n * g.in_pixels();
        return sliced(pixels, pixels.div_ceil(PIXELS).min(SLICES), dw, |pixels, dw| {
            narrow::grad_w(g, x, dy, pixels, dw)
        });
    }
    let pixels = g.n * g.out_pixels();
    let (rows, cols) = cuts(g);
    let blocks = rows.count() * cols.count();
    let slices =
        if blocks < SLICES / 2 { SLICES.div_ceil(blocks.max(1)).min(pixels / (4 * PIXELS)) } else { 1 };
    sliced(pixels, slices, dw, |pixels, dw| slice(g, x, dy, pixels, dw));
}

/// Sums over up to `slices` slices of the pixels, added up in order: for small weights and many pixels.
pub(super) fn sliced<T: Real>(
    pixels: usize,
    slices: usize,
    dw: &mut [T],
    f: impl Fn(Range<usize>, &mut [T]) + Sync + Send,
) {
    if slices <= 1 || dw.is_empty() {
        return f(0..pixels, dw);
    }
    let len = dw.len();
    scratch::numbers(slices * len, |partial: &mut [T]| {
        partial.par_chunks_mut(len).enumerate().for_each(|(i, partial)| {
            f(i * pixels / slices..(i + 1) * pixels / slices, partial);
        });
        let partial = &*partial;
        parallel::for_chunks(dw, 4096, |start, dw| {
            let range = start..start + dw.len();
            dw.copy_from_slice(&partial[range]);
            for partial in partial.chunks_exact(len).skip(1) {
                for (dw, &v) in dw.iter_mut().zip(&partial[start..]) {
                    *dw += v;
                }
            }
        });
    });
}

fn cuts(g: &ConvGeometry) -> (Cut, Cut) {
    let (c, k) = (g.group_c(), g.group_k());
    let rows = Cut { parts: g.groups, part: k, chunk: k.div_ceil(k.div_ceil(ROWS)) };
    // Whole taps, or parts of one: a block is then a range of each.
    let cols = if c > COLUMNS {
        Cut { parts: g.taps(), part: c, chunk: c.div_ceil(c.div_ceil(COLUMNS)) }
    } else {
        Cut::whole(g.taps() * c, COLUMNS / c * c)
    };
    (rows, cols)
}

/// The part of `dw` that a range of output pixels gives.
fn slice<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], pixels: Range<usize>, dw: &mut [T]) {
    let gather = Gather::every_tap(g);
    let (rows, cols) = cuts(g);
    blocks::for_grid(dw, rows, cols, |row, col, mut out| {
        block(g, &gather, x, dy, pixels.clone(), (row, col), &mut out)
    });
}

fn block<T: Real>(
    g: &ConvGeometry,
    gather: &Gather,
    x: &[T],
    dy: &[T],
    pixels: Range<usize>,
    (row, col): (usize, usize),
    out: &mut BlockMut<T>,
) {
    let c = g.group_c();
    let (m, n) = (out.rows(), out.cols());
    let taps = col / c..(col + n).div_ceil(c);
    let channels = (g.c, row / g.group_k() * c + col % c, n.min(c));
    if pixels.is_empty() || !taps.clone().any(|j| gather.sees(j)) {
        (0..m).for_each(|r| out.row(r).fill(T::zero()));
        return;
    }
    let passes = pixels.len().div_ceil(PIXELS);
    if passes < 3 {
        return sum(g, gather, x, dy, pixels, (row, taps, channels), out);
    }
    // Rows of the weights lie a power of two apart as a rule, and then compete for a few sets of the cache.
    scratch::numbers(m * n, |total: &mut [T]| {
        sum(g, gather, x, dy, pixels, (row, taps, channels), &mut BlockMut::new(total, n));
        for (r, total) in total.chunks_exact(n).enumerate() {
            out.row(r).copy_from_slice(total);
        }
    });
}

/// Output channels from `row` on by (taps x channels), summed over `pixels`.
fn sum<T: Real>(
    g: &ConvGeometry,
    gather: &Gather,
    x: &[T],
    dy: &[T],
    pixels: Range<usize>,
    (row, taps, channels): (usize, Range<usize>, (usize, usize, usize)),
    out: &mut BlockMut<T>,
) {
    let (m, n) = (out.rows(), out.cols());
    let width = tile::panel_width::<T>();
    let most = PIXELS.min(pixels.len());
    scratch::points(most, |windows| {
        scratch::indices(most, |places| {
            scratch::numbers(tile::left_panels_len::<T>(m, most), |left: &mut [T]| {
                scratch::numbers(tile::right_len::<T>(n, most), |right: &mut [T]| {
                    for first in pixels.clone().step_by(PIXELS) {
                        let depth = PIXELS.min(pixels.end - first);
                        gather.windows(g.output, first, depth, windows, places);
                        tile::pack_left(left, depth, 0, depth, m, &dy[first * g.k + row..], g.k);
                        clear_last_columns(right, depth, n, width);
                        gather.runs(&windows[..depth], taps.clone(), channels, |pixel, col, len, from| {
                            match from {
                                Some(from) => tile::put_right(right, depth, pixel, col, &x[from..from + len]),
                                None => zero_in_panels(right, depth, width, pixel, col, len),
                            }
                        });
                        let accumulate = first > pixels.start;
                        tile::multiply((m, n, depth), Left::Panels(left), right, out, None, accumulate);
                    }
                });
            });
        });
    });
}

/// Zeros behind the last column of the last panel.
fn clear_last_columns<T: Real>(right: &mut [T], depth: usize, n: usize, width: usize) {
    if !n.is_multiple_of(width) {
        let last = &mut right[n / width * width * depth..][..width * depth];
        last.chunks_exact_mut(width).for_each(|row| row[n % width..].fill(T::zero()));
    }
}

/// Zeros columns `col..col + len` of row `row` in the panels they belong to.
fn zero_in_panels<T: Real>(
    right: &mut [T],
    depth: usize,
    width: usize,
    row: usize,
    mut col: usize,
    len: usize,
) {
    let end = col + len;
    while col < end {
        let here = (width - col % width).min(end - col);
        right[(col / width * depth + row) * width + col % width..][..here].fill(T::zero());
        col += here;
    }
}
