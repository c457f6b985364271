//! Tracing a program of a training step: the updates of a method, term by term.

use super::flow::{Flow, Given};
use super::kept::ramp;
use super::spec::{Comparison, Pool, Role, Term, TermKind, UpdateSpec};
use super::step::{StepBuilder, Update};
use super::value::Expr;
use super::{Method, Shapes};
use crate::graph::{Graph, NodeId, Var};
use crate::nn::Net;
use crate::objectives::GanMode;
use crate::objectives::adversarial::bce_with_logits;
use crate::objectives::divergence::kl_divergence;
use crate::objectives::pixel::{l1, total_variation};
use crate::objectives::segmentation::{CrossEntropy, cross_entropy, dice, dice_sigmoid, focal_sigmoid};
use crate::ops::image_pool::{PoolQuery, PoolStore};
use crate::ops::optimiser::ClampParameters;
use crate::shape::Shape;
use std::cell::RefCell;
use std::collections::HashMap;

/// Which discriminator was given which candidate.
type Asked = (usize, Option<NodeId>);

/// Its logits, and the inner values that it makes known, by name.
pub(super) type Answer = (Vec<Var>, Vec<(String, Var)>);

/// The terms of one update.
pub(super) struct Terms<'a, 'b> {
    pub flow: &'b mut Flow<'a>,
    pub step: &'b mut StepBuilder,
    pub graph: Graph,
    /// "G", or what several names have in common.
    pub name: String,
    /// The networks that learn.
    pub networks: Vec<usize>,
    /// Whether a penalty differentiates the discriminator at generated and at real images.
    penalised: [bool; 2],
    /// What the discriminator gave for images, real and generated ones, with these.
    pub outputs: HashMap<bool, (Var, Vec<Var>)>,
    /// What other discriminators gave for candidates: logits and inner values.
    passes: Vec<(Asked, Answer)>,
    /// The inputs that are terms' changing weights.
    ramps: RefCell<HashMap<String, Var>>,
}

impl Method {
    /// Traces program `part` of a step; `nets` are as described, `updates` those of generators and of discriminators.
    /// Leaves scalars named `loss/..` readable, and what networks make of the data, as `G(input)`.
    pub fn trace(
        &self,
        part: usize,
        step: &mut StepBuilder,
        nets: &[Net],
        shapes: &Shapes,
        updates: [&Update; 2],
        given: &Given,
    ) {
        let mut flow = Flow::new(self, nets, shapes, given);
        for index in self.program(part) {
            let update = &self.spec().updates[*index];
            trace_update(&mut flow, step, update, updates);
        }
        let mut made: Vec<(String, Var)> = flow.made().map(|(e, v)| (self.text(e), v.clone())).collect();
        made.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in made {
            step.output(&name, &value);
        }
    }

    /// As it stands in a recipe.
    pub(super) fn text(&self, value: &Expr) -> String {
        match value {
            Expr::Source(source) => source.name().to_string(),
            Expr::Apply(net, inner) => format!("{}({})", self.spec().networks[*net].name, self.text(inner)),
            Expr::Map(map, inner) => format!("{}({})", map.name(), self.text(inner)),
        }
    }
}

fn trace_update(flow: &mut Flow, step: &mut StepBuilder, update: &UpdateSpec, updates: [&Update; 2]) {
    let graph = step.graph().clone();
    let own: Vec<Net> = update.networks.iter().map(|&i| flow.nets[i].clone()).collect();
    let role = flow.method.spec().networks[update.networks[0]].role;
    for value in &update.forward {
        flow.all(step, value);
    }
    let name = common(&own);
    let penalised = [false, true].map(|which| {
        let at = |t: &Term| matches!(t.kind, TermKind::Gradient { real, .. } if real == which);
        update.terms.iter().any(|t| t.weight > 0.0 && at(t))
    });
    let mut terms = Terms {
        flow,
        step,
        graph: graph.clone(),
        name: name.clone(),
        networks: update.networks.clone(),
        penalised,
        outputs: HashMap::new(),
        passes: Vec::new(),
        ramps: RefCell::default(),
    };
    let loss = terms.total(&update.terms);
    let rule = updates[usize::from(role == Role::Discriminator)];
    graph.phase(&format!("{name} backward"), || {
        step.update_by(&own.iter().collect::<Vec<_>>(), &loss, rule, update.lr);
    });
    if let Some(limit) = update.clip_weights {
        for net in &own {
            graph.phase("optimiser", || {
                let clamp = ClampParameters { n: net.spec().param_count(), low: -limit, high: limit };
                graph.write(net.store(), &graph.read(net.store()).apply(clamp, &[]));
            });
        }
    }
}

