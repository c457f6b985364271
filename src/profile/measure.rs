//! Runs training steps and takes the times of everything in them.

use super::target::{Kind, Samples, Span, Tape, Target};
use crate::device::cpu::load::ProcessorTime;
use crate::error::Result;
use crate::methods::Method;
use crate::nn::NetSpec;
use crate::recipe::Recipe;
use crate::train::setup::pool_choices;

/// Inputs and targets of a batch.
pub type Images = (Vec<f32>, Vec<f32>);

/// The training step that is measured.
pub struct Work<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its method.
    pub method: &'a Method,
    /// The networks.
    pub specs: &'a [NetSpec],
    /// Extents of the images.
    pub size: &'a [usize],
    /// The losses of each program.
    pub losses: Vec<Vec<String>>,
    /// The next batch.
    pub next: &'a mut dyn FnMut() -> Result<Images>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Steps before, of which no times are taken.
    pub warm_up: usize,
    /// Steps as in training, and as many again with every call timed.
    pub steps: usize,
    /// Of how many of the latter every span is kept, for the trace.
    pub traced: usize,
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Measured {
    /// Seconds of each step as in training.
    pub plain: Vec<f64>,
    /// Seconds of each step with every call timed.
    pub watched: Vec<f64>,
    /// Seconds of each call in the watched steps.
    pub samples: Samples,
    /// Seconds that the device had nothing to do before each call, summed, by program and call: GPUs alone.
    pub gaps: std::collections::HashMap<(usize, usize), f64>,
    /// Where the time went, summed over [`Measured::shared_steps`].
    pub shares: Sums,
    /// How many steps `shares` is of.
    pub shared_steps: usize,
    /// Seconds of all calls of a watched step, on average.
    pub calls: f64,
    /// Seconds that each step, of either kind, waited for its batches.
    pub waits: Vec<f64>,
    /// Processor time of this process in steps as in training, where the system tells.
    pub plain_processor: ProcessorTime,
    /// The same in watched steps.
    pub watched_processor: ProcessorTime,
    /// Every span of the first watched steps.
    pub traced: Vec<Span>,
}

impl Measured {
    /// Drops what the steps gave in which every call was timed, on a GPU.
    fn forget_watched(&mut self) {
        self.waits.truncate(self.plain.len());
        let Measured { watched, samples, gaps, calls, watched_processor, traced, .. } = self;
        watched.clear();
        samples.clear();
        gaps.clear();
        (*calls, *watched_processor) = Default::default();
        traced.clear();
    }
}

/// Where time went, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Computing.
    pub compute: f64,
    /// Moving what nothing is computed of: inputs to the device, and the plan's own copies.
    pub copies: f64,
    /// The device waited while the host waited for the loader.
    pub data: f64,
    /// The device waited while the host prepared or launched.
    pub host: f64,
    /// The device waited while the host read results.
    pub synchronisation: f64,
}

impl Sums {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.compute + self.copies + self.data + self.host + self.synchronisation
    }
}

/// Runs the steps.
pub fn measure(target: &mut dyn Target, work: &mut Work, effort: Effort) -> Result<Measured> {
    let copying = copies(target, work)?;
    let asynchronous = target.asynchronous();
    let mut run =
        Run { target, work, effort, copying, out: Measured::default(), number: 0, zero: Tape::default() };
    run.warm_up()?;
    if asynchronous {
        // A GPU is behind what it is asked for: what is as in training comes in a row. What is timed launch by launch is
        // waited for after every step, so that a step's marks are enough.
        run.series(0, effort.steps, false)?;
        while !run.watched()? {}
    } else {
        // Taking turns, so that whatever else the machine does meets both kinds alike.
        for step in 0..effort.steps {
            run.series(step, 1, false)?;
            run.series(step, 1, true)?;
        }
    }
    run.out.calls /= effort.steps as f64;
    Ok(run.out)
}

/// For each call of each program, whether it only copies.
fn copies(target: &dyn Target, work: &Work) -> Result<Vec<Vec<bool>>> {
    let of = |part: usize| {
        let plan = target.plan(part);
        Ok(target.calls(part)?.iter().map(|c| plan.steps[c.step].op.name() == "pack").collect())
    };
    (0..work.method.parts()).map(of).collect()
}

/// A measurement that is going on.
struct Run<'a, 'w> {
    target: &'a mut dyn Target,
    work: &'a mut Work<'w>,
    effort: Effort,
    copying: Vec<Vec<bool>>,
    out: Measured,
    /// Training steps so far.
    number: u64,
    /// When times begin.
    zero: Tape,
}

