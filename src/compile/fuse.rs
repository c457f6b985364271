//! Fusion: neighbouring pointwise operations become one pass over memory.
//!
//! Chains of functions of one and two values, with the broadcasts, permutations, crops and reshapes between them and the
//! maps of norms, become one expression ([`Map`]); an expression that is only summed goes into the sum ([`MapSum`]), one
//! that is only concatenated is computed right into its slice ([`MapConcat`]), and what follows a convolution (bias,
//! activation, a residual, the gate of an activation's derivative) is done before its sums are stored ([`ConvMap`]).
//!
//! It runs after differentiation, so nothing here needs a derivative, and changes nothing but rounding. An operation is
//! computed only once: it is taken into another only if nobody else reads it.

use crate::graph::{Node, NodeId, Op, Source, State};
use crate::ops::binary::Binary;
use crate::ops::broadcast::Broadcast;
use crate::ops::concat::Concat;
use crate::ops::constant::Constant;
use crate::ops::conv::{Conv, ConvGradW, ConvGradX};
use crate::ops::dropout::Dropout;
use crate::ops::fused::{
    ConvKind, ConvMap, Expression, Leaf, MOST_LEAVES, MOST_TOKENS, Map, MapConcat, MapSum, Token, in_order,
    value,
};
use crate::ops::norm::{NormGradSums, NormGradX, NormKind, Normalize};
use crate::ops::pad::PadZero;
use crate::ops::permute::Permute;
use crate::ops::reshape::{Detach, Reshape};
use crate::ops::sum::Sum;
use crate::ops::unary::Unary;
use crate::shape::Shape;
use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

/// Replaces what can be fused by fused operations, in place: the nodes keep their numbers, and those that were taken into
/// others are left for the plan to drop.
pub fn fuse(nodes: &mut [Node], states: &[State], outputs: &[(String, NodeId)]) {
    let mut uses = vec![0; nodes.len()];
    let live = super::live(nodes, states, outputs);
    for id in (0..nodes.len()).filter(|&id| live[id]) {
        if let Source::Op { inputs, .. } = &nodes[id].source {
            inputs.iter().for_each(|&i| uses[i] += 1);
        }
    }
    // Whoever is read from outside counts as read by many.
    let kept = outputs.iter().map(|&(_, id)| id).chain(states.iter().map(|s| s.current));
    kept.for_each(|id| uses[id] += 2);
    let mut pass =
        Fuser { nodes, uses, clusters: HashMap::new(), sums: HashMap::new(), concats: HashMap::new() };
    for id in 0..pass.nodes.len() {
        if pass.uses[id] > 0 {
            pass.visit(id);
        }
    }
}

/// What a node computes, in terms of nodes that are computed elsewhere. Its leaves' `input` is a node.
#[derive(Clone, Debug)]
struct Cluster {
    expression: Expression,
    flops: u64,
}

impl Cluster {
    /// Whether it only reads: then everybody may read for himself.
    fn only_reads(&self) -> bool {
        self.expression.code.len() == 1
    }

    /// A plain read of a whole node.
    fn read(id: NodeId, shape: &Shape) -> Self {
        let leaf = Leaf { input: id, offset: 0, steps: shape.strides() };
        let expression =
            Expression { extents: shape.clone(), leaves: vec![leaf], code: vec![Token::Leaf(0)] };
        Cluster { expression, flops: 0 }
    }

    /// With the leaves' inputs counted from zero, and the nodes that they stand for.
    fn bound(&self, inputs: &mut Vec<NodeId>) -> Expression {
        let mut expression = self.expression.clone();
        for leaf in &mut expression.leaves {
            let known = inputs.iter().position(|&n| n == leaf.input);
            leaf.input = known.unwrap_or_else(|| {
                inputs.push(leaf.input);
                inputs.len() - 1
            });
        }
        expression
    }
}

/// A sum whose terms are known.
#[derive(Clone)]
struct Total {
    terms: Cluster,
    first: usize,
    last: usize,
    scale: f64,
}

struct Fuser<'a> {
    nodes: &'a mut [Node],
    uses: Vec<usize>,
    clusters: HashMap<NodeId, Cluster>,
    sums: HashMap<NodeId, Total>,
    concats: HashMap<NodeId, (Vec<Cluster>, usize)>,
}

