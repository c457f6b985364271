//! Running a plan with a look at every value as soon as it is there: how one finds where a number stopped being one.

use super::Program;
use super::States;
use super::device::{LiveStates, Runner};
use super::gpu::{DeviceStates, GpuProgram};
use crate::compile::plan::Step;
use crate::device::backend::Backend;
use crate::dtype::Real;
use crate::error::Result;

impl Program {
    /// As [`Program::run`]; `see` is shown the number of every step, the step, and what it wrote.
    pub fn run_checked<T: Real>(
        &mut self,
        states: &mut States,
        inputs: &[(&str, &[T])],
        mut see: impl FnMut(usize, &Step, &[T]),
    ) {
        self.walk(states, inputs, |i, step, memory| {
            super::run_step(step, memory);
            see(i, step, memory.read(&step.output));
        });
    }
}

impl<B: Backend> GpuProgram<B> {
    /// As [`GpuProgram::run`], never as a recording; `see` is shown the number of every step, the step, and what it wrote,
    /// copied to the host: this is slow.
    pub fn run_checked(
        &mut self,
        states: &DeviceStates<B>,
        inputs: &[(&str, &[f32])],
        mut see: impl FnMut(usize, &Step, &[f32]),
    ) -> Result<()> {
        let mut i = 0;
        self.run_observed(states, inputs, |own, step, run| {
            run()?;
            see(i, step, &own.value(states, &step.output)?);
            i += 1;
            Ok(())
        })
    }
}

impl Runner {
    /// As [`Runner::run`]; `see` is shown the number of every step, the step, and what it wrote.
    pub fn run_checked(
        &mut self,
        states: &mut LiveStates,
        inputs: &[(&str, &[f32])],
        see: impl FnMut(usize, &Step, &[f32]),
    ) -> Result<()> {
        match (self, states) {
            (Runner::Cpu(p), LiveStates::Cpu(states)) => {
                p.run_checked(states, inputs, see);
                Ok(())
            }
            (Runner::Cuda(p), LiveStates::Cuda { there, stale, .. }) => {
                *stale = true;
                p.run_checked(there, inputs, see)
            }
            _ => panic!("states of another device"),
        }
    }
}
