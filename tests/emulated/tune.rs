//! The variants of convolutions, on the emulator: each computes the same, and the fastest is found.

use crate::device::Emulator;
use gan::device::backend::Backend;
use gan::device::choices::Choices;
use gan::device::launch::{GpuTraits, Math};
use gan::dtype::DType;
use gan::exec::States;
use gan::exec::gpu::{DeviceStates, GpuProgram, Prepared};
use gan::exec::tune::tune;
use gan::graph::Graph;
use gan::ops::conv::ConvSpec;
use gan::ops::conv::geometry::ConvGeometry;
use gan::ops::conv::launch::Pass;
use gan::ops::conv::variants::{ConvShape, Variant};
use gan_emu::Mode;
use std::collections::BTreeSet;

/// More than one tile on either side, and a sum long enough for slices.
const GEOMETRY: ConvGeometry = ConvGeometry {
    n: 1,
    c: 20,
    k: 20,
    groups: 1,
    input: [1, 6, 5],
    output: [1, 6, 5],
    kernel: [1, 3, 3],
    stride: [1; 3],
    padding: [0, 1, 1],
    dilation: [1; 3],
};

fn shapes() -> [ConvShape; 3] {
    [Pass::Forward, Pass::GradX, Pass::GradW].map(|pass| ConvShape {
        geometry: GEOMETRY,
        pass,
        math: Math::Fma,
    })
}

/// Small whole numbers: all of their sums are exact, so that every order of additions gives the same bits.
fn numbers(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7 + salt * 5 + i / 11) % 5) as f32 - 2.0).collect()
}

#[test]
fn every_variant_computes_the_same() {
    let emulator = Emulator::new(Mode::all()[0], Math::Fma);
    let multiprocessors = emulator.traits().multiprocessors;
    let (g, spec) = (&GEOMETRY, ConvSpec::new(2, 1, 1));
    let mut tiles = BTreeSet::new();
    for shape in shapes() {
        let graph = Graph::new(DType::F32);
        let x = graph.input("x", [g.n, 6, 5, g.c]);
        let w = graph.input("w", [g.k, 3, 3, g.c]);
        let dy = graph.input("dy", [g.n, 6, 5, g.k]);
        let (result, used) = match shape.pass {
            Pass::Forward => (x.conv(&w, &spec), ["x", "w"]),
            Pass::GradX => (dy.conv_grad_x(&w, &spec, &[6, 5]), ["dy", "w"]),
            Pass::GradW => (x.conv_grad_w(&dy, &spec, &[3, 3]), ["x", "dy"]),
        };
        let all = [
            ("x", numbers(6 * 5 * g.c, 1)),
            ("w", numbers(g.k * 9 * g.c, 2)),
            ("dy", numbers(6 * 5 * g.k, 3)),
        ];
        let inputs: Vec<(&str, &[f32])> =
            all.iter().filter(|(n, _)| used.contains(n)).map(|(n, v)| (*n, v.as_slice())).collect();
        let states = DeviceStates::new(&emulator, &States::new()).unwrap_or_else(|e| panic!("{e}"));
        let run = |variant: &Variant| -> Vec<f32> {
            let choices = Choices::leak([(shape.to_string(), variant.to_string())].into());
            let traits = GpuTraits { choices: Some(choices), ..emulator.traits() };
            let prepared =
                Prepared::new(&traits, &graph, &[("y", &result)]).unwrap_or_else(|e| panic!("{e}"));
            let grid = prepared.launches().next().expect("a launch").grid;
            assert!(choices.asked() == [shape.to_string()], "{:?}", choices.asked());
            assert!(grid[2] as usize >= variant.slices, "{variant}: {grid:?}");
            let mut program =
                GpuProgram::bind(&emulator, prepared, &states).unwrap_or_else(|e| panic!("{e}"));
            program.run(&states, &inputs).unwrap_or_else(|e| panic!("{variant}: {e}"));
            program.output(&states, "y").unwrap_or_else(|e| panic!("{e}"))
        };
        let legal = shape.legal(multiprocessors);
        let first = run(&legal[0]);
        assert!(first.iter().any(|v| *v != 0.0));
        for variant in &legal[1..] {
            assert!(run(variant) == first, "{shape} as {variant} differs from {}", legal[0]);
            tiles.insert((variant.bm, variant.bn));
        }
    }
    assert!(tiles.len() >= 3, "{tiles:?}");
}

#[test]
fn the_fastest_is_found() {
    let emulator = Emulator::new(Mode::all()[0], Math::Fma);
    let shape = &shapes()[2];
    let found = tune(&emulator, shape).unwrap_or_else(|e| panic!("{e}"));
    let legal = shape.legal(emulator.traits().multiprocessors);
    assert!(legal.contains(&found.variant), "{found:?}");
    assert!(found.seconds > 0.0 && found.seconds <= found.default_seconds, "{found:?}");
}
