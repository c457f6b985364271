//! The fused gradients of a normalisation, and theirs in turn by plain operations.

use super::{NormKind, kernel, launch, reference_stats};
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::dispatch_real;
use crate::graph::{GradArgs, Op, Var};
use crate::ops::gradient::vjp;
use crate::shape::Shape;

/// The total gradient by `x`. Inputs: x, its statistics, dy, and gamma if `affine`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormGradX {
    /// Which sets.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f64,
    /// Whether gamma is given.
    pub affine: bool,
}

/// The gradients by gamma and beta, `[2, c]`. Inputs: x, its statistics, dy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormGradAffine {
    /// Which sets.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f64,
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
        let sets = self.kind.sets(inputs[0])?;
        if inputs[2] != inputs[0] || inputs[1].numel() != 2 * sets.count() {
            return Err(format!(
                "shapes {}, {} and {} do not belong together",
                inputs[0], inputs[1], inputs[2]
            ));
        }
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let (x, dy) = (&a.inputs[0], &a.inputs[2]);
        let (shape, xhat, rstd) = standardised(x, self.kind, self.eps);
        let g = match a.inputs.get(3) {
            Some(gamma) => dy.mul(&gamma.reshape(&[x.channels()])),
            None => dy.clone(),
        };
        let g = g.reshape(&shape);
        let centred = g.sub(&g.mean(&[1, 3])).sub(&xhat.mul(&g.mul(&xhat).mean(&[1, 3])));
        let dx = centred.mul(&rstd).reshape(&x.shape());
        let mut wrt = vec![x.clone(), dy.clone()];
        wrt.extend(a.inputs.get(3).cloned());
        let mut out = vjp(&[(dx, a.dy.clone())], &wrt);
        out.insert(1, None);
        out
    }

    fn flops(&self, inputs: &[&Shape], _: &Shape) -> u64 {
        9 * inputs[0].numel() as u64
    }

    fn cpu(&self, io: &mut Io) {
        let sets = self.kind.sets(io.in_shape(0)).expect("checked when traced");
        dispatch_real!(io.dtype(), T => {
            let gamma = self.affine.then(|| io.input::<T>(3));
            kernel::grad_x::<T>(sets, self.eps, io.input(0), io.input(1), io.input(2), gamma, io.output());
        });
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        Ok(launch::grad_x(self.kind.sets(io.shape(0))?, self.eps, self.affine, gpu))
    }
}

impl Op for NormGradAffine {
    fn name(&self) -> &'static str {
        "norm_grad_affine"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let sets = self.kind.sets(inputs[0])?;
        if inputs[2] != inputs[0] || inputs[1].numel() != 2 * sets.count() {
            return Err(format!(
                "shapes {}, {} and {} do not belong together",
                inputs[0], inputs[1], inputs[2]
            ));
        }
        Ok(Shape::from([2, sets.c]))
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let (x, dy) = (&a.inputs[0], &a.inputs[2]);
        let (_, xhat, _) = standardised(x, self.kind, self.eps);
        let c = x.channels();
        let rows = [x.shape().numel() / c, c];
        let (xhat, g) = (xhat.reshape(&rows), dy.reshape(&rows));
        let both = crate::ops::concat::concat(&[&g.mul(&xhat).sum(&[0]), &g.sum(&[0])], 0);
        let mut out = vjp(&[(both, a.dy.clone())], &[x.clone(), dy.clone()]);
        out.insert(1, None);
        out
    }

    fn flops(&self, inputs: &[&Shape], _: &Shape) -> u64 {
        5 * inputs[0].numel() as u64
    }

    fn cpu(&self, io: &mut Io) {
        let sets = self.kind.sets(io.in_shape(0)).expect("checked when traced");
        dispatch_real!(io.dtype(), T => {
            kernel::grad_affine::<T>(sets, self.eps, io.input(0), io.input(1), io.input(2), io.output());
        });
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        Ok(launch::grad_affine(self.kind.sets(io.shape(0))?, self.eps, gpu))
    }
}
