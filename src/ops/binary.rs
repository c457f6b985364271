//! Pointwise functions of two values, with NumPy's broadcasting.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::device::pointwise::{Strided, pointwise as launch};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Storage, Var};
use crate::ops::sample::{self, Array, Domain, Sample};
use crate::shape::Shape;

/// `y = f(a, b)`; extents of one stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a b
    Mul,
    /// a / b
    Div,
    /// max(a, b); where equal the derivative goes to both by half, as in PyTorch
    Max,
    /// min(a, b); likewise
    Min,
    /// a where b > 0, else `slope` a: the derivative of a leaky ReLU. Linear in a; its derivative by b is zero.
    Gate(f64),
}

use Binary::*;

impl Binary {
    #[inline(always)]
    pub(crate) fn eval<T: Real>(self, a: T, b: T) -> T {
        match self {
            Add => a + b,
            Sub => a - b,
            Mul => a * b,
            Div => a / b,
            Max => {
                if a > b || a.is_nan() {
                    a
                } else {
                    b
                }
            }
            Min => {
                if a < b || a.is_nan() {
                    a
                } else {
                    b
                }
            }
            Gate(slope) => {
                if b > T::zero() {
                    a
                } else {
                    a * T::of(slope)
                }
            }
        }
    }

    /// The same for the GPU, of `a` and `b`, with its number as `p`.
    pub(crate) fn expression(self) -> (&'static str, f64) {
        match self {
            Add => ("a + b", 0.0),
            Sub => ("a - b", 0.0),
            Mul => ("a * b", 0.0),
            Div => ("a / b", 0.0),
            Max => ("maximum(a, b)", 0.0),
            Min => ("minimum(a, b)", 0.0),
            Gate(slope) => ("gate(a, b, p)", slope),
        }
    }

    fn run<T: Real>(self, io: &mut Io) {
        macro_rules! each {
            ($($pattern:pat => $f:expr),* $(,)?) => {
                match self { $($pattern => pointwise::<T>(io, $f)),* }
            };
        }
        each! {
            Add => |a, b| Add.eval(a, b),
            Sub => |a, b| Sub.eval(a, b),
            Mul => |a, b| Mul.eval(a, b),
            Div => |a, b| Div.eval(a, b),
            Max => |a, b| Max.eval(a, b),
            Min => |a, b| Min.eval(a, b),
            Gate(s) => move |a, b| Gate(s).eval(a, b),
        }
    }
}

/// One output axis with each operand's step along it (0 where it is repeated).
#[derive(Clone, Copy, Debug)]
struct Axis {
    extent: usize,
    a: usize,
    b: usize,
}

/// The axes of a broadcast, neighbours merged where both operands run through them evenly.
fn merged_axes(out: &Shape, a: &Shape, b: &Shape) -> Vec<Axis> {
    let (sa, sb) = (a.steps_within(out), b.steps_within(out));
    let mut axes: Vec<Axis> = Vec::new();
    for i in 0..out.rank() {
        let axis = Axis { extent: out[i], a: sa[i], b: sb[i] };
        if axis.extent == 1 {
            continue;
        }
        match axes.last_mut() {
            Some(last) if last.a == axis.a * axis.extent && last.b == axis.b * axis.extent => {
                *last = Axis { extent: last.extent * axis.extent, ..axis };
            }
            _ => axes.push(axis),
        }
    }
    if axes.is_empty() {
        axes.push(Axis { extent: 1, a: 0, b: 0 });
    }
    axes
}

fn pointwise<T: Real>(io: &mut Io, f: impl Fn(T, T) -> T + Sync) {
    let axes = merged_axes(io.out_shape(), io.in_shape(0), io.in_shape(1));
    let out = io.output::<T>();
    if out.is_empty() {
        return;
    }
    let in_place = io.reused() == Some(0);
    let b = io.input::<T>(1);
    let a: &[T] = if in_place { &[] } else { io.input::<T>(0) };
    let inner = *axes.last().expect("at least one axis");
    let outer = &axes[..axes.len() - 1];
    if outer.is_empty() && inner.extent > parallel::CHUNK {
        parallel::for_chunks(out, parallel::CHUNK, |start, piece| {
            let at = |s: &'_ [T], step: usize| if step == 0 { 0 } else { start.min(s.len()) };
            row(piece, (!in_place).then(|| &a[at(a, inner.a)..]), inner.a, &b[at(b, inner.b)..], inner.b, &f);
        });
        return;
    }
    // Whole rows per piece, about CHUNK elements each.
    let rows = (parallel::CHUNK / inner.extent).max(1);
    parallel::for_chunks(out, rows * inner.extent, |start, piece| {
        for (r, line) in piece.chunks_mut(inner.extent).enumerate() {
            let (mut index, mut oa, mut ob) = (start / inner.extent + r, 0, 0);
            for axis in outer.iter().rev() {
                let i = index % axis.extent;
                index /= axis.extent;
                oa += i * axis.a;
                ob += i * axis.b;
            }
            row(line, (!in_place).then(|| &a[oa..]), inner.a, &b[ob..], inner.b, &f);
        }
    });
}

/// One stretch; `a` is `None` when the output holds it already.
#[inline(always)]
fn row<T: Real>(
    out: &mut [T],
    a: Option<&[T]>,
    step_a: usize,
    b: &[T],
    step_b: usize,
    f: &impl Fn(T, T) -> T,
) {
    match (a, step_a, step_b) {
        (None, _, 0) => out.iter_mut().for_each(|o| *o = f(*o, b[0])),
        (None, _, _) => out.iter_mut().zip(b).for_each(|(o, &y)| *o = f(*o, y)),
        (Some(a), 0, 0) => out.fill(f(a[0], b[0])),
        (Some(a), 0, _) => out.iter_mut().zip(b).for_each(|(o, &y)| *o = f(a[0], y)),
        (Some(a), _, 0) => out.iter_mut().zip(a).for_each(|(o, &x)| *o = f(x, b[0])),
        (Some(a), _, _) => out.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (&x, &y))| *o = f(x, y)),
    }
}

