//! What is profiled: the programs of a training step on the CPU or on a GPU, as something that runs them and tells when
//! what happened.

use crate::compile::plan::Plan;
use crate::device::backend::Timed;
use crate::error::Result;
use crate::exec::gpu::{DeviceStates, GpuProgram};
use crate::exec::timed::{Launched, RunMarks};
use crate::exec::{Program, States};
use std::collections::HashMap;
use std::time::Instant;

/// What took a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole training step.
    Step,
    /// The host waited for the loader.
    Data,
    /// The host prepared a run's inputs.
    Prepare,
    /// The host ran a program, or asked a GPU for it.
    Submit,
    /// The host read results, waiting for the device.
    Read,
    /// The device received a run's inputs.
    Copy,
    /// The device ran a recording of the program of this number.
    Recording(usize),
    /// The device ran this call of the program of this number.
    Call {
        /// The program.
        part: usize,
        /// The call, as numbered by [`Target::calls`].
        call: usize,
    },
}

/// A stretch of time, in seconds since the measurement began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// What took it.
    pub kind: Kind,
    /// In which training step.
    pub step: usize,
    /// From when.
    pub began: f64,
    /// To when.
    pub ended: f64,
}

impl Span {
    /// How long it took.
    pub fn seconds(&self) -> f64 {
        self.ended - self.began
    }
}

/// Collects spans by the host's clock.
pub struct Tape {
    zero: Instant,
    /// The training step that is going on.
    pub step: usize,
    /// What was collected.
    pub spans: Vec<Span>,
}

impl Default for Tape {
    fn default() -> Self {
        Tape { zero: Instant::now(), step: 0, spans: Vec::new() }
    }
}

impl Tape {
    /// A tape whose times begin where another's did.
    pub fn like(other: &Tape) -> Self {
        Tape { zero: other.zero, ..Tape::default() }
    }

    /// Seconds since the measurement began.
    pub fn now(&self) -> f64 {
        self.zero.elapsed().as_secs_f64()
    }

    /// Adds a span.
    pub fn add(&mut self, kind: Kind, began: f64, ended: f64) {
        self.spans.push(Span { kind, step: self.step, began, ended });
    }

    /// Runs `f` and adds a span of it.
    pub fn time<R>(&mut self, kind: Kind, f: impl FnOnce() -> R) -> R {
        let began = self.now();
        let out = f();
        self.add(kind, began, self.now());
        out
    }
}

/// One thing that a program asks of its device.
#[derive(Clone, Debug)]
pub struct Call {
    /// The step of the plan that it belongs to.
    pub step: usize,
    /// On a GPU, the launch.
    pub launched: Option<Launched>,
}

/// The programs of a training step with their states. Programs are named by their numbers.
pub trait Target {
    /// In words, how times were taken.
    fn timing(&self) -> &'static str;

    /// Whether a run is only asked for, and goes on while the host does something else.
    fn asynchronous(&self) -> bool;

    /// What a program does.
    fn plan(&self, part: usize) -> &Plan;

    /// What a program asks of its device, in order.
    fn calls(&self, part: usize) -> Result<Vec<Call>>;

    /// Bytes of memory that are neither states nor planned temporaries.
    fn other_bytes(&self) -> u64;

    /// From here on times are taken; the device has nothing to do.
    fn begin(&mut self, tape: &mut Tape) -> Result<()>;

    /// Runs a program as in training.
    fn run(&mut self, part: usize, inputs: &[(&str, &[f32])], tape: &mut Tape) -> Result<()>;

    /// Runs a program call by call, each timed.
    fn run_watched(&mut self, part: usize, inputs: &[(&str, &[f32])], tape: &mut Tape) -> Result<()>;

    /// Reads scalars that a run left, and waits for them.
    fn read(&mut self, part: usize, names: &[&str]) -> Result<Vec<f32>>;

    /// Waits until everything is done, and adds spans of what the device did since [`Target::begin`].
    fn settle(&mut self, tape: &mut Tape) -> Result<()>;
}

/// On the CPU.
pub struct CpuTarget {
    /// The programs.
    pub programs: Vec<Program>,
    /// Their states.
    pub states: States,
}

impl Target for CpuTarget {
    fn timing(&self) -> &'static str {
        "the host's clock around every operation"
    }

    fn asynchronous(&self) -> bool {
        false
    }

    fn plan(&self, part: usize) -> &Plan {
        self.programs[part].plan()
    }

    fn calls(&self, part: usize) -> Result<Vec<Call>> {
        Ok((0..self.plan(part).steps.len()).map(|step| Call { step, launched: None }).collect())
    }

    fn other_bytes(&self) -> u64 {
        0
    }

    fn begin(&mut self, _: &mut Tape) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, part: usize, inputs: &[(&str, &[f32])], tape: &mut Tape) -> Result<()> {
        tape.time(Kind::Submit, || self.programs[part].run(&mut self.states, inputs));
        Ok(())
    }

    fn run_watched(&mut self, part: usize, inputs: &[(&str, &[f32])], tape: &mut Tape) -> Result<()> {
        let began = tape.now();
        let mut call = 0;
        self.programs[part].run_observed(&mut self.states, inputs, |_, run| {
            let start = tape.now();
            if call == 0 {
                // Before the first operation the inputs are put in their places.
                tape.add(Kind::Copy, began, start);
            }
            run();
            tape.add(Kind::Call { part, call }, start, tape.now());
            call += 1;
        });
        tape.add(Kind::Submit, began, tape.now());
        Ok(())
    }

    fn read(&mut self, part: usize, names: &[&str]) -> Result<Vec<f32>> {
        Ok(names.iter().map(|n| self.programs[part].scalar(&mut self.states, n) as f32).collect())
    }

    fn settle(&mut self, _: &mut Tape) -> Result<()> {
        Ok(())
    }
}

