//! The engine below the operations: shape errors, memory plans, states, and differentiation of whole graphs.

use gan::dtype::DType;
use gan::exec::{Program, States, evaluate};
use gan::graph::{Graph, Var};
use gan::ops::concat::{concat, pack};
use gan::ops::conv::ConvSpec;
use gan::ops::gradient::grad;
use gan::ops::norm::NormKind;
use gan::ops::optimiser::{OptimiserStep, Rule};
use gan::rng::Philox;
use gan::shape::Shape;

#[test]
fn a_shape_error_names_layer_and_line_and_is_reported_once() {
    let graph = Graph::new(DType::F32);
    let x = graph.input("x", [1, 8, 8, 3]);
    let w = graph.input("w", [4, 3, 3, 5]);
    let y = graph.scope("G", || graph.scope("down.1", || x.conv(&w, &ConvSpec::new(2, 1, 1))));
    // Whatever is built on it goes on without a panic, whichever accessor it uses.
    let z = y.relu().normalize(NormKind::Instance, 1e-5, None).reshape(&[7]).sum(&[0]).add(&x);
    assert!(z.id().is_none() && z.channels() == 1);
    let e = graph.check().expect_err("a wrong number of channels").to_string();
    assert!(e.contains("layer G/down.1") && e.contains("3 channels") && e.contains("expects 5"), "{e}");
    assert!(e.contains("tests/plan.rs:"), "{e}");
    assert!(Program::new(&graph, &[("z", &z)]).is_err());
}

/// A graph with everything that a plan treats specially, drawn at random.
fn tangle(graph: &Graph, seed: u64) -> Vec<Var> {
    let mut rng = Philox::new(seed, 0);
    let mut values = vec![graph.input("x0", [2, 4, 4, 3]), graph.input("x1", [2, 4, 4, 3])];
    for _ in 0..40 {
        let a = values[rng.below(values.len())].clone();
        let b = values[rng.below(values.len())].clone();
        values.push(match rng.below(9) {
            0 => a.add(&b),
            1 => a.mul(&a),
            2 => a.tanh(),
            3 => a.mul_scalar(0.5).leaky_relu(0.2),
            4 => a.reshape(&[2, 16, 3]).softmax(1).reshape(&[2, 4, 4, 3]),
            5 => concat(&[&a, &b], 3).slice(3, 2, 3),
            6 => a.permute(&[0, 2, 1, 3]),
            7 => pack(&[&a.sub(&b), &b, &a.reshape(&[96])]).stretch(50, &[2, 4, 4, 3]),
            _ => a.normalize(NormKind::Instance, 1e-5, None),
        });
    }
    values
}

#[test]
fn sharing_memory_changes_no_result() {
    let mut saved = 0.0;
    for seed in 0..60 {
        let graph = Graph::new(DType::F32);
        let values = tangle(&graph, seed);
        let loss = values.iter().skip(30).fold(values[0].clone(), |a, b| a.add(b)).square().mean_all();
        let gradients = grad(&loss, &values[..2]);
        let mut rng = Philox::new(seed, 1);
        let image: Vec<f32> = (0..96).map(|_| rng.normal() as f32).collect();
        let other: Vec<f32> = (0..96).map(|_| rng.normal() as f32).collect();
        let inputs: [(&str, &[f32]); 2] = [("x0", &image), ("x1", &other)];

        let wanted = [("loss", &loss), ("g0", &gradients[0]), ("g1", &gradients[1])];
        // Everything readable at the end: no two values can share memory.
        let names: Vec<String> = (0..graph.len()).map(|i| i.to_string()).collect();
        let nodes: Vec<Var> = (0..graph.len()).map(|i| graph.var(i)).collect();
        let all: Vec<(&str, &Var)> = names.iter().map(String::as_str).zip(&nodes).chain(wanted).collect();
        let (mut shared, mut apart) =
            (Program::new(&graph, &wanted).expect("valid"), Program::new(&graph, &all).expect("valid"));
        assert!(shared.plan().arena_bytes <= apart.plan().arena_bytes);
        saved += apart.plan().arena_bytes as f64 / shared.plan().arena_bytes as f64;
        let mut states = States::new();
        // Twice: what a run leaves in the arena must not reach the next one.
        for _ in 0..2 {
            shared.run(&mut states, &inputs);
            apart.run(&mut states, &inputs);
            for (name, _) in wanted {
                let (a, b) =
                    (shared.output::<f32>(&mut states, name), apart.output::<f32>(&mut states, name));
                let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&a), bits(&b), "seed {seed}, {name}");
            }
        }
    }
    assert!(saved / 60.0 > 2.0, "sharing saves only a factor of {}", saved / 60.0);
}

