//! Every operation of the registry, forward and gradients, on any device: here the emulator, in `tests/gpu` a real one.

use gan::compile::plan::{Passes, plan_with};
use gan::device::cpu::Io;
use gan::device::launch::{GpuTraits, LaunchList, Operands, Specialisation};
use gan::device::pointwise::{Strided, pointwise};
use gan::dtype::DType;
use gan::exec::gpu::Prepared;
use gan::exec::{Program, States};
use gan::graph::{GradArgs, Graph, Op, Storage, Var};
use gan::objectives;
use gan::ops;
use gan::ops::gradient::vjp;
use gan::ops::sample::{Array, Sample};
use gan::rng::Philox;
use gan::shape::Shape;
use gan_emu::bf16_round;

/// The named outputs of one run of a graph.
pub type Results = Result<Vec<Vec<f32>>, String>;

/// Things with their names.
pub type Named<'a, T> = [(&'a str, T)];

/// Runs a graph once: its named outputs for its named inputs.
pub type Run<'a> = &'a dyn Fn(&Graph, &Named<&Var>, &Named<&[f32]>) -> Results;

/// A sample's result and its gradients by every input that has one, for a fixed random cotangent, as a graph.
pub struct Traced {
    graph: Graph,
    names: Vec<String>,
    outputs: Vec<Var>,
}

/// Traces a sample.
pub fn trace(sample: &Sample, dtype: DType) -> Traced {
    trace_with(sample, dtype, |_| {})
}

/// As [`trace`]; `change` may alter the cotangent.
fn trace_with(sample: &Sample, dtype: DType, change: impl Fn(&mut [f64])) -> Traced {
    trace_in(Graph::new(dtype), sample, change, false)
}

/// As [`trace`], with everything that goes in and out stored in bf16 under mixed precision.
fn trace_half(sample: &Sample, dtype: DType) -> Traced {
    let graph = Graph::new(dtype);
    graph.clone().scope("layer", || trace_in(graph, sample, |_| {}, true))
}

fn trace_in(graph: Graph, sample: &Sample, change: impl Fn(&mut [f64]), half: bool) -> Traced {
    let inputs: Vec<Var> = sample
        .inputs
        .iter()
        .enumerate()
        .map(|(i, (s, _))| graph.input(&format!("x{i}"), s.clone()))
        .collect();
    let stored = |i: usize| half && !sample.fixed.contains(&i);
    let near: Vec<Var> = inputs
        .iter()
        .enumerate()
        .map(|(i, v)| if stored(i) { v.apply(Stored { half: true }, &[]) } else { v.clone() })
        .collect();
    let mut y = (sample.build)(&near);
    if half {
        y = y.apply(Stored { half: false }, &[]);
    }
    let wrt: Vec<usize> = (0..inputs.len()).filter(|i| !sample.fixed.contains(i)).collect();
    let targets: Vec<Var> = wrt.iter().map(|&i| inputs[i].clone()).collect();
    let mut rng = Philox::named(99, "cotangent");
    let mut cotangent: Vec<f64> =
        (0..y.shape().numel()).map(|_| f64::from(bf16_round(rng.normal() as f32))).collect();
    change(&mut cotangent);
    let seed = graph.constant(y.shape(), cotangent);
    let (mut names, mut outputs) = (vec!["y".to_string()], vec![y.clone()]);
    for (i, gradient) in wrt.iter().zip(vjp(&[(y, seed)], &targets)) {
        if let Some(g) = gradient {
            names.push(format!("gradient by {i}"));
            outputs.push(g);
        }
    }
    Traced { graph, names, outputs }
}

impl Traced {
    fn outputs(&self) -> Vec<(&str, &Var)> {
        self.names.iter().map(String::as_str).zip(&self.outputs).collect()
    }

    /// On the CPU, in double precision.
    fn exact(&self, x: &[Array]) -> Vec<Vec<f64>> {
        let mut program = Program::new(&self.graph, &self.outputs()).expect("a sample is valid");
        let mut states = States::new();
        let inputs: Vec<(String, &[f64])> =
            x.iter().enumerate().map(|(i, a)| (format!("x{i}"), &a.data[..])).collect();
        program.run(&mut states, &inputs.iter().map(|(n, v)| (n.as_str(), *v)).collect::<Vec<_>>());
        self.names.iter().map(|n| program.output(&mut states, n)).collect()
    }

