//! The fused gradients of a normalisation, and theirs in turn by plain operations.

use super::launch::GradOperands;
use super::{NormKind, kernel, launch, reference_stats};
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::gradient::vjp;
use crate::shape::Shape;
use std::borrow::Cow;

/// The total gradient by `x`. Inputs: x, its statistics, dy, the [`NormGradSums`] of these, and gamma if `affine`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormGradX {
    /// Which sets.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f64,
    /// Whether gamma is given.
    pub affine: bool,
    /// The first channel of dy in its tensor, which may have more than x (after fusion).
    pub first: usize,
    /// Neighbouring sets that are one where averages are taken: 1, but (after fusion) where every channel has the statistics of its
    /// group of so many.
    pub shared: usize,
}

/// The sums over each image's pixels (batch norm: over all) of `dy xhat` and of `dy`, `[2, outer, c]`, which both the
/// gradient by `x` and those by gamma and beta are made of. Inputs: x, its statistics, dy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormGradSums {
    /// Which sets.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f64,
    /// As in [`NormGradX`].
    pub first: usize,
}

/// Whether x, its statistics and dy fit.
fn check(kind: NormKind, first: usize, inputs: &[&Shape]) -> Result<super::Sets, String> {
    let sets = kind.sets(inputs[0])?;
    let (x, dy) = (inputs[0], inputs[2]);
    let alike = dy.rank() == x.rank()
        && dy[..x.rank() - 1] == x[..x.rank() - 1]
        && (dy.channels() == x.channels() && first == 0 || first + x.channels() <= dy.channels());
    if !alike || inputs[1].numel() != 2 * sets.count() {
        return Err(format!("shapes {x}, {} and {dy} do not belong together", inputs[1]));
    }
    Ok(sets)
}

/// dy without the channels that are not x's.
fn slice<'a, T: Real>(io: &Io<'a>, first: usize) -> Cow<'a, [T]> {
    let (dy, c, pitch) = (io.input::<T>(2), io.in_shape(0).channels(), io.in_shape(2).channels());
    if c == pitch {
        return dy.into();
    }
    dy.chunks(pitch).flat_map(|row| &row[first..first + c]).copied().collect()
}

/// x as sets, (x - mean) / sqrt(var + eps), and 1 / sqrt(var + eps), in plain operations through x's own statistics.
fn standardised(x: &Var, kind: NormKind, eps: f64) -> ([usize; 4], Var, Var) {
    let sets = kind.sets(&x.shape()).expect("checked when traced");
    let shape = [sets.outer, sets.rows, sets.groups, sets.c / sets.groups];
    let stats = reference_stats(x, kind);
    let set = [sets.outer, 1, sets.groups, 1];
    let rstd = stats.stretch(sets.count(), &set).add_scalar(eps).sqrt().recip();
    let xhat = x.reshape(&shape).sub(&stats.stretch(0, &set)).mul(&rstd);
    (shape, xhat, rstd)
}

impl Op for NormGradX {
    fn name(&self) -> &'static str {
        "norm_grad_x"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        check(self.kind, self.first, inputs)?;
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let (x, dy) = (&a.inputs[0], &a.inputs[2]);
        let (shape, xhat, rstd) = standardised(x, self.kind, self.eps);
        let g = match a.inputs.get(4) {
            Some(gamma) => dy.mul(&gamma.reshape(&[x.channels()])),
            None => dy.clone(),
        };
        let g = g.reshape(&shape);
        let centred = g.sub(&g.mean(&[1, 3])).sub(&xhat.mul(&g.mul(&xhat).mean(&[1, 3])));
        let dx = centred.mul(&rstd).reshape(&x.shape());
        let mut wrt = vec![x.clone(), dy.clone()];
        wrt.extend(a.inputs.get(4).cloned());
        let mut out = vjp(&[(dx, a.dy.clone())], &wrt);
        // The statistics and the sums are functions of the others.
        out.insert(1, None);
        out.insert(3, None);
        out
    }

    fn flops(&self, inputs: &[&Shape], _: &Shape) -> u64 {
        9 * inputs[0].numel() as u64
    }

    fn reads(&self, i: usize, inputs: &[&Shape], _: &Shape) -> usize {
        if i == 2 { inputs[0].numel() } else { inputs[i].numel() }
    }

    fn cpu(&self, io: &mut Io) {
        let sets = self.kind.sets(io.in_shape(0)).expect("checked when traced");
        dispatch_real!(io.dtype(), T => {
            let gamma = self.affine.then(|| io.input::<T>(4));
            let ([x, stats, sums], dy) = ([0, 1, 3].map(|i| io.input::<T>(i)), slice::<T>(io, self.first));
            kernel::grad_x::<T>(sets, self.shared, self.eps, x, stats, &dy, sums, gamma, io.output());
        });
    }

    fn storage(&self) -> Storage {
        Storage::Mixed { alike: &[0], free: &[2] }
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        Ok(launch::grad_x(self, self.kind.sets(io.shape(0))?, io, gpu))
    }
}

impl Op for NormGradSums {
    fn name(&self) -> &'static str {
        "norm_grad_sums"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let sets = check(self.kind, self.first, inputs)?;
        Ok(Shape::from([2, sets.outer, sets.c]))
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let (x, dy) = (&a.inputs[0], &a.inputs[2]);
        let ([outer, rows, ..], xhat, _) = standardised(x, self.kind, self.eps);
        let shape = [outer, rows, x.channels()];
        let (xhat, g) = (xhat.reshape(&shape), dy.reshape(&shape));
        let sum = |v: &Var| v.sum(&[1]).reshape(&[1, outer, shape[2]]);
        let both = crate::ops::concat::concat(&[&sum(&g.mul(&xhat)), &sum(&g)], 0);
        let mut out = vjp(&[(both, a.dy.clone())], &[x.clone(), dy.clone()]);
        out.insert(1, None);
        out
    }

    fn flops(&self, inputs: &[&Shape], _: &Shape) -> u64 {
        5 * inputs[0].numel() as u64
    }

    fn reads(&self, i: usize, inputs: &[&Shape], _: &Shape) -> usize {
        if i == 2 { inputs[0].numel() } else { inputs[i].numel() }
    }

    fn cpu(&self, io: &mut Io) {
        let sets = self.kind.sets(io.in_shape(0)).expect("checked when traced");
        dispatch_real!(io.dtype(), T => {
            let dy = slice::<T>(io, self.first);
            kernel::grad_sums::<T>(sets, self.eps, io.input(0), io.input(1), &dy, io.output());
        });
    }

    fn storage(&self) -> Storage {
        Storage::Operands(&[0, 2])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (mut list, sets) = (LaunchList::default(), self.kind.sets(io.shape(0))?);
        let operands = GradOperands {
            kinds: [io.inputs[0].kind(), io.inputs[2].kind()],
            x: LaunchArg::Input(0),
            stats: LaunchArg::Input(1),
            dy: LaunchArg::InputAt(2, self.first),
            pitch: io.shape(2).channels(),
        };
        launch::grad_sums(&mut list, sets, operands, self.eps, LaunchArg::Output, gpu);
        Ok(list)
    }
}
