//! The values of a step by name: images and noise, and what networks make of them, such as `G_B(G_A(input))`. Each is traced
//! once in a program, when it is first asked for, and keeps its value when the network is updated after that.

use super::spec::{Role, Target};
use super::value::{Expr, Map, Source};
use super::{Method, Shapes};
use crate::graph::Var;
use crate::methods::step::StepBuilder;
use crate::models::{Network, Signature, Wanted};
use crate::nn::{Ctx, Net};
use crate::ops::concat::concat;
use std::collections::HashMap;

/// What a program of a step works on, other than the recipe's images and fresh random numbers: for tests, which give both.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The images or the noise.
    pub sources: HashMap<Source, Var>,
    /// Where between real and generated images a gradient penalty is taken, `[n, 1, ..]` in [0, 1).
    pub alpha: Option<Var>,
    /// Uniform random numbers of a DRAGAN penalty, `[n, ..]` as real images.
    pub perturbation: Option<Var>,
    /// Normal random numbers of a path length, `[n, ..]` as generated images.
    pub direction: Option<Var>,
}

/// The values of one program.
pub(super) struct Flow<'a> {
    pub method: &'a Method,
    pub nets: &'a [Net],
    pub shapes: &'a Shapes,
    given: &'a Given,
    values: HashMap<Expr, Vec<Var>>,
}

impl<'a> Flow<'a> {
    pub fn new(method: &'a Method, nets: &'a [Net], shapes: &'a Shapes, given: &'a Given) -> Self {
        Flow { method, nets, shapes, given, values: HashMap::new() }
    }

    /// All outputs of a value: more than one where a network predicts at lower resolutions, too.
    pub fn all(&mut self, step: &StepBuilder, value: &Expr) -> Vec<Var> {
        if let Some(known) = self.values.get(value) {
            return known.clone();
        }
        let traced = match value {
            Expr::Source(source) => vec![self.source(step, *source)],
            Expr::Apply(net, inner) => {
                let x = self.value(step, inner);
                let (graph, name) = (step.graph(), &self.method.spec().networks[*net].name);
                let cx = self.context(step, *net);
                graph
                    .phase(&format!("{name} forward"), || self.method.apply(&cx, *net, &x, &self.shapes.size))
            }
            Expr::Map(map, inner) => {
                let x = self.value(step, inner);
                let channel = x.rank().saturating_sub(1);
                step.graph().phase("maps", || match map {
                    Map::Sigmoid => vec![x.sigmoid()],
                    Map::Softmax => vec![x.softmax(channel)],
                    Map::Sample => {
                        let (rank, half) = (x.rank(), x.channels() / 2);
                        let axis = rank.saturating_sub(1);
                        let (mu, logvar) = (x.slice(axis, 0, half), x.slice(axis, half, half));
                        let drawn = step.normal(mu.shape());
                        vec![mu.add(&logvar.mul_scalar(0.5).exp().mul(&drawn))]
                    }
                    Map::OneHot => vec![x.reshape(&x.shape()[..channel]).one_hot(self.method.classes())],
                })
            }
        };
        self.values.insert(value.clone(), traced.clone());
        traced
    }

    /// A value.
    pub fn value(&mut self, step: &StepBuilder, value: &Expr) -> Var {
        self.all(step, value).remove(0)
    }

    /// The values of networks on images or noise that were traced.
    pub fn made(&self) -> impl Iterator<Item = (&Expr, &Var)> {
        let frozen = |net: &usize| self.method.spec().networks[*net].role == Role::Frozen;
        let direct = move |e: &Expr| matches!(e, Expr::Apply(net, inner) if matches!(**inner, Expr::Source(_)) && !frozen(net));
        self.values.iter().filter(move |(e, _)| direct(e)).map(|(e, all)| (e, &all[0]))
    }

    fn source(&self, step: &StepBuilder, source: Source) -> Var {
        if let Some(var) = self.given.sources.get(&source) {
            return var.clone();
        }
        match source {
            Source::Input => step.graph().input("input", self.shapes.input()),
            Source::Target => step.graph().input("target", self.shapes.target()),
            Source::Noise => step.normal([self.shapes.batch, self.method.spec().noise]),
        }
    }

