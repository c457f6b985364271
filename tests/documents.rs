//! The documents say what the program does: `docs/recipes.md` lists every key that a recipe may have, no other, and the
//! defaults that the program has; code that a document quotes stands in the source; links lead somewhere.

use gan::recipe::Recipe;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A recipe that has nothing but what is required, of each family.
fn minimal(family: &str) -> String {
    let (target, more) = match family {
        "pix2pix" | "cyclegan" => {
            ("", "generator = { kind = \"unet\" }\ndiscriminator = { kind = \"patch\" }")
        }
        "gan" | "wgan" => (
            "target = []",
            "generator = { kind = \"dcgan\" }\ndiscriminator = { kind = \"dcgan\", norm = \"batch\" }",
        ),
        "paired-wgan" => {
            ("", "network = { kind = \"unet\" }\ndiscriminator = { kind = \"patch\", norm = \"none\" }")
        }
        "image-class" | "findings" | "numbers" => ("", "network = { kind = \"vgg\" }"),
        _ => ("", "network = { kind = \"unet\" }"),
    };
    let (labels, loss, kind) = match family {
        "regions" => (REGIONS, "[loss]\nkind = \"regions\"", "supervised"),
        "classes" => ("labels = { values = [0, 1] }", "[loss]\nkind = \"classes\"", "supervised"),
        "distance" => ("", "[loss]\nkind = \"distance\"", "supervised"),
        "image-class" => ("classes = [\"a\", \"b\"]", "[loss]\nkind = \"image-class\"", "supervised"),
        "findings" => ("findings = [\"a\"]", "[loss]\nkind = \"findings\"", "supervised"),
        "numbers" => ("numbers = true", "[loss]\nkind = \"numbers\"", "supervised"),
        other => ("", "", other),
    };
    format!(
        "name = \"x\"\n[data]\nphantom = {{}}\n{target}\n{labels}\n[model]\nkind = \"{kind}\"\n{more}\n{loss}"
    )
}

const REGIONS: &str = "labels = { values = [0, 1], regions = [{ name = \"R\", labels = [1] }] }";

/// The tables of the document that belong to a kind: heading (its beginning), table, family, and what makes the table
/// be of that kind.
const KINDS: &[(&str, &str, &str, &[&str])] = &[
    ("### `[model]` with kind `pix2pix`", "model", "pix2pix", &[]),
    ("### `[model]` with kind `pix2pix`", "model", "cyclegan", &[]),
    ("### `[model]` with kind `gan`", "model", "gan", &[]),
    ("### `[model]` with kind `gan`", "model", "wgan", &[]),
    ("### `[model]` with kind `paired-wgan`", "model", "paired-wgan", &[]),
    ("### `[model]` with kind `supervised`", "model", "distance", &[]),
    ("### `[model.generator]` with kind `unet`", "model.generator", "pix2pix", &[]),
    (
        "### `[model.generator]` with kind `resnet`",
        "model.generator",
        "pix2pix",
        &["model.generator={kind=\"resnet\"}"],
    ),
    ("### `[model.generator]` with kind `dcgan`", "model.generator", "gan", &[]),
    (
        "### `[model.generator]` with kind `residual`",
        "model.generator",
        "gan",
        &["model.generator={kind=\"residual\"}"],
    ),
    (
        "### `[model.generator]` with kind `mlp`",
        "model.generator",
        "gan",
        &["model.generator={kind=\"mlp\"}"],
    ),
    ("### `[model.discriminator]` with kind `patch`", "model.discriminator", "pix2pix", &[]),
    (
        "### `[model.discriminator]` with kind `pixel`",
        "model.discriminator",
        "pix2pix",
        &["model.discriminator={kind=\"pixel\"}"],
    ),
    (
        "### `[model.discriminator]` with kind `multi-scale`",
        "model.discriminator",
        "pix2pix",
        &["model.discriminator={kind=\"multi-scale\",patch={}}"],
    ),
    (
        "### `[model.discriminator]` with kind `dcgan`",
        "model.discriminator",
        "gan",
        &["model.discriminator={kind=\"dcgan\"}"],
    ),
    (
        "### `[model.discriminator]` with kind `residual`",
        "model.discriminator",
        "gan",
        &["model.discriminator={kind=\"residual\"}"],
    ),
    (
        "### `[model.discriminator]` with kind `mlp`",
        "model.discriminator",
        "gan",
        &["model.discriminator={kind=\"mlp\"}"],
    ),
    ("### `[model.network]` with kind `unet`", "model.network", "distance", &[]),
    (
        "### `[model.network]` with kind `srcnn`",
        "model.network",
        "distance",
        &["model.network={kind=\"srcnn\"}"],
    ),
    (
        "### `[model.network]` with kind `vdsr`",
        "model.network",
        "distance",
        &["model.network={kind=\"vdsr\"}"],
    ),
    (
        "### `[model.network]` with kind `denoiser`",
        "model.network",
        "distance",
        &["model.network={kind=\"denoiser\"}"],
    ),
    ("### `[loss]` of `pix2pix`", "loss", "pix2pix", &[]),
    ("### `[loss]` of `cyclegan`", "loss", "cyclegan", &[]),
    ("### `[loss]` of `gan`", "loss", "gan", &[]),
    ("### `[loss]` of `wgan`", "loss", "wgan", &[]),
    ("### `[loss]` of `paired-wgan`", "loss", "paired-wgan", &[]),
    ("### `[loss]` of `supervised` with kind `regions`", "loss", "regions", &[]),
    ("### `[loss]` of `supervised` with kind `classes`", "loss", "classes", &[]),
    ("### `[loss]` of `supervised` with kind `distance`", "loss", "distance", &[]),
    ("### `[loss]` of `supervised` with kind `image-class`", "loss", "image-class", &[]),
    ("### `[loss]` of `supervised` with kind `findings`", "loss", "findings", &[]),
    ("### `[loss]` of `supervised` with kind `numbers`", "loss", "numbers", &[]),
    ("### `[data.labels]`", "data.labels", "regions", &[]),
    ("### `[data.degrade]`", "data.degrade", "distance", &["data.degrade={}"]),
    (
        "### `[optimiser.rule]` with kind `adam`",
        "optimiser.rule",
        "pix2pix",
        &["optimiser.rule={kind=\"adam\"}"],
    ),
    (
        "### `[optimiser.rule]` with kind `adam`",
        "optimiser.rule",
        "pix2pix",
        &["optimiser.rule={kind=\"adamw\"}"],
    ),
    (
        "### `[optimiser.rule]` with kind `rmsprop`",
        "optimiser.rule",
        "pix2pix",
        &["optimiser.rule={kind=\"rmsprop\"}"],
    ),
    (
        "### `[optimiser.rule]` with kind `sgd`",
        "optimiser.rule",
        "pix2pix",
        &["optimiser.rule={kind=\"sgd\"}"],
    ),
    (
        "### `[optimiser.rule]` with kind `adagrad`",
        "optimiser.rule",
        "pix2pix",
        &["optimiser.rule={kind=\"adagrad\"}"],
    ),
    (
        "### `[optimiser.schedule]`",
        "optimiser.schedule",
        "pix2pix",
        &["optimiser.schedule={kind=\"step\",every=1}"],
    ),
    (
        "### `[optimiser.schedule]`",
        "optimiser.schedule",
        "pix2pix",
        &["optimiser.schedule={kind=\"poly\",power=1.0}"],
    ),
    (
        "### `[optimiser.schedule]`",
        "optimiser.schedule",
        "pix2pix",
        &["optimiser.schedule={kind=\"plateau\",patience=1}"],
    ),
];

