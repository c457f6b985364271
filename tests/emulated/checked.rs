//! A number that stops being one is found in the same layer on the GPU's kernels as on the CPU, fused or not, in any
//! precision.

use crate::device::Emulator;
use gan::device::launch::Math;
use gan::dtype::DType;
use gan::exec::gpu::{DeviceStates, GpuProgram};
use gan::exec::{Program, States};
use gan::graph::{Graph, Var};
use gan::methods::{Run, Shapes};
use gan::ops::conv::ConvSpec;
use gan::ops::norm::NormKind;
use gan::recipe::Recipe;
use gan::run::programs::trace_step;
use gan::train::guard::{Finding, Guard};
use gan_emu::Mode;

/// Three layers, of which the weights are states.
fn network() -> (Graph, Var, States) {
    let graph = Graph::new(DType::F32);
    let mut states = States::new();
    let mut y = graph.input("image", [2, 8, 8, 4]);
    for layer in ["first", "second", "third"] {
        y = graph.phase("G forward", || {
            graph.scope(layer, || {
                let state = graph.state(layer, [4, 3, 3, 4]);
                let w = graph.read(state);
                let y = y.conv(&w, &ConvSpec::new(2, 1, 1)).normalize(NormKind::Instance, 1e-5, None);
                // The weight must stay a state of the program.
                graph.write(state, &w);
                y.leaky_relu(0.2)
            })
        });
        states
            .set::<f32>(layer, &(0..144).map(|i| ((i * 37 % 101) as f32 - 50.0) / 200.0).collect::<Vec<_>>());
    }
    let loss = graph.phase("loss", || y.square().mean_all());
    (graph, loss, states)
}

const IMAGE: [f32; 512] = [0.5; 512];

fn on_cpu(states: &mut States) -> Option<Finding> {
    let (graph, loss, _) = network();
    let mut guard = Guard::default();
    let mut program = Program::new(&graph, &[("loss", &loss)]).unwrap();
    program.run_checked(states, &[("image", &IMAGE[..])], |i, step, v| guard.look(0, i, step, v));
    guard.settle(false)
}

fn on_gpu(states: &States, math: Math, fused: bool) -> Option<Finding> {
    let (graph, loss, _) = network();
    let mut guard = Guard::default();
    let emulator = Emulator::with(Mode::all()[0], math, fused);
    let there = DeviceStates::new(&emulator, states).unwrap();
    let mut program = GpuProgram::new(&emulator, &graph, &[("loss", &loss)], &there).unwrap();
    program.run_checked(&there, &[("image", &IMAGE[..])], |i, step, v| guard.look(0, i, step, v)).unwrap();
    guard.settle(false)
}

#[test]
fn a_nan_is_found_in_the_layer_that_made_it() {
    for (layer, operation) in [("first", "conv"), ("second", "conv"), ("third", "conv")] {
        let (_, _, mut states) = network();
        states.get_mut::<f32>(layer)[17] = f32::NAN;
        let found = on_cpu(&mut states).expect("on the CPU");
        assert_eq!((found.layer.as_str(), found.operation.as_str()), (layer, operation), "{found}");
        assert!(found.phase == "G forward" && found.value.is_nan() && found.share.0 > 0, "{found}");
        for (math, fused) in [(Math::Fma, false), (Math::Fma, true), (Math::Bf16, true)] {
            let found = on_gpu(&states, math, fused).unwrap_or_else(|| panic!("{layer} in {math:?}"));
            assert_eq!(found.layer, layer, "{math:?}, fused: {fused}: {found}");
            assert!(found.operation.starts_with(operation) && found.value.is_nan(), "{found}");
        }
    }
}

#[test]
fn where_all_is_well_nothing_is_found() {
    let (_, _, mut states) = network();
    assert_eq!(on_cpu(&mut states), None);
    assert_eq!(on_gpu(&states, Math::Bf16, true), None);
}