/// The name of networks that are updated together: what their names have in common.
fn common(nets: &[Net]) -> String {
    let first = &nets[0].spec().name;
    let same = |end: usize| nets.iter().all(|n| n.spec().name.starts_with(&first[..end]));
    let length = (1..=first.len()).rev().find(|&end| first.is_char_boundary(end) && same(end)).unwrap_or(0);
    let name = first[..length].trim_end_matches('_');
    if name.is_empty() { first.clone() } else { name.to_string() }
}

/// The sum of a loss over the resolutions of a discriminator.
pub(super) fn total_of(logits: &[Var], loss: impl Fn(&Var) -> Var) -> Var {
    logits[1..].iter().fold(loss(&logits[0]), |sum, l| sum.add(&loss(l)))
}

pub(super) fn sum(terms: &[Var]) -> Option<Var> {
    terms.iter().cloned().reduce(|a, b| a.add(&b))
}

pub(super) fn scaled(x: Var, weight: f64) -> Var {
    if weight == 1.0 { x } else { x.mul_scalar(weight) }
}

impl Terms<'_, '_> {
    pub fn phase<T>(&self, what: &str, trace: impl FnOnce() -> T) -> T {
        self.graph.phase(&format!("{} {what}", self.name), trace)
    }

    pub fn log(&mut self, name: &str, value: &Var) {
        self.step.output(&format!("loss/{name}"), value);
    }

    /// A term's value with its weight.
    pub fn weighted(&self, term: &Term, value: Var) -> Var {
        self.ramped(term, scaled(value, term.weight))
    }

    /// A term's value with the part of its weight that changes from step to step.
    pub fn ramped(&self, term: &Term, value: Var) -> Var {
        match ramp(term) {
            Some(name) => {
                let mut known = self.ramps.borrow_mut();
                let factor = || self.graph.input(&name, Shape::scalar());
                value.mul(known.entry(name.clone()).or_insert_with(factor))
            }
            None => value,
        }
    }

    /// The loss of an update.
    ///
    /// Where a network predicts at several resolutions, the terms that compare its predictions are taken at each, with
    /// nnU-Net's weights: halved with every resolution, one in all.
    fn total(&mut self, terms: &[Term]) -> Var {
        let levels = terms.iter().map(|t| self.levels(t)).max().unwrap_or(1);
        let halves: Vec<f64> = (0..levels).map(|i| 0.5f64.powi(i as i32)).collect();
        let all: f64 = halves.iter().sum();
        let (mut compared, mut others) = (Vec::new(), Vec::new());
        for term in terms {
            if term.weight == 0.0 {
                self.nothing(term);
                continue;
            }
            match &term.kind {
                TermKind::Compare { by, of, to } => {
                    let value = self.compare(*by, of, to, 0, term);
                    self.log(&term.log[0], &value);
                    if levels > 1 { compared.push(value) } else { others.push(value) }
                }
                TermKind::Adversarial { form, by, real, fake, pool, real_first } => {
                    others.push(if self.own(*by) {
                        let real = real.as_ref().expect("checked when it was read");
                        self.discriminate(term, *form, *by, [real, fake], pool.as_ref(), *real_first)
                    } else {
                        self.fool(term, *form, *by, real.as_ref(), fake)
                    });
                }
                TermKind::GradientPenalty { real, fake } => others.push(self.penalty(term, real, fake)),
                TermKind::FeatureMatching { by, real, fake } => {
                    others.push(self.feature_matching(term, *by, real, fake));
                }
                TermKind::Features { by, of, to, layers, measure } => {
                    others.push(self.features(term, *by, [of, to], layers, *measure));
                }
                TermKind::Dragan { real } => others.push(self.dragan(term, real)),
                TermKind::LeCam { real, fake, decay } => others.push(self.lecam(term, [real, fake], *decay)),
                TermKind::PathLength { of, decay } => others.push(self.path_length(term, of, *decay)),
                TermKind::Gaussian { of } => others.push(self.gaussian(term, of)),
                TermKind::TotalVariation { of } => {
                    let x = self.flow.value(self.step, of);
                    let value = self.phase("loss", || self.weighted(term, total_variation(&x)));
                    self.log(&term.log[0], &value);
                    others.push(value);
                }
                TermKind::Gradient { at, real } => others.push(self.gradient(term, at, *real)),
            }
        }
        if levels > 1
            && let Some(full) = sum(&compared)
        {
            let mut deep: Option<Var> = None;
            for (i, half) in halves.iter().enumerate().skip(1) {
                let mut parts = Vec::new();
                for term in terms.iter().filter(|t| t.weight > 0.0) {
                    if let TermKind::Compare { by, of, to } = &term.kind {
                        parts.push(self.compare(*by, of, to, i, term));
                    }
                }
                let part = self.phase("loss", || sum(&parts).map(|s| s.mul_scalar(half / all)));
                deep = match (deep, part) {
                    (Some(a), Some(b)) => Some(self.phase("loss", || a.add(&b))),
                    (a, b) => a.or(b),
                };
            }
            let full = self.phase("loss", || full.mul_scalar(halves[0] / all));
            others.insert(
                0,
                match deep {
                    Some(deep) => {
                        self.log("deep", &deep);
                        self.phase("loss", || full.add(&deep))
                    }
                    None => full,
                },
            );
        }
        self.phase("loss", || sum(&others)).unwrap_or_else(|| self.graph.full(&Shape::scalar(), 0.0))
    }

