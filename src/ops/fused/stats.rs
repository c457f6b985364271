//! A convolution with what a norm wants to know of its result.

use super::conv::ConvMap;
use super::no_derivative;
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands, kind};
use crate::dispatch_real;
use crate::dtype::{DType, Real};
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::conv::cuda::launch::{Normed, Stats, launches_as, takes_stats};
use crate::ops::norm::{self, GradOperands, NormGradSums, NormKind};
use crate::shape::Shape;

/// `v = conv_map(x, w, bias, extra)` and what is wanted of v, in one flat tensor, each from [`ConvStats::offsets`] on. Others look
/// at it through views, which may be of another type than the tensor. Inputs: the convolution's, then those of `wanted`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvStats {
    /// The convolution.
    pub conv: ConvMap,
    /// Extents of its result.
    pub extents: Shape,
    /// What is wanted.
    pub wanted: Wanted,
    /// How v is stored.
    pub stored: DType,
}

/// What a norm wants to know of a convolution's result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// The statistics of v as [`norm::NormStats`] gives them.
    Statistics(NormKind),
    /// v being the gradient by a norm's result, the sums of [`NormGradSums`] for a norm of so many channels. Inputs: the norm's
    /// input and its statistics.
    Sums(NormGradSums, usize),
}

impl ConvStats {
    /// Where v and the statistics begin, and where all ends, in elements of the tensor, whose type is `dtype`.
    pub fn offsets(&self, dtype: DType) -> [usize; 3] {
        let stats = (self.extents.numel() * self.stored.size()).div_ceil(dtype.size());
        [0, stats, stats + 2 * self.sets().count()]
    }

    fn sets(&self) -> norm::Sets {
        let (kind, shape) = match self.wanted {
            Wanted::Statistics(kind) => (kind, self.extents.clone()),
            Wanted::Sums(sums, channels) => {
                let mut shape = self.extents.to_vec();
                *shape.last_mut().expect("pixels and channels") = channels;
                (sums.kind, Shape::from(&shape[..]))
            }
        };
        kind.sets(&shape).expect("checked when traced")
    }

    /// Which input the norm's is.
    fn normed(&self) -> usize {
        2 + usize::from(self.conv.bias.is_some()) + usize::from(self.conv.extra)
    }
}

impl Op for ConvStats {
    fn name(&self) -> &'static str {
        match self.wanted {
            Wanted::Statistics(_) => "conv_stats",
            Wanted::Sums(..) => "conv_grad_sums",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        self.conv.infer(inputs)?;
        Ok(Shape::from([self.offsets(DType::F32)[2]]))
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        no_derivative()
    }

    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        let sets = self.sets();
        let each = if matches!(self.wanted, Wanted::Statistics(_)) { 4 } else { 5 };
        self.conv.flops + each * (sets.outer * sets.rows * sets.c) as u64
    }

    fn product_flops(&self, inputs: &[&Shape], _: &Shape) -> u64 {
        self.conv.product_flops(inputs, &self.extents)
    }

    fn reads(&self, i: usize, inputs: &[&Shape], _: &Shape) -> usize {
        self.conv.reads(i, inputs, &self.extents)
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let mut v = vec![<T as num_traits::Zero>::zero(); self.extents.numel()];
            self.conv.finish(&mut v, &self.extents, io);
            let ([_, at, end], sets) = (self.offsets(T::DTYPE), self.sets());
            let normed = self.normed();
            let mut wanted = vec![<T as num_traits::Zero>::zero(); end - at];
            match self.wanted {
                Wanted::Statistics(_) => norm::stats(sets, &v, &mut wanted),
                Wanted::Sums(sums, channels) => {
                    let rows = v.chunks(self.extents.channels());
                    let dy: Vec<T> = rows.flat_map(|row| &row[sums.first..][..channels]).copied().collect();
                    norm::grad_sums(sets, sums.eps, io.input(normed), io.input(normed + 1), &dy, &mut wanted);
                }
            }
            let out = io.output::<T>();
            out[..v.len()].copy_from_slice(&v);
            out[at..end].copy_from_slice(&wanted);
        });
    }

    /// A bias and a norm's statistics are fp32.
    fn storage(&self) -> Storage {
        let others = usize::from(self.conv.extra) + usize::from(matches!(self.wanted, Wanted::Sums(..)));
        Storage::Product(match (self.conv.bias.is_some(), others) {
            (_, 0) => &[0, 1],
            (false, 1) => &[0, 1, 2],
            (false, _) => &[0, 1, 2, 3],
            (true, 1) => &[0, 1, 3],
            (true, _) => &[0, 1, 3, 4],
        })
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (g, pass) = self.conv.kind.geometry(io, &self.extents);
        let (sets, stored, normed) = (self.sets(), kind(self.stored), self.normed());
        let to = LaunchArg::OutputAt(self.offsets(io.output.dtype)[1]);
        let mut epilogue = self.conv.epilogue(io);
        let own = takes_stats(&g, pass, sets.outer, io, gpu);
        let [x, stats] = [normed, normed + 1].map(LaunchArg::Input);
        if own {
            let normed = match self.wanted {
                Wanted::Statistics(_) => None,
                Wanted::Sums(NormGradSums { eps, first, .. }, channels) => {
                    let kind = io.inputs[normed].kind();
                    Some(Normed { x: x.clone(), kind, stats: stats.clone(), eps, first, channels })
                }
            };
            epilogue.stats = Some(Stats { sets: sets.outer, to: to.clone(), normed });
        }
        let mut list = launches_as(&g, pass, io, gpu, &epilogue, stored);
        if own {
            return Ok(list);
        }
        match self.wanted {
            Wanted::Statistics(_) => {
                norm::stats_launches(&mut list, sets, stored, LaunchArg::Output, to, gpu);
            }
            Wanted::Sums(sums, _) => {
                let kinds = [io.inputs[normed].kind(), stored];
                // In elements of v's type, which is not that of the tensor that it lies in.
                let dy = LaunchArg::OutputAt(sums.first * self.stored.size() / io.output.dtype.size());
                let operands = GradOperands { kinds, x, stats, dy, pitch: self.extents.channels() };
                norm::grad_sums_launches(&mut list, sets, operands, sums.eps, to, gpu);
            }
        }
        Ok(list)
    }
}
