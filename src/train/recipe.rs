//! Recipes: everything that determines a training run, as commented TOML. Unknown keys are errors.

use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::models::{PatchGan, PixelGan, UnetGenerator};
use crate::objectives::GanMode;
use crate::ops::optimiser::Rule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Short name; the default run folder is `runs/<name>`.
    pub name: String,
    /// One line on what it is for.
    #[serde(default)]
    pub about: String,
    /// Seed of weights, order, augmentation and dropout.
    #[serde(default = "one")]
    pub seed: u64,
    /// Which images.
    #[serde(default)]
    pub data: DataConfig,
    /// Which networks.
    pub model: Model,
    /// What they are trained to do.
    #[serde(default)]
    pub loss: Loss,
    /// How.
    #[serde(default)]
    pub optimiser: Optimiser,
    /// For how long.
    #[serde(default)]
    pub train: Train,
    /// How it is watched.
    #[serde(default)]
    pub validate: Validate,
    /// What is written, how often.
    #[serde(default)]
    pub log: Log,
}

/// The networks, by family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Model {
    /// A generator and a discriminator that sees its input too (Isola et al., CVPR 2017).
    Pix2pix(Pix2pixModel),
}

/// The networks of pix2pix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pix2pixModel {
    /// From input to target.
    pub generator: Generator,
    /// Judges pairs.
    pub discriminator: Discriminator,
}

/// A generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Generator {
    /// pix2pix's U-Net.
    Unet(UnetGenerator),
}

/// A discriminator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Discriminator {
    /// Judges overlapping patches.
    Patch(PatchGan),
    /// Judges pixels.
    Pixel(PixelGan),
}

/// The losses and their weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// The adversarial loss: "vanilla" (BCE), "lsgan", "hinge" or "wgan".
    pub gan: GanMode,
    /// Weight of the L1 distance to the target.
    pub lambda_l1: f64,
    /// Weight of the adversarial loss in the generator's; 0 trains the generator by L1 alone.
    pub lambda_gan: f64,
    /// Size of the pool of generated images that the discriminator is shown; 0 for none.
    pub pool: usize,
}

impl Default for Loss {
    fn default() -> Self {
        Loss { gan: GanMode::Bce, lambda_l1: 100.0, lambda_gan: 1.0, pool: 0 }
    }
}

/// The optimisers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimiser {
    /// Learning rate of the generator.
    pub lr: f64,
    /// Learning rate of the discriminator, if another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_discriminator: Option<f64>,
    /// The rule, for both.
    pub rule: Rule,
    /// Gradients longer than this are shortened to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Decay of a running mean of the generator's weights, which then predicts in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// How the learning rate changes.
    pub schedule: Schedule,
}

impl Default for Optimiser {
    fn default() -> Self {
        Optimiser {
            lr: 2e-4,
            lr_discriminator: None,
            rule: Rule::adam(0.5, 0.999),
            clip_norm: None,
            ema: None,
            schedule: Schedule::Linear,
        }
    }
}

/// How the learning rate changes from epoch to epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Stays for `train.epochs`, then falls linearly to zero over `train.decay_epochs` (junyanz's `linear`).
    Linear,
    /// Times `gamma` every `every` epochs.
    Step {
        /// Epochs between changes.
        every: usize,
        /// Factor of a change.
        gamma: f64,
    },
    /// Half a cosine from full to zero over all epochs.
    Cosine,
    /// `(1 - epoch / epochs)^power`.
    Poly {
        /// The exponent; nnU-Net uses 0.9.
        power: f64,
    },
    /// Times `factor` when validation has not become better for more than `patience` validations.
    Plateau {
        /// Factor of a change.
        factor: f64,
        /// Validations to wait.
        patience: u32,
    },
}

/// For how long, in which portions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Slices per step.
    pub batch: usize,
    /// Epochs at the full learning rate.
    pub epochs: usize,
    /// Epochs over which a linear schedule falls to zero.
    pub decay_epochs: usize,
    /// Ends after so many steps instead; the schedule is stretched over them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Threads that prepare batches.
    pub workers: usize,
    /// Files of weights to start from, by network: `init = { G = "G.safetensors" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub init: BTreeMap<String, PathBuf>,
}

