//! A convolution whose result a norm reads takes the norm's statistics as well ([`ConvStats`]): the result is not read again for
//! them. Comes after [`super::precision`], which has decided how each is stored.

use super::op_of;
use crate::graph::{Node, NodeId, Source, State};
use crate::ops::conv::{Conv, ConvGradX};
use crate::ops::fused::{ConvKind, ConvMap, ConvStats, Token};
use crate::ops::norm::{NormKind, NormStats};
use crate::ops::reshape::Reshape;
use crate::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fuses what is found. Nodes get new numbers.
pub fn stats(nodes: &mut Vec<Node>, states: &mut [State], outputs: &mut [(String, NodeId)]) {
    let live = super::live(nodes, states, outputs);
    // By convolution, its statistics.
    let mut found: BTreeMap<NodeId, (NodeId, ConvStats)> = BTreeMap::new();
    for id in (0..nodes.len()).filter(|&id| live[id]) {
        if let Some((NormStats(kind @ (NormKind::Batch | NormKind::Instance)), inputs)) = op_of(nodes, id)
            && let Some(conv) = convolution(nodes, inputs[0])
        {
            let of = &nodes[inputs[0]];
            let op = ConvStats { conv, extents: of.shape.clone(), kind: *kind, stored: of.dtype };
            found.entry(inputs[0]).or_insert((id, op));
        }
    }
    let new = found.iter().map(|(&conv, (stats, op))| {
        let Source::Op { inputs, .. } = &nodes[conv].source else { unreachable!("a convolution") };
        let dtype = nodes[*stats].dtype;
        let source = Source::Op { op: Arc::new(op.clone()), inputs: inputs.clone() };
        let shape = Shape::from([op.offsets(dtype)[2]]);
        (conv, Node { source, shape, dtype, ..nodes[conv].clone() })
    });
    let new = new.collect();
    let number = super::insert(nodes, states, outputs, new);
    for (conv, (stats, op)) in found {
        let whole = number[conv] - 1;
        let dtype = nodes[whole].dtype;
        let [first, second, _] = op.offsets(dtype);
        for (id, at) in [(conv, first), (stats, second)] {
            let node = &mut nodes[number[id]];
            let offset = at * dtype.size() / node.dtype.size();
            let view = Reshape { offset, shape: node.shape.clone() };
            node.source = Source::Op { op: Arc::new(view), inputs: vec![whole] };
        }
    }
}

/// A convolution that reads nothing of its result's shape.
fn convolution(nodes: &[Node], id: NodeId) -> Option<ConvMap> {
    let plain = |kind| ConvMap { kind, bias: None, extra: false, code: vec![Token::Leaf(0)], flops: 0 };
    let groups = |map: &ConvMap| match &map.kind {
        ConvKind::Forward(c) => c.0.groups,
        ConvKind::GradX(c) => c.spec.groups,
        ConvKind::GradW(c) => c.spec.groups,
    };
    op_of::<ConvMap>(nodes, id)
        .filter(|(map, _)| !map.extra && !matches!(map.kind, ConvKind::GradW(_)))
        .map(|(map, _)| map.clone())
        .or_else(|| op_of::<Conv>(nodes, id).map(|(c, _)| plain(ConvKind::Forward(c.clone()))))
        .or_else(|| op_of::<ConvGradX>(nodes, id).map(|(c, _)| plain(ConvKind::GradX(c.clone()))))
        .filter(|map| groups(map) == 1)
}
