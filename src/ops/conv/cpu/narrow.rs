//! Convolutions to or from very few channels (a generator's last layer, a critic's last layer), where a row of the
//! ordinary product would fill only a fraction of a register.
//!
//! - Narrow output: every source pixel is multiplied by the weights of *all* taps, once, and an output pixel then adds
//!   up the numbers that its taps left at the pixels it sees.
//! - Narrow output gradient: the roles in the weight gradient change places. Output gradients are gathered at the input
//!   pixels, so that the taps become rows of a product whose columns are the many input channels.

use super::gather::Gather;
use crate::device::cpu::blocks::{self, BlockMut, Cut};
use crate::device::cpu::tile::{self, Left, ROW_DEPTH, ROW_STRIDE};
use crate::device::cpu::{parallel, scratch};
use crate::dtype::Real;
use crate::ops::conv::geometry::ConvGeometry;

/// Lanes that the estimates below reckon with, and what adding up one number costs compared with a lane's multiply-add.
const LANES: usize = 16;

/// Numbers kept between the two passes at most, unless one image needs more.
const KEPT: usize = 4 << 20;

/// Pixels multiplied at once.
const PIXELS: usize = 256;

/// Whether two passes cost less than the ordinary product for outputs of `n` channels: `outputs` pixels seeing
/// `seen` taps each, `sources` pixels, `taps` taps in all, `depth` source channels.
fn pays(n: usize, outputs: usize, seen: usize, sources: usize, taps: usize, depth: usize) -> bool {
    let ordinary = outputs * seen * depth * n.next_multiple_of(LANES);
    let passes = sources * depth * (taps * n).next_multiple_of(LANES) + outputs * seen * n * LANES;
    n < LANES && passes < ordinary
}

/// `y = conv(x, w)` if few output channels make it pay; whether it was done.
pub(super) fn forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], y: &mut [T]) -> bool {
    let taps = g.taps();
    if g.groups != 1 || !pays(g.k, g.out_pixels(), taps, g.in_pixels(), taps, g.c) {
        return false;
    }
    let sides =
        Sides { images: g.n, source: (x, g.in_pixels(), g.c), target: (g.output, g.k), columns: taps * g.k };
    let weights = |dst: &mut [T], first: usize, count: usize| {
        tile::pack_right_transposed(dst, count, 0, count, taps * g.k, &w[first..], g.c);
    };
    two_passes(sides, weights, 1, |_| Gather::forward(g), |n, tap| n * taps + tap, y);
    true
}

/// `dx` of the convolution if few input channels make it pay; whether it was done.
pub(super) fn grad_x<T: Real>(g: &ConvGeometry, dy: &[T], w: &[T], dx: &mut [T]) -> bool {
    let (taps, classes) = (g.taps(), g.stride.iter().product());
    if g.groups != 1 || !pays(g.c, g.in_pixels(), taps.div_ceil(classes), g.out_pixels(), taps, g.k) {
        return false;
    }
    let sides =
        Sides { images: g.n, source: (dy, g.out_pixels(), g.k), target: (g.input, g.c), columns: taps * g.c };
    let weights = |dst: &mut [T], first: usize, count: usize| {
        tile::pack_right(dst, count, 0, count, taps * g.c, &w[first * taps * g.c..], taps * g.c);
    };
    two_passes(sides, weights, classes, |class| Gather::class(g, class), |c, tap| tap * g.c + c, dx);
    true
}

/// The operands of [`two_passes`].
struct Sides<'a, T> {
    images: usize,
    /// Elements, pixels of an image, channels.
    source: (&'a [T], usize, usize),
    /// Extents, channels.
    target: ([usize; 3], usize),
    /// Taps times target channels.
    columns: usize,
}

fn two_passes<T: Real>(
    sides: Sides<T>,
    weights: impl Fn(&mut [T], usize, usize) + Sync + Send,
    classes: usize,
    class: impl Fn(usize) -> Gather + Sync + Send,
    column: impl Fn(usize, usize) -> usize + Sync + Send,
    out: &mut [T],
) {
    let Sides { images, source: (source, pixels, channels), target: (extent, n), columns } = sides;
    let targets: usize = extent.iter().product();
    if images * pixels * targets == 0 {
        return out.fill(T::zero());
    }
    let at_once = (KEPT / (pixels * columns)).clamp(1, images);
    scratch::numbers(at_once * pixels * columns, |kept: &mut [T]| {
        let groups = source.chunks(at_once * pixels * channels).zip(out.chunks_mut(at_once * targets * n));
        for (source, out) in groups {
            let kept = &mut kept[..source.len() / channels * columns];
            multiply_all(source, channels, columns, &weights, kept);
            let kept = &*kept;
            parallel::for_chunks(out, 2048 * n, |start, out| {
                add_up(kept, columns, extent, start / n, n, (classes, &class), &column, out);
            });
        }
    });
}

