//! What a step works out, whatever runs it: FLOPs and bytes of the graph as it was traced.
//!
//! FLOPs are those of the traced operations, each once. Passes for a GPU join operations and repeat some, and must not
//! change the number: what is joined is added up, what is repeated is counted where it stood first (as the FLOPs of a model
//! do not grow when activations are recomputed), and what depends on constants alone is counted nowhere.
//!
//! Bytes are those of each traced operation's operands and result, read and written once in the type of the graph. A device
//! moves fewer of them the more is fused and the more is stored in bf16: [`super::plan::Plan::cost`] has those.

use crate::graph::{Cost, Memory, Node, NodeId, Op, Source, State};
use crate::ops::constant::Constant;
use crate::shape::Shape;
use std::any::Any;

/// Marks what depends on constants alone: it is the same at every step, whoever works it out, and when.
pub fn mark_constants(nodes: &mut [Node]) {
    for id in 0..nodes.len() {
        let Source::Op { op, inputs } = &nodes[id].source else { continue };
        let any: &dyn Any = &**op;
        let constant =
            any.is::<Constant>() || (!inputs.is_empty() && inputs.iter().all(|&i| nodes[i].uncounted));
        nodes[id].uncounted = constant;
    }
}

/// FLOPs of a node, if they count.
pub(super) fn flops(nodes: &[Node], id: NodeId) -> u64 {
    match &nodes[id].source {
        Source::Op { op, inputs } if !nodes[id].uncounted => {
            let shapes: Vec<&Shape> = inputs.iter().map(|&i| &nodes[i].shape).collect();
            op.flops(&shapes, &nodes[id].shape)
        }
        _ => 0,
    }
}

/// FLOPs of a node, and the bytes that it reads and writes as it is stored.
pub(super) fn cost(nodes: &[Node], id: NodeId, op: &dyn Op, inputs: &[NodeId]) -> Cost {
    let node = &nodes[id];
    let shapes: Vec<&Shape> = inputs.iter().map(|&i| &nodes[i].shape).collect();
    let read = |(i, &input): (usize, &NodeId)| op.reads(i, &shapes, &node.shape) * nodes[input].dtype.size();
    let written = op.writes(&node.shape) * node.dtype.size();
    let products = if node.uncounted { 0 } else { op.product_flops(&shapes, &node.shape) };
    let bytes = inputs.iter().enumerate().map(read).sum::<usize>() + written;
    Cost { flops: flops(nodes, id), products, bytes: bytes as u64 }
}

/// The work of a traced graph: of every operation that a result depends on. Views and packs do none.
pub fn work(nodes: &[Node], states: &[State], outputs: &[(String, NodeId)]) -> Cost {
    let live = super::live(nodes, states, outputs);
    let of = |id: NodeId| match &nodes[id].source {
        Source::Op { op, inputs } if !matches!(op.memory(), Memory::View(_) | Memory::Pack) => {
            cost(nodes, id, &**op, inputs)
        }
        _ => Cost::default(),
    };
    (0..nodes.len()).filter(|&id| live[id]).map(of).sum()
}
