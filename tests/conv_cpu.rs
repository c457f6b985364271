//! The CPU convolutions against their definition.

use gan::dtype::Real;
use gan::ops::conv::cpu::{forward, grad_w, grad_x};
use gan::ops::conv::geometry::ConvGeometry;
use geometry::{Row, cube, geometry, line, row, square};
use proptest::prelude::*;

#[path = "common/geometry.rs"]
mod geometry;

/// The three sums by their definition, each with the sum of the magnitudes of its terms (what rounding errors are
/// proportional to).
struct Oracle {
    y: Vec<[f64; 2]>,
    dx: Vec<[f64; 2]>,
    dw: Vec<[f64; 2]>,
}

fn oracle(g: &ConvGeometry, x: &[f64], w: &[f64], dy: &[f64]) -> Oracle {
    let mut o =
        Oracle { y: vec![[0.0; 2]; dy.len()], dx: vec![[0.0; 2]; x.len()], dw: vec![[0.0; 2]; w.len()] };
    let add = |sum: &mut [f64; 2], v: f64| {
        sum[0] += v;
        sum[1] += v.abs();
    };
    let (cg, kg) = (g.c / g.groups, g.k / g.groups);
    let [od, oh, ow] = g.output;
    let [id, ih, iw] = g.input;
    let [kd, kh, kw] = g.kernel;
    for n in 0..g.n {
        for (z, y, x_) in grid(od, oh, ow) {
            for (tz, ty, tx) in grid(kd, kh, kw) {
                let at = |o: usize, t: usize, a: usize| {
                    (o * g.stride[a] + t * g.dilation[a]) as i64 - g.padding[a] as i64
                };
                let (sz, sy, sx) = (at(z, tz, 0), at(y, ty, 1), at(x_, tx, 2));
                if sz < 0 || sy < 0 || sx < 0 || sz >= id as i64 || sy >= ih as i64 || sx >= iw as i64 {
                    continue;
                }
                let pixel = ((n * id + sz as usize) * ih + sy as usize) * iw + sx as usize;
                for k in 0..g.k {
                    for c in 0..cg {
                        let i = pixel * g.c + k / kg * cg + c;
                        let j = (((k * kd + tz) * kh + ty) * kw + tx) * cg + c;
                        let l = (((n * od + z) * oh + y) * ow + x_) * g.k + k;
                        add(&mut o.y[l], x[i] * w[j]);
                        add(&mut o.dx[i], dy[l] * w[j]);
                        add(&mut o.dw[j], dy[l] * x[i]);
                    }
                }
            }
        }
    }
    o
}

fn grid(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

/// Numbers in (-1, 1) that single precision holds exactly.
fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 44) as f64 / (1u64 << 19) as f64 - 1.0
        })
        .collect()
}

struct Case {
    g: ConvGeometry,
    x: Vec<f64>,
    w: Vec<f64>,
    dy: Vec<f64>,
}

fn case(g: ConvGeometry) -> Case {
    let taps: usize = g.kernel.iter().product();
    Case {
        x: numbers(g.n * g.input.iter().product::<usize>() * g.c, 1),
        w: numbers(g.k * taps * g.c / g.groups, 2),
        dy: numbers(g.n * g.output.iter().product::<usize>() * g.k, 3),
        g,
    }
}

/// All three results, in buffers full of NaN.
fn run<T: Real>(case: &Case) -> [Vec<T>; 3] {
    let cast = |v: &[f64]| v.iter().map(|&v| T::of(v)).collect::<Vec<_>>();
    let (x, w, dy) = (cast(&case.x), cast(&case.w), cast(&case.dy));
    let [mut y, mut dx, mut dw] = [&dy, &x, &w].map(|v| vec![T::nan(); v.len()]);
    forward(&case.g, &x, &w, &mut y);
    grad_x(&case.g, &dy, &w, &mut dx);
    grad_w(&case.g, &x, &dy, &mut dw);
    [y, dx, dw]
}

