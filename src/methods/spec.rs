//! A method as data: its networks, and which terms of which losses update them. Written in recipes (`[method]`,
//! `[networks.NAME]`, `[[train.update]]`) or by a preset ([`super::preset`]) in the same language.

use super::keys::Keys;
use super::times::Times;
use super::value::{Expr, Source};
use crate::error::{Error, Result};
use crate::models::{AnyNetwork, Network};
use crate::objectives::GanMode;
use crate::objectives::pixel::Distance;
use serde::Deserialize;
use std::path::PathBuf;

/// What a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Makes images that a discriminator scores.
    Generator,
    /// Gives an image, a label map, a class or numbers from an image, trained by its distance to the target.
    Network,
    /// Tells real from generated images. It has the discriminator's learning rate, and no running mean of its weights.
    Discriminator,
    /// Learns nothing: its weights come from a file, or stay as they began, and it is evaluated with its running statistics.
    Frozen,
}

impl Role {
    /// As in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Role::Generator => "generator",
            Role::Network => "network",
            Role::Discriminator => "discriminator",
            Role::Frozen => "frozen",
        }
    }
}

/// What the method learns to give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// An image.
    #[default]
    Image,
    /// A label map of regions that may overlap, one mask each.
    Regions,
    /// A label map of classes that exclude each other.
    Classes,
    /// One class for the whole image.
    Class,
    /// Which of several findings the whole image shows.
    Findings,
    /// Numbers, such as an age.
    Numbers,
    /// Nothing: there is no target, images are made from noise.
    Nothing,
}

/// A method.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What it learns to give.
    pub target: Target,
    /// Whether inputs and targets do not belong together.
    pub unpaired: bool,
    /// What predicts.
    pub predict: Expr,
    /// Numbers of noise per image; 0 where there is none.
    pub noise: usize,
    /// The loss that a person watches first, as in `loss/<watch>`.
    pub watch: String,
    /// The networks, in the order in which they are kept.
    pub networks: Vec<NetworkSpec>,
    /// What a step does, in this order.
    pub updates: Vec<UpdateSpec>,
}

/// A network with its role.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkSpec {
    /// "G", "D"...
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Which network.
    pub network: AnyNetwork,
    /// Where its settings stand in the recipe.
    pub key: String,
    /// What goes in, concatenated; the last one is the candidate that a discriminator scores. Of a frozen network it may be
    /// empty: then it takes as many channels as the values that it is applied to have.
    pub takes: Vec<Source>,
    /// What comes out.
    pub gives: Source,
    /// Whether it gives what its input lacks, in place of the whole.
    pub residual: bool,
    /// Where that stands in the recipe.
    pub residual_key: String,
    /// Channels, or elements of its vector, that it gives, where these are not those of `gives`.
    pub outputs: Option<usize>,
    /// The file that holds the weights of a frozen network.
    pub weights: Option<PathBuf>,
}

/// One update of networks by the sum of terms.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateSpec {
    /// The networks, by index. Several are updated together, by one loss.
    pub networks: Vec<usize>,
    /// Values that are traced before all others, in this order.
    pub forward: Vec<Expr>,
    /// The loss.
    pub terms: Vec<Term>,
    /// How often. An update that does not come once in every step is a program of its own, with a batch and noise of its own.
    pub times: Times,
    /// Whether it is a program of its own.
    pub apart: bool,
    /// Every weight is limited to plus and minus this after the update.
    pub clip_weights: Option<f64>,
    /// Factor of the networks' learning rate in this update.
    pub lr: f64,
}

/// A term of a loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Which.
    pub kind: TermKind,
    /// Its factor. Terms of weight 0 are left out.
    pub weight: f64,
    /// Another factor that changes from step to step.
    pub ramp: Option<Ramp>,
    /// Its names in logs, as in `loss/<log>`: one for the whole, or of a discriminator's term one for real and one for
    /// generated images.
    pub log: Vec<String>,
    /// Where it stands in the recipe, for messages.
    pub key: String,
}

/// A factor that goes linearly from one number to another, and stays there: a function of the step alone.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// In step 0.
    pub from: f64,
    /// In step `steps`, and ever after.
    pub to: f64,
    /// How many steps it takes.
    pub steps: u64,
}

