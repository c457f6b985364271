//! Pointwise expressions, dropout, the optimisers and the transpose.

use crate::common::{
    assert_close, buffer, in_every_mode, module, normal, numbers, precision, rounded, unwritten,
};
use gan::rng::{philox4x32, unit_f32};
use gan_emu::{Arg, Buffer, Shape};

#[test]
fn strided_expressions() {
    // out[i, j, k] = leaky_relu(a[i, j, k] * b[k] + c[i]) * s[0], a permuted, out with gaps.
    let (n, m, l) = (3usize, 5usize, 7usize);
    for kind in ["float", "bf16"] {
        let (a, b, c, s) = (normal(1, n * m * l), normal(2, l), normal(3, n), [1.5f32]);
        let (ra, rb) = (rounded(kind, &a), rounded(kind, &b));
        let program = module(
            "pointwise.cu",
            &[
                format!("OUT={kind}"),
                "RANK=3".into(),
                "INPUTS=3".into(),
                format!("IN_A={kind}"),
                format!("IN_B={kind}"),
                "EXPRESSION=leaky_relu(a * b + c, 0.2f) * s[0]".into(),
            ],
        );
        // a is stored [l, n, m]; out as [n, m, l] in rows of l + 2.
        let layout = [n, m, l, m * (l + 2), l + 2, 1, m, 1, n * m, 0, 0, 1, 1, 0, 0].map(|v| v as i32);
        in_every_mode(
            &program,
            "pointwise",
            Shape::flat(2, 256),
            || {
                (
                    unwritten(kind, n * m * (l + 2) - 2),
                    buffer(kind, &a),
                    buffer(kind, &b),
                    Buffer::f32(&c),
                    Buffer::f32(&s),
                )
            },
            |(out, a, b, c, s)| {
                vec![
                    layout[..].into(),
                    ((n * m * l) as i64).into(),
                    out.into(),
                    a.into(),
                    b.into(),
                    c.into(),
                    Arg::Null,
                    s.into(),
                ]
            },
            |(out, ..)| {
                let got = numbers(kind, out);
                for i in 0..n {
                    for j in 0..m {
                        let at = (i * m + j) * (l + 2);
                        let want: Vec<f64> = (0..l)
                            .map(|k| {
                                let v = ra[k * n * m + i * m + j] * rb[k] + f64::from(c[i]);
                                1.5 * if v > 0.0 { v } else { v * f64::from(0.2f32) }
                            })
                            .collect();
                        assert_close("strided", &got[at..at + l], &want, precision(kind, 1e-6));
                        if at + l < got.len() {
                            assert!(
                                got[at + l].is_nan() && got[at + l + 1].is_nan(),
                                "wrote between the rows"
                            );
                        }
                    }
                }
            },
        );
    }
}

#[test]
fn dense_expressions_and_the_functions_they_use() {
    type Function = fn(f64) -> f64;
    let functions: [(&str, Function); 8] = [
        ("sigmoid(a)", |v| 1.0 / (1.0 + (-v).exp())),
        ("softplus(a)", |v| v.max(0.0) + (-v.abs()).exp().ln_1p()),
        ("silu(a)", |v| v / (1.0 + (-v).exp())),
        ("tanhf(a)", f64::tanh),
        ("sign(a) * square(a)", |v| v * v.abs()),
        ("relu(a)", |v| v.max(0.0)),
        ("select(a > 1, a, -a)", |v| if v > 1.0 { v } else { -v }),
        ("gelu(a) - gelu(-a)", |v| v), // gelu(v) = v Phi(v), and Phi(v) + Phi(-v) = 1
    ];
    for (expression, f) in functions {
        for (count, kind) in [(1usize, "float"), (1026, "float"), (515, "bf16")] {
            let a: Vec<f32> = normal(1, count).iter().map(|v| v * 9.0).collect();
            let want: Vec<f64> = rounded(kind, &a).into_iter().map(f).collect();
            let program = module(
                "pointwise.cu",
                &[
                    format!("OUT={kind}"),
                    "RANK=1".into(),
                    "INPUTS=1".into(),
                    format!("IN_A={kind}"),
                    format!("EXPRESSION={expression}"),
                ],
            );
            in_every_mode(
                &program,
                "pointwise_dense",
                Shape::flat(2, 64),
                || (unwritten(kind, count), buffer(kind, &a)),
                |(out, a)| {
                    vec![
                        (count as i64).into(),
                        out.into(),
                        a.into(),
                        Arg::Null,
                        Arg::Null,
                        Arg::Null,
                        Arg::Null,
                    ]
                },
                |(out, _)| assert_close(expression, &numbers(kind, out), &want, precision(kind, 1e-6)),
            );
        }
    }
}

