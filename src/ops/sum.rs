//! Sums along axes, and everything that is made of them: means, variances, the adjoint of broadcasting.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{
    ELEMENT, GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, count, int,
};
use crate::device::pointwise::{Strided, kinds, merged};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::shape::Shape;
use std::ops::Range;

/// `y = sum of x` over the neighbouring axes `first..last`, which stay with extent 1. Partial sums are kept in double
/// precision and combined in a fixed order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// First summed axis.
    pub first: usize,
    /// One past the last summed axis.
    pub last: usize,
}

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let x = inputs[0];
        if self.first >= self.last || self.last > x.rank() {
            return Err(format!("axes {}..{} of a tensor of shape {x}", self.first, self.last));
        }
        let mut d = x.to_vec();
        d[self.first..self.last].fill(1);
        Ok(Shape::from(d))
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![Some(a.dy.broadcast_to(&a.inputs[0].shape()))]
    }

    fn flops(&self, inputs: &[&Shape], _: &Shape) -> u64 {
        inputs[0].numel() as u64
    }

    fn cpu(&self, io: &mut Io) {
        let x = io.in_shape(0);
        let outer: usize = x[..self.first].iter().product();
        let count: usize = x[self.first..self.last].iter().product();
        let inner: usize = x[self.last..].iter().product();
        dispatch_real!(io.dtype(), T => sum::<T>(io.input(0), io.output(), outer, count, inner));
    }

    fn storage(&self) -> Storage {
        Storage::Operands(&[0])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let x = Strided::input_at(io, 0, 0, io.shape(0).strides());
        Ok(launches(gpu, "a", 1.0, io.shape(0), self.first..self.last, &[x]))
    }
}

/// Launches of `kernels/reduce.cu`: the output is `scale` times the sum of an expression of up to six operands over the
/// neighbouring axes `range` of `extents`.
pub(crate) fn launches(
    gpu: &GpuTraits,
    expression: &str,
    scale: f64,
    extents: &Shape,
    range: Range<usize>,
    operands: &[Strided],
) -> LaunchList {
    let (first, last) = (range.start, range.end);
    let [outer, length, inner]: [usize; 3] =
        [&extents[..first], &extents[first..last], &extents[last..]].map(|axes| axes.iter().product());
    let results = outer * inner;
    // Lanes stand on neighbouring results where those lie side by side, else on the terms of one sum.
    let lanes = match inner {
        1 => 1,
        2..=8 => 8,
        _ => 32,
    };
    let rows = 256 / lanes;
    // Enough slices to give every multiprocessor two blocks, of at least eight turns a row each.
    let blocks = results.div_ceil(lanes);
    let slices = (2 * gpu.multiprocessors / blocks).min(length / (8 * rows)).clamp(1, 256);
    let kept: Vec<usize> = [&extents[..first], &extents[last..]].concat();
    let steps = |of: &dyn Fn(&[usize]) -> Vec<usize>| -> Vec<Vec<usize>> {
        operands.iter().map(|o| of(o.steps())).collect()
    };
    let kept = layout(&kept, &steps(&|s| [&s[..first], &s[last..]].concat()));
    let reduced = layout(&extents[first..last], &steps(&|s| s[first..last].to_vec()));

    let mut list = LaunchList::default();
    let [partial, counters] = if slices > 1 {
        [list.workspace(ELEMENT * slices * results), list.counters(results.div_ceil(lanes))]
    } else {
        [LaunchArg::Null, LaunchArg::Null]
    };
    let mut constants = vec![
        "OUT=float".to_string(),
        format!("KEPT_RANK={}", kept.rank),
        format!("REDUCED_RANK={}", reduced.rank),
        "MAXIMUM=0".into(),
        format!("LANES={lanes}"),
        format!("INPUTS={}", operands.len()),
    ];
    constants.extend(kinds(operands));
    constants.push(format!("EXPRESSION={expression}"));
    let mut args =
        vec![kept.ints[..].into(), reduced.ints[..].into(), int(results), count(length), int(slices)];
    args.extend([(scale as f32).into(), LaunchArg::Output, partial]);
    let addresses = operands.iter().map(Strided::address);
    args.extend(addresses.chain(std::iter::repeat(LaunchArg::Null)).take(7));
    args.push(counters);
    let kernel = Specialisation::new("reduce.cu", constants);
    list.push(Launch::new(kernel, "reduce", [results.div_ceil(lanes), slices, 1], args));
    list
}

