//! The memory plan: which node runs when, and where every value lives.
//!
//! Nodes run in the order in which they were traced; those that nothing depends on are dropped. Every temporary gets a
//! place in one arena from its first write to its last read, so the peak is known before the first step and nothing
//! is allocated in the loop.

use super::fuse::fuse;
use super::groups::groups;
use super::losses::losses;
use super::precision::mix;
use super::rewrite::rewrite;
use super::stats::stats;
use super::weight_casts::cast_weights;
use super::work::{cost, mark_constants, work};
use crate::device::cpu::{Place, Slot};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Cost, Graph, Memory, Node, NodeId, Op, Source, State, Var};
use crate::ops::concat::Pack;
use crate::ops::fused::{Blend, Stretch};
use crate::shape::Shape;
use std::collections::HashMap;
use std::sync::Arc;

/// One operation of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// What runs.
    pub op: Arc<dyn Op>,
    /// Where the inputs are.
    pub inputs: Vec<Slot>,
    /// Where the output goes.
    pub output: Slot,
    /// The input whose memory the output takes over.
    pub reused: Option<usize>,
    /// The layer.
    pub path: Arc<str>,
    /// The part of the step.
    pub phase: Arc<str>,
    /// Whether it was made by differentiation.
    pub backward: bool,
    /// Whether it multiplies in full precision even under mixed precision.
    pub exact: bool,
    /// FLOPs and bytes.
    pub cost: Cost,
}

/// A state as a plan knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct StateSlot {
    /// Its name.
    pub name: String,
    /// Its extents.
    pub shape: Shape,
}

/// What to run, and where everything lives.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Values that the caller gives.
    pub inputs: Vec<(String, Slot)>,
    /// Values that the caller may read afterwards.
    pub outputs: Vec<(String, Slot)>,
    /// The states, by number.
    pub states: Vec<StateSlot>,
    /// Size of the arena: the peak of the temporaries.
    pub arena_bytes: usize,
    /// What the temporaries would take without sharing memory.
    pub unshared_bytes: usize,
    /// Element type.
    pub dtype: DType,
    /// FLOPs and bytes of one run as it was traced: the same on every device and in every precision ([`super::work`]).
    pub work: Cost,
}

impl Plan {
    /// FLOPs and bytes of one run of these steps. The FLOPs are those of [`Plan::work`]; the bytes are what this plan moves,
    /// fewer where operations are fused or values stored in bf16.
    pub fn cost(&self) -> Cost {
        self.steps.iter().map(|s| s.cost).sum()
    }

    /// Bytes of all states.
    pub fn state_bytes(&self) -> usize {
        self.states.iter().map(|s| s.shape.numel() * self.dtype.size()).sum()
    }
}

/// Plans a run that computes the named outputs and the states' new values.
pub fn plan(graph: &Graph, outputs: &[(&str, &Var)]) -> Result<Plan> {
    plan_with(graph, outputs, Passes::default())
}

/// What is done to a graph before it is planned for a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// Neighbouring pointwise operations become one ([`super::fuse`]).
    pub fuse: bool,
    /// Activations are stored in bf16 ([`super::precision`]).
    pub mixed: bool,
}

/// As [`plan`], after the given passes.
pub fn plan_with(graph: &Graph, outputs: &[(&str, &Var)], passes: Passes) -> Result<Plan> {
    graph.check()?;
    let outputs: Vec<_> =
        outputs.iter().map(|(n, v)| (n.to_string(), v.id().expect("checked above"))).collect();
    let (mut nodes, mut states, mut outputs) = (graph.nodes(), graph.states(), outputs);
    mark_constants(&mut nodes);
    let work = work(&nodes, &states, &outputs);
    if passes.fuse {
        rewrite(&mut nodes, &mut states, &mut outputs);
        groups(&mut nodes, &mut states, &mut outputs);
        fuse(&mut nodes, &states, &outputs);
    }
    if passes.mixed {
        mix(&mut nodes, &states, &outputs);
    }
    if passes.fuse {
        losses(&mut nodes, &mut states, &mut outputs);
        stats(&mut nodes, &mut states, &mut outputs);
    }
    if passes.mixed {
        cast_weights(&mut nodes, &mut states, &mut outputs);
    }
    Ok(Plan { work, ..Planner::new(nodes, states, outputs, graph.dtype()).run() })
}

