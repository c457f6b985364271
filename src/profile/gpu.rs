//! The programs of a training step on a device that runs launches.
//!
//! Steps as in training replay recordings (CUDA graphs) and are timed by events around them. What happens inside of a
//! recording, events do not show: either the device notes every kernel of a replay ([`Timed::note`]; CUPTI does it), or the
//! launches are made one by one with events around each.

use super::target::{Call, Kind, Mode, Tape, Target};
use crate::compile::plan::Plan;
use crate::device::backend::{KernelRecord, Timed};
use crate::device::occupancy::Limits;
use crate::error::{Error, Result};
use crate::exec::gpu::{DeviceStates, GpuProgram};
use crate::exec::timed::{Launched, RunMarks};

/// How the times of launches are to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// By what the device notes, if it can; else by events.
    #[default]
    Auto,
    /// By what the device notes (CUPTI), or not at all.
    Cupti,
    /// By events.
    Events,
}

/// As on the command line.
impl std::str::FromStr for Timing {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s {
            "auto" => Ok(Timing::Auto),
            "cupti" => Ok(Timing::Cupti),
            "events" => Ok(Timing::Events),
            _ => Err("write auto, cupti or events".into()),
        }
    }
}

/// How the times of launches are taken.
enum Way {
    /// The device notes them; by what, once it has begun to.
    Noted(Option<String>),
    /// By events, and why not otherwise.
    Events(Option<String>),
}

/// A run that has not been looked at yet.
struct Pending {
    part: usize,
    step: usize,
    marks: usize,
    watched: Watched,
}

/// How closely a run is watched.
enum Watched {
    /// As in training.
    No,
    /// The device notes its kernels.
    Noted,
    /// Launch by launch: the first pair of marks, and how many there are.
    Marks(usize, usize),
}

/// On a device that runs launches.
pub struct GpuTarget<B: Timed> {
    programs: Vec<GpuProgram<B>>,
    states: DeviceStates<B>,
    launched: Vec<Vec<Launched>>,
    limits: Limits,
    other_bytes: u64,
    wanted: Timing,
    way: Way,
    /// Whether the device is noting.
    noting: bool,
    /// Recordings whose kernels are noted, beside those that training replays.
    recordings: Vec<Option<B::Recording>>,
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
    pub fn new(
        programs: Vec<GpuProgram<B>>,
        states: DeviceStates<B>,
        other_bytes: u64,
        wanted: Timing,
    ) -> Result<Self> {
        let launched = programs.iter().map(GpuProgram::launched).collect::<Result<_>>()?;
        let backend = programs[0].backend();
        Ok(GpuTarget {
            launched,
            limits: backend.limits()?,
            other_bytes,
            wanted,
            way: if wanted == Timing::Events { Way::Events(None) } else { Way::Noted(None) },
            noting: false,
            recordings: programs.iter().map(|_| None).collect(),
            zero: backend.mark()?,
            zero_at: 0.0,
            marks: Vec::new(),
            each: Vec::new(),
            pending: Vec::new(),
            programs,
            states,
        })
    }

    fn backend(&self) -> &B {
        self.programs[0].backend()
    }

    /// Times are taken by events from now on, for the device cannot note kernels; an error where that was asked for.
    fn fall_back(&mut self, why: String) -> Result<()> {
        if self.wanted == Timing::Cupti {
            return Err(Error::input(format!("{why}; use `--timing events`")));
        }
        self.recordings.iter_mut().for_each(|r| *r = None);
        // What kernels take is what the driver says again.
        self.launched = self.programs.iter().map(GpuProgram::launched).collect::<Result<_>>()?;
        self.way = Way::Events(Some(why));
        Ok(())
    }

    /// Notes a run to come, and makes as many marks as it takes.
    fn expect(&mut self, part: usize, step: usize, watched: bool) -> Result<()> {
        let marks = self.pending.len();
        if marks == self.marks.len() {
            let new = RunMarks::new(self.backend())?;
            self.marks.push(new);
        }
        let watched = match (watched, &self.way) {
            (false, _) => Watched::No,
            (true, Way::Noted(_)) => Watched::Noted,
            (true, Way::Events(_)) => {
                let after = |p: &Pending| match p.watched {
                    Watched::Marks(first, n) => Some(first + n),
                    _ => None,
                };
                let first = self.pending.iter().rev().find_map(after).unwrap_or(0);
                Watched::Marks(first, self.launched[part].len())
            }
        };
        if let Watched::Marks(first, n) = watched {
            while self.each.len() < first + n {
                let new = [self.backend().mark()?, self.backend().mark()?];
                self.each.push(new);
            }
        }
        self.pending.push(Pending { part, step, marks, watched });
        Ok(())
    }

    /// What the device noted, by run; an error says how it differs from what was launched.
    fn noted(&mut self) -> std::result::Result<Vec<Vec<KernelRecord>>, String> {
        let mut records = self.backend().noted()?.into_iter();
        let mut runs = Vec::new();
        for run in self.pending.iter().filter(|p| matches!(p.watched, Watched::Noted)) {
            let launched = &self.launched[run.part];
            let own: Vec<KernelRecord> = records.by_ref().take(launched.len()).collect();
            matches(launched, &own)?;
            runs.push(own);
        }
        match records.count() {
            0 => Ok(runs),
            more => Err(format!("{more} more kernels were noted than the step launches")),
        }
    }

    /// What kernels take is what their records say.
    fn take_facts(&mut self, part: usize, records: &[KernelRecord]) {
        for (launched, record) in self.launched[part].iter_mut().zip(records) {
            launched.facts = record.facts;
            launched.occupancy =
                self.limits.occupancy(&record.facts, record.threads as usize, record.dynamic_shared);
        }
    }
}

