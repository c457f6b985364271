//! The documents say what the program does: `docs/recipes.md` lists every key that a recipe may have, no other, and the
//! defaults that the program has; code that a document quotes stands in the source; links lead somewhere.

use gan::train::recipe::Recipe;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

const MINIMAL: &str = r#"
    name = "x"
    [data]
    phantom = {}
    [model]
    kind = "pix2pix"
    generator = { kind = "unet" }
    discriminator = { kind = "patch" }
"#;

/// The keys that a table may have, from the message that an unknown one gives. `set` makes the table be of the right kind.
fn known(table: &str, set: &[&str]) -> BTreeSet<String> {
    let path = |key: &str| if table.is_empty() { key.to_string() } else { format!("{table}.{key}") };
    let mut set: Vec<String> = set.iter().map(ToString::to_string).collect();
    set.push(format!("{}=1", path("no_such_key")));
    let message = Recipe::parse(MINIMAL, "r", &set).expect_err("an unknown key").to_string();
    assert!(message.contains("unknown key"), "{table}: {message}");
    let list = match message.split_once("(known here: ") {
        Some((_, list)) => list.trim_end_matches(')').split(", ").collect(),
        None => vec![message.split('`').nth(3).expect("the nearest key")],
    };
    list.into_iter().map(path).collect()
}

/// The rows of the document: heading, key, default.
fn rows() -> Vec<(String, String, String)> {
    let mut heading = String::new();
    let mut rows = Vec::new();
    for line in include_str!("../docs/recipes.md").lines() {
        if line.starts_with('#') {
            heading = line.to_string();
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, key, _, default, ..] = cells[..]
            && key.starts_with('`')
            && cells.len() >= 6
        {
            rows.push((heading.clone(), key.trim_matches('`').to_string(), default.to_string()));
        }
    }
    rows
}

fn flatten(prefix: &str, table: &Table, out: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let Value::Table(inner) = value {
            flatten(&path, inner, out);
        }
        out.insert(path, value.clone());
    }
}

#[test]
fn every_key_is_documented_and_no_other() {
    let mut keys = BTreeSet::new();
    for table in ["", "data", "data.augment", "data.phantom", "loss", "optimiser", "train", "validate", "log"]
    {
        keys.extend(known(table, &[]));
    }
    keys.extend(known("data.normalise_input", &["data.normalise_input.method=minmax"]));
    keys.extend(known("model", &[]));
    keys.extend(known("model.generator", &[]));
    let kinds = [
        ("model.discriminator", "patch", ""),
        ("model.discriminator", "pixel", ""),
        ("optimiser.rule", "adam", ""),
        ("optimiser.rule", "adamw", ""),
        ("optimiser.rule", "rmsprop", ""),
        ("optimiser.rule", "sgd", ""),
        ("optimiser.rule", "adagrad", ""),
        ("optimiser.schedule", "step", "optimiser.schedule.every=1"),
        ("optimiser.schedule", "poly", "optimiser.schedule.power=1.0"),
        ("optimiser.schedule", "plateau", "optimiser.schedule.patience=1"),
    ];
    let rows = rows();
    for (table, kind, also) in kinds {
        let kind_set = format!("{table}.kind={kind}");
        let set: Vec<&str> = [kind_set.as_str(), also].into_iter().filter(|s| !s.is_empty()).collect();
        let own = known(table, &set);
        for key in &own {
            let there = rows.iter().any(|(h, k, _)| {
                k == key && (table == "optimiser.schedule" || h.contains(&format!("`{kind}`")))
            });
            assert!(there, "docs/recipes.md does not list `{key}` of the kind {kind}");
        }
        keys.extend(own);
    }
    let tagged = ["model", "model.generator", "model.discriminator", "optimiser.rule", "optimiser.schedule"];
    keys.extend(tagged.map(|t| format!("{t}.kind")));
    let documented: BTreeSet<String> =
        rows.iter().map(|(_, k, _)| k.clone()).filter(|k| k.contains('.') || keys.contains(k)).collect();
    let missing: Vec<_> = keys.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&keys).collect();
    assert!(missing.is_empty(), "docs/recipes.md lacks {missing:?}");
    assert!(stale.is_empty(), "docs/recipes.md lists what no recipe may have: {stale:?}");
}

#[test]
fn documented_defaults_are_the_program_s() {
    let resolved = Recipe::parse(MINIMAL, "r", &[]).expect("valid").to_toml();
    let mut actual = BTreeMap::new();
    flatten("", &resolved.parse().expect("TOML"), &mut actual);
    let mut checked = 0;
    for (heading, key, default) in rows() {
        let Some(text) = default.strip_prefix('`').and_then(|d| d.strip_suffix('`')) else { continue };
        if heading.contains("kind `pixel`") {
            continue;
        }
        let documented: Table = format!("v = {text}").parse().unwrap_or_else(|e| panic!("{key}: {e}"));
        let own = actual.get(&key).unwrap_or_else(|| panic!("{key} has no default"));
        let same = match (&documented["v"], own) {
            // A documented table may leave out what has a default of its own.
            (Value::Table(d), Value::Table(o)) => d.iter().all(|(k, v)| o.get(k) == Some(v)),
            (d, o) => d == o,
        };
        assert!(same, "docs/recipes.md says `{key} = {text}`, the program {own}");
        checked += 1;
    }
    assert!(checked > 50, "only {checked} defaults were found in the document");
}

/// All documents of the repository, with their text.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in [root.to_path_buf(), root.join("docs"), root.join("docs/measurements")] {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "md") {
                let text = std::fs::read_to_string(&path).expect("a document");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 8, "only {} documents", found.len());
    found
}

#[test]
fn links_lead_to_files() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            let elsewhere = target.is_empty() || target.contains("://");
            if !elsewhere && !path.parent().expect("a folder").join(target).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn the_walk_through_an_operation_quotes_its_file() {
    let source = include_str!("../src/ops/broadcast.rs");
    let document = include_str!("../docs/adding-an-operation.md");
    let mut blocks = 0;
    for block in document.split("```rust\n").skip(1) {
        let code = block.split("```").next().expect("a block ends");
        assert!(source.contains(code), "src/ops/broadcast.rs does not hold this any more:\n{code}");
        blocks += 1;
    }
    assert!(blocks > 5, "only {blocks} blocks");
}