/// Every source pixel times the weights of all taps.
fn multiply_all<T: Real>(
    source: &[T],
    channels: usize,
    columns: usize,
    weights: &(impl Fn(&mut [T], usize, usize) + Sync + Send),
    kept: &mut [T],
) {
    let rows = Cut::whole(source.len() / channels, PIXELS);
    blocks::for_grid(kept, rows, Cut::whole(columns, columns), |row, _, mut out| {
        let m = out.rows();
        scratch::numbers(m * ROW_STRIDE, |left: &mut [T]| {
            scratch::numbers(tile::right_len::<T>(columns, ROW_DEPTH), |right: &mut [T]| {
                for first in (0..channels).step_by(ROW_DEPTH) {
                    let depth = ROW_DEPTH.min(channels - first);
                    for (r, left) in left.chunks_exact_mut(ROW_STRIDE).enumerate() {
                        tile::copy_short(
                            &mut left[..depth],
                            &source[(row + r) * channels + first..][..depth],
                        );
                    }
                    weights(&mut right[..tile::right_len::<T>(columns, depth)], first, depth);
                    tile::multiply((m, columns, depth), Left::Rows(left), right, &mut out, None, first > 0);
                }
            });
        });
    });
}

/// Output pixels from `first` on: the sums over their taps.
fn add_up<T: Real>(
    kept: &[T],
    columns: usize,
    extent: [usize; 3],
    first: usize,
    n: usize,
    (classes, class): (usize, &impl Fn(usize) -> Gather),
    column: &impl Fn(usize, usize) -> usize,
    out: &mut [T],
) {
    let pixels = out.len() / n;
    out.fill(T::zero());
    scratch::points(pixels, |windows| {
        scratch::indices(pixels, |places| {
            for i in 0..classes {
                let gather = class(i);
                let found = gather.windows(extent, first, pixels, windows, places);
                scratch::indices(gather.taps(), |numbers| {
                    numbers.iter_mut().enumerate().for_each(|(j, number)| *number = gather.kernel_tap(j));
                    gather.runs(&windows[..found], 0..numbers.len(), (1, 0, 1), |i, tap, len, from| {
                        let Some(from) = from else { return };
                        for (c, out) in out[places[i] * n..][..n].iter_mut().enumerate() {
                            for (j, &number) in numbers[tap..tap + len].iter().enumerate() {
                                *out += kept[(from + j) * columns + column(c, number)];
                            }
                        }
                    });
                });
            }
        });
    });
}

/// Whether the roles of the weight gradient should change places.
pub(super) fn grad_w_pays(g: &ConvGeometry) -> bool {
    g.groups == 1 && g.k < 8 && g.taps() > 1 && g.c >= LANES && g.taps() * g.k <= 512
}

/// The part of `dw` that images `images` give, the roles of its operands changed.
pub(super) fn grad_w<T: Real>(
    g: &ConvGeometry,
    x: &[T],
    dy: &[T],
    pixels: std::ops::Range<usize>,
    dw: &mut [T],
) {
    let taps = g.taps();
    let classes: usize = g.stride.iter().product();
    dw.fill(T::zero());
    let mut out = BlockMut::new(dw, g.c);
    let width = tile::panel_rows::<T>();
    scratch::points(PIXELS, |windows| {
        scratch::indices(PIXELS, |places| {
            scratch::indices(taps * g.k, |rows| {
                scratch::numbers(tile::left_panels_len::<T>(taps * g.k, PIXELS), |left: &mut [T]| {
                    scratch::numbers(tile::right_len::<T>(g.c, PIXELS), |right: &mut [T]| {
                        for first in pixels.clone().step_by(PIXELS) {
                            let count = PIXELS.min(pixels.end - first);
                            for class in 0..classes {
                                let gather = Gather::class(g, class);
                                let depth = gather.windows(g.input, first, count, windows, places);
                                let m = gather.taps() * g.k;
                                if m * depth == 0 {
                                    continue;
                                }
                                for (i, row) in rows[..m].iter_mut().enumerate() {
                                    *row = i % g.k * taps + gather.kernel_tap(i / g.k);
                                }
                                let wanted = (g.k, 0, g.k);
                                gather.runs(
                                    &windows[..depth],
                                    0..gather.taps(),
                                    wanted,
                                    |i, row, len, from| {
                                        for j in 0..len {
                                            let (panel, r) = ((row + j) / width, (row + j) % width);
                                            let v = from.map_or(T::zero(), |from| dy[from + j]);
                                            left[(panel * depth + i) * width + r] = v;
                                        }
                                    },
                                );
                                for (i, &place) in places[..depth].iter().enumerate() {
                                    tile::pack_right(
                                        right,
                                        depth,
                                        i,
                                        1,
                                        g.c,
                                        &x[(first + place) * g.c..],
                                        g.c,
                                    );
                                }
                                let (left, right) = (Left::Panels(left), &right[..]);
                                tile::multiply(
                                    (m, g.c, depth),
                                    left,
                                    right,
                                    &mut out,
                                    Some(&rows[..m]),
                                    true,
                                );
                            }
                        }
                    });
                });
            });
        });
    });
}
