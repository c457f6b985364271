//! What is profiled: the programs of a training step, as something that runs them and tells when what happened. Here those on
//! the CPU; [`super::gpu`] has those on a GPU.

use crate::compile::plan::Plan;
use crate::error::Result;
use crate::exec::timed::Launched;
use crate::exec::{Program, States};
use serde::{Deserialize, Serialize};
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

/// By what the times of calls are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The host's clock.
    Clock,
    /// Events around every launch.
    Events,
    /// What CUPTI notes inside of CUDA graphs.
    Cupti,
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
    /// By what the calls' times were taken.
    fn mode(&self) -> Mode;

    /// In words, how times were taken.
    fn timing(&self) -> String;

    /// Whether a run is only asked for, and goes on while the host does something else.
    fn asynchronous(&self) -> bool;

    /// What a program does.
    fn plan(&self, part: usize) -> &Plan;

    /// What a program asks of its device, in order.
    fn calls(&self, part: usize) -> Result<Vec<Call>>;

    /// Bytes of memory that are neither states nor planned temporaries.
    fn other_bytes(&self) -> u64;

    /// From here on times are taken, of every call if `watched`; the device has nothing to do.
    fn begin(&mut self, tape: &mut Tape, watched: bool) -> Result<()>;

    /// Runs a program as in training.
    fn run(&mut self, part: usize, inputs: &[(&str, &[f32])], tape: &mut Tape) -> Result<()>;

    /// Runs a program so that every call is timed.
    fn run_watched(&mut self, part: usize, inputs: &[(&str, &[f32])], tape: &mut Tape) -> Result<()>;

    /// Reads scalars that a run left, and waits for them.
    fn read(&mut self, part: usize, names: &[&str]) -> Result<Vec<f32>>;

    /// Waits until everything is done, and adds spans of what the device did since [`Target::begin`]. Gives `false` where the
    /// times of calls could not be told: from then on they are taken in another way, and those that were taken are of no use.
    fn settle(&mut self, tape: &mut Tape) -> Result<bool>;
}

/// On the CPU.
pub struct CpuTarget {
    /// The programs.
    pub programs: Vec<Program>,
    /// Their states.
    pub states: States,
}

impl Target for CpuTarget {
    fn mode(&self) -> Mode {
        Mode::Clock
    }

    fn timing(&self) -> String {
        "the host's clock around every operation".into()
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

    fn begin(&mut self, _: &mut Tape, _: bool) -> Result<()> {
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

    fn settle(&mut self, _: &mut Tape) -> Result<bool> {
        Ok(true)
    }
}

/// Seconds of each call of each program, over all of its runs.
pub type Samples = HashMap<(usize, usize), Vec<f64>>;
