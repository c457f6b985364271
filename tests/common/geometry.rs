//! Geometries of convolutions for tests, from the numbers that people give.

#![allow(dead_code, missing_docs, clippy::too_many_arguments)]

use gan::ops::conv::cuda::launch::Pass;
use gan::ops::conv::geometry::ConvGeometry;
use gan::shape::Shape;

/// Geometry from the parameters users give; `None` where there is no output.
pub fn geometry(
    n: usize,
    c: usize,
    input: [usize; 3],
    k: usize,
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
) -> Option<ConvGeometry> {
    let mut output = [0; 3];
    for a in 0..3 {
        let span = dilation[a] * (kernel[a] - 1) + 1;
        output[a] = (input[a] + 2 * padding[a]).checked_sub(span)? / stride[a] + 1;
    }
    Some(ConvGeometry { n, c, k, groups, input, output, kernel, stride, padding, dilation })
}

/// Extents of x, w and y.
pub fn extents(g: &ConvGeometry) -> [Shape; 3] {
    let tensor = |n: usize, e: [usize; 3], c: usize| Shape::from([n, e[0], e[1], e[2], c]);
    [tensor(g.n, g.input, g.c), tensor(g.k, g.kernel, g.group_c()), tensor(g.n, g.output, g.k)]
}

/// Extents of a pass's two operands and of its result.
pub fn operands(g: &ConvGeometry, pass: Pass) -> [Shape; 3] {
    let [x, w, y] = extents(g);
    match pass {
        Pass::Forward => [x, w, y],
        Pass::GradX => [y, w, x],
        Pass::GradW => [x, y, w],
    }
}

/// `(batch, channels in, size, channels out, kernel, stride, padding, dilation, groups)`.
pub type Row = (usize, usize, [usize; 3], usize, [usize; 3], [usize; 3], [usize; 3], [usize; 3], usize);

pub fn row(r: Row) -> ConvGeometry {
    geometry(r.0, r.1, r.2, r.3, r.4, r.5, r.6, r.7, r.8).expect("a case with an output")
}

/// 2D, all sides equal.
pub fn square(
    n: usize,
    c: usize,
    size: usize,
    k: usize,
    kernel: usize,
    s: usize,
    p: usize,
    d: usize,
    g: usize,
) -> Row {
    (n, c, [1, size, size], k, [1, kernel, kernel], [1, s, s], [0, p, p], [1, d, d], g)
}

/// 3D, all sides equal.
pub fn cube(
    n: usize,
    c: usize,
    size: usize,
    k: usize,
    kernel: usize,
    s: usize,
    p: usize,
    d: usize,
    g: usize,
) -> Row {
    (n, c, [size; 3], k, [kernel; 3], [s; 3], [p; 3], [d; 3], g)
}

/// 1D.
pub fn line(
    n: usize,
    c: usize,
    size: usize,
    k: usize,
    kernel: usize,
    s: usize,
    p: usize,
    d: usize,
    g: usize,
) -> Row {
    (n, c, [1, 1, size], k, [1, 1, kernel], [1, 1, s], [0, 0, p], [1, 1, d], g)
}

/// Calls `f(x index, w index, y index)` for every product of the trilinear form.
pub fn products(g: &ConvGeometry, mut f: impl FnMut(usize, usize, usize)) {
    let (gc, gk) = (g.group_c(), g.group_k());
    for image in 0..g.n {
        for o in 0..g.out_pixels() {
            let oc = [o / (g.output[1] * g.output[2]), o / g.output[2] % g.output[1], o % g.output[2]];
            for t in 0..g.taps() {
                let tc = [t / (g.kernel[1] * g.kernel[2]), t / g.kernel[2] % g.kernel[1], t % g.kernel[2]];
                let at: Option<Vec<usize>> = (0..3).map(|a| g.input_at(a, oc[a], tc[a])).collect();
                let Some(i) = at else { continue };
                let pixel = ((image * g.input[0] + i[0]) * g.input[1] + i[1]) * g.input[2] + i[2];
                for k in 0..g.k {
                    for c in 0..gc {
                        f(
                            pixel * g.c + k / gk * gc + c,
                            (k * g.taps() + t) * gc + c,
                            (image * g.out_pixels() + o) * g.k + k,
                        );
                    }
                }
            }
        }
    }
}