/// A `Layout` as the kernel takes it.
struct Flat {
    ints: Vec<i32>,
    rank: usize,
}

/// Extents and each operand's steps, with axes joined where all operands allow.
fn layout(extents: &[usize], steps: &[Vec<usize>]) -> Flat {
    let (extents, merged) = merged(extents, &steps.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let ints = extents.iter().copied().chain(merged.into_iter().flatten()).map(|v| v as i32).collect();
    Flat { ints, rank: extents.len() }
}

/// `out[o][i] = sum over r of x[o][r][i]`.
fn sum<T: Real>(x: &[T], out: &mut [T], outer: usize, count: usize, inner: usize) {
    if out.is_empty() {
        return;
    }
    let total = column_sums(x, outer, count, inner, |row: &[T], acc: &mut [f64]| {
        acc.iter_mut().zip(row).for_each(|(a, v)| *a += v.f64());
    });
    out.iter_mut().zip(total).for_each(|(o, v)| *o = T::of(v));
}

/// Sums a function of the rows of `x [outer][count][inner]` into `[outer][inner]`, in fixed pieces combined in order.
/// Shared by every reduction that keeps its channels.
pub(crate) fn column_sums<T: Real>(
    x: &[T],
    outer: usize,
    count: usize,
    inner: usize,
    add: impl Fn(&[T], &mut [f64]) + Sync + Send,
) -> Vec<f64> {
    if inner == 1 {
        // A row of one element would make the loop below all overhead: sum stretches instead.
        return (0..outer)
            .flat_map(|o| {
                let line = &x[o * count..(o + 1) * count];
                let parts = parallel::map_chunks(count, parallel::CHUNK, |r| {
                    // Eight accumulators: a fixed order that still vectorises.
                    let mut acc = [0.0; 8];
                    let mut pieces = line[r].chunks_exact(8);
                    for p in &mut pieces {
                        for j in 0..8 {
                            add(&p[j..=j], &mut acc[j..=j]);
                        }
                    }
                    for v in pieces.remainder() {
                        add(std::slice::from_ref(v), &mut acc[..1]);
                    }
                    acc.iter().sum::<f64>()
                });
                [parts.into_iter().sum::<f64>()]
            })
            .collect();
    }
    let rows = (parallel::CHUNK / inner).max(1);
    let pieces = count.div_ceil(rows).max(1);
    let parts = parallel::map_chunks(outer * pieces, 1, |r| {
        let (o, p) = (r.start / pieces, r.start % pieces);
        let mut acc = vec![0.0; inner];
        let stretch = &x[(o * count + p * rows) * inner..(o * count + ((p + 1) * rows).min(count)) * inner];
        stretch.chunks_exact(inner).for_each(|row| add(row, &mut acc));
        acc
    });
    let mut total = vec![0.0; outer * inner];
    for (r, part) in parts.iter().enumerate() {
        let line = &mut total[r / pieces * inner..(r / pieces + 1) * inner];
        line.iter_mut().zip(part).for_each(|(t, v)| *t += v);
    }
    total
}

impl Var {
    /// Sum over `axes`, which stay with extent 1.
    #[track_caller]
    pub fn sum(&self, axes: &[usize]) -> Var {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        // Innermost stretch first: it shrinks the most.
        let mut out = self.clone();
        while let Some(&top) = sorted.last() {
            let mut first = top;
            while sorted.last() == Some(&first) {
                sorted.pop();
                if first > 0 && sorted.last() == Some(&(first - 1)) {
                    first -= 1;
                }
            }
            out = out.apply(Sum { first, last: top + 1 }, &[]);
        }
        out
    }

    /// Sum of everything: a scalar.
    #[track_caller]
    pub fn sum_all(&self) -> Var {
        let flat = self.reshape(&[self.shape().numel()]);
        flat.apply(Sum { first: 0, last: 1 }, &[]).reshape(&[])
    }

    /// Mean over `axes`, which stay with extent 1.
    #[track_caller]
    pub fn mean(&self, axes: &[usize]) -> Var {
        let n: usize = axes.iter().map(|&a| self.shape()[a]).product();
        self.sum(axes).mul_scalar(1.0 / n as f64)
    }

    /// Mean of everything: a scalar.
    #[track_caller]
    pub fn mean_all(&self) -> Var {
        self.sum_all().mul_scalar(1.0 / self.shape().numel() as f64)
    }

    /// Variance over `axes`, which stay with extent 1: divided by n, or with `unbiased` by n - 1. Two passes.
    #[track_caller]
    pub fn variance(&self, axes: &[usize], unbiased: bool) -> Var {
        let n: usize = axes.iter().map(|&a| self.shape()[a]).product();
        let divisor = if unbiased { n as f64 - 1.0 } else { n as f64 };
        self.sub(&self.mean(axes)).square().sum(axes).mul_scalar(1.0 / divisor)
    }

    /// Undoes a broadcast: sums over the axes that `shape` lacks or has with extent 1.
    #[track_caller]
    pub fn sum_to(&self, shape: &Shape) -> Var {
        let own = self.shape();
        if own == *shape || self.id().is_none() {
            return self.clone();
        }
        let lead = own.rank() - shape.rank();
        let axes: Vec<usize> =
            (0..own.rank()).filter(|&i| i < lead || (shape[i - lead] == 1 && own[i] != 1)).collect();
        let out = if axes.is_empty() { self.clone() } else { self.sum(&axes) };
        out.reshape(shape)
    }
}

/// Sums over each kind of axis, long ones too, and what is built on them.
pub fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    let cases: [(&[usize], &[usize]); 8] = [
        (&[3, 4, 5], &[0]),
        (&[3, 4, 5], &[1]),
        (&[3, 4, 5], &[2]),
        (&[3, 4, 5], &[0, 2]),
        (&[2, 3, 4, 5], &[1, 2]),
        (&[2, 3, 4, 5], &[0, 1, 2, 3]),
        (&[70_001], &[0]),
        (&[9_000, 3], &[0]),
    ];
    for (shape, axes) in cases {
        let over = move |x: &sample::Array, f: &dyn Fn(&[f64]) -> f64| {
            let mut out: Vec<usize> = x.shape.to_vec();
            axes.iter().for_each(|&a| out[a] = 1);
            let mut sets = vec![Vec::new(); out.iter().product()];
            let strides = Shape::from(out.as_slice()).strides();
            sample::fill(x.shape.clone(), |index| {
                let set: usize = index.iter().zip(&out).zip(&strides).map(|((i, d), s)| (i % d) * s).sum();
                sets[set].push(x.at(index));
                0.0
            });
            sample::array(out, sets.iter().map(|s| f(s)).collect())
        };
        let input: [(&[usize], Domain); 1] = [(shape, Domain::Normal)];
        let note = format!("{axes:?}");
        all.push(
            sample::composite(
                "sum",
                &input,
                move |x| x[0].sum(axes),
                move |x| over(&x[0], &|s| s.iter().sum()),
            )
            .noted(&note),
        );
        let mean = |s: &[f64]| s.iter().sum::<f64>() / s.len() as f64;
        all.push(
            sample::composite("mean", &input, move |x| x[0].mean(axes), move |x| over(&x[0], &mean))
                .noted(&note),
        );
        for unbiased in [true, false] {
            let var = move |s: &[f64]| {
                // E[x^2] - E[x]^2, unlike the two passes under test
                let (n, m) = (s.len() as f64, mean(s));
                (s.iter().map(|v| v * v).sum::<f64>() / n - m * m) * n / if unbiased { n - 1.0 } else { n }
            };
            all.push(
                sample::composite(
                    "variance",
                    &input,
                    move |x| x[0].variance(axes, unbiased),
                    move |x| over(&x[0], &var),
                )
                .noted(&format!("{note} unbiased={unbiased}")),
            );
        }
    }
    all
}
