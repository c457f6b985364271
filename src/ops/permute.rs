//! Reordering axes.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::device::pointwise::{Strided, pointwise};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::shape::Shape;

/// Output axis `i` is input axis `order[i]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permute {
    /// Which input axis each output axis is.
    pub order: Vec<usize>,
}

impl Op for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if sorted != (0..inputs[0].rank()).collect::<Vec<_>>() {
            return Err(format!("{:?} does not name each axis of shape {} once", self.order, inputs[0]));
        }
        Ok(self.order.iter().map(|&i| inputs[0][i]).collect::<Vec<_>>().into())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let mut back = vec![0; self.order.len()];
        self.order.iter().enumerate().for_each(|(i, &o)| back[o] = i);
        vec![Some(a.dy.permute(&back))]
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn storage(&self) -> Storage {
        Storage::Any
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let strides = io.shape(0).strides();
        let steps = self.order.iter().map(|&i| strides[i]).collect();
        let a = Strided::input_at(io, 0, 0, steps);
        Ok(LaunchList::of(pointwise(gpu, "a", [0.0; 2], io.out(), Strided::output(io), &[a])))
    }
}

impl Permute {
    fn run<T: Real>(&self, io: &mut Io) {
        let (x, out) = (io.input::<T>(0), io.output::<T>());
        let strides = io.in_shape(0).strides();
        let steps: Vec<usize> = self.order.iter().map(|&i| strides[i]).collect();
        let shape = io.out_shape().clone();
        let Some((&width, outer)) = shape.split_last() else {
            out.copy_from_slice(x);
            return;
        };
        let rows = (parallel::CHUNK / width.max(1)).max(1);
        parallel::for_chunks(out, (rows * width).max(1), |start, piece| {
            for (r, line) in piece.chunks_mut(width).enumerate() {
                let (mut index, mut from) = (start / width + r, 0);
                for (i, extent) in outer.iter().enumerate().rev() {
                    from += index % extent * steps[i];
                    index /= extent;
                }
                let step = steps[outer.len()];
                line.iter_mut().enumerate().for_each(|(i, o)| *o = x[from + i * step]);
            }
        });
    }
}

impl Var {
    /// Reorders the axes: output axis `i` is input axis `order[i]`.
    #[track_caller]
    pub fn permute(&self, order: &[usize]) -> Var {
        if order.iter().enumerate().all(|(i, &o)| i == o) && order.len() == self.rank() {
            return self.clone();
        }
        self.apply(Permute { order: order.to_vec() }, &[])
    }
}

/// Transpositions and cycles.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], &[usize]); 4] = [
        (&[3, 4], &[1, 0]),
        (&[2, 3, 4], &[2, 0, 1]),
        (&[2, 3, 4, 5], &[0, 3, 1, 2]),
        (&[2, 3, 2, 2, 3], &[4, 2, 0, 3, 1]),
    ];
    cases
        .into_iter()
        .map(|(from, order)| {
            sample::op("permute", Permute { order: order.to_vec() }, &[(from, Domain::Normal)], move |x| {
                let out: Vec<usize> = order.iter().map(|&i| from[i]).collect();
                sample::fill(out, |index| {
                    let mut own = vec![0; index.len()];
                    order.iter().zip(index).for_each(|(&axis, &i)| own[axis] = i);
                    x[0].at(&own)
                })
            })
        })
        .collect()
}
