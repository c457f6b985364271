//! A convolution whose sums go through bias, activation and a second tensor before they are stored.

use super::expression::{Token, source, value};
use super::no_derivative;
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Storage, Var};
use crate::ops::conv::cuda::launch::{Epilogue, Pass, launches};
use crate::ops::conv::geometry::ConvGeometry;
use crate::ops::conv::{Conv, ConvGradW, ConvGradX};
use crate::shape::Shape;

/// Which pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConvKind {
    /// `conv(x, w)`.
    Forward(Conv),
    /// `conv_grad_x(dy, w)`.
    GradX(ConvGradX),
    /// `conv_grad_w(x, dy)`, without a bias.
    GradW(ConvGradW),
}

impl ConvKind {
    /// The pass and its sizes, given its operands and its result's extents.
    pub(super) fn geometry(&self, io: &Operands, out: &Shape) -> (ConvGeometry, Pass) {
        match self {
            ConvKind::Forward(op) => (op.0.geometry(io.shape(0), io.shape(1), out), Pass::Forward),
            ConvKind::GradX(op) => (op.spec.geometry(out, io.shape(1), io.shape(0)), Pass::GradX),
            ConvKind::GradW(op) => (op.spec.geometry(io.shape(0), out, io.shape(1)), Pass::GradW),
        }
    }
}

/// `y = code(conv(x, w) + bias, extra)`, or of another pass. Inputs: the pass's two, what the bias lies in if there is one, the second tensor if there
/// is one.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvMap {
    /// The convolution.
    pub kind: ConvKind,
    /// Where the bias, one number a channel, begins in its input, if there is one.
    pub bias: Option<usize>,
    /// Whether there is a second tensor of the output's shape.
    pub extra: bool,
    /// Leaf 0 is the sum with its bias, leaf 1 the second tensor's element.
    pub code: Vec<Token>,
    /// FLOPs of what was fused.
    pub flops: u64,
}

impl ConvMap {
    pub(super) fn op(&self) -> &dyn Op {
        match &self.kind {
            ConvKind::Forward(op) => op,
            ConvKind::GradX(op) => op,
            ConvKind::GradW(op) => op,
        }
    }

    /// Computes the result, of the given extents, on the CPU.
    pub(super) fn finish<T: Real>(&self, out: &mut [T], shape: &Shape, io: &mut Io) {
        self.op().cpu(&mut io.into_buffer(2, out, shape));
        let extra =
            if self.extra { io.copied::<T>(2 + usize::from(self.bias.is_some())) } else { Vec::new() };
        let bias = self.bias.map(|first| &io.input::<T>(2)[first..]);
        let channels = shape.channels();
        for (i, v) in out.iter_mut().enumerate() {
            let sum = bias.map_or(*v, |b| *v + b[i % channels]);
            *v = value(&self.code, i, |leaf| if leaf == 0 { sum } else { extra[i] });
        }
    }

    /// What its kernel does before it stores.
    pub(super) fn epilogue(&self, io: &Operands) -> Epilogue {
        let extra = 2 + usize::from(self.bias.is_some());
        Epilogue {
            bias: self.bias.map(|first| LaunchArg::InputAt(2, first)),
            extra: self.extra.then_some(LaunchArg::Input(extra)),
            extra_dtype: self.extra.then(|| io.inputs[extra].dtype),
            activation: (self.code != [Token::Leaf(0)]).then(|| source(&self.code, &["v", "x"])),
            stats: None,
        }
    }
}

impl Op for ConvMap {
    fn name(&self) -> &'static str {
        match &self.kind {
            ConvKind::Forward(_) => "conv_map",
            ConvKind::GradX(_) => "conv_grad_x_map",
            ConvKind::GradW(_) => "conv_grad_w_map",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        self.op().infer(&inputs[..2])
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        no_derivative()
    }

    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        self.flops
    }

    fn product_flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        self.op().product_flops(&inputs[..2], output)
    }

    fn reads(&self, i: usize, inputs: &[&Shape], output: &Shape) -> usize {
        if i == 2 && self.bias.is_some() { output.channels() } else { inputs[i].numel() }
    }

    /// Each element of the second tensor is read by who stores the result there.
    fn memory(&self) -> Memory {
        if self.extra { Memory::Reuse(2 + usize::from(self.bias.is_some())) } else { Memory::Fresh }
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let shape = io.out_shape().clone();
            let mut values = vec![<T as num_traits::Zero>::zero(); shape.numel()];
            self.finish(&mut values, &shape, io);
            io.output::<T>().copy_from_slice(&values);
        });
    }

    fn storage(&self) -> Storage {
        if matches!(self.kind, ConvKind::GradW(_)) {
            return Storage::Operands(&[0, 1]);
        }
        // A bias is fp32.
        if self.bias.is_some() { Storage::Product(&[0, 1, 3]) } else { Storage::Product(&[0, 1, 2]) }
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (g, pass) = self.kind.geometry(io, io.out());
        Ok(launches(&g, pass, io, gpu, &self.epilogue(io)))
    }
}
