//! One bf16 copy of a network's weights for all products that read them: without it every product would make its own.
//! Comes after [`super::precision`], which leaves parameters in fp32.

use super::op_of;
use crate::dtype::DType;
use crate::graph::{Memory, Node, NodeId, Source, State, Storage};
use crate::ops::fused::{Expression, Leaf, Map, Token};
use crate::ops::reshape::Reshape;
use crate::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Elements at whose multiples a weight must begin to be read from the copy: 16 bytes, as vector accesses want.
const ALIGNED: usize = 8;

/// The weights of one version of a store that products read.
#[derive(Default)]
struct Weights {
    views: BTreeSet<NodeId>,
    reads: usize,
    /// One past the last element of them.
    end: usize,
}

/// Copies every version of a store of parameters once, right before the first weight of it is looked at, and leads the
/// reads by products there. Nodes get new numbers.
pub fn cast_weights(nodes: &mut Vec<Node>, states: &mut [State], outputs: &mut [(String, NodeId)]) {
    let mut stores = weights(nodes, &super::live(nodes, states, outputs));
    stores.retain(|_, w| w.reads > 1);
    let store_of: BTreeMap<NodeId, NodeId> =
        stores.iter().flat_map(|(&store, w)| w.views.iter().map(move |&view| (view, store))).collect();
    let mut all: Vec<Node> = Vec::with_capacity(nodes.len());
    let mut number: Vec<NodeId> = Vec::with_capacity(nodes.len());
    let (mut copies, mut halves) = (BTreeMap::new(), BTreeMap::new());
    for (id, mut node) in std::mem::take(nodes).into_iter().enumerate() {
        let exact = node.exact;
        if let Source::Op { op, inputs } = &mut node.source {
            for (i, input) in inputs.iter_mut().enumerate() {
                let half = halves.get(input).filter(|_| !exact && in_bf16(op.storage(), i));
                *input = half.copied().unwrap_or(number[*input]);
            }
        }
        number.push(all.len());
        all.push(node.clone());
        let Some(store) = store_of.get(&id) else { continue };
        let mut add = |source: Source, shape: Shape| {
            all.push(Node { source, shape, dtype: DType::Bf16, ..node.clone() });
            all.len() - 1
        };
        let copy = *copies.entry(store).or_insert_with(|| {
            let extents = Shape::from([stores[store].end]);
            let leaf = Leaf { input: 0, offset: 0, steps: vec![1] };
            let expression =
                Expression { extents: extents.clone(), leaves: vec![leaf], code: vec![Token::Leaf(0)] };
            let inputs = vec![number[*store]];
            add(Source::Op { op: Arc::new(Map { expression, flops: 0 }), inputs }, extents)
        });
        let Source::Op { op, .. } = &node.source else { unreachable!("a view is an operation") };
        halves.insert(id, add(Source::Op { op: op.clone(), inputs: vec![copy] }, node.shape.clone()));
    }
    *nodes = all;
    outputs.iter_mut().for_each(|(_, id)| *id = number[*id]);
    states.iter_mut().for_each(|s| s.current = number[s.current]);
}

/// Whether an operation that multiplies in bf16 reads its operand `i` so.
fn in_bf16(storage: Storage, i: usize) -> bool {
    matches!(storage, Storage::Product(operands) if operands.contains(&i))
}

/// By version of a store, the weights that products in bf16 read.
fn weights(nodes: &[Node], live: &[bool]) -> BTreeMap<NodeId, Weights> {
    let mut stores: BTreeMap<NodeId, Weights> = BTreeMap::new();
    for id in (0..nodes.len()).filter(|&id| live[id] && !nodes[id].exact) {
        let Source::Op { op, inputs } = &nodes[id].source else { continue };
        for (i, &view) in inputs.iter().enumerate() {
            if in_bf16(op.storage(), i)
                && let Some((store, stretch)) = weight(nodes, view)
            {
                let w = stores.entry(store).or_default();
                w.views.insert(view);
                w.reads += 1;
                w.end = w.end.max(stretch.offset + stretch.shape.numel());
            }
        }
    }
    stores
}

/// What part of which store a node is a view of.
fn weight(nodes: &[Node], view: NodeId) -> Option<(NodeId, &Reshape)> {
    let (stretch, inputs) = op_of::<Reshape>(nodes, view)?;
    let store = match &nodes[inputs[0]].source {
        Source::State(_) => true,
        Source::Op { op, .. } => matches!(op.memory(), Memory::InPlace(_)),
        Source::Input(_) => false,
    };
    let single = nodes[view].dtype == DType::F32 && stretch.offset.is_multiple_of(ALIGNED);
    (store && single).then_some((inputs[0], stretch))
}
