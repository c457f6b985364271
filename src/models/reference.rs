//! Whole networks against PyTorch. Every tensor is filled by a function of its key, as `tests/networks/generate.py` does, so
//! answers agree only where keys, extents, layers and their order do. And derivatives against differences.

use super::{AnyNetwork, Network, Wanted};
use crate::dtype::DType;
use crate::exec::{Program, States};
use crate::graph::{Graph, Var};
use crate::nn::params::DropoutSource;
use crate::nn::{Ctx, Net, NetSpec};
use crate::ops::gradient::grad;
use std::cell::Cell;
use std::fs;
use std::rc::Rc;

/// So many numbers in [-1, 1) that depend on the key.
fn numbers(key: &str, count: usize) -> Vec<f64> {
    let seed = key.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let number = |i: usize| {
        let mut x = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
        x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
        x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
        f64::from(x ^ x >> 16) / 2_147_483_648.0 - 1.0
    };
    (0..count).map(number).collect()
}

/// What a tensor of the key holds, in PyTorch's order.
fn tensor(key: &str, shape: &[usize]) -> Vec<f64> {
    let numel: usize = shape.iter().product();
    let (mean, scale) = if shape.len() > 1 {
        let scale = (6.0 / (numel / shape[0]) as f64).sqrt();
        // Normalised weights have a mean, so that their singular value is none near 0.
        (if key.ends_with("weight_orig") { scale } else { 0.0 }, scale)
    } else if key.ends_with("running_var") || key.ends_with("weight") {
        (1.0, 0.3)
    } else if key.ends_with("weight_u") || key.ends_with("weight_v") {
        let mean = 1.5 / (numel as f64).sqrt();
        (mean, 0.3 * mean)
    } else {
        (0.0, 0.3)
    };
    numbers(key, numel).into_iter().map(|v| mean + scale * v).collect()
}

#[derive(serde::Deserialize)]
struct Answer {
    role: String,
    network: toml::Table,
    input: Vec<usize>,
    channels: usize,
    parameters: usize,
    outputs: Vec<Output>,
}

#[derive(serde::Deserialize)]
struct Output {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Answer {
    fn name(&self) -> String {
        self.network.iter().map(|(key, value)| format!("{key} = {value} ")).collect()
    }

    fn wanted(&self) -> Wanted {
        let image = if self.input.len() > 2 { &self.input } else { &self.outputs[0].shape };
        Wanted { channels: self.channels, size: image[1..image.len() - 1].to_vec() }
    }

    /// The network in double precision; `give` names what is to be read of it. In evaluation its tensors are filled as the
    /// reference's, in training they are as they begin.
    fn program(
        &self,
        train: bool,
        give: impl FnOnce(&Net, &Var, &[Var]) -> Vec<Var>,
    ) -> (NetSpec, Program, States) {
        let network = AnyNetwork::read(&self.role, self.network.clone()).expect("known");
        let wanted = self.wanted();
        let trace = |cx: &Ctx, x: &Var| network.forward(cx, x, &wanted);
        let spec = NetSpec::describe("net", |cx, graph| {
            trace(cx, &graph.input("x", self.input.as_slice()));
        })
        .expect("the shapes fit");
        let graph = Graph::new(DType::F64);
        let net = Net::bind(&graph, &spec, 1);
        let x = graph.input("x", self.input.as_slice());
        let step = train.then(|| graph.input("step", [2]));
        let source = Rc::new(DropoutSource { seed: 0, step, streams: Cell::new(0) });
        let given = give(&net, &x, &trace(&net.ctx(train, &source), &x));
        graph.check().expect("the shapes fit");
        let names: Vec<String> = (0..given.len()).map(|i| i.to_string()).collect();
        let named: Vec<(&str, &Var)> = names.iter().map(String::as_str).zip(&given).collect();
        let program = Program::new(&graph, &named).expect("it is planned");
        let mut states = States::new();
        spec.initialise::<f64>(&mut states, 0, 1);
        let find = |key: &str| {
            let mut all = spec.params.iter().chain(&spec.buffers);
            let shape = all.find(|t| t.key == key)?.torch_shape();
            let values = tensor(key, &shape);
            Some((shape, values))
        };
        if !train {
            spec.import(&mut states, "the reference", find).expect("it has all tensors");
        }
        (spec, program, states)
    }
}

fn answers() -> Vec<Answer> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/networks/answers.json"));
    serde_json::from_str(&text.expect("it is there")).expect("as written")
}

