//! Reductions, normalisation and softmax.

use crate::common::{
    assert_close, buffer, in_every_mode, module, normal, numbers, precision, rounded, unwritten,
};
use gan_emu::{Arg, Buffer, Mode, Shape};

#[test]
fn sums_and_maxima_over_any_axes() {
    // a [n, m, l] reduced over m (kept contiguous), over n and l (reduced contiguous), over everything.
    let (n, m, l) = (6usize, 45usize, 10usize);
    let (a, b) = (normal(1, n * m * l), normal(2, n * m * l));
    let element = |i: usize, j: usize, k: usize| {
        let e = (i * m + j) * l + k;
        (f64::from(a[e]) - f64::from(b[e])).abs()
    };
    let strides = [m * l, l, 1];
    let extents = [n, m, l];
    for (keep, lanes) in [(vec![0, 2], 32), (vec![0, 2], 8), (vec![1], 1), (vec![1], 4), (vec![], 1)] {
        for maximum in [false, true] {
            for slices in [1usize, 4] {
                let reduce: Vec<usize> = (0..3).filter(|x| !keep.contains(x)).collect();
                let layout = |axes: &[usize]| -> Vec<i32> {
                    let axes = if axes.is_empty() {
                        vec![(1, 0)]
                    } else {
                        axes.iter().map(|&x| (extents[x], strides[x])).collect()
                    };
                    let strides = || axes.iter().map(|x| x.1 as i32);
                    axes.iter().map(|x| x.0 as i32).chain(strides()).chain(strides()).collect()
                };
                let (kept, reduced) = (layout(&keep), layout(&reduce));
                let results: usize = keep.iter().map(|&x| extents[x]).product();
                let count = n * m * l / results;
                let mut want = vec![0.0f64; results];
                for i in 0..n {
                    for j in 0..m {
                        for k in 0..l {
                            let at = keep.iter().fold(0, |at, &x| at * extents[x] + [i, j, k][x]);
                            let v = element(i, j, k);
                            want[at] = if maximum { want[at].max(v) } else { want[at] + v };
                        }
                    }
                }
                let scale = if maximum { 1.0 } else { 0.25f32 };
                want.iter_mut().for_each(|v| *v *= f64::from(scale));
                let program = |kept: usize, reduced: usize, inputs: usize, expression: &str| {
                    module(
                        "reduce.cu",
                        &[
                            "OUT=float".to_string(),
                            format!("KEPT_RANK={kept}"),
                            format!("REDUCED_RANK={reduced}"),
                            format!("MAXIMUM={}", u8::from(maximum)),
                            format!("LANES={lanes}"),
                            format!("INPUTS={inputs}"),
                            format!("EXPRESSION={expression}"),
                        ],
                    )
                };
                let first = program(kept.len() / 3, reduced.len() / 3, 2, "fabsf(a - b)");
                let tiles = results.div_ceil(lanes) as u32;
                for mode in Mode::all() {
                    let (va, vb, out) = (Buffer::f32(&a), Buffer::f32(&b), Buffer::poisoned(4 * results));
                    let partial = Buffer::poisoned(4 * results * slices);
                    let counters = Buffer::i32(&vec![0; tiles as usize]);
                    let args: Vec<Arg> = vec![
                        kept[..].into(),
                        reduced[..].into(),
                        (results as i32).into(),
                        (count as i64).into(),
                        (slices as i32).into(),
                        scale.into(),
                        (&out).into(),
                        (&partial).into(),
                        (&va).into(),
                        (&vb).into(),
                        Arg::Null,
                        Arg::Null,
                        Arg::Null,
                        Arg::Null,
                        Arg::Null,
                        (&counters).into(),
                    ];
                    let shape = Shape { grid: [tiles, slices as u32, 1], threads: 256, shared: 0 };
                    first.launch("reduce", shape, &args, mode).unwrap_or_else(|e| panic!("{e}"));
                    assert_close(
                        &format!("{keep:?} {maximum} x{slices} {mode:?}"),
                        &out.to_f32(),
                        &want,
                        1e-6,
                    );
                }
            }
        }
    }
}

/// Statistics, output and gradients of a normalisation, in double precision.
struct Norm {
    y: Vec<f64>,
    dx: Vec<f64>,
    dgamma: Vec<f64>,
    dbeta: Vec<f64>,
    mean: Vec<f64>,
    variance: Vec<f64>,
}