impl Fuser<'_> {
    fn visit(&mut self, id: NodeId) {
        let Source::Op { op, inputs } = self.nodes[id].source.clone() else { return };
        let any: &dyn Any = &*op;
        if let Some(sum) = any.downcast_ref::<Sum>() {
            self.sum(id, *sum, inputs[0]);
        } else if let Some(concat) = any.downcast_ref::<Concat>() {
            self.concat(id, concat.axis, &inputs);
        } else if let Some(op) = any.downcast_ref::<NormGradSums>() {
            if let Some((first, inputs)) = self.sliced(&inputs) {
                self.replace(id, NormGradSums { first, ..*op }, inputs);
            }
        } else if let Some(op) = any.downcast_ref::<NormGradX>() {
            if let Some((first, inputs)) = self.sliced(&inputs) {
                self.replace(id, NormGradX { first, ..*op }, inputs);
            }
        } else if let Some(own) = self.own(id, &*op, &inputs) {
            self.pointwise(id, any, own);
        }
    }

    /// The node alone as an expression, if it is pointwise.
    fn own(&self, id: NodeId, op: &dyn Op, inputs: &[NodeId]) -> Option<Cluster> {
        let any: &dyn Any = op;
        let out = &self.nodes[id].shape;
        let shape = |i: usize| &self.nodes[inputs[i]].shape;
        let leaf = |i: usize, offset: usize, steps: Vec<usize>| Leaf { input: inputs[i], offset, steps };
        let repeated = |i: usize| leaf(i, 0, shape(i).steps_within(out));
        let (leaves, code) = if let Some(f) = any.downcast_ref::<Unary>() {
            (vec![repeated(0)], vec![Token::Leaf(0), Token::Unary(*f)])
        } else if let Some(f) = any.downcast_ref::<Binary>() {
            (vec![repeated(0), repeated(1)], vec![Token::Leaf(0), Token::Leaf(1), Token::Binary(*f)])
        } else if any.is::<Broadcast>() {
            (vec![repeated(0)], vec![Token::Leaf(0)])
        } else if let Some(p) = any.downcast_ref::<Permute>() {
            let strides = shape(0).strides();
            (vec![leaf(0, 0, p.order.iter().map(|&i| strides[i]).collect())], vec![Token::Leaf(0)])
        } else if let Some(p) = any.downcast_ref::<PadZero>() {
            if p.amounts.iter().any(|&(before, behind)| before > 0 || behind > 0) {
                return None;
            }
            let strides = shape(0).strides();
            let first = p.amounts.iter().zip(&strides).map(|(&(before, _), s)| -before as usize * s).sum();
            (vec![leaf(0, first, strides)], vec![Token::Leaf(0)])
        } else if let Some(r) = any.downcast_ref::<Reshape>() {
            (vec![leaf(0, r.offset, out.strides())], vec![Token::Leaf(0)])
        } else if any.is::<Detach>() {
            (vec![leaf(0, 0, out.strides())], vec![Token::Leaf(0)])
        } else if let Some(c) = any.downcast_ref::<Constant>() {
            let [value] = c.values[..] else { return None };
            (Vec::new(), vec![Token::Number(value)])
        } else if let Some(n) = any.downcast_ref::<Normalize>() {
            normalize(n, out, inputs)?
        } else if let Some(d) = any.downcast_ref::<Dropout>() {
            let step = leaf(1, 0, vec![0; out.rank()]);
            (vec![repeated(0), step], vec![Token::Leaf(0), Token::Leaf(1), Token::Dropout(*d)])
        } else {
            return None;
        };
        let flops = super::work::flops(self.nodes, id);
        Some(Cluster { expression: Expression { extents: out.clone(), leaves, code }, flops })
    }

    fn pointwise(&mut self, id: NodeId, op: &dyn Any, own: Cluster) {
        let mut cluster = self.absorb(id, &own);
        if cluster.expression.leaves.is_empty() {
            // A number, such as the loss's derivative by itself times a weight.
            let number = value::<f64>(&cluster.expression.code, 0, |_| unreachable!("no leaf"));
            cluster.expression.code = vec![Token::Number(number)];
        }
        self.scale_sum(id, &cluster);
        let view = op.is::<Reshape>() || op.is::<Detach>();
        let changed = cluster.expression != own.expression;
        if self.over_concat(id, &cluster) || self.behind_conv(id, &cluster) {
            // Replaced.
        } else if !self.sums.contains_key(&id)
            && !cluster.expression.leaves.is_empty()
            && ((changed && !(view && cluster.only_reads())) || op.is::<Normalize>())
        {
            let mut inputs = Vec::new();
            let expression = cluster.bound(&mut inputs);
            self.replace(id, Map { expression, flops: cluster.flops }, inputs);
        }
        if cluster.only_reads() && self.uses[id] > 1 {
            // Whoever reads this reads what it reads.
            cluster.expression.leaves.iter().for_each(|l| self.uses[l.input] += self.uses[id] - 1);
        }
        self.clusters.insert(id, cluster);
    }

    /// The inputs of a norm's gradient whose dy is a slice of a tensor's channels: with that tensor in its place, and the
    /// first channel.
    fn sliced(&self, inputs: &[NodeId]) -> Option<(usize, Vec<NodeId>)> {
        let dy = self.clusters.get(&inputs[2]).filter(|c| c.only_reads())?;
        let ([leaf], x) = (&dy.expression.leaves[..], &self.nodes[inputs[0]].shape) else { return None };
        let wide = &self.nodes[leaf.input].shape;
        let alike = wide.rank() == x.rank() && wide[..x.rank() - 1] == x[..x.rank() - 1];
        let steps = wide.strides();
        let walked = alike && (0..x.rank()).all(|i| x[i] == 1 || leaf.steps[i] == steps[i]);
        let slice = walked && leaf.offset + x.channels() <= wide.channels();
        slice.then(|| (leaf.offset, [&inputs[..2], &[leaf.input], &inputs[3..]].concat()))
    }

    /// A multiple of a sum that nobody else reads, be it through views: the factor goes into the sum.
    fn scale_sum(&mut self, id: NodeId, cluster: &Cluster) {
        let e = &cluster.expression;
        let ([leaf], [Token::Leaf(0), factors @ ..]) = (&e.leaves[..], &e.code[..]) else { return };
        let factors: Option<Vec<f64>> = factors
            .iter()
            .map(|t| if let Token::Unary(Unary::MulScalar(f)) = t { Some(*f) } else { None })
            .collect();
        let Some(factor) = factors.filter(|f| !f.is_empty()).map(|f| f.iter().product::<f64>()) else {
            return;
        };
        let whole = leaf.offset == 0
            && in_order(leaf, &e.extents)
            && e.extents.numel() == self.nodes[leaf.input].shape.numel();
        if whole
            && self.uses[leaf.input] == 1
            && let Some(total) = self.sums.get(&leaf.input)
        {
            let mut total = Total { scale: total.scale * factor, ..total.clone() };
            total.terms.flops += cluster.flops;
            self.set_sum(id, total);
        }
    }

    fn replace(&mut self, id: NodeId, op: impl Op, inputs: Vec<NodeId>) {
        self.nodes[id].source = Source::Op { op: Arc::new(op), inputs };
        self.nodes[id].uncounted = false; // the operation says what it was made of
    }

    /// Takes into `cluster`, which node `id` is to be, what its leaves read and nobody else does.
    fn absorb(&self, id: NodeId, own: &Cluster) -> Cluster {
        let mut cluster = own.clone();
        let mut k = 0;
        while k < cluster.expression.leaves.len() {
            match self.substitute(id, &cluster, k) {
                Some(next) => cluster = next, // and look at what now stands in place k
                None => k += 1,
            }
        }
        cluster
    }

    fn substitute(&self, id: NodeId, cluster: &Cluster, k: usize) -> Option<Cluster> {
        let into = &cluster.expression;
        let leaf = &into.leaves[k];
        let from = self.clusters.get(&leaf.input)?;
        if !from.only_reads() {
            let step =
                into.code.windows(2).any(|w| w[0] == Token::Leaf(k) && matches!(w[1], Token::Dropout(_)));
            let alone = self.uses[leaf.input] == 1
                && into.code.iter().filter(|t| **t == Token::Leaf(k)).count() == 1
                && into.leaves.iter().filter(|l| l.input == leaf.input).count() == 1;
            let mine = !cluster.only_reads() || self.uses[id] == 1;
            if step || !alone || !mine || into.extents.numel() > from.expression.extents.numel() {
                return None;
            }
        }
        if from.expression.drops() {
            // Its elements are counted as they were.
            let whole = leaf.offset == 0 && into.extents.numel() == from.expression.extents.numel();
            if into.drops() || !whole || !in_order(leaf, &into.extents) {
                return None;
            }
        }
        let moved = through(leaf, &into.extents, &from.expression)?;
        let mut leaves: Vec<Leaf> = into.leaves.clone();
        leaves.remove(k);
        let mut place = |leaf: Leaf| {
            leaves.iter().position(|l| *l == leaf).unwrap_or_else(|| {
                leaves.push(leaf);
                leaves.len() - 1
            })
        };
        let numbers: Vec<usize> = moved.into_iter().map(&mut place).collect();
        let code: Vec<Token> = into
            .code
            .iter()
            .flat_map(|token| match *token {
                Token::Leaf(i) if i == k => from
                    .expression
                    .code
                    .iter()
                    .map(|t| match *t {
                        Token::Leaf(i) => Token::Leaf(numbers[i]),
                        other => other,
                    })
                    .collect(),
                Token::Leaf(i) => vec![Token::Leaf(if i > k { i - 1 } else { i })],
                other => vec![other],
            })
            .collect();
        if leaves.len() > MOST_LEAVES || code.len() > MOST_TOKENS {
            return None;
        }
        let expression = Expression { extents: into.extents.clone(), leaves, code };
        Some(Cluster { expression, flops: cluster.flops + from.flops })
    }

    fn sum(&mut self, id: NodeId, sum: Sum, x: NodeId) {
        let shape = self.nodes[x].shape.clone();
        let mut terms = self.absorb_into_reader(x);
        if terms.expression.drops() {
            terms = Cluster::read(x, &shape); // the kernel of sums draws no random numbers
        }
        terms.flops += super::work::flops(self.nodes, id);
        let fused = terms.expression.code.len() > 1;
        let total = Total { terms, first: sum.first, last: sum.last, scale: 1.0 };
        if fused {
            self.set_sum(id, total);
        } else {
            self.sums.insert(id, total);
        }
    }

    fn set_sum(&mut self, id: NodeId, total: Total) {
        let mut inputs = Vec::new();
        let expression = total.terms.bound(&mut inputs);
        let Total { first, last, scale, .. } = total;
        self.replace(id, MapSum { expression, first, last, scale, flops: total.terms.flops }, inputs);
        self.sums.insert(id, total);
    }

    /// What a node that is no expression itself reads of `x`, with `x` taken in if nobody else reads it. (Who runs once
    /// may take in what it alone reads, however many read its result.)
    fn absorb_into_reader(&self, x: NodeId) -> Cluster {
        let read = Cluster::read(x, &self.nodes[x].shape);
        let Some(from) = self.clusters.get(&x) else { return read };
        if !(from.only_reads() || self.uses[x] == 1) || from.expression.leaves.is_empty() {
            return read;
        }
        from.clone()
    }

    fn concat(&mut self, id: NodeId, axis: usize, inputs: &[NodeId]) {
        let parts: Vec<Cluster> = inputs.iter().map(|&x| self.absorb_into_reader(x)).collect();
        if parts.iter().any(|p| !p.only_reads()) {
            self.set_concat(id, &parts, axis);
        }
        self.concats.insert(id, (parts, axis));
    }

    fn set_concat(&mut self, id: NodeId, parts: &[Cluster], axis: usize) {
        let mut inputs = Vec::new();
        let flops = parts.iter().map(|p| p.flops).sum();
        let parts = parts.iter().map(|p| p.bound(&mut inputs)).collect();
        self.replace(id, MapConcat { parts, axis, flops }, inputs);
    }

    /// A function of a concatenation that nobody else reads: of its parts instead.
    fn over_concat(&mut self, id: NodeId, cluster: &Cluster) -> bool {
        let e = &cluster.expression;
        let [leaf] = &e.leaves[..] else { return false };
        let whole = leaf.offset == 0 && in_order(leaf, &e.extents) && self.uses[leaf.input] == 1;
        let once = e.code.iter().filter(|t| **t == Token::Leaf(0)).count() == 1;
        let Some((parts, axis)) = self.concats.get(&leaf.input).filter(|_| whole && once) else {
            return false;
        };
        let axis = *axis;
        if self.nodes[leaf.input].shape != e.extents || e.code.len() == 1 || e.drops() {
            return false;
        }
        let mut left = cluster.flops;
        let parts: Option<Vec<Cluster>> = parts
            .iter()
            .map(|part| {
                let code: Vec<Token> = e
                    .code
                    .iter()
                    .flat_map(|t| if *t == Token::Leaf(0) { part.expression.code.clone() } else { vec![*t] })
                    .collect();
                let share = cluster.flops * part.expression.extents.numel() as u64 / e.extents.numel() as u64;
                left -= share;
                let expression = Expression { code, ..part.expression.clone() };
                (expression.code.len() <= MOST_TOKENS)
                    .then_some(Cluster { expression, flops: part.flops + share })
            })
            .collect();
        let Some(mut parts) = parts else { return false };
        if let Some(last) = parts.last_mut() {
            last.flops += left;
        }
        self.set_concat(id, &parts, axis);
        self.concats.insert(id, (parts, axis));
        true
    }

    /// What follows a convolution that nobody else reads: at most a bias and one more tensor of the result's shape.
    fn behind_conv(&mut self, id: NodeId, cluster: &Cluster) -> bool {
        let e = &cluster.expression;
        if e.code.len() == 1 || e.drops() {
            return false;
        }
        let whole =
            |l: &Leaf| l.offset == 0 && in_order(l, &e.extents) && self.nodes[l.input].shape == e.extents;
        let found = e.leaves.iter().enumerate().filter_map(|(k, leaf)| {
            let kind = self.conv(leaf.input)?;
            let once = e.code.iter().filter(|t| **t == Token::Leaf(k)).count() == 1
                && e.leaves.iter().filter(|l| l.input == leaf.input).count() == 1;
            (whole(leaf) && once && self.uses[leaf.input] == 1).then_some((k, kind))
        });
        // Of two the later one: what the other read need not be kept for it.
        let found = found.max_by_key(|(k, _)| e.leaves[*k].input);
        let Some((k, (kind, operands, flops))) = found else { return false };
        let mut code = e.code.clone();
        let mut inputs = operands;
        // A number a channel that is added right away.
        let mut first = None;
        let bias = code.windows(3).position(|w| {
            matches!(*w, [Token::Leaf(v), Token::Leaf(b), Token::Binary(Binary::Add)]
                if v == k && self.per_channel(&e.leaves[b], &e.extents))
        });
        if let Some(at) = bias.filter(|_| !matches!(kind, ConvKind::GradW(_))) {
            let Token::Leaf(b) = code[at + 1] else { unreachable!("just matched") };
            if code.iter().filter(|t| **t == Token::Leaf(b)).count() > 1 {
                return false;
            }
            inputs.push(e.leaves[b].input);
            first = Some(e.leaves[b].offset);
            code.drain(at + 1..at + 3);
        }
        let mut others: Vec<usize> = Vec::new();
        for token in &code {
            if let Token::Leaf(i) = token
                && *i != k
                && !others.contains(i)
            {
                others.push(*i);
            }
        }
        if others.len() > 1 || others.iter().any(|&i| !whole(&e.leaves[i])) {
            return false;
        }
        inputs.extend(others.iter().map(|&i| e.leaves[i].input));
        for token in &mut code {
            if let Token::Leaf(i) = token {
                *i = usize::from(*i != k);
            }
        }
        let flops = cluster.flops + flops;
        self.replace(id, ConvMap { kind, bias: first, extra: !others.is_empty(), code, flops }, inputs);
        true
    }

    fn per_channel(&self, leaf: &Leaf, extents: &Shape) -> bool {
        let last = extents.rank() - 1;
        let steps = (0..last).all(|i| extents[i] == 1 || leaf.steps[i] == 0);
        steps && (leaf.steps[last] == 1 || extents[last] == 1)
    }

    /// A convolution, with its operands and FLOPs.
    fn conv(&self, id: NodeId) -> Option<(ConvKind, Vec<NodeId>, u64)> {
        let Source::Op { op, inputs } = &self.nodes[id].source else { return None };
        let any: &dyn Any = &**op;
        let kind = any
            .downcast_ref::<Conv>()
            .map(|c| ConvKind::Forward(c.clone()))
            .or_else(|| any.downcast_ref::<ConvGradX>().map(|c| ConvKind::GradX(c.clone())))
            .or_else(|| any.downcast_ref::<ConvGradW>().map(|c| ConvKind::GradW(c.clone())))?;
        Some((kind, inputs.clone(), super::work::flops(self.nodes, id)))
    }
}

