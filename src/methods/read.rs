//! Reading a method: the tables of a recipe, or of a preset with its settings put in, become a [`Spec`].

use super::keys::Keys;
use super::read_term::{OneOrMore, WrittenTerm, term};
use super::spec::{NetworkSpec, Role, Spec, Target, UpdateSpec};
use super::text::explain;
use super::times::{Times, Warm};
use super::value::{Expr, Source};
use crate::error::{Error, Result};
use crate::models::{AnyNetwork, Network, Signature};
use serde::Deserialize;
use std::path::PathBuf;
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
    outputs: Option<usize>,
    weights: Option<PathBuf>,
}

/// The keys of a network's table that are not its own settings.
const NETWORK_KEYS: [&str; 7] = ["role", "takes", "gives", "residual", "outputs", "weights", "settings"];

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
    lr: Option<f64>,
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
    let frozen = written.role == Role::Frozen;
    let (takes, gives) = match written.role {
        Role::Discriminator => (vec![Source::Target], Source::Target),
        Role::Frozen if network.signature() == Signature::Noise => (vec![Source::Noise], Source::Target),
        Role::Frozen => (Vec::new(), Source::Target),
        _ => (vec![Source::Input], Source::Target),
    };
    let any = frozen && written.takes.is_none();
    let takes = written.takes.unwrap_or(takes);
    if written.weights.is_some() && !frozen {
        return Err(Error::input(format!(
            "`{place}.weights` is for frozen networks; let {name} start from a file with `train.init.{name}`"
        )));
    }
    if written.outputs == Some(0) || (written.outputs.is_some() && written.role == Role::Discriminator) {
        return Err(Error::input(format!(
            "`{place}.outputs` must be at least 1, and a discriminator has none; leave it out for those of `gives`"
        )));
    }
    if takes.is_empty() && !any {
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
        outputs: written.outputs,
        weights: written.weights,
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
    if times.until.is_some_and(|until| until <= times.from) {
        let key = keys.name(&format!("{place}.until"));
        return Err(Error::input(format!("`{key}` must lie beyond `from`, which is {}", times.from)));
    }
    let lr = w.lr.unwrap_or(1.0);
    if !(lr > 0.0 && lr.is_finite()) {
        let key = keys.name(&format!("{place}.lr"));
        return Err(Error::input(format!(
            "`{key}` must be a positive factor of the learning rate, such as 0.1"
        )));
    }
    Ok(UpdateSpec { networks: own, forward, terms, times, apart, clip_weights: w.clip_weights, lr })
}
