//! Runs on a GPU with marks between what is asked of it, so that it can be told afterwards what took how long. A run
//! without marks knows nothing of them.

use super::gpu::{DeviceStates, GpuProgram};
use crate::device::backend::Timed;
use crate::device::launch::Launch;
use crate::device::occupancy::KernelFacts;
use crate::error::{Error, Result};

/// Marks around the two parts of a run.
pub struct RunMarks<B: Timed> {
    /// Before the inputs are sent.
    pub begun: B::Mark,
    /// When they are where the run reads them.
    pub copied: B::Mark,
    /// When everything is done.
    pub done: B::Mark,
}

impl<B: Timed> RunMarks<B> {
    /// Marks that stand nowhere yet.
    pub fn new(backend: &B) -> Result<Self> {
        Ok(RunMarks { begun: backend.mark()?, copied: backend.mark()?, done: backend.mark()? })
    }
}

/// A launch of a program, and what its kernel takes.
#[derive(Clone, Debug)]
pub struct Launched {
    /// The step of the plan that it belongs to.
    pub step: usize,
    /// The launch.
    pub launch: Launch,
    /// What the kernel takes.
    pub facts: KernelFacts,
    /// The share of a multiprocessor's threads that it can fill, where that is known.
    pub occupancy: Option<f64>,
}

impl<B: Timed> GpuProgram<B> {
    /// All launches, in order.
    pub fn launched(&self) -> Result<Vec<Launched>> {
        let limits = self.backend.limits()?;
        let of_step = |(step, ready): (usize, &Vec<super::gpu::Ready<B>>)| {
            let one = |r: &super::gpu::Ready<B>| {
                let facts = self.backend.facts(&r.kernel)?;
                let occupancy = limits.occupancy(&facts, r.launch.threads as usize, r.launch.shared);
                Ok(Launched { step, launch: r.launch.clone(), facts, occupancy })
            };
            ready.iter().map(one).collect::<Result<Vec<Launched>>>()
        };
        Ok(self.ready.iter().enumerate().map(of_step).collect::<Result<Vec<_>>>()?.concat())
    }

    /// As [`GpuProgram::run`], with marks around the copies and around the rest, which is a recording as ever.
    pub fn run_marked(
        &mut self,
        states: &DeviceStates<B>,
        inputs: &[(&str, &[f32])],
        marks: &RunMarks<B>,
    ) -> Result<()> {
        self.backend.place(&marks.begun)?;
        self.begin(states, inputs)?;
        self.backend.place(&marks.copied)?;
        self.go()?;
        self.backend.place(&marks.done)
    }

    /// As [`GpuProgram::run_marked`], as a recording of its own, which is made at the first run: what notes kernels
    /// ([`Timed::note`]) must be there when a recording is made, and training's own is to know nothing of it.
    pub fn run_noted(
        &mut self,
        states: &DeviceStates<B>,
        inputs: &[(&str, &[f32])],
        marks: &RunMarks<B>,
        recording: &mut Option<B::Recording>,
    ) -> Result<()> {
        if recording.is_none() {
            *recording = self.record()?;
        }
        let recording =
            recording.as_ref().ok_or_else(|| Error::input("this device makes no recordings to look into"))?;
        self.backend.place(&marks.begun)?;
        self.begin(states, inputs)?;
        self.backend.place(&marks.copied)?;
        self.backend.replay(recording)?;
        self.backend.place(&marks.done)
    }

    /// As [`GpuProgram::run_marked`], launch by launch and with marks before and behind each, in the order of
    /// [`GpuProgram::launched`]. Nothing is waited for.
    pub fn run_marked_each(
        &mut self,
        states: &DeviceStates<B>,
        inputs: &[(&str, &[f32])],
        marks: &RunMarks<B>,
        each: &[[B::Mark; 2]],
    ) -> Result<()> {
        self.backend.place(&marks.begun)?;
        self.begin(states, inputs)?;
        self.backend.place(&marks.copied)?;
        let mut marks_left = each.iter();
        let mut phase: Option<&str> = None;
        for (step, ready) in self.plan.steps.iter().zip(&self.ready) {
            if phase != Some(&*step.phase) {
                if phase.replace(&step.phase).is_some() {
                    self.backend.leave();
                }
                self.backend.enter(&step.phase);
            }
            self.backend.enter(&format!("{} {}", step.op.name(), step.path));
            for r in ready {
                let [before, behind] = marks_left.next().expect("two marks a launch");
                self.backend.place(before)?;
                let launched = self.backend.launch(&r.kernel, &r.launch, &r.arguments);
                launched
                    .map_err(|e| Error::input(format!("{} in layer {}: {e}", step.op.name(), step.path)))?;
                self.backend.place(behind)?;
            }
            self.backend.leave();
        }
        if phase.is_some() {
            self.backend.leave();
        }
        self.backend.place(&marks.done)
    }
}
