//! Max pooling and the separable linear maps.

use crate::common::{
    assert_close, buffer, in_every_mode, module, normal, numbers, precision, rounded, unwritten,
};
use gan_emu::{Arg, Buffer, Shape};

#[test]
fn max_pooling_its_gradient_and_the_gradients_derivative() {
    // n, c, input, kernel, stride, padding, dilation
    type Case = (usize, usize, [usize; 3], [usize; 3], [usize; 3], [usize; 3], [usize; 3]);
    let cases: [Case; 5] = [
        (2, 3, [1, 6, 6], [1, 2, 2], [1, 2, 2], [0; 3], [1; 3]),
        (1, 2, [1, 7, 5], [1, 3, 3], [1, 2, 2], [0, 1, 1], [1; 3]),
        (1, 5, [1, 9, 8], [1, 3, 2], [1, 1, 3], [0, 1, 0], [1, 2, 1]),
        (2, 1, [4, 5, 6], [2, 2, 2], [2, 2, 2], [0; 3], [1; 3]),
        (1, 4, [3, 5, 4], [3, 3, 3], [1, 1, 1], [1; 3], [1; 3]),
    ];
    for (i, (n, c, input, kernel, stride, padding, dilation)) in cases.into_iter().enumerate() {
        let kind = if i % 2 == 0 { "float" } else { "bf16" };
        let output: [usize; 3] = std::array::from_fn(|a| {
            (input[a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) / stride[a] + 1
        });
        let (pixels_in, pixels_out): (usize, usize) = (input.iter().product(), output.iter().product());
        let x = normal(1, n * pixels_in * c);
        let dy = normal(2, n * pixels_out * c);
        let v = normal(3, x.len());
        let (rx, rdy, rv) = (rounded(kind, &x), rounded(kind, &dy), rounded(kind, &v));
        let mut place = vec![-1i32; dy.len()];
        let (mut y, mut dx, mut z) = (vec![f64::MIN; dy.len()], vec![0.0; x.len()], vec![0.0; dy.len()]);
        for e in 0..dy.len() {
            let (channel, pixel) = (e % c, e / c % pixels_out);
            let image = e / c / pixels_out;
            let o = [pixel / (output[1] * output[2]), pixel / output[2] % output[1], pixel % output[2]];
            for t in 0..kernel.iter().product() {
                let tap = [t / (kernel[1] * kernel[2]), t / kernel[2] % kernel[1], t % kernel[2]];
                let at: [usize; 3] = std::array::from_fn(|a| {
                    (o[a] * stride[a] + tap[a] * dilation[a]).wrapping_sub(padding[a])
                });
                if (0..3).any(|a| at[a] >= input[a]) {
                    continue;
                }
                let here = (at[0] * input[1] + at[1]) * input[2] + at[2];
                let value = rx[(image * pixels_in + here) * c + channel];
                if value > y[e] {
                    y[e] = value;
                    place[e] = here as i32;
                }
            }
            let source = (image * pixels_in + place[e] as usize) * c + channel;
            dx[source] += rdy[e];
            z[e] = rv[source];
        }
        let axes = [input, output, kernel, stride, padding, dilation];
        let geometry: Vec<i32> =
            [n, c, c, 1].into_iter().chain(axes.into_iter().flatten()).map(|v| v as i32).collect();
        let program = module("pool.cu", &[format!("TYPE={kind}")]);
        let shape = Shape::flat(2, 64);
        in_every_mode(
            &program,
            "max_pool",
            shape,
            || (buffer(kind, &x), unwritten(kind, dy.len()), Buffer::poisoned(4 * dy.len())),
            |(x, y, place)| vec![geometry[..].into(), x.into(), y.into(), place.into()],
            |(_, got, got_place)| {
                assert_close("max_pool", &numbers(kind, got), &y, 0.0);
                assert_eq!(got_place.to_i32(), place);
            },
        );
        for (kernel, source, want) in [("max_pool_scatter", &dy, &dx), ("max_pool_gather", &v, &z)] {
            in_every_mode(
                &program,
                kernel,
                shape,
                || (buffer(kind, source), Buffer::i32(&place), unwritten(kind, want.len())),
                |(source, place, out)| vec![geometry[..].into(), source.into(), place.into(), out.into()],
                |(_, _, out)| assert_close(kernel, &numbers(kind, out), want, precision(kind, 1e-6)),
            );
        }
    }
}

#[test]
fn max_pooling_by_windows_that_tile() {
    // n, c, input, kernel, whether windows that stick out count
    type Case = (usize, usize, [usize; 3], [usize; 3], bool);
    let cases: [Case; 5] = [
        (2, 8, [1, 6, 6], [1, 2, 2], false),
        (1, 16, [1, 5, 7], [1, 2, 2], false),
        (1, 8, [1, 5, 7], [1, 2, 2], true),
        (2, 8, [3, 4, 5], [2, 2, 2], true),
        (1, 3, [2, 7, 4], [2, 3, 1], false),
    ];
    for (n, c, input, kernel, out) in cases {
        for (kind, width) in [("float", 4), ("bf16", 8), ("bf16", 1)] {
            let width = if c % width == 0 { width } else { 1 };
            let output: [usize; 3] =
                std::array::from_fn(
                    |a| {
                        if out { input[a].div_ceil(kernel[a]) } else { input[a] / kernel[a] }
                    },
                );
            let (pixels_in, pixels_out): (usize, usize) = (input.iter().product(), output.iter().product());
            // Few values, so that there are ties; the first NaN of a window wins.
            let few: Vec<f32> = normal(1, n * pixels_in * c).iter().map(|v| v.round()).collect();
            let x: Vec<f32> =
                few.iter().enumerate().map(|(i, &v)| if i % 41 == 7 { f32::NAN } else { v }).collect();
            let dy = normal(2, n * pixels_out * c);
            let rdy = rounded(kind, &dy);
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            for e in 0..dy.len() {
                let (channel, pixel, image) = (e % c, e / c % pixels_out, e / c / pixels_out);
                let o = [pixel / (output[1] * output[2]), pixel / output[2] % output[1], pixel % output[2]];
                let mut best: Option<(f32, usize)> = None;
                for t in 0..kernel.iter().product() {
                    let tap = [t / (kernel[1] * kernel[2]), t / kernel[2] % kernel[1], t % kernel[2]];
                    let at: [usize; 3] = std::array::from_fn(|a| o[a] * kernel[a] + tap[a]);
                    if (0..3).any(|a| at[a] >= input[a]) {
                        continue;
                    }
                    let here = (at[0] * input[1] + at[1]) * input[2] + at[2];
                    let place = (image * pixels_in + here) * c + channel;
                    if best.is_none_or(|(v, _)| x[place] > v || (x[place].is_nan() && !v.is_nan())) {
                        best = Some((x[place], place));
                    }
                }
                let (value, place) = best.expect("a window begins within the input");
                (y[e], dx[place]) = (value, rdy[e]);
            }
            let mut constants = vec![format!("TYPE={kind}"), format!("WIDTH={width}")];
            constants.extend(["D", "H", "W"].iter().zip(kernel).map(|(a, k)| format!("KERNEL_{a}={k}")));
            let program = module("pool_tiles.cu", &constants);
            let extents: Vec<i32> =
                [n, c / width].into_iter().chain(input).chain(output).map(|v| v as i32).collect();
            // Fewer blocks than rows.
            let shape = Shape { grid: [3, 2, 1], ..Shape::flat(1, 64) };
            in_every_mode(
                &program,
                "tile_max",
                shape,
                || (buffer(kind, &x), unwritten(kind, dy.len())),
                |(x, y)| vec![extents[..].into(), x.into(), y.into()],
                |(_, got)| {
                    for (got, want) in numbers(kind, got).iter().zip(&y) {
                        assert!(got == want || (got.is_nan() && want.is_nan()), "{got} for {want}");
                    }
                },
            );
            in_every_mode(
                &program,
                "tile_max_scatter",
                shape,
                || (buffer(kind, &x), buffer(kind, &dy), unwritten(kind, dx.len())),
                |(x, dy, dx)| vec![extents[..].into(), x.into(), dy.into(), dx.into()],
                |(_, _, got)| assert_close("tile_max_scatter", &numbers(kind, got), &dx, 0.0),
            );
        }
    }
}

/// One axis of a separable map: for each result coordinate its (source coordinate, weight) pairs.
type Rows = Vec<Vec<(usize, f32)>>;

fn identity(n: usize) -> Rows {
    (0..n).map(|i| vec![(i, 1.0)]).collect()
}

fn average(n: usize, kernel: usize, stride: usize) -> Rows {
    (0..(n - kernel) / stride + 1)
        .map(|o| (0..kernel).map(|t| (o * stride + t, 1.0 / kernel as f32)).collect())
        .collect()
}

/// Linear interpolation to `m` points, pixel centres aligned.
fn linear(n: usize, m: usize) -> Rows {
    (0..m)
        .map(|o| {
            let at = ((o as f32 + 0.5) * n as f32 / m as f32 - 0.5).max(0.0);
            let low = at as usize;
            let high = (low + 1).min(n - 1);
            let share = at - low as f32;
            if high == low { vec![(low, 1.0)] } else { vec![(low, 1.0 - share), (high, share)] }
        })
        .collect()
}

fn reflect(n: usize, pad: usize) -> Rows {
    (0..n + 2 * pad)
        .map(|o| {
            let i = (o as i64 - pad as i64).abs();
            vec![(if i >= n as i64 { 2 * (n as i64 - 1) - i } else { i } as usize, 1.0)]
        })
        .collect()
}

fn zeros_around(n: usize, before: usize, behind: usize) -> Rows {
    (0..before + n + behind)
        .map(|o| if o < before || o >= before + n { vec![] } else { vec![(o - before, 1.0)] })
        .collect()
}

fn transposed(rows: &Rows, n: usize) -> Rows {
    let mut t = vec![Vec::new(); n];
    for (o, row) in rows.iter().enumerate() {
        row.iter().for_each(|&(i, w)| t[i].push((o, w)));
    }
    t
}

#[test]
fn separable_maps_and_their_adjoints() {
    let (n, c) = (2usize, 3usize);
    let cases: Vec<([usize; 3], [Rows; 3])> = vec![
        ([1, 8, 6], [identity(1), average(8, 2, 2), average(6, 3, 1)]),
        ([2, 5, 4], [linear(2, 4), linear(5, 7), linear(4, 3)]),
        ([1, 5, 6], [identity(1), reflect(5, 3), reflect(6, 2)]),
        ([3, 4, 4], [zeros_around(3, 1, 0), zeros_around(4, 0, 2), zeros_around(4, 2, 2)]),
    ];
    for (i, (extents, rows)) in cases.into_iter().enumerate() {
        let there: [usize; 3] = std::array::from_fn(|a| rows[a].len());
        let back: [Rows; 3] = std::array::from_fn(|a| transposed(&rows[a], extents[a]));
        for (input, output, rows) in [(extents, there, &rows), (there, extents, &back)] {
            let kind = if i % 2 == 0 { "float" } else { "bf16" };
            let x = normal(1, n * c * input.iter().product::<usize>());
            let rx = rounded(kind, &x);
            let mut want = Vec::new();
            for image in 0..n {
                for d in &rows[0] {
                    for h in &rows[1] {
                        for w in &rows[2] {
                            for channel in 0..c {
                                let mut sum = 0.0;
                                for &(i, wi) in d {
                                    for &(j, wj) in h {
                                        for &(k, wk) in w {
                                            let pixel =
                                                ((image * input[0] + i) * input[1] + j) * input[2] + k;
                                            sum += f64::from(wi)
                                                * f64::from(wj)
                                                * f64::from(wk)
                                                * rx[pixel * c + channel];
                                        }
                                    }
                                }
                                want.push(sum);
                            }
                        }
                    }
                }
            }
            let tables = || -> Vec<Buffer> {
                rows.iter()
                    .flat_map(|rows| {
                        let mut start = vec![0i32];
                        rows.iter().for_each(|r| start.push(start.last().unwrap() + r.len() as i32));
                        let entries: Vec<(usize, f32)> = rows.concat();
                        [
                            Buffer::i32(&start),
                            Buffer::i32(&entries.iter().map(|e| e.0 as i32).collect::<Vec<_>>()),
                            Buffer::f32(&entries.iter().map(|e| e.1).collect::<Vec<_>>()),
                        ]
                    })
                    .collect()
            };
            let shape: Vec<i32> = [n, c].into_iter().chain(input).chain(output).map(|v| v as i32).collect();
            in_every_mode(
                &module("resample.cu", &[format!("IN={kind}"), format!("OUT={kind}")]),
                "resample",
                Shape::flat(2, 128),
                || (buffer(kind, &x), unwritten(kind, want.len()), tables()),
                |(x, y, tables)| {
                    let mut args: Vec<Arg> = vec![shape[..].into(), x.into(), y.into()];
                    args.extend(tables.iter().map(Arg::from));
                    args
                },
                |(_, y, _)| assert_close("resample", &numbers(kind, y), &want, precision(kind, 1e-6)),
            );
        }
    }
}
