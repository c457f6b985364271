//! A convolution whose result a norm reads takes the norm's statistics as well, and one that computes the gradient by a norm's
//! result takes the sums that the norm's gradient is made of ([`ConvStats`]): the result is not read again for them. Comes after
//! [`super::precision`], which has decided how each is stored.

use super::op_of;
use crate::graph::{Node, NodeId, Source, State};
use crate::ops::conv::{Conv, ConvGradX};
use crate::ops::fused::{ConvKind, ConvMap, ConvStats, Token, Wanted};
use crate::ops::norm::{NormGradSums, NormKind, NormStats};
use crate::ops::reshape::Reshape;
use crate::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fuses what is found. Nodes get new numbers.
pub fn stats(nodes: &mut Vec<Node>, states: &mut [State], outputs: &mut [(String, NodeId)]) {
    let live = super::live(nodes, states, outputs);
    // By convolution: its statistics, what else they are made of, and what computes both.
    let mut found: BTreeMap<NodeId, (NodeId, Vec<NodeId>, ConvStats)> = BTreeMap::new();
    for id in (0..nodes.len()).filter(|&id| live[id]) {
        let Some((of, more, wanted)) = wanted(nodes, id) else { continue };
        if let Some(conv) = convolution(nodes, of, &wanted)
            && more.iter().all(|&input| input < of)
        {
            let node = &nodes[of];
            let op = ConvStats { conv, extents: node.shape.clone(), wanted, stored: node.dtype };
            found.entry(of).or_insert((id, more, op));
        }
    }
    let new = found.iter().map(|(&conv, (stats, more, op))| {
        let Source::Op { inputs, .. } = &nodes[conv].source else { unreachable!("a convolution") };
        let dtype = nodes[*stats].dtype;
        let inputs = inputs.iter().chain(more).copied().collect();
        let source = Source::Op { op: Arc::new(op.clone()), inputs };
        let shape = Shape::from([op.offsets(dtype)[2]]);
        (conv, Node { source, shape, dtype, ..nodes[conv].clone() })
    });
    let new = new.collect();
    let number = super::insert(nodes, states, outputs, new);
    for (conv, (stats, _, op)) in found {
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

/// What a norm wants to know at node `id`: of which value, with the help of which others.
fn wanted(nodes: &[Node], id: NodeId) -> Option<(NodeId, Vec<NodeId>, Wanted)> {
    let whole_channels = |kind: NormKind| matches!(kind, NormKind::Batch | NormKind::Instance);
    if let Some((&NormStats(kind), inputs)) = op_of(nodes, id) {
        return whole_channels(kind).then(|| (inputs[0], Vec::new(), Wanted::Statistics(kind)));
    }
    let (&sums, inputs) = op_of::<NormGradSums>(nodes, id)?;
    // Two channels of bf16 are one element of the tensor that everything lies in.
    let aligned = sums.first.is_multiple_of(2);
    let channels = nodes[inputs[0]].shape.channels();
    (whole_channels(sums.kind) && aligned)
        .then(|| (inputs[2], inputs[..2].to_vec(), Wanted::Sums(sums, channels)))
}

/// A convolution that can do more. A second tensor may be one whose memory the result was to take over: not where a forward
/// pass keeps its results anyway.
fn convolution(nodes: &[Node], id: NodeId, wanted: &Wanted) -> Option<ConvMap> {
    let flops = super::work::flops(nodes, id);
    let plain = |kind| ConvMap { kind, bias: None, extra: false, code: vec![Token::Leaf(0)], flops };
    let groups = |map: &ConvMap| match &map.kind {
        ConvKind::Forward(c) => c.0.groups,
        ConvKind::GradX(c) => c.spec.groups,
        ConvKind::GradW(c) => c.spec.groups,
    };
    let extra = matches!(wanted, Wanted::Sums(..));
    op_of::<ConvMap>(nodes, id)
        .filter(|(map, _)| (extra || !map.extra) && !matches!(map.kind, ConvKind::GradW(_)))
        .map(|(map, _)| map.clone())
        .or_else(|| op_of::<Conv>(nodes, id).map(|(c, _)| plain(ConvKind::Forward(c.clone()))))
        .or_else(|| op_of::<ConvGradX>(nodes, id).map(|(c, _)| plain(ConvKind::GradX(c.clone()))))
        .filter(|map| groups(map) == 1)
}