impl Run<'_, '_> {
    /// Steps of both kinds, of which nothing is kept.
    fn warm_up(&mut self) -> Result<()> {
        for i in 0..self.effort.warm_up.max(1) {
            // Once more where times are taken in another way from then on.
            while !self.warm_up_step(i % 2 == 1)? {}
        }
        Ok(())
    }

    fn warm_up_step(&mut self, watched: bool) -> Result<bool> {
        let mut tape = Tape::like(&self.zero);
        self.target.begin(&mut tape, watched)?;
        self.step(&mut tape, watched)?;
        self.target.settle(&mut tape)
    }

    /// All steps with every call timed; `false` where they are to be run again, for times are taken in another way from now
    /// on.
    fn watched(&mut self) -> Result<bool> {
        for step in 0..self.effort.steps {
            if !self.series(step, 1, true)? {
                self.out.forget_watched();
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs steps without waiting in between (but where training waits), then looks at what happened. They count as the
    /// steps `first..` of their kind. Gives what [`Target::settle`] does.
    fn series(&mut self, first: usize, count: usize, watched: bool) -> Result<bool> {
        let mut tape = Tape::like(&self.zero);
        self.target.begin(&mut tape, watched)?;
        let before = ProcessorTime::now();
        let began = tape.now();
        for at in first..first + count {
            tape.step = at;
            let start = tape.now();
            self.step(&mut tape, watched)?;
            tape.add(Kind::Step, start, tape.now());
        }
        if !self.target.settle(&mut tape)? {
            return Ok(false);
        }
        if let (Some(before), Some(now)) = (before, ProcessorTime::now()) {
            let out = &mut self.out;
            let sum = if watched { &mut out.watched_processor } else { &mut out.plain_processor };
            *sum += now.since(&before);
        }
        let (spans, asynchronous, out) = (tape.spans, self.target.asynchronous(), &mut self.out);
        for at in first..first + count {
            let waits = spans.iter().filter(|s| s.step == at && s.kind == Kind::Data);
            out.waits.push(waits.map(Span::seconds).sum());
        }
        let ends = step_ends(&spans, asynchronous);
        let starts = [began].into_iter().chain(ends.iter().copied());
        let times = starts.zip(&ends).map(|(a, b)| b - a);
        if watched {
            out.watched.extend(times)
        } else {
            out.plain.extend(times)
        }
        let end = ends.last().copied().unwrap_or(began);
        if watched {
            calls(&spans, asynchronous, out);
        }
        // The CPU is seen at work only where its operations are timed; a GPU is to be seen as it is in training.
        if watched != asynchronous {
            add(&mut out.shares, &sums(&spans, began, end, &self.copying));
            out.shared_steps += count;
        }
        if watched && first < self.effort.traced {
            out.traced.extend(spans.iter().filter(|s| s.began <= end));
        }
        Ok(true)
    }

    /// One training step: batches, runs, and the losses where training reads them.
    fn step(&mut self, tape: &mut Tape, watched: bool) -> Result<()> {
        let (target, work, number) = (&mut *self.target, &mut *self.work, self.number);
        self.number += 1;
        let o = &work.recipe.optimiser;
        let rates = [o.lr, o.lr_discriminator.unwrap_or(o.lr)];
        let pools = work.method.pools(work.size);
        let pools = tape.time(Kind::Prepare, || pool_choices(work.recipe, &pools, number));
        for run in work.method.runs(number) {
            let batch = match run.takes_batch {
                true => Some(tape.time(Kind::Data, || (work.next)())?),
                false => None,
            };
            let began = tape.now();
            let scalars = work.method.scalars(work.specs, run, rates);
            let mut inputs: Vec<(&str, &[f32])> =
                scalars.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            inputs.extend(pools.iter().map(|(n, v)| (n.as_str(), v.as_slice())));
            if let Some((input, target)) = &batch {
                inputs.extend([("input", input.as_slice()), ("target", target.as_slice())]);
            }
            tape.add(Kind::Prepare, began, tape.now());
            if watched {
                target.run_watched(run.part, &inputs, tape)?;
            } else {
                target.run(run.part, &inputs, tape)?;
            }
        }
        // As a session does: on the CPU after every step, on a GPU where they are logged.
        if !target.asynchronous() || (number + 1).is_multiple_of(work.recipe.log.every) {
            let began = tape.now();
            for (part, names) in work.losses.iter().enumerate() {
                target.read(part, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
            tape.add(Kind::Read, began, tape.now());
        }
        Ok(())
    }
}

/// When each step was over: on a GPU when the last of its runs was done, whatever the host did by then.
fn step_ends(spans: &[Span], asynchronous: bool) -> Vec<f64> {
    let mut ends: std::collections::BTreeMap<usize, f64> = Default::default();
    for span in spans {
        let counts = match span.kind {
            Kind::Step => !asynchronous,
            Kind::Recording(_) | Kind::Call { .. } => asynchronous,
            _ => false,
        };
        if counts {
            let end = ends.entry(span.step).or_insert(span.ended);
            *end = end.max(span.ended);
        }
    }
    ends.into_values().collect()
}

/// Takes up the times of calls, and on a GPU the gaps before them.
fn calls(spans: &[Span], asynchronous: bool, out: &mut Measured) {
    let mut last = None;
    for span in spans {
        match span.kind {
            Kind::Call { part, call } => {
                out.samples.entry((part, call)).or_default().push(span.seconds());
                out.calls += span.seconds();
                if let Some(last) = last.filter(|_| asynchronous) {
                    *out.gaps.entry((part, call)).or_default() += f64::max(span.began - last, 0.0);
                }
                last = Some(span.ended);
            }
            Kind::Copy => last = Some(span.ended),
            _ => {}
        }
    }
}

fn add(to: &mut Sums, more: &Sums) {
    to.compute += more.compute;
    to.copies += more.copies;
    to.data += more.data;
    to.host += more.host;
    to.synchronisation += more.synchronisation;
}

/// Where the time from `began` to `ended` went. When the device does nothing, what the host does is to blame.
pub fn sums(spans: &[Span], began: f64, ended: f64, copying: &[Vec<bool>]) -> Sums {
    let within = |s: &Span| (s.began.max(began), s.ended.min(ended));
    let mut sums = Sums::default();
    let mut busy: Vec<(f64, f64)> = Vec::new();
    for span in spans {
        let (from, to) = within(span);
        let seconds = f64::max(to - from, 0.0);
        match span.kind {
            Kind::Call { part, call } if copying[part][call] => sums.copies += seconds,
            Kind::Copy => sums.copies += seconds,
            Kind::Call { .. } | Kind::Recording(_) => sums.compute += seconds,
            _ => continue,
        }
        busy.push((from, to));
    }
    busy.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut idle = Vec::new();
    let mut at = began;
    for (from, to) in busy {
        if from > at {
            idle.push((at, from));
        }
        at = at.max(to);
    }
    if ended > at {
        idle.push((at, ended));
    }
    for (from, to) in idle {
        let during = |kind: Kind| -> f64 {
            let spans = spans.iter().filter(|s| s.kind == kind);
            spans.map(|s| f64::max(s.ended.min(to) - s.began.max(from), 0.0)).sum()
        };
        let (data, read) = (during(Kind::Data), during(Kind::Read));
        sums.data += data;
        sums.synchronisation += read;
        sums.host += f64::max(to - from - data - read, 0.0);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(kind: Kind, began: f64, ended: f64) -> Span {
        Span { kind, step: 0, began, ended }
    }

    #[test]
    fn idle_time_is_put_down_to_what_the_host_did_meanwhile() {
        let spans = [
            span(Kind::Data, 0.0, 2.0),
            span(Kind::Prepare, 2.0, 3.0),
            span(Kind::Copy, 3.0, 4.0),
            span(Kind::Call { part: 0, call: 0 }, 4.0, 6.0),
            span(Kind::Call { part: 0, call: 1 }, 6.5, 7.0),
            // Waiting for a batch while the device computes costs nothing.
            span(Kind::Data, 4.0, 6.0),
            span(Kind::Read, 7.0, 9.0),
        ];
        let sums = sums(&spans, 0.0, 10.0, &[vec![false, true]]);
        let expected = Sums { compute: 2.0, copies: 1.5, data: 2.0, host: 2.5, synchronisation: 2.0 };
        assert_eq!(sums, expected);
        assert_eq!(sums.total(), 10.0);
    }

    #[test]
    fn a_gpus_step_ends_when_the_device_is_done() {
        let spans = [span(Kind::Step, 0.0, 1.0), span(Kind::Recording(0), 0.5, 3.0)];
        assert_eq!(step_ends(&spans, true), [3.0]);
        assert_eq!(step_ends(&spans, false), [1.0]);
    }
}