#[test]
fn networks_answer_as_pytorchs() {
    let mut wrong = Vec::new();
    for answer in answers() {
        let name = answer.name();
        let (spec, mut program, mut states) = answer.program(false, |_, _, outputs| outputs.to_vec());
        assert_eq!(spec.param_count(), answer.parameters, "{name}");
        let x = numbers("input", answer.input.iter().product());
        program.run(&mut states, &[("x", &x)]);
        for (i, output) in answer.outputs.iter().enumerate() {
            let y: Vec<f64> = program.output(&mut states, &i.to_string());
            assert_eq!(y.len(), output.shape.iter().product::<usize>(), "{name}");
            for (k, theirs) in output.values.iter().enumerate() {
                let ours = y[(y.len() - 1) * k / 4];
                if (ours - theirs).abs() > 1e-8 * (1.0 + theirs.abs()) {
                    wrong.push(format!("{name}: output {i} has {ours} where PyTorch has {theirs}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Along a random direction of all parameters and of the input.
#[test]
fn derivatives_are_those_of_differences() {
    let mut wrong = Vec::new();
    for answer in answers() {
        let name = answer.name();
        let (spec, mut program, mut states) = answer.program(false, |net, x, outputs| {
            let graph = x.graph();
            let loss = outputs.iter().enumerate().map(|(i, y)| {
                let weights = graph.constant(y.shape(), numbers(&format!("loss{i}"), y.shape().numel()));
                y.mul(&weights).mean_all()
            });
            let loss = loss.reduce(|a, b| a.add(&b)).expect("an output");
            let mut wrt = net.params();
            wrt.push(x.clone());
            let mut gradients = grad(&loss, &wrt);
            let by_x = gradients.pop().expect("by the input");
            vec![loss, net.pack(&gradients), by_x]
        });
        let x = numbers("input", answer.input.iter().product());
        let dx = numbers("direction of the input", x.len());
        let store = states.get::<f64>(&spec.store_name()).to_vec();
        // As small beside a tensor's values as its own are.
        let mut dw = vec![0.0; store.len()];
        for t in &spec.params {
            let d = tensor(&format!("direction of {}", t.key), &t.torch_shape());
            dw[t.offset..t.offset + d.len()].copy_from_slice(&d);
        }
        let mut at = |s: f64| {
            let moved = |v: &[f64], d: &[f64]| v.iter().zip(d).map(|(v, d)| v + s * d).collect::<Vec<f64>>();
            states.get_mut::<f64>(&spec.store_name()).copy_from_slice(&moved(&store, &dw));
            program.run(&mut states, &[("x", &moved(&x, &dx))]);
            ["0", "1", "2"].map(|n| program.output::<f64>(&mut states, n))
        };
        let [_, by_w, by_x] = at(0.0);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (along_w, along_x) = (dot(&by_w, &dw), dot(&by_x, &dx));
        let (derivative, scale) = (along_w + along_x, along_w.abs() + along_x.abs());
        // A kink within the step spoils a difference: a smaller step has fewer.
        let differences = [1e-6, 1e-7, 1e-8].map(|s| (at(s)[0][0] - at(-s)[0][0]) / (2.0 * s));
        if scale == 0.0 || differences.iter().all(|d| (derivative - d).abs() > 1e-4 * scale) {
            wrong.push(format!("{name}: {along_w} + {along_x} against {differences:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A step from the initial weights: outputs and gradients are numbers of a size to begin with, and every network learns.
#[test]
fn networks_begin_to_learn() {
    for answer in answers() {
        let name = answer.name();
        let (_, mut program, mut states) = answer.program(true, |net, _, outputs| {
            let all: Vec<Var> = outputs.iter().map(|y| y.add_scalar(-1.0).square().mean_all()).collect();
            let loss = all.into_iter().reduce(|a, b| a.add(&b)).expect("an output");
            vec![outputs[0].clone(), net.pack(&grad(&loss, &net.params()))]
        });
        let x = numbers("input", answer.input.iter().product());
        program.run(&mut states, &[("x", &x), ("step", &[0.0, 0.0])]);
        let [y, g] = ["0", "1"].map(|n| program.output::<f64>(&mut states, n));
        assert!(
            y.iter().all(|v| v.abs() < 1e3),
            "{name}: outputs up to {:?}",
            y.iter().copied().reduce(f64::max)
        );
        assert!(g.iter().all(|v| v.is_finite()) && g.iter().any(|v| *v != 0.0), "{name}");
    }
}
