//! The three derivatives of a convolution on the CPU.
//!
//! All of them gather (see `gather.rs`) blocks of their operands into working memory that stays in the second-level cache
//! and multiply those by [`crate::device::cpu::tile`]. The blocks, and with them the order of every sum, depend on the
//! geometry alone and not on the number of threads. Groups of few channels fill no tile; they are summed channel by channel
//! (`direct.rs`).

mod direct;
mod gather;
mod grad_w;
mod narrow;
mod product;

use crate::dtype::Real;
use crate::ops::conv::geometry::ConvGeometry;
use gather::Gather;

/// `y = conv(x, w)`.
pub fn forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], y: &mut [T]) {
    check(g, x, w, y);
    if !direct::forward(g, x, w, y) && !narrow::forward(g, x, w, y) {
        product::forward(g, x, w, y);
    }
}

/// The gradient of `<conv(x, w), dy>` by `x`; also the transposed convolution of `dy`.
pub fn grad_x<T: Real>(g: &ConvGeometry, dy: &[T], w: &[T], dx: &mut [T]) {
    check(g, dx, w, dy);
    if !direct::grad_x(g, dy, w, dx) && !narrow::grad_x(g, dy, w, dx) {
        product::grad_x(g, dy, w, dx);
    }
}

/// The gradient of `<conv(x, w), dy>` by `w`.
pub fn grad_w<T: Real>(g: &ConvGeometry, x: &[T], dy: &[T], dw: &mut [T]) {
    check(g, x, dw, dy);
    if !direct::grad_w(g, x, dy, dw) {
        grad_w::grad_w(g, x, dy, dw);
    }
}

fn check<T>(g: &ConvGeometry, x: &[T], w: &[T], y: &[T]) {
    assert!(
        g.groups > 0 && g.c.is_multiple_of(g.groups) && g.k.is_multiple_of(g.groups),
        "groups must divide the channels: {g:?}"
    );
    assert_eq!(x.len(), g.n * g.in_pixels() * g.c, "size of x: {g:?}");
    assert_eq!(w.len(), g.k * g.taps() * g.group_c(), "size of w: {g:?}");
    assert_eq!(y.len(), g.n * g.out_pixels() * g.k, "size of y: {g:?}");
}