/// What is infinite in a step that ends well is not blamed in one that does not.
#[test]
fn harmless_infinities_are_not_blamed() {
    let graph = Graph::new(DType::F32);
    let x = graph.input("x", [4]);
    // 1 / 0 is infinite, and its reciprocal 0 again.
    let mask = graph.scope("mask", || x.recip());
    let y = graph.scope("use", || mask.recip().add_scalar(1.0).log().sum_all());
    let mut program = Program::new(&graph, &[("y", &y)]).unwrap();
    let mut states = States::new();
    let mut guard = Guard::default();
    let mut run = |guard: &mut Guard, x: [f32; 4], sound| {
        program.run_checked(&mut states, &[("x", &x[..])], |i, step, v| guard.look(0, i, step, v));
        guard.settle(sound)
    };
    assert_eq!(run(&mut guard, [0.0, 1.0, 2.0, 3.0], true), None);
    let found = run(&mut guard, [0.0, -2.0, 2.0, 3.0], false).expect("found");
    assert_eq!((found.layer.as_str(), found.share), ("use", (1, 4)), "{found}");
}

/// What is watched beside the losses must not reach the networks: not through other kernels either, because fusion looks at
/// who reads what.
#[test]
fn watching_changes_no_bit_on_the_gpu_s_kernels() {
    let dense = "target = []\ncanvas = [8, 8]\n[model]\nkind = \"gan\"\nnz = 4\ngenerator = { kind = \"mlp\", widths = [8, 8] }\ndiscriminator = { kind = \"mlp\", widths = [8] }";
    let patches = "canvas = [16, 16]\n[model]\nkind = \"pix2pix\"\ngenerator = { kind = \"unet\", downs = 2, ngf = 2 }\ndiscriminator = { kind = \"patch\", layers = 1, ndf = 2 }";
    let after = |model: &str, set: &[&str], math: Math| {
        let text = format!(
            "name = \"x\"\n[data]\nphantom = {{}}\n{model}\n[optimiser]\nclip_norm = 0.5\n[train]\nbatch = 4"
        );
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        let recipe = Recipe::parse(&text, "r", &set).unwrap();
        let method = recipe.method().unwrap();
        let shapes = Shapes::new(&recipe.data, recipe.train.batch, recipe.data.canvas.unwrap().to_vec());
        let specs = method.networks(&shapes.size).unwrap();
        let step = trace_step(&recipe, &method, &specs, &shapes).swap_remove(0);
        let mut states = States::new();
        specs.iter().for_each(|s| s.initialise::<f32>(&mut states, 1, recipe.optimiser.rule.slots()));
        let emulator = Emulator::with(Mode::all()[0], math, true);
        let there = DeviceStates::new(&emulator, &states).unwrap();
        let mut program = GpuProgram::new(&emulator, step.graph(), &step.outputs(), &there).unwrap();
        let image = |n: usize| -> Vec<f32> { (0..n).map(|i| (i * 37 % 256) as f32 / 128.0 - 1.0).collect() };
        let (image, target) = (image(shapes.input().numel()), image(shapes.target().numel()));
        for number in 0..2 {
            let run = Run { part: 0, number, takes_batch: true, step: number };
            let scalars = method.scalars(&specs, run, [1e-3; 2]);
            let mut inputs: Vec<(&str, &[f32])> = scalars.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
            inputs.extend([("input", &image[..]), ("target", &target[..])]);
            program.run(&there, &inputs).unwrap();
        }
        there.download(&mut states).unwrap();
        let bits = |name: &str| states.get::<f32>(name).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        (step.outputs().len(), states.names().map(bits).collect::<Vec<_>>())
    };
    for (math, model, gan) in
        [(Math::Bf16, dense, "hinge"), (Math::Bf16, patches, "vanilla"), (Math::Bf16, patches, "lsgan")]
    {
        let gan = format!("loss.gan={gan}");
        let (many, watched) = after(model, &[&gan], math);
        let (few, unwatched) = after(model, &[&gan, "health.watch=false", "log.histograms=0"], math);
        assert!(
            many > few && watched == unwatched,
            "{math:?}, {model}, {gan}: {many} outputs, {few} outputs"
        );
    }
}
