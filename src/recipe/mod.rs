//! Recipes: everything that determines a training run, as commented TOML. Unknown keys are errors.

pub mod baseline;
pub mod schedule;

use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::methods::keys::Keys;
use crate::methods::text::{explain, set};
use crate::methods::{Method, Spec, Task, preset};
use crate::ops::optimiser::Rule;
use baseline::Baseline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// Short name; the default run folder is `runs/<name>`.
    pub name: String,
    /// One line on what it is for.
    pub about: String,
    /// Seed of weights, order, augmentation, dropout and noise.
    pub seed: u64,
    /// Which images.
    pub data: DataConfig,
    /// Which networks and losses.
    #[serde(flatten)]
    pub written: Written,
    /// What they mean.
    #[serde(skip)]
    pub spec: Spec,
    /// How.
    pub optimiser: Optimiser,
    /// For how long.
    pub train: Train,
    /// How it is watched.
    pub validate: Validate,
    /// What is written, how often.
    pub log: Log,
    /// What is watched, and what is done when numbers stop being numbers.
    pub health: Health,
}

/// The method of a recipe as it is written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Written {
    /// A preset with its settings.
    Preset {
        /// Its name under `kind`, the networks, and what else belongs to these.
        model: Table,
        /// The losses' settings.
        #[serde(skip_serializing_if = "Table::is_empty")]
        loss: Table,
    },
    /// In full; the updates stand in `train.update`.
    Full {
        /// What predicts what.
        method: Table,
        /// The networks with their roles.
        networks: Table,
    },
}

/// A recipe as it is written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// Short name; the default run folder is `runs/<name>`.
    name: String,
    /// One line on what it is for.
    #[serde(default)]
    about: String,
    /// Seed of weights, order, augmentation, dropout and noise.
    #[serde(default = "one")]
    seed: u64,
    /// Which images.
    #[serde(default)]
    data: DataConfig,
    /// A preset of a published method by its name under `kind`, its networks, and what else belongs to these.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    model: Option<Table>,
    /// The preset's losses.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    loss: Option<Table>,
    /// In place of `model`: a method written in full (docs/adding-a-method.md).
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    method: Option<Table>,
    /// The networks of a method written in full, by name.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    networks: Option<Table>,
    /// How networks are optimised.
    #[serde(default)]
    optimiser: Optimiser,
    /// For how long.
    #[serde(default)]
    train: Train,
    /// How the run is watched.
    #[serde(default)]
    validate: Validate,
    /// What is written, how often.
    #[serde(default)]
    log: Log,
    /// What is watched beside the losses, and what follows a NaN.
    #[serde(default)]
    health: Health,
}

/// The JSON schema of recipes, for editors: every key with its type, default and meaning.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Raw);
    let kinds = |names: Vec<&str>| serde_json::json!({ "type": "string", "enum": names });
    let properties = schema.ensure_object()["properties"].as_object_mut();
    if let Some(properties) = properties {
        let networks: Vec<&str> = crate::models::REGISTRY.iter().map(|e| e.kind).collect();
        properties["model"]["properties"] = serde_json::json!({ "kind": kinds(preset::names()) });
        let role = kinds(vec!["generator", "network", "discriminator", "frozen"]);
        properties["networks"]["additionalProperties"] = serde_json::json!({
            "type": "object", "properties": { "role": role, "kind": { "type": "string", "examples": networks } },
        });
    }
    schema.into()
}

impl Raw {
    /// The method, as written in full and as data.
    fn method(&self) -> Result<(Written, Spec)> {
        match (&self.model, &self.method, &self.networks) {
            (Some(model), None, None) if self.train.update.is_empty() => {
                let none = Table::new();
                let found = preset::expand(model, self.loss.as_ref().unwrap_or(&none))?;
                let [model, loss] = found.settings;
                Ok((Written::Preset { model, loss }, found.spec))
            }
            (None, Some(method), Some(networks)) if self.loss.is_none() => {
                let updates = self.train.update.iter().cloned().map(Value::Table).collect();
                let spec = Spec::read(method.clone(), networks.clone(), updates, &Keys::default())?;
                Ok((Written::Full { method: method.clone(), networks: networks.clone() }, spec))
            }
            (None, None, None) => Err(Error::input("the key `model` is missing; add it")),
            _ => Err(Error::input(
                "a method is either a preset, with its settings in [model] and [loss], or written in full, in [method], [networks] and [[train.update]]; remove one of the two",
            )),
        }
    }
}

