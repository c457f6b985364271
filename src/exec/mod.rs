//! Running a plan: here on the CPU device, in [`gpu`] on a device that runs launches, in [`device`] on whichever was chosen.

pub mod checked;
pub mod choice;
pub mod choices;
pub mod cost;
pub mod device;
pub mod gpu;
pub mod probe;
pub mod timed;
pub mod tune;

use crate::compile::plan::{Passes, Plan, Step, plan, plan_with};
use crate::device::cpu::{Buffer, Memory, Slot, available};
use crate::dispatch_real;
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::graph::{Graph, Var};
use std::collections::BTreeMap;

/// The tensors that live from step to step, by name. Shared by all programs of a session.
#[derive(Default)]
pub struct States {
    buffers: BTreeMap<String, Buffer>,
}

impl States {
    /// No states.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a state, or overwrites one.
    pub fn set<T: Real>(&mut self, name: &str, values: &[T]) {
        let mut buffer = Buffer::zeroed(size_of_val(values));
        buffer.slice_mut().copy_from_slice(values);
        self.buffers.insert(name.to_string(), buffer);
    }

    /// A state's elements. Panics if there is no such state.
    pub fn get<T: Real>(&self, name: &str) -> &[T] {
        self.buffers.get(name).unwrap_or_else(|| panic!("no state {name}")).slice()
    }

    /// A state's elements, to be changed. Panics if there is no such state.
    pub fn get_mut<T: Real>(&mut self, name: &str) -> &mut [T] {
        self.buffers.get_mut(name).unwrap_or_else(|| panic!("no state {name}")).slice_mut()
    }

    /// Whether there is such a state.
    pub fn contains(&self, name: &str) -> bool {
        self.buffers.contains_key(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.buffers.keys().map(String::as_str)
    }
}

/// A planned graph with its memory.
pub struct Program {
    plan: Plan,
    arena: Buffer,
}

impl Program {
    /// Plans a run of `graph` that leaves the named outputs readable, and reserves its memory.
    pub fn new(graph: &Graph, outputs: &[(&str, &Var)]) -> Result<Self> {
        Self::of(plan(graph, outputs)?)
    }

    /// As [`Program::new`], fused as for a GPU: to check the fusion with. (Not faster: the CPU interprets what is fused.)
    pub fn fused(graph: &Graph, outputs: &[(&str, &Var)]) -> Result<Self> {
        Self::of(plan_with(graph, outputs, Passes { fuse: true, mixed: false })?)
    }

    fn of(plan: Plan) -> Result<Self> {
        let needed = plan.arena_bytes as u64 + plan.state_bytes() as u64;
        if let Some(free) = available().filter(|free| needed > *free) {
            return Err(Error::Memory { of: "memory", needed, free, fits: None });
        }
        let arena = Buffer::zeroed(plan.arena_bytes);
        Ok(Program { plan, arena })
    }

    /// What it does and where.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs once. `inputs` are given by name; every declared input that is used must be there with its full size.
    pub fn run<T: Real>(&mut self, states: &mut States, inputs: &[(&str, &[T])]) {
        self.run_observed(states, inputs, |_, run| run());
    }

    /// As [`Program::run`]; `observe` is called for every step and must call the closure that runs it.
    pub fn run_observed<T: Real>(
        &mut self,
        states: &mut States,
        inputs: &[(&str, &[T])],
        mut observe: impl FnMut(&Step, &mut dyn FnMut()),
    ) {
        self.walk(states, inputs, |_, step, memory| observe(step, &mut || run_step(step, memory)));
    }

    /// Brings the inputs to their places and calls `each` for every step, in order, with its number and the memory.
    fn walk<T: Real>(
        &mut self,
        states: &mut States,
        inputs: &[(&str, &[T])],
        mut each: impl FnMut(usize, &Step, &mut Memory),
    ) {
        assert_eq!(T::DTYPE, self.plan.dtype, "the program's element type");
        let wanted: BTreeMap<&str, usize> =
            self.plan.states.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
        let mut buffers: Vec<(usize, &mut Buffer)> =
            states.buffers.iter_mut().filter_map(|(n, b)| wanted.get(n.as_str()).map(|&i| (i, b))).collect();
        buffers.sort_by_key(|&(i, _)| i);
        assert_eq!(buffers.len(), self.plan.states.len(), "a state is missing");
        let mut memory =
            Memory { arena: &mut self.arena, states: buffers.into_iter().map(|(_, b)| b).collect() };
        for (name, slot) in &self.plan.inputs {
            let (_, values) =
                inputs.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("input {name} is missing"));
            memory.elements::<T>(slot).copy_from_slice(values);
        }
        for (i, step) in self.plan.steps.iter().enumerate() {
            each(i, step, &mut memory);
        }
    }

    /// An output of the last run.
    pub fn output<T: Real>(&mut self, states: &mut States, name: &str) -> Vec<T> {
        let (_, slot) =
            self.plan.outputs.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no output {name}"));
        let buffers = self.plan.states.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        let mut by_name: BTreeMap<&str, &mut Buffer> =
            states.buffers.iter_mut().map(|(n, b)| (n.as_str(), b)).collect();
        let states =
            buffers.iter().map(|n| by_name.remove(n.as_str()).expect("a state is missing")).collect();
        Memory { arena: &mut self.arena, states }.read(slot).to_vec()
    }

    /// An output of the last run in double precision.
    pub fn output_f64(&mut self, states: &mut States, name: &str) -> Vec<f64> {
        dispatch_real!(self.plan.dtype, T => self.output::<T>(states, name).into_iter().map(Real::f64).collect())
    }

    /// A scalar output of the last run.
    pub fn scalar(&mut self, states: &mut States, name: &str) -> f64 {
        self.output_f64(states, name)[0]
    }
}

fn run_step(step: &Step, memory: &mut Memory) {
    let slots: Vec<&Slot> = step.inputs.iter().collect();
    step.op.cpu(&mut memory.io(&slots, &step.output, step.reused));
}

/// Traces, plans and runs something once, in the given precision: for tests and tools.
pub fn evaluate(
    dtype: DType,
    inputs: &[(crate::shape::Shape, Vec<f64>)],
    build: impl FnOnce(&[Var]) -> Vec<Var>,
) -> Result<Vec<(crate::shape::Shape, Vec<f64>)>> {
    let graph = Graph::new(dtype);
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let vars: Vec<Var> = inputs.iter().zip(&names).map(|((s, _), n)| graph.input(n, s.clone())).collect();
    let out = build(&vars);
    graph.check()?;
    let labels: Vec<String> = (0..out.len()).map(|i| format!("y{i}")).collect();
    let named: Vec<(&str, &Var)> = labels.iter().map(String::as_str).zip(&out).collect();
    let mut program = Program::new(&graph, &named)?;
    let mut states = States::new();
    dispatch_real!(dtype, T => {
        let values: Vec<Vec<T>> = inputs.iter().map(|(_, v)| v.iter().map(|&x| T::of(x)).collect()).collect();
        let given: Vec<(&str, &[T])> = names.iter().map(String::as_str).zip(values.iter().map(Vec::as_slice)).collect();
        program.run(&mut states, &given);
    });
    Ok(out.iter().zip(&labels).map(|(v, n)| (v.shape(), program.output_f64(&mut states, n))).collect())
}
