//! Zero padding and cropping along any axes: each is the other's adjoint, so one operation is both.
//! (Reflecting and replicating padding: [`super::resample`].)

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::device::pointwise::{Strided, pointwise};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::shape::Shape;

/// Adds (or, where negative, removes) elements before and behind each axis; the added ones are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PadZero {
    /// (before, behind) per axis.
    pub amounts: Vec<(i64, i64)>,
}

impl Op for PadZero {
    fn name(&self) -> &'static str {
        if self.amounts.iter().all(|&(a, b)| a <= 0 && b <= 0) { "crop" } else { "pad_zero" }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let x = inputs[0];
        if x.rank() != self.amounts.len() {
            return Err(format!("{} pairs of amounts for shape {x}", self.amounts.len()));
        }
        x.iter()
            .zip(&self.amounts)
            .map(|(&d, &(a, b))| usize::try_from(d as i64 + a + b).ok().filter(|&n| n > 0))
            .collect::<Option<Vec<_>>>()
            .map(Shape::from)
            .ok_or_else(|| format!("amounts {:?} leave nothing of shape {x}", self.amounts))
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![Some(a.dy.pad_zero(&self.amounts.iter().map(|&(b, e)| (-b, -e)).collect::<Vec<_>>()))]
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn storage(&self) -> Storage {
        Storage::Any
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let mut list = LaunchList::default();
        if self.amounts.iter().any(|&(before, behind)| before > 0 || behind > 0) {
            list.push(pointwise(gpu, "p", [0.0; 2], io.out(), Strided::output(io), &[]));
        }
        // The box that both have, and where it begins in each.
        let (from, to) = (io.shape(0), io.out());
        let before = |sign: i64| -> Vec<usize> {
            self.amounts.iter().map(|&(before, _)| (sign * before).max(0) as usize).collect()
        };
        let (skipped, added) = (before(-1), before(1));
        let both: Vec<usize> = (0..to.rank())
            .map(|i| from[i].saturating_sub(skipped[i]).min(to[i].saturating_sub(added[i])))
            .collect();
        if !both.contains(&0) {
            let first = |begin: &[usize], strides: &[usize]| -> usize {
                begin.iter().zip(strides).map(|(b, s)| b * s).sum()
            };
            let (read, write) = (first(&skipped, &from.strides()), first(&added, &to.strides()));
            let a = Strided::input_at(io, 0, read, from.strides());
            let out = Strided::output_at(io, write, to.strides());
            list.push(pointwise(gpu, "a", [0.0; 2], &both, out, &[a]));
        }
        Ok(list)
    }
}

impl PadZero {
    fn run<T: Real>(&self, io: &mut Io) {
        let (x, out) = (io.input::<T>(0), io.output::<T>());
        let (from, to) = (io.in_shape(0).clone(), io.out_shape().clone());
        let Some(last) = to.rank().checked_sub(1) else {
            out.copy_from_slice(x);
            return;
        };
        let strides = from.strides();
        let width = to[last];
        let before = self.amounts[last].0;
        // The stretch of a row that comes from the input, in output coordinates.
        let begin = before.max(0) as usize;
        let end = ((before + from[last] as i64).clamp(0, width as i64)) as usize;
        let rows = (parallel::CHUNK / width).max(1);
        parallel::for_chunks(out, rows * width, |start, piece| {
            for (r, line) in piece.chunks_mut(width).enumerate() {
                let (mut index, mut at, mut inside) = (start / width + r, 0usize, begin < end);
                for i in (0..last).rev() {
                    let p = (index % to[i]) as i64 - self.amounts[i].0;
                    index /= to[i];
                    inside &= p >= 0 && p < from[i] as i64;
                    at = at.wrapping_add((p as usize).wrapping_mul(strides[i]));
                }
                if !inside {
                    line.fill(T::zero());
                    continue;
                }
                line[..begin].fill(T::zero());
                line[end..].fill(T::zero());
                let first = at + (begin as i64 - before) as usize;
                line[begin..end].copy_from_slice(&x[first..first + end - begin]);
            }
        });
    }
}

impl Var {
    /// Adds zeros (or removes elements, where negative) before and behind each axis.
    #[track_caller]
    pub fn pad_zero(&self, amounts: &[(i64, i64)]) -> Var {
        if amounts.iter().all(|&a| a == (0, 0)) && amounts.len() == self.rank() {
            return self.clone();
        }
        self.apply(PadZero { amounts: amounts.to_vec() }, &[])
    }

    /// `length` elements from `start` along one axis.
    #[track_caller]
    pub fn slice(&self, axis: usize, start: usize, length: usize) -> Var {
        let shape = self.shape();
        let mut amounts = vec![(0, 0); shape.rank()];
        if axis < shape.rank() {
            amounts[axis] = (-(start as i64), (start + length) as i64 - shape[axis] as i64);
        }
        self.pad_zero(&amounts)
    }
}

/// Padding, cropping, both at once, and slices.
pub fn samples() -> Vec<Sample> {
    type Case = (&'static [usize], &'static [(i64, i64)]);
    let cases: [Case; 6] = [
        (&[5], &[(2, 1)]),
        (&[7], &[(-2, -1)]),
        (&[2, 4, 3], &[(0, 0), (1, 2), (0, 0)]),
        (&[2, 4, 5, 3], &[(0, 0), (-1, 2), (1, -2), (0, 0)]),
        (&[2, 3, 4], &[(0, 0), (0, 0), (-1, -2)]),
        (&[2, 3], &[(1, 1), (-3, 4)]),
    ];
    cases
        .into_iter()
        .map(|(from, amounts)| {
            sample::op(
                "pad_zero",
                PadZero { amounts: amounts.to_vec() },
                &[(from, Domain::Normal)],
                move |x| {
                    let out: Vec<usize> =
                        from.iter().zip(amounts).map(|(&d, &(a, b))| (d as i64 + a + b) as usize).collect();
                    sample::fill(out, |index| {
                        let own: Option<Vec<usize>> = index
                            .iter()
                            .zip(amounts)
                            .zip(from)
                            .map(|((&i, &(a, _)), &d)| usize::try_from(i as i64 - a).ok().filter(|&p| p < d))
                            .collect();
                        own.map_or(0.0, |own| x[0].at(&own))
                    })
                },
            )
        })
        .collect()
}