impl Ramp {
    /// In step `step` (from 0).
    pub fn at(&self, step: u64) -> f64 {
        let share = step.min(self.steps) as f64 / self.steps.max(1) as f64;
        self.from * (1.0 - share) + self.to * share
    }
}

/// Older generated images that a discriminator is shown in place of new ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Number of images.
    pub size: usize,
    /// The state that holds them.
    pub state: String,
}

/// What a term computes.
#[derive(Clone, Debug, PartialEq)]
pub enum TermKind {
    /// How well a discriminator tells real from generated images; of the discriminator's own update or of a generator's.
    Adversarial {
        /// How logits become losses.
        form: GanMode,
        /// The discriminator.
        by: usize,
        /// Real images; a generator's term needs them for relativistic forms only.
        real: Option<Expr>,
        /// Generated images.
        fake: Expr,
        /// Where the discriminator is shown older ones.
        pool: Option<Pool>,
        /// Whether real images come first.
        real_first: bool,
    },
    /// WGAN-GP's penalty, between real and generated images.
    GradientPenalty {
        /// Real images.
        real: Expr,
        /// Generated images.
        fake: Expr,
    },
    /// The mean squared gradient at real (R1) or at generated (R2) images, times half of the weight.
    Gradient {
        /// The images.
        at: Expr,
        /// Whether they are real.
        real: bool,
    },
    /// How far a discriminator's inner values on generated images are from those on real ones: the mean over what the network
    /// makes known of the mean absolute differences (Salimans et al., NeurIPS 2016; Wang et al., CVPR 2018).
    FeatureMatching {
        /// The discriminator.
        by: usize,
        /// Real images.
        real: Expr,
        /// Generated images.
        fake: Expr,
    },
    /// How far what a network makes of one value inside is from what it makes of another.
    Features {
        /// The network: frozen, or a discriminator that does not learn here.
        by: usize,
        /// What a network makes.
        of: Expr,
        /// What it should be.
        to: Expr,
        /// Which of the values that it makes known; all where it is empty.
        layers: Vec<String>,
        /// By which measure.
        measure: FeatureMeasure,
    },
    /// DRAGAN's penalty, around real images.
    Dragan {
        /// Real images.
        real: Expr,
    },
    /// What keeps a discriminator's logits near the running means of the other kind's (LeCam).
    LeCam {
        /// Real images.
        real: Expr,
        /// Generated images.
        fake: Expr,
        /// Decay of the running means.
        decay: f64,
    },
    /// How much steps in the noise of equal length differ in how far they change the image.
    PathLength {
        /// A generator of noise.
        of: Expr,
        /// The share of a step's mean length that its running mean takes up.
        decay: f64,
    },
    /// The divergence of normal distributions, as means and logarithms of variances, from the standard one.
    Gaussian {
        /// Both, one behind the other.
        of: Expr,
    },
    /// How much neighbours differ.
    TotalVariation {
        /// The image.
        of: Expr,
    },
    /// How far two values are from each other.
    Compare {
        /// By which measure.
        by: Comparison,
        /// What a network makes.
        of: Expr,
        /// What it should be.
        to: Expr,
    },
}

impl TermKind {
    /// The values that it looks at.
    pub fn values(&self) -> Vec<&Expr> {
        match self {
            TermKind::Adversarial { real, fake, .. } => real.iter().chain([fake]).collect(),
            TermKind::GradientPenalty { real, fake }
            | TermKind::LeCam { real, fake, .. }
            | TermKind::FeatureMatching { real, fake, .. } => vec![real, fake],
            TermKind::Gradient { at, .. }
            | TermKind::Dragan { real: at }
            | TermKind::PathLength { of: at, .. }
            | TermKind::Gaussian { of: at }
            | TermKind::TotalVariation { of: at } => vec![at],
            TermKind::Compare { of, to, .. } | TermKind::Features { of, to, .. } => vec![of, to],
        }
    }
}

/// How values inside of a network are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureMeasure {
    /// The mean absolute difference of each layer.
    L1,
    /// The mean squared difference of each layer (Johnson et al., ECCV 2016, section 3.2).
    L2,
    /// The squared difference of each layer's Gram matrices (Gatys et al., CVPR 2016; Johnson et al.).
    Gram,
}

