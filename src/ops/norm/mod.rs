//! Normalisation: batch, instance, group and layer norm are one operation over different sets of elements.
//!
//! `y = (x - mean) / sqrt(var + eps) * gamma + beta`, where mean and (biased) variance are those of the element's set:
//! all elements of a channel (batch norm, Ioffe and Szegedy 2015), of a channel of one image (instance norm, Ulyanov
//! et al. 2016), of a group of channels of one image (group norm, Wu and He 2018; with one group layer norm, Ba et al.
//! 2016). The statistics are an operation of their own, because running averages want them too.

mod gradient;
mod join;
mod kernel;
mod launch;
mod samples;

pub use gradient::{NormGradSums, NormGradX};
pub use join::JoinStats;
pub(crate) use kernel::{grad_sums, stats};
pub(crate) use launch::{GradOperands, grad_sums as grad_sums_launches, stats_launches};
pub use samples::samples;

use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands};
use crate::dispatch_real;
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::shape::Shape;

/// Which elements share their statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// Per channel, over batch and space.
    Batch,
    /// Per image and channel, over space.
    Instance,
    /// Per image and group of channels, over space and the group's channels.
    Group(usize),
}

/// `x [n, spatial.., c]` seen as `[outer, rows, groups, c / groups]`: a set is one `(outer, group)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sets {
    pub outer: usize,
    pub rows: usize,
    pub groups: usize,
    pub c: usize,
}

impl Sets {
    /// Elements in a set.
    pub fn size(&self) -> usize {
        self.rows * self.c / self.groups
    }

    /// Number of sets.
    pub fn count(&self) -> usize {
        self.outer * self.groups
    }
}

impl NormKind {
    pub(crate) fn sets(self, x: &Shape) -> Result<Sets, String> {
        if x.rank() < 2 {
            return Err(format!("shape {x}; at least [n, c] is expected"));
        }
        let (n, c) = (x[0], x.channels());
        let rows: usize = x[1..x.rank() - 1].iter().product();
        match self {
            NormKind::Batch => Ok(Sets { outer: 1, rows: n * rows, groups: c, c }),
            NormKind::Instance => Ok(Sets { outer: n, rows, groups: c, c }),
            NormKind::Group(g) if g > 0 && c % g == 0 => Ok(Sets { outer: n, rows, groups: g, c }),
            NormKind::Group(g) => Err(format!("{c} channels do not divide into {g} groups")),
        }
    }
}

/// Mean and biased variance of every set: `x` to `[2, sets]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormStats(pub NormKind);

/// `y = (x - mean) / sqrt(var + eps) * gamma + beta`. Inputs: x, stats, and gamma and beta `[c]` if `affine`.
///
/// Unless `frozen`, `stats` must be [`NormStats`] of `x`, and the derivative by `x` is the total one, through the
/// statistics. Frozen statistics (running averages) are independent values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    /// Which sets.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f64,
    /// Whether gamma and beta are given.
    pub affine: bool,
    /// Whether the statistics do not depend on `x`.
    pub frozen: bool,
}

impl Op for NormStats {
    fn name(&self) -> &'static str {
        "norm_stats"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(Shape::from([2, self.0.sets(inputs[0])?.count()]))
    }

    /// Statistics that someone else than the norm differentiates: by plain operations.
    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let x = a.inputs[0].graph().var(a.inputs[0].id().expect("traced"));
        let stats = reference_stats(&x, self.0);
        vec![crate::ops::gradient::vjp(&[(stats, a.dy.clone())], &[x]).remove(0)]
    }

    fn flops(&self, inputs: &[&Shape], _: &Shape) -> u64 {
        4 * inputs[0].numel() as u64
    }

    fn cpu(&self, io: &mut Io) {
        let sets = self.0.sets(io.in_shape(0)).expect("checked when traced");
        dispatch_real!(io.dtype(), T => kernel::stats::<T>(sets, io.input(0), io.output()));
    }

    fn storage(&self) -> Storage {
        Storage::Operands(&[0])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let mut list = LaunchList::default();
        let (x, kind) = (LaunchArg::Input(0), io.inputs[0].kind());
        launch::stats_launches(&mut list, self.0.sets(io.shape(0))?, kind, x, LaunchArg::Output, gpu);
        Ok(list)
    }
}

