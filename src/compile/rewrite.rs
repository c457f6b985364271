//! What is rearranged before fusion, so that there is more to fuse: every result stays what it was, but for the order of two
//! terms of a sum.

use super::op_of;
use crate::graph::{Node, NodeId, Op, Source, State};
use crate::ops::binary::Binary;
use crate::ops::concat::{Concat, Pack};
use crate::ops::fused::{Blend, Stretch};
use crate::ops::optimiser::RunningStats;
use crate::ops::reshape::Detach;
use crate::ops::unary::Unary;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that follows. Nodes get new numbers.
pub fn rewrite(nodes: &mut Vec<Node>, states: &mut [State], outputs: &mut [(String, NodeId)]) {
    share_concats(nodes);
    let readers = Readers::of(nodes, states, outputs);
    share_activations(nodes, &readers);
    join_running(nodes, &readers);
    add_into_packs(nodes, states, outputs);
    repeat_differences(nodes, states, outputs);
}

/// Who reads a node. Whoever is read from outside counts as read by one more.
struct Readers(Vec<Vec<NodeId>>);

impl Readers {
    fn of(nodes: &[Node], states: &[State], outputs: &[(String, NodeId)]) -> Self {
        let live = super::live(nodes, states, outputs);
        let mut all = vec![Vec::new(); nodes.len()];
        for id in (0..nodes.len()).filter(|&id| live[id]) {
            if let Source::Op { inputs, .. } = &nodes[id].source {
                inputs.iter().for_each(|&i| all[i].push(id));
            }
        }
        outputs.iter().for_each(|&(_, id)| all[id].push(NodeId::MAX));
        states.iter().for_each(|s| all[s.current].push(NodeId::MAX));
        Readers(all)
    }

    /// The only one.
    fn only(&self, id: NodeId) -> Option<NodeId> {
        match self.0[id][..] {
            [reader] if reader != NodeId::MAX => Some(reader),
            _ => None,
        }
    }
}

fn replace(node: &mut Node, op: impl Op, inputs: Vec<NodeId>) {
    node.source = Source::Op { op: Arc::new(op), inputs };
}

/// Concatenations of the same values are one: a discriminator sees the same pair when it learns, detached, and when the
/// generator does.
fn share_concats(nodes: &mut [Node]) {
    let mut known: BTreeMap<(usize, Vec<NodeId>), NodeId> = BTreeMap::new();
    let mut same: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for id in 0..nodes.len() {
        let Source::Op { inputs, .. } = &mut nodes[id].source else { continue };
        inputs.iter_mut().for_each(|i| *i = same.get(i).copied().unwrap_or(*i));
        let Some((&Concat { axis }, parts)) = op_of(nodes, id) else { continue };
        let exact = nodes[id].exact;
        let parts = parts.iter().map(|&(mut i)| {
            while let Some((_, inputs)) = op_of::<Detach>(nodes, i) {
                i = inputs[0];
            }
            i
        });
        let first = *known.entry((axis, parts.collect())).or_insert(id);
        if first != id && nodes[first].exact == exact {
            same.insert(id, first);
        }
    }
}

/// `relu(x)` is `relu(leaky_relu(x))`, to the bit. Where x is read by its leaky ReLU and beyond that only by a ReLU, or by a
/// concatenation that only a ReLU reads (the skip of a U-Net), they read the former: then x has one reader and is never stored.
fn share_activations(nodes: &mut [Node], readers: &Readers) {
    let relu = |nodes: &[Node], id: NodeId| {
        op_of::<Unary>(nodes, id).is_some_and(|(f, _)| *f == Unary::LeakyRelu(0.0))
    };
    for leaky in 0..nodes.len() {
        let Some((&Unary::LeakyRelu(slope), &[x])) = op_of::<Unary>(nodes, leaky) else {
            continue;
        };
        let others: Vec<NodeId> = readers.0[x].iter().copied().filter(|&r| r != leaky).collect();
        let fits = |&r: &NodeId| {
            r > leaky
                && r < nodes.len()
                && (relu(nodes, r)
                    || op_of::<Concat>(nodes, r).is_some()
                        && readers.0[r].iter().all(|&next| relu(nodes, next)))
        };
        if slope > 0.0 && !readers.0[leaky].is_empty() && !others.is_empty() && others.iter().all(fits) {
            for other in others {
                if let Source::Op { inputs, .. } = &mut nodes[other].source {
                    inputs.iter_mut().filter(|i| **i == x).for_each(|i| *i = leaky);
                }
            }
        }
    }
}

