//! A convolution whose sums go through bias, activation and a second tensor before they are stored.

use super::expression::{Token, source, value};
use super::no_derivative;
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands};
use crate::dispatch_real;
use crate::graph::{GradArgs, Memory, Op, Storage, Var};
use crate::ops::conv::launch::{Epilogue, Pass, launches};
use crate::ops::conv::{Conv, ConvGradX};
use crate::shape::Shape;

/// Which pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConvKind {
    /// `conv(x, w)`.
    Forward(Conv),
    /// `conv_grad_x(dy, w)`.
    GradX(ConvGradX),
}

/// `y = code(conv(x, w) + bias, extra)`. Inputs: x and w, the bias if there is one, the second tensor if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvMap {
    /// The convolution.
    pub kind: ConvKind,
    /// Whether there is a bias, one number a channel.
    pub bias: bool,
    /// Whether there is a second tensor of the output's shape.
    pub extra: bool,
    /// Leaf 0 is the sum with its bias, leaf 1 the second tensor's element.
    pub code: Vec<Token>,
    /// FLOPs of what was fused.
    pub flops: u64,
}

impl ConvMap {
    fn op(&self) -> &dyn Op {
        match &self.kind {
            ConvKind::Forward(op) => op,
            ConvKind::GradX(op) => op,
        }
    }
}

impl Op for ConvMap {
    fn name(&self) -> &'static str {
        match &self.kind {
            ConvKind::Forward(_) => "conv_map",
            ConvKind::GradX(_) => "conv_grad_x_map",
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

    /// Each element of the second tensor is read by who stores the result there.
    fn memory(&self) -> Memory {
        if self.extra { Memory::Reuse(2 + usize::from(self.bias)) } else { Memory::Fresh }
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let mut sums = vec![<T as num_traits::Zero>::zero(); io.out_shape().numel()];
            self.op().cpu(&mut io.into_buffer(2, &mut sums));
            let extra = if self.extra { io.copied::<T>(2 + usize::from(self.bias)) } else { Vec::new() };
            let bias = if self.bias { io.input::<T>(2) } else { &[] };
            let channels = io.out_shape().channels();
            for (i, (v, sum)) in io.output::<T>().iter_mut().zip(sums).enumerate() {
                let sum = if self.bias { sum + bias[i % channels] } else { sum };
                *v = value(&self.code, |leaf| if leaf == 0 { sum } else { extra[i] });
            }
        });
    }

    fn storage(&self) -> Storage {
        // A bias is fp32.
        if self.bias { Storage::Product(&[0, 1, 3]) } else { Storage::Product(&[0, 1, 2]) }
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (g, pass) = match &self.kind {
            ConvKind::Forward(op) => (op.0.geometry(io.shape(0), io.shape(1), io.out()), Pass::Forward),
            ConvKind::GradX(op) => (op.spec.geometry(io.out(), io.shape(1), io.shape(0)), Pass::GradX),
        };
        let extra = 2 + usize::from(self.bias);
        let epilogue = Epilogue {
            bias: self.bias.then_some(LaunchArg::Input(2)),
            extra: self.extra.then_some(LaunchArg::Input(extra)),
            extra_dtype: self.extra.then(|| io.inputs[extra].dtype),
            activation: (self.code != [Token::Leaf(0)]).then(|| source(&self.code, &["v", "x"])),
        };
        Ok(launches(&g, pass, io, gpu, &epilogue))
    }
}