impl Default for Train {
    fn default() -> Self {
        Train { batch: 1, epochs: 100, decay_epochs: 100, steps: None, workers: 2, init: BTreeMap::new() }
    }
}

/// Validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Validate {
    /// Epochs between validations; 0 for none.
    pub every_epochs: usize,
    /// What decides on the best checkpoint: "psnr", "ssim", "mae" or "nmse".
    pub metric: Metric,
}

impl Default for Validate {
    fn default() -> Self {
        Validate { every_epochs: 1, metric: Metric::Psnr }
    }
}

/// What decides on the best checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Peak signal-to-noise ratio; higher is better.
    Psnr,
    /// Structural similarity; higher is better.
    Ssim,
    /// Mean absolute error; lower is better.
    Mae,
    /// Normalised mean squared error; lower is better.
    Nmse,
}

impl Metric {
    /// As in `val/<name>`.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Psnr => "psnr",
            Metric::Ssim => "ssim",
            Metric::Mae => "mae",
            Metric::Nmse => "nmse",
        }
    }

    /// Whether larger is better.
    pub fn maximise(self) -> bool {
        matches!(self, Metric::Psnr | Metric::Ssim)
    }

    /// Whether `new` beats `old`.
    pub fn better(self, new: f64, old: f64) -> bool {
        if self.maximise() { new > old } else { new < old }
    }
}

/// What is written, how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Steps between logged losses.
    pub every: u64,
    /// Steps between checkpoints (there is one at the end and one at Ctrl-C in any case).
    pub checkpoint_every: u64,
    /// Rows of the sample pictures.
    pub samples: usize,
}

impl Default for Log {
    fn default() -> Self {
        Log { every: 20, checkpoint_every: 500, samples: 4 }
    }
}

/// Most slices in a batch or a pool of images.
const MOST_SLICES: usize = 4096;

fn one() -> u64 {
    1
}

impl Recipe {
    /// Reads a recipe, applies `key=value` overrides, and checks it. Relative paths in it are relative to the working
    /// directory.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read the recipe", path))?;
        Self::parse(&text, &path.display().to_string(), overrides)
    }

    /// As [`Recipe::load`], from text; `source` names it in messages.
    pub fn parse(text: &str, source: &str, overrides: &[String]) -> Result<Recipe> {
        let mut table: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |s| text[..s.start].lines().count().max(1));
            Error::input(format!("{source}, line {line}: {}; mend the TOML there", e.message().trim()))
        })?;
        for o in overrides {
            set(&mut table, o)?;
        }
        let recipe: Recipe = serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
            Error::input(format!("{source}: {}", explain(&e.path().to_string(), &e.inner().to_string())))
        })?;
        recipe.check().map_err(|e| Error::input(format!("{source}: {e}")))?;
        Ok(recipe)
    }

    /// The resolved recipe as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe is plain data")
    }

    /// The run folder unless another is asked for.
    pub fn default_out(&self) -> PathBuf {
        PathBuf::from("runs").join(&self.name)
    }

    fn check(&self) -> Result<()> {
        self.data.check()?;
        let wrong = |key: &str, why: &str| Err(Error::input(format!("`{key}` {why}")));
        if self.name.is_empty() || self.name.contains(['/', '\\']) {
            return wrong("name", "must be a plain name, such as \"mr2pet\"");
        }
        if !(1..=MOST_SLICES).contains(&self.train.batch) {
            return wrong("train.batch", "must lie between 1 and 4096");
        }
        if self.train.workers > 64 {
            return wrong("train.workers", "must be at most 64; 2 are usually enough");
        }
        if self.loss.pool > MOST_SLICES {
            return wrong("loss.pool", "must be at most 4096; 50 is usual where there is one, 0 is none");
        }
        if self.log.samples > 64 {
            return wrong("log.samples", "must be at most 64 rows");
        }
        if self.train.epochs + self.train.decay_epochs == 0 || self.train.steps == Some(0) {
            return wrong("train.epochs", "leaves nothing to do; ask for at least one epoch or step");
        }
        for (key, lr) in [
            ("optimiser.lr", Some(self.optimiser.lr)),
            ("optimiser.lr_discriminator", self.optimiser.lr_discriminator),
        ] {
            if lr.is_some_and(|v| !(v > 0.0 && v.is_finite())) {
                return wrong(key, "must be a positive number, such as 0.0002");
            }
        }
        if self.optimiser.clip_norm.is_some_and(|v| !(v > 0.0 && v.is_finite())) {
            return wrong(
                "optimiser.clip_norm",
                "must be a positive number, such as 1.0; leave it out for no limit",
            );
        }
        if self.optimiser.ema.is_some_and(|d| !(0.0..1.0).contains(&d)) {
            return wrong("optimiser.ema", "must lie in [0, 1), such as 0.999");
        }
        if self.log.every == 0 || self.log.checkpoint_every == 0 {
            return wrong("log", "needs `every` and `checkpoint_every` of at least 1");
        }
        match &self.model {
            Model::Pix2pix(m) => m.check(),
        }
    }
}

