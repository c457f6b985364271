//! A method as data: its networks, and which terms of which losses update them. Written in recipes (`[method]`,
//! `[networks.NAME]`, `[[train.update]]`) or by a preset ([`super::preset`]) in the same language.

use super::text::explain;
use super::times::Times;
use super::value::{Expr, Source};
use crate::error::{Error, Result};
use crate::models::AnyNetwork;
use crate::objectives::GanMode;
use crate::objectives::pixel::Distance;
use serde::Deserialize;
use std::collections::HashMap;
use toml::{Table, Value};

/// What a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Makes images that a discriminator judges.
    Generator,
    /// Gives an image or a label map from an image, trained by its distance to the target.
    Network,
    /// Tells real from generated images. It has the discriminator's learning rate, and no running mean of its weights.
    Discriminator,
}

impl Role {
    /// As in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Role::Generator => "generator",
            Role::Network => "network",
            Role::Discriminator => "discriminator",
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
    /// What goes in, concatenated; the last one is the candidate that a discriminator judges.
    pub takes: Vec<Source>,
    /// What comes out.
    pub gives: Source,
    /// Whether it gives what its input lacks, in place of the whole.
    pub residual: bool,
    /// Where that stands in the recipe.
    pub residual_key: String,
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
}

/// A term of a loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Which.
    pub kind: TermKind,
    /// Its factor. Terms of weight 0 are left out.
    pub weight: f64,
    /// Its names in logs, as in `loss/<log>`: one for the whole, or of a discriminator's term one for real and one for
    /// generated images.
    pub log: Vec<String>,
    /// Where it stands in the recipe, for messages.
    pub key: String,
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
        /// Whether real images are judged first.
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
            TermKind::GradientPenalty { real, fake } | TermKind::FeatureMatching { real, fake, .. } => {
                vec![real, fake]
            }
            TermKind::Gradient { at, .. } | TermKind::TotalVariation { of: at } => vec![at],
            TermKind::Compare { of, to, .. } => vec![of, to],
        }
    }
}

/// A measure of how far a value is from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// Between images.
    Image(Distance),
    /// Binary cross entropy of logits, region by region.
    Bce,
    /// Cross entropy of the logits of classes.
    CrossEntropy,
    /// Focal loss of logits, region by region.
    Focal {
        /// How much less what is nearly right counts; 0 is the binary cross entropy.
        gamma: f64,
    },
    /// Soft Dice over regions or classes.
    Dice {
        /// Added to both sides of the fraction.
        smooth: f64,
        /// Whether class 0 counts.
        background: bool,
    },
}

/// Where the settings that were put into a preset come from: by their place in it, the user's key.
#[derive(Clone, Debug, Default)]
pub struct Keys(pub HashMap<String, String>);