/// The optimisers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What a step does, where the method is written in full.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    pub update: Vec<Table>,
    /// Files of weights to start from, by network: `init = { G = "G.safetensors" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub init: BTreeMap<String, PathBuf>,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            batch: 1,
            epochs: 100,
            decay_epochs: 100,
            steps: None,
            workers: 2,
            update: Vec::new(),
            init: BTreeMap::new(),
        }
    }
}

/// Validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Validate {
    /// Epochs between validations; 0 for none.
    pub every_epochs: usize,
    /// What decides on the best checkpoint. Default: what is usual for the model.
    pub metric: Metric,
    /// What `gan evaluate` shows beside a network that makes images from images.
    pub baselines: Vec<Baseline>,
}

impl Default for Validate {
    fn default() -> Self {
        Validate {
            every_epochs: 1,
            metric: Metric::Psnr,
            baselines: vec![Baseline::LookUp, Baseline::Identity],
        }
    }
}

/// What decides on the best checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Overlap of masks, mean over regions; higher is better.
    Dice,
    /// Share of the true region that is found; higher is better.
    Sensitivity,
    /// Kernel distance between sets of images; lower is better.
    Kid,
    /// Sliced Wasserstein distance between sets of images; lower is better.
    Swd,
    /// Area under the receiver operating characteristic, mean over classes or findings; higher is better.
    Auroc,
    /// Mean over classes of the share that is recognised; higher is better.
    #[serde(rename = "balanced_accuracy")]
    BalancedAccuracy,
    /// Share of cases that are right; higher is better.
    Accuracy,
    /// Harmonic mean of precision and sensitivity, mean over classes or findings; higher is better.
    F1,
    /// Mean negative logarithm of the probability of what is true; lower is better.
    #[serde(rename = "log_loss")]
    LogLoss,
    /// Root mean squared error; lower is better.
    Rmse,
    /// Coefficient of determination; higher is better.
    R2,
}

impl Metric {
    /// What may decide on the best checkpoint; the first one does where a recipe does not say it. Without pairs, images are
    /// compared as sets.
    pub fn of(task: Task, data: &DataConfig) -> &'static [Metric] {
        match if data.unpaired { Task::Generate } else { task } {
            Task::Translate => &[Metric::Psnr, Metric::Ssim, Metric::Mae, Metric::Nmse],
            Task::Segment => &[Metric::Dice, Metric::Sensitivity],
            Task::Generate => &[Metric::Kid, Metric::Swd],
            Task::Classify => {
                &[Metric::Auroc, Metric::BalancedAccuracy, Metric::Accuracy, Metric::F1, Metric::LogLoss]
            }
            Task::Regress => &[Metric::Mae, Metric::Rmse, Metric::R2],
        }
    }

    /// As in `val/<name>`.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Psnr => "psnr",
            Metric::Ssim => "ssim",
            Metric::Mae => "mae",
            Metric::Nmse => "nmse",
            Metric::Dice => "dice",
            Metric::Sensitivity => "sensitivity",
            Metric::Kid => "kid",
            Metric::Swd => "swd",
            Metric::Auroc => "auroc",
            Metric::BalancedAccuracy => "balanced_accuracy",
            Metric::Accuracy => "accuracy",
            Metric::F1 => "f1",
            Metric::LogLoss => "log_loss",
            Metric::Rmse => "rmse",
            Metric::R2 => "r2",
        }
    }

    /// Whether larger is better.
    pub fn maximise(self) -> bool {
        !matches!(
            self,
            Metric::Mae | Metric::Nmse | Metric::Kid | Metric::Swd | Metric::LogLoss | Metric::Rmse
        )
    }

    /// Whether a validation that gave `new` is the best so far. What is no number never is, and whatever is a number beats
    /// it: a comparison with NaN would be false for ever.
    pub fn improves(self, new: f64, best: Option<f64>) -> bool {
        let beats = |old: f64| old.is_nan() || if self.maximise() { new > old } else { new < old };
        !new.is_nan() && best.is_none_or(beats)
    }
}

