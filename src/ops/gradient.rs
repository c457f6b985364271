//! Reverse-mode differentiation, graph to graph: the gradient of a graph is a graph, and can be differentiated again.

use crate::graph::{GradArgs, Graph, NodeId, Source, Var};

/// The gradients of a scalar `loss` by each of `wrt`; zeros where it does not depend on one.
///
/// Only what leads from `wrt` to `loss` is differentiated: a frozen network costs no weight gradients, and a first
/// layer's input no input gradient.
pub fn grad(loss: &Var, wrt: &[Var]) -> Vec<Var> {
    let graph = loss.graph();
    let seed = graph.full(&loss.shape(), 1.0);
    reverse(&[(loss.clone(), seed)], wrt, false)
        .into_iter()
        .zip(wrt)
        .map(|(g, x)| g.unwrap_or_else(|| graph.full(&x.shape(), 0.0)))
        .collect()
}

/// The partial gradients by each of `wrt`, all taken as independent, of the sum of `<output, cotangent>` over the given
/// pairs; `None` where it is zero. This is what an operation's own derivative rule needs: that one of its inputs was
/// computed from another is the caller's business.
pub fn vjp(outputs: &[(Var, Var)], wrt: &[Var]) -> Vec<Option<Var>> {
    reverse(outputs, wrt, true)
}

fn reverse(outputs: &[(Var, Var)], wrt: &[Var], partial: bool) -> Vec<Option<Var>> {
    let Some(graph) = outputs.first().map(|(y, _)| y.graph().clone()) else {
        return vec![None; wrt.len()];
    };
    let seeds: Option<Vec<(NodeId, Var)>> = outputs.iter().map(|(y, c)| Some((y.id()?, c.clone()))).collect();
    let targets: Option<Vec<NodeId>> = wrt.iter().map(Var::id).collect();
    let (Some(seeds), Some(targets)) = (seeds, targets) else {
        return vec![None; wrt.len()]; // poisoned: the first fault is reported elsewhere
    };
    graph.clone().backward(|| Reverse { graph, seeds, targets: &targets, partial }.run())
}

struct Reverse<'a> {
    graph: Graph,
    seeds: Vec<(NodeId, Var)>,
    targets: &'a [NodeId],
    /// Whether targets are independent of each other.
    partial: bool,
}

impl Reverse<'_> {
    fn run(self) -> Vec<Option<Var>> {
        let nodes = self.graph.nodes();
        let top = self.seeds.iter().map(|&(id, _)| id).max().map_or(0, |m| m + 1);
        // Which nodes depend on a target: differentiation stays among them.
        let mut depends = vec![false; nodes.len()];
        self.targets.iter().for_each(|&t| depends[t] = true);
        for id in 0..top {
            if let Source::Op { inputs, .. } = &nodes[id].source {
                depends[id] |= inputs.iter().any(|&i| depends[i]);
            }
        }
        let mut gradient: Vec<Option<Var>> =
            vec![None; top.max(self.targets.iter().max().map_or(0, |m| m + 1))];
        for (id, cotangent) in &self.seeds {
            accumulate(&mut gradient[*id], cotangent.clone());
        }
        for id in (0..top).rev() {
            let Source::Op { op, inputs } = &nodes[id].source else { continue };
            if !depends[id] || (self.partial && self.targets.contains(&id)) {
                continue;
            }
            let Some(dy) = gradient[id].clone() else { continue };
            let vars: Vec<Var> = inputs.iter().map(|&i| self.graph.var(i)).collect();
            let needs: Vec<bool> = inputs.iter().map(|&i| depends[i]).collect();
            let output = self.graph.var(id);
            let parts = self.graph.at_path(&nodes[id].path, || {
                op.grad(&GradArgs { inputs: &vars, output: &output, dy: &dy, needs: &needs })
            });
            for ((&input, part), need) in inputs.iter().zip(parts).zip(needs) {
                if let (Some(part), true) = (part, need) {
                    self.graph.at_path(&nodes[id].path, || accumulate(&mut gradient[input], part));
                }
            }
        }
        self.targets.iter().map(|&t| gradient[t].clone()).collect()
    }
}

fn accumulate(slot: &mut Option<Var>, part: Var) {
    *slot = Some(match slot.take() {
        Some(sum) => sum.add(&part),
        None => part,
    });
}
