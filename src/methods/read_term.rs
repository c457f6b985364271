//! Reading the terms of an update: a table with one key that names the loss becomes a [`Term`].

use super::keys::Keys;
use super::spec::{Comparison, FeatureMeasure, NetworkSpec, Pool, Ramp, Role, Term, TermKind};
use super::value::Expr;
use crate::error::{Error, Result};
use crate::objectives::GanMode;
use crate::objectives::pixel::Distance;
use serde::Deserialize;

/// One, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    pub fn slice(&self) -> &[T] {
        match self {
            OneOrMore::One(x) => std::slice::from_ref(x),
            OneOrMore::More(all) => all,
        }
    }

    pub fn list(self) -> Vec<T> {
        match self {
            OneOrMore::One(x) => vec![x],
            OneOrMore::More(all) => all,
        }
    }
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

/// Another factor of a term, which may change from step to step.
#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid type, expected a number or { from = 0.0, to = 1.0, steps = 1000 }")]
enum WrittenWeight {
    Number(Weight),
    Ramp(Ramp),
}

/// Networks' inner values that are compared: `perceptual`, and `style` with Gram matrices in the place of a distance.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFeatures {
    by: String,
    layers: Option<Vec<String>>,
    weight: Option<Weight>,
    distance: Option<WrittenMeasure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenMeasure {
    L1,
    L2,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTerm {
    adversarial: Option<GanMode>,
    gradient_penalty: Option<Weight>,
    r1: Option<Weight>,
    r2: Option<Weight>,
    l1: Option<Weight>,
    l2: Option<Weight>,
    charbonnier: Option<Weight>,
    huber: Option<Weight>,
    ssim: Option<Weight>,
    ms_ssim: Option<Weight>,
    gradient_difference: Option<Weight>,
    distance: Option<Distance>,
    bce: Option<Weight>,
    cross_entropy: Option<Weight>,
    dice: Option<Weight>,
    focal: Option<Weight>,
    feature_matching: Option<Weight>,
    perceptual: Option<WrittenFeatures>,
    style: Option<WrittenFeatures>,
    total_variation: Option<Weight>,
    kl: Option<Weight>,
    kl_gaussian: Option<Weight>,
    dragan: Option<Weight>,
    lecam: Option<Weight>,
    path_length: Option<Weight>,
    weight: Option<WrittenWeight>,
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
    temperature: Option<f64>,
    decay: Option<f64>,
    log: Option<OneOrMore<String>>,
}

fn missing(place: &str, name: &str, keys: &Keys) -> Error {
    Error::input(format!("the key `{}` is missing; add it", keys.name(&format!("{place}.{name}"))))
}

/// Most images in a pool.
const LARGEST_POOL: usize = 4096;

pub(super) fn term(
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
        ("ms_ssim", &w.ms_ssim),
        ("gradient_difference", &w.gradient_difference),
        ("bce", &w.bce),
        ("cross_entropy", &w.cross_entropy),
        ("dice", &w.dice),
        ("focal", &w.focal),
        ("feature_matching", &w.feature_matching),
        ("total_variation", &w.total_variation),
        ("kl", &w.kl),
        ("kl_gaussian", &w.kl_gaussian),
        ("dragan", &w.dragan),
        ("lecam", &w.lecam),
        ("path_length", &w.path_length),
    ];
    let mut kinds: Vec<(&str, Option<&Weight>)> =
        factors.into_iter().filter(|(_, f)| f.is_some()).map(|(n, f)| (n, f.as_ref())).collect();
    kinds.extend(w.adversarial.map(|_| ("adversarial", None)));
    kinds.extend(w.distance.map(|_| ("distance", None)));
    kinds.extend(w.perceptual.as_ref().map(|p| ("perceptual", p.weight.as_ref())));
    kinds.extend(w.style.as_ref().map(|p| ("style", p.weight.as_ref())));
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
    let decay = |usual: f64| match w.decay.unwrap_or(usual) {
        decay if (0.0..1.0).contains(&decay) => Ok(decay),
        _ => Err(Error::input(format!(
            "`{}` must lie in [0, 1); {usual} is usual",
            keys.name(&format!("{place}.decay"))
        ))),
    };
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
        "ms_ssim" => distance(Distance::MsSsim)?,
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
        "kl" => match w.temperature.unwrap_or(1.0) {
            temperature if temperature > 0.0 && temperature.is_finite() => {
                compare(Comparison::Kl { temperature })?
            }
            _ => {
                let key = keys.name(&format!("{place}.temperature"));
                return Err(Error::input(format!(
                    "`{key}` must be a positive number; 1 is usual, 4 for distillation"
                )));
            }
        },
        "kl_gaussian" => TermKind::Gaussian { of: given(&w.of, "of")? },
        "dragan" => TermKind::Dragan { real: given(&w.real, "real")? },
        "lecam" => {
            let (real, fake) = (given(&w.real, "real")?, given(&w.fake, "fake")?);
            TermKind::LeCam { real, fake, decay: decay(0.99)? }
        }
        "path_length" => TermKind::PathLength { of: given(&w.of, "of")?, decay: decay(0.01)? },
        "perceptual" | "style" => {
            let at = format!("{place}.{name}");
            let f = w.perceptual.as_ref().or(w.style.as_ref()).expect("it names the term");
            let by = find(&f.by, &format!("{at}.by"))?;
            let scores = networks[by].role == Role::Discriminator && !own.contains(&by);
            if !scores && networks[by].role != Role::Frozen {
                return Err(Error::input(format!(
                    "`{}` must name a frozen network, or a discriminator that another update trains; {} is none",
                    keys.name(&format!("{at}.by")),
                    networks[by].name
                )));
            }
            if f.layers.as_ref().is_some_and(Vec::is_empty) {
                let key = keys.name(&format!("{at}.layers"));
                return Err(Error::input(format!("`{key}` names no layer; leave it out for all")));
            }
            let measure = match (name, &f.distance) {
                ("style", Some(_)) => {
                    let key = keys.name(&format!("{at}.distance"));
                    return Err(Error::input(format!(
                        "`{key}` is no choice of `style`, which takes the squared difference of Gram matrices; remove it"
                    )));
                }
                ("style", None) => FeatureMeasure::Gram,
                (_, Some(WrittenMeasure::L2)) => FeatureMeasure::L2,
                _ => FeatureMeasure::L1,
            };
            let layers = f.layers.clone().unwrap_or_default();
            TermKind::Features { by, of: given(&w.of, "of")?, to: given(&w.to, "to")?, layers, measure }
        }
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
    let (second, ramp) = match &w.weight {
        Some(WrittenWeight::Number(second)) => (Some(second), None),
        Some(WrittenWeight::Ramp(ramp)) => (None, Some(*ramp)),
        None => (None, None),
    };
    if let Some(Ramp { from, to, steps }) = ramp {
        let fine = |v: f64| v >= 0.0 && v.is_finite();
        if !fine(from) || !fine(to) || from + to == 0.0 || steps == 0 {
            return Err(Error::input(format!(
                "`{}` must go from one number that is not negative to another, one of them above 0, in at least one step",
                keys.name(&format!("{place}.weight"))
            )));
        }
    }
    let own_factor = if matches!(name, "perceptual" | "style") { ".weight" } else { "" };
    let both = [(format!("{place}.{name}{own_factor}"), factor), (format!("{place}.weight"), second)];
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
    Ok(Term { kind, weight, ramp, log, key })
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
            "`{}` must name a discriminator; {} is none",
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