impl Op for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let sets = self.kind.sets(inputs[0])?;
        if inputs[1].numel() != 2 * sets.count() {
            return Err(format!("statistics of shape {} for {} sets", inputs[1], sets.count()));
        }
        if inputs.len() != if self.affine { 4 } else { 2 } || inputs[2..].iter().any(|s| s.numel() != sets.c)
        {
            return Err(format!("scale and shift of {} channels are expected", sets.c));
        }
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        if self.frozen {
            let y = reference(a.inputs, self.kind, self.eps);
            return crate::ops::gradient::vjp(&[(y, a.dy.clone())], a.inputs);
        }
        let (x, stats) = (&a.inputs[0], &a.inputs[1]);
        let sums = x.apply(NormGradSums { kind: self.kind, eps: self.eps, first: 0 }, &[stats, a.dy]);
        let dx = a.want(0, || {
            let (kind, eps, affine) = (self.kind, self.eps, self.affine);
            let op = NormGradX { kind, eps, affine, first: 0, shared: 1 };
            let mut inputs = vec![stats, a.dy, &sums];
            inputs.extend(a.inputs.get(2));
            x.apply(op, &inputs)
        });
        let mut out = vec![dx, None];
        if self.affine {
            let c = a.inputs[2].shape();
            let outer = sums.shape()[1];
            let total = if outer > 1 { sums.sum(&[1]) } else { sums };
            out.push(a.want(2, || total.stretch(0, &c)));
            out.push(a.want(3, || total.stretch(c.numel(), &c)));
        }
        out
    }

    fn flops(&self, inputs: &[&Shape], _: &Shape) -> u64 {
        4 * inputs[0].numel() as u64
    }

    fn cpu(&self, io: &mut Io) {
        let sets = self.kind.sets(io.in_shape(0)).expect("checked when traced");
        dispatch_real!(io.dtype(), T => {
            let affine = self.affine.then(|| (io.input::<T>(2), io.input::<T>(3)));
            kernel::normalize::<T>(sets, self.eps, io.input(0), io.input(1), affine, io.output());
        });
    }

    fn storage(&self) -> Storage {
        Storage::Mixed { alike: &[], free: &[0] }
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        Ok(launch::normalize(self.kind.sets(io.shape(0))?, io, self.eps, self.affine, gpu))
    }
}

/// The statistics in plain operations: their meaning, and what second derivatives are taken of.
pub(crate) fn reference_stats(x: &Var, kind: NormKind) -> Var {
    let sets = kind.sets(&x.shape()).expect("checked when traced");
    let x4 = x.reshape(&[sets.outer, sets.rows, sets.groups, sets.c / sets.groups]);
    let flat = |v: &Var| v.reshape(&[1, sets.count()]);
    crate::ops::concat::concat(&[&flat(&x4.mean(&[1, 3])), &flat(&x4.variance(&[1, 3], false))], 0)
}

/// The normalisation in plain operations, with the statistics taken as given: inputs as [`Normalize`]'s.
pub(crate) fn reference(inputs: &[Var], kind: NormKind, eps: f64) -> Var {
    let (x, stats) = (&inputs[0], &inputs[1]);
    let sets = kind.sets(&x.shape()).expect("checked when traced");
    let x4 = x.reshape(&[sets.outer, sets.rows, sets.groups, sets.c / sets.groups]);
    let set = [sets.outer, 1, sets.groups, 1];
    let (mean, var) = (stats.stretch(0, &set), stats.stretch(sets.count(), &set));
    let mut y = x4.sub(&mean).div(&var.add_scalar(eps).sqrt()).reshape(&x.shape());
    if let [gamma, beta] = &inputs[2..] {
        let c = x.shape().channels();
        y = y.mul(&gamma.reshape(&[c])).add(&beta.reshape(&[c]));
    }
    y
}

impl Var {
    /// Mean and biased variance of every set: `[2, sets]`.
    #[track_caller]
    pub fn norm_stats(&self, kind: NormKind) -> Var {
        self.apply(NormStats(kind), &[])
    }

    /// Normalises with this value's own statistics.
    #[track_caller]
    pub fn normalize(&self, kind: NormKind, eps: f64, affine: Option<(&Var, &Var)>) -> Var {
        let stats = self.norm_stats(kind);
        self.normalize_with(&stats, kind, eps, affine, false)
    }

    /// Normalises with given statistics; `frozen` if they do not depend on this value.
    #[track_caller]
    pub fn normalize_with(
        &self,
        stats: &Var,
        kind: NormKind,
        eps: f64,
        affine: Option<(&Var, &Var)>,
        frozen: bool,
    ) -> Var {
        let mut inputs = vec![stats];
        inputs.extend(affine.into_iter().flat_map(|(g, b)| [g, b]));
        self.apply(Normalize { kind, eps, affine: affine.is_some(), frozen }, &inputs)
    }

    /// Layer norm over all axes from `first` on, with a scale and a shift for every element.
    #[track_caller]
    pub fn layer_norm(&self, first: usize, eps: f64, affine: Option<(&Var, &Var)>) -> Var {
        let shape = self.shape();
        let (outer, inner) = shape.split_at(first.min(shape.rank()));
        let flat = self.reshape(&[outer.iter().product(), 1, inner.iter().product()]);
        let y = flat.normalize(NormKind::Group(1), eps, None).reshape(&shape);
        affine.map_or(y.clone(), |(g, b)| y.mul(g).add(b))
    }
}