/// All updates of one network's running statistics are one, where the last was: nobody reads them in between.
fn join_running(nodes: &mut [Node], readers: &Readers) {
    let running = |nodes: &[Node], id: NodeId| {
        op_of::<RunningStats>(nodes, id).map(|(op, inputs)| (*op, inputs[0], inputs[1]))
    };
    let last = |id: &NodeId| {
        !readers.0[*id].is_empty()
            && readers.only(*id).is_none_or(|r| running(nodes, r).is_none_or(|n| n.1 != *id))
    };
    let ends: Vec<NodeId> = (0..nodes.len()).filter(|id| running(nodes, *id).is_some() && last(id)).collect();
    for end in ends {
        let mut links = Vec::new();
        let mut at = end;
        while let Some((op, before, stats)) = running(nodes, at) {
            links.push((op, stats));
            at = before;
            if readers.only(before).is_none() {
                break; // others want what it held by then
            }
        }
        let (mut inputs, mut stretches) = (vec![at], Vec::new());
        for (op, stats) in links.into_iter().rev() {
            inputs.push(stats);
            let (m, c) = (op.momentum, op.channels);
            for (half, weight) in [m, m * op.unbiased_factor].into_iter().enumerate() {
                stretches.push(Stretch {
                    offset: op.offset + half * c,
                    length: c,
                    input: inputs.len() - 1,
                    first: half * c,
                    keep: 1.0 - m,
                    weight,
                    counted: true,
                });
            }
        }
        replace(&mut nodes[end], Blend { stretches }, inputs);
    }
}

/// A difference of two tensors that a function of it and later one other function read (a distance and its derivative) is worked
/// out by each of them: nothing is stored. One of the two tensors must be kept for others anyway.
fn repeat_differences(nodes: &mut Vec<Node>, states: &mut [State], outputs: &mut [(String, NodeId)]) {
    let readers = Readers::of(nodes, states, outputs);
    let function = |id: NodeId| op_of::<Unary>(nodes, id).is_some() || op_of::<Binary>(nodes, id).is_some();
    let mut again: BTreeMap<NodeId, Node> = BTreeMap::new();
    let mut whose: Vec<(NodeId, NodeId)> = Vec::new();
    for id in 0..nodes.len() {
        if let Some((Binary::Sub, &[a, b])) = op_of::<Binary>(nodes, id)
            && [a, b].iter().all(|&i| nodes[i].shape == nodes[id].shape)
            && let [first, second] = readers.0[id][..]
            && first != second
            && [first, second].iter().all(|&r| r < nodes.len() && function(r))
            && [a, b].iter().any(|&i| readers.0[i].iter().any(|&r| r > first.max(second)))
            && !again.contains_key(&first.max(second))
        {
            let later = first.max(second);
            let backward = nodes[later].backward;
            again.insert(later, Node { backward, uncounted: true, ..nodes[id].clone() });
            whose.push((id, later));
        }
    }
    let number = super::insert(nodes, states, outputs, again);
    for (id, later) in whose {
        let (from, later) = (number[id], number[later]);
        if let Source::Op { inputs, .. } = &mut nodes[later].source {
            inputs.iter_mut().filter(|i| **i == from).for_each(|i| *i = later - 1);
        }
    }
}

/// The most elements of a sum that is added with others: larger ones are worth a launch, or go behind a product.
const FEW: usize = 1 << 12;

/// Small sums of two gradients that a pack collects (by the same scales, shifts and biases, in two passes through a network): the
/// first terms are packed, and the second ones added all at once.
fn add_into_packs(nodes: &mut Vec<Node>, states: &mut [State], outputs: &mut [(String, NodeId)]) {
    let readers = Readers::of(nodes, states, outputs);
    let mut added: BTreeMap<NodeId, Node> = BTreeMap::new();
    let packs: Vec<NodeId> = (0..nodes.len().saturating_sub(1))
        .filter(|&id| op_of::<Pack>(nodes, id).is_some() && !readers.0[id].is_empty())
        .collect();
    for pack in packs {
        let Some((_, parts)) = op_of::<Pack>(nodes, pack) else { continue };
        let mut parts = parts.to_vec();
        let (mut inputs, mut stretches, mut offset) = (vec![pack], Vec::new(), 0);
        for part in &mut parts {
            let length = nodes[*part].shape.numel();
            if let Some((Binary::Add, &[a, b])) = op_of::<Binary>(nodes, *part)
                && length <= FEW
                && [a, b].iter().all(|&i| nodes[i].shape.numel() == length)
                && readers.only(*part) == Some(pack)
            {
                inputs.push(b);
                let input = inputs.len() - 1;
                let counted = !nodes[*part].uncounted;
                stretches.push(Stretch { offset, length, input, first: 0, keep: 1.0, weight: 1.0, counted });
                *part = a;
            }
            offset += length;
        }
        if stretches.len() < 2 {
            continue;
        }
        replace(&mut nodes[pack], Pack, parts);
        let mut node = nodes[pack].clone();
        replace(&mut node, Blend { stretches }, inputs);
        added.insert(pack + 1, node);
    }
    let packs: Vec<NodeId> = added.keys().map(|at| at - 1).collect();
    let number = super::insert(nodes, states, outputs, added);
    for pack in packs {
        let (pack, sum) = (number[pack], number[pack + 1] - 1);
        for node in &mut nodes[sum + 1..] {
            if let Source::Op { inputs, .. } = &mut node.source {
                inputs.iter_mut().filter(|i| **i == pack).for_each(|i| *i = sum);
            }
        }
        outputs.iter_mut().filter(|(_, id)| *id == pack).for_each(|(_, id)| *id = sum);
    }
}
