//! What methods have beside networks that learn: frozen ones, layers of networks that terms look at, running means of terms,
//! and weights that change from step to step.

use super::spec::{Comparison, NetworkSpec, Role, Term, TermKind};
use super::value::{Expr, Map, Source};
use super::{Method, Run};
use crate::error::{Error, Result};
use crate::models::{Network, Signature};
use crate::objectives::pixel::Distance;
use crate::objectives::ssim::MsSsim;
use crate::shape::Shape;
use std::cmp::Ordering;
use std::path::Path;

/// Extent of the window of the structural similarity.
const WINDOW: usize = 11;

impl Method {
    fn terms(&self) -> impl Iterator<Item = &Term> {
        self.spec.updates.iter().flat_map(|u| &u.terms).filter(|t| t.weight > 0.0)
    }

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

    /// Channels of a value, without a look at what its networks take.
    fn channels_made(&self, value: &Expr) -> usize {
        match value {
            Expr::Source(source) => self.channels(*source),
            Expr::Apply(net, _) => self.outputs_of(&self.spec.networks[*net]),
            Expr::Map(Map::OneHot, _) => self.classes(),
            Expr::Map(Map::Sample, inner) => self.channels_made(inner) / 2,
            Expr::Map(_, inner) => self.channels_made(inner),
        }
    }

    /// Whether a value is a vector for each image, and no image.
    fn is_vector(&self, value: &Expr) -> bool {
        match value {
            Expr::Source(Source::Target) => self.spec.target.is_vector(),
            Expr::Source(source) => *source == Source::Noise,
            Expr::Apply(net, _) => self.spec.networks[*net].network.signature() == Signature::Vector,
            Expr::Map(_, inner) => self.is_vector(inner),
        }
    }

    /// What a term needs of the values that it looks at, beyond their channels.
    pub(super) fn check_values(&self, term: &Term) -> Result<()> {
        let wrong = |why: String| Err(Error::input(format!("`{}`: {why}", term.key)));
        let spatial = |e: &Expr| {
            wrong(format!(
                "`{}` is a vector for each image, and this loss compares neighbouring pixels",
                self.text(e)
            ))
        };
        for value in term.kind.values() {
            for net in value.networks().into_iter().map(|i| &self.spec.networks[i]) {
                if net.network.signature() == Signature::Patches {
                    return wrong(format!(
                        "{} gives logits of patches, which are no value; name it in `by` of a `perceptual` or `style` term",
                        net.name
                    ));
                }
            }
        }
        match &term.kind {
            TermKind::Compare { by, of, to } => {
                if self.is_vector(of) != self.is_vector(to) {
                    return wrong(format!(
                        "`{}` and `{}` can't be compared: one of them is a vector for each image, the other an image",
                        self.text(of),
                        self.text(to)
                    ));
                }
                let local = [Distance::Ssim, Distance::MsSsim, Distance::GradientDifference];
                if matches!(by, Comparison::Image(d) if local.contains(d)) && self.is_vector(of) {
                    return spatial(of);
                }
                let labels =
                    |e: &Expr| *e == Expr::Source(Source::Target) && self.spec.target.is_categorical();
                if matches!(by, Comparison::Kl { .. }) && (labels(of) || labels(to)) {
                    return wrong(
                        "the divergence compares logits with logits; compare with labels by `cross_entropy`"
                            .into(),
                    );
                }
                Ok(())
            }
            TermKind::TotalVariation { of } if self.is_vector(of) => spatial(of),
            TermKind::Gaussian { of } => {
                let n = self.channels_made(of);
                if n.is_multiple_of(2) {
                    return Ok(());
                }
                wrong(format!(
                    "`{}` has {n} channels, but means and logarithms of variances are as many of each; give the network an even number of `outputs`",
                    self.text(of)
                ))
            }
            TermKind::Features { by, of, to, .. } => {
                let net = &self.spec.networks[*by];
                for value in [of, to] {
                    let given = self.channels_made(value);
                    // A discriminator's candidate stands behind what else it takes.
                    let others: usize = match (net.role, net.takes.split_last()) {
                        (Role::Discriminator, Some((_, others))) => others
                            .iter()
                            .map(|s| if *s == Source::Target { self.outputs } else { self.channels(*s) })
                            .sum(),
                        _ => 0,
                    };
                    let takes = self.inputs_of(net) - others;
                    if given != takes {
                        return wrong(format!(
                            "`{}` has {given} channels, but {} takes {takes}",
                            self.text(value),
                            net.name
                        ));
                    }
                    if self.is_vector(value) {
                        return wrong(format!(
                            "`{}` is a vector, and {} looks at images",
                            self.text(value),
                            net.name
                        ));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether a described network gives as many numbers as it should, and has the layers that terms look at.
    pub(super) fn check_described(&self, net: &NetworkSpec, output: &Shape, layers: &[String]) -> Result<()> {
        let wanted = self.outputs_of(net);
        let vector = net.role != Role::Discriminator && net.network.signature() == Signature::Vector;
        let gives = if output.rank() == 1 { 1 } else { output.channels() };
        let used = self.spec.updates.iter().flat_map(|u| &u.terms).flat_map(|t| t.kind.values());
        let index = self.spec.networks.iter().position(|n| n.name == net.name).unwrap_or_default();
        let applied = used.flat_map(Expr::networks).any(|i| i == index);
        if vector && applied && gives != wanted {
            return Err(Error::input(format!(
                "`{}.kind` = \"{}\" gives {gives} numbers for each image, but {} must give {wanted}; take another network, or set `{0}.outputs`",
                net.key,
                net.network.kind(),
                net.name
            )));
        }
        for term in self.terms() {
            let TermKind::Features { by, layers: named, .. } = &term.kind else { continue };
            if *by != index {
                continue;
            }
            if layers.is_empty() {
                return Err(Error::input(format!(
                    "`{}`: \"{}\" makes none of its layers known; take another network for {}",
                    term.key,
                    net.network.kind(),
                    net.name
                )));
            }
            if let Some(unknown) = named.iter().find(|n| !layers.contains(n)) {
                return Err(Error::input(format!(
                    "`{}`: {} has no layer \"{unknown}\"; name some of {}",
                    term.key,
                    net.name,
                    layers.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Whether images of `size` are large enough for the windows that terms look through.
    pub(super) fn check_windows(&self, size: &[usize]) -> Result<()> {
        let least = size.iter().min().copied().unwrap_or(0);
        for term in self.terms() {
            let windowed = matches!(
                term.kind,
                TermKind::Compare { by: Comparison::Image(Distance::Ssim | Distance::MsSsim), .. }
            );
            if windowed && least < WINDOW {
                return Err(Error::input(format!(
                    "`{}`: the window of the structural similarity has {WINDOW} pixels a side, and images are {size:?}; enlarge `data.canvas` or `data.patch`, or take `l1`",
                    term.key
                )));
            }
        }
        Ok(())
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