fn norm_oracle(shape: [usize; 4], eps: f64, x: &[f64], dy: &[f64], gamma: &[f64], beta: &[f64]) -> Norm {
    let [outer, inner, channels, group] = shape;
    let blocks = channels / group;
    let set_of = |e: usize| e / (inner * channels) * blocks + e % channels / group;
    let size = (inner * group) as f64;
    let per_set = |f: &dyn Fn(usize) -> f64| {
        let mut v = vec![0.0; outer * blocks];
        (0..x.len()).for_each(|e| v[set_of(e)] += f(e) / size);
        v
    };
    let mean = per_set(&|e| x[e]);
    let variance = per_set(&|e| (x[e] - mean[set_of(e)]).powi(2));
    let rstd = |e: usize| 1.0 / (variance[set_of(e)] + eps).sqrt();
    let hat = |e: usize| (x[e] - mean[set_of(e)]) * rstd(e);
    let g = |e: usize| dy[e] * gamma[e % channels];
    let (m1, m2) = (per_set(&g), per_set(&|e| g(e) * hat(e)));
    let mut dgamma = vec![0.0; channels];
    let mut dbeta = vec![0.0; channels];
    for e in 0..x.len() {
        dgamma[e % channels] += dy[e] * hat(e);
        dbeta[e % channels] += dy[e];
    }
    let y = (0..x.len()).map(|e| hat(e) * gamma[e % channels] + beta[e % channels]).collect();
    let dx = (0..x.len()).map(|e| rstd(e) * (g(e) - m1[set_of(e)] - hat(e) * m2[set_of(e)])).collect();
    Norm { y, dx, dgamma, dbeta, mean, variance }
}