    /// On the CPU, in single precision.
    fn single(&self, x: &[Array]) -> Vec<Vec<f64>> {
        let mut program = Program::new(&self.graph, &self.outputs()).expect("a sample is valid");
        let mut states = States::new();
        let inputs = self.rounded(x);
        program.run(&mut states, &inputs.iter().map(|(n, v)| (n.as_str(), &v[..])).collect::<Vec<_>>());
        self.names.iter().map(|n| program.output_f64(&mut states, n)).collect()
    }

    fn rounded(&self, x: &[Array]) -> Vec<(String, Vec<f32>)> {
        let single = |a: &Array| a.data.iter().map(|&v| v as f32).collect();
        x.iter().enumerate().map(|(i, a)| (format!("x{i}"), single(a))).collect()
    }

    /// On a device, in single precision.
    pub fn on(&self, run: Run, x: &[Array]) -> Results {
        let inputs = self.rounded(x);
        let inputs: Vec<(&str, &[f32])> = inputs.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
        run(&self.graph, &self.outputs(), &inputs)
    }
}

/// Fails unless everything is within `tolerance` of what is wanted, relative to the largest wanted number, and `slack`.
fn compare(what: &str, got: &[f32], want: &[f64], tolerance: f64, slack: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements instead of {}", got.len(), want.len()));
    }
    let scale = want.iter().fold(0.0f64, |m, v| m.max(v.abs())).max(1e-3);
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        if (f64::from(g) - w).abs() > tolerance * scale + slack || g.is_nan() != w.is_nan() {
            return Err(format!("{what}[{i}] = {g}, expected {w} (largest {scale:.3e})"));
        }
    }
    Ok(())
}

/// The project's tolerance of single precision, as in `tests/ops.rs`.
const SINGLE: f64 = 3e-6;

/// By how much more than rounding the terms, or than the CPU's single precision, a result may be off beyond what
/// [`SINGLE`] allows: differences (a mean near zero, softmax's gradient) lose digits, whatever computes them.
const ROUNDINGS: f64 = 4.0;

/// How far each exact result moves when every differentiable number is moved by half a `unit` of its size, or by what the CPU's single precision is off: the error that cannot be avoided.
fn wobble(sample: &Sample, x: &[Array], exact: &[Vec<f64>], unit: f64) -> Vec<f64> {
    let nudge = |name: &str, values: &mut [f64]| {
        let mut rng = Philox::named(5, name);
        let half_unit = unit / 2.0;
        values.iter_mut().for_each(|v| *v *= 1.0 + if rng.uniform() < 0.5 { half_unit } else { -half_unit });
    };
    let mut moved = x.to_vec();
    for (i, array) in moved.iter_mut().enumerate().filter(|(i, _)| !sample.fixed.contains(i)) {
        nudge(&format!("input {i}"), &mut array.data);
    }
    let nudged = trace_with(sample, DType::F64, |c| nudge("cotangent", c)).exact(&moved);
    let single = trace(sample, DType::F32).single(x);
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
    exact.iter().zip(nudged).zip(single).map(|((e, n), s)| apart(e, &n).max(apart(e, &s))).collect()
}

/// Compares a sample and its gradients, computed by `run` with exact products, with double precision.
pub fn check(sample: &Sample, run: Run) -> Result<(), String> {
    let x = sample.draw();
    let want = trace(sample, DType::F64).exact(&x);
    let single = trace(sample, DType::F32);
    let got = single.on(run, &x)?;
    let mut want = want;
    let slack: Vec<f64> =
        wobble(sample, &x, &want, f64::from(f32::EPSILON)).iter().map(|w| ROUNDINGS * w).collect();
    want[0] = (sample.oracle)(&x).data;
    for (((name, got), want), slack) in single.names.iter().zip(&got).zip(&want).zip(&slack) {
        compare(name, got, want, SINGLE, *slack)?;
    }
    Ok(())
}

