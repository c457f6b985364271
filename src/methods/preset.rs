//! Presets: the published methods in the language of [`super::spec`], with settings in place of numbers. A recipe names one
//! by `model.kind` (and `loss.kind`, where a kind has several) and gives settings in `[model]` and `[loss]`.

use super::keys::Keys;
use super::spec::Spec;
use super::text::explain;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use toml::{Table, Value};

/// A preset: the model's kind, the loss's kind where there are several, and its text.
struct Preset {
    model: &'static str,
    loss: Option<&'static str>,
    text: &'static str,
}

const PRESETS: &[Preset] = &[
    Preset { model: "pix2pix", loss: None, text: include_str!("presets/pix2pix.toml") },
    Preset { model: "cyclegan", loss: None, text: include_str!("presets/cyclegan.toml") },
    Preset { model: "gan", loss: None, text: include_str!("presets/gan.toml") },
    Preset { model: "wgan", loss: None, text: include_str!("presets/wgan.toml") },
    Preset { model: "paired-wgan", loss: None, text: include_str!("presets/paired-wgan.toml") },
    Preset {
        model: "supervised",
        loss: Some("regions"),
        text: include_str!("presets/supervised-regions.toml"),
    },
    Preset {
        model: "supervised",
        loss: Some("classes"),
        text: include_str!("presets/supervised-classes.toml"),
    },
    Preset {
        model: "supervised",
        loss: Some("distance"),
        text: include_str!("presets/supervised-distance.toml"),
    },
    Preset {
        model: "supervised",
        loss: Some("image-class"),
        text: include_str!("presets/supervised-image-class.toml"),
    },
    Preset {
        model: "supervised",
        loss: Some("findings"),
        text: include_str!("presets/supervised-findings.toml"),
    },
    Preset {
        model: "supervised",
        loss: Some("numbers"),
        text: include_str!("presets/supervised-numbers.toml"),
    },
];

/// A method out of a preset.
pub struct Expanded {
    /// The settings in full, as `[model]` and `[loss]`.
    pub settings: [Table; 2],
    /// The method that they mean: `[method]`, `[networks]` and the updates.
    pub tables: (Table, Table, Vec<Value>),
    /// The method.
    pub spec: Spec,
}

/// Names of all presets.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = PRESETS.iter().map(|p| p.model).collect();
    names.dedup();
    names
}

/// Where settings of the two tables stand.
const TABLES: [&str; 2] = ["model", "loss"];

/// The method that `[model]` and `[loss]` of a recipe mean.
pub fn expand(model: &Table, loss: &Table) -> Result<Expanded> {
    let preset = find(model, loss)?;
    let mut text: Table = preset.text.parse().expect("presets are valid: a test reads them all");
    let given = [model, loss];
    let mut settings = [Table::new(), Table::new()];
    let mut references = BTreeSet::new();
    references_in(&Value::Table(text.clone()), &mut references);
    for (i, name) in TABLES.into_iter().enumerate() {
        let Some(Value::Table(defaults)) = text.remove(name).or(Some(Value::Table(Table::new()))) else {
            continue;
        };
        settings[i] = fill(name, given[i], defaults, &references)?;
    }
    let mut keys = Keys::default();
    let part = |text: &mut Table, name: &str| text.remove(name).unwrap_or(Value::Table(Table::new()));
    let (mut method, mut networks) = (part(&mut text, "method"), part(&mut text, "networks"));
    let mut train = part(&mut text, "train");
    for (value, place) in [(&mut method, "method"), (&mut networks, "networks"), (&mut train, "train")] {
        put_in(value, place, &settings, &mut keys);
    }
    for (name, net) in networks.as_table().into_iter().flatten() {
        // What a recipe must say itself.
        if let Some(Value::String(reference)) = net.get("settings") {
            return Err(Error::input(format!(
                "the key `{}` is missing; add it, for example as {{ kind = \"unet\" }} ({name} of `model.kind` = \"{}\")",
                reference.trim_start_matches('$'),
                preset.model
            )));
        }
    }
    let table = |v: Value| if let Value::Table(t) = v { t } else { Table::new() };
    let updates = match table(train).remove("update") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let tables = (table(method), table(networks), updates);
    let (method, networks, updates) = tables.clone();
    let spec = Spec::read(method, networks, updates, &keys)?;
    // Networks with all their settings: what is not written has a default.
    for net in &spec.networks {
        if let Some((table, key)) = net.key.split_once('.')
            && let Some(i) = TABLES.iter().position(|t| *t == table)
        {
            settings[i].insert(key.to_string(), Value::try_from(&net.network).expect("plain data"));
        }
    }
    Ok(Expanded { settings, tables, spec })
}

fn find(model: &Table, loss: &Table) -> Result<&'static Preset> {
    let kind = |table: &Table, key: &str, known: Vec<&'static str>| -> Result<String> {
        match table.get("kind") {
            None => Err(Error::input(format!("the key `{key}` is missing; add it"))),
            Some(Value::String(kind)) if known.contains(&kind.as_str()) => Ok(kind.clone()),
            Some(other) => {
                let known: Vec<String> = known.iter().map(|k| format!("`{k}`")).collect();
                let wrong = other.as_str().map_or_else(|| other.to_string(), str::to_string);
                let message = format!("unknown variant `{wrong}`, expected one of {}", known.join(", "));
                Err(Error::input(explain(key, &message)))
            }
        }
    };
    let name = kind(model, "model.kind", names())?;
    let of: Vec<&Preset> = PRESETS.iter().filter(|p| p.model == name).collect();
    if let [one] = of[..]
        && one.loss.is_none()
    {
        return Ok(one);
    }
    let wanted = kind(loss, "loss.kind", of.iter().filter_map(|p| p.loss).collect())?;
    Ok(of.into_iter().find(|p| p.loss == Some(wanted.as_str())).expect("it is known"))
}