/// The keys that a table may have, from the message that an unknown one gives. `set` makes the table be of the right kind.
fn known(table: &str, family: &str, set: &[&str]) -> BTreeSet<String> {
    let path = |key: &str| if table.is_empty() { key.to_string() } else { format!("{table}.{key}") };
    let mut set: Vec<String> = set.iter().map(ToString::to_string).collect();
    set.push(format!("{}=1", path("no_such_key")));
    let message = Recipe::parse(&minimal(family), "r", &set).expect_err("an unknown key").to_string();
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
    for table in
        ["", "data", "data.augment", "data.phantom", "optimiser", "train", "validate", "log", "health"]
    {
        keys.extend(known(table, "pix2pix", &[]));
    }
    keys.extend(known("data.normalise_input", "pix2pix", &["data.normalise_input.method=minmax"]));
    let rows = rows();
    for (heading, table, family, set) in KINDS {
        let own = known(table, family, set);
        for key in &own {
            let there = rows.iter().any(|(h, k, _)| k == key && h.starts_with(heading));
            assert!(there, "docs/recipes.md does not list `{key}` under {heading}");
        }
        keys.extend(own);
    }
    let tagged = ["model", "model.generator", "model.discriminator", "model.network", "loss"];
    keys.extend(
        tagged.into_iter().chain(["optimiser.rule", "optimiser.schedule"]).map(|t| format!("{t}.kind")),
    );
    let documented: BTreeSet<String> =
        rows.iter().map(|(_, k, _)| k.clone()).filter(|k| k.contains('.') || keys.contains(k)).collect();
    let missing: Vec<_> = keys.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&keys).collect();
    assert!(missing.is_empty(), "docs/recipes.md lacks {missing:?}");
    assert!(stale.is_empty(), "docs/recipes.md lists what no recipe may have: {stale:?}");
}

#[test]
fn documented_defaults_are_the_program_s() {
    let resolved = |family: &str, set: &[&str]| {
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        let text = Recipe::parse(&minimal(family), "r", &set).expect("valid").to_toml();
        let mut actual = BTreeMap::new();
        flatten("", &text.parse().expect("TOML"), &mut actual);
        actual
    };
    let mut checked = 0;
    for (heading, key, default) in rows() {
        let Some(text) = default.strip_prefix('`').and_then(|d| d.strip_suffix('`')) else { continue };
        let of_kind = KINDS.iter().find(|(h, ..)| heading.starts_with(h) && !key.starts_with("optimiser"));
        let actual =
            of_kind.map_or_else(|| resolved("pix2pix", &[]), |(_, _, family, set)| resolved(family, set));
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
    assert!(checked > 90, "only {checked} defaults were found in the document");
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