#[test]
fn every_kind_of_norm() {
    let eps = 1e-5f32;
    // outer, inner, channels, channels of a set; then lanes, slices, element type.
    let cases = [
        ("batch", [1usize, 50, 5, 1], 4, 3usize, "float"),
        ("batch", [1, 200, 33, 1], 32, 2, "bf16"),
        ("instance", [3, 49, 6, 1], 8, 1, "float"),
        ("instance of one pixel", [2, 1, 4, 1], 4, 2, "float"),
        ("group", [2, 30, 12, 4], 16, 4, "float"),
        ("layer", [2, 25, 7, 7], 8, 2, "float"),
        ("layer of rows", [9, 1, 70, 70], 32, 1, "float"),
    ];
    for (name, shape, lanes, slices, kind) in cases {
        for affine in [true, false] {
            let [outer, inner, channels, group] = shape;
            let (sets, count) = (outer * channels / group, outer * inner * channels);
            let x: Vec<f32> = normal(1, count).iter().map(|v| 3.0 + 2.0 * v).collect();
            let dy = normal(2, count);
            let (gamma, beta) = if affine {
                (normal(3, channels), normal(4, channels))
            } else {
                (vec![1.0; channels], vec![0.0; channels])
            };
            let double = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            let want = norm_oracle(
                shape,
                f64::from(eps),
                &rounded(kind, &x),
                &rounded(kind, &dy),
                &double(&gamma),
                &double(&beta),
            );
            let m =
                module("norm.cu", &[format!("IN={kind}"), format!("OUT={kind}"), format!("LANES={lanes}")]);
            for mode in Mode::all() {
                let ints = shape.map(|v| v as i32);
                let s = || Arg::from(&ints[..]);
                let (vx, vdy) = (buffer(kind, &x), buffer(kind, &dy));
                let (y, dx) = (unwritten(kind, count), unwritten(kind, count));
                let partial = Buffer::poisoned(12 * slices * outer * channels);
                let counters = Buffer::i32(&vec![0; outer * channels.div_ceil(lanes)]);
                let (stats, averages) = (Buffer::poisoned(8 * sets), Buffer::poisoned(8 * sets));
                let (vgamma, vbeta) = (Buffer::f32(&gamma), Buffer::f32(&beta));
                let if_affine = |v| if affine { Arg::from(v) } else { Arg::Null };
                let sums = Buffer::poisoned(8 * outer * channels);
                let n = || Arg::from(slices as i32);
                let launch = |kernel: &str, grid: [usize; 3], args: Vec<Arg>| {
                    let shape = Shape { grid: grid.map(|v| v as u32), threads: 256, shared: 0 };
                    m.launch(kernel, shape, &args, mode).unwrap_or_else(|e| panic!("{e}"));
                };
                let tiles = [outer, channels.div_ceil(lanes), slices];
                let warps = [(32 * sets).div_ceil(256), 1, 1];
                // Sets of single channels need no second launch.
                let whole = if group == 1 { (&stats).into() } else { Arg::Null };
                let given = vec![s(), n(), (&vx).into(), (&partial).into(), whole, (&counters).into()];
                launch("norm_stats", tiles, given);
                if group > 1 {
                    launch("norm_finish", warps, vec![s(), n(), (&partial).into(), (&stats).into()]);
                }
                launch(
                    "norm_apply",
                    [2, 1, 1],
                    vec![
                        s(),
                        eps.into(),
                        (&vx).into(),
                        (&stats).into(),
                        if_affine(&vgamma),
                        if_affine(&vbeta),
                        (&y).into(),
                    ],
                );
                let mut args = vec![s(), n(), eps.into(), (&vx).into(), (&vdy).into()];
                args.extend([(channels as i32).into(), (&stats).into()]);
                args.extend([(&partial).into(), (&sums).into(), (&counters).into()]);
                launch("norm_grad_sums", tiles, args);
                assert!(counters.to_i32().iter().all(|c| *c == 0), "counters are left as they were");
                if group > 1 {
                    let args = vec![s(), 1i32.into(), (&sums).into(), if_affine(&vgamma), (&averages).into()];
                    launch("norm_averages", warps, args);
                }
                launch(
                    "norm_grad_apply",
                    [2, 1, 1],
                    vec![
                        s(),
                        eps.into(),
                        (&vx).into(),
                        (&vdy).into(),
                        (channels as i32).into(),
                        (&stats).into(),
                        (&sums).into(),
                        if group > 1 { (&averages).into() } else { Arg::Null },
                        if_affine(&vgamma),
                        (&dx).into(),
                    ],
                );
                let what = format!("{name} {shape:?} affine {affine} {mode:?}");
                // A set of one element has variance 0: its hat is 0 up to rounding, times 1 / sqrt(eps).
                let loose = if inner * group == 1 { 1e-3 } else { 4e-6 };
                assert_close(&format!("y {what}"), &numbers(kind, &y), &want.y, precision(kind, loose));
                if inner * group > 1 {
                    assert_close(&format!("dx {what}"), &numbers(kind, &dx), &want.dx, precision(kind, 4e-6));
                }
                let sums = sums.to_f32();
                let over_outer = |from: usize| -> Vec<f32> {
                    (0..channels).map(|c| (0..outer).map(|o| sums[from + o * channels + c]).sum()).collect()
                };
                assert_close(&format!("dgamma {what}"), &over_outer(0), &want.dgamma, loose);
                assert_close(&format!("dbeta {what}"), &over_outer(outer * channels), &want.dbeta, 4e-6);
                let (mean, variance) = (&stats.to_f32()[..sets], &stats.to_f32()[sets..]);
                assert_close(&format!("mean {what}"), mean, &want.mean, 2e-6);
                assert_close(&format!("variance {what}"), variance, &want.variance, 2e-6);
            }
        }
    }
}

