//! From a traced graph to something that runs. (Differentiation, which operations need for their own second
//! derivatives, lives one level below in [`crate::ops::gradient`].)

pub mod fuse;
pub mod plan;
pub mod precision;
pub mod shadow;

use crate::graph::{Node, NodeId, Source, State};

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
