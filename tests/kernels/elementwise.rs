//! Pointwise expressions, dropout and the optimisers.

use crate::common::{
    assert_close, buffer, in_every_mode, module, normal, numbers, precision, rounded, unwritten,
};
use gan::rng::{philox4x32, step_input, unit_f32};
use gan_emu::{Arg, Buffer, Shape};

/// What decides on dropout, where there is none.
const NO_MASK: [i32; 5] = [0; 5];

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
                    Arg::Null,
                    Arg::Null,
                    s.into(),
                    0f32.into(),
                    0f32.into(),
                    NO_MASK[..].into(),
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

/// The halves of a concatenation by one launch: a [6, 4] and the mapped b [6, 8] side by side, one of the two dropped.
#[test]
fn two_expressions_in_one_launch() {
    let (seed, stream, step) = (0x1234_5678_9abc_def0u64, 7u32, (5 << 24) + 41u32);
    let (a, b, c) = (normal(1, 24), normal(2, 48), normal(3, 8));
    for (kind, width) in [("float", 1usize), ("float", 4), ("bf16", 4)] {
        for drops in [1, 2] {
            let dropped = |e: usize, v: f64| {
                let block = (e / 4) as u64;
                let counter = [block as u32, (block >> 32) as u32, stream, step];
                let word = philox4x32(counter, [seed as u32, (seed >> 32) as u32])[e % 4];
                if word >> 8 >= 1 << 23 { 2.0 * v } else { 0.0 }
            };
            let (ra, rb) = (rounded(kind, &a), rounded(kind, &b));
            let first = |e: usize| if drops == 1 { dropped(e, ra[e]) } else { ra[e] };
            let second = |e: usize| {
                let v = rb[e] * f64::from(c[e % 8]);
                if drops == 2 { dropped(e, v) } else { v }
            };
            let want: Vec<f64> = (0..72)
                .map(|at| match (at / 12, at % 12) {
                    (row, column) if column < 4 => first(row * 4 + column),
                    (row, column) => second(row * 8 + column - 4),
                })
                .collect();
            let in_drop = |which: i32, text: &str| {
                if drops == which { format!("dropped({text}, numbers)") } else { text.to_string() }
            };
            let program = module(
                "pointwise_pair.cu",
                &[
                    format!("OUT={kind}"),
                    "RANK=2".into(),
                    format!("WIDTH={width}"),
                    format!("DROPOUT={drops}"),
                    "INPUTS=3".into(),
                    format!("IN_A={kind}"),
                    format!("IN_B={kind}"),
                    "FIRST_INPUTS=1".into(),
                    format!("EXPRESSION={}", in_drop(1, "a")),
                    format!("SECOND={}", in_drop(2, "(b * c)")),
                ],
            );
            let w = width;
            let first = [6, 4 / w, 12, w, 4, w, 0, 0, 0, 0].map(|v| v as i32);
            let second = [6, 8 / w, 12, w, 0, 0, 8, w, 0, w].map(|v| v as i32);
            in_every_mode(
                &program,
                "pointwise_pair",
                Shape { grid: [2, 2, 1], threads: 256, shared: 0 },
                || {
                    (
                        unwritten(kind, 72),
                        buffer(kind, &a),
                        buffer(kind, &b),
                        Buffer::f32(&c),
                        Buffer::f32(&step_input(step.into())),
                    )
                },
                |(out, a, b, c, step)| {
                    let mask = [seed as u32, (seed >> 32) as u32, stream, 1 << 23, 2f32.to_bits()];
                    let behind = 4 * if kind == "bf16" { 2 } else { 4 };
                    let mut args = vec![first[..].into(), ((24 / w) as i64).into(), out.into()];
                    let address = (out.pointer() as u64 + behind).to_ne_bytes().to_vec();
                    args.extend([second[..].into(), ((48 / w) as i64).into(), Arg::Value(address)]);
                    args.extend([a.into(), b.into(), c.into(), Arg::Null, Arg::Null, Arg::Null, step.into()]);
                    args.extend([0f32.into(), 0f32.into(), mask.map(|v| v as i32)[..].into()]);
                    args
                },
                |(out, ..)| assert_close("pair", &numbers(kind, out), &want, precision(kind, 1e-6)),
            );
        }
    }
}