#[test]
fn softmax_and_its_logarithm() {
    for (rows, columns, lanes, kind) in
        [(37usize, 3usize, 4usize, "float"), (5, 100, 32, "float"), (9, 1, 1, "float"), (20, 10, 16, "bf16")]
    {
        for log in [false, true] {
            let x: Vec<f32> = normal(1, rows * columns).iter().map(|v| v * 3.0).collect();
            let dy = normal(2, rows * columns);
            let (rx, rdy) = (rounded(kind, &x), rounded(kind, &dy));
            let mut want = vec![0.0; rx.len()];
            for r in 0..rows {
                let row = &rx[r * columns..(r + 1) * columns];
                let top = row.iter().fold(f64::MIN, |m, &v| m.max(v));
                let sum: f64 = row.iter().map(|v| (v - top).exp()).sum();
                for c in 0..columns {
                    let v = row[c] - top - sum.ln();
                    want[r * columns + c] = if log { v } else { v.exp() };
                }
            }
            let program = module(
                "softmax.cu",
                &[format!("TYPE={kind}"), format!("LOG={}", u8::from(log)), format!("LANES={lanes}")],
            );
            let shape = Shape::flat((rows * lanes).div_ceil(256), 256);
            in_every_mode(
                &program,
                "softmax",
                shape,
                || (buffer(kind, &x), unwritten(kind, x.len())),
                |(x, y)| vec![(rows as i32).into(), (columns as i32).into(), 1.into(), x.into(), y.into()],
                |(_, y)| assert_close("softmax", &numbers(kind, y), &want, precision(kind, 2e-6)),
            );
            let y32: Vec<f32> = want.iter().map(|&v| v as f32).collect();
            let ry = rounded(kind, &y32);
            let mut want_dx = vec![0.0; rx.len()];
            for r in 0..rows {
                let at = r * columns..(r + 1) * columns;
                let sum: f64 = at.clone().map(|e| if log { rdy[e] } else { ry[e] * rdy[e] }).sum();
                for e in at {
                    want_dx[e] = if log { rdy[e] - ry[e].exp() * sum } else { ry[e] * (rdy[e] - sum) };
                }
            }
            in_every_mode(
                &program,
                "softmax_grad",
                shape,
                || (buffer(kind, &y32), buffer(kind, &dy), unwritten(kind, x.len())),
                |(y, dy, dx)| {
                    vec![
                        (rows as i32).into(),
                        (columns as i32).into(),
                        1.into(),
                        y.into(),
                        dy.into(),
                        dx.into(),
                    ]
                },
                |(_, _, dx)| {
                    assert_close("softmax_grad", &numbers(kind, dx), &want_dx, precision(kind, 2e-6))
                },
            );
        }
    }
}

#[test]
fn a_critic_s_loss_and_gradient() {
    // Patches of one channel and of three, in more elements than a block has threads, in one slice and in several.
    for (count, channels, slices, kind) in
        [(5usize, 1usize, 1usize, "float"), (900, 1, 7, "float"), (1203, 3, 2, "bf16")]
    {
        let (partial, bias) = (normal(1, slices * count), normal(2, channels));
        let v: Vec<f64> = (0..count)
            .map(|i| {
                (0..slices).map(|s| f64::from(partial[s * count + i])).sum::<f64>()
                    + f64::from(bias[i % channels])
            })
            .collect();
        for kept in [false, true] {
            let program = module(
                "conv_loss.cu",
                &[
                    format!("OUT={kind}"),
                    format!("PREDICTION_TYPE={kind}"),
                    format!("PREDICTION={}", u8::from(kept)),
                    "BIAS=1".into(),
                    "ACTIVATION(v)=(v - 1.0f)".into(),
                    "LOSS(v)=square(v)".into(),
                    "GRADIENT(v)=(v * 2.0f)".into(),
                ],
            );
            in_every_mode(
                &program,
                "conv_loss",
                Shape::flat(1, 512),
                || {
                    let [gradient, prediction] = [0, 1].map(|_| unwritten(kind, count));
                    (Buffer::f32(&partial), Buffer::f32(&bias), gradient, prediction, Buffer::poisoned(4))
                },
                |(partial, bias, gradient, prediction, loss)| {
                    vec![
                        partial.into(),
                        bias.into(),
                        gradient.into(),
                        prediction.into(),
                        loss.into(),
                        (count as i32).into(),
                        (slices as i32).into(),
                        (channels as i32).into(),
                        0.25f32.into(),
                    ]
                },
                |(_, _, gradient, prediction, loss)| {
                    let off: Vec<f64> = v.iter().map(|v| v - 1.0).collect();
                    let slope: Vec<f64> = off.iter().map(|v| 2.0 * v).collect();
                    assert_close("gradient", &numbers(kind, gradient), &slope, precision(kind, 2e-6));
                    if kept {
                        assert_close("prediction", &numbers(kind, prediction), &off, precision(kind, 2e-6));
                    } else {
                        assert!(numbers(kind, prediction).iter().all(|v| v.is_nan()), "nobody asked for it");
                    }
                    let total = 0.25 * off.iter().map(|v| v * v).sum::<f64>();
                    assert_close("loss", &loss.to_f32(), &[total], 2e-6);
                },
            );
        }
    }
}
