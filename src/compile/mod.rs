//! From a traced graph to something that runs. (Differentiation, which operations need for their own second
//! derivatives, lives one level below in [`crate::ops::gradient`].)

pub mod fuse;
pub mod groups;
pub mod losses;
pub mod plan;
pub mod precision;
pub mod rewrite;
pub mod stats;
pub mod weight_casts;
pub mod work;

use crate::graph::{Node, NodeId, Source, State};
use std::any::Any;
use std::collections::BTreeMap;

/// Inserts each of `new` right before the node of its number; gives back every old node's new number. The new ones' inputs
/// are given by old numbers.
fn insert(
    nodes: &mut Vec<Node>,
    states: &mut [State],
    outputs: &mut [(String, NodeId)],
    mut new: BTreeMap<NodeId, Node>,
) -> Vec<NodeId> {
    let mut number: Vec<NodeId> = Vec::with_capacity(nodes.len());
    let mut all: Vec<Node> = Vec::with_capacity(nodes.len() + new.len());
    for (id, node) in std::mem::take(nodes).into_iter().enumerate() {
        for mut node in new.remove(&id).into_iter().chain([node]) {
            if let Source::Op { inputs, .. } = &mut node.source {
                inputs.iter_mut().for_each(|i| *i = number[*i]);
            }
            all.push(node);
        }
        number.push(all.len() - 1);
    }
    *nodes = all;
    outputs.iter_mut().for_each(|(_, id)| *id = number[*id]);
    states.iter_mut().for_each(|s| s.current = number[s.current]);
    number
}

/// A node's operation, if it is of that type, with its inputs; nothing for what is no node's number.
fn op_of<T: Any>(nodes: &[Node], id: NodeId) -> Option<(&T, &[NodeId])> {
    let Source::Op { op, inputs } = &nodes.get(id)?.source else { return None };
    let any: &dyn Any = &**op;
    Some((any.downcast_ref::<T>()?, inputs))
}

/// Which nodes an output or a state's new value depends on.
fn live(nodes: &[Node], states: &[State], outputs: &[(String, NodeId)]) -> Vec<bool> {
    let mut live = vec![false; nodes.len()];
    let mut stack: Vec<NodeId> = outputs.iter().map(|&(_, id)| id).collect();
    stack.extend(states.iter().map(|s| s.current));
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut live[id], true)
            && let Source::Op { inputs, .. } = &nodes[id].source
        {
            stack.extend(inputs);
        }
    }
    live
}
