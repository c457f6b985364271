//! Shapes that fill no tile, no vector and no warp, views that begin anywhere, and what the plan does with memory: against
//! the same graph on the CPU in double precision.

use crate::device::{Emulated, Emulator};
use gan::device::cpu::Io;
use gan::device::launch::{GpuTraits, LaunchArg, LaunchList, Math, Operands, Tailored};
use gan::device::pointwise::{Strided, pointwise};
use gan::dtype::DType;
use gan::exec::gpu::Prepared;
use gan::exec::{Program, States};
use gan::graph::{GradArgs, Graph, Op, Var};
use gan::ops::concat::{concat, pack};
use gan::ops::conv::ConvSpec;
use gan::ops::gradient::vjp;
use gan::ops::max_pool::Window;
use gan::ops::norm::NormKind;
use gan::ops::optimiser::{OptimiserStep, Rule};
use gan::rng::Philox;
use gan::shape::Shape;
use gan_emu::Mode;

/// The tolerance of `tests/ops.rs`.
const SINGLE: f64 = 3e-6;

fn numbers(name: &str, n: usize) -> Vec<f32> {
    let mut rng = Philox::named(7, name);
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// Builds the same outputs on inputs of the given shapes in both precisions, and compares.
fn agree(what: &str, shapes: &[&[usize]], build: impl Fn(&[Var]) -> Vec<Var>) {
    let names: Vec<String> = (0..shapes.len()).map(|i| format!("x{i}")).collect();
    let values: Vec<Vec<f32>> =
        shapes.iter().zip(&names).map(|(s, n)| numbers(n, s.iter().product())).collect();
    let traced = |dtype: DType| {
        let graph = Graph::new(dtype);
        let inputs: Vec<Var> = shapes.iter().zip(&names).map(|(s, n)| graph.input(n, *s)).collect();
        let outputs = build(&inputs);
        (graph, outputs)
    };
    let labels: Vec<String> = (0..32).map(|i| format!("y{i}")).collect();
    let named = |outputs: &'_ [Var]| -> Vec<(String, Var)> {
        labels.iter().cloned().zip(outputs.iter().cloned()).collect()
    };

    let (graph, outputs) = traced(DType::F64);
    let pairs = named(&outputs);
    let wanted: Vec<(&str, &Var)> = pairs.iter().map(|(n, v)| (n.as_str(), v)).collect();
    let mut program = Program::new(&graph, &wanted).expect("valid");
    let wide: Vec<Vec<f64>> = values.iter().map(|v| v.iter().map(|&x| f64::from(x)).collect()).collect();
    let inputs: Vec<(&str, &[f64])> =
        names.iter().map(String::as_str).zip(wide.iter().map(Vec::as_slice)).collect();
    let mut states = States::new();
    program.run(&mut states, &inputs);
    let want: Vec<Vec<f64>> = wanted.iter().map(|(n, _)| program.output(&mut states, n)).collect();

    let (graph, outputs) = traced(DType::F32);
    let pairs = named(&outputs);
    let wanted: Vec<(&str, &Var)> = pairs.iter().map(|(n, v)| (n.as_str(), v)).collect();
    let emulator = Emulator::new(Mode::all()[5], Math::Fma);
    let mut emulated =
        Emulated::new(&emulator, &graph, &wanted, &States::new()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let inputs: Vec<(&str, &[f32])> =
        names.iter().map(String::as_str).zip(values.iter().map(Vec::as_slice)).collect();
    // Twice: what a run leaves in memory must not reach the next one.
    for _ in 0..2 {
        emulated.run(&inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
        for ((name, _), want) in wanted.iter().zip(&want) {
            let got = emulated.output(name);
            let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
            assert_eq!(got.len(), want.len(), "{what} {name}");
            for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
                let error = (f64::from(g) - w).abs();
                assert!(
                    error <= SINGLE * scale,
                    "{what} {name}[{i}] = {g}, expected {w} (largest {scale:.3e})"
                );
            }
        }
    }
}

#[test]
fn element_by_element() {
    agree("long vectors", &[&[10_007], &[10_007]], |x| {
        vec![x[0].tanh().add(&x[1]), x[0].mul(&x[1]).sigmoid()]
    });
    agree("broadcasts", &[&[3, 67, 5], &[67, 1], &[5]], |x| {
        vec![x[0].mul(&x[1]).add(&x[2]), x[2].sub(&x[1]), x[0].max(&x[2])]
    });
    agree("copies", &[&[3, 67, 5], &[3, 67, 2]], |x| {
        vec![
            concat(&[&x[0], &x[1], &x[0]], 2),
            x[0].permute(&[2, 0, 1]),
            x[0].pad_zero(&[(-1, 2), (3, -60), (0, 1)]),
            x[0].pad_zero(&[(0, 0), (-70, 70), (0, 0)]),
            pack(&[&x[0].square(), &x[1], &x[0]]),
        ]
    });
}

#[test]
fn views_begin_anywhere() {
    agree("unaligned", &[&[1000]], |x| {
        let at = |offset: usize, shape: &[usize]| x[0].stretch(offset, shape);
        let (image, weight) = (at(3, &[1, 5, 6, 8]), at(301, &[8, 3, 3, 8]));
        vec![
            at(1, &[400]).add(&at(402, &[400])),
            image.conv(&weight, &ConvSpec::new(2, 1, 1)),
            at(5, &[16, 12]).matmul(&at(211, &[12, 20]), false, false),
            at(7, &[4, 5, 6]).softmax(2),
            at(9, &[33, 8]).sum(&[0]),
        ]
    });
}

#[test]
fn sums_norms_and_softmax() {
    agree("sums", &[&[3, 1013, 5], &[2, 40_003], &[2, 3, 40]], |x| {
        vec![
            x[0].sum(&[1]),
            x[0].sum(&[0, 1]),
            x[0].sum(&[2]),
            x[1].sum(&[1]),
            x[1].sum_all(),
            x[2].sum(&[1]),
        ]
    });
    agree("norms", &[&[3, 37, 41, 5], &[2, 9, 7, 40], &[40], &[40]], |x| {
        vec![
            x[0].normalize(NormKind::Batch, 1e-5, None),
            x[0].normalize(NormKind::Instance, 1e-5, None),
            x[1].normalize(NormKind::Group(4), 1e-5, Some((&x[2], &x[3]))),
            x[1].norm_stats(NormKind::Group(1)),
        ]
    });
    agree("softmax", &[&[7, 33], &[3, 65, 2]], |x| {
        vec![x[0].softmax(1), x[1].log_softmax(1), x[0].softmax(0)]
    });
}

#[test]
fn products_and_windows() {
    agree("products", &[&[65, 70], &[70, 129], &[3, 8, 300], &[3, 300, 4]], |x| {
        vec![
            x[0].matmul(&x[1], false, false),
            x[2].matmul(&x[3], false, false),
            x[1].matmul(&x[0], true, true),
        ]
    });
    agree("convolutions", &[&[2, 19, 23, 12], &[20, 4, 4, 12], &[2, 9, 11, 20], &[1, 3, 3, 12]], |x| {
        let s = ConvSpec::new(2, 2, 1);
        vec![
            x[0].conv(&x[1], &s),
            x[2].conv_grad_x(&x[1], &s, &[19, 23]),
            x[0].conv_grad_w(&x[2], &s, &[4, 4]),
            x[0].conv(&x[3], &ConvSpec::new(2, 1, 0)),
        ]
    });
    agree("a long sum for one pixel", &[&[1, 4, 4, 96], &[5, 4, 4, 96]], |x| {
        vec![x[0].conv(&x[1], &ConvSpec::new(2, 1, 0))]
    });
    agree("windows", &[&[2, 13, 17, 3]], |x| {
        vec![
            x[0].max_pool(&Window::new(2, 3, 2)),
            x[0].avg_pool(&Window::new(2, 3, 2), true),
            x[0].resize_linear(&[31, 9], false),
            x[0].pad_reflect(5),
        ]
    });
}

/// A state that is read before, after and behind its update, on the device as on the CPU.
#[test]
fn states_are_updated_in_place() {
    for late in [false, true] {
        let graph = Graph::new(DType::F32);
        let rule = Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
        let state = graph.state("p", [1, 3]);
        let one = graph.full(&Shape::scalar(), 1.0);
        let gradient = graph.full(&Shape::from([3]), 1.0);
        let old = graph.read(state);
        let early = old.mul_scalar(10.0);
        let new = old.apply(OptimiserStep { rule, n: 3 }, &[&gradient, &one, &one]);
        graph.write(state, &new);
        let after = if late { old.mul_scalar(100.0) } else { graph.read(state).mul_scalar(100.0) };
        let mut states = States::new();
        states.set("p", &[1f32, 2.0, 3.0]);
        let emulator = Emulator::new(Mode::all()[0], Math::Fma);
        let outputs = [("early", &early), ("after", &after)];
        let mut emulated = Emulated::new(&emulator, &graph, &outputs, &states).expect("valid");
        emulated.run(&[]).expect("runs");
        emulated.states.download(&mut states).expect("comes back");
        assert_eq!(emulated.output("early"), [10.0, 20.0, 30.0]);
        assert_eq!(emulated.output("after"), if late { [100.0, 200.0, 300.0] } else { [0.0, 100.0, 200.0] });
        assert_eq!(states.get::<f32>("p"), [0.0, 1.0, 2.0]);
    }
}

/// An operation that has nothing to launch, or launches what writes into its input.
#[derive(Clone, Copy, Debug)]
struct Bad {
    launches: bool,
}

impl Op for Bad {
    fn name(&self) -> &'static str {
        "bad"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        vec![None]
    }

    fn cpu(&self, _: &mut Io) {}

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        if !self.launches {
            return Err("it has no kernel".into());
        }
        let out = Strided::dense(LaunchArg::Input(0), io.out(), true);
        Ok(LaunchList::of(pointwise(gpu, "p", [1.0, 0.0], io.out(), out, &[])))
    }
}