impl Pix2pixModel {
    fn check(&self) -> Result<()> {
        let Generator::Unet(g) = &self.generator;
        let wrong = |key: &str, why: &str| Err(Error::input(format!("`model.{key}` {why}")));
        if !(2..=10).contains(&g.downs) {
            return wrong("generator.downs", "must lie between 2 and 10; 8 suits 256 x 256, 5 suits 96 x 96");
        }
        if g.ngf == 0 || g.ngf > 1024 {
            return wrong("generator.ngf", "must lie between 1 and 1024");
        }
        if !(0.0..1.0).contains(&g.dropout) {
            return wrong("generator.dropout", "must lie in [0, 1)");
        }
        let (ndf, layers) = match &self.discriminator {
            Discriminator::Patch(d) => (d.ndf, d.layers),
            Discriminator::Pixel(d) => (d.ndf, 1),
        };
        if ndf == 0 || ndf > 1024 {
            return wrong("discriminator.ndf", "must lie between 1 and 1024");
        }
        if !(1..=8).contains(&layers) {
            return wrong("discriminator.layers", "must lie between 1 and 8; 3 is the 70 x 70 PatchGAN");
        }
        Ok(())
    }
}

/// Applies `a.b=c`: `c` is read as TOML, or as a string if it is none.
fn set(table: &mut Table, assignment: &str) -> Result<()> {
    let (key, text) = assignment.split_once('=').ok_or_else(|| {
        Error::usage(format!("--set {assignment}: write it as key=value, for example --set train.batch=4"))
    })?;
    let value = match format!("v = {text}").parse::<Table>() {
        Ok(mut t) => t.remove("v").unwrap_or(Value::String(text.into())),
        Err(_) => Value::String(text.into()),
    };
    let parts: Vec<&str> = key.trim().split('.').collect();
    let Some((last, parents)) = parts.split_last().filter(|_| parts.iter().all(|p| !p.is_empty())) else {
        return Err(Error::usage(format!(
            "--set {assignment}: `{key}` is no key; write for example train.batch"
        )));
    };
    let mut at = table;
    for part in parents {
        at = at
            .entry(part.to_string())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| {
                Error::usage(format!("--set {assignment}: `{part}` holds a value, not a table of keys"))
            })?;
    }
    at.insert(last.to_string(), value);
    Ok(())
}

