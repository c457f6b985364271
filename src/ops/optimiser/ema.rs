//! The running mean of a network's weights over the steps of training (Polyak and Juditsky 1992; for GANs: Yazici et
//! al., ICLR 2019): it predicts better than the last weights do.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands};
use crate::device::pointwise::{Strided, pointwise};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Var};
use crate::shape::Shape;

/// `e = decay e + (1 - decay) p`. Inputs: e `[n]`, and the store `[slots, n]` whose first row is p. Output: the new e,
/// in the old one's memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmaUpdate {
    /// Weight of the past.
    pub decay: f64,
}

impl Op for EmaUpdate {
    fn name(&self) -> &'static str {
        "ema_update"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if inputs[1].numel() < inputs[0].numel() || inputs[1].channels() != inputs[0].channels() {
            return Err(format!("a mean of shape {} of a store of shape {}", inputs[0], inputs[1]));
        }
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![None; a.inputs.len()] // the end of a step: nothing is differentiated through it
    }

    fn flops(&self, _: &[&Shape], output: &Shape) -> u64 {
        3 * output.numel() as u64
    }

    fn memory(&self) -> Memory {
        Memory::InPlace(0)
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let (keep, new) = (T::of(self.decay), T::of(1.0 - self.decay));
            let p = io.input::<T>(1);
            parallel::for_chunks(io.output::<T>(), parallel::CHUNK, |start, piece| {
                piece.iter_mut().zip(&p[start..]).for_each(|(e, &p)| *e = keep * *e + new * p);
            });
        });
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let flat = Shape::from([io.out().numel()]);
        let mean = Strided::dense(LaunchArg::Output, &flat, io.output.aligned);
        let new = Strided::dense(LaunchArg::Input(1), &flat, io.inputs[1].aligned);
        let weights = [self.decay, 1.0 - self.decay];
        Ok(LaunchList::of(pointwise(gpu, "p * a + q * b", weights, &flat, mean.clone(), &[mean, new])))
    }
}
