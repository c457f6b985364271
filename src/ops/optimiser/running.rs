//! The running mean and variance that batch norm predicts with (Ioffe and Szegedy 2015).

use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands};
use crate::device::pointwise::{Strided, pointwise};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Var};
use crate::shape::Shape;

/// Moves one layer's running statistics towards a batch's: `r = (1 - momentum) r + momentum s`.
///
/// Inputs: a flat buffer `[total]` with the means at `offset..offset + channels` and the variances right behind, and
/// the batch's `[2, channels]` from [`crate::ops::norm::NormStats`], whose variance is biased. Output: the buffer, in
/// its own memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunningStats {
    /// Where the layer's means begin.
    pub offset: usize,
    /// Number of channels.
    pub channels: usize,
    /// Weight of the batch (PyTorch's meaning of the word).
    pub momentum: f64,
    /// `n / (n - 1)` for n elements a channel: makes the batch's variance unbiased, as PyTorch keeps it.
    pub unbiased_factor: f64,
}

impl Op for RunningStats {
    fn name(&self) -> &'static str {
        "running_stats"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if inputs[1].numel() != 2 * self.channels || self.offset + 2 * self.channels > inputs[0].numel() {
            return Err(format!(
                "statistics of shape {} of {} channels at {} of a buffer of shape {}",
                inputs[1], self.channels, self.offset, inputs[0]
            ));
        }
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![None; a.inputs.len()] // kept beside the network: nothing is differentiated through it
    }

    /// As [`crate::ops::fused::Blend`], which takes its place on a GPU.
    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        3 * 2 * self.channels as u64
    }

    fn reads(&self, _: usize, _: &[&Shape], _: &Shape) -> usize {
        2 * self.channels
    }

    fn writes(&self, _: &Shape) -> usize {
        2 * self.channels
    }

    fn memory(&self) -> Memory {
        Memory::InPlace(0)
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let c = self.channels;
            let own = &mut io.output::<T>()[self.offset..self.offset + 2 * c];
            let (keep, new) = (T::of(1.0 - self.momentum), T::of(self.momentum));
            let unbiased = T::of(self.unbiased_factor);
            for (i, (r, &s)) in own.iter_mut().zip(io.input::<T>(1)).enumerate() {
                *r = keep * *r + new * if i < c { s } else { s * unbiased };
            }
        });
    }

    fn launches(&self, _: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (c, m) = (self.channels, self.momentum);
        let half = |i: usize, weight: f64| {
            let own = Strided::new(LaunchArg::OutputAt(self.offset + i * c), vec![1], false);
            let new = Strided::new(LaunchArg::InputAt(1, i * c), vec![1], false);
            pointwise(gpu, "p * a + q * b", [1.0 - m, weight], &[c], own.clone(), &[own, new])
        };
        let launches = vec![half(0, m), half(1, m * self.unbiased_factor)];
        Ok(LaunchList { launches, ..LaunchList::default() })
    }
}
