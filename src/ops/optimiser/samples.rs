//! Three steps of every rule against textbook recurrences, and the operations that go with a step. Nothing here is
//! differentiated, so every input is fixed.

use super::{ClampParameters, EmaUpdate, Rule, RunningStats, clip_by_norm};
use crate::graph::Var;
use crate::ops::concat::concat;
use crate::ops::sample::{Array, Domain, Sample, array, composite};
use crate::shape::Shape;

/// Learning rate of the samples.
const RATE: f64 = 0.05;

fn rules() -> Vec<Rule> {
    let adam =
        |weight_decay, amsgrad| Rule::Adam { beta1: 0.5, beta2: 0.9, eps: 1e-8, weight_decay, amsgrad };
    let rms = |momentum, centered, weight_decay| Rule::RmsProp {
        alpha: 0.9,
        eps: 1e-8,
        momentum,
        centered,
        weight_decay,
    };
    let sgd = |momentum, dampening, nesterov, weight_decay| Rule::Sgd {
        momentum,
        dampening,
        nesterov,
        weight_decay,
    };
    vec![
        adam(0.0, false),
        adam(0.1, false),
        adam(0.1, true),
        Rule::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, amsgrad: false },
        Rule::AdamW { beta1: 0.0, beta2: 0.9, eps: 1e-8, weight_decay: 0.0, amsgrad: true },
        rms(0.0, false, 0.0),
        rms(0.8, false, 0.1),
        rms(0.8, true, 0.1),
        rms(0.0, true, 0.0),
        sgd(0.0, 0.0, false, 0.1),
        sgd(0.9, 0.3, false, 0.1),
        sgd(0.9, 0.0, true, 0.0),
        Rule::Adagrad { lr_decay: 0.1, eps: 1e-10, initial_accumulator: 0.1, weight_decay: 0.1 },
    ]
}

/// Three steps on a store of zero moments; the parameters afterwards.
fn steps(rule: Rule, x: &[Var]) -> Var {
    let (graph, n) = (x[0].graph().clone(), x[0].channels());
    let scalar = |v: f64| graph.full(&Shape::scalar(), v);
    let mut store = concat(&[&x[0].reshape(&[1, n]), &graph.full(&[rule.slots() - 1, n].into(), 0.0)], 0);
    if rule.slots() == 1 {
        store = x[0].reshape(&[1, n]);
    }
    for (i, gradient) in x[1..].iter().enumerate() {
        store = store.optimiser_step(rule, gradient, &scalar(RATE), &scalar(i as f64 + 1.0));
    }
    store.stretch(0, &[n])
}

/// The same for one parameter, from the recurrences as the papers write them.
fn textbook(rule: Rule, mut p: f64, gradients: &[f64]) -> f64 {
    let (mut m, mut v, mut u, mut top) = (0.0, 0.0, 0.0, 0.0f64);
    for (i, &g) in gradients.iter().enumerate() {
        let t = i as i32 + 1;
        match rule {
            Rule::Adam { beta1, beta2, eps, weight_decay, amsgrad }
            | Rule::AdamW { beta1, beta2, eps, weight_decay, amsgrad } => {
                let decoupled = matches!(rule, Rule::AdamW { .. });
                let g = if decoupled { g } else { g + weight_decay * p };
                p -= if decoupled { RATE * weight_decay * p } else { 0.0 };
                m = beta1 * m + (1.0 - beta1) * g;
                v = beta2 * v + (1.0 - beta2) * g.powi(2);
                top = top.max(v);
                let square = if amsgrad { top } else { v } / (1.0 - beta2.powi(t));
                p -= RATE * (m / (1.0 - beta1.powi(t))) / (square.sqrt() + eps);
            }
            Rule::RmsProp { alpha, eps, momentum, centered, weight_decay } => {
                let g = g + weight_decay * p;
                v = alpha * v + (1.0 - alpha) * g.powi(2);
                m = alpha * m + (1.0 - alpha) * g;
                let variance = if centered { v - m * m } else { v };
                u = momentum * u + g / (variance.sqrt() + eps);
                p -= RATE * u;
            }
            Rule::Sgd { momentum, dampening, nesterov, weight_decay } => {
                let g = g + weight_decay * p;
                u = if t == 1 { g } else { momentum * u + (1.0 - dampening) * g };
                p -= RATE * if nesterov { g + momentum * u } else { u };
            }
            Rule::Adagrad { lr_decay, eps, initial_accumulator, weight_decay } => {
                let g = g + weight_decay * p;
                v += g * g;
                p -=
                    RATE / (1.0 + f64::from(t - 1) * lr_decay) * g / ((initial_accumulator + v).sqrt() + eps);
            }
        }
    }
    p
}

/// Every rule, and what goes with a step.
pub fn samples() -> Vec<Sample> {
    let n: &[usize] = &[23];
    let mut all: Vec<Sample> = rules()
        .into_iter()
        .map(|rule| {
            let inputs = [(n, Domain::Normal); 4];
            let oracle = move |x: &[Array]| {
                let column = |i: usize| x[1..].iter().map(|g| g.data[i]).collect::<Vec<_>>();
                array(n, (0..n[0]).map(|i| textbook(rule, x[0].data[i], &column(i))).collect())
            };
            composite("optimiser_step", &inputs, move |x| steps(rule, x), oracle).noted(&format!("{rule:?}"))
        })
        .collect();
    all.push(composite(
        "ema_update",
        &[(n, Domain::Normal), (&[3, 23], Domain::Normal)],
        |x| x[0].apply(EmaUpdate { decay: 0.9 }, &[&x[1]]),
        |x| array([23], (0..23).map(|i| x[0].data[i] + 0.1 * (x[1].data[i] - x[0].data[i])).collect()),
    ));
    all.push(composite(
        "clamp_parameters",
        &[(&[2, 7], Domain::Normal)],
        |x| x[0].apply(ClampParameters { n: 7, low: -0.3, high: 0.5 }, &[]),
        |x| {
            let limited = |(i, v): (usize, &f64)| if i < 7 { v.clamp(-0.3, 0.5) } else { *v };
            array([2, 7], x[0].data.iter().enumerate().map(limited).collect())
        },
    ));
    all.push(composite(
        "running_stats",
        &[(&[9], Domain::Normal), (&[2, 3], Domain::Positive)],
        |x| {
            let op = RunningStats { offset: 2, channels: 3, momentum: 0.1, unbiased_factor: 1.25 };
            x[0].apply(op, &[&x[1]])
        },
        |x| {
            let mut out = x[0].clone();
            for c in 0..3 {
                out.data[2 + c] += 0.1 * (x[1].data[c] - out.data[2 + c]);
                out.data[5 + c] += 0.1 * (1.25 * x[1].data[3 + c] - out.data[5 + c]);
            }
            out
        },
    ));
    for limit in [0.5, 100.0] {
        let oracle = move |x: &[Array]| {
            let norm = x[0].data.iter().fold(0.0f64, |a, v| a.hypot(*v));
            let scale = if norm + 1e-6 > limit { limit / (norm + 1e-6) } else { 1.0 };
            array([23], x[0].data.iter().map(|v| v * scale).collect())
        };
        let build = move |x: &[Var]| clip_by_norm(&x[0], limit).0;
        all.push(composite("clip_by_norm", &[(n, Domain::Normal)], build, oracle).noted(&format!("{limit}")));
    }
    all.iter_mut()
        .filter(|s| !s.name.starts_with("clip_by_norm"))
        .for_each(|s| s.fixed = (0..s.inputs.len()).collect());
    all
}
