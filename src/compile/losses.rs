//! A critic's last layer with its loss: where a convolution's result is summed into a loss and mapped to its gradient, and is
//! small, one launch finishes all three ([`ConvLoss`]). Comes after [`super::precision`], which has decided how each is
//! stored.

use crate::graph::{Node, NodeId, Source, State};
use crate::ops::fused::{ConvLoss, ConvMap, Expression, MOST_RESULTS, Map, MapSum, Token, in_order};
use crate::ops::reshape::Reshape;
use crate::shape::Shape;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A convolution, the loss of its result and the loss's gradient.
struct Found {
    conv: NodeId,
    loss: NodeId,
    gradient: NodeId,
    op: ConvLoss,
    inputs: Vec<NodeId>,
}

/// Fuses what is found. Nodes get new numbers.
pub fn losses(nodes: &mut Vec<Node>, states: &mut [State], outputs: &mut [(String, NodeId)]) {
    let found: Vec<Found> = find(nodes, states, outputs);
    let new = found.iter().map(|f| {
        let shape = Shape::from([f.op.offsets(nodes[f.loss].dtype)[3]]);
        let source = Source::Op { op: Arc::new(f.op.clone()), inputs: f.inputs.clone() };
        (f.conv, Node { source, shape, dtype: nodes[f.loss].dtype, ..nodes[f.conv].clone() })
    });
    let number = super::insert(nodes, states, outputs, new.collect());
    for f in found {
        let all = number[f.conv] - 1;
        let dtype = nodes[all].dtype;
        let [gradient, v, loss, _] = f.op.offsets(dtype);
        let kept = f.op.kept.map(|_| (f.conv, v));
        for (id, at) in [(f.gradient, gradient), (f.loss, loss)].into_iter().chain(kept) {
            let node = &mut nodes[number[id]];
            let offset = at * dtype.size() / node.dtype.size();
            let op = Reshape { offset, shape: node.shape.clone() };
            node.source = Source::Op { op: Arc::new(op), inputs: vec![all] };
        }
    }
}

fn find(nodes: &[Node], states: &[State], outputs: &[(String, NodeId)]) -> Vec<Found> {
    let live = super::live(nodes, states, outputs);
    let mut readers: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    for id in (0..nodes.len()).filter(|&id| live[id]) {
        if let Source::Op { inputs, .. } = &nodes[id].source {
            inputs.iter().for_each(|&i| readers.entry(i).or_default().push(id));
        }
    }
    let kept: Vec<NodeId> =
        outputs.iter().map(|&(_, id)| id).chain(states.iter().map(|s| s.current)).collect();
    let candidates = (0..nodes.len()).filter(|&id| live[id] && nodes[id].shape.numel() <= MOST_RESULTS);
    candidates.filter_map(|conv| fusable(nodes, conv, readers.get(&conv)?, kept.contains(&conv))).collect()
}

/// The loss and the gradient among a convolution's readers.
fn fusable(nodes: &[Node], conv: NodeId, readers: &[NodeId], kept: bool) -> Option<Found> {
    let (map, inputs) = op_of::<ConvMap>(nodes, conv).filter(|(map, _)| !map.extra)?;
    let alone = |e: &Expression| {
        let whole = |l: &crate::ops::fused::Leaf| l.offset == 0 && in_order(l, &e.extents);
        e.leaves.len() == 1
            && whole(&e.leaves[0])
            && !e.drops()
            && e.extents.numel() == nodes[conv].shape.numel()
    };
    let (loss, sum) = readers.iter().find_map(|&id| {
        let (sum, _) = op_of::<MapSum>(nodes, id)?;
        (nodes[id].shape.numel() == 1 && alone(&sum.expression)).then_some((id, sum))
    })?;
    let (gradient, slope) = readers.iter().find_map(|&id| {
        let (slope, _) = op_of::<Map>(nodes, id)?;
        (nodes[id].backward && alone(&slope.expression)).then_some((id, slope))
    })?;
    let others = kept || readers.iter().any(|&id| id != loss && id != gradient);
    let op = ConvLoss {
        conv: map.clone(),
        extents: nodes[conv].shape.clone(),
        loss: sum.expression.code.clone(),
        gradient: slope.expression.code.clone(),
        scale: sum.scale,
        gradient_dtype: nodes[gradient].dtype,
        kept: others.then_some(nodes[conv].dtype),
        flops: map.flops + sum.flops + slope.flops,
    };
    let numbers = |code: &[Token]| code.iter().all(|t| !matches!(t, Token::Leaf(i) if *i > 0));
    let fits = numbers(&op.loss) && numbers(&op.gradient) && numbers(&op.conv.code);
    fits.then(|| Found { conv, loss, gradient, op, inputs: inputs.to_vec() })
}

/// A node's operation, if it is of that type, and its inputs.
fn op_of<T: Any>(nodes: &[Node], id: NodeId) -> Option<(&T, &[NodeId])> {
    let Source::Op { op, inputs } = &nodes[id].source else { return None };
    let any: &dyn Any = &**op;
    Some((any.downcast_ref::<T>()?, inputs))
}