/// A sum of `terms` products is off by at most one rounding of the sum of their magnitudes for each of them, in any
/// order of summation. For double precision 1e-12 of that is demanded where it is less.
fn compare<T: Real>(name: &str, g: &ConvGeometry, got: &[T], want: &[[f64; 2]], terms: usize) {
    assert_eq!(got.len(), want.len());
    let rounding = T::epsilon().f64() / 2.0;
    let relative = (terms as f64 * rounding).min(if rounding < 1e-12 { 1e-12 } else { 1.0 });
    for (i, (&got, &[want, magnitude])) in got.iter().zip(want).enumerate() {
        let error = (got.f64() - want).abs();
        let allowed = relative * magnitude;
        assert!(error <= allowed, "{name}[{i}] = {got}, want {want}: error {error:e} > {allowed:e} in {g:?}");
    }
}

fn check(g: ConvGeometry) {
    let case = case(g);
    let want = oracle(&case.g, &case.x, &case.w, &case.dy);
    fn all<T: Real>(case: &Case, want: &Oracle) {
        let g = &case.g;
        let taps: usize = g.kernel.iter().product();
        let pixels = g.n * g.output.iter().product::<usize>();
        let [y, dx, dw] = run::<T>(case);
        compare("y", g, &y, &want.y, taps * g.c / g.groups);
        compare("dx", g, &dx, &want.dx, taps * g.k / g.groups);
        compare("dw", g, &dw, &want.dw, pixels);
    }
    all::<f64>(&case, &want);
    all::<f32>(&case, &want);
}

fn fixed_cases() -> Vec<Row> {
    vec![
        square(2, 3, 5, 4, 1, 1, 0, 1, 1),
        square(2, 3, 6, 5, 3, 1, 1, 1, 1),
        square(1, 4, 5, 4, 3, 1, 0, 1, 1),
        square(2, 3, 8, 6, 4, 2, 1, 1, 1),
        square(1, 5, 6, 3, 4, 1, 1, 1, 1),
        square(2, 6, 2, 5, 4, 2, 1, 1, 1),
        square(3, 4, 4, 1, 4, 1, 0, 1, 1),
        square(1, 2, 9, 3, 7, 1, 0, 1, 1),
        square(1, 1, 7, 3, 7, 1, 3, 1, 1),
        square(2, 3, 7, 4, 3, 2, 1, 1, 1),
        square(1, 3, 8, 4, 3, 2, 1, 1, 1),
        square(1, 3, 7, 3, 3, 1, 2, 2, 1),
        square(1, 2, 11, 3, 3, 2, 3, 3, 1),
        square(1, 2, 10, 3, 3, 3, 0, 1, 1),
        square(1, 2, 11, 3, 3, 2, 2, 2, 1),
        square(1, 2, 13, 3, 4, 4, 3, 2, 1),
        square(1, 2, 13, 3, 3, 2, 3, 4, 1),
        square(1, 2, 9, 3, 2, 3, 0, 1, 1),
        (2, 3, [1, 9, 8], 4, [1, 3, 5], [1, 2, 1], [0, 1, 2], [1, 1, 2], 1),
        square(2, 4, 6, 6, 3, 1, 1, 1, 2),
        square(2, 5, 6, 5, 3, 2, 1, 1, 5),
        square(1, 3, 6, 6, 3, 1, 1, 1, 3),
        square(1, 4, 7, 4, 1, 2, 0, 1, 1),
        square(1, 3, 6, 4, 2, 2, 0, 1, 1),
        square(1, 2, 4, 2, 5, 1, 4, 1, 1),
        square(1, 17, 5, 19, 3, 1, 1, 1, 1),
        square(1, 33, 4, 2, 3, 1, 1, 1, 1),
        (1, 2, [1, 3, 37], 3, [1, 3, 3], [1; 3], [0, 1, 1], [1; 3], 1),
        (1, 2, [1, 35, 2], 3, [1, 3, 3], [1; 3], [0, 1, 1], [1; 3], 1),
        square(5, 1, 6, 2, 4, 2, 1, 1, 1),
        line(2, 3, 9, 4, 3, 1, 1, 1, 1),
        line(2, 3, 10, 4, 4, 2, 1, 1, 1),
        line(1, 4, 12, 4, 5, 1, 4, 2, 2),
        cube(2, 2, 5, 3, 3, 1, 1, 1, 1),
        cube(1, 2, 6, 3, 3, 2, 1, 1, 1),
        cube(1, 4, 4, 2, 1, 1, 0, 1, 1),
        cube(1, 2, 6, 3, 4, 2, 1, 1, 1),
        cube(1, 4, 6, 4, 3, 1, 2, 2, 2),
        (1, 2, [4, 5, 6], 3, [1, 3, 2], [1, 2, 1], [0, 1, 1], [1; 3], 1),
        // Transposed convolutions, as the convolutions whose input gradients they are.
        square(2, 3, 9, 4, 3, 2, 1, 1, 1),
        square(3, 4, 4, 5, 4, 1, 0, 1, 1),
        square(1, 4, 8, 4, 4, 2, 1, 1, 4),
        square(1, 3, 9, 2, 5, 2, 2, 1, 1),
        square(1, 1, 8, 18, 4, 2, 1, 1, 1),
        cube(1, 2, 4, 3, 4, 2, 1, 1, 1),
        // Outputs that see padding only, and a kernel wider than the input.
        square(1, 3, 3, 2, 2, 1, 5, 1, 1),
        square(1, 2, 2, 3, 7, 2, 6, 1, 1),
        square(1, 2, 4, 3, 2, 5, 3, 1, 1),
        // More than one block of every side.
        square(1, 40, 20, 150, 3, 1, 1, 1, 1),
        square(2, 200, 9, 140, 4, 2, 1, 1, 1),
        square(1, 600, 4, 70, 3, 1, 1, 1, 1),
        square(1, 70, 4, 600, 3, 1, 1, 1, 1),
        square(1, 1, 70, 20, 4, 2, 1, 1, 1),
        square(1, 20, 40, 1, 4, 1, 1, 1, 1),
        square(1, 12, 40, 2, 7, 1, 3, 1, 1),
        square(1, 3, 80, 4, 3, 1, 1, 1, 1),
        square(1, 96, 12, 96, 3, 1, 1, 1, 3),
        square(1, 40, 16, 40, 3, 1, 1, 1, 40),
    ]
}

