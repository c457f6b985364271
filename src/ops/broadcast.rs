//! Repeating along axes of extent 1: the adjoint of a sum.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::device::pointwise::{Strided, pointwise};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::shape::Shape;

/// `y[i] = x[i mod the extents of x]`, under NumPy's rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// The shape to reach.
    pub shape: Shape,
}

impl Op for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match Shape::broadcast(inputs[0], &self.shape) {
            Some(s) if s == self.shape => Ok(s),
            _ => Err(format!("shape {} does not broadcast to {}", inputs[0], self.shape)),
        }
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![Some(a.dy.sum_to(&a.inputs[0].shape()))]
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn storage(&self) -> Storage {
        Storage::Any
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (out, a) = (Strided::output(io), Strided::input(io, 0));
        Ok(LaunchList::of(pointwise(gpu, "a", [0.0; 2], io.out(), out, &[a])))
    }
}

impl Broadcast {
    fn run<T: Real>(&self, io: &mut Io) {
        let (x, out) = (io.input::<T>(0), io.output::<T>());
        if out.is_empty() {
            return;
        }
        if x.len() == 1 {
            parallel::for_chunks(out, parallel::CHUNK, |_, piece| piece.fill(x[0]));
            return;
        }
        let steps = io.in_shape(0).steps_within(&self.shape);
        let last = self.shape.rank() - 1;
        let width = self.shape[last];
        let rows = (parallel::CHUNK / width).max(1);
        parallel::for_chunks(out, rows * width, |start, piece| {
            for (r, line) in piece.chunks_mut(width).enumerate() {
                let (mut index, mut from) = (start / width + r, 0);
                for i in (0..last).rev() {
                    from += index % self.shape[i] * steps[i];
                    index /= self.shape[i];
                }
                if steps[last] == 0 {
                    line.fill(x[from])
                } else {
                    line.copy_from_slice(&x[from..from + width])
                }
            }
        });
    }
}

impl Var {
    /// Repeats along the axes that this has with extent 1 or lacks in front.
    #[track_caller]
    pub fn broadcast_to(&self, shape: &Shape) -> Var {
        if self.shape() == *shape {
            self.clone()
        } else {
            self.apply(Broadcast { shape: shape.clone() }, &[])
        }
    }
}

/// Each kind of repetition.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], &[usize]); 5] = [
        (&[], &[2, 3]),
        (&[4], &[2, 3, 4]),
        (&[2, 1, 4], &[2, 3, 4]),
        (&[3, 1], &[2, 3, 5]),
        (&[2, 1, 1, 3], &[2, 4, 5, 3]),
    ];
    cases
        .into_iter()
        .map(|(from, to)| {
            let shape = Shape::from(to);
            sample::op("broadcast", Broadcast { shape: shape.clone() }, &[(from, Domain::Normal)], move |x| {
                let lead = shape.rank() - x[0].shape.rank();
                sample::fill(shape.clone(), |index| {
                    let own: Vec<usize> =
                        (0..x[0].shape.rank()).map(|i| index[i + lead] % x[0].shape[i]).collect();
                    x[0].at(&own)
                })
            })
        })
        .collect()
}