/// Stretches of a tensor, two of them the same one, in their order; what lies between stays.
#[test]
fn stretches_are_blended_in_their_order() {
    let (to, x, y) = (normal(1, 700), normal(2, 300), normal(3, 300));
    let mut want: Vec<f64> = to.iter().map(|&v| f64::from(v)).collect();
    for (offset, length, from, keep, weight) in
        [(5usize, 300usize, &x, 0.9f64, 0.1f64), (400, 7, &y, 1.0, 1.0), (5, 300, &y, 0.5, 0.25)]
    {
        for i in 0..length {
            want[offset + i] = keep * want[offset + i] + weight * f64::from(from[i]);
        }
    }
    let padded = |v: [i32; 3]| v.into_iter().chain([0; 13]).collect::<Vec<i32>>();
    let bits = |v: [f32; 3]| padded(v.map(|v| v.to_bits() as i32));
    let stretches = [
        padded([5, 400, 5]),
        padded([300, 7, 300]),
        padded([1, 1, 0]),
        padded([2, -1, -1]),
        bits([0.9, 1.0, 0.5]),
        bits([0.1, 1.0, 0.25]),
    ]
    .concat();
    let none: &[&str] = &[];
    in_every_mode(
        &module("blend.cu", none),
        "blend",
        Shape { grid: [1, 3, 1], threads: 256, shared: 0 },
        || (Buffer::f32(&to), Buffer::f32(&x), Buffer::f32(&y)),
        |(to, x, y)| {
            let mut args: Vec<Arg> =
                vec![stretches[..].into(), 3i32.into(), to.into(), x.into(), y.into(), y.into()];
            args.extend((0..13).map(|_| Arg::Null));
            args
        },
        |(to, ..)| assert_close("blend", &to.to_f32(), &want, 1e-6),
    );
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
                        Arg::Null,
                        Arg::Null,
                        0f32.into(),
                        0f32.into(),
                        NO_MASK[..].into(),
                    ]
                },
                |(out, _)| assert_close(expression, &numbers(kind, out), &want, precision(kind, 1e-6)),
            );
        }
    }
}

#[test]
fn dropout_draws_the_numbers_of_the_cpu() {
    let (p, seed, stream, step) = (0.3f64, 0x1234_5678_9abc_def0u64, 7u32, (5 << 24) + 41u32);
    for (count, kind) in [(1usize, "float"), (1023, "float"), (514, "bf16")] {
        let x = normal(5, count);
        let scale = (1.0 / (1.0 - p)) as f32;
        let threshold = (p * f64::from(1 << 24)).ceil() as u32;
        let rx = rounded(kind, &x);
        let want: Vec<f64> = (0..count)
            .map(|e| {
                let block = (e / 4) as u64;
                let counter = [block as u32, (block >> 32) as u32, stream, step];
                let word = philox4x32(counter, [seed as u32, (seed >> 32) as u32])[e % 4];
                if f64::from(unit_f32(word)) >= p { rx[e] * f64::from(scale) } else { 0.0 }
            })
            .collect();
        let constants = [
            format!("OUT={kind}"),
            format!("IN_A={kind}"),
            "RANK=2".into(),
            "INPUTS=1".into(),
            "DROPOUT=1".into(),
            "EXPRESSION=dropped(a, numbers)".into(),
        ];
        in_every_mode(
            &module("pointwise.cu", &constants),
            "pointwise_dense",
            Shape::flat(2, 64),
            || (Buffer::f32(&step_input(step.into())), buffer(kind, &x), unwritten(kind, count)),
            |(step, x, y)| {
                let mask = [seed as u32, (seed >> 32) as u32, stream, threshold, scale.to_bits()];
                let mut args = vec![(count as i64).into(), y.into(), x.into()];
                args.extend([Arg::Null, Arg::Null, Arg::Null, Arg::Null, Arg::Null, step.into()]);
                args.extend([0f32.into(), 0f32.into(), mask.map(|v| v as i32)[..].into()]);
                args
            },
            |(_, _, y)| assert_close("dropout", &numbers(kind, y), &want, precision(kind, 1e-6)),
        );
    }
}

/// A rule with its switches, as the kernel's constants name them.
#[derive(Clone, Copy)]
struct Rule {
    name: &'static str,
    amsgrad: bool,
    centered: bool,
    nesterov: bool,
    momentum: f64,
    dampening: f64,
}

const BETAS: [f64; 2] = [0.8, 0.99];
const EPS: f64 = 1e-6;
const LR_DECAY: f64 = 0.1;
const INITIAL: f64 = 0.05;

/// One step for one parameter, in double precision and in the textbook's words; the slots as the kernel's.
fn step_of(rule: Rule, decay: f64, lr: f64, t: i32, slots: &mut [f64; 4], gradient: f64) {
    let [beta1, beta2] = BETAS;
    let [p, a, b, c] = slots;
    let g = if rule.name == "ADAMW" { gradient } else { gradient + decay * *p };
    match rule.name {
        "SGD" if rule.momentum == 0.0 => *p -= lr * g,
        "SGD" => {
            *a = if t == 1 { g } else { rule.momentum * *a + (1.0 - rule.dampening) * g };
            *p -= lr * if rule.nesterov { g + rule.momentum * *a } else { *a };
        }
        "RMSPROP" => {
            *a = beta2 * *a + (1.0 - beta2) * g * g;
            let (mean, velocity) = if rule.centered { (b, c) } else { (c, b) };
            let mut square = *a;
            if rule.centered {
                *mean = beta2 * *mean + (1.0 - beta2) * g;
                square -= *mean * *mean;
            }
            let u = g / (square.sqrt() + EPS);
            if rule.momentum == 0.0 {
                *p -= lr * u;
            } else {
                *velocity = rule.momentum * *velocity + u;
                *p -= lr * *velocity;
            }
        }
        "ADAGRAD" => {
            *a += g * g + if t == 1 { INITIAL } else { 0.0 };
            *p -= lr / (1.0 + f64::from(t - 1) * LR_DECAY) * g / (a.sqrt() + EPS);
        }
        _ => {
            if rule.name == "ADAMW" {
                *p *= 1.0 - lr * decay;
            }
            *a = beta1 * *a + (1.0 - beta1) * g;
            *b = beta2 * *b + (1.0 - beta2) * g * g;
            *c = c.max(*b);
            let square = if rule.amsgrad { *c } else { *b };
            let (c1, c2) = (1.0 - beta1.powi(t), 1.0 - beta2.powi(t));
            *p -= lr / c1 * *a / ((square / c2).sqrt() + EPS);
        }
    }
}

