//! Joining tensors along an axis, and packing many into one flat buffer.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::device::pointwise::{Half, Strided, pair, pointwise};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Storage, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::shape::Shape;

/// Joins its inputs along one axis; the other extents agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat {
    /// The axis that grows.
    pub axis: usize,
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let first = inputs[0];
        if self.axis >= first.rank() {
            return Err(format!("axis {} of shape {first}", self.axis));
        }
        if let Some(odd) = inputs
            .iter()
            .find(|s| s.rank() != first.rank() || s.with(self.axis, 1) != first.with(self.axis, 1))
        {
            return Err(format!("shapes {first} and {odd} differ beside axis {}", self.axis));
        }
        Ok(first.with(self.axis, inputs.iter().map(|s| s[self.axis]).sum()))
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let mut start = 0;
        (0..a.inputs.len())
            .map(|i| {
                let length = a.inputs[i].shape()[self.axis];
                start += length;
                a.want(i, || a.dy.slice(self.axis, start - length, length))
            })
            .collect()
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn storage(&self) -> Storage {
        Storage::Any
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let strides = io.out().strides();
        let mut start = 0;
        let mut half = |i: usize| {
            let extents = io.shape(i).clone();
            let out = Strided::output_at(io, start * strides[self.axis], strides.clone());
            start += extents[self.axis];
            let inputs = vec![Strided::input_at(io, i, 0, extents.strides())];
            Half { expression: ["a", "b"][i % 2].into(), mask: None, extents, out, inputs }
        };
        let halves: Vec<Half> = (0..io.inputs.len()).map(&mut half).collect();
        // Two at a time.
        let mut list = LaunchList::default();
        for some in halves.chunks(2) {
            match <&[Half; 2]>::try_from(some).ok().and_then(|two| pair(gpu, two)) {
                Some(launch) => list.push(launch),
                None => some.iter().for_each(|h| {
                    list.push(pointwise(gpu, "a", [0.0; 2], &h.extents, h.out.clone(), &h.inputs));
                }),
            }
        }
        Ok(list)
    }
}

impl Concat {
    fn run<T: Real>(&self, io: &mut Io) {
        let out = io.output::<T>();
        let width: usize = io.out_shape()[self.axis..].iter().product();
        let parts: Vec<(&[T], usize)> =
            (0..io.len()).map(|i| (io.input::<T>(i), io.in_shape(i)[self.axis..].iter().product())).collect();
        let rows = (parallel::CHUNK / width.max(1)).max(1);
        parallel::for_chunks(out, (rows * width).max(1), |start, piece| {
            for (r, line) in piece.chunks_mut(width).enumerate() {
                let (index, mut at) = (start / width + r, 0);
                for &(x, w) in &parts {
                    line[at..at + w].copy_from_slice(&x[index * w..(index + 1) * w]);
                    at += w;
                }
            }
        });
    }
}

/// All inputs flattened, one after the other: gradients in the order of the parameters. The plan lets the inputs be
/// computed right where they belong, so that nothing is left to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pack;

impl Op for Pack {
    fn name(&self) -> &'static str {
        "pack"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(Shape::from([inputs.iter().map(|s| s.numel()).sum()]))
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let mut start = 0;
        (0..a.inputs.len())
            .map(|i| {
                let shape = a.inputs[i].shape();
                start += shape.numel();
                a.want(i, || a.dy.stretch(start - shape.numel(), &shape))
            })
            .collect()
    }

    fn memory(&self) -> Memory {
        Memory::Pack
    }

    /// Only the inputs that the plan could not place are given here; see `crate::exec`.
    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let (x, out) = (io.input::<T>(0), io.output::<T>());
            parallel::for_chunks(out, parallel::CHUNK, |start, piece| {
                piece.copy_from_slice(&x[start..start + piece.len()]);
            });
        });
    }

    fn storage(&self) -> Storage {
        Storage::Any
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let flat = |i: usize| Shape::from([io.shape(i).numel()]);
        let mut list = LaunchList::default();
        let mut start = 0;
        for i in 0..io.inputs.len() {
            let out = Strided::output_at(io, start, vec![1]);
            let a = Strided::input_at(io, i, 0, vec![1]);
            list.push(pointwise(gpu, "a", [0.0; 2], &flat(i), out, &[a]));
            start += io.shape(i).numel();
        }
        Ok(list)
    }
}

/// Joins values along one axis.
#[track_caller]
pub fn concat(parts: &[&Var], axis: usize) -> Var {
    if parts.len() == 1 { parts[0].clone() } else { parts[0].apply(Concat { axis }, &parts[1..]) }
}

/// All values flattened, one after the other.
#[track_caller]
pub fn pack(parts: &[&Var]) -> Var {
    parts[0].apply(Pack, &parts[1..])
}

/// Two and three parts along each axis; packing.
pub fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    let cases: [(&[&[usize]], usize); 4] = [
        (&[&[2, 3, 2], &[2, 3, 5]], 2),
        (&[&[2, 3], &[4, 3], &[1, 3]], 0),
        (&[&[2, 2, 3], &[2, 1, 3]], 1),
        (&[&[1, 2, 2, 1], &[1, 2, 2, 1], &[1, 2, 2, 3]], 3),
    ];
    for (shapes, axis) in cases {
        let inputs: Vec<(&[usize], Domain)> = shapes.iter().map(|s| (*s, Domain::Normal)).collect();
        all.push(sample::op("concat", Concat { axis }, &inputs, move |x| {
            let mut out = x[0].shape.to_vec();
            out[axis] = x.iter().map(|v| v.shape[axis]).sum();
            sample::fill(out, |index| {
                let (mut own, mut part) = (index.to_vec(), 0);
                while own[axis] >= x[part].shape[axis] {
                    own[axis] -= x[part].shape[axis];
                    part += 1;
                }
                x[part].at(&own)
            })
        }));
        all.push(sample::op("pack", Pack, &inputs, |x| {
            let data: Vec<f64> = x.iter().flat_map(|v| v.data.clone()).collect();
            sample::array([data.len()], data)
        }));
    }
    all
}