/// One SGD step on `[1, 2, 3]` with gradient 1 and rate 1, reading the old and the new value around it.
fn sgd(read_old_late: bool) -> (Vec<f32>, Vec<f32>, Vec<f32>, usize) {
    let graph = Graph::new(DType::F32);
    let rule = Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
    let state = graph.state("p", [1, 3]);
    let one = graph.full(&Shape::scalar(), 1.0);
    let gradient = graph.full(&Shape::from([3]), 1.0);
    let old = graph.read(state);
    let early = old.mul_scalar(10.0);
    let new = old.apply(OptimiserStep { rule, n: 3 }, &[&gradient, &one, &one]);
    graph.write(state, &new);
    let late = if read_old_late { old.mul_scalar(100.0) } else { graph.read(state).mul_scalar(100.0) };
    let mut program = Program::new(&graph, &[("early", &early), ("late", &late)]).expect("valid");
    let mut states = States::new();
    states.set("p", &[1f32, 2.0, 3.0]);
    program.run::<f32>(&mut states, &[]);
    let read = |p: &mut Program, s: &mut States, n: &str| p.output::<f32>(s, n);
    let (early, late) = (read(&mut program, &mut states, "early"), read(&mut program, &mut states, "late"));
    (early, late, states.get::<f32>("p").to_vec(), program.plan().steps.len())
}

#[test]
fn a_state_is_updated_in_place_unless_its_old_value_is_still_wanted() {
    let (early, late, p, steps) = sgd(false);
    assert_eq!((early, late, p), (vec![10.0, 20.0, 30.0], vec![0.0, 100.0, 200.0], vec![0.0, 1.0, 2.0]));
    let (early, late, p, more) = sgd(true);
    assert_eq!((early, late, p), (vec![10.0, 20.0, 30.0], vec![100.0, 200.0, 300.0], vec![0.0, 1.0, 2.0]));
    assert_eq!(more, steps + 2, "one copy to work on and one back");
}

#[test]
fn what_nothing_depends_on_is_not_run_and_equal_operations_run_once() {
    let graph = Graph::new(DType::F32);
    let x = graph.input("x", [4]);
    let y = x.exp().add(&x.exp());
    let _unused = x.tanh().sum_all();
    let program = Program::new(&graph, &[("y", &y)]).expect("valid");
    let names: Vec<&str> = program.plan().steps.iter().map(|s| s.op.name()).collect();
    assert_eq!(names, ["exp", "add"]);
}

#[test]
fn third_derivatives_come_out_right() {
    // d3/dx3 of x^4 e^x
    let x0 = 0.7f64;
    let out = evaluate(DType::F64, &[(Shape::scalar(), vec![x0])], |v| {
        let y = v[0].square().square().mul(&v[0].exp());
        let first = grad(&y, v).remove(0);
        let second = grad(&first, v).remove(0);
        vec![grad(&second, v).remove(0)]
    })
    .expect("runs");
    let exact = x0.exp() * (x0.powi(4) + 12.0 * x0.powi(3) + 36.0 * x0.powi(2) + 24.0 * x0);
    assert!((out[0].1[0] - exact).abs() < 1e-12 * exact, "{} is not {exact}", out[0].1[0]);
}

#[test]
fn nothing_flows_through_a_detached_value_or_into_a_frozen_network() {
    let out = evaluate(DType::F64, &[(Shape::from([2]), vec![1.0, 2.0])], |v| {
        let loss = v[0].detach().mul(&v[0]).sum_all();
        grad(&loss, v)
    })
    .expect("runs");
    assert_eq!(out[0].1, [1.0, 2.0]);

    // The weight gradient of a convolution that nobody asks for is not even traced.
    let graph = Graph::new(DType::F32);
    let (x, w) = (graph.input("x", [1, 6, 6, 2]), graph.input("w", [3, 3, 3, 2]));
    let loss = x.conv(&w, &ConvSpec::new(2, 1, 1)).square().sum_all();
    let _ = grad(&loss, std::slice::from_ref(&x));
    let traced: Vec<String> = graph.nodes().iter().map(|n| format!("{:?}", n.source)).collect();
    assert!(
        traced.iter().any(|n| n.contains("ConvGradX")) && !traced.iter().any(|n| n.contains("ConvGradW"))
    );
}

/// A value that is packed twice (the gradient of a critic's last bias is the same in every update) must survive what
/// happens to the first pack.
#[test]
fn a_packed_value_outlives_the_memory_of_its_pack() {
    let inputs = [(Shape::from([4]), vec![1.0, 2.0, 3.0, 4.0])];
    let out = evaluate(DType::F64, &inputs, |x| {
        let (a, b) = (x[0].mul_scalar(2.0), x[0].mul_scalar(3.0));
        // Overwrites the first pack where it stands, and lets others use its memory.
        let first = pack(&[&a, &b]).mul_scalar(10.0).square().sum_all();
        let second = pack(&[&b, &a]).add(&first.mul_scalar(0.0));
        vec![first, second]
    })
    .expect("a valid graph");
    assert_eq!(out[0].1, [39_000.0]);
    assert_eq!(out[1].1, [3.0, 6.0, 9.0, 12.0, 2.0, 4.0, 6.0, 8.0]);
}