/// Whether a sample is one of convolutions or matrix products alone.
pub fn is_product(sample: &Sample) -> bool {
    let kind = sample.name.split(' ').next().unwrap_or_default();
    ["conv", "conv_grad_x", "conv_grad_w", "conv_transpose", "matmul"].contains(&kind)
}

/// As [`check`], with inputs that bf16 holds: tensor cores multiply what they take exactly and add in single precision,
/// so that products come out as exactly as without them.
pub fn check_product(sample: &Sample, run: Run) -> Result<(), String> {
    let mut x = sample.draw();
    x.iter_mut().for_each(|a| a.data.iter_mut().for_each(|v| *v = f64::from(bf16_round(*v as f32))));
    let want = trace(sample, DType::F64).exact(&x);
    let single = trace(sample, DType::F32);
    let got = single.on(run, &x)?;
    for ((name, got), want) in single.names.iter().zip(&got).zip(&want) {
        compare(name, got, want, SINGLE, 0.0)?;
    }
    Ok(())
}

/// What a device of these traits launches for a sample, stored in bf16 where the precision is mixed, if `half`.
#[allow(dead_code)] // for the tests of a device, which compile everything beforehand
pub fn kernels(sample: &Sample, half: bool, gpu: &GpuTraits) -> Vec<Specialisation> {
    let traced = if half { trace_half(sample, DType::F32) } else { trace(sample, DType::F32) };
    let prepared = Prepared::new(gpu, &traced.graph, &traced.outputs()).expect("a sample is valid");
    prepared.launches().map(|l| l.specialisation.clone()).collect()
}

/// All samples.
pub fn registry() -> Vec<Sample> {
    [ops::registry(), objectives::samples()].concat()
}

/// The identity, after which a value is stored in bf16 under mixed precision, or before which it was: the gradient goes
/// through the other one.
#[derive(Clone, Copy, Debug)]
struct Stored {
    half: bool,
}

impl Op for Stored {
    fn name(&self) -> &'static str {
        "stored"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![Some(a.dy.apply(Stored { half: !self.half }, &[]))]
    }

    fn storage(&self) -> Storage {
        if self.half { Storage::Product(&[0]) } else { Storage::Operands(&[0]) }
    }

    fn cpu(&self, io: &mut Io) {
        gan::dispatch_real!(io.dtype(), T => io.output::<T>().copy_from_slice(io.input::<T>(0)));
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (out, x) = (Strided::output(io), Strided::input(io, 0));
        Ok(LaunchList::of(pointwise(gpu, "a", [0.0; 2], io.out(), out, &[x])))
    }
}

/// The distance of neighbouring bf16 numbers near 1.
const BF16_UNIT: f64 = 1.0 / 128.0;

/// How many values of a sample between [`Stored`] are stored in bf16 under mixed precision.
pub fn stored_in_half(sample: &Sample) -> usize {
    let traced = trace_half(sample, DType::F32);
    let passes = Passes { fuse: true, mixed: true };
    let plan = plan_with(&traced.graph, &traced.outputs(), passes).expect("a sample is valid");
    plan.steps.iter().filter(|s| s.output.dtype == DType::Bf16).count()
}

/// Compares a sample and its gradients, computed by `run` in mixed precision on values stored in bf16, with double
/// precision: off by what rounding all numbers that go in would do, a few times over.
pub fn check_mixed(sample: &Sample, run: Run) -> Result<(), String> {
    let mut x = sample.draw();
    x.iter_mut().for_each(|a| a.data.iter_mut().for_each(|v| *v = f64::from(bf16_round(*v as f32))));
    let want = trace_half(sample, DType::F64).exact(&x);
    let slack = wobble(sample, &x, &want, BF16_UNIT);
    let single = trace_half(sample, DType::F32);
    let got = single.on(run, &x)?;
    for (((name, got), want), slack) in single.names.iter().zip(&got).zip(&want).zip(&slack) {
        compare(name, got, want, BF16_UNIT, ROUNDINGS * slack)?;
    }
    Ok(())
}