/// What is written, how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Steps between logged losses.
    pub every: u64,
    /// Steps between checkpoints (there is one at the end and one at Ctrl-C in any case).
    pub checkpoint_every: u64,
    /// Rows of the sample pictures.
    pub samples: usize,
    /// Steps between histograms of weights and gradients; 0 for none.
    pub histograms: u64,
}

impl Default for Log {
    fn default() -> Self {
        Log { every: 20, checkpoint_every: 500, samples: 4, histograms: 500 }
    }
}

/// What is watched beside the losses, and what is done when numbers stop being numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Logs how often discriminators are right, the norms of the gradients, and how diverse generated images are; and
    /// warns.
    pub watch: bool,
    /// What follows a NaN or an infinity.
    pub nan: OnNan,
    /// After a roll-back the learning rate is lowered by this factor.
    pub lr_factor: f64,
    /// Roll-backs in a run; the next NaN ends it.
    pub retries: usize,
}

impl Default for Health {
    fn default() -> Self {
        Health { watch: true, nan: OnNan::Stop, lr_factor: 0.5, retries: 3 }
    }
}

/// What follows a NaN or an infinity in losses or weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnNan {
    /// The run ends; its last checkpoint stands.
    Stop,
    /// It goes on from its last checkpoint with a lower learning rate.
    RollBack,
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
        if overrides.iter().any(|o| o.starts_with("data.folder="))
            && let Some(Value::Table(data)) = table.get_mut("data")
        {
            // The folder that was asked for stands in the place of the recipe's own images.
            for key in ["manifest", "root", "pattern", "phantom"] {
                data.remove(key);
            }
        }
        let augment = table.get("data").and_then(|d| d.get("augment"));
        let flip_given = augment.is_some_and(|a| a.get("flip").is_some());
        let metric_given = table.get("validate").and_then(|v| v.get("metric")).is_some();
        let raw: Raw = serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
            Error::input(format!("{source}: {}", explain(&e.path().to_string(), &e.inner().to_string())))
        })?;
        let (written, spec) = raw.method().map_err(|e| Error::input(format!("{source}: {e}")))?;
        let Raw { name, about, seed, data, optimiser, train, validate, log, health, .. } = raw;
        let mut recipe =
            Recipe { name, about, seed, data, written, spec, optimiser, train, validate, log, health };
        recipe.data.settle_classes().map_err(|e| Error::input(format!("{source}: {e}")))?;
        if !flip_given {
            recipe.data.settle_mirroring();
        }
        if !metric_given {
            // What the target is must be clear before what suits it.
            let method = recipe.data.check_answers().and_then(|()| recipe.method());
            let method = method.map_err(|e| Error::input(format!("{source}: {e}")))?;
            recipe.validate.metric = Metric::of(method.task(), &recipe.data)[0];
        }
        recipe.check().map_err(|e| Error::input(format!("{source}: {e}")))?;
        Ok(recipe)
    }

    /// The resolved recipe as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe is plain data")
    }

    /// The run folder unless another is asked for.
    pub fn default_out(&self) -> PathBuf {
        let fold = self.data.fold.map_or(String::new(), |k| format!("-fold{k}"));
        PathBuf::from("runs").join(format!("{}{fold}", self.name))
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
        if !(self.health.lr_factor > 0.0 && self.health.lr_factor <= 1.0) {
            return wrong("health.lr_factor", "must lie in (0, 1], such as 0.5");
        }
        if self.log.every == 0 || self.log.checkpoint_every == 0 {
            return wrong("log", "needs `every` and `checkpoint_every` of at least 1");
        }
        let method = self.method()?;
        let (known, metric) = (Metric::of(method.task(), &self.data), self.validate.metric);
        if !known.contains(&metric) {
            let known: Vec<&str> = known.iter().map(|m| m.name()).collect();
            let known = known.join(", ");
            return Err(Error::input(format!(
                "`validate.metric` can't be \"{}\" for this model; choose one of {known}",
                metric.name()
            )));
        }
        Ok(())
    }

    /// The method on this data.
    pub fn method(&self) -> Result<Method> {
        Method::new(&self.spec, &self.data)
    }

    /// The method's name, as in `model.kind`.
    pub fn kind(&self) -> &str {
        match &self.written {
            Written::Preset { model, .. } => model.get("kind").and_then(Value::as_str).unwrap_or_default(),
            Written::Full { .. } => "custom",
        }
    }

    /// The recipe with its method written in full, as a preset means it.
    pub fn expanded(&self) -> Result<Recipe> {
        let Written::Preset { model, loss } = &self.written else { return Ok(self.clone()) };
        let found = preset::expand(model, loss)?;
        let (method, networks, updates) = found.tables;
        let mut recipe = self.clone();
        recipe.written = Written::Full { method, networks };
        recipe.train.update = updates
            .into_iter()
            .filter_map(|u| if let Value::Table(t) = u { Some(t) } else { None })
            .collect();
        Ok(recipe)
    }
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
        let Written::Preset { loss, .. } = &r.written else { panic!("a preset") };
        assert_eq!((loss["lambda_l1"].as_float(), r.optimiser.lr, r.train.batch), (Some(100.0), 2e-4, 1));
        assert_eq!(Recipe::parse(&r.to_toml(), "again", &[]).expect("valid"), r);
    }

    /// Labels may tell left from right.
    #[test]
    fn label_maps_are_mirrored_only_where_the_recipe_says_so() {
        let flip = |set: &[&str]| {
            let labels = ["data.target=[\"seg\"]", "data.labels={ values = [0, 1, 2] }", "loss.kind=classes"];
            let set: Vec<String> = labels.iter().chain(set).map(ToString::to_string).collect();
            let text = r#"
                name = "seg"
                [data]
                phantom = {}
                [model]
                kind = "supervised"
                network = { kind = "unet" }
            "#;
            let r = Recipe::parse(text, "r", &set).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(Recipe::parse(&r.to_toml(), "again", &[]).expect("valid"), r);
            r.data.augment.flip
        };
        assert_eq!(flip(&[]), 0.0);
        assert_eq!(flip(&["data.augment.rotate=5"]), 0.0);
        assert_eq!(flip(&["data.labels.symmetric=true"]), 0.5);
        assert_eq!(flip(&["data.augment.flip=0.25"]), 0.25);
        assert_eq!(flip(&["data.augment.flip=0.0", "data.labels.symmetric=true"]), 0.0);
        // Images are mirrored as ever.
        assert_eq!(Recipe::parse(MINIMAL, "r", &[]).expect("valid").data.augment.flip, 0.5);
    }

    #[test]
    fn overrides_reach_every_depth() {
        let set = ["train.batch=4", "model.generator.ngf=8", "loss.gan=lsgan", "data.input=[\"t1\", \"t2\"]"];
        let r = Recipe::parse(MINIMAL, "r", &set.map(String::from)).expect("valid");
        let Written::Preset { model, loss } = &r.written else { panic!("a preset") };
        let g = &model["generator"];
        assert_eq!((g["downs"].as_integer(), g["ngf"].as_integer()), (Some(4), Some(8)));
        assert_eq!((r.train.batch, loss["gan"].as_str(), r.data.input.len()), (4, Some("lsgan"), 2));
    }

    /// A preset and what it means are the same method.
    #[test]
    fn an_expanded_recipe_is_the_same_method() {
        let r = Recipe::parse(MINIMAL, "r", &["loss.pool=3".into(), "data.input=[\"t1\", \"t2\"]".into()]);
        let r = r.expect("valid");
        let full = r.expanded().expect("it expands").to_toml();
        assert!(full.contains("[[train.update]]") && !full.contains("[model]"), "{full}");
        let again = Recipe::parse(&full, "again", &[]).unwrap_or_else(|e| panic!("{e}"));
        let plain = |s: &Spec| {
            let mut s = s.clone();
            s.networks.iter_mut().for_each(|n| (n.key, n.residual_key) = Default::default());
            s.updates.iter_mut().flat_map(|u| &mut u.terms).for_each(|t| t.key.clear());
            s
        };
        assert_eq!(plain(&again.spec), plain(&r.spec));
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

    #[test]
    fn what_is_no_number_is_never_the_best() {
        for metric in [Metric::Psnr, Metric::Mae] {
            let (good, bad) = if metric.maximise() { (30.0, 20.0) } else { (0.1, 0.2) };
            assert!(!metric.improves(f64::NAN, None) && !metric.improves(f64::NAN, Some(bad)));
            assert!(metric.improves(bad, None) && metric.improves(bad, Some(f64::NAN)));
            assert!(metric.improves(good, Some(bad)) && !metric.improves(bad, Some(good)));
            assert!(!metric.improves(good, Some(good)), "of equals the first stays");
        }
    }
}