/// A norm's map as an expression, where a set is a channel, of one image or of all.
fn normalize(n: &Normalize, out: &Shape, inputs: &[NodeId]) -> Option<(Vec<Leaf>, Vec<Token>)> {
    let channels = out.channels();
    let per_image = match n.kind {
        NormKind::Batch => 0,
        NormKind::Instance => channels,
        NormKind::Group(groups) if groups == channels => channels,
        NormKind::Group(_) => return None,
    };
    let sets = if per_image == 0 { channels } else { out[0] * channels };
    let last = out.rank() - 1;
    let along = |image: usize| -> Vec<usize> {
        (0..=last)
            .map(|i| {
                if i == last {
                    1
                } else if i == 0 {
                    image
                } else {
                    0
                }
            })
            .collect()
    };
    let leaf = |input: usize, offset: usize, steps: Vec<usize>| Leaf { input: inputs[input], offset, steps };
    let mut leaves =
        vec![leaf(0, 0, out.strides()), leaf(1, 0, along(per_image)), leaf(1, sets, along(per_image))];
    let mut code = vec![
        Token::Leaf(0),
        Token::Leaf(1),
        Token::Binary(Binary::Sub),
        Token::Leaf(2),
        Token::Unary(Unary::AddScalar(n.eps)),
        Token::Unary(Unary::Sqrt),
        Token::Unary(Unary::Recip),
        Token::Binary(Binary::Mul),
    ];
    if n.affine {
        leaves.extend([leaf(2, 0, along(0)), leaf(3, 0, along(0))]);
        code.extend([Token::Leaf(3), Token::Binary(Binary::Mul), Token::Leaf(4), Token::Binary(Binary::Add)]);
    }
    Some((leaves, code))
}

