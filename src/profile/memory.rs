//! Who holds how much memory while a step runs, told from its plan.

use crate::compile::plan::Plan;
use crate::device::cpu::Place;
use crate::nn::NetSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes that live from step to step, by owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Parameters.
    pub parameters: u64,
    /// The optimisers' moments.
    pub optimiser: u64,
    /// Running means of the parameters.
    pub ema: u64,
    /// Running statistics of norms, pools of images.
    pub other: u64,
}

impl Kept {
    /// Of all states that the plans use, by their names.
    pub fn of<'a>(plans: impl IntoIterator<Item = &'a Plan>, specs: &[NetSpec]) -> Self {
        let mut kept = Kept::default();
        let states: BTreeMap<&str, u64> = plans
            .into_iter()
            .flat_map(|p| {
                p.states.iter().map(|s| (s.name.as_str(), (s.shape.numel() * p.dtype.size()) as u64))
            })
            .collect();
        for (name, bytes) in states {
            if let Some(spec) = specs.iter().find(|s| s.store_name() == name) {
                let parameters = (spec.param_count() * size_of::<f32>()) as u64;
                kept.parameters += parameters;
                kept.optimiser += bytes - parameters;
            } else if specs.iter().any(|s| s.ema_name() == name) {
                kept.ema += bytes;
            } else {
                kept.other += bytes;
            }
        }
        kept
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.parameters + self.optimiser + self.ema + self.other
    }
}

/// Bytes of temporaries that hold a value somebody still reads, by owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// What the caller gave.
    pub inputs: u64,
    /// Computed going forward.
    pub activations: u64,
    /// Computed going backward, and by the optimiser.
    pub gradients: u64,
}

impl Live {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.inputs + self.activations + self.gradients
    }

    fn add(&mut self, owner: Owner, bytes: u64) {
        match owner {
            Owner::Input => self.inputs += bytes,
            Owner::Activation => self.activations += bytes,
            Owner::Gradient => self.gradients += bytes,
        }
    }
}

#[derive(Clone, Copy)]
enum Owner {
    Input,
    Activation,
    Gradient,
}

/// A value in the arena.
struct Value {
    at: usize,
    bytes: usize,
    owner: Owner,
    /// The steps during which it is wanted, without the last.
    from: usize,
    to: usize,
}

impl Value {
    fn meets(&self, at: usize, bytes: usize) -> bool {
        self.at < at + bytes && at < self.at + self.bytes
    }
}

/// What lives in the arena while each step of a plan runs.
pub fn over_time(plan: &Plan) -> Vec<Live> {
    let n = plan.steps.len();
    let mut done: Vec<Value> = Vec::new();
    let mut open: Vec<Value> = Vec::new();
    let write = |open: &mut Vec<Value>, done: &mut Vec<Value>, value: Value| {
        // Whatever lay there is no more: its life ended with its last reader, or now if that takes over its memory.
        let mut over: Vec<Value> = open.extract_if(.., |v| v.meets(value.at, value.bytes)).collect();
        over.iter_mut().for_each(|v| v.to = v.to.min(value.from));
        done.append(&mut over);
        open.push(value);
    };
    for (_, slot) in &plan.inputs {
        if let Place::Arena(at) = slot.place {
            let value = Value { at, bytes: slot.bytes(), owner: Owner::Input, from: 0, to: 0 };
            write(&mut open, &mut done, value);
        }
    }
    for (i, step) in plan.steps.iter().enumerate() {
        for input in &step.inputs {
            if let Place::Arena(at) = input.place {
                let read = open.iter_mut().filter(|v| v.meets(at, input.bytes()));
                read.for_each(|v| v.to = i + 1);
            }
        }
        if let Place::Arena(at) = step.output.place {
            let backward = step.backward || &*step.phase == "optimiser";
            let owner = if backward { Owner::Gradient } else { Owner::Activation };
            let value = Value { at, bytes: step.output.bytes(), owner, from: i, to: i + 1 };
            write(&mut open, &mut done, value);
        }
    }
    for (_, slot) in &plan.outputs {
        if let Place::Arena(at) = slot.place {
            open.iter_mut().filter(|v| v.meets(at, slot.bytes())).for_each(|v| v.to = n);
        }
    }
    let mut live = vec![Live::default(); n];
    for value in done.iter().chain(&open) {
        for step in live.iter_mut().take(value.to).skip(value.from) {
            step.add(value.owner, value.bytes as u64);
        }
    }
    live
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::plan::plan;
    use crate::dtype::DType;
    use crate::graph::Graph;
    use crate::ops::gradient::grad;

    #[test]
    fn values_live_from_their_writing_to_their_last_reading() {
        let graph = Graph::new(DType::F32);
        let x = graph.input("x", [64]);
        let a = x.mul(&x);
        let b = a.mul(&a); // a is wanted again by the gradient
        let g = grad(&b.sum_all(), std::slice::from_ref(&x)).swap_remove(0);
        let plan = plan(&graph, &[("g", &g)]).unwrap();
        let live = over_time(&plan);
        assert_eq!(live.len(), plan.steps.len());
        assert_eq!(live[0].inputs, 256, "x is there from the beginning");
        assert!(
            live.iter().all(|l| l.total() <= plan.arena_bytes as u64),
            "{live:?} in {}",
            plan.arena_bytes
        );
        assert!(live[0].activations >= 256 && live[0].gradients == 0, "{live:?}");
        let last = live.last().unwrap();
        assert!(last.gradients >= 256 && last.activations <= 256, "{live:?}");
        let peak = live.iter().map(Live::total).max().unwrap();
        // Alignment aside, the plan reserves what lives at the peak.
        assert!(plan.arena_bytes as u64 - peak < 256, "{peak} of {}", plan.arena_bytes);
    }
}
