//! Tracing a whole training step: networks, losses, optimisers, in one graph.

use crate::dtype::DType;
use crate::graph::{Graph, Var};
use crate::nn::params::DropoutSource;
use crate::nn::{Ctx, Net, NetSpec};
use crate::objectives::GanMode;
use crate::ops::gradient::grad;
use crate::ops::optimiser::{EmaUpdate, OptimiserStep, Rule, clip_by_norm};
use crate::ops::random::{Distribution, Random};
use crate::shape::Shape;
use std::cell::Cell;
use std::collections::HashMap;
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

/// What a step leaves readable beside its losses, for those who watch it. Nothing of it reaches the networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Scalars: `grad_norm/<net>`, the 2-norm of each network's gradient before it is shortened, and how often a
    /// discriminator is right ([`StepBuilder::accuracy`]).
    pub health: bool,
    /// Tensors: `gradient/<net>`, each network's gradient before it is shortened, where its parameters lie. They are
    /// computed anyway; this keeps their memory to the end of the step.
    pub gradients: bool,
}

/// Elements of a gradient whose squares are summed at once: the CPU stores them.
const PIECE: usize = 1 << 23;

/// The 2-norm of a flat gradient.
fn norm(flat: &Var) -> Var {
    let n = flat.shape().numel();
    let piece = |at: usize| flat.stretch(at, &[PIECE.min(n - at)]).square().sum_all();
    let pieces = (0..n).step_by(PIECE).map(piece);
    pieces.reduce(|a, b| a.add(&b)).unwrap_or_else(|| flat.sum_all()).sqrt()
}

/// A step under construction.
pub struct StepBuilder {
    graph: Graph,
    watch: Watch,
    dropout: Rc<DropoutSource>,
    outputs: Vec<(String, Var)>,
    rates: HashMap<String, Rate>,
}

/// What drives a network's updates in this step.
struct Rate {
    lr: Var,
    /// The number of the step's first update of the network.
    first: Var,
    /// How many updates were traced.
    updates: usize,
}

impl StepBuilder {
    /// An empty step. Its input `step` (the number of the step, from 0, as [`crate::rng::step_input`] gives it) drives dropout.
    pub fn new(dtype: DType, seed: u64) -> Self {
        let graph = Graph::new(dtype);
        let step = Some(graph.input("step", [2]));
        StepBuilder {
            dropout: Rc::new(DropoutSource { seed, step, streams: Cell::new(0) }),
            graph,
            watch: Watch::default(),
            outputs: Vec::new(),
            rates: HashMap::new(),
        }
    }