const ALIGN: usize = 64;

/// Elements of a value that is copied together with others.
const FEW: usize = 1 << 12;

/// A stretch of memory that one or several values live in, one after the other.
#[derive(Clone, Copy, Debug)]
enum Storage {
    State(usize),
    /// Index into `Planner::regions`, and an offset there.
    Region(usize, usize),
}

/// A stretch of the arena with its life time in positions of the order.
#[derive(Clone, Copy, Debug)]
struct Region {
    bytes: usize,
    first: usize,
    last: usize,
}

struct Planner {
    nodes: Vec<Node>,
    states: Vec<State>,
    outputs: Vec<(String, NodeId)>,
    dtype: DType,
    live: Vec<bool>,
    /// The node whose memory a view looks at.
    root: Vec<NodeId>,
    /// Position of the last reader of a root, through any view.
    last_use: Vec<usize>,
    /// Where a packed value must be computed: the pack and a byte offset.
    packed: HashMap<NodeId, (NodeId, usize)>,
    storage: Vec<Option<(Storage, usize)>>,
    regions: Vec<Region>,
}

impl Planner {
    fn new(nodes: Vec<Node>, states: Vec<State>, outputs: Vec<(String, NodeId)>, dtype: DType) -> Self {
        let n = nodes.len();
        Planner {
            states,
            outputs,
            dtype,
            live: vec![false; n],
            root: (0..n).collect(),
            last_use: vec![0; n],
            packed: HashMap::new(),
            storage: vec![None; n],
            regions: Vec::new(),
            nodes,
        }
    }

    fn run(mut self) -> Plan {
        self.live = super::live(&self.nodes, &self.states, &self.outputs);
        self.find_roots();
        self.place_packs();
        let mut steps = Vec::new();
        let mut inputs = Vec::new();
        for id in 0..self.nodes.len() {
            if !self.live[id] {
                continue;
            }
            match self.nodes[id].source.clone() {
                Source::Input(name) => {
                    // Uploaded before the run begins.
                    let region = self.region(self.bytes(id), 0, self.last_use[id]);
                    self.storage[id] = Some((Storage::Region(region, 0), 0));
                    inputs.push((name, id));
                }
                Source::State(s) => self.storage[id] = Some((Storage::State(s), 0)),
                Source::Op { op, inputs } => self.place(id, op, &inputs, &mut steps),
            }
        }
        self.write_back(&mut steps);
        self.finish(steps, inputs)
    }

    fn bytes(&self, id: NodeId) -> usize {
        self.nodes[id].shape.numel() * self.nodes[id].dtype.size()
    }

    fn end(&self) -> usize {
        self.nodes.len()
    }

    fn find_roots(&mut self) {
        let end = self.end();
        for id in 0..self.nodes.len() {
            if !self.live[id] {
                continue;
            }
            let Source::Op { op, inputs } = &self.nodes[id].source else { continue };
            if let Memory::View(_) = op.memory() {
                self.root[id] = self.root[inputs[0]];
            } else {
                for &i in inputs {
                    let root = self.root[i];
                    self.last_use[root] = self.last_use[root].max(id);
                }
            }
        }
        let kept = self.outputs.iter().map(|&(_, id)| id).chain(self.states.iter().map(|s| s.current));
        for id in kept.collect::<Vec<_>>() {
            self.last_use[self.root[id]] = end;
        }
    }