#[test]
fn optimisers_over_flat_stores() {
    let n = 300;
    let plain =
        Rule { name: "SGD", amsgrad: false, centered: false, nesterov: false, momentum: 0.0, dampening: 0.0 };
    let rules = [
        plain,
        Rule { momentum: 0.9, dampening: 0.5, ..plain },
        Rule { momentum: 0.9, nesterov: true, ..plain },
        Rule { name: "RMSPROP", ..plain },
        Rule { name: "RMSPROP", momentum: 0.5, ..plain },
        Rule { name: "RMSPROP", momentum: 0.5, centered: true, ..plain },
        Rule { name: "ADAM", ..plain },
        Rule { name: "ADAM", amsgrad: true, ..plain },
        Rule { name: "ADAMW", ..plain },
        Rule { name: "ADAGRAD", ..plain },
    ];
    for rule in rules {
        for decay in [0.0, 0.01] {
            let shadowed = decay > 0.0;
            let program = module(
                "optim.cu",
                &[
                    format!("RULE={}", rule.name),
                    format!("AMSGRAD={}", u8::from(rule.amsgrad)),
                    format!("CENTERED={}", u8::from(rule.centered)),
                    format!("NESTEROV={}", u8::from(rule.nesterov)),
                    format!("MOMENTUM={}", u8::from(rule.momentum != 0.0)),
                    format!("SHADOW={}", u8::from(shadowed)),
                    format!("ZERO_GRADIENT={}", u8::from(shadowed)),
                ],
            );
            let numbers = [BETAS[0], BETAS[1], EPS, decay, rule.momentum, rule.dampening, LR_DECAY, INITIAL];
            let settings: Vec<u8> = numbers.iter().flat_map(|v| v.to_ne_bytes()).collect();
            let slots = match rule.name {
                "ADAM" | "ADAMW" => 3 + usize::from(rule.amsgrad),
                "RMSPROP" => 2 + usize::from(rule.centered) + usize::from(rule.momentum != 0.0),
                "SGD" => 1 + usize::from(rule.momentum != 0.0),
                _ => 2,
            };
            for mode in gan_emu::Mode::all() {
                let weight = normal(1, n);
                let mut want: Vec<[f64; 4]> = weight.iter().map(|&w| [f64::from(w), 0.0, 0.0, 0.0]).collect();
                let store = Buffer::f32(&[weight, vec![0.0; (slots - 1) * n]].concat());
                let (shadow, lr) = (Buffer::poisoned(2 * n), Buffer::f32(&[0.01]));
                for t in 1..=3 {
                    let gradient = normal(10 + t as u64, n);
                    let (step, grad) = (Buffer::f32(&[t as f32]), Buffer::f32(&gradient));
                    let args: Vec<Arg> = vec![
                        Arg::Value(settings.clone()),
                        (n as i64).into(),
                        (&lr).into(),
                        (&step).into(),
                        (&store).into(),
                        (&grad).into(),
                        if shadowed { (&shadow).into() } else { Arg::Null },
                    ];
                    program
                        .launch("optimise", Shape::flat(1, 256), &args, mode)
                        .unwrap_or_else(|e| panic!("{e}"));
                    for (state, &g) in want.iter_mut().zip(&gradient) {
                        step_of(rule, decay, f64::from(0.01f32), t, state, f64::from(g));
                    }
                    let left: Vec<f64> =
                        gradient.iter().map(|&g| if shadowed { 0.0 } else { f64::from(g) }).collect();
                    assert_close("gradient", &grad.to_f32(), &left, 0.0);
                }
                let p: Vec<f64> = want.iter().map(|s| s[0]).collect();
                let got = &store.to_f32()[..n];
                assert_close(&format!("{} {decay}", rule.name), got, &p, 2e-6);
                if shadowed {
                    let rounded: Vec<f32> = got.iter().map(|&v| gan_emu::bf16_round(v)).collect();
                    assert_eq!(shadow.to_bf16(), rounded);
                }
            }
        }
    }
}