/// A measure of how far a value is from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// Between images.
    Image(Distance),
    /// Binary cross entropy of logits, region by region.
    Bce,
    /// Cross entropy of the logits of classes.
    CrossEntropy {
        /// Share of the truth that is spread evenly over all classes.
        smoothing: f64,
    },
    /// Focal loss of logits, region by region.
    Focal {
        /// How much less what is nearly right counts; 0 is the binary cross entropy.
        gamma: f64,
    },
    /// The divergence of the classes' probabilities from those that other logits give.
    Kl {
        /// Both logits are divided by it; the loss is multiplied by its square.
        temperature: f64,
    },
    /// Soft Dice over regions or classes.
    Dice {
        /// Added to both sides of the fraction.
        smooth: f64,
        /// Whether class 0 counts.
        background: bool,
    },
}

impl Target {
    /// Whether it is no image: a vector.
    pub fn is_vector(self) -> bool {
        matches!(self, Target::Class | Target::Findings | Target::Numbers)
    }

    /// Whether it says what something is, so that logits are compared with it.
    pub fn is_categorical(self) -> bool {
        !matches!(self, Target::Image | Target::Numbers | Target::Nothing)
    }
}

impl Spec {
    /// What can be said without the data: rules of the methods.
    pub(super) fn check(&self, keys: &Keys) -> Result<()> {
        self.check_networks()?;
        self.check_logs()?;
        for (i, u) in self.updates.iter().enumerate() {
            let place = format!("train.update[{i}]");
            let wasserstein = u.terms.iter().find(|t| {
                let own = |by: usize| u.networks.contains(&by);
                matches!(t.kind, TermKind::Adversarial { form: GanMode::Wgan, by, .. } if own(by))
            });
            let penalty =
                |t: &Term| matches!(t.kind, TermKind::GradientPenalty { .. } | TermKind::Dragan { .. });
            let bounded = u.clip_weights.is_some() || u.terms.iter().any(|t| penalty(t) && t.weight > 0.0);
            if let Some(term) = wasserstein.filter(|_| !bounded) {
                return Err(Error::input(format!(
                    "`{}`: a Wasserstein loss needs a critic that is kept Lipschitz; add a gradient penalty or clipping of its weights, or take another form such as \"hinge\"",
                    term.key
                )));
            }
            if u.clip_weights.is_some_and(|c| !(c > 0.0 && c.is_finite())) {
                let key = keys.name(&format!("{place}.clip_weights"));
                return Err(Error::input(format!("`{key}` must be a positive number; 0.01 is usual")));
            }
            for term in &u.terms {
                self.check_term(u, term)?;
            }
        }
        Ok(())
    }

    /// Every network learns something, and no value is what a discriminator says.
    fn check_networks(&self) -> Result<()> {
        for (i, net) in self.networks.iter().enumerate() {
            if net.role == Role::Frozen {
                self.check_frozen(i, net)?;
                continue;
            }
            let mut own =
                self.updates.iter().filter(|u| u.networks.contains(&i)).flat_map(|u| &u.terms).peekable();
            if own.peek().is_none() {
                return Err(Error::input(format!(
                    "the network {} is trained by no update; add a [[train.update]] for it, or remove it",
                    net.name
                )));
            }
            let keys: Vec<&str> = own.clone().map(|t| t.key.as_str()).collect();
            if own.all(|t| t.weight == 0.0) {
                return Err(Error::input(format!(
                    "all that {} learns from has the weight 0 (`{}`); give one of them a positive one",
                    net.name,
                    keys.join("`, `")
                )));
            }
        }
        let discriminator =
            |e: &Expr| e.networks().into_iter().find(|i| self.networks[*i].role == Role::Discriminator);
        let values = self.updates.iter().flat_map(|u| {
            let of = |t: &Term| t.kind.values().into_iter().cloned().collect::<Vec<Expr>>();
            u.forward.iter().cloned().chain(u.terms.iter().flat_map(of)).collect::<Vec<Expr>>()
        });
        match values.chain([self.predict.clone()]).find_map(|e| discriminator(&e)) {
            Some(i) => Err(Error::input(format!(
                "{} is a discriminator: what it says is no value; compare by an `adversarial` term or by `feature_matching`",
                self.networks[i].name
            ))),
            None => Ok(()),
        }
    }

