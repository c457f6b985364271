//! Mixed precision: what the convolutions of a network read and write is stored in bf16, and multiplied on tensor cores
//! with sums in fp32 (Micikevicius et al. 2018, with bf16 in place of fp16, whose range needs no loss scaling).
//!
//! fp32 stay: parameters with their moments, gradients by parameters, statistics, sums, losses, whatever is read from
//! outside, and a gradient penalty with everything behind it: its second derivatives are differences of near numbers.

use crate::dtype::DType;
use crate::graph::{Memory, Node, NodeId, Source, State, Storage};

/// Decides how every value is stored.
pub fn mix(nodes: &mut [Node], states: &[State], outputs: &[(String, NodeId)]) {
    let live = super::live(nodes, states, outputs);
    let single = must_stay(nodes, &live, states, outputs);
    let multiplied = multiplied(nodes, &live);
    for id in (0..nodes.len()).filter(|&id| live[id]) {
        let Source::Op { op, inputs } = nodes[id].source.clone() else { continue };
        let half = |i: NodeId| nodes[i].dtype == DType::Bf16;
        let exact = nodes[id].exact || inputs.iter().any(|&i| nodes[i].exact && nodes[i].shape.numel() > 1);
        let wanted = match (op.memory(), op.storage()) {
            (Memory::View(_), _) => half(inputs[0]),
            (Memory::Pack | Memory::InPlace(_), _) | (_, Storage::Single | Storage::Operands(_)) => false,
            (_, Storage::Any) if !single[id] && !exact && multiplied[id] => true,
            // Losses belong to no layer.
            _ if single[id] || exact || nodes[id].path.is_empty() => false,
            (_, Storage::Product(_)) => true,
            (_, Storage::Any) => inputs.iter().any(|&i| half(i)),
            (_, Storage::Mixed { alike: [], free }) => free.iter().any(|&i| half(inputs[i])),
            (_, Storage::Mixed { alike, .. }) => alike.iter().all(|&i| half(inputs[i])),
        };
        nodes[id].exact = exact;
        if wanted {
            nodes[id].dtype = DType::Bf16;
        }
    }
}

/// What only products multiply, and sums may look at, though it belongs to no layer: a pair that a discriminator is shown, the
/// gradient of a loss by its input. It is stored as they multiply it, and not copied by each of them.
fn multiplied(nodes: &[Node], live: &[bool]) -> Vec<bool> {
    let (mut by_products, mut by_others) = (vec![false; nodes.len()], vec![false; nodes.len()]);
    for id in (0..nodes.len()).filter(|&id| live[id]) {
        let Source::Op { op, inputs } = &nodes[id].source else { continue };
        for (i, &input) in inputs.iter().enumerate() {
            match op.storage() {
                Storage::Product(operands) if operands.contains(&i) && !nodes[id].exact => {
                    by_products[input] = true;
                }
                Storage::Operands(operands) if operands.contains(&i) && !nodes[id].exact => {}
                _ => by_others[input] = true,
            }
        }
    }
    (0..nodes.len()).map(|id| nodes[id].path.is_empty() && by_products[id] && !by_others[id]).collect()
}

/// What is read from outside, and what is computed right into a pack (a network's flat gradient), through any view.
fn must_stay(nodes: &[Node], live: &[bool], states: &[State], outputs: &[(String, NodeId)]) -> Vec<bool> {
    let mut stay = vec![false; nodes.len()];
    outputs.iter().for_each(|&(_, id)| stay[id] = true);
    states.iter().for_each(|s| stay[s.current] = true);
    for id in (0..nodes.len()).rev().filter(|&id| live[id]) {
        let Source::Op { op, inputs } = &nodes[id].source else { continue };
        match op.memory() {
            Memory::Pack | Memory::InPlace(_) => inputs.iter().for_each(|&i| stay[i] = true),
            Memory::View(_) if stay[id] => stay[inputs[0]] = true,
            _ => {}
        }
    }
    stay
}