    /// Decides which inputs of a pack are computed right where the pack wants them.
    fn place_packs(&mut self) {
        for id in 0..self.nodes.len() {
            let Source::Op { op, inputs } = &self.nodes[id].source else { continue };
            if !self.live[id] || op.memory() != Memory::Pack {
                continue;
            }
            let mut offset = 0;
            for (k, &input) in inputs.iter().enumerate() {
                let root = self.root[input];
                let own = matches!(&self.nodes[root].source, Source::Op { op, .. }
                    if matches!(op.memory(), Memory::Fresh | Memory::Reuse(_)));
                // What someone reads after the pack must not lie in its memory, which may be written to by then.
                let last = self.last_use[root] == id;
                if own && last && self.covers(root, &inputs[k..]) && !self.packed.contains_key(&root) {
                    self.packed.insert(root, (id, offset));
                }
                offset += self.bytes(input);
            }
        }
    }

    /// Whether the first of `parts` look at all of `root`, piece by piece.
    fn covers(&self, root: NodeId, parts: &[NodeId]) -> bool {
        let mut at = 0;
        for &part in parts {
            if at == self.bytes(root) || self.root[part] != root || self.offset(part) != at {
                break;
            }
            at += self.bytes(part);
        }
        at == self.bytes(root)
    }

    /// Where in its root's memory a view begins, in bytes.
    fn offset(&self, id: NodeId) -> usize {
        match &self.nodes[id].source {
            Source::Op { op, inputs } => match op.memory() {
                Memory::View(offset) => self.offset(inputs[0]) + offset * self.nodes[id].dtype.size(),
                _ => 0,
            },
            _ => 0,
        }
    }

    fn region(&mut self, bytes: usize, first: usize, last: usize) -> usize {
        self.regions.push(Region { bytes, first, last });
        self.regions.len() - 1
    }

    /// Memory of its own for a node, from its position to its last use.
    fn fresh(&mut self, id: NodeId) -> (Storage, usize) {
        let region = self.region(self.bytes(id), id, self.last_use[id].max(id));
        (Storage::Region(region, 0), 0)
    }

    /// The region of a pack, made when the first of its parts is computed.
    fn pack_region(&mut self, pack: NodeId, first: usize) -> usize {
        match self.storage[pack] {
            Some((Storage::Region(r, _), _)) => r,
            _ => {
                let r = self.region(self.bytes(pack), first, self.last_use[pack].max(pack));
                self.storage[pack] = Some((Storage::Region(r, 0), 0));
                r
            }
        }
    }

    fn place(&mut self, id: NodeId, op: Arc<dyn Op>, inputs: &[NodeId], steps: &mut Vec<Step>) {
        let mut reused = None;
        match op.memory() {
            Memory::View(offset) => {
                let (storage, at) = self.storage[inputs[0]].expect("placed before");
                self.storage[id] = Some((storage, at + offset * self.nodes[id].dtype.size()));
                return;
            }
            Memory::Pack => {
                let region = self.pack_region(id, id);
                let mut copies = Vec::new();
                let mut at = 0;
                for &input in inputs {
                    let there = self.packed.get(&self.root[input]);
                    if there.is_none_or(|&(pack, offset)| pack != id || offset + self.offset(input) != at) {
                        copies.push((input, at));
                    }
                    at += self.bytes(input);
                }
                self.copy_into(id, region, copies, steps);
                return;
            }
            Memory::InPlace(i) => {
                let old = inputs[i];
                if self.last_use[self.root[old]] > id {
                    // Somebody still wants the old value: update a copy.
                    self.storage[id] = Some(self.fresh(id));
                    let (from, to) = (self.slot(old), self.slot(id));
                    steps.push(self.copy(id, from, to));
                } else {
                    let (storage, at) = self.storage[old].expect("placed before");
                    self.extend(storage, id);
                    self.storage[id] = Some((storage, at));
                }
                reused = Some(i);
            }
            Memory::Reuse(_) | Memory::Fresh if self.packed.contains_key(&id) => {
                let (pack, offset) = self.packed[&id];
                let region = self.pack_region(pack, id);
                self.storage[id] = Some((Storage::Region(region, 0), offset));
            }
            Memory::Reuse(i) if self.may_take_over(id, inputs, i) => {
                let (storage, at) = self.storage[inputs[i]].expect("placed before");
                self.extend(storage, id);
                self.storage[id] = Some((storage, at));
                reused = Some(i);
            }
            Memory::Reuse(_) | Memory::Fresh => self.storage[id] = Some(self.fresh(id)),
        }
        let step = self.step(id, op, inputs, reused);
        steps.push(step);
    }

