//! A critic's last layer with its loss: where a convolution's result is summed into a loss and mapped to its gradient, and is
//! small, one launch finishes all three ([`ConvLoss`]). Comes after [`super::precision`], which has decided how each is
//! stored.

use super::op_of;
use crate::graph::{Node, NodeId, Source, State};
use crate::ops::fused::{ConvLoss, ConvMap, Expression, MOST_RESULTS, Map, MapSum, Token, in_order};
use crate::ops::reshape::Reshape;
use crate::ops::unary::Unary;
use crate::shape::Shape;
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
    // Whoever is read from outside is read by one more.
    let outside = outputs.iter().map(|&(_, id)| id).chain(states.iter().map(|s| s.current));
    outside.for_each(|id| readers.entry(id).or_default().push(NodeId::MAX));
    let candidates = (0..nodes.len()).filter(|&id| live[id] && nodes[id].shape.numel() <= MOST_RESULTS);
    candidates.filter_map(|conv| fusable(nodes, conv, &readers)).collect()
}

/// A convolution with loss and gradient, be they of its result or of a function of it.
fn fusable(nodes: &[Node], conv: NodeId, readers: &BTreeMap<NodeId, Vec<NodeId>>) -> Option<Found> {
    let (map, inputs) = op_of::<ConvMap>(nodes, conv).filter(|(map, _)| !map.extra)?;
    let own = readers.get(&conv)?;
    let n = nodes[conv].shape.numel();
    let functions = own.iter().filter_map(|&id| Some((id, function(nodes, id, n)?)));
    let (of, first, loss, gradient) = [(conv, vec![Token::Leaf(0)])]
        .into_iter()
        .chain(functions)
        .find_map(|(of, code)| ends(nodes, readers.get(&of)?, n).map(|(l, g)| (of, code, l, g)))?;
    let (sum, slope) = (op_of::<MapSum>(nodes, loss)?.0, op_of::<Map>(nodes, gradient)?.0);
    let taken = |id: &NodeId| [loss, gradient].contains(id);
    let between = |id: &NodeId| *id == of && readers[&of].iter().all(taken);
    let others = own.iter().any(|id| !taken(id) && !between(id));
    // A function between them that nobody else reads is worked out here alone.
    let function = if of != conv && between(&of) { super::work::flops(nodes, of) } else { 0 };
    let behind = |code: &[Token]| -> Vec<Token> {
        code.iter().flat_map(|t| if *t == Token::Leaf(0) { first.clone() } else { vec![*t] }).collect()
    };
    let op = ConvLoss {
        conv: map.clone(),
        extents: nodes[conv].shape.clone(),
        loss: behind(&sum.expression.code),
        gradient: behind(&slope.expression.code),
        scale: sum.scale,
        gradient_dtype: nodes[gradient].dtype,
        kept: others.then_some(nodes[conv].dtype),
        flops: map.flops + function + sum.flops + slope.flops,
    };
    Some(Found { conv, loss, gradient, op, inputs: inputs.to_vec() })
}

/// The sum of everything and the map of everything among a value's readers.
fn ends(nodes: &[Node], readers: &[NodeId], n: usize) -> Option<(NodeId, NodeId)> {
    let live = || readers.iter().copied().filter(|&id| id < nodes.len());
    let loss = live().find(|&id| {
        let terms = op_of::<MapSum>(nodes, id).map(|(sum, _)| &sum.expression);
        nodes[id].shape.numel() == 1 && terms.is_some_and(|e| of_one(e, n))
    })?;
    let gradient = live().find(|&id| {
        nodes[id].backward && op_of::<Map>(nodes, id).is_some_and(|(map, _)| of_one(&map.expression, n))
    })?;
    Some((loss, gradient))
}

/// What a node computes of each element of its only input, if that is all.
fn function(nodes: &[Node], id: NodeId, n: usize) -> Option<Vec<Token>> {
    if id >= nodes.len() {
        return None;
    }
    if let Some((f, _)) = op_of::<Unary>(nodes, id) {
        return Some(vec![Token::Leaf(0), Token::Unary(*f)]);
    }
    op_of::<Map>(nodes, id)
        .filter(|(map, _)| of_one(&map.expression, n))
        .map(|(map, _)| map.expression.code.clone())
}

/// Whether an expression is of one value alone, of all its `n` elements in order.
fn of_one(e: &Expression, n: usize) -> bool {
    e.extents.numel() == n
        && e.leaves.len() == 1
        && e.leaves[0].offset == 0
        && in_order(&e.leaves[0], &e.extents)
        && !e.drops()
}
