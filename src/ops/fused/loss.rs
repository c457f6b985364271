//! A critic's last convolution with its loss and the loss's gradient.

use super::conv::ConvMap;
use super::expression::{Token, source, value};
use super::no_derivative;
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, int, kind};
use crate::dispatch_real;
use crate::dtype::{DType, Real};
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::conv::cuda::launch::{Epilogue, partial_sums};
use crate::shape::Shape;

/// The most results for which one block is the fastest way: beyond, the rest of the device would wait.
pub const MOST_RESULTS: usize = 1 << 14;

/// `v = conv_map(x, w, bias)`, `gradient = code(v)` and `loss = scale * sum of code(v)`, in one flat tensor: gradient, then v
/// if it is kept, then the loss, each from [`ConvLoss::offsets`] on. Others look at it through views, which may be of another
/// type than the tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvLoss {
    /// The convolution, its bias and what follows, without a second tensor.
    pub conv: ConvMap,
    /// Extents of its result.
    pub extents: Shape,
    /// A term of the loss; leaf 0 is v.
    pub loss: Vec<Token>,
    /// The gradient; leaf 0 is v.
    pub gradient: Vec<Token>,
    /// A factor of the loss.
    pub scale: f64,
    /// How the gradient is stored.
    pub gradient_dtype: DType,
    /// How v is stored, if anybody else reads it.
    pub kept: Option<DType>,
    /// FLOPs of what was fused.
    pub flops: u64,
}

impl ConvLoss {
    /// Where gradient, v and loss begin, and where all ends, in elements of the tensor, whose type is `dtype`. Each begins
    /// where vectors may.
    pub fn offsets(&self, dtype: DType) -> [usize; 4] {
        let n = self.extents.numel();
        let room = |d: DType| (n * d.size()).div_ceil(dtype.size()).next_multiple_of(4);
        let v = room(self.gradient_dtype);
        let loss = v + self.kept.map_or(0, room);
        [0, v, loss, loss + 1]
    }
}

impl Op for ConvLoss {
    fn name(&self) -> &'static str {
        "conv_loss"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        self.conv.infer(inputs)?;
        Ok(Shape::from([self.offsets(DType::F32)[3]]))
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        no_derivative()
    }

    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        self.flops
    }

    fn product_flops(&self, inputs: &[&Shape], _: &Shape) -> u64 {
        self.conv.product_flops(inputs, &self.extents)
    }

    fn reads(&self, i: usize, inputs: &[&Shape], _: &Shape) -> usize {
        self.conv.reads(i, inputs, &self.extents)
    }

    fn cpu(&self, io: &mut Io) {
        let n = self.extents.numel();
        dispatch_real!(io.dtype(), T => {
            let mut v = vec![<T as num_traits::Zero>::zero(); n];
            self.conv.finish(&mut v, &self.extents, io);
            let [_, kept, loss, _] = self.offsets(T::DTYPE);
            let out = io.output::<T>();
            out[..n].iter_mut().zip(&v).enumerate().for_each(|(i, (o, v))| *o = value(&self.gradient, i, |_| *v));
            let total: f64 = v.iter().enumerate().map(|(i, v)| value::<T>(&self.loss, i, |_| *v).f64()).sum();
            out[loss] = T::of(self.scale * total);
            if self.kept.is_some() {
                out[kept..kept + n].copy_from_slice(&v);
            }
        });
    }

    fn storage(&self) -> Storage {
        Storage::Product(&[0, 1])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let mut list = LaunchList::default();
        let (g, pass) = self.conv.kind.geometry(io, &self.extents);
        let n = self.extents.numel();
        let (partial, slices) = partial_sums(&mut list, &g, pass, io, gpu, n);
        let epilogue: Epilogue = self.conv.epilogue(io);
        let mut constants = epilogue.constants(kind(self.gradient_dtype));
        constants.push(format!("PREDICTION={}", u8::from(self.kept.is_some())));
        constants.push(format!("PREDICTION_TYPE={}", kind(self.kept.unwrap_or(DType::F32))));
        constants.push(format!("LOSS(v)={}", source(&self.loss, &["v"])));
        constants.push(format!("GRADIENT(v)={}", source(&self.gradient, &["v"])));
        let [gradient, kept, loss, _] = self.offsets(DType::F32).map(LaunchArg::OutputAt);
        let args = vec![
            partial,
            epilogue.bias.unwrap_or(LaunchArg::Null),
            gradient,
            kept,
            loss,
            int(n),
            int(slices),
            int(self.extents.channels()),
            (self.scale as f32).into(),
        ];
        let kernel = Specialisation::new("conv_loss.cu", constants);
        list.push(Launch { threads: 512, ..Launch::new(kernel, "conv_loss", [1, 1, 1], args) });
        Ok(list)
    }
}
