//! What methods have beside networks that learn: frozen ones, running means of terms, and weights that change from step to step.

use super::check::WINDOW;
use super::spec::{Comparison, NetworkSpec, Role, Term, TermKind};
use super::value::Expr;
use super::{Method, Run};
use crate::objectives::pixel::Distance;
use crate::objectives::ssim::MsSsim;
use crate::shape::Shape;
use std::cmp::Ordering;
use std::path::Path;

impl Method {
    /// Whether a network learns nothing.
    pub fn frozen(&self, net: &str) -> bool {
        self.spec.networks.iter().any(|n| n.name == net && n.role == Role::Frozen)
    }

    /// Whether a running mean of a network's weights is kept, where the recipe asks for one.
    pub fn averages(&self, net: &str) -> bool {
        !self.discriminates(net) && !self.frozen(net)
    }

    /// Slots of a network's store, with an optimiser that has `slots`: a frozen network has no moments.
    pub fn slots(&self, net: &str, slots: usize) -> usize {
        if self.frozen(net) { 1 } else { slots }
    }

    /// Whether a program runs in every step.
    pub fn always(&self, part: usize) -> bool {
        let times = &self.spec.updates[self.program(part)[0]].times;
        times.every == 1 && times.from == 0 && times.until.is_none()
    }

    /// The frozen networks that come from a file, with the file and the key that names it.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Path, String)> {
        let frozen = self.spec.networks.iter().filter(|n| n.role == Role::Frozen);
        frozen.filter_map(|n| {
            Some((n.name.as_str(), n.weights.as_deref()?, format!("networks.{}.weights", n.name)))
        })
    }

    /// Channels of what a frozen network is first applied to, where it is not said what it takes.
    pub(super) fn frozen_inputs(&self, net: &NetworkSpec) -> usize {
        fn applied(e: &Expr, net: usize) -> Option<&Expr> {
            match e {
                Expr::Source(_) => None,
                Expr::Apply(i, inner) => applied(inner, net).or((*i == net).then_some(inner)),
                Expr::Map(_, inner) => applied(inner, net),
            }
        }
        let index = self.spec.networks.iter().position(|n| n.name == net.name).unwrap_or_default();
        let all = self.spec.updates.iter().flat_map(|u| &u.terms);
        let first = all.clone().find_map(|t| match &t.kind {
            TermKind::Features { by, of, .. } if *by == index => Some(of),
            kind => kind.values().into_iter().find_map(|e| applied(e, index)),
        });
        first.map_or(1, |e| self.channels_made(e))
    }

    /// What a person should know of a training on images of `size`.
    pub fn notes(&self, size: &[usize]) -> Vec<String> {
        let mut notes = Vec::new();
        for net in self.spec.networks.iter().filter(|n| n.role == Role::Frozen && n.weights.is_none()) {
            notes.push(format!(
                "{} is frozen with random weights out of the seed, as `networks.{0}.weights` names no file",
                net.name
            ));
        }
        for term in self.terms() {
            if let TermKind::Compare { by: Comparison::Image(Distance::MsSsim), .. } = term.kind {
                let (scales, all) = (MsSsim::scales(size), MsSsim::WEIGHTS.len());
                if scales < all {
                    notes.push(format!(
                        "`{}` takes the first {scales} of its {all} scales, as images of {size:?} are too small for more ({} pixels a side for all)",
                        term.key,
                        WINDOW << (all - 1)
                    ));
                }
            }
        }
        notes
    }

    /// States that terms keep from step to step, by name; they begin with zeros.
    pub fn memories(&self) -> Vec<(String, Shape)> {
        let numbers = |t: &Term| if matches!(t.kind, TermKind::LeCam { .. }) { 3 } else { 1 };
        self.terms().filter_map(|t| Some((memory(t)?, Shape::from([numbers(t)])))).collect()
    }

    /// The number, from 1, of a network's first update in a run: over all programs that update it.
    pub(super) fn update_number(&self, net: &str, run: Run) -> u64 {
        let updates = |part: usize| {
            let own = |u: &&usize| {
                self.spec.updates[**u].networks.iter().any(|&n| self.spec.networks[n].name == net)
            };
            self.programs[part].iter().filter(own).count() as u64
        };
        let ran = |part: usize| {
            // A step runs its programs in order.
            let times = &self.spec.updates[self.programs[part][0]].times;
            match part.cmp(&run.part) {
                Ordering::Less => times.before(run.step + 1),
                Ordering::Equal => run.number,
                Ordering::Greater => times.before(run.step),
            }
        };
        1 + match updates(run.part) {
            0 => run.number,
            _ => (0..self.parts()).map(|part| updates(part) * ran(part)).sum(),
        }
    }

    /// The factors of terms in a run of a program, where they change from step to step.
    pub(super) fn ramps(&self, run: Run) -> impl Iterator<Item = (String, Vec<f32>)> {
        let ramped = self.terms().filter_map(|t| Some((ramp(t)?, t.ramp?)));
        ramped.map(move |(name, ramp)| (name, vec![ramp.at(run.step) as f32]))
    }
}

/// The state in which a term keeps running means, if it has some. Its name in logs is its own.
pub(super) fn memory(term: &Term) -> Option<String> {
    let kind = match term.kind {
        TermKind::LeCam { .. } => "lecam",
        TermKind::PathLength { .. } => "path_length",
        _ => return None,
    };
    Some(format!("{kind}.{}", term.log[0]))
}

/// The input that is a term's changing factor, if it has one.
pub(super) fn ramp(term: &Term) -> Option<String> {
    term.ramp.map(|_| format!("weight.{}", term.log[0]))
}
