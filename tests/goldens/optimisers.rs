//! Optimiser steps as training runs them: a program with the store as its state, run once per gradient.

use crate::Results;
use crate::fixture::Case;
use gan::dispatch_real;
use gan::dtype::{DType, Real};
use gan::exec::{Program, States};
use gan::graph::{Graph, Var};
use gan::ops::concat::pack;
use gan::ops::optimiser::{EmaUpdate, OptimiserStep, Rule, clip_by_norm};
use gan::shape::Shape;
use std::collections::BTreeMap;

/// The results of an optimiser's case, or `None` if it is about something else.
pub fn run(case: &Case, dtype: DType) -> Option<Result<Results, String>> {
    if let Some(rule) = rule(case) {
        return Some(dispatch_real!(dtype, T => steps::<T>(case, rule)));
    }
    match case.op.as_str() {
        "ema" => Some(dispatch_real!(dtype, T => ema::<T>(case))),
        "clip_grad_norm" => Some(dispatch_real!(dtype, T => clip::<T>(case))),
        _ => None,
    }
}

fn rule(case: &Case) -> Option<Rule> {
    let number = |key: &str, default: f64| case.number(key).unwrap_or(default);
    let flag = |key: &str| case.flag(key).unwrap_or(false);
    let betas = case.attrs["betas"].as_array();
    let beta = |i: usize, default: f64| betas.and_then(|b| b[i].as_f64()).unwrap_or(default);
    let weight_decay = number("weight_decay", 0.0);
    Some(match case.op.as_str() {
        "adam" => Rule::Adam {
            beta1: beta(0, 0.9),
            beta2: beta(1, 0.999),
            eps: number("eps", 1e-8),
            weight_decay,
            amsgrad: flag("amsgrad"),
        },
        "adamw" => Rule::AdamW {
            beta1: beta(0, 0.9),
            beta2: beta(1, 0.999),
            eps: number("eps", 1e-8),
            weight_decay: number("weight_decay", 0.01),
            amsgrad: flag("amsgrad"),
        },
        "rmsprop" => Rule::RmsProp {
            alpha: number("alpha", 0.99),
            eps: number("eps", 1e-8),
            momentum: number("momentum", 0.0),
            centered: flag("centered"),
            weight_decay,
        },
        "sgd" => Rule::Sgd {
            momentum: number("momentum", 0.0),
            dampening: number("dampening", 0.0),
            nesterov: flag("nesterov"),
            weight_decay,
        },
        "adagrad" => Rule::Adagrad {
            lr_decay: number("lr_decay", 0.0),
            eps: number("eps", 1e-10),
            initial_accumulator: number("initial_accumulator_value", 0.0),
            weight_decay,
        },
        _ => return None,
    })
}

fn values<T: Real>(case: &Case, input: &str) -> Result<Vec<T>, String> {
    Ok(case.tensor(&format!("in/{input}"))?.data.iter().map(|&v| T::of(v)).collect())
}

fn widen<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.f64()).collect()
}

fn steps<T: Real>(case: &Case, rule: Rule) -> Result<Results, String> {
    let p = values::<T>(case, "p")?;
    let n = p.len();
    let graph = Graph::new(T::DTYPE);
    let store = graph.state("store", [rule.slots(), n]);
    let scalar = |name: &str| graph.input(name, Shape::scalar());
    let (gradient, lr, t) = (graph.input("g", [n]), scalar("lr"), scalar("t"));
    graph.write(store, &graph.read(store).apply(OptimiserStep { rule, n }, &[&gradient, &lr, &t]));
    let mut program = Program::new(&graph, &[]).map_err(|e| e.to_string())?;
    let mut states = States::new();
    let mut start = p;
    start.resize(rule.slots() * n, T::zero());
    states.set("store", &start);
    let rate = T::of(case.number("lr").ok_or("no attribute lr")?);
    let mut results = BTreeMap::new();
    for step in (0..).take_while(|s| case.has(&format!("g{s}"))) {
        let gradient = values::<T>(case, &format!("g{step}"))?;
        program
            .run(&mut states, &[("g", &gradient[..]), ("lr", &[rate]), ("t", &[T::of(f64::from(step + 1))])]);
        results.insert(format!("out/p_after_{}", step + 1), widen(&states.get::<T>("store")[..n]));
    }
    Ok(results)
}

fn ema<T: Real>(case: &Case) -> Result<Results, String> {
    let (e, p) = (values::<T>(case, "e")?, values::<T>(case, "p")?);
    let graph = Graph::new(T::DTYPE);
    let mean = graph.state("e", [e.len()]);
    // The store has a moment behind the parameters, which must not be read.
    let store = graph.input("store", [2, p.len()]);
    let decay = case.number("decay").ok_or("no attribute decay")?;
    graph.write(mean, &graph.read(mean).apply(EmaUpdate { decay }, &[&store]));
    let mut states = States::new();
    states.set("e", &e);
    let rows = [p.clone(), vec![T::nan(); p.len()]].concat();
    Program::new(&graph, &[]).map_err(|e| e.to_string())?.run(&mut states, &[("store", &rows[..])]);
    Ok(BTreeMap::from([("out/e".to_string(), widen(states.get::<T>("e")))]))
}

fn clip<T: Real>(case: &Case) -> Result<Results, String> {
    let names: Vec<String> = (0..).map(|i| format!("g{i}")).take_while(|name| case.has(name)).collect();
    let parts: Vec<Vec<T>> = names.iter().map(|n| values(case, n)).collect::<Result<_, _>>()?;
    let graph = Graph::new(T::DTYPE);
    let vars: Vec<Var> = names.iter().zip(&parts).map(|(n, v)| graph.input(n, [v.len()])).collect();
    let limit = case.number("max_norm").ok_or("no attribute max_norm")?;
    let (clipped, norm) = clip_by_norm(&pack(&vars.iter().collect::<Vec<_>>()), limit);
    let outputs = [("clipped", &clipped), ("norm", &norm)];
    let mut program = Program::new(&graph, &outputs).map_err(|e| e.to_string())?;
    let mut states = States::new();
    let inputs: Vec<(&str, &[T])> =
        names.iter().map(String::as_str).zip(parts.iter().map(Vec::as_slice)).collect();
    program.run(&mut states, &inputs);
    let mut results = BTreeMap::from([("out/norm".to_string(), program.output_f64(&mut states, "norm"))]);
    let mut rest = &program.output_f64(&mut states, "clipped")[..];
    for (name, part) in names.iter().zip(&parts) {
        let (own, behind) = rest.split_at(part.len());
        results.insert(format!("out/{name}"), own.to_vec());
        rest = behind;
    }
    Ok(results)
}