#[test]
fn what_cannot_run_or_writes_elsewhere_is_named() {
    let emulator = Emulator::new(Mode::all()[0], Math::Fma);
    let run = |launches: bool| -> String {
        let graph = Graph::new(DType::F32);
        let y = graph.scope("layer", || graph.input("x", [5]).apply(Bad { launches }, &[]));
        let result = Emulated::new(&emulator, &graph, &[("y", &y)], &States::new())
            .and_then(|mut e| e.run(&[("x", &[0.0; 5])]));
        result.expect_err("it is bad").to_string()
    };
    assert_eq!(run(false), "layer layer: bad: it has no kernel");
    assert_eq!(run(true), "bad writes outside its output");
    let graph = Graph::new(DType::F64);
    let y = graph.input("x", [5]).tanh();
    let refused = Emulated::new(&emulator, &graph, &[("y", &y)], &States::new());
    assert!(refused.is_err_and(|e| e.to_string().contains("f64")));
}

/// Only x of a grid counts beyond 65535: what there may be many of lies there. And what a kernel's ints cannot count is refused
/// with the layer's name before anything is launched.
#[test]
fn many_sets_and_many_products_fit_a_grid_and_too_many_elements_are_refused() {
    let traits = GpuTraits {
        multiprocessors: 132,
        math: Math::Fma,
        fixed_shapes: true,
        fused: true,
        choices: None,
        hopper: Tailored::Off,
        window: Tailored::Off,
    };
    let graph = Graph::new(DType::F32);
    let (sets, dy) = (graph.input("sets", [70_000, 2, 8]), graph.input("dy", [70_000, 2, 8]));
    let normed = sets.normalize(NormKind::Instance, 1e-5, None);
    let gradient = vjp(&[(normed.clone(), dy)], std::slice::from_ref(&sets)).remove(0).expect("a gradient");
    let (a, b) = (graph.input("a", [70_000, 3, 5]), graph.input("b", [70_000, 5, 2]));
    let wide = graph.input("wide", [4, 2]).matmul(&graph.input("long", [2, 5_000_000]), false, false);
    let outputs =
        [("y", &normed), ("dx", &gradient), ("batch", &a.matmul(&b, false, false)), ("wide", &wide)];
    let prepared = Prepared::new(&traits, &graph, &outputs).unwrap_or_else(|e| panic!("{e}"));
    let most = prepared.launches().map(|l| l.grid[0]).max();
    assert!(most >= Some(70_000), "{most:?}");

    let graph = Graph::new(DType::F32);
    let y = graph.scope("G", || graph.input("x", [1 << 16, 1 << 15]).tanh());
    let error = Prepared::new(&traits, &graph, &[("y", &y)]).err().expect("2^31 elements").to_string();
    assert!(
        error.contains("layer G: ")
            && error.contains("2^31 elements or more")
            && error.contains("train.batch"),
        "{error}"
    );
}
