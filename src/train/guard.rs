//! Finding where a number stopped being one: a step is run again with a look at everything that its operations write.

use crate::compile::plan::Step;
use crate::device::cpu::Place;
use crate::error::Result;
use crate::exec::States;
use crate::exec::device::{LiveStates, Runner};
use crate::nn::NetSpec;
use std::collections::HashSet;
use std::fmt;

/// The first value of a step that is no number any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The operation that wrote it, such as "conv".
    pub operation: String,
    /// Its layer, such as "G/model.1/conv".
    pub layer: String,
    /// Its part of the step, such as "G forward".
    pub phase: String,
    /// NaN or an infinity.
    pub value: f32,
    /// How many of how many values were.
    pub share: (usize, usize),
    /// What it was fed with that was no number before, if anything.
    pub cause: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (bad, all) = self.share;
        let place = if self.layer.is_empty() { String::new() } else { format!(" in layer {}", self.layer) };
        let phase = if self.phase.is_empty() { String::new() } else { format!(" ({})", self.phase) };
        write!(
            f,
            "{}{place}{phase} was the first to give {}, in {bad} of {all} values",
            self.operation, self.value
        )?;
        match &self.cause {
            Some(cause) => write!(f, ", because {cause}"),
            None => Ok(()),
        }
    }
}

/// Watches the runs of a training step.
#[derive(Default)]
pub struct Guard {
    /// Steps of programs whose infinities did no harm in a training step that went well: a mask's, say.
    harmless: HashSet<(usize, usize)>,
    seen: Vec<(usize, usize)>,
    first: Option<Finding>,
    cause: Option<String>,
    in_state: bool,
}

impl Guard {
    /// A guard for training that begins with these states.
    pub fn new(specs: &[NetSpec], states: &States) -> Self {
        let cause = bad_tensor(specs, states).map(|t| format!("{t} was so already when the replay began"));
        Guard { cause, ..Default::default() }
    }

    /// Runs program number `part`. `source` names what a batch is made of.
    pub fn run(
        &mut self,
        part: usize,
        program: &mut Runner,
        states: &mut LiveStates,
        inputs: &[(&str, &[f32])],
        source: &str,
    ) -> Result<()> {
        for (name, values) in inputs {
            if let Some(v) = values.iter().find(|v| !v.is_finite())
                && self.cause.is_none()
            {
                self.cause = Some(format!("the {name} ({source}) holds {v}"));
            }
        }
        program.run_checked(states, inputs, |i, step, values| self.look(part, i, step, values))
    }

    /// Looks at what an operation wrote.
    pub fn look(&mut self, part: usize, i: usize, step: &Step, values: &[f32]) {
        let Some(&value) = values.iter().find(|v| !v.is_finite()) else { return };
        self.in_state |= matches!(step.output.place, Place::State(..));
        self.seen.push((part, i));
        if self.first.is_none() && !self.harmless.contains(&(part, i)) {
            let bad = values.iter().filter(|v| !v.is_finite()).count();
            let backward = if step.backward { ", gradient" } else { "" };
            self.first = Some(Finding {
                operation: step.op.name().to_string(),
                layer: step.path.to_string(),
                phase: format!("{}{backward}", step.phase).trim_start_matches(", ").to_string(),
                value,
                share: (bad, values.len()),
                cause: self.cause.clone(),
            });
        }
    }

    /// A training step is over; `sound` says whether its losses are numbers. What was found, if it went wrong.
    pub fn settle(&mut self, sound: bool) -> Option<Finding> {
        let wrong = !sound || self.in_state;
        let first = self.first.take().filter(|_| wrong);
        let seen = std::mem::take(&mut self.seen);
        if !wrong {
            self.harmless.extend(seen);
        }
        self.in_state = false;
        first
    }
}

/// The first tensor of the networks that holds something else than numbers, such as "the weight model.0.weight of G".
pub fn bad_tensor(specs: &[NetSpec], states: &States) -> Option<String> {
    let bad = |values: &[f32]| values.iter().any(|v| !v.is_finite());
    for net in specs {
        let params = states.get::<f32>(&net.store_name());
        let buffers = states.get::<f32>(&net.buffers_name());
        for (kind, tensors, values) in
            [("weight", &net.params, &params[..net.param_count()]), ("statistic", &net.buffers, buffers)]
        {
            for t in tensors.iter().filter(|_| bad(values)) {
                if bad(&values[t.offset..t.offset + t.shape.numel()]) {
                    return Some(format!("the {kind} {} of {}", t.key, net.name));
                }
            }
        }
        if bad(params) {
            return Some(format!("the optimiser's memory of {}", net.name));
        }
    }
    None
}