    /// Random places between real and generated images.
    pub fn alpha(&self, step: &StepBuilder, real: &Var) -> Var {
        let ones = vec![1; real.rank().saturating_sub(1)];
        let n = real.shape().first().copied().unwrap_or(1);
        self.given.alpha.clone().unwrap_or_else(|| step.uniform([&[n], &ones[..]].concat()))
    }

    /// Uniform random numbers beside real images: where a DRAGAN penalty moves them to.
    pub fn perturbation(&self, step: &StepBuilder, real: &Var) -> Var {
        self.given.perturbation.clone().unwrap_or_else(|| step.uniform(real.shape()))
    }

    /// Normal random numbers beside generated images: the direction in which a path length is measured.
    pub fn direction(&self, step: &StepBuilder, images: &Var) -> Var {
        self.given.direction.clone().unwrap_or_else(|| step.normal(images.shape()))
    }

    /// What a network is traced in: a frozen one in evaluation.
    fn context(&self, step: &StepBuilder, net: usize) -> Ctx {
        match self.method.spec().networks[net].role {
            Role::Frozen => step.eval(&self.nets[net]),
            _ => step.train(&self.nets[net]),
        }
    }

    /// What a discriminator sees of a candidate: what else it takes, then the candidate.
    pub fn seen(&mut self, step: &StepBuilder, net: usize, candidate: &Var) -> Var {
        let takes = self.method.spec().networks[net].takes.clone();
        let others = &takes[..takes.len().saturating_sub(1)];
        if others.is_empty() {
            return candidate.clone();
        }
        let whole = |s: Source| match s {
            // A discriminator sees classes as channels.
            Source::Target if self.method.spec().target == Target::Classes => {
                Expr::Map(Map::OneHot, Box::new(Expr::Source(s)))
            }
            s => Expr::Source(s),
        };
        let others: Vec<Expr> = others.iter().map(|s| whole(*s)).collect();
        let mut parts: Vec<Var> = others.iter().map(|e| self.value(step, e)).collect();
        parts.push(candidate.clone());
        concat(&parts.iter().collect::<Vec<_>>(), candidate.rank().saturating_sub(1))
    }

    /// What a discriminator says of what it sees: a set of logits per resolution.
    pub fn logits(&self, step: &StepBuilder, net: usize, seen: &Var) -> Vec<Var> {
        self.pass(step, net, seen).0
    }

    /// As [`Flow::logits`], with the inner values that the network makes known, by name.
    pub fn pass(&self, step: &StepBuilder, net: usize, seen: &Var) -> (Vec<Var>, Vec<(String, Var)>) {
        let cx = self.context(step, net);
        let logits = self.method.apply(&cx, net, seen, &self.shapes.size);
        (logits, cx.features())
    }
}

impl Method {
    /// Traces a network on what it takes.
    pub(super) fn apply(&self, cx: &Ctx, net: usize, x: &Var, size: &[usize]) -> Vec<Var> {
        let own = &self.spec().networks[net];
        let wanted = Wanted { channels: self.outputs_of(own), size: size.to_vec() };
        let out = cx.graph().scope(&own.name, || {
            let out = own.network.forward(cx, x, &wanted);
            // A vector of one number is a vector all the same, but to a discriminator, whose logit it is.
            if own.role != Role::Discriminator && own.network.signature() == Signature::Vector {
                return out
                    .iter()
                    .map(|y| if y.rank() == 1 { y.reshape(&[y.shape()[0], 1]) } else { y.clone() })
                    .collect();
            }
            if own.residual { out.iter().map(|y| y.add(x)).collect() } else { out }
        });
        debug_assert!(
            !out.is_empty()
                && (own.role == Role::Discriminator
                    || own.network.signature() == Signature::Vector
                    || out[0].rank() == x.rank()
                    || own.takes == [Source::Noise])
        );
        out
    }
}
