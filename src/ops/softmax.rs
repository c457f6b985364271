//! Softmax and its logarithm along one axis, without overflow.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{
    GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, THREADS, int,
};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::shape::Shape;

/// `y = e^x / sum e^x` along an axis, or its logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// The axis of the sum.
    pub axis: usize,
    /// Whether the logarithm is taken.
    pub log: bool,
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if self.axis >= inputs[0].rank() {
            return Err(format!("axis {} of shape {}", self.axis, inputs[0]));
        }
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let (y, dy) = (a.output, a.dy);
        vec![Some(if self.log {
            dy.sub(&y.exp().mul(&dy.sum(&[self.axis])))
        } else {
            y.mul(&dy.sub(&dy.mul(y).sum(&[self.axis])))
        })]
    }

    fn flops(&self, _: &[&Shape], output: &Shape) -> u64 {
        4 * output.numel() as u64
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn launches(&self, io: &Operands, _: &GpuTraits) -> Result<LaunchList, String> {
        let shape = io.shape(0);
        let columns = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        let rows = shape.numel() / columns.max(1);
        let lanes = if columns <= 8 { 4 } else { 32 };
        let constants =
            ["TYPE=float".into(), format!("LOG={}", u8::from(self.log)), format!("LANES={lanes}")];
        let kernel = Specialisation::new("softmax.cu", constants);
        let args = vec![int(rows), int(columns), int(inner), LaunchArg::Input(0), LaunchArg::Output];
        let grid = [(rows * lanes).div_ceil(THREADS), 1, 1];
        Ok(LaunchList::of(Launch::new(kernel, "softmax", grid, args)))
    }
}

impl Softmax {
    fn run<T: Real>(&self, io: &mut Io) {
        let (x, out, shape) = (io.input::<T>(0), io.output::<T>(), io.in_shape(0));
        let count = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        if out.is_empty() {
            return;
        }
        let block = count * inner;
        parallel::for_chunks(out, (parallel::CHUNK / block).max(1) * block, |start, piece| {
            for (b, y) in piece.chunks_mut(block).enumerate() {
                let x = &x[start + b * block..];
                for i in 0..inner {
                    let values = || (0..count).map(|c| x[c * inner + i]);
                    let top = values().fold(T::neg_infinity(), T::max);
                    let sum: T = values().map(|v| (v - top).exp()).sum();
                    let (shift, scale) = (top + sum.ln(), sum.recip());
                    for c in 0..count {
                        let v = x[c * inner + i];
                        y[c * inner + i] = if self.log { v - shift } else { (v - top).exp() * scale };
                    }
                }
            }
        });
    }
}

impl Var {
    /// `e^x / sum e^x` along an axis.
    #[track_caller]
    pub fn softmax(&self, axis: usize) -> Var {
        self.apply(Softmax { axis, log: false }, &[])
    }

    /// `x - ln sum e^x` along an axis.
    #[track_caller]
    pub fn log_softmax(&self, axis: usize) -> Var {
        self.apply(Softmax { axis, log: true }, &[])
    }
}

/// Along the first, a middle and the last axis.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], usize); 4] = [(&[4], 0), (&[2, 5, 3], 1), (&[3, 2, 4], 2), (&[3, 4], 0)];
    let mut all = Vec::new();
    for (shape, axis) in cases {
        for log in [false, true] {
            let op = Softmax { axis, log };
            all.push(sample::op(op.name(), op, &[(shape, Domain::Wide)], move |x| {
                sample::fill(shape.to_vec(), |index| {
                    let sum: f64 = (0..shape[axis])
                        .map(|i| {
                            let mut other = index.to_vec();
                            other[axis] = i;
                            x[0].at(&other).exp()
                        })
                        .sum();
                    let p = x[0].at(index).exp() / sum;
                    if log { p.ln() } else { p }
                })
            }));
        }
    }
    all
}