impl Op for Binary {
    fn name(&self) -> &'static str {
        match self {
            Add => "add",
            Sub => "sub",
            Mul => "mul",
            Div => "div",
            Max => "max",
            Min => "min",
            Gate(_) => "gate",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Shape::broadcast(inputs[0], inputs[1])
            .ok_or_else(|| format!("shapes {} and {} do not broadcast", inputs[0], inputs[1]))
    }

    fn grad(&self, args: &GradArgs) -> Vec<Option<Var>> {
        let (a, b, dy) = (&args.inputs[0], &args.inputs[1], args.dy);
        let share = |x: &Var, y: &Var| x.sub(y).sign().mul_scalar(0.5).add_scalar(0.5).mul(dy);
        let da = |v: Var| v.sum_to(&a.shape());
        let db = |v: Var| v.sum_to(&b.shape());
        match *self {
            Add => vec![args.want(0, || da(dy.clone())), args.want(1, || db(dy.clone()))],
            Sub => vec![args.want(0, || da(dy.clone())), args.want(1, || db(dy.clone()).neg())],
            Mul => vec![args.want(0, || da(dy.mul(b))), args.want(1, || db(dy.mul(a)))],
            Div => {
                vec![args.want(0, || da(dy.div(b))), args.want(1, || db(dy.mul(args.output).div(b)).neg())]
            }
            Max => vec![args.want(0, || da(share(a, b))), args.want(1, || db(share(b, a)))],
            Min => vec![args.want(0, || da(share(b, a))), args.want(1, || db(share(a, b)))],
            Gate(slope) => vec![args.want(0, || da(dy.gate(b, slope))), None],
        }
    }

    fn flops(&self, _: &[&Shape], output: &Shape) -> u64 {
        output.numel() as u64
    }

    fn memory(&self) -> Memory {
        Memory::Reuse(0)
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn storage(&self) -> Storage {
        Storage::Any
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (expression, slope) = self.expression();
        let inputs = [Strided::input(io, 0), Strided::input(io, 1)];
        Ok(LaunchList::of(launch(gpu, expression, [slope, 0.0], io.out(), Strided::output(io), &inputs)))
    }
}

impl Var {
    /// a + b
    #[track_caller]
    pub fn add(&self, b: &Var) -> Var {
        self.apply(Add, &[b])
    }

    /// a - b
    #[track_caller]
    pub fn sub(&self, b: &Var) -> Var {
        self.apply(Sub, &[b])
    }

    /// a b
    #[track_caller]
    pub fn mul(&self, b: &Var) -> Var {
        self.apply(Mul, &[b])
    }

    /// a / b
    #[track_caller]
    pub fn div(&self, b: &Var) -> Var {
        self.apply(Div, &[b])
    }

    /// max(a, b)
    #[track_caller]
    pub fn max(&self, b: &Var) -> Var {
        self.apply(Max, &[b])
    }

    /// min(a, b)
    #[track_caller]
    pub fn min(&self, b: &Var) -> Var {
        self.apply(Min, &[b])
    }

    /// This where `b` is positive, else `slope` times this.
    #[track_caller]
    pub fn gate(&self, b: &Var, slope: f64) -> Var {
        self.apply(Gate(slope), &[b])
    }
}

/// Every function on equal shapes and on the broadcasts that networks use.
pub fn samples() -> Vec<Sample> {
    type F = fn(f64, f64) -> f64;
    let table: Vec<(Binary, Domain, F)> = vec![
        (Add, Domain::Normal, |a, b| a + b),
        (Sub, Domain::Normal, |a, b| a - b),
        (Mul, Domain::Normal, |a, b| a * b),
        (Div, Domain::Positive, |a, b| a * (1.0 / b)),
        (Max, Domain::Distinct, f64::max),
        (Min, Domain::Distinct, f64::min),
        (Gate(0.2), Domain::Distinct, |a, b| if b > 0.0 { a } else { 0.2 * a }),
    ];
    let sizes: [(&[usize], &[usize]); 7] = [
        (&[2, 3, 4], &[2, 3, 4]),
        (&[2, 3, 4], &[4]),
        (&[2, 3, 4], &[]),
        (&[2, 1, 4], &[2, 3, 1]),
        (&[5], &[3, 1]),
        (&[2, 3, 2, 4], &[2, 1, 1, 4]),
        (&[1, 1], &[2, 2]),
    ];
    table
        .into_iter()
        .flat_map(|(op, domain, f)| {
            sizes.iter().map(move |(a, b)| {
                sample::op(op.name(), op, &[(*a, domain), (*b, domain)], move |x| naive(&x[0], &x[1], f))
            })
        })
        .collect()
}

/// Index by index, straight from the definition of broadcasting.
fn naive(a: &Array, b: &Array, f: impl Fn(f64, f64) -> f64) -> Array {
    let shape = Shape::broadcast(&a.shape, &b.shape).expect("samples broadcast");
    sample::fill(shape.clone(), |index| {
        let at = |x: &Array| {
            let lead = shape.rank() - x.shape.rank();
            let own: Vec<usize> =
                (0..x.shape.rank()).map(|i| if x.shape[i] == 1 { 0 } else { index[i + lead] }).collect();
            x.at(&own)
        };
        f(at(a), at(b))
    })
}