/// All references `$table.key` in a preset.
fn references_in(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::String(s) => into.extend(s.strip_prefix('$').map(str::to_string)),
        Value::Array(list) => list.iter().for_each(|v| references_in(v, into)),
        Value::Table(table) => table.values().for_each(|v| references_in(v, into)),
        _ => {}
    }
}

/// A table of settings: what is given, and defaults for the rest. Only what the preset knows may be given.
fn fill(name: &str, given: &Table, defaults: Table, references: &BTreeSet<String>) -> Result<Table> {
    let mut known: Vec<String> = defaults.keys().filter(|k| *k != "kind").cloned().collect();
    let prefix = format!("{name}.");
    let referred = references.iter().filter_map(|r| r.strip_prefix(&prefix));
    for key in referred.map(|r| r.split('.').next().unwrap_or(r)) {
        if !known.iter().any(|k| k == key) {
            known.push(key.to_string());
        }
    }
    let unknown = |key: &str, known: &[String], at: &str| {
        let known: Vec<String> = known.iter().map(|k| format!("`{k}`")).collect();
        let message = format!("unknown field `{key}`, expected one of {}", known.join(", "));
        Err(Error::input(explain(at, &message)))
    };
    let mut all = Table::new();
    if let Some(kind) = given.get("kind") {
        all.insert("kind".into(), kind.clone());
    }
    for (key, default) in defaults {
        let value = match given.get(&key) {
            None => default,
            Some(value) => {
                if let (Value::Table(_), Value::Table(own)) = (&default, value) {
                    let within = format!("{prefix}{key}.");
                    let parts: Vec<String> =
                        references.iter().filter_map(|r| r.strip_prefix(&within)).map(String::from).collect();
                    if let Some(wrong) = own.keys().find(|k| !parts.contains(k)) {
                        return unknown(wrong, &parts, &format!("{prefix}{key}"));
                    }
                }
                alike(&format!("{prefix}{key}"), &default, value)?
            }
        };
        all.insert(key, value);
    }
    for (key, value) in given {
        if key != "kind" && !known.contains(key) {
            return unknown(key, &known, name);
        }
        if !all.contains_key(key) {
            all.insert(key.clone(), value.clone());
        }
    }
    Ok(all)
}

/// A value of the same type as its default; whole numbers stand for others.
fn alike(key: &str, default: &Value, value: &Value) -> Result<Value> {
    if let (Value::Float(_), Value::Integer(n)) = (default, value) {
        return Ok(Value::Float(*n as f64));
    }
    if default.same_type(value) {
        return Ok(value.clone());
    }
    let expected = match default {
        Value::Float(_) => "f64",
        Value::Integer(_) => "usize",
        Value::Boolean(_) => "a boolean",
        Value::Table(_) => "a map",
        _ => "a string",
    };
    let message = format!("invalid type: {}, expected {expected}", value.type_str());
    Err(Error::input(explain(key, &message)))
}

/// The value of a setting; `None` where it has none.
fn lookup(reference: &str, settings: &[Table; 2]) -> Option<Value> {
    let mut parts = reference.split('.');
    let table = parts.next().and_then(|name| TABLES.iter().position(|t| *t == name))?;
    let mut at = settings[table].get(parts.next()?)?;
    for part in parts {
        at = at.get(part)?;
    }
    Some(at.clone())
}

/// Puts settings in the place of their references. A key whose setting has no value is left out; a table with such a key
/// `given` is left out altogether. Notes where each setting went.
fn put_in(value: &mut Value, place: &str, settings: &[Table; 2], keys: &mut Keys) {
    match value {
        Value::String(text) => {
            if let Some(reference) = text.strip_prefix('$')
                && let Some(found) = lookup(reference, settings)
            {
                keys.0.insert(place.to_string(), reference.to_string());
                *value = found;
            }
        }
        Value::Array(list) => {
            list.retain(|v| !is_absent(v, settings));
            for (i, v) in list.iter_mut().enumerate() {
                put_in(v, &format!("{place}[{i}]"), settings, keys);
            }
        }
        Value::Table(table) => {
            // A network's settings must be there; who calls says so.
            table.retain(|k, v| k == "settings" || !is_absent(v, settings));
            table.remove("given");
            for (k, v) in table.iter_mut() {
                put_in(v, &format!("{place}.{k}"), settings, keys);
            }
        }
        _ => {}
    }
}

/// Whether a value is a reference without a value, or a table that is given only with one.
fn is_absent(value: &Value, settings: &[Table; 2]) -> bool {
    let absent = |v: &Value| {
        let reference = v.as_str().and_then(|s| s.strip_prefix('$'));
        reference.is_some_and(|r| lookup(r, settings).is_none())
    };
    match value {
        Value::Table(table) => table.get("given").is_some_and(absent),
        other => absent(other),
    }
}