/// Whether kernels that were noted are those that were launched, in order.
fn matches(launched: &[Launched], noted: &[KernelRecord]) -> std::result::Result<(), String> {
    for (i, (l, r)) in launched.iter().zip(noted).enumerate() {
        if r.name != l.launch.kernel {
            return Err(format!("kernel {i} was noted as {}, and {} was launched", r.name, l.launch.kernel));
        }
        if (r.grid, r.threads) != (l.launch.grid, l.launch.threads) {
            return Err(format!(
                "kernel {i} ({}) was noted with {:?} blocks of {} threads, and launched with {:?} of {}",
                r.name, r.grid, r.threads, l.launch.grid, l.launch.threads
            ));
        }
    }
    match noted.len() {
        n if n == launched.len() => Ok(()),
        n => Err(format!("{n} kernels of a recording were noted, and it launches {}", launched.len())),
    }
}

impl<B: Timed> Target for GpuTarget<B> {
    fn mode(&self) -> Mode {
        match self.way {
            Way::Noted(_) => Mode::Cupti,
            Way::Events(_) => Mode::Events,
        }
    }

    fn timing(&self) -> String {
        let kernels = match &self.way {
            Way::Noted(by) => format!(
                "kernels by CUPTI activity inside the CUDA graph, in further steps ({})",
                by.as_deref().unwrap_or("none yet")
            ),
            Way::Events(why) => {
                let why = why.as_ref().map_or(String::new(), |w| format!(" (not by CUPTI activity: {w})"));
                format!("kernels by events around every launch, in further steps without recordings{why}")
            }
        };
        format!(
            "whole steps as in training (each program a recording, replayed), by events around its copies and its replay; {kernels}"
        )
    }

    fn asynchronous(&self) -> bool {
        true
    }

    fn plan(&self, part: usize) -> &Plan {
        self.programs[part].plan()
    }

    fn calls(&self, part: usize) -> Result<Vec<Call>> {
        let call = |l: &Launched| Call { step: l.step, launched: Some(l.clone()) };
        Ok(self.launched[part].iter().map(call).collect())
    }

    fn other_bytes(&self) -> u64 {
        self.other_bytes
    }

    fn begin(&mut self, tape: &mut Tape, watched: bool) -> Result<()> {
        if watched && matches!(self.way, Way::Noted(_)) {
            match self.backend().note() {
                Ok(by) => {
                    self.way = Way::Noted(Some(by));
                    self.noting = true;
                }
                Err(why) => self.fall_back(why)?,
            }
        }
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
        let (program, states, marks) = (&mut self.programs[part], &self.states, &self.marks[last.marks]);
        match last.watched {
            Watched::Marks(first, n) => {
                let each = &self.each[first..first + n];
                tape.time(Kind::Submit, || program.run_marked_each(states, inputs, marks, each))
            }
            _ => {
                let recording = &mut self.recordings[part];
                tape.time(Kind::Submit, || program.run_noted(states, inputs, marks, recording))
            }
        }
    }

    fn read(&mut self, part: usize, names: &[&str]) -> Result<Vec<f32>> {
        Ok(self.programs[part].outputs(&self.states, names)?.iter().map(|v| v[0]).collect())
    }

    fn settle(&mut self, tape: &mut Tape) -> Result<bool> {
        self.backend().finish()?;
        let mut noted = Vec::new();
        if std::mem::take(&mut self.noting) {
            match self.noted() {
                Ok(runs) => noted = runs,
                Err(why) => {
                    self.pending.clear();
                    self.fall_back(why)?;
                    return Ok(false);
                }
            }
        }
        let mut noted = noted.into_iter();
        let pending = std::mem::take(&mut self.pending);
        let mut facts = Vec::new();
        let backend = self.programs[0].backend();
        // From mark to mark: the driver gives times in single precision, exact only where they are short.
        let (mut last, mut at) = (&self.zero, self.zero_at);
        for run in &pending {
            tape.step = run.step;
            let part = run.part;
            let marks = &self.marks[run.marks];
            let begun = at + backend.seconds(last, &marks.begun)?;
            let copied = begun + backend.seconds(&marks.begun, &marks.copied)?;
            let done = copied + backend.seconds(&marks.copied, &marks.done)?;
            tape.add(Kind::Copy, begun, copied);
            match run.watched {
                Watched::No => tape.add(Kind::Recording(part), copied, done),
                Watched::Noted => {
                    let records = noted.next().expect("as many as there are such runs");
                    // The mark follows right behind the last kernel; from there, by the device's own clock.
                    let end = records.iter().map(|r| r.ended).max().unwrap_or(0);
                    let time = |ns: u64| done - 1e-9 * end.saturating_sub(ns) as f64;
                    for (call, record) in records.iter().enumerate() {
                        tape.add(Kind::Call { part, call }, time(record.began), time(record.ended));
                    }
                    facts.push((part, records));
                }
                Watched::Marks(first, n) => {
                    let (mut from, mut end) = (&marks.copied, copied);
                    for (call, [before, behind]) in self.each[first..first + n].iter().enumerate() {
                        let start = end + backend.seconds(from, before)?;
                        end = start + backend.seconds(before, behind)?;
                        tape.add(Kind::Call { part, call }, start, end);
                        from = behind;
                    }
                }
            }
            (last, at) = (&marks.done, done);
        }
        for (part, records) in facts {
            self.take_facts(part, &records);
        }
        Ok(true)
    }
}
