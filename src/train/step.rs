//! Tracing a whole training step: networks, losses, optimisers, in one graph.

use crate::dtype::DType;
use crate::graph::{Graph, Var};
use crate::nn::params::DropoutSource;
use crate::nn::{Ctx, Net, NetSpec};
use crate::ops::concat::pack;
use crate::ops::gradient::grad;
use crate::ops::optimiser::{EmaUpdate, OptimiserStep, Rule, clip_by_norm};
use crate::shape::Shape;
use std::cell::Cell;
use std::rc::Rc;

/// How a network's parameters are updated.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The optimiser.
    pub rule: Rule,
    /// Gradients longer than this (in the 2-norm, over the whole network) are shortened to it.
    pub clip_norm: Option<f64>,
    /// Decay of the running mean of the weights, if one is kept.
    pub ema: Option<f64>,
}

/// A step under construction.
pub struct StepBuilder {
    graph: Graph,
    dropout: Rc<DropoutSource>,
    outputs: Vec<(String, Var)>,
}

impl StepBuilder {
    /// An empty step. Its scalar input `step` (the number of the step, from 0) drives dropout.
    pub fn new(dtype: DType, seed: u64) -> Self {
        let graph = Graph::new(dtype);
        let step = Some(graph.input("step", Shape::scalar()));
        StepBuilder {
            dropout: Rc::new(DropoutSource { seed, step, streams: Cell::new(0) }),
            graph,
            outputs: Vec::new(),
        }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Declares a network.
    pub fn bind(&self, spec: &NetSpec, slots: usize) -> Net {
        Net::bind(&self.graph, spec, slots)
    }

    /// A context for a forward pass of `net` in training.
    pub fn train(&self, net: &Net) -> Ctx {
        net.ctx(true, &self.dropout)
    }

    /// A context for a forward pass of `net` in evaluation.
    pub fn eval(&self, net: &Net) -> Ctx {
        net.ctx(false, &self.dropout)
    }

    /// Makes a value readable after the step.
    pub fn output(&mut self, name: &str, value: &Var) {
        self.outputs.push((name.to_string(), value.clone()));
    }

    /// Updates `net` to lessen `loss`. Reads the scalar inputs `lr.<net>` and `t.<net>` (the number of this update, from
    /// 1). From here on the graph sees the new parameters.
    pub fn update(&mut self, net: &Net, loss: &Var, update: &Update) {
        let graph = self.graph.clone();
        let name = net.spec().name.clone();
        let params = net.params();
        let gradients = grad(loss, &params);
        graph.phase("optimiser", || {
            graph.scope(&name, || {
                let mut flat = pack(&gradients.iter().collect::<Vec<_>>());
                if let Some(limit) = update.clip_norm {
                    let (clipped, norm) = clip_by_norm(&flat, limit);
                    flat = clipped;
                    self.output(&format!("grad_norm/{name}"), &norm);
                }
                let lr = graph.input(&format!("lr.{name}"), Shape::scalar());
                let t = graph.input(&format!("t.{name}"), Shape::scalar());
                let op = OptimiserStep { rule: update.rule, n: net.spec().param_count() };
                let new = graph.read(net.store()).apply(op, &[&flat, &lr, &t]);
                graph.write(net.store(), &new);
                if let Some(decay) = update.ema {
                    let ema = graph.state(&net.spec().ema_name(), [net.spec().param_count()]);
                    let op = EmaUpdate { decay };
                    graph.write(ema, &graph.read(ema).apply(op, &[&new]));
                }
            });
        });
    }

    /// The readable values, by name.
    pub fn outputs(&self) -> Vec<(&str, &Var)> {
        self.outputs.iter().map(|(n, v)| (n.as_str(), v)).collect()
    }
}