#[test]
fn dropout_draws_the_numbers_of_the_cpu() {
    let (p, seed, stream, step) = (0.3f32, 0x1234_5678_9abc_def0u64, 7u32, 41u32);
    for (count, kind) in [(1usize, "float"), (1023, "float"), (514, "bf16")] {
        let x = normal(5, count);
        let scale = 1.0 / (1.0 - p);
        let rx = rounded(kind, &x);
        let want: Vec<f64> = (0..count)
            .map(|e| {
                let block = (e / 4) as u64;
                let counter = [block as u32, (block >> 32) as u32, stream, step];
                let word = philox4x32(counter, [seed as u32, (seed >> 32) as u32])[e % 4];
                if unit_f32(word) >= p { rx[e] * f64::from(scale) } else { 0.0 }
            })
            .collect();
        in_every_mode(
            &module("dropout.cu", &[format!("TYPE={kind}")]),
            "dropout",
            Shape::flat(2, 64),
            || (Buffer::i32(&[step as i32]), buffer(kind, &x), unwritten(kind, count)),
            |(step, x, y)| {
                let (low, high) = (seed as u32, (seed >> 32) as u32);
                vec![
                    (count as i64).into(),
                    p.into(),
                    scale.into(),
                    low.into(),
                    high.into(),
                    stream.into(),
                    step.into(),
                    x.into(),
                    y.into(),
                ]
            },
            |(_, _, y)| assert_close("dropout", &numbers(kind, y), &want, precision(kind, 1e-6)),
        );
    }
}

/// One step of a rule for one parameter, in double precision: weight, first and second moment.
fn step_of(
    rule: &str,
    nesterov: bool,
    momentum: f64,
    decay: f64,
    t: i32,
    state: [f64; 3],
    gradient: f64,
) -> [f64; 3] {
    let (lr, beta1, beta2, eps) = (f64::from(0.01f32), 0.9, 0.999, f64::from(1e-8f32));
    let [mut p, mut first, mut second] = state;
    let mut g = gradient;
    if rule == "ADAMW" {
        p -= lr * decay * p
    } else {
        g += decay * p
    }
    match rule {
        "SGD" => {
            first = momentum * first + g;
            p -= lr * if nesterov { g + momentum * first } else { first };
        }
        "RMSPROP" => {
            second = beta2 * second + (1.0 - beta2) * g * g;
            first = momentum * first + g / (second.sqrt() + eps);
            p -= lr * first;
        }
        _ => {
            first = beta1 * first + (1.0 - beta1) * g;
            second = beta2 * second + (1.0 - beta2) * g * g;
            let (c1, c2) = (1.0 - f64::powi(beta1, t), 1.0 - f64::powi(beta2, t));
            p -= lr / c1 * first / ((second / c2).sqrt() + eps);
        }
    }
    [p, first, second]
}

