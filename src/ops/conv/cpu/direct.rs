//! Convolutions of groups with few channels, depthwise ones first of all: channel by channel, where a matrix product of each
//! group would leave most of a register empty.
//!
//! Every result channel meets as many source channels as a group has, and those differ from group to group. Groups of suitable
//! sizes are taken as they lie ([`crate::device::cpu::runs`]). For others the source is first spread: plane `j` holds, for
//! every result channel, the source channel that is number `j` of its group. Then each tap and plane is one product of equal
//! channels.

use super::Gather;
use super::gather::Axis;
use super::grad_w::sliced;
use crate::device::cpu::runs::{self, Run};
use crate::device::cpu::{parallel, scratch};
use crate::dtype::Real;
use crate::ops::conv::geometry::ConvGeometry;
use std::ops::Range;

/// The most source channels of a group for which this pays, measured with AVX-512: taken as they lie, and spread.
const MOST: usize = 32;
const MOST_SPREAD: usize = 6;

/// Slices of the pixels whose part of the weight gradient is summed separately.
const SLICES: usize = 16;

/// Channels of a group: of the source and of the result.
#[derive(Clone, Copy)]
struct Group {
    from: usize,
    to: usize,
}

impl Group {
    /// Whether a pass is one for this file.
    fn pays<T: Real>(self, g: &ConvGeometry) -> bool {
        let most = if runs::suits::<T>(self.from, self.to) { MOST } else { MOST_SPREAD };
        g.groups > 1 && self.from <= most
    }

    /// Calls `f` with the source as the products want it, its planes, and the groups of each: itself, or `from` planes of the
    /// result's channels.
    fn spread<T: Real, R>(self, source: &[T], groups: usize, f: impl FnOnce(&[T], usize, Group) -> R) -> R {
        let Group { from, to } = self;
        if runs::suits::<T>(from, to) {
            return f(source, 1, self);
        }
        let (narrow, wide) = (groups * from, groups * to);
        let pixels = source.len() / narrow;
        scratch::numbers(from * pixels * wide, |planes: &mut [T]| {
            let most = (parallel::CHUNK / wide).max(1);
            for (j, plane) in planes.chunks_exact_mut(pixels * wide).enumerate() {
                parallel::for_chunks(plane, most * wide, |start, piece| {
                    let source = &source[start / wide * narrow..];
                    for (pixel, source) in piece.chunks_exact_mut(wide).zip(source.chunks_exact(narrow)) {
                        for (results, of_group) in pixel.chunks_exact_mut(to).zip(source.chunks_exact(from)) {
                            results.fill(of_group[j]);
                        }
                    }
                });
            }
            f(planes, from, Group { from: 1, to: 1 })
        })
    }
}

/// `y = conv(x, w)` if the groups make it pay; whether it was done.
pub(super) fn forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], y: &mut [T]) -> bool {
    let group = Group { from: g.group_c(), to: g.group_k() };
    if !group.pays::<T>(g) {
        return false;
    }
    let (taps, from) = (g.taps(), group.from);
    let weight = |tap: usize, j: usize, k: usize| w[(k * taps + tap) * from + j];
    pixels(g, group, x, weight, g.output, &[Gather::forward(g)], y);
    true
}

/// `dx` of the convolution if the groups make it pay; whether it was done.
pub(super) fn grad_x<T: Real>(g: &ConvGeometry, dy: &[T], w: &[T], dx: &mut [T]) -> bool {
    let group = Group { from: g.group_k(), to: g.group_c() };
    if !group.pays::<T>(g) {
        return false;
    }
    let (taps, Group { from, to }) = (g.taps(), group);
    let weight = |tap: usize, j: usize, c: usize| w[((c / to * from + j) * taps + tap) * to + c % to];
    let classes: Vec<Gather> = (0..g.stride.iter().product()).map(|i| Gather::class(g, i)).collect();
    pixels(g, group, dy, weight, g.input, &classes, dx);
    true
}

