//! What a run writes for those who watch it: TensorBoard's events, `metrics.csv` and sample pictures.

use crate::error::Result;
use crate::evaluate::validation::Seen;
use crate::nn::NetSpec;
use crate::recipe::Recipe;
use crate::run::folder::RunDir;
use crate::watch::csvlog::MetricsLog;
use crate::watch::curves;
use crate::watch::tensorboard::{Events, HParam};
use tensorboard_proto::graph::GraphDef;
use toml::Value;

/// The open files.
pub struct Record {
    run: RunDir,
    columns: Vec<String>,
    log: MetricsLog,
    train: Events,
    val: Events,
}

impl Record {
    /// Opens the record of a run; of one that goes on from a checkpoint (`resumed` is its step) everything behind that is
    /// dropped.
    pub fn open(run: &RunDir, columns: Vec<String>, resumed: Option<u64>) -> Result<Self> {
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        let log = MetricsLog::resume(&run.join("metrics.csv"), &names, resumed.unwrap_or(0))?;
        let train = Events::create(&run.join("train"), resumed)?;
        let val = Events::create(&run.join("val"), resumed)?;
        Ok(Record { run: run.clone(), columns, log, train, val })
    }

    /// The same record from a checkpoint on.
    pub fn back_to(&mut self, step: u64) -> Result<()> {
        *self = Record::open(&self.run, std::mem::take(&mut self.columns), Some(step))?;
        Ok(())
    }

    /// What never changes: the recipe, what the run is, and the graph of the model.
    pub fn describe(&mut self, recipe: &Recipe, about: &str, graph: &GraphDef) -> Result<()> {
        self.train.text("recipe", 0, &format!("```toml\n{}\n```", recipe.to_toml()))?;
        self.train.text("run", 0, about)?;
        self.train.graph(graph)?;
        self.train.flush()
    }

    /// The run's row among other runs: its settings. Its metrics are the scalars of the folder `val`.
    pub fn settings(&mut self, recipe: &Recipe) -> Result<()> {
        self.val.hparams_begin(&hparams(recipe))?;
        self.val.flush()
    }

    /// Points of curves.
    pub fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        for (name, value) in values {
            self.train.scalar(name, step, *value as f32)?;
        }
        self.train.flush()
    }

    /// Histograms of every tensor of a network: its weights, and its last gradient if there is one. Both are flat, with
    /// the network's parameters where they lie.
    pub fn histograms(
        &mut self,
        step: u64,
        net: &NetSpec,
        weights: &[f32],
        gradient: Option<&[f32]>,
    ) -> Result<()> {
        for (group, values) in [("weights", Some(weights)), ("gradients", gradient)] {
            let Some(values) = values else { continue };
            for p in &net.params {
                let own = &values[p.offset..p.offset + p.shape.numel()];
                self.train.histogram(&format!("{group}/{}/{}", net.name, p.key), step, own)?;
            }
        }
        self.train.flush()
    }

    /// What a look at the validation split found.
    pub fn seen(&mut self, step: u64, seen: &Seen) -> Result<()> {
        for (name, value) in &seen.scores {
            self.val.scalar(name, step, *value as f32)?;
        }
        if let Some((tag, image)) = &seen.panel {
            image.save(&self.run.join("samples").join(format!("step-{step:07}.png")))?;
            self.val.image(tag, step, image)?;
        }
        for (tag, image) in &seen.tiles {
            self.val.image(tag, step, image)?;
        }
        if let Some((tag, text)) = &seen.text {
            self.val.text(tag, step, text)?;
        }
        for (name, curve) in &seen.curves {
            self.val.pr_curve(&format!("pr/{name}"), step, curve)?;
            self.val.image(&format!("roc/{name}"), step, &curves::roc(curve)?)?;
            self.val.image(&format!("dice_by_threshold/{name}"), step, &curves::dice(curve)?)?;
            if let Some(area) = curve.area() {
                self.val.scalar(&format!("roc_auc/{name}"), step, area as f32)?;
            }
        }
        self.val.flush()?;
        self.train.flush()
    }

    /// A row of the table.
    pub fn row(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let values: Vec<(&str, f64)> = values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        self.log.append(step, &values)
    }

    /// Something that happened at a step.
    pub fn incident(&mut self, step: u64, text: &str) -> Result<()> {
        self.train.text("incidents", step, text)?;
        self.train.flush()
    }

    /// Hands everything to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.train.flush()?;
        self.val.flush()
    }

    /// The run is done, with these final numbers.
    pub fn finish(&mut self, step: u64, results: &[(String, f64)]) -> Result<()> {
        let results: Vec<(String, f32)> = results.iter().map(|(n, v)| (n.clone(), *v as f32)).collect();
        self.val.hparams_end(step, &results)?;
        self.flush()
    }
}

/// A recipe's settings as TensorBoard's hyper-parameters: one for each key that is a number, a word or a switch, by its
/// path. What only names the run or its files is left out.
fn hparams(recipe: &Recipe) -> Vec<(String, HParam)> {
    fn flatten(path: &str, value: &Value, all: &mut Vec<(String, HParam)>) {
        let param = match value {
            Value::Table(table) => {
                let inner = |k: &String| if path.is_empty() { k.clone() } else { format!("{path}.{k}") };
                return table.iter().for_each(|(k, v)| flatten(&inner(k), v, all));
            }
            Value::Integer(v) => HParam::Number(*v as f64),
            Value::Float(v) => HParam::Number(*v),
            Value::Boolean(v) => HParam::Flag(*v),
            Value::String(v) => HParam::Text(v.clone()),
            Value::Array(list) if list.iter().all(Value::is_str) => {
                let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                HParam::Text(words.join(", "))
            }
            other => HParam::Text(other.to_string()),
        };
        all.push((path.to_string(), param));
    }
    let mut all = Vec::new();
    flatten("", &Value::try_from(recipe).expect("a recipe is plain data"), &mut all);
    const ASIDE: [&str; 9] = [
        "name",
        "about",
        "log.",
        "health.",
        "train.init.",
        "train.workers",
        "data.phantom.",
        "data.cache_mb",
        "data.manifest",
    ];
    all.retain(|(name, _)| !ASIDE.iter().any(|a| name.starts_with(a)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_flat_and_name_no_file() {
        let text = "name = \"x\"\n[data]\nphantom = {}\n[model]\nkind = \"pix2pix\"\ngenerator = { kind = \"unet\" }\ndiscriminator = { kind = \"patch\" }";
        let recipe = Recipe::parse(text, "r", &[]).expect("valid");
        let all = hparams(&recipe);
        let of = |name: &str| all.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        assert_eq!(of("optimiser.lr"), Some(HParam::Number(2e-4)));
        assert_eq!(of("model.generator.kind"), Some(HParam::Text("unet".into())));
        assert_eq!(of("data.share_subjects"), Some(HParam::Flag(false)));
        assert_eq!(of("data.input"), Some(HParam::Text("t1".into())));
        assert!(!all.iter().any(|(n, _)| n.contains("phantom") || n == "name"));
    }
}