    /// Whether `id` is the last reader of input `i`'s memory and fills exactly that memory.
    fn may_take_over(&self, id: NodeId, inputs: &[NodeId], i: usize) -> bool {
        let root = self.root[inputs[i]];
        let whole = matches!(self.storage[inputs[i]], Some((Storage::Region(r, 0), 0)) if self.regions[r].bytes == self.bytes(id));
        whole
            && self.last_use[root] == id
            && !self.packed.contains_key(&root)
            && self.bytes(inputs[i]) == self.bytes(id)
            && inputs.iter().enumerate().all(|(j, &other)| j == i || self.root[other] != root)
    }

    fn extend(&mut self, storage: Storage, id: NodeId) {
        if let Storage::Region(r, _) = storage {
            self.regions[r].last = self.regions[r].last.max(self.last_use[id]).max(id);
        }
    }

    /// Copies new values of states that were not computed in place.
    fn write_back(&mut self, steps: &mut Vec<Step>) {
        for (s, state) in self.states.clone().iter().enumerate() {
            let from = self.slot(state.current);
            let to = self.storage_slot(Storage::State(s), 0, &state.shape, self.dtype);
            if from.place != to.place {
                steps.push(self.copy(state.current, from, to));
            }
        }
    }

    fn step(&self, id: NodeId, op: Arc<dyn Op>, inputs: &[NodeId], reused: Option<usize>) -> Step {
        let node = &self.nodes[id];
        Step {
            inputs: inputs.iter().map(|&i| self.slot(i)).collect(),
            output: self.slot(id),
            reused,
            path: node.path.clone(),
            phase: node.phase.clone(),
            backward: node.backward,
            exact: node.exact,
            cost: cost(&self.nodes, id, &*op, inputs),
            op,
        }
    }

    fn copy(&self, id: NodeId, from: Slot, to: Slot) -> Step {
        let node = &self.nodes[id];
        let cost = Cost { bytes: 2 * to.bytes() as u64, ..Cost::default() };
        Step {
            op: Arc::new(Pack),
            inputs: vec![from],
            output: to,
            reused: None,
            path: node.path.clone(),
            phase: node.phase.clone(),
            backward: node.backward,
            exact: node.exact,
            cost,
        }
    }