/// The leaves of `from` as they are read by someone who reads its result by `leaf` over `extents`; `None` if axes do not
/// correspond.
fn through(leaf: &Leaf, extents: &Shape, from: &Expression) -> Option<Vec<Leaf>> {
    let strides = from.extents.strides();
    if leaf.offset == 0 && extents.numel() == from.extents.numel() && in_order(leaf, extents) {
        if *extents == from.extents {
            return Some(from.leaves.clone());
        }
        // Another shape of the same elements: fine for who reads in order, or always the same.
        return from
            .leaves
            .iter()
            .map(|l| {
                let steps = if in_order(l, &from.extents) {
                    extents.strides()
                } else if (0..from.extents.rank()).all(|i| from.extents[i] == 1 || l.steps[i] == 0) {
                    vec![0; extents.rank()]
                } else {
                    return None;
                };
                Some(Leaf { steps, ..l.clone() })
            })
            .collect();
    }
    // The axis of `from` that each axis here walks along, and where it begins there.
    let begin: Vec<usize> =
        (0..strides.len()).map(|j| leaf.offset / strides[j].max(1) % from.extents[j].max(1)).collect();
    let mut taken = vec![false; strides.len()];
    let mut along: Vec<Option<usize>> = Vec::new();
    for i in 0..extents.rank() {
        if extents[i] == 1 || leaf.steps[i] == 0 {
            along.push(None);
            continue;
        }
        let j = (0..strides.len())
            .find(|&j| from.extents[j] > 1 && strides[j] == leaf.steps[i] && !taken[j])
            .filter(|&j| begin[j] + extents[i] <= from.extents[j])?;
        taken[j] = true;
        along.push(Some(j));
    }
    let moved = |l: &Leaf| Leaf {
        input: l.input,
        offset: l.offset + begin.iter().zip(&l.steps).map(|(b, s)| b * s).sum::<usize>(),
        steps: along.iter().map(|a| a.map_or(0, |j| l.steps[j])).collect(),
    };
    Some(from.leaves.iter().map(moved).collect())
}
