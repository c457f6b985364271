//! Operations that only the fusion pass makes ([`crate::compile::fuse`]): chains of pointwise operations in one pass over
//! memory, at the end of a convolution, on the way into a sum or into a concatenation.
//!
//! They are made after differentiation, so none has a derivative. What they mean is what the operations mean that they
//! stand for: the pass is tested by running the same graph with and without it.

mod blend;
mod conv;
mod expression;
mod loss;
mod stats;

pub use blend::{Blend, Stretch};
pub use conv::{ConvKind, ConvMap};
pub use expression::{Expression, Leaf, MOST_LEAVES, MOST_TOKENS, Token, in_order, value};
pub use loss::{ConvLoss, MOST_RESULTS};
pub use stats::{ConvStats, Wanted};

use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::device::pointwise::{Half, MOST_INPUTS, Strided, dropping, pair};
use crate::dispatch_real;
use crate::graph::{GradArgs, Memory, Op, Storage, Var};
use crate::ops::sum;
use crate::shape::Shape;

fn no_derivative() -> ! {
    unreachable!("fusion comes after differentiation")
}

/// `y = expression`, element by element.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// What is computed.
    pub expression: Expression,
    /// FLOPs of what was fused.
    pub flops: u64,
}

impl Op for Map {
    fn name(&self) -> &'static str {
        "map"
    }

    fn infer(&self, _: &[&Shape]) -> Result<Shape, String> {
        Ok(self.expression.extents.clone())
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        no_derivative()
    }

    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        self.flops
    }

    fn reads(&self, i: usize, inputs: &[&Shape], _: &Shape) -> usize {
        self.expression.reads(i).min(inputs[i].numel())
    }

    /// The first input that is read once and in order may give its memory.
    fn memory(&self) -> Memory {
        let leaves = &self.expression.leaves;
        let alone = |l: &&Leaf| {
            l.offset == 0
                && in_order(l, &self.expression.extents)
                && leaves.iter().filter(|other| other.input == l.input).count() == 1
        };
        leaves.iter().find(alone).map_or(Memory::Fresh, |l| Memory::Reuse(l.input))
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let mut values: Vec<T> = Vec::with_capacity(self.expression.extents.numel());
            self.expression.evaluate::<T>(io, |_, v| values.push(v));
            io.output::<T>().copy_from_slice(&values);
        });
    }

    fn storage(&self) -> Storage {
        Storage::Any
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let e = &self.expression;
        let out = Strided::output(io);
        let (inputs, mask) = (e.operands(io), e.mask());
        Ok(LaunchList::of(dropping(gpu, &e.source(), [0.0; 2], mask, io.out(), out, &inputs)))
    }
}

/// `y = scale * sum of expression` over the neighbouring axes `first..last`, which stay with extent 1.
#[derive(Clone, Debug, PartialEq)]
pub struct MapSum {
    /// What is added up.
    pub expression: Expression,
    /// First summed axis.
    pub first: usize,
    /// One past the last summed axis.
    pub last: usize,
    /// A factor of the sum.
    pub scale: f64,
    /// FLOPs of what was fused.
    pub flops: u64,
}

impl Op for MapSum {
    fn name(&self) -> &'static str {
        "map_sum"
    }

    fn infer(&self, _: &[&Shape]) -> Result<Shape, String> {
        let mut d = self.expression.extents.to_vec();
        d[self.first..self.last].fill(1);
        Ok(Shape::from(d))
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        no_derivative()
    }

    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        self.flops
    }

    fn cpu(&self, io: &mut Io) {
        let e = &self.expression.extents;
        let inner: usize = e[self.last..].iter().product();
        let count: usize = e[self.first..self.last].iter().product();
        dispatch_real!(io.dtype(), T => {
            let mut sums = vec![0.0; io.out_shape().numel()];
            self.expression.evaluate::<T>(io, |i, v| {
                sums[i / inner / count * inner + i % inner] += crate::dtype::Real::f64(v);
            });
            let scale = self.scale;
            io.output::<T>().iter_mut().zip(sums).for_each(|(o, s)| *o = crate::dtype::Real::of(scale * s));
        });
    }

    fn reads(&self, i: usize, inputs: &[&Shape], _: &Shape) -> usize {
        self.expression.reads(i).min(inputs[i].numel())
    }

    fn storage(&self) -> Storage {
        Storage::Operands(&[0, 1, 2, 3, 4, 5])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let e = &self.expression;
        Ok(sum::launches(gpu, &e.source(), self.scale, &e.extents, self.first..self.last, &e.operands(io)))
    }
}

/// Several expressions side by side along an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct MapConcat {
    /// The parts, in order.
    pub parts: Vec<Expression>,
    /// Along which axis.
    pub axis: usize,
    /// FLOPs of what was fused.
    pub flops: u64,
}

impl Op for MapConcat {
    fn name(&self) -> &'static str {
        "map_concat"
    }

    fn infer(&self, _: &[&Shape]) -> Result<Shape, String> {
        let mut d = self.parts[0].extents.to_vec();
        d[self.axis] = self.parts.iter().map(|p| p.extents[self.axis]).sum();
        Ok(Shape::from(d))
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        no_derivative()
    }

    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        self.flops
    }

    fn cpu(&self, io: &mut Io) {
        let whole: usize = io.out_shape()[self.axis..].iter().product();
        dispatch_real!(io.dtype(), T => {
            let (out, mut start) = (io.output::<T>(), 0);
            for part in &self.parts {
                let width: usize = part.extents[self.axis..].iter().product();
                let mut values: Vec<T> = Vec::with_capacity(part.extents.numel());
                part.evaluate::<T>(io, |_, v| values.push(v));
                for (row, line) in values.chunks(width).enumerate() {
                    out[row * whole + start..][..width].copy_from_slice(line);
                }
                start += width;
            }
        });
    }

    fn reads(&self, i: usize, inputs: &[&Shape], _: &Shape) -> usize {
        self.parts.iter().map(|p| p.reads(i)).sum::<usize>().min(inputs[i].numel())
    }

    fn storage(&self) -> Storage {
        Storage::Any
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let strides = io.out().strides();
        let (mut start, mut before) = (0, 0);
        let mut halves = Vec::new();
        for part in &self.parts {
            let out = Strided::output_at(io, start * strides[self.axis], strides.clone());
            let (inputs, mask, extents) = (part.operands(io), part.mask(), part.extents.clone());
            start += part.extents[self.axis];
            // Two are one launch, if they fit.
            let first =
                if before + inputs.len() <= MOST_INPUTS && self.parts.len() == 2 { before } else { 0 };
            before += inputs.len();
            halves.push(Half { expression: part.source_from(first), mask, extents, out, inputs });
        }
        if let Ok(two) = <&[Half; 2]>::try_from(&halves[..])
            && let Some(launch) = pair(gpu, two)
        {
            return Ok(LaunchList::of(launch));
        }
        let alone = |(h, part): (Half, &Expression)| {
            dropping(gpu, &part.source(), [0.0; 2], h.mask, &h.extents, h.out, &h.inputs)
        };
        let launches = halves.into_iter().zip(&self.parts).map(alone).collect();
        Ok(LaunchList { launches, ..LaunchList::default() })
    }
}