    /// Copies values to where they begin in a pack: several small ones at once.
    fn copy_into(&self, pack: NodeId, region: usize, copies: Vec<(NodeId, usize)>, steps: &mut Vec<Step>) {
        let whole = Storage::Region(region, 0);
        let length = |id: NodeId| self.nodes[id].shape.numel();
        // What lies elsewhere in the same pack must not be an input of who writes to all of it.
        let outside = |id: NodeId| self.packed.get(&self.root[id]).is_none_or(|&(other, _)| other != pack);
        let together = |id: NodeId| length(id) <= FEW && self.nodes[id].dtype == self.dtype && outside(id);
        let (mut small, mut large): (Vec<_>, Vec<_>) = copies.into_iter().partition(|&(id, _)| together(id));
        if small.len() < 2 {
            large.append(&mut small);
        }
        for (id, at) in large {
            let to = self.storage_slot(whole, at, &self.nodes[id].shape, self.dtype);
            steps.push(self.copy(pack, self.slot(id), to));
        }
        if small.is_empty() {
            return;
        }
        let stretch = |(i, &(id, at)): (usize, &(NodeId, usize))| {
            let offset = at / self.dtype.size();
            Stretch {
                offset,
                length: length(id),
                input: i + 1,
                first: 0,
                keep: 0.0,
                weight: 1.0,
                counted: false,
            }
        };
        let op = Blend { stretches: small.iter().enumerate().map(stretch).collect() };
        let all = self.slot(pack);
        let elements: usize = small.iter().map(|&(id, _)| length(id)).sum();
        steps.push(Step {
            op: Arc::new(op),
            inputs: [all.clone()].into_iter().chain(small.iter().map(|&(id, _)| self.slot(id))).collect(),
            reused: Some(0),
            cost: Cost { bytes: 2 * (elements * self.dtype.size()) as u64, ..Cost::default() },
            ..self.copy(pack, all.clone(), all)
        });
    }

    fn slot(&self, id: NodeId) -> Slot {
        let (storage, at) = self.storage[id].expect("placed before");
        self.storage_slot(storage, at, &self.nodes[id].shape, self.nodes[id].dtype)
    }

    /// A slot whose arena place still means (region, offset), coded as region in the upper half; resolved by `finish`.
    fn storage_slot(&self, storage: Storage, at: usize, shape: &Shape, dtype: DType) -> Slot {
        let place = match storage {
            Storage::State(s) => Place::State(s, at),
            Storage::Region(r, offset) => Place::Arena(r << 40 | (offset + at)),
        };
        Slot { place, dtype, shape: shape.clone() }
    }

    fn finish(self, mut steps: Vec<Step>, inputs: Vec<(String, NodeId)>) -> Plan {
        let (offsets, arena_bytes) = assign(&self.regions);
        let resolve = |slot: &mut Slot| {
            if let Place::Arena(code) = slot.place {
                slot.place = Place::Arena(offsets[code >> 40] + (code & ((1 << 40) - 1)));
            }
        };
        for step in &mut steps {
            step.inputs.iter_mut().for_each(resolve);
            resolve(&mut step.output);
        }
        let named = |list: &[(String, NodeId)]| -> Vec<(String, Slot)> {
            list.iter()
                .map(|(name, id)| {
                    let mut slot = self.slot(*id);
                    resolve(&mut slot);
                    (name.clone(), slot)
                })
                .collect()
        };
        Plan {
            inputs: named(&inputs),
            outputs: named(&self.outputs),
            states: self
                .states
                .iter()
                .map(|s| StateSlot { name: s.name.clone(), shape: s.shape.clone() })
                .collect(),
            arena_bytes,
            unshared_bytes: self.regions.iter().map(|r| r.bytes).sum(),
            dtype: self.dtype,
            work: Cost::default(),
            steps,
        }
    }
}

/// Offsets for regions such as no two that live at the same time overlap: largest first, each as low as it fits.
fn assign(regions: &[Region]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..regions.len()).collect();
    order.sort_by_key(|&r| (std::cmp::Reverse(regions[r].bytes), regions[r].first));
    let mut offsets = vec![0; regions.len()];
    let mut placed: Vec<usize> = Vec::new(); // by rising offset
    let mut total = 0;
    for r in order {
        let region = regions[r];
        let mut at = 0;
        for &other in &placed {
            let o = regions[other];
            if o.last < region.first || region.last < o.first {
                continue;
            }
            if offsets[other] >= at + region.bytes {
                break;
            }
            at = at.max((offsets[other] + o.bytes).next_multiple_of(ALIGN));
        }
        offsets[r] = at;
        total = total.max(at + region.bytes);
        let rank = placed.partition_point(|&p| offsets[p] <= at);
        placed.insert(rank, r);
    }
    (offsets, total)
}
