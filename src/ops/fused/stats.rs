//! A convolution with the statistics of its result, for the norm that follows.

use super::conv::ConvMap;
use super::no_derivative;
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands, kind};
use crate::dispatch_real;
use crate::dtype::{DType, Real};
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::conv::launch::{Stats, launches_as, takes_stats};
use crate::ops::conv::{hopper, window};
use crate::ops::norm::{self, NormKind};
use crate::shape::Shape;

/// `v = conv_map(x, w, bias)` and the statistics of v as [`crate::ops::norm::NormStats`] gives them, in one flat tensor, each from
/// [`ConvStats::offsets`] on. Others look at it through views, which may be of another type than the tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvStats {
    /// The convolution, and its bias, without a second tensor.
    pub conv: ConvMap,
    /// Extents of its result.
    pub extents: Shape,
    /// Which elements share their statistics.
    pub kind: NormKind,
    /// How v is stored.
    pub stored: DType,
}

impl ConvStats {
    /// Where v and the statistics begin, and where all ends, in elements of the tensor, whose type is `dtype`.
    pub fn offsets(&self, dtype: DType) -> [usize; 3] {
        let stats = (self.extents.numel() * self.stored.size()).div_ceil(dtype.size());
        [0, stats, stats + 2 * self.sets().count()]
    }

    fn sets(&self) -> norm::Sets {
        self.kind.sets(&self.extents).expect("checked when traced")
    }
}

impl Op for ConvStats {
    fn name(&self) -> &'static str {
        "conv_stats"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        self.conv.infer(inputs)?;
        Ok(Shape::from([self.offsets(DType::F32)[2]]))
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        no_derivative()
    }

    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        self.conv.flops + 4 * self.extents.numel() as u64
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
            let [_, stats, end] = self.offsets(T::DTYPE);
            let out = io.output::<T>();
            out[..v.len()].copy_from_slice(&v);
            norm::stats(self.sets(), &v, &mut out[stats..end]);
        });
    }

    fn storage(&self) -> Storage {
        Storage::Product(&[0, 1])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (g, pass) = self.conv.kind.geometry(io, &self.extents);
        let sets = self.sets();
        let to = LaunchArg::OutputAt(self.offsets(io.output.dtype)[1]);
        let mut epilogue = self.conv.epilogue(io);
        let own = match window::suited(&g, pass, io, gpu) {
            Some(variant) => variant.takes_stats(&g, sets.outer),
            // The kernels of sm_90a leave no statistics; that they multiply faster is worth a pass over the result.
            None => takes_stats(&g, pass, sets.outer, gpu) && hopper::suited(&g, pass, io, gpu).is_none(),
        };
        if own {
            epilogue.stats = Some(Stats { sets: sets.outer, to: to.clone() });
        }
        let mut list = launches_as(&g, pass, io, gpu, &epilogue, kind(self.stored));
        if !own {
            norm::stats_launches(&mut list, sets, kind(self.stored), LaunchArg::Output, to, gpu);
        }
        Ok(list)
    }
}