#[test]
fn optimisers_over_flat_buffers() {
    let count = 300;
    let rules = [
        ("SGD", 0, 0.0),
        ("SGD", 0, 0.9),
        ("SGD", 1, 0.9),
        ("RMSPROP", 0, 0.0),
        ("RMSPROP", 0, 0.5),
        ("ADAM", 0, 0.0),
        ("ADAMW", 0, 0.0),
    ];
    for (rule, nesterov, momentum) in rules {
        for decay in [0.0f32, 0.01] {
            let shadowed = decay > 0.0;
            let program = module(
                "optim.cu",
                &[
                    format!("RULE={rule}"),
                    format!("NESTEROV={nesterov}"),
                    format!("SHADOW={}", u8::from(shadowed)),
                    format!("ZERO_GRADIENT={}", u8::from(shadowed)),
                ],
            );
            let mut settings = Vec::new();
            [0.9f64, 0.999].iter().for_each(|v| settings.extend(v.to_ne_bytes()));
            [1e-8f32, decay, momentum].iter().for_each(|v| settings.extend(v.to_ne_bytes()));
            settings.extend([0; 4]);
            for mode in gan_emu::Mode::all() {
                let weight = normal(1, count);
                let mut want: Vec<[f64; 3]> = weight.iter().map(|&w| [f64::from(w), 0.0, 0.0]).collect();
                let used_first = rule.starts_with("ADAM") || momentum != 0.0;
                let (w, first, second) =
                    (Buffer::f32(&weight), Buffer::f32(&vec![0.0; count]), Buffer::f32(&vec![0.0; count]));
                let shadow = Buffer::poisoned(2 * count);
                let (lr, scale) = (Buffer::f32(&[0.01]), Buffer::f32(&[0.5]));
                for t in 1..=3 {
                    let gradient = normal(10 + t as u64, count);
                    let (step, grad) = (Buffer::i32(&[t]), Buffer::f32(&gradient));
                    let args: Vec<Arg> = vec![
                        Arg::Value(settings.clone()),
                        (count as i64).into(),
                        (&lr).into(),
                        (&step).into(),
                        (&scale).into(),
                        (&w).into(),
                        (&grad).into(),
                        if used_first { (&first).into() } else { Arg::Null },
                        if rule == "SGD" { Arg::Null } else { (&second).into() },
                        if shadowed { (&shadow).into() } else { Arg::Null },
                    ];
                    program
                        .launch("optimise", Shape::flat(1, 256), &args, mode)
                        .unwrap_or_else(|e| panic!("{e}"));
                    for (state, &g) in want.iter_mut().zip(&gradient) {
                        *state = step_of(
                            rule,
                            nesterov == 1,
                            f64::from(momentum),
                            f64::from(decay),
                            t,
                            *state,
                            0.5 * f64::from(g),
                        );
                    }
                    let expected = if shadowed {
                        vec![0.0; count]
                    } else {
                        gradient.iter().map(|&g| f64::from(g)).collect()
                    };
                    assert_close("gradient", &grad.to_f32(), &expected, 0.0);
                }
                let p: Vec<f64> = want.iter().map(|s| s[0]).collect();
                assert_close(&format!("{rule} {decay}"), &w.to_f32(), &p, 2e-6);
                if shadowed {
                    assert_eq!(
                        shadow.to_bf16(),
                        w.to_f32().iter().map(|&v| gan_emu::bf16_round(v)).collect::<Vec<_>>()
                    );
                }
            }
        }
    }
}

#[test]
fn transposes() {
    for (batch, rows, columns, to) in
        [(2usize, 3usize, 50usize, "bf16"), (1, 64, 32, "float"), (3, 33, 1, "float")]
    {
        let x = normal(1, batch * rows * columns);
        let rx = rounded(to, &x);
        let mut want = vec![0.0; x.len()];
        for b in 0..batch {
            for r in 0..rows {
                for c in 0..columns {
                    want[(b * columns + c) * rows + r] = rx[(b * rows + r) * columns + c];
                }
            }
        }
        in_every_mode(
            &module("transpose.cu", &["IN=float".to_string(), format!("OUT={to}")]),
            "transpose",
            Shape {
                grid: [columns.div_ceil(32) as u32, rows.div_ceil(32) as u32, batch as u32],
                threads: 256,
                shared: 0,
            },
            || (Buffer::f32(&x), unwritten(to, x.len())),
            |(x, y)| vec![(rows as i32).into(), (columns as i32).into(), x.into(), y.into()],
            |(_, y)| assert_close("transpose", &numbers(to, y), &want, 0.0),
        );
    }
}
