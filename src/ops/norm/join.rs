//! From statistics of channels to those of groups of channels: what the fusion passes make of a group norm.

use super::launch;
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Var};
use crate::shape::Shape;

/// Mean and biased variance of groups of channels from those of the channels, all of which are of equally many elements:
/// `[2, n * channels]`, to the same shape, in which every channel has its group's. Made after differentiation, so it has no
/// derivative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinStats {
    /// Channels of an image.
    pub channels: usize,
    /// Groups of them.
    pub groups: usize,
}

impl JoinStats {
    fn run<T: Real>(&self, stats: &[T], out: &mut [T]) {
        let each = self.channels / self.groups;
        let (means, vars) = stats.split_at(stats.len() / 2);
        let (new_means, new_vars) = out.split_at_mut(stats.len() / 2);
        let of_groups = means.chunks(each).zip(vars.chunks(each));
        let new = new_means.chunks_mut(each).zip(new_vars.chunks_mut(each));
        for ((means, vars), (new_means, new_vars)) in of_groups.zip(new) {
            let mean = means.iter().map(|m| m.f64()).sum::<f64>() / each as f64;
            let apart = |(m, v): (&T, &T)| v.f64() + (m.f64() - mean).powi(2);
            let var = means.iter().zip(vars).map(apart).sum::<f64>() / each as f64;
            new_means.fill(T::of(mean));
            new_vars.fill(T::of(var));
        }
    }
}

impl Op for JoinStats {
    fn name(&self) -> &'static str {
        "join_stats"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let fits = self.groups > 0 && self.channels.is_multiple_of(self.groups);
        if !fits || inputs[0].rank() != 2 || inputs[0][0] != 2 || !inputs[0][1].is_multiple_of(self.channels)
        {
            return Err(format!("no statistics of {} channels in {}", self.channels, inputs[0]));
        }
        Ok(inputs[0].clone())
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        unreachable!("fusion comes after differentiation")
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io.input(0), io.output()));
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        Ok(launch::join(self, io.shape(0)[1] / self.channels, gpu))
    }
}
