//! Norms whose sets are groups of channels take the ways that are made for sets of single channels: statistics are taken channel by
//! channel, by a convolution that computes the channels if there is one ([`super::stats`]), and joined to those of groups
//! ([`JoinStats`]), which every channel of a group then has as its own. What normalises by them becomes part of an expression
//! ([`super::fuse`]), as that of an instance norm does. Comes before both.

use super::op_of;
use crate::graph::{Node, NodeId, Op, Source, State};
use crate::ops::norm::{JoinStats, NormGradSums, NormGradX, NormKind, NormStats, Normalize};
use crate::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The least pixels of an image. With fewer, statistics of each channel are no less than the values themselves: so it is in a norm
/// of every row by itself.
const LEAST_PIXELS: usize = 32;

/// Rearranges what is found. Nodes get new numbers.
pub fn groups(nodes: &mut Vec<Node>, states: &mut [State], outputs: &mut [(String, NodeId)]) {
    let live = super::live(nodes, states, outputs);
    let mut readers = vec![Vec::new(); nodes.len()];
    for id in (0..nodes.len()).filter(|&id| live[id]) {
        if let Source::Op { inputs, .. } = &nodes[id].source {
            inputs.iter().for_each(|&i| readers[i].push(id));
        }
    }
    let seen = |id: NodeId| outputs.iter().any(|o| o.1 == id) || states.iter().any(|s| s.current == id);
    let found: Vec<(NodeId, NodeId, usize)> = (0..nodes.len())
        .filter(|&id| live[id] && !seen(id))
        .filter_map(|id| {
            let (&NormStats(kind), &[x]) = op_of::<NormStats>(nodes, id)? else { return None };
            let NormKind::Group(groups) = kind else { return None };
            let sets = kind.sets(&nodes[x].shape).ok()?;
            let suits = groups < sets.c && sets.rows >= LEAST_PIXELS;
            let all = readers[id].iter().all(|&r| by_channels(nodes, r, id, kind).is_some());
            (suits && all).then_some((id, x, groups))
        })
        .collect();
    let mut new = BTreeMap::new();
    for &(id, x, groups) in &found {
        for &reader in &readers[id] {
            if let Some(op) = by_channels(nodes, reader, id, NormKind::Group(groups))
                && let Source::Op { op: old, .. } = &mut nodes[reader].source
            {
                *old = op;
            }
        }
        let shape = Shape::from([2, nodes[x].shape[0] * nodes[x].shape.channels()]);
        let source = Source::Op { op: Arc::new(NormStats(NormKind::Instance)), inputs: vec![x] };
        nodes[id].shape = shape.clone();
        new.insert(id, Node { source, shape, ..nodes[id].clone() });
    }
    let number = super::insert(nodes, states, outputs, new);
    for (id, x, groups) in found {
        let channels = nodes[number[x]].shape.channels();
        let join = Arc::new(JoinStats { channels, groups });
        nodes[number[id]].source = Source::Op { op: join, inputs: vec![number[id] - 1] };
    }
}

/// What a reader of a group's statistics becomes when every channel has its group's; nothing if it is none that could.
fn by_channels(nodes: &[Node], reader: NodeId, stats: NodeId, group: NormKind) -> Option<Arc<dyn Op>> {
    let Source::Op { inputs, .. } = &nodes.get(reader)?.source else { return None };
    if inputs.iter().enumerate().any(|(i, &input)| (input == stats) != (i == 1)) {
        return None;
    }
    let kind = NormKind::Instance;
    if let Some((op, _)) = op_of::<Normalize>(nodes, reader)
        && op.kind == group
    {
        return Some(Arc::new(Normalize { kind, ..*op }));
    }
    if let Some((op, _)) = op_of::<NormGradSums>(nodes, reader)
        && op.kind == group
    {
        return Some(Arc::new(NormGradSums { kind, ..*op }));
    }
    let (op, inputs) = op_of::<NormGradX>(nodes, reader)?;
    let NormKind::Group(groups) = group else { return None };
    let shared = nodes[inputs[0]].shape.channels() / groups;
    (op.kind == group).then(|| Arc::new(NormGradX { kind, shared, ..*op }) as Arc<dyn Op>)
}
