//! The variants of convolutions, on the emulator: each computes the same, and the fastest is found.

use crate::device::Emulator;
use gan::device::backend::Backend;
use gan::device::choices::Choices;
use gan::device::launch::{GpuTraits, Math, Tailored};
use gan::dtype::DType;
use gan::exec::States;
use gan::exec::gpu::{DeviceStates, GpuProgram, Prepared};
use gan::exec::tune::tune;
use gan::graph::Graph;
use gan::ops::conv::ConvSpec;
use gan::ops::conv::cuda::launch::Pass;
use gan::ops::conv::cuda::variants::{ConvShape, Kernels, Variant};
use gan::ops::conv::geometry::ConvGeometry;
use gan_emu::Mode;
use std::collections::BTreeSet;

/// More than one tile on either side, and a sum long enough for slices; for the kernels of sm_90a, more channels.
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

const WIDE: ConvGeometry =
    ConvGeometry { c: 72, k: 136, input: [1, 14, 11], output: [1, 14, 11], ..GEOMETRY };

fn shapes(geometry: &ConvGeometry, math: Math) -> [ConvShape; 3] {
    let shape = |pass| ConvShape { geometry: geometry.clone(), pass, math };
    [Pass::Forward, Pass::GradX, Pass::GradW].map(shape)
}

/// Small whole numbers: all of their sums are exact, so that every order of additions gives the same bits.
fn numbers(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7 + salt * 5 + i / 11) % 5) as f32 - 2.0).collect()
}

/// Runs all passes of a shape as every variant that a device may take; gives the variants.
fn all_variants(g: &ConvGeometry, math: Math, hopper: Tailored) -> Vec<Variant> {
    let emulator = Emulator::like(Mode::all()[0], math, true, hopper, Tailored::Off);
    let [_, height, width] = g.input;
    let spec = ConvSpec::new(2, 1, 1);
    let mut met = Vec::new();
    for shape in shapes(g, math) {
        let graph = Graph::new(DType::F32);
        let x = graph.input("x", [g.n, height, width, g.c]);
        let w = graph.input("w", [g.k, 3, 3, g.c]);
        let dy = graph.input("dy", [g.n, height, width, g.k]);
        let (result, used) = match shape.pass {
            Pass::Forward => (x.conv(&w, &spec), ["x", "w"]),
            Pass::GradX => (dy.conv_grad_x(&w, &spec, &[height, width]), ["dy", "w"]),
            Pass::GradW => (x.conv_grad_w(&dy, &spec, &[3, 3]), ["x", "dy"]),
        };
        let all = [
            ("x", numbers(height * width * g.c, 1)),
            ("w", numbers(g.k * 9 * g.c, 2)),
            ("dy", numbers(height * width * g.k, 3)),
        ];
        let inputs: Vec<(&str, &[f32])> =
            all.iter().filter(|(n, _)| used.contains(n)).map(|(n, v)| (*n, v.as_slice())).collect();
        let states = DeviceStates::new(&emulator, &States::new()).unwrap_or_else(|e| panic!("{e}"));
        let run = |variant: &Variant| -> Vec<f32> {
            let choices = Choices::leak([(shape.to_string(), variant.to_string())].into());
            let traits = GpuTraits { choices: Some(choices), ..emulator.traits() };
            let prepared =
                Prepared::new(&traits, &graph, &[("y", &result)]).unwrap_or_else(|e| panic!("{e}"));
            let launch = prepared.launches().find(|l| l.kernel.starts_with("conv")).expect("a convolution");
            assert!(choices.asked() == [shape.to_string()], "{:?}", choices.asked());
            let own = launch.kernel.starts_with("conv_hopper");
            assert_eq!(own, variant.kernels == Kernels::Hopper, "{variant}");
            assert!(own || launch.grid[2] as usize >= variant.slices, "{variant}: {:?}", launch.grid);
            let mut program =
                GpuProgram::bind(&emulator, prepared, &states).unwrap_or_else(|e| panic!("{e}"));
            program.run(&states, &inputs).unwrap_or_else(|e| panic!("{variant}: {e}"));
            program.output(&states, "y").unwrap_or_else(|e| panic!("{e}"))
        };
        let legal = shape.legal(&emulator.traits());
        let first = run(&legal[0]);
        assert!(first.iter().any(|v| *v != 0.0));
        for variant in &legal[1..] {
            assert!(run(variant) == first, "{shape} as {variant} differs from {}", legal[0]);
        }
        met.extend(legal);
    }
    met
}

#[test]
fn every_variant_computes_the_same() {
    let met = all_variants(&GEOMETRY, Math::Fma, Tailored::Off);
    let tiles: BTreeSet<_> = met.iter().map(|v| (v.bm, v.bn)).collect();
    assert!(tiles.len() >= 3, "{tiles:?}");
    let met = all_variants(&WIDE, Math::Bf16, Tailored::Auto);
    let own: BTreeSet<_> =
        met.iter().filter(|v| v.kernels == Kernels::Hopper).map(|v| (v.bn, v.slices)).collect();
    assert!(own.len() >= 4 && own.len() < met.len(), "{own:?}");
}

#[test]
fn the_fastest_is_found() {
    let emulator = Emulator::new(Mode::all()[0], Math::Fma);
    let shape = &shapes(&GEOMETRY, Math::Fma)[2];
    let found = tune(&emulator, shape).unwrap_or_else(|e| panic!("{e}"));
    let legal = shape.legal(&emulator.traits());
    assert!(legal.contains(&found.variant), "{found:?}");
    assert!(found.seconds > 0.0 && found.seconds <= found.default_seconds, "{found:?}");
}