#[test]
fn the_cases_of_the_reference_fixtures() {
    for r in fixed_cases() {
        check(row(r));
    }
}

fn any_geometry() -> impl Strategy<Value = ConvGeometry> {
    let axis = || (1usize..8, 1usize..5, 1usize..4, 0usize..6, 1usize..4);
    (1usize..3, 1usize..4, 1usize..5, 1usize..5, prop::array::uniform3(axis()), 1usize..4).prop_filter_map(
        "no output",
        |(n, groups, c, k, axes, dims)| {
            // Unused axes are trivial.
            let axes = [0, 1, 2].map(|a| if a + dims >= 3 { axes[a] } else { (1, 1, 1, 0, 1) });
            geometry(
                n,
                c * groups,
                axes.map(|a| a.0),
                k * groups,
                axes.map(|a| a.1),
                axes.map(|a| a.2),
                axes.map(|a| a.3),
                axes.map(|a| a.4),
                groups,
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_geometry_follows_the_definition(g in any_geometry()) {
        check(g);
    }

    #[test]
    fn the_three_are_adjoint(g in any_geometry()) {
        let case = case(g);
        let [y, dx, dw] = run::<f64>(&case);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let size: f64 = y.iter().zip(&case.dy).map(|(a, b)| (a * b).abs()).sum::<f64>() + 1.0;
        let form = dot(&y, &case.dy);
        prop_assert!((dot(&dx, &case.x) - form).abs() <= 1e-12 * size);
        prop_assert!((dot(&dw, &case.w) - form).abs() <= 1e-12 * size);
    }
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    for r in fixed_cases() {
        let case = case(row(r));
        let results = [1, 2, 3, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| run::<f32>(&case).map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>()))
        });
        assert!(results.iter().all(|r| *r == results[0]), "{:?}", case.g);
    }
}
