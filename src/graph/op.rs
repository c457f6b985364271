//! What an operation has to say about itself.

use super::Var;
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::shape::Shape;
use std::any::Any;
use std::fmt::Debug;

/// An operation: its shapes, its derivative, its cost and how each device runs it. Values of an operation's type are
/// small and immutable; their `Debug` form must tell two different operations apart (equal ones are merged).
pub trait Op: Any + Debug + Send + Sync {
    /// The name that profiles and messages use.
    fn name(&self) -> &'static str;

    /// The output's shape, or one sentence on why the inputs do not fit.
    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String>;

    /// Traces the gradient of the loss by each input, given `args.dy`, the gradient by the output. `None` where it is
    /// zero or where `args.needs` says that nobody asks.
    fn grad(&self, args: &GradArgs) -> Vec<Option<Var>>;

    /// Floating-point operations, counted as the field does (a multiply-add is two; data movement is none).
    fn flops(&self, _inputs: &[&Shape], _output: &Shape) -> u64 {
        0
    }

    /// Those among [`Op::flops`] that are of convolutions and matrix products, counted as PyTorch's `FlopCounterMode`
    /// does: multiply-adds are two, taps on padding are counted, additions of a bias are not.
    fn product_flops(&self, _inputs: &[&Shape], _output: &Shape) -> u64 {
        0
    }

    /// How many elements of input `i` are read: all of them, if it is not a stretch of something larger.
    fn reads(&self, i: usize, inputs: &[&Shape], _output: &Shape) -> usize {
        inputs[i].numel()
    }

    /// How many elements of the output are written: all of them, if it is not an update of a few.
    fn writes(&self, output: &Shape) -> usize {
        output.numel()
    }

    /// How the output relates to the inputs' memory.
    fn memory(&self) -> Memory {
        Memory::Fresh
    }

    /// What may be stored in bf16 under mixed precision.
    fn storage(&self) -> Storage {
        Storage::Single
    }

    /// Computes the output on the CPU. The result must not depend on the number of threads.
    fn cpu(&self, io: &mut Io);

    /// What a GPU launches to compute the output, or one sentence on why none can. A pure function of the operands'
    /// shapes. An operation whose [`Op::memory`] is [`Memory::InPlace`] finds the old value in the output and must not
    /// look at that input; [`Memory::Reuse`] means that the input may be the output's memory.
    fn launches(&self, _io: &Operands, _gpu: &GpuTraits) -> Result<LaunchList, String> {
        Err(format!("{} has no kernel for the GPU", self.name()))
    }
}

/// How an operation's output relates to its inputs' memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Memory of its own.
    Fresh,
    /// Input 0's bytes, beginning `0` elements in: nothing is computed.
    View(usize),
    /// May take over the given input's memory when that input is not used afterwards.
    Reuse(usize),
    /// Updates the given input's memory (a state); the output is the new value. On entry the output holds the old.
    InPlace(usize),
    /// Every input, one after the other, flattened: inputs may be computed right into their place.
    Pack,
}

/// What of an operation may be stored in bf16 on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Nothing: operands and result are fp32.
    Single,
    /// The listed operands; the others and the result are fp32 (sums, statistics, gradients by weights).
    Operands(&'static [usize]),
    /// Operands and result, each by itself; the result is, where an operand is.
    Any,
    /// The listed operands; the result is, whatever the operands are: a matrix product.
    Product(&'static [usize]),
    /// The operands `alike` are stored as the result is, those of `free` either way, the others in fp32. The result is in
    /// bf16 where all of `alike` are, or, if that is empty, any of `free`.
    Mixed {
        /// As the result.
        alike: &'static [usize],
        /// Either way.
        free: &'static [usize],
    },
}

/// What [`Op::grad`] is given.
pub struct GradArgs<'a> {
    /// The operation's inputs.
    pub inputs: &'a [Var],
    /// Its output.
    pub output: &'a Var,
    /// The gradient by the output.
    pub dy: &'a Var,
    /// Which inputs' gradients are wanted.
    pub needs: &'a [bool],
}

impl GradArgs<'_> {
    /// `Some(f())` if input `i`'s gradient is wanted.
    pub fn want(&self, i: usize, f: impl FnOnce() -> Var) -> Option<Var> {
        self.needs[i].then(f)
    }
}

/// FLOPs and bytes of a node: what a roofline needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: u64,
    /// Those of convolutions and matrix products ([`Op::product_flops`]).
    pub products: u64,
    /// Bytes read and written, each input and the output once.
    pub bytes: u64,
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(all: I) -> Cost {
        all.fold(Cost::default(), |a, c| Cost {
            flops: a.flops + c.flops,
            products: a.products + c.products,
            bytes: a.bytes + c.bytes,
        })
    }
}