    /// A frozen network is used, and does not learn.
    fn check_frozen(&self, index: usize, net: &NetworkSpec) -> Result<()> {
        let wrong = |why: String| Err(Error::input(why));
        if let Some(i) = self.updates.iter().position(|u| u.networks.contains(&index)) {
            return wrong(format!(
                "`train.update[{i}].network` names {}, which is frozen and learns nothing; name another network, or give {0} the role \"network\"",
                net.name
            ));
        }
        if self.predict.networks().contains(&index) {
            return wrong(format!(
                "`method.predict` applies {}, which is frozen and learns nothing; name a network that is trained",
                net.name
            ));
        }
        if net.takes.len() > 1 {
            return wrong(format!(
                "`{}.takes` must name one value of a frozen network, or be left out",
                net.key
            ));
        }
        let in_terms = self.updates.iter().flat_map(|u| &u.terms).any(|t| {
            let by = matches!(t.kind, TermKind::Features { by, .. } if by == index);
            by || t.kind.values().iter().any(|e| e.networks().contains(&index))
        });
        if !in_terms {
            return wrong(format!(
                "the frozen network {} is used by no term; name it in one, such as {{ perceptual = {{ by = \"{0}\" }} }}, or remove it",
                net.name
            ));
        }
        Ok(())
    }

    /// Every curve has a name of its own: of two under one name one would be lost.
    fn check_logs(&self) -> Result<()> {
        let mut seen: Vec<&str> = Vec::new();
        for term in self.updates.iter().flat_map(|u| &u.terms) {
            if term.log.is_empty() || term.log.iter().any(String::is_empty) {
                return Err(Error::input(format!(
                    "`{}`: `log` names nothing; leave it out for the usual name",
                    term.key
                )));
            }
            for name in &term.log {
                if seen.contains(&name.as_str()) {
                    return Err(Error::input(format!(
                        "two terms are logged as \"{name}\"; give one of them another `log` (`{}`)",
                        term.key
                    )));
                }
                seen.push(name);
            }
        }
        Ok(())
    }

    fn check_term(&self, update: &UpdateSpec, term: &Term) -> Result<()> {
        let wanted = "a discriminator";
        let (what, role) = match term.kind {
            TermKind::GradientPenalty { .. } | TermKind::Dragan { .. } => ("the gradient penalty", wanted),
            TermKind::Gradient { .. } => ("the penalty on its gradients", wanted),
            TermKind::LeCam { .. } => ("", wanted),
            TermKind::PathLength { .. } => ("the path length regularisation", "a generator"),
            _ => return Ok(()),
        };
        let own: Vec<&NetworkSpec> = update.networks.iter().map(|&i| &self.networks[i]).collect();
        let [net] = own[..] else {
            return Err(Error::input(format!(
                "`{}` belongs to the update of one {}",
                term.key,
                role.trim_start_matches("a ")
            )));
        };
        if (net.role == Role::Discriminator) != (role == wanted) {
            return Err(Error::input(format!(
                "`{}` belongs to the update of {role}, which {} is not",
                term.key, net.name
            )));
        }
        if let TermKind::PathLength { of, .. } = &term.kind {
            let noise = matches!(of, Expr::Apply(i, inner) if **inner == Expr::Source(Source::Noise) && update.networks.contains(i));
            if !noise {
                return Err(Error::input(format!(
                    "`{}` needs `of` = \"{}(noise)\": it measures how the images of the generator that learns follow the noise",
                    term.key, net.name
                )));
            }
        }
        if term.weight > 0.0 && !what.is_empty() && net.network.mixes_batch() {
            return Err(Error::input(format!(
                "`{}`: {what} takes every image by itself, but batch norm in {} mixes them; set `{}.norm` to \"none\", or to \"layer\" or \"instance\" where it knows them",
                term.key, net.name, net.key
            )));
        }
        Ok(())
    }
}