/// A pass whose results are pixels of the given extents, each of which belongs to one of the gathers.
fn pixels<T: Real>(
    g: &ConvGeometry,
    group: Group,
    source: &[T],
    weight: impl Fn(usize, usize, usize) -> T,
    extent: [usize; 3],
    gathers: &[Gather],
    out: &mut [T],
) {
    let (n, taps) = (g.groups * group.to, g.taps());
    let [d, h, w] = extent;
    if out.is_empty() {
        return;
    }
    scratch::numbers(taps * group.from * n, |weights: &mut [T]| {
        for (row, line) in weights.chunks_exact_mut(n).enumerate() {
            let (tap, j) = (row / group.from, row % group.from);
            line.iter_mut().enumerate().for_each(|(k, v)| *v = weight(tap, j, k));
        }
        let weights = &*weights;
        group.spread(source, g.groups, |source, planes, Group { from, to }| {
            let sources = n / to * from;
            let lines = (parallel::CHUNK / (w * n)).max(1);
            parallel::for_chunks(out, lines * w * n, |start, piece| {
                let mut seen = Vec::new();
                for (i, line) in piece.chunks_exact_mut(w * n).enumerate() {
                    let at = start / (w * n) + i;
                    let (image, z, y) = (at / (d * h), at / h % d, at % h);
                    let own = |g: &&Gather| {
                        z % g.axes[0].step == g.axes[0].start && y % g.axes[1].step == g.axes[1].start
                    };
                    for gather in gathers.iter().filter(own) {
                        let a = &gather.axes[2];
                        let whole = [image, z / gather.axes[0].step, y / gather.axes[1].step];
                        for_runs(gather, whole, g.n, sources, planes, &mut seen, |taps, first, pixels| {
                            let step = a.src_step as usize * sources;
                            let run = Run { pixels, channels: n, from, to, source, step, taps };
                            let to = &mut line[(a.start + first * a.step) * n..];
                            runs::over_taps(&run, weights, to, a.step * n);
                        });
                    }
                }
            });
        });
    });
}

/// The taps of an axis that position `q` sees.
fn seen_taps(a: &Axis, q: usize) -> Range<usize> {
    let at = |j: usize| q as isize * a.src_step + a.offset + j as isize * a.spacing;
    let first = (0..a.taps).find(|&j| at(j) >= 0).unwrap_or(a.taps);
    let end = (first..a.taps).find(|&j| at(j) >= a.src_len).unwrap_or(a.taps);
    first..end
}

/// Calls `act(taps, first, pixels)` for the stretches of a line of results in which all see the same taps: with where the first one
/// sees the source and which row of the weights that is, plane by plane. `whole` says which line, `n` how many channels the source has.
fn for_runs(
    gather: &Gather,
    [image, z, y]: [usize; 3],
    images: usize,
    n: usize,
    planes: usize,
    taps: &mut Vec<(usize, usize)>,
    mut act: impl FnMut(&[(usize, usize)], usize, usize),
) {
    let [ad, ah, aw] = &gather.axes;
    let [depth, height, width] = gather.axes.map(|a| a.src_len as usize);
    let at =
        |a: &Axis, q: usize, j: usize| (q as isize * a.src_step + a.offset + j as isize * a.spacing) as usize;
    let (of_z, of_y) = (seen_taps(ad, z), seen_taps(ah, y));
    let mut first = 0;
    while first < aw.count {
        let of_x = seen_taps(aw, first);
        let same = |q: &usize| seen_taps(aw, *q) != of_x;
        let end = (first + 1..aw.count).find(same).unwrap_or(aw.count);
        taps.clear();
        for jd in of_z.clone() {
            for jh in of_y.clone() {
                let line = (image * depth + at(ad, z, jd)) * height + at(ah, y, jh);
                for jw in of_x.clone() {
                    let tap = gather.kernel_tap((jd * ah.taps + jh) * aw.taps + jw);
                    let pixel = line * width + at(aw, first, jw);
                    let of = |j: usize| ((j * images * depth * height * width + pixel) * n, tap * planes + j);
                    taps.extend((0..planes).map(of));
                }
            }
        }
        act(taps, first, end - first);
        first = end;
    }
}

/// `dw` of the convolution if the groups make it pay; whether it was done.
pub(super) fn grad_w<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) -> bool {
    let group = Group { from: g.group_c(), to: g.group_k() };
    if !group.pays::<T>(g) {
        return false;
    }
    let (n, taps, from) = (g.k, g.taps(), group.from);
    let [d, h, w] = g.output;
    let gather = Gather::every_tap(g);
    scratch::numbers(dw.len(), |sums: &mut [T]| {
        group.spread(x, g.groups, |source, planes, Group { from, to }| {
            let sources = n / to * from;
            let step = gather.axes[2].src_step as usize * sources;
            let lines = g.n * d * h;
            sliced(lines, lines.min(SLICES), sums, |lines, sums| {
                sums.fill(T::zero());
                let mut seen = Vec::new();
                for at in lines {
                    let whole = [at / (d * h), at / h % d, at % h];
                    for_runs(&gather, whole, g.n, sources, planes, &mut seen, |taps, first, pixels| {
                        let run = Run { pixels, channels: n, from, to, source, step, taps };
                        runs::over_pixels(&run, &dy[(at * w + first) * n..], n, sums);
                    });
                }
            });
        });
        // From a row for each tap and plane to one for each channel.
        for (k, dw) in dw.chunks_exact_mut(taps * from).enumerate() {
            dw.iter_mut().enumerate().for_each(|(row, v)| *v = sums[row * n + k]);
        }
    });
    true
}