    /// The same step, leaving more of itself readable.
    pub fn watching(self, watch: Watch) -> Self {
        StepBuilder { watch, ..self }
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

    /// Standard normal numbers, drawn anew in every step. A pure function of the seed, of the step's number and of how
    /// many random tensors were traced before.
    pub fn normal(&self, shape: impl Into<Shape>) -> Var {
        self.random(Distribution::Normal, shape.into())
    }

    /// As [`StepBuilder::normal`], evenly distributed in [0, 1).
    pub fn uniform(&self, shape: impl Into<Shape>) -> Var {
        self.random(Distribution::Uniform, shape.into())
    }

    fn random(&self, distribution: Distribution, shape: Shape) -> Var {
        let stream = self.dropout.streams.replace(self.dropout.streams.get() + 1);
        let op = Random { distribution, shape, seed: self.dropout.seed, stream };
        self.dropout.step.as_ref().expect("a step has a number").apply(op, &[])
    }

    /// Makes a value readable after the step; of several under one name the last.
    pub fn output(&mut self, name: &str, value: &Var) {
        self.outputs.retain(|(n, _)| n != name);
        self.outputs.push((name.to_string(), value.clone()));
    }

    /// Leaves `health/<net>_acc_real` and `health/<net>_acc_fake` readable, if the step is watched: how often the
    /// discriminator `net` is right about real and about generated images, given its outputs on both at every
    /// resolution.
    pub fn accuracy(&mut self, net: &str, mode: GanMode, real: &[Var], fake: &[Var]) {
        if !self.watch.health {
            return;
        }
        for (which, logits) in [("real", real), ("fake", fake)] {
            let share = self.graph.phase("metric", || {
                let each: Option<Vec<Var>> =
                    logits.iter().map(|l| mode.accuracy(l, which == "real")).collect();
                let sum = each?.into_iter().reduce(|a, b| a.add(&b))?;
                Some(sum.mul_scalar(1.0 / logits.len() as f64))
            });
            if let Some(share) = share {
                self.output(&format!("health/{net}_acc_{which}"), &share);
            }
        }
    }

    /// Updates `net` to lessen `loss`. Reads the scalar inputs `lr.<net>` and `t.<net>`: the number of this update, from
    /// 1; where a step updates a network several times, that of the first of them. From here on the graph sees the new
    /// parameters.
    pub fn update(&mut self, net: &Net, loss: &Var, update: &Update) {
        self.update_all(&[net], loss, update);
    }

    /// As [`StepBuilder::update`], of several networks by the same loss, differentiated once.
    ///
    /// The rules work parameter by parameter, so this is the same as one optimiser over all of them; `clip_norm` is
    /// not: it shortens each network's gradient by itself.
    pub fn update_all(&mut self, nets: &[&Net], loss: &Var, update: &Update) {
        self.update_by(nets, loss, update, 1.0);
    }

    /// As [`StepBuilder::update_all`], with a factor of the learning rate.
    pub fn update_by(&mut self, nets: &[&Net], loss: &Var, update: &Update, factor: f64) {
        let params: Vec<Vec<Var>> = nets.iter().map(|net| net.params()).collect();
        let gradients = grad(loss, &params.concat());
        let mut rest = gradients.as_slice();
        for (net, params) in nets.iter().zip(&params) {
            let (own, others) = rest.split_at(params.len());
            self.apply(net, own, update, factor);
            rest = others;
        }
    }

    fn apply(&mut self, net: &Net, gradients: &[Var], update: &Update, factor: f64) {
        let graph = self.graph.clone();
        let name = net.spec().name.clone();
        graph.phase("optimiser", || {
            graph.scope(&name, || {
                let mut flat = net.pack(gradients);
                let [lr, t] = self.rate(&name);
                let lr = if factor == 1.0 { lr } else { lr.mul_scalar(factor) };
                if self.watch.gradients {
                    self.output(&format!("gradient/{name}"), &flat);
                }
                if let Some(limit) = update.clip_norm {
                    let (clipped, norm) = clip_by_norm(&flat, limit);
                    flat = clipped;
                    self.output(&format!("grad_norm/{name}"), &norm);
                } else if self.watch.health {
                    let norm = graph.phase("metric", || norm(&flat));
                    self.output(&format!("grad_norm/{name}"), &norm);
                }
                let op = OptimiserStep { rule: update.rule, n: net.spec().param_count() };
                let new = graph.read(net.store()).apply(op, &[&flat, &lr, &t]);
                graph.write(net.store(), &new);
                if let Some(decay) = update.ema {
                    graph.phase("EMA", || {
                        let ema = graph.state(&net.spec().ema_name(), [net.spec().param_count()]);
                        let op = EmaUpdate { decay };
                        graph.write(ema, &graph.read(ema).apply(op, &[&new]));
                    });
                }
            });
        });
    }

    /// Learning rate and number of the next update of a network.
    fn rate(&mut self, name: &str) -> [Var; 2] {
        let graph = &self.graph;
        let rate = self.rates.entry(name.to_string()).or_insert_with(|| Rate {
            lr: graph.input(&format!("lr.{name}"), Shape::scalar()),
            first: graph.input(&format!("t.{name}"), Shape::scalar()),
            updates: 0,
        });
        rate.updates += 1;
        let t = match rate.updates {
            1 => rate.first.clone(),
            n => rate.first.add_scalar((n - 1) as f64),
        };
        [rate.lr.clone(), t]
    }

    /// The readable values, by name.
    pub fn outputs(&self) -> Vec<(&str, &Var)> {
        self.outputs.iter().map(|(n, v)| (n.as_str(), v)).collect()
    }
}
