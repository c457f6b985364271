//! Weight clipping: how the first Wasserstein GAN kept its critic Lipschitz (Arjovsky et al., ICML 2017).

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands};
use crate::device::pointwise::{Strided, pointwise};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Var};
use crate::shape::Shape;

/// Limits the parameters, the first `n` elements of a store, to `[low, high]`; the moments stay. In the store's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClampParameters {
    /// Number of parameters.
    pub n: usize,
    /// Least value.
    pub low: f64,
    /// Greatest value.
    pub high: f64,
}

impl Op for ClampParameters {
    fn name(&self) -> &'static str {
        "clamp_parameters"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if self.n > inputs[0].numel() || self.low > self.high {
            return Err(format!(
                "{} parameters of a store of shape {}, limited to [{}, {}]",
                self.n, inputs[0], self.low, self.high
            ));
        }
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![None; a.inputs.len()] // the end of a step: nothing is differentiated through it
    }

    fn memory(&self) -> Memory {
        Memory::InPlace(0)
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let (low, high) = (T::of(self.low), T::of(self.high));
            parallel::for_chunks(&mut io.output::<T>()[..self.n], parallel::CHUNK, |_, piece| {
                // Written so that NaN stays NaN.
                piece.iter_mut().for_each(|p| *p = if *p < low { low } else if *p > high { high } else { *p });
            });
        });
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let own = Strided::dense(LaunchArg::Output, &Shape::from([self.n]), io.output.aligned);
        let clamped = "a < p ? p : a > q ? q : a"; // NaN stays NaN
        Ok(LaunchList::of(pointwise(gpu, clamped, [self.low, self.high], &[self.n], own.clone(), &[own])))
    }
}