/// serde's message as one sentence with the full key and, for an unknown one, the nearest known one.
fn explain(path: &str, message: &str) -> String {
    // The lines behind the first one say where, which the path does as well.
    let message = message.lines().next().unwrap_or(message);
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let parent = if path == "." { "" } else { path };
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        let (wrong, known) = (quoted.first().copied().unwrap_or(""), &quoted[1.min(quoted.len())..]);
        let nearest = known.iter().min_by_key(|k| strsim::damerau_levenshtein(k, wrong));
        let hint = nearest.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
        let all =
            if known.len() > 1 { format!(" (known here: {})", known.join(", ")) } else { String::new() };
        return if message.starts_with("unknown field") {
            // The path already ends in the wrong key, or stops at the table that holds it.
            let table = parent.strip_suffix(wrong).unwrap_or(parent).trim_end_matches('.');
            let full = if table.is_empty() { wrong.to_string() } else { format!("{table}.{wrong}") };
            format!("unknown key `{full}`{hint}{all}")
        } else {
            format!("`{parent}` can't be \"{wrong}\"{hint}{all}")
        };
    }
    if let Some(key) = message.strip_prefix("missing field ").map(|k| k.split('`').nth(1).unwrap_or(k)) {
        let full = if parent.is_empty() { key.to_string() } else { format!("{parent}.{key}") };
        return format!("the key `{full}` is missing; add it");
    }
    let first = plain(message);
    if parent.is_empty() {
        format!("{first}; correct the value")
    } else {
        format!("`{parent}`: {first}; correct the value")
    }
}

/// serde's message without the names that types have in the program.
fn plain(message: &str) -> String {
    let Some((got, expected)) = message.split_once("expected ") else { return message.to_string() };
    let expected = match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number that is not negative",
        "i64" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list, such as [\"t1\", \"t2\"]",
        e if e.starts_with("struct ") || e == "a map" || e.contains("enum") => "a table of keys",
        e => e,
    };
    format!("{got}expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        name = "x"
        [data]
        phantom = {}
        [model]
        kind = "pix2pix"
        generator = { kind = "unet", downs = 4 }
        discriminator = { kind = "patch" }
    "#;

    fn fault(text: &str, set: &[&str]) -> String {
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        Recipe::parse(text, "r.toml", &set).expect_err("must be refused").to_string()
    }

    #[test]
    fn defaults_are_those_of_the_paper_and_the_resolved_recipe_reads_back() {
        let r = Recipe::parse(MINIMAL, "r.toml", &[]).expect("valid");
        assert_eq!((r.loss.lambda_l1, r.optimiser.lr, r.train.batch), (100.0, 2e-4, 1));
        assert_eq!(Recipe::parse(&r.to_toml(), "again", &[]).expect("valid"), r);
    }

    #[test]
    fn overrides_reach_every_depth() {
        let set = ["train.batch=4", "model.generator.ngf=8", "loss.gan=lsgan", "data.input=[\"t1\", \"t2\"]"];
        let r = Recipe::parse(MINIMAL, "r", &set.map(String::from)).expect("valid");
        let Model::Pix2pix(m) = &r.model;
        let Generator::Unet(g) = &m.generator;
        assert_eq!((r.train.batch, g.ngf, r.loss.gan, r.data.input.len()), (4, 8, GanMode::Lsgan, 2));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        assert!(
            fault(MINIMAL, &["train.bach=4"]).contains("unknown key `train.bach`; did you mean `batch`?")
        );
        assert!(fault(MINIMAL, &["trian.batch=4"]).contains("unknown key `trian`; did you mean `train`?"));
        let far = fault(MINIMAL, &["loss.weight=1"]);
        assert!(far.ends_with("(known here: gan, lambda_l1, lambda_gan, pool)"), "{far}");
        let inner = fault(MINIMAL, &["model.generator.nfg=4"]);
        assert!(inner.contains("nfg`; did you mean `ngf`?"), "{inner}");
        let variant = fault(MINIMAL, &["loss.gan=lsgann"]);
        assert!(variant.contains("`loss.gan` can't be \"lsgann\"; did you mean `lsgan`?"), "{variant}");
    }

    #[test]
    fn wrong_values_name_the_key() {
        assert!(fault(MINIMAL, &["train.batch=many"]).contains("train.batch"));
        assert!(fault(MINIMAL, &["model.generator.downs=1"]).contains("model.generator.downs"));
        assert!(fault(MINIMAL, &["optimiser.lr=-1"]).contains("optimiser.lr"));
        assert!(fault("name = ", &[]).contains("r.toml, line 1"));
        assert!(fault("name = \"x\"\n[data]\nphantom={}", &[]).contains("`model` is missing"));
        assert!(matches!(Recipe::parse(MINIMAL, "r", &["nonsense".into()]), Err(Error::Usage(_))));
    }
}
