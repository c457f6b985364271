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
                let cx = step.train(&self.nets[*net]);
                graph
                    .phase(&format!("{name} forward"), || self.method.apply(&cx, *net, &x, &self.shapes.size))
            }
            Expr::Map(map, inner) => {
                let x = self.value(step, inner);
                let channel = x.rank().saturating_sub(1);
                step.graph().phase("maps", || match map {
                    Map::Sigmoid => vec![x.sigmoid()],
                    Map::Softmax => vec![x.softmax(channel)],
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
        let direct = |e: &Expr| matches!(e, Expr::Apply(_, inner) if matches!(**inner, Expr::Source(_)));
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

    /// What a discriminator sees of a candidate: what else it takes, then the candidate.
    pub fn seen(&mut self, step: &StepBuilder, net: usize, candidate: &Var) -> Var {
        let takes = self.method.spec().networks[net].takes.clone();
        let others = &takes[..takes.len() - 1];
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

    /// As [`Flow::logits`], with the inner values that the network makes known.
    pub fn pass(&self, step: &StepBuilder, net: usize, seen: &Var) -> (Vec<Var>, Vec<Var>) {
        let cx = step.train(&self.nets[net]);
        let logits = self.method.apply(&cx, net, seen, &self.shapes.size);
        (logits, cx.features().into_iter().map(|(_, value)| value).collect())
    }
}

impl Method {
    /// Traces a network on what it takes.
    pub(super) fn apply(&self, cx: &Ctx, net: usize, x: &Var, size: &[usize]) -> Vec<Var> {
        let own = &self.spec().networks[net];
        let wanted = Wanted { channels: self.outputs_of(own), size: size.to_vec() };
        let out = cx.graph().scope(&own.name, || {
            let mut out = own.network.forward(cx, x, &wanted);
            // A vector of one number is a vector all the same, but to a discriminator, whose logit it is.
            if own.role != Role::Discriminator && own.network.signature() == Signature::Vector {
                let n = x.shape()[0];
                out.iter_mut().for_each(|y| *y = y.reshape(&[n, wanted.channels]));
            }
            if own.residual { out.iter().map(|y| y.add(x)).collect() } else { out }
        });
        debug_assert!(
            !out.is_empty()
                && (own.role == Role::Discriminator
                    || out[0].rank() == x.rank()
                    || own.network.signature() == Signature::Vector
                    || own.takes == [Source::Noise])
        );
        out
    }
}