/// A run whose marks have not been looked at yet.
struct Pending {
    part: usize,
    step: usize,
    marks: usize,
    /// The first pair of marks of its launches, and how many there are.
    each: Option<(usize, usize)>,
}

/// On a device that runs launches.
pub struct GpuTarget<B: Timed> {
    programs: Vec<GpuProgram<B>>,
    states: DeviceStates<B>,
    launches: Vec<usize>,
    other_bytes: u64,
    /// Stands where times begin, and when that was by the host's clock.
    zero: B::Mark,
    zero_at: f64,
    /// Kept from run to run, like what follows.
    marks: Vec<RunMarks<B>>,
    each: Vec<[B::Mark; 2]>,
    pending: Vec<Pending>,
}

impl<B: Timed> GpuTarget<B> {
    /// The programs with their states; `other_bytes` as in [`Target::other_bytes`].
    pub fn new(programs: Vec<GpuProgram<B>>, states: DeviceStates<B>, other_bytes: u64) -> Result<Self> {
        let launches = programs.iter().map(|p| Ok(p.launched()?.len())).collect::<Result<_>>()?;
        let zero = programs[0].backend().mark()?;
        Ok(GpuTarget {
            programs,
            states,
            launches,
            other_bytes,
            zero,
            zero_at: 0.0,
            marks: Vec::new(),
            each: Vec::new(),
            pending: Vec::new(),
        })
    }

    fn backend(&self) -> &B {
        self.programs[0].backend()
    }

    /// Notes a run to come, and makes as many marks as it takes.
    fn expect(&mut self, part: usize, step: usize, each: bool) -> Result<()> {
        let marks = self.pending.len();
        if marks == self.marks.len() {
            let new = RunMarks::new(self.backend())?;
            self.marks.push(new);
        }
        let each = each.then(|| {
            let before = |p: &Pending| p.each.map(|(first, n)| first + n);
            (self.pending.iter().rev().find_map(before).unwrap_or(0), self.launches[part])
        });
        while each.is_some_and(|(first, n)| self.each.len() < first + n) {
            let new = [self.backend().mark()?, self.backend().mark()?];
            self.each.push(new);
        }
        self.pending.push(Pending { part, step, marks, each });
        Ok(())
    }
}

impl<B: Timed> Target for GpuTarget<B> {
    fn timing(&self) -> &'static str {
        "whole steps as in training (each program a recording, replayed), by events around its copies and its replay; \
         kernels by events around every launch, in further steps without recordings"
    }

    fn asynchronous(&self) -> bool {
        true
    }

    fn plan(&self, part: usize) -> &Plan {
        self.programs[part].plan()
    }

    fn calls(&self, part: usize) -> Result<Vec<Call>> {
        let launched = self.programs[part].launched()?;
        Ok(launched.into_iter().map(|l| Call { step: l.step, launched: Some(l) }).collect())
    }

    fn other_bytes(&self) -> u64 {
        self.other_bytes
    }

    fn begin(&mut self, tape: &mut Tape) -> Result<()> {
        self.backend().finish()?;
        self.zero_at = tape.now();
        self.backend().place(&self.zero)
    }

    fn run(&mut self, part: usize, inputs: &[(&str, &[f32])], tape: &mut Tape) -> Result<()> {
        self.expect(part, tape.step, false)?;
        let marks = &self.marks[self.pending.len() - 1];
        let (program, states) = (&mut self.programs[part], &self.states);
        tape.time(Kind::Submit, || program.run_marked(states, inputs, marks))
    }

    fn run_watched(&mut self, part: usize, inputs: &[(&str, &[f32])], tape: &mut Tape) -> Result<()> {
        self.expect(part, tape.step, true)?;
        let last = self.pending.last().expect("just added");
        let (first, n) = last.each.expect("each launch is watched");
        let (marks, each) = (&self.marks[last.marks], &self.each[first..first + n]);
        let (program, states) = (&mut self.programs[part], &self.states);
        tape.time(Kind::Submit, || program.run_marked_each(states, inputs, marks, each))
    }

    fn read(&mut self, part: usize, names: &[&str]) -> Result<Vec<f32>> {
        Ok(self.programs[part].outputs(&self.states, names)?.iter().map(|v| v[0]).collect())
    }

    fn settle(&mut self, tape: &mut Tape) -> Result<()> {
        self.backend().finish()?;
        let backend = self.programs[0].backend();
        // From mark to mark: the driver gives times in single precision, exact only where they are short.
        let (mut last, mut at) = (&self.zero, self.zero_at);
        for run in std::mem::take(&mut self.pending) {
            tape.step = run.step;
            let marks = &self.marks[run.marks];
            let begun = at + backend.seconds(last, &marks.begun)?;
            let copied = begun + backend.seconds(&marks.begun, &marks.copied)?;
            let done = copied + backend.seconds(&marks.copied, &marks.done)?;
            tape.add(Kind::Copy, begun, copied);
            match run.each {
                None => tape.add(Kind::Recording(run.part), copied, done),
                Some((first, n)) => {
                    let (mut from, mut end) = (&marks.copied, copied);
                    for (call, [before, behind]) in self.each[first..first + n].iter().enumerate() {
                        let start = end + backend.seconds(from, before)?;
                        end = start + backend.seconds(before, behind)?;
                        tape.add(Kind::Call { part: run.part, call }, start, end);
                        from = behind;
                    }
                }
            }
            (last, at) = (&marks.done, done);
        }
        Ok(())
    }
}

/// Seconds of each call of each program, over all of its runs.
pub type Samples = HashMap<(usize, usize), Vec<f64>>;