impl Keys {
    /// The user's key for a place in the method.
    pub fn name(&self, place: &str) -> String {
        // The longest known place that this one lies in.
        let mut end = place.len();
        while end > 0 {
            if let Some(key) = self.0.get(&place[..end]) {
                return format!("{key}{}", &place[end..]);
            }
            end = place[..end].rfind(['.', '[']).unwrap_or(0);
        }
        place.to_string()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMethod {
    predict: String,
    #[serde(default)]
    target: Target,
    #[serde(default)]
    unpaired: bool,
    noise: Option<usize>,
    watch: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNetwork {
    role: Role,
    takes: Option<Vec<Source>>,
    gives: Option<Source>,
    #[serde(default)]
    residual: bool,
}

/// The keys of a network's table that are not its own settings.
const NETWORK_KEYS: [&str; 5] = ["role", "takes", "gives", "residual", "settings"];

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn slice(&self) -> &[T] {
        match self {
            OneOrMore::One(x) => std::slice::from_ref(x),
            OneOrMore::More(all) => all,
        }
    }

    fn list(self) -> Vec<T> {
        match self {
            OneOrMore::One(x) => vec![x],
            OneOrMore::More(all) => all,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUpdate {
    network: OneOrMore<String>,
    #[serde(default)]
    forward: Vec<String>,
    terms: Vec<WrittenTerm>,
    times: Option<u64>,
    warm: Option<WrittenWarm>,
    every: Option<u64>,
    from: Option<u64>,
    until: Option<u64>,
    clip_weights: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWarm {
    #[serde(default)]
    first: u64,
    #[serde(default)]
    every: u64,
    times: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPool {
    size: usize,
    state: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum First {
    Real,
    Fake,
}

/// A factor, or several whose product it is.
type Weight = OneOrMore<f64>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTerm {
    adversarial: Option<GanMode>,
    gradient_penalty: Option<Weight>,
    r1: Option<Weight>,
    r2: Option<Weight>,
    l1: Option<Weight>,
    l2: Option<Weight>,
    charbonnier: Option<Weight>,
    huber: Option<Weight>,
    ssim: Option<Weight>,
    gradient_difference: Option<Weight>,
    distance: Option<Distance>,
    bce: Option<Weight>,
    cross_entropy: Option<Weight>,
    dice: Option<Weight>,
    focal: Option<Weight>,
    feature_matching: Option<Weight>,
    total_variation: Option<Weight>,
    weight: Option<Weight>,
    by: Option<String>,
    of: Option<String>,
    to: Option<String>,
    real: Option<String>,
    fake: Option<String>,
    first: Option<First>,
    pool: Option<WrittenPool>,
    smooth: Option<f64>,
    background: Option<bool>,
    gamma: Option<f64>,
    log: Option<OneOrMore<String>>,
}

/// Reads a value; errors name the user's key.
fn typed<T: serde::de::DeserializeOwned>(value: Value, place: &str, keys: &Keys) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let inner = match e.path().to_string() {
            root if root == "." => place.to_string(),
            path if path.starts_with('[') => format!("{place}{path}"),
            path => format!("{place}.{path}"),
        };
        Error::input(explain(&keys.name(&inner), &e.inner().to_string()))
    })
}

impl Spec {
    /// Reads a method from its tables: `[method]`, `[networks]` and the list `[[train.update]]`.
    pub fn read(method: Table, networks: Table, updates: Vec<Value>, keys: &Keys) -> Result<Spec> {
        let m: WrittenMethod = typed(Value::Table(method), "method", keys)?;
        let networks: Vec<NetworkSpec> =
            networks.into_iter().map(|(name, v)| network(name, v, keys)).collect::<Result<_>>()?;
        let names: Vec<&str> = networks.iter().map(|n| n.name.as_str()).collect();
        let expr = |text: &str, place: &str| {
            Expr::parse(text, &names).map_err(|e| Error::input(format!("`{}`: {e}", keys.name(place))))
        };
        let predict = expr(&m.predict, "method.predict")?;
        let updates: Vec<UpdateSpec> = updates
            .into_iter()
            .enumerate()
            .map(|(i, v)| update(v, &format!("train.update[{i}]"), &networks, &expr, keys))
            .collect::<Result<_>>()?;
        if updates.is_empty() {
            return Err(Error::input("the method updates no network; add a [[train.update]]"));
        }
        let noise = m.noise.unwrap_or(0);
        let drawn = networks.iter().any(|n| n.takes.contains(&Source::Noise));
        if drawn && !(1..=4096).contains(&noise) {
            let key = keys.name("method.noise");
            return Err(Error::input(format!("`{key}` must lie between 1 and 4096; 100 is usual")));
        }
        let last = updates.iter().flat_map(|u| &u.terms).filter_map(|t| t.log.last()).next_back();
        let watch = m.watch.or_else(|| last.cloned()).unwrap_or_default();
        let spec = Spec { target: m.target, unpaired: m.unpaired, predict, noise, watch, networks, updates };
        spec.check(keys)?;
        Ok(spec)
    }

    /// What can be said without the data: rules of the methods.
    fn check(&self, keys: &Keys) -> Result<()> {
        self.check_networks()?;
        self.check_logs()?;
        for (i, u) in self.updates.iter().enumerate() {
            let place = format!("train.update[{i}]");
            let wasserstein = u.terms.iter().find(|t| {
                let own = |by: usize| u.networks.contains(&by);
                matches!(t.kind, TermKind::Adversarial { form: GanMode::Wgan, by, .. } if own(by))
            });
            let bounded = u.clip_weights.is_some()
                || u.terms
                    .iter()
                    .any(|t| matches!(t.kind, TermKind::GradientPenalty { .. }) && t.weight > 0.0);
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
        let penalty = match term.kind {
            TermKind::GradientPenalty { .. } => "the gradient penalty",
            TermKind::Gradient { .. } => "the penalty on its gradients",
            _ => return Ok(()),
        };
        let own: Vec<&NetworkSpec> = update.networks.iter().map(|&i| &self.networks[i]).collect();
        let [d] = own[..] else {
            return Err(Error::input(format!("`{}` belongs to the update of one discriminator", term.key)));
        };
        if d.role != Role::Discriminator {
            return Err(Error::input(format!(
                "`{}` belongs to the update of a discriminator, which {} is not",
                term.key, d.name
            )));
        }
        if term.weight > 0.0 && crate::models::Network::mixes_batch(&d.network) {
            return Err(Error::input(format!(
                "`{}`: {penalty} judges every image by itself, but batch norm in {} mixes them; set `{}.norm` to \"none\", or to \"layer\" or \"instance\" where it knows them",
                term.key, d.name, d.key
            )));
        }
        Ok(())
    }
}

fn network(name: String, value: Value, keys: &Keys) -> Result<NetworkSpec> {
    let place = format!("networks.{name}");
    let Value::Table(mut table) = value else {
        return Err(Error::input(format!(
            "`{place}` must be a table of keys, such as {{ role = \"generator\" }}"
        )));
    };
    let settings = table.remove("settings");
    let mut own = Table::new();
    for key in NETWORK_KEYS {
        if let Some(value) = table.remove(key) {
            own.insert(key.into(), value);
        }
    }
    let written: WrittenNetwork = typed(Value::Table(own), &place, keys)?;
    let (key, settings) = match settings {
        Some(Value::Table(settings)) => {
            if let Some(key) = table.keys().next() {
                let known = NETWORK_KEYS.map(|k| format!("`{k}`")).join(", ");
                let message = format!("unknown field `{key}`, expected one of {known}");
                return Err(Error::input(explain(&place, &message)));
            }
            (keys.name(&format!("{place}.settings")), settings)
        }
        Some(other) => {
            let key = keys.name(&format!("{place}.settings"));
            let message = format!("invalid type: {}, expected a table of keys", other.type_str());
            return Err(Error::input(explain(&key, &message)));
        }
        None => (place.clone(), table),
    };
    let network = AnyNetwork::read(written.role.name(), settings).map_err(|e| {
        let at = if e.starts_with("unknown variant") { format!("{key}.kind") } else { key.clone() };
        Error::input(explain(&at, &e))
    })?;
    let (takes, gives) = match written.role {
        Role::Discriminator => (vec![Source::Target], Source::Target),
        _ => (vec![Source::Input], Source::Target),
    };
    let takes = written.takes.unwrap_or(takes);
    if takes.is_empty() {
        return Err(Error::input(format!(
            "`{place}.takes` lists nothing; name \"input\", \"target\" or \"noise\""
        )));
    }
    Ok(NetworkSpec {
        role: written.role,
        network,
        key,
        takes,
        gives: written.gives.unwrap_or(gives),
        residual: written.residual,
        residual_key: keys.name(&format!("{place}.residual")),
        name,
    })
}

fn update(
    value: Value,
    place: &str,
    networks: &[NetworkSpec],
    expr: &dyn Fn(&str, &str) -> Result<Expr>,
    keys: &Keys,
) -> Result<UpdateSpec> {
    let w: WrittenUpdate = typed(value, place, keys)?;
    let find = |name: &str, place: &str| {
        networks.iter().position(|n| n.name == *name).ok_or_else(|| {
            let known: Vec<&str> = networks.iter().map(|n| n.name.as_str()).collect();
            let key = keys.name(place);
            Error::input(format!("`{key}`: there is no network {name}; name one of {}", known.join(", ")))
        })
    };
    let own: Vec<usize> =
        w.network.list().iter().map(|n| find(n, &format!("{place}.network"))).collect::<Result<_>>()?;
    if own.is_empty() || w.terms.is_empty() {
        return Err(Error::input(format!("`{place}` needs a network and at least one of `terms`")));
    }
    let forward = w.forward.iter().map(|e| expr(e, &format!("{place}.forward"))).collect::<Result<_>>()?;
    let terms = w
        .terms
        .into_iter()
        .enumerate()
        .map(|(i, t)| term(t, &format!("{place}.terms[{i}]"), &own, networks, expr, &find, keys))
        .collect::<Result<_>>()?;
    let apart = w.times.is_some() || w.every.is_some() || w.from.is_some() || w.until.is_some();
    let warm = w.warm.map(|w| (w.first, w.every, w.times));
    let times = Times {
        times: w.times.unwrap_or(1),
        every: w.every.unwrap_or(1),
        from: w.from.unwrap_or(0),
        until: w.until,
        warm: warm.map(|(first, every, times)| super::times::Warm { first, every, times }),
    };
    for (key, number) in
        [("times", times.times), ("every", times.every), ("warm.times", warm.map_or(1, |w| w.2))]
    {
        if number == 0 {
            let key = keys.name(&format!("{place}.{key}"));
            return Err(Error::input(format!("`{key}` must be at least 1")));
        }
    }
    Ok(UpdateSpec { networks: own, forward, terms, times, apart, clip_weights: w.clip_weights })
}

/// Most images in a pool.
const LARGEST_POOL: usize = 4096;

fn term(
    w: WrittenTerm,
    place: &str,
    own: &[usize],
    networks: &[NetworkSpec],
    expr: &dyn Fn(&str, &str) -> Result<Expr>,
    find: &dyn Fn(&str, &str) -> Result<usize>,
    keys: &Keys,
) -> Result<Term> {
    let given = |text: &Option<String>, name: &str| -> Result<Expr> {
        match text {
            Some(text) => expr(text, &format!("{place}.{name}")),
            None => Err(Error::input(format!(
                "the key `{}` is missing; add it",
                keys.name(&format!("{place}.{name}"))
            ))),
        }
    };
    // The key that names the term, with its factor where it is one.
    let factors = [
        ("gradient_penalty", &w.gradient_penalty),
        ("r1", &w.r1),
        ("r2", &w.r2),
        ("l1", &w.l1),
        ("l2", &w.l2),
        ("charbonnier", &w.charbonnier),
        ("huber", &w.huber),
        ("ssim", &w.ssim),
        ("gradient_difference", &w.gradient_difference),
        ("bce", &w.bce),
        ("cross_entropy", &w.cross_entropy),
        ("dice", &w.dice),
        ("focal", &w.focal),
        ("feature_matching", &w.feature_matching),
        ("total_variation", &w.total_variation),
    ];
    let mut kinds: Vec<(&str, Option<&Weight>)> =
        factors.into_iter().filter(|(_, f)| f.is_some()).map(|(n, f)| (n, f.as_ref())).collect();
    kinds.extend(w.adversarial.map(|_| ("adversarial", None)));
    kinds.extend(w.distance.map(|_| ("distance", None)));
    if kinds.len() != 1 {
        let named: Vec<&str> = kinds.iter().map(|k| k.0).collect();
        let what = if named.is_empty() { "none".to_string() } else { named.join(" and ") };
        return Err(Error::input(format!(
            "`{}` must name one loss, such as l1 = 100.0 or adversarial = \"lsgan\", and names {what}",
            keys.name(place)
        )));
    }
    let (name, factor) = kinds.remove(0);
    let compare = |by: Comparison| -> Result<TermKind> {
        Ok(TermKind::Compare { by, of: given(&w.of, "of")?, to: given(&w.to, "to")? })
    };
    let distance = |d: Distance| compare(Comparison::Image(d));
    let kind = match name {
        "adversarial" => adversarial(&w, place, own, networks, expr, find, keys)?,
        "gradient_penalty" => {
            TermKind::GradientPenalty { real: given(&w.real, "real")?, fake: given(&w.fake, "fake")? }
        }
        "r1" => TermKind::Gradient { at: given(&w.real, "real")?, real: true },
        "r2" => TermKind::Gradient { at: given(&w.fake, "fake")?, real: false },
        "l1" => distance(Distance::L1)?,
        "l2" => distance(Distance::L2)?,
        "charbonnier" => distance(Distance::Charbonnier)?,
        "huber" => distance(Distance::Huber)?,
        "ssim" => distance(Distance::Ssim)?,
        "gradient_difference" => distance(Distance::GradientDifference)?,
        "distance" => distance(w.distance.unwrap_or_default())?,
        "bce" => compare(Comparison::Bce)?,
        "cross_entropy" => compare(Comparison::CrossEntropy)?,
        "focal" => compare(Comparison::Focal { gamma: w.gamma.unwrap_or(2.0) })?,
        "total_variation" => TermKind::TotalVariation { of: given(&w.of, "of")? },
        "feature_matching" => {
            let by = find(w.by.as_deref().unwrap_or_default(), &format!("{place}.by"))?;
            if networks[by].role != Role::Discriminator || own.contains(&by) {
                return Err(Error::input(format!(
                    "`{}` must name a discriminator that another update trains; {} is none",
                    keys.name(&format!("{place}.by")),
                    networks[by].name
                )));
            }
            TermKind::FeatureMatching { by, real: given(&w.real, "real")?, fake: given(&w.fake, "fake")? }
        }
        _ => {
            let background = w.background.unwrap_or(false);
            compare(Comparison::Dice { smooth: w.smooth.unwrap_or(1.0), background })?
        }
    };
    let both = [(format!("{place}.{name}"), factor), (format!("{place}.weight"), w.weight.as_ref())];
    let mut weight = 1.0;
    let mut key = keys.name(&both[0].0);
    for (place, factors) in both {
        let list = factors.map_or(&[][..], OneOrMore::slice);
        for (i, factor) in list.iter().enumerate() {
            let at = if list.len() > 1 { format!("{place}[{i}]") } else { place.clone() };
            let named = keys.name(&at);
            if !(*factor >= 0.0 && factor.is_finite()) {
                return Err(Error::input(format!(
                    "`{named}` is {factor}, but must not be negative or infinite"
                )));
            }
            // Where several factors make a weight, the last one is what the term has of its own.
            key = named;
            weight *= factor;
        }
    }
    let log = w.log.map(OneOrMore::list).unwrap_or_else(|| vec![format!("{}_{name}", networks[own[0]].name)]);
    Ok(Term { kind, weight, log, key })
}

fn adversarial(
    w: &WrittenTerm,
    place: &str,
    own: &[usize],
    networks: &[NetworkSpec],
    expr: &dyn Fn(&str, &str) -> Result<Expr>,
    find: &dyn Fn(&str, &str) -> Result<usize>,
    keys: &Keys,
) -> Result<TermKind> {
    let form = w.adversarial.unwrap_or_default();
    let by = match &w.by {
        Some(name) => find(name, &format!("{place}.by"))?,
        None => own[0],
    };
    if networks[by].role != Role::Discriminator {
        return Err(Error::input(format!(
            "`{}` must name the discriminator that judges; {} is none",
            keys.name(&format!("{place}.by")),
            networks[by].name
        )));
    }
    let discriminates = own.contains(&by);
    let value = |text: &Option<String>, name: &str| {
        text.as_ref().map(|t| expr(t, &format!("{place}.{name}"))).transpose()
    };
    let (real, fake) = (value(&w.real, "real")?, value(&w.fake, "fake")?);
    let missing = |name: &str| {
        Error::input(format!("the key `{}` is missing; add it", keys.name(&format!("{place}.{name}"))))
    };
    if real.is_none() && (discriminates || form.is_relativistic()) {
        return Err(missing("real"));
    }
    let pool = w.pool.as_ref().filter(|p| p.size > 0 && discriminates).map(|p| Pool {
        size: p.size,
        state: p.state.clone().unwrap_or_else(|| format!("pool.{}", networks[by].name)),
    });
    if w.pool.as_ref().is_some_and(|p| p.size > LARGEST_POOL) {
        let key = keys.name(&format!("{place}.pool.size"));
        return Err(Error::input(format!(
            "`{key}` must be at most {LARGEST_POOL}; 50 is usual where there is one, 0 is none"
        )));
    }
    let real_first = !matches!(w.first, Some(First::Fake));
    Ok(TermKind::Adversarial { form, by, real, fake: fake.ok_or_else(|| missing("fake"))?, pool, real_first })
}
