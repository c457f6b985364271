//! Whether a device computes what the CPU computes: asked before `--device auto` takes it, and by `gan doctor`.

use super::device::Device;
use super::gpu::{DeviceStates, GpuProgram, Prepared};
use super::{Program, States};
use crate::device::backend::Backend;
use crate::device::launch::{GpuTraits, Math, Specialisation, Tailored};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Var};
use crate::ops::conv::ConvSpec;
use crate::ops::gradient::vjp;
use crate::ops::norm::NormKind;
use crate::rng::Philox;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How far a result may be from the CPU's, relative to the largest. The operands are exact in the precision asked for, so what
/// is left are the roundings of sums: this is many times what they leave open, and far less than a wrong element makes.
const BOUND: f64 = 1e-4;

/// Sets of kernels that are compared: how they are called, and the device that takes them for every layer that they can
/// compute.
pub fn parts(device: &GpuTraits, math: Math) -> Vec<(&'static str, GpuTraits)> {
    let general = GpuTraits { math, choices: None, hopper: Tailored::Off, window: Tailored::Off, ..*device };
    let mut all = vec![(math.name(), general)];
    if math == Math::Bf16 && device.hopper != Tailored::Off {
        all.push(("sm_90a's kernels", GpuTraits { hopper: Tailored::Always, ..general }));
    }
    if math == Math::Bf16 && device.window != Tailored::Off {
        all.push(("those for few channels", GpuTraits { window: Tailored::Always, ..general }));
    }
    all
}

/// A convolution, its gradients, and in fp32 a norm behind it, small: what all networks are made of. Every kernel that is compared
/// must be compiled once, so the general ones, which are the same but for their arithmetic, share the three passes; the kernels
/// for some layers are compared in all of them.
struct Sample {
    graph: Graph,
    outputs: Vec<(&'static str, Var)>,
    inputs: Vec<(&'static str, Vec<f32>)>,
}

impl Sample {
    fn new(traits: &GpuTraits) -> Self {
        let math = traits.math;
        let tailored = [traits.hopper, traits.window].iter().any(|t| *t != Tailored::Off);
        let [forward, by_input, by_weights] =
            if tailored { [true; 3] } else { [math != Math::Tf32, math == Math::Tf32, math != Math::Tf32] };
        let graph = Graph::new(DType::F32);
        let (x, w) = (graph.input("x", [2, 9, 12, 16]), graph.input("w", [24, 3, 3, 16]));
        let dy = graph.input("dy", [2, 9, 12, 24]);
        let y = x.conv(&w, &ConvSpec::new(2, 1, 1));
        let mut outputs = Vec::new();
        let gradients = vjp(&[(y.clone(), dy.clone())], &[x.clone(), w.clone()]);
        let wanted = [(by_input, "gradient by the input"), (by_weights, "gradient by the weights")];
        for ((wanted, name), gradient) in wanted.into_iter().zip(gradients) {
            outputs.extend(gradient.filter(|_| wanted).map(|g| (name, g)));
        }
        let normed = |y: &Var| y.normalize(NormKind::Instance, 1e-5, None).tanh();
        if forward {
            outputs.push(("result", if math == Math::Fma { normed(&y) } else { y }));
        }
        let mut rng = Philox::named(1, "probe");
        let inputs = [("x", &x), ("w", &w), ("dy", &dy)].map(|(name, v)| {
            (name, (0..v.shape().numel()).map(|_| operand(math, rng.normal() as f32)).collect())
        });
        Sample { graph, outputs, inputs: inputs.into() }
    }

    fn outputs(&self) -> Vec<(&str, &Var)> {
        self.outputs.iter().map(|(n, v)| (*n, v)).collect()
    }

    fn inputs(&self) -> Vec<(&str, &[f32])> {
        self.inputs.iter().map(|(n, v)| (*n, v.as_slice())).collect()
    }
}

/// A number with as many digits as operands of products have.
fn operand(math: Math, v: f32) -> f32 {
    let mask = match math {
        Math::Fma => u32::MAX,
        Math::Tf32 => 0xffff_e000,
        Math::Bf16 => 0xffff_0000,
    };
    f32::from_bits(v.to_bits() & mask)
}

/// What is compiled to compare some parts, each once.
pub fn specialisations(parts: &[(&'static str, GpuTraits)]) -> Result<Vec<Specialisation>> {
    let mut all = BTreeSet::new();
    for (_, traits) in parts {
        let sample = Sample::new(traits);
        let prepared = Prepared::new(traits, &sample.graph, &sample.outputs())?;
        all.extend(prepared.launches().map(|l| (l.specialisation.file, l.specialisation.constants.clone())));
    }
    Ok(all.into_iter().map(|(file, constants)| Specialisation::new(file, constants)).collect())
}

/// Runs the sample on a device and on the CPU: the largest difference relative to the largest result, or a refusal that calls
/// the device `name`.
pub fn compare<B: Backend>(
    backend: &Arc<B>,
    name: &str,
    (what, traits): &(&'static str, GpuTraits),
) -> Result<f64> {
    let sample = Sample::new(traits);
    let (outputs, inputs) = (sample.outputs(), sample.inputs());
    let states = DeviceStates::new(backend, &States::new())?;
    let prepared = Prepared::new(traits, &sample.graph, &outputs)?;
    let mut program = GpuProgram::bind(backend, prepared, &states)?;
    // Twice: the second run is a replay.
    program.run(&states, &inputs)?;
    program.run(&states, &inputs)?;
    let names: Vec<&str> = outputs.iter().map(|(n, _)| *n).collect();
    let got = program.outputs(&states, &names)?;

    let mut reference = Program::new(&sample.graph, &outputs)?;
    let mut states = States::new();
    reference.run(&mut states, &inputs);
    let mut worst = 0.0f64;
    for (output, got) in names.iter().zip(got) {
        let want: Vec<f32> = reference.output(&mut states, output);
        let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let difference = |(a, b): (&f32, &f32)| if a.is_nan() { f32::INFINITY } else { (a - b).abs() };
        let error = f64::from(got.iter().zip(&want).map(difference).fold(0.0, f32::max) / largest);
        if error > BOUND {
            return Err(Error::input(format!(
                "{name} computes something else than the CPU ({what}: the {output} of a convolution differs by {error:.1e}); do not use it, and report this with the output of `gan doctor`",
            )));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

/// Compares what a device computes in its own precision with the CPU: for each set of kernels, how near they are.
pub fn probe(device: &Device) -> Result<Vec<(&'static str, f64)>> {
    probe_in(device, &[device.precision()])
}

/// As [`probe`], in every precision that the device has.
pub fn probe_all(device: &Device) -> Result<Vec<(&'static str, f64)>> {
    match device {
        Device::Cuda(d) if d.capability() >= 80 => probe_in(device, &[Math::Fma, Math::Tf32, Math::Bf16]),
        _ => probe_in(device, &[Math::Fma]),
    }
}

fn probe_in(device: &Device, precisions: &[Math]) -> Result<Vec<(&'static str, f64)>> {
    let Device::Cuda(backend) = device else { return Ok(Vec::new()) };
    let name = format!("cuda:{}", backend.ordinal());
    let parts = precisions.iter().flat_map(|&math| parts(&backend.traits(), math));
    parts.map(|part| Ok((part.0, compare(backend, &name, &part)?))).collect()
}