    fn own(&self, net: usize) -> bool {
        self.networks.contains(&net)
    }

    /// A term of weight 0 has a curve all the same, so that every run of a method has the same ones.
    fn nothing(&mut self, term: &Term) {
        if matches!(term.kind, TermKind::Compare { .. }) {
            let zero = self.graph.full(&Shape::scalar(), 0.0);
            self.log(&term.log[0], &zero);
        }
    }

    /// At how many resolutions a term is taken.
    fn levels(&mut self, term: &Term) -> usize {
        match &term.kind {
            TermKind::Compare { of, .. } if term.weight > 0.0 => self.flow.all(self.step, of).len(),
            _ => 1,
        }
    }

    /// A distance, or a loss of logits, at a resolution.
    fn compare(&mut self, by: Comparison, of: &Expr, to: &Expr, level: usize, term: &Term) -> Var {
        let all = self.flow.all(self.step, of);
        let y = &all[level.min(all.len() - 1)];
        let target = &self.flow.value(self.step, to);
        let classes = matches!(self.flow.method.spec().target, super::Target::Classes);
        let channel = y.rank().saturating_sub(1);
        let labels = || target.reshape(&target.shape()[..channel.min(target.shape().rank())]);
        self.phase("loss", || {
            let value = match by {
                Comparison::Image(distance) => distance.between(y, target),
                Comparison::Bce => bce_with_logits(y, target, None),
                Comparison::Focal { gamma } => focal_sigmoid(y, target, gamma, None),
                Comparison::Kl { temperature } => kl_divergence(y, target, temperature),
                Comparison::CrossEntropy { smoothing } => {
                    cross_entropy(y, &labels(), &CrossEntropy { smoothing, ..Default::default() })
                }
                Comparison::Dice { smooth, .. } if !classes => dice_sigmoid(y, target, smooth),
                Comparison::Dice { smooth, background } => {
                    let (mut p, mut t) = (y.softmax(channel), labels().one_hot(y.channels()));
                    if !background {
                        let others = y.channels().saturating_sub(1);
                        (p, t) = (p.slice(channel, 1, others), t.slice(channel, 1, others));
                    }
                    dice(&p, &t, smooth)
                }
            };
            self.weighted(term, value)
        })
    }

