//! Whether a method makes sense: its networks in their roles, the values that its terms look at, and the data that it is to
//! learn from.

use super::spec::{Comparison, NetworkSpec, Role, Target, Term, TermKind};
use super::value::{Expr, Map, Source};
use super::{Method, Task};
use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::models::{Network, Signature};
use crate::objectives::pixel::Distance;
use crate::shape::Shape;

/// Extent of the window of the structural similarity.
pub(super) const WINDOW: usize = 11;

impl Method {
    pub(super) fn terms(&self) -> impl Iterator<Item = &Term> {
        self.spec.updates.iter().flat_map(|u| &u.terms).filter(|t| t.weight > 0.0)
    }

    /// Channels of a value, without a look at what its networks take.
    pub(super) fn channels_made(&self, value: &Expr) -> usize {
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

    /// Whether the settings make sense, as far as that can be said without knowing the images' size.
    pub(super) fn check(&self) -> Result<()> {
        for net in &self.spec.networks {
            self.check_role(net)?;
            net.network.check(&self.limits(net, None))?;
        }
        let Expr::Apply(_, of) = &self.spec.predict else {
            return Err(Error::input("`method.predict` must be what a network makes, such as \"G(input)\""));
        };
        if **of != Expr::Source(of.source()) || of.source() == Source::Target {
            return Err(Error::input("`method.predict` must apply one network to input or to noise"));
        }
        if matches!(self.spec.target, Target::Classes | Target::Class) && self.outputs < 2 {
            return Err(Error::input(
                "classes that exclude each other are at least two; use `regions` for one mask",
            ));
        }
        for term in self.spec.updates.iter().flat_map(|u| &u.terms).filter(|t| t.weight > 0.0) {
            let named = |e: Error| Error::input(format!("`{}`: {e}", term.key));
            if let TermKind::Compare { of, to, by } = &term.kind {
                let (a, b) = (self.channels_of(of).map_err(named)?, self.channels_of(to).map_err(named)?);
                let alike = a == b || matches!(by, Comparison::CrossEntropy { .. } | Comparison::Dice { .. });
                if !alike {
                    return Err(Error::input(format!(
                        "`{}` compares `{}` with `{}`, which have {a} and {b} channels; set it to 0, or make `data.input` and `data.target` equally long",
                        term.key,
                        self.text(of),
                        self.text(to)
                    )));
                }
                let labels = matches!(by, Comparison::Image(_)) == self.spec.target.is_categorical();
                if labels && matches!(to, Expr::Source(Source::Target)) {
                    return Err(Error::input(format!(
                        "`{}` does not suit the target: images and numbers are compared by l1, l2 and their like, label maps and classes by bce, cross_entropy and dice (`method.target`)",
                        term.key
                    )));
                }
            }
            for value in term.kind.values() {
                self.channels_of(value).map_err(named)?;
            }
            self.check_values(term)?;
        }
        Ok(())
    }

    /// Whether a network's signature fits its role.
    fn check_role(&self, net: &NetworkSpec) -> Result<()> {
        let signature = net.network.signature();
        let from_noise = net.takes == [Source::Noise];
        let predicts = net.name == self.predictor();
        let segments = self.task() == Task::Segment && predicts;
        let vector = self.spec.target.is_vector() && predicts;
        let (fits, wanted) = match net.role {
            Role::Discriminator => {
                (matches!(signature, Signature::Patches | Signature::Vector), "image -> logits")
            }
            Role::Frozen => (true, ""),
            _ if from_noise => (signature == Signature::Noise, "noise -> image"),
            _ if net.gives == Source::Noise => (signature == Signature::Vector, "image -> vector"),
            _ if segments => (signature == Signature::Dense, "image -> values per pixel"),
            _ if vector => (signature == Signature::Vector, "image -> vector"),
            _ => (matches!(signature, Signature::Image | Signature::Dense), "image -> image"),
        };
        if !fits {
            return Err(Error::input(format!(
                "`{}.kind` can't be \"{}\": it is {signature}, and the {} {} must be {wanted}; `gan recipes --networks` lists what there is",
                net.key,
                net.network.kind(),
                net.role.name(),
                net.name
            )));
        }
        let alike = self.inputs_of(net) == self.outputs_of(net) && !segments && !from_noise && !vector;
        if net.residual && !alike {
            return Err(Error::input(format!(
                "`{}` adds the input to an image of as many channels; set it to false, or make `data.input` and `data.target` equally long",
                net.residual_key
            )));
        }
        Ok(())
    }

    /// Whether `data` gives what the method learns from.
    pub(super) fn check_data(&self, data: &DataConfig) -> Result<()> {
        let wrong = |why: &str| Err(Error::input(why.to_string()));
        let regions = data.labels.as_ref().map(|l| !l.regions.is_empty());
        match self.spec.target {
            Target::Nothing if !data.target.is_empty() => wrong(
                "`data.target` names what an image is turned into, but this model makes images from noise; set it to []",
            ),
            _ if data.unpaired && !self.spec.unpaired => wrong(
                "`data.unpaired` gives two sets of images without pairs, which only CycleGAN learns from; remove it",
            ),
            Target::Image if data.target.is_empty() => {
                wrong("`data.target` lists no modality; name at least one")
            }
            Target::Regions | Target::Classes if regions.is_none() => {
                wrong("this loss compares label maps; say in `data.labels` what the target's labels mean")
            }
            Target::Regions if regions == Some(false) => wrong(
                "`loss.kind` is \"regions\", but `data.labels.regions` names none; add some, or use \"classes\"",
            ),
            Target::Classes if regions == Some(true) => wrong(
                "`loss.kind` is \"classes\", but `data.labels.regions` may overlap; remove them, or use \"regions\"",
            ),
            _ if self.spec.target.is_vector() => self.check_answers(data),
            _ if data.answers().is_some() => wrong(&format!(
                "`data.{}` says that the target is no image, which is for `loss.kind` = \"image-class\", \"findings\" or \"numbers\" of `model.kind` = \"supervised\"; take that one, or remove the key",
                data.answers().map_or("", crate::data::Answers::key)
            )),
            Target::Image | Target::Nothing if regions.is_some() => {
                wrong("`data.labels` belongs to segmentation, which this model does not do; remove it")
            }
            _ if data.patch.is_some() && !self.takes_volumes() => {
                wrong("`data.patch` cuts volumes, but a network of this model takes slices only; remove it")
            }
            _ => Ok(()),
        }
    }

    /// Whether `data` says what a target that is no image holds.
    fn check_answers(&self, data: &DataConfig) -> Result<()> {
        let (wanted, example) = match self.spec.target {
            Target::Class => ("classes", "[\"healthy\", \"ill\"]"),
            Target::Findings => ("findings", "[\"effusion\", \"mass\"]"),
            _ => ("numbers", "true"),
        };
        match data.answers() {
            Some(answers) if answers.key() == wanted => Ok(()),
            _ => Err(Error::input(format!(
                "this loss learns what `data.{wanted}` says of the column `data.target`; set it, for example to {example}"
            ))),
        }
    }
}
