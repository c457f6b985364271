//! The convolution and its input gradient: gathered pixels times weights.

use super::Gather;
use super::gather::Window;
use crate::device::cpu::blocks::{self, BlockMut, Cut};
use crate::device::cpu::scratch;
use crate::device::cpu::tile::{self, Left, ROW_DEPTH, ROW_STRIDE};
use crate::dtype::Real;
use crate::ops::conv::geometry::ConvGeometry;
use std::ops::Range;

/// Pixels of a block: their gathered rows and the weights they meet fill about half of the second-level cache.
const PIXELS: usize = 384;

/// Output channels of a block.
const COLUMNS: usize = 128;

/// `y = conv(x, w)`.
pub(super) fn forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], y: &mut [T]) {
    let (c, k, taps) = (g.group_c(), g.group_k(), g.taps());
    let gather = Gather::forward(g);
    // Where one block holds all pixels, only the channels are left to share out.
    let columns = if g.n * g.out_pixels() <= PIXELS { COLUMNS / 2 } else { COLUMNS };
    let (rows, cols) = cuts(g.n * g.out_pixels(), g.groups, k, 1, columns);
    blocks::for_grid(y, rows, cols, |row, col, mut out| {
        let (group, n) = (col / k, out.cols());
        let weights = |dst: &mut [T], range: Range<usize>, channels: Range<usize>| {
            let depth = range.len() * channels.len();
            for (i, j) in range.enumerate() {
                let src = &w[(col * taps + gather.kernel_tap(j)) * c + channels.start..];
                tile::pack_right_transposed(dst, depth, i * channels.len(), channels.len(), n, src, taps * c);
            }
        };
        let source = Source { data: x, channels: g.c, first: group * c, count: c };
        block(&gather, g.output, row, source, weights, &mut out);
    });
}

/// `dx` of the convolution: class by class of the input positions modulo the stride.
pub(super) fn grad_x<T: Real>(g: &ConvGeometry, dy: &[T], w: &[T], dx: &mut [T]) {
    let (c, k, taps) = (g.group_c(), g.group_k(), g.taps());
    let g = &apart(g);
    let classes: usize = g.stride.iter().product();
    let (rows, cols) = cuts(g.n * g.in_pixels(), g.groups, c, classes, COLUMNS);
    blocks::for_grid(dx, rows, cols, |row, col, mut out| {
        let (group, n) = (col / c, out.cols());
        for class in 0..classes {
            let gather = Gather::class(g, class);
            let weights = |dst: &mut [T], range: Range<usize>, channels: Range<usize>| {
                let depth = range.len() * channels.len();
                for (i, j) in range.enumerate() {
                    let first = (group * k + channels.start) * taps + gather.kernel_tap(j);
                    let src = &w[first * c + col % c..];
                    tile::pack_right(dst, depth, i * channels.len(), channels.len(), n, src, taps * c);
                }
            };
            let source = Source { data: dy, channels: g.k, first: group * k, count: k };
            block(&gather, g.input, row, source, weights, &mut out);
        }
    });
}

/// What is gathered: the channels `first..first + count` of `channels`.
#[derive(Clone, Copy)]
struct Source<'a, T> {
    data: &'a [T],
    channels: usize,
    first: usize,
    count: usize,
}

/// Along an axis with a single output the stride means nothing: a large one gives every input a class of its own, which
/// sees one tap, where otherwise it would see all of them, and padding through all but one.
fn apart(g: &ConvGeometry) -> ConvGeometry {
    let mut g = g.clone();
    for axis in 0..3 {
        if g.output[axis] == 1 {
            g.stride[axis] = g.stride[axis].max(g.input[axis]);
        }
    }
    g
}

/// How the output, `pixels` x (`groups` x `n`), is cut.
fn cuts(pixels: usize, groups: usize, n: usize, classes: usize, columns: usize) -> (Cut, Cut) {
    let rows = Cut::whole(pixels, even(pixels, PIXELS * classes).max(1));
    (rows, Cut { parts: groups, part: n, chunk: even(n, columns).max(1) })
}

/// The length of pieces of equal share, at most `most` long.
fn even(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most).max(1))
}

/// One block of the output: those of its pixels that belong to the gather. `weights` lays out the right operand for
/// a range of taps and of the source's channels.
fn block<T: Real>(
    gather: &Gather,
    extent: [usize; 3],
    first: usize,
    source: Source<T>,
    weights: impl Fn(&mut [T], Range<usize>, Range<usize>),
    out: &mut BlockMut<T>,
) {
    let (pixels, n, taps) = (out.rows(), out.cols(), gather.taps());
    let taps_at_once = (ROW_DEPTH / source.count).clamp(1, taps.max(1));
    let channels_at_once = source.count.div_ceil(source.count.div_ceil(ROW_DEPTH));
    let depth = taps_at_once * channels_at_once;
    scratch::points(pixels, |windows| {
        scratch::indices(pixels, |places| {
            let m = gather.windows(extent, first, pixels, windows, places);
            let (windows, places) = (&windows[..m], &places[..m]);
            if taps == 0 {
                places.iter().for_each(|&r| out.row(r).fill(T::zero()));
                return;
            }
            scratch::numbers(m * ROW_STRIDE, |left: &mut [T]| {
                scratch::numbers(tile::right_len::<T>(n, depth), |right: &mut [T]| {
                    let mut accumulate = false;
                    for tap in (0..taps).step_by(taps_at_once) {
                        let range = tap..taps.min(tap + taps_at_once);
                        for channel in (0..source.count).step_by(channels_at_once) {
                            let channels = channel..source.count.min(channel + channels_at_once);
                            let depth = range.len() * channels.len();
                            gather_rows(gather, windows, range.clone(), source, channels.clone(), left);
                            let right = &mut right[..tile::right_len::<T>(n, depth)];
                            weights(right, range.clone(), channels);
                            tile::multiply(
                                (m, n, depth),
                                Left::Rows(left),
                                right,
                                out,
                                Some(places),
                                accumulate,
                            );
                            accumulate = true;
                        }
                    }
                });
            });
        });
    });
}

fn gather_rows<T: Real>(
    gather: &Gather,
    windows: &[Window],
    taps: Range<usize>,
    source: Source<T>,
    channels: Range<usize>,
    left: &mut [T],
) {
    let wanted = (source.channels, source.first + channels.start, channels.len());
    gather.runs(windows, taps, wanted, |row, col, len, from| {
        let dst = &mut left[row * ROW_STRIDE + col..][..len];
        match from {
            Some(from) if len < 64 => tile::copy_short(dst, &source.data[from..from + len]),
            Some(from) => dst.copy_from_slice(&source.data[from..from + len]),
            None => dst.fill(T::zero()),
        }
    });
}
