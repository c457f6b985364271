//! Reading a method: the tables of a recipe, or of a preset with its settings put in, become a [`Spec`].

use super::keys::Keys;
use super::spec::{Comparison, NetworkSpec, Pool, Role, Spec, Target, Term, TermKind, UpdateSpec};
use super::text::explain;
use super::times::{Times, Warm};
use super::value::{Expr, Source};
use crate::error::{Error, Result};
use crate::models::AnyNetwork;
use crate::objectives::GanMode;
use crate::objectives::pixel::Distance;
use serde::Deserialize;
use toml::{Table, Value};

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
    label_smoothing: Option<f64>,
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
        warm: warm.map(|(first, every, times)| Warm { first, every, times }),
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

fn missing(place: &str, name: &str, keys: &Keys) -> Error {
    Error::input(format!("the key `{}` is missing; add it", keys.name(&format!("{place}.{name}"))))
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
            None => Err(missing(place, name, keys)),
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
        "cross_entropy" => {
            let smoothing = w.label_smoothing.unwrap_or(0.0);
            if !(0.0..1.0).contains(&smoothing) {
                let key = keys.name(&format!("{place}.label_smoothing"));
                return Err(Error::input(format!("`{key}` must lie in [0, 1); 0.1 is usual")));
            }
            compare(Comparison::CrossEntropy { smoothing })?
        }
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
            // A number of the preset's own has no name that its user knows. Where several factors make a weight, the last one is
            // what the term has of its own.
            if named != at {
                key = named;
            }
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
    if real.is_none() && (discriminates || form.is_relativistic()) {
        return Err(missing(place, "real", keys));
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
    Ok(TermKind::Adversarial {
        form,
        by,
        real,
        fake: fake.ok_or_else(|| missing(place, "fake", keys))?,
        pool,
        real_first,
    })
}
