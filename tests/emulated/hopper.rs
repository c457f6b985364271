//! A whole training step with the convolutions of sm_90a, where they can be taken, beside the same step without them.

use crate::convolutions::Kind;
use crate::device::Emulator;
use gan::device::launch::{Math, Tailored};
use gan::exec::States;
use gan::exec::gpu::{DeviceStates, GpuProgram, Prepared};
use gan::methods::{Run, Shapes};
use gan::recipe::Recipe;
use gan::run::programs::trace_step;
use gan_emu::Mode;

const MODELS: [&str; 2] = [
    "canvas = [32, 32]\n[model]\nkind = \"pix2pix\"\ngenerator = { kind = \"unet\", downs = 3, ngf = 8 }\ndiscriminator = { kind = \"patch\", layers = 2, ndf = 8 }",
    "canvas = [16, 16]\n[model]\nkind = \"pix2pix\"\ngenerator = { kind = \"resnet\", blocks = 1, ngf = 8 }\ndiscriminator = { kind = \"patch\", layers = 1, ndf = 8 }",
];

/// What a step leaves.
pub struct After {
    pub losses: Vec<f32>,
    pub states: Vec<Vec<u32>>,
    /// The kernels that were launched.
    pub launched: Vec<&'static str>,
}

impl After {
    /// How many launches are of kernels of these names.
    pub fn count(&self, names: &[&str]) -> usize {
        self.launched.iter().filter(|name| names.contains(name)).count()
    }

    /// Fails unless the losses are those of the same step by kernels that add in another order, after which single values are
    /// rounded to the other neighbour in bf16: 1/256 each, less in a mean of many.
    pub fn assert_losses_of(&self, other: &After, model: &str) {
        assert!(!self.losses.is_empty() && self.losses.len() == other.losses.len());
        for (a, b) in self.losses.iter().zip(&other.losses) {
            let near = (a - b).abs() <= 4e-3 * b.abs().max(0.1);
            assert!(near, "{model}: {:?}, {:?}", self.losses, other.losses);
        }
    }
}

/// A training step in bf16 with and without the kernels of sm_90a and those for few channels.
pub fn step(model: &str, [hopper, window]: [Tailored; 2], mode: Mode) -> After {
    let text =
        format!("name = \"x\"\n[data]\nphantom = {{}}\n{model}\n[train]\nbatch = 2\n[health]\nwatch = false");
    let recipe = Recipe::parse(&text, "r", &[]).unwrap();
    let method = recipe.method().unwrap();
    let size = recipe.data.patch.map_or_else(|| recipe.data.canvas.unwrap().to_vec(), |p| p.to_vec());
    let shapes = Shapes::new(&recipe.data, recipe.train.batch, size);
    let specs = method.networks(&shapes.size).unwrap();
    let step = trace_step(&recipe, &method, &specs, &shapes).swap_remove(0);
    let mut states = States::new();
    specs.iter().for_each(|s| s.initialise::<f32>(&mut states, 1, recipe.optimiser.rule.slots()));
    let emulator = Emulator::like(mode, Math::Bf16, true, hopper, window);
    let there = DeviceStates::new(&emulator, &states).unwrap();
    let prepared = Prepared::new(&emulator.traits, step.graph(), &step.outputs()).unwrap();
    let launched = prepared.launches().map(|l| l.kernel).collect();
    let mut program = GpuProgram::new(&emulator, step.graph(), &step.outputs(), &there).unwrap();
    let image = |n: usize| -> Vec<f32> { (0..n).map(|i| (i * 37 % 256) as f32 / 128.0 - 1.0).collect() };
    let (image, target) = (image(shapes.input().numel()), image(shapes.target().numel()));
    let scalars = method.scalars(&specs, Run { part: 0, number: 0, takes_batch: true, step: 0 }, [1e-3; 2]);
    let mut inputs: Vec<(&str, &[f32])> = scalars.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
    inputs.extend([("input", &image[..]), ("target", &target[..])]);
    program.run(&there, &inputs).unwrap();
    let losses = step
        .outputs()
        .iter()
        .filter(|(_, v)| v.shape().numel() == 1)
        .map(|(n, _)| program.output(&there, n).expect("an output")[0])
        .collect();
    there.download(&mut states).unwrap();
    let bits = |name: &str| states.get::<f32>(name).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    After { losses, states: states.names().map(bits).collect(), launched }
}

#[test]
fn a_step_with_the_convolutions_of_sm_90a_has_the_same_losses() {
    for model in MODELS {
        let mode = Mode::all()[0];
        let [own, other] = [Tailored::Always, Tailored::Off].map(|h| step(model, [h, Tailored::Off], mode));
        let hopper = ["conv_hopper", "conv_hopper_grad_w"];
        assert!(own.count(&hopper) > 10 && own.count(&["conv", "conv_grad_w"]) > 0, "{:?}", own.launched);
        assert_eq!(other.count(&hopper), 0);
        assert!(own.losses.len() > 2);
        own.assert_losses_of(&other, model);
    }
}

#[test]
fn a_step_with_them_gives_the_same_bits_in_every_order() {
    let taken = [Tailored::Always, Tailored::Off];
    let first = step(MODELS[0], taken, Mode::all()[0]);
    for mode in [Mode::all()[4], Mode::all()[8]] {
        assert!(step(MODELS[0], taken, mode).states == first.states, "{mode:?}");
    }
}

#[test]
fn convolutions_by_themselves_as_a_device_is_tested() {
    let emulator = Emulator::new(Mode::all()[8], Math::Bf16);
    let faults = crate::convolutions::faults(&*emulator, Kind::Hopper, &crate::convolutions::small());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