    /// The loss of a discriminator on real and on generated images.
    fn discriminate(
        &mut self,
        term: &Term,
        form: GanMode,
        net: usize,
        [real, fake]: [&Expr; 2],
        pool: Option<&Pool>,
        real_first: bool,
    ) -> Var {
        // Both before the discriminator sees either: values come before losses.
        let fake = self.flow.value(self.step, fake).detach();
        let real = self.flow.value(self.step, real);
        let order = if real_first { [true, false] } else { [false, true] };
        let mut losses: HashMap<bool, Var> = HashMap::new();
        let mut logits: HashMap<bool, Vec<Var>> = HashMap::new();
        for is_real in order {
            let candidate = if is_real { &real } else { &fake };
            let mut seen = self.flow.seen(self.step, net, candidate);
            if let Some(pool) = pool.filter(|_| !is_real) {
                seen = through_pool(self.step, &seen, pool);
            }
            let what = if is_real { "real" } else { "fake" };
            let pass = || self.phase(what, || self.flow.logits(self.step, net, &seen));
            // A penalty differentiates the discriminator twice, for which lower precision is too coarse.
            let out = if self.penalised[usize::from(is_real)] { self.graph.exact(pass) } else { pass() };
            if !form.is_relativistic() {
                let loss = |l: &Var| if is_real { form.d_real(l) } else { form.d_fake(l) };
                losses.insert(is_real, self.phase(what, || total_of(&out, loss)));
            }
            // Older images in the place of new ones do not depend on these.
            if is_real || pool.is_none() {
                self.outputs.insert(is_real, (candidate.clone(), out.clone()));
            }
            logits.insert(is_real, out);
        }
        let name = self.flow.method.spec().networks[net].name.clone();
        self.step.accuracy(&name, form, &logits[&true], &logits[&false]);
        let total = self.phase("backward", || match order.map(|o| losses.get(&o)) {
            [Some(first), Some(second)] => first.add(second),
            _ => pairs(&logits[&true], &logits[&false], |r, f| form.d_pair(r, f)),
        });
        let total = self.phase("backward", || self.weighted(term, total));
        match &term.log[..] {
            [real, fake] if losses.len() == 2 => {
                for is_real in order {
                    self.log(if is_real { real } else { fake }, &losses[&is_real]);
                }
            }
            names => self.log(&names[0], &total),
        }
        total
    }

    /// The loss of a generator: how well the discriminator tells its images from real ones.
    fn fool(&mut self, term: &Term, form: GanMode, net: usize, real: Option<&Expr>, fake: &Expr) -> Var {
        let fake = self.flow.value(self.step, fake);
        let real = real.filter(|_| form.is_relativistic()).map(|r| self.flow.value(self.step, r));
        let of_fake = self.pass(net, &fake).0;
        let of_real = real.map(|r| self.pass(net, &r).0);
        let value = self.phase("loss", || {
            let value = match &of_real {
                Some(of_real) => pairs(of_real, &of_fake, |r, f| form.g_pair(r, f)),
                None => total_of(&of_fake, |l| form.g(l)),
            };
            self.weighted(term, value)
        });
        self.log(&term.log[0], &value);
        value
    }

    /// What a discriminator that does not learn here says of a candidate, and its inner values. Asked twice for one, it is run
    /// once: its running statistics see every image once.
    pub fn pass(&mut self, net: usize, candidate: &Var) -> Answer {
        let key = (net, candidate.id());
        if let Some((_, known)) = self.passes.iter().find(|(k, _)| *k == key) {
            return known.clone();
        }
        let seen = self.flow.seen(self.step, net, candidate);
        let out = self.phase("loss", || self.flow.pass(self.step, net, &seen));
        self.passes.push((key, out.clone()));
        out
    }

    fn feature_matching(&mut self, term: &Term, net: usize, real: &Expr, fake: &Expr) -> Var {
        let (real, fake) = (self.flow.value(self.step, real), self.flow.value(self.step, fake));
        let of_fake = self.pass(net, &fake).1;
        let of_real = self.pass(net, &real).1;
        let value = self.phase("loss", || {
            let each = of_fake.iter().zip(&of_real).map(|((_, f), (_, r))| l1(f, &r.detach()));
            let sum = each.reduce(|a, b| a.add(&b));
            let none = || self.graph.full(&Shape::scalar(), 0.0);
            let mean = sum.map_or_else(none, |s| s.mul_scalar(term.weight / of_fake.len() as f64));
            self.ramped(term, mean)
        });
        self.log(&term.log[0], &value);
        value
    }
}

/// A loss of logits on real and on generated images, summed over resolutions.
fn pairs(real: &[Var], fake: &[Var], loss: impl Fn(&Var, &Var) -> Var) -> Var {
    let each = real.iter().zip(fake).map(|(r, f)| loss(r, f));
    each.reduce(|a, b| a.add(&b)).expect("a discriminator has outputs")
}

/// What a discriminator is shown: the new images, or some older ones in their place (see [`crate::ops::image_pool`]). The input
/// `<state>.choices` decides image by image.
fn through_pool(step: &StepBuilder, images: &Var, pool: &Pool) -> Var {
    let graph = step.graph();
    let shape = images.shape();
    let state = graph.state(&pool.state, shape.with(0, pool.size));
    let choices = graph.input(&format!("{}.choices", pool.state), [shape[0]]);
    let kept = graph.read(state);
    let shown = kept.apply(PoolQuery, &[images, &choices]);
    graph.write(state, &kept.apply(PoolStore, &[images, &choices]));
    shown
}
