//! A training run from its first step to its last, and again from any checkpoint in between.

use super::checkpoint::{self, Progress};
use super::csvlog::{self, MetricsLog};
use super::init;
use super::method::{self, Method, Needs, Shapes};
use super::programs::{StepCost, StepProgram, plan_step};
use super::recipe::Recipe;
use super::reporter::Reporter;
use super::run::{self, RunDir};
use super::start;
use super::tensorboard::Events;
use super::validation::Validator;
use crate::data::{DataFit, Dataset, Loader, LoaderConfig, OpenOptions, Split};
use crate::error::{Error, Result};
use crate::exec::States;
use crate::exec::device::{Device, LiveStates, Runner};
use crate::fsio;
use crate::nn::NetSpec;
use crate::nn::schedule::Schedule;
use crate::ops::image_pool;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What the command line adds to a recipe.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// The run folder.
    pub out: PathBuf,
    /// Continue the run that is there.
    pub resume: bool,
    /// Show nothing but errors.
    pub quiet: bool,
    /// The command, for `run.json`.
    pub command: String,
    /// Where to compute.
    pub device: Device,
    /// Set from outside to stop after the current step.
    pub stop: Arc<AtomicBool>,
}

/// What `run.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of the program.
    pub version: String,
    /// The command line that (last) started it.
    pub command: String,
    /// The device.
    pub device: String,
    /// Threads of the CPU device.
    pub threads: usize,
    /// Parameters per network.
    pub parameters: HashMap<String, usize>,
    /// Bytes of memory that a step needs: temporaries, and parameters with moments.
    pub memory_bytes: [usize; 2],
    /// FLOPs of a step.
    pub flops_per_step: u64,
    /// Whether it reached its last step.
    pub finished: bool,
}

/// Trains a recipe to its end. Fails with [`Error::Interrupted`], after a checkpoint, when asked to stop.
pub fn train(recipe: &Recipe, options: &TrainOptions) -> Result<()> {
    let run = RunDir::new(&options.out);
    start::check_folder(&run, options.resume)?;
    let mut reporter = Reporter::new(options.quiet);
    let existed = options.out.exists();
    let session = Session::open(recipe, options, run, &mut reporter).inspect_err(|_| {
        if !existed {
            // A run that could not begin leaves nothing.
            let _ = std::fs::remove_dir_all(&options.out);
        }
    })?;
    session.run(&mut reporter).map_err(|e| lost(e, &RunDir::new(&options.out)))
}

/// What is left of a run whose device failed.
fn lost(e: Error, run: &RunDir) -> Error {
    match e {
        Error::Device(_) if checkpoint::state_path(&run.checkpoints(), "last").exists() => Error::input(
            format!("{e}; the last checkpoint stands: continue with --resume --out {}", run.root().display()),
        ),
        Error::Device(_) => Error::input(format!("{e}; there was no checkpoint yet: start again")),
        other => other,
    }
}

struct Session<'a> {
    recipe: &'a Recipe,
    options: &'a TrainOptions,
    run: RunDir,
    method: Box<dyn Method>,
    specs: Vec<NetSpec>,
    states: LiveStates,
    programs: Vec<StepProgram<Runner>>,
    /// As of the last step after which they were read.
    losses: Vec<(String, f64)>,
    loader: Loader,
    validator: Option<Validator>,
    progress: Progress,
    total: u64,
    fit: DataFit,
    hash: String,
    log: MetricsLog,
    train_events: Events,
    val_events: Events,
    /// Held as long as the run.
    _lock: Option<File>,
}

impl<'a> Session<'a> {
    fn open(
        recipe: &'a Recipe,
        options: &'a TrainOptions,
        run: RunDir,
        reporter: &mut Reporter,
    ) -> Result<Self> {
        let locked = if run.root().exists() { start::lock(&run)? } else { None };
        let method = method::build(recipe)?;
        reporter.watch(method.headline());
        let open = OpenOptions { multiple: method.multiple(), ..Default::default() };
        if let Some(phantom) = &recipe.data.phantom {
            reporter.note(&format!(
                "data: made-up patients, no real ones: a phantom of {} subjects (seed {}) in {}",
                phantom.subjects,
                phantom.seed,
                phantom.dir.display()
            ));
        }
        let dataset = Dataset::open(&recipe.data, Split::Train, None, open)?;
        reporter.note(&format!("data: {}", dataset.stats()));
        if recipe.data.share_subjects {
            reporter.note(
                "data: the same subjects serve training, validation and test (data.share_subjects), so the scores say nothing about other people",
            );
        }
        check_batch(recipe, &dataset)?;
        let fit = dataset.fit().clone();
        let shapes = shapes(recipe, &fit);
        let specs = method.networks(&shapes.size)?;
        let hash = run::recipe_hash(recipe, &fit);

        // Before anything large is allocated: this refuses what does not fit into memory.
        let programs = plan_step(recipe, &options.device, method.as_ref(), &specs, &shapes)?;
        let mut states = initial_states(recipe, method.as_ref(), &specs, &shapes)?;
        let validator = match recipe.validate.every_epochs {
            0 => None,
            _ => Some(Validator::open(recipe, method.as_ref(), &fit, open, &options.device)?),
        };
        let before = run.load_json::<RunInfo>("run.json").ok().map(|info| info.device);
        let progress = start::restore(&run, options, recipe, &mut states, &hash, reporter)?;
        let first_batch = method.batches_before(progress.step);
        let loader = open_loader(recipe, method.as_ref(), Arc::new(dataset), first_batch)?;
        let total = total_steps(recipe, loader.steps_per_epoch());
        fsio::create_dir(run.root())?;
        let locked = if locked.is_some() { locked } else { start::lock(&run)? };
        let cost = StepCost::of(method.as_ref(), &programs, total);
        start::prepare_folder(recipe, options, &run, &fit, &specs, &cost)?;

        let resumed = (progress.step > 0).then_some(progress.step);
        if let Some(other) = before.filter(|b| resumed.is_some() && *b != options.device.name()) {
            reporter.note(&format!(
                "until now the run was on {other}: from here on it is not bit for bit what it would have been there"
            ));
        }
        let losses = programs.iter().flat_map(|p| &p.losses).map(String::as_str);
        let scores = validator.as_ref().map_or_else(Vec::new, Validator::columns);
        let columns: Vec<&str> = losses.chain(["lr/G"]).chain(scores.iter().map(String::as_str)).collect();
        let log = MetricsLog::resume(&run.join("metrics.csv"), &columns, progress.step)?;
        let mut train_events = Events::create(&run.join("train"), resumed)?;
        let val_events = Events::create(&run.join("val"), resumed)?;
        if resumed.is_none() {
            train_events.text("recipe", 0, &format!("```toml\n{}\n```", recipe.to_toml()))?;
        }
        describe_plan(reporter, &specs, &cost, &options.device, total, loader.steps_per_epoch());
        let states = options.device.states(states)?;
        let programs = programs.into_iter().map(|p| p.bind(&states)).collect::<Result<_>>()?;
        Ok(Session {
            recipe,
            options,
            run,
            method,
            specs,
            states,
            programs,
            losses: Vec::new(),
            loader,
            validator,
            progress,
            total,
            fit,
            hash,
            log,
            train_events,
            val_events,
            _lock: locked,
        })
    }

    fn run(mut self, reporter: &mut Reporter) -> Result<()> {
        reporter.begin(self.progress.step, self.total);
        let per_epoch = self.loader.steps_per_epoch();
        let every = self.recipe.validate.every_epochs as u64 * per_epoch;
        let began = Instant::now();
        while self.progress.step < self.total {
            if self.options.stop.load(Ordering::Relaxed) {
                if self.progress.step > 0 {
                    self.read_losses()?;
                }
                self.checkpoint("last")?;
                reporter.end();
                reporter.note(&format!(
                    "stopped at step {} of {}; continue with --resume --out {}",
                    self.progress.step,
                    self.total,
                    self.run.root().display()
                ));
                return Err(Error::Interrupted);
            }
            self.step()?;
            let step = self.progress.step;
            let last = step == self.total;
            let log = step.is_multiple_of(self.recipe.log.every) || last || step == 1;
            let save = step.is_multiple_of(self.recipe.log.checkpoint_every) || last;
            let validate = self.validator.is_some() && ((every > 0 && step.is_multiple_of(every)) || last);
            // A GPU must be waited for to know them; and nothing is kept of weights that are none any more.
            if log || save || validate || matches!(self.options.device, Device::Cpu) {
                self.read_losses()?;
            }
            // One row a step: of losses, of scores, or of both.
            let mut row = Vec::new();
            if log {
                row.extend(self.log_losses()?);
            }
            reporter.step(step, &self.losses, self.recipe.train.batch);
            if validate {
                let scores = self.validate()?;
                reporter.validation(step, &scores);
                row.extend(scores);
            }
            if !row.is_empty() {
                let row: Vec<(&str, f64)> = row.iter().map(|(n, v)| (n.as_str(), *v)).collect();
                self.log.append(step, &row)?;
            }
            if save {
                self.checkpoint("last")?;
            }
        }
        self.finish(reporter, began)
    }

    /// Runs one step, or asks a GPU for it.
    fn step(&mut self) -> Result<()> {
        let step = self.progress.step;
        let rates = self.learning_rates(step);
        let pools = self.method.pools(&shapes(self.recipe, &self.fit).size);
        let pools = pool_choices(self.recipe, &pools, step);
        for run in self.method.runs(step) {
            let batch = if run.takes_batch { Some(self.loader.next()?) } else { None };
            let scalars = method::scalars(&self.specs, run, rates);
            let mut inputs: Vec<(&str, &[f32])> =
                scalars.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            inputs.extend(pools.iter().map(|(n, v)| (n.as_str(), v.as_slice())));
            if let Some(batch) = &batch {
                inputs.extend([("input", batch.input.as_slice()), ("target", batch.target.as_slice())]);
            }
            self.programs[run.part].program.run(&mut self.states, &inputs)?;
        }
        self.progress.step += 1;
        Ok(())
    }

    /// Reads the losses of the last step.
    fn read_losses(&mut self) -> Result<()> {
        let mut losses = Vec::new();
        for part in &mut self.programs {
            let names: Vec<&str> = part.losses.iter().map(String::as_str).collect();
            let values = part.program.scalars(&mut self.states, &names)?;
            losses.extend(part.losses.iter().cloned().zip(values));
        }
        if let Some((name, value)) = losses.iter().find(|(_, v)| !v.is_finite()) {
            return Err(Error::input(format!(
                "{name} became {value} {} step {}; the last checkpoint stands: lower `optimiser.lr`, or check the images for outliers",
                if matches!(self.options.device, Device::Cpu) { "at" } else { "by" },
                self.progress.step
            )));
        }
        self.losses = losses;
        Ok(())
    }

    fn schedule(&self) -> Schedule {
        self.recipe.optimiser.schedule.over(&self.recipe.train, self.recipe.validate.metric.maximise())
    }

    /// Of generators and of discriminators in step `step` (from 0).
    fn learning_rates(&self, step: u64) -> [f64; 2] {
        let train = &self.recipe.train;
        let epochs = (train.epochs + train.decay_epochs) as u64;
        let epoch = match train.steps {
            // The schedule is stretched over the steps asked for.
            Some(steps) => step * epochs / steps,
            None => step / self.loader.steps_per_epoch(),
        };
        let o = &self.recipe.optimiser;
        let factor = self.schedule().factor(epoch as f64, &self.progress.plateau);
        [o.lr * factor, o.lr_discriminator.unwrap_or(o.lr) * factor]
    }

    /// Writes the losses and the learning rate for TensorBoard and returns them.
    fn log_losses(&mut self) -> Result<Vec<(String, f64)>> {
        let step = self.progress.step;
        // The rate that this step, the last one done, was taken with.
        let [lr, _] = self.learning_rates(step - 1);
        let mut row = self.losses.clone();
        row.push(("lr/G".to_string(), lr));
        for (name, value) in &row {
            self.train_events.scalar(name, step, *value as f32)?;
        }
        Ok(row)
    }

    /// Predicts the validation subjects, scores them, draws samples, and keeps the best checkpoint.
    fn validate(&mut self) -> Result<Vec<(String, f64)>> {
        let step = self.progress.step;
        let net = run::predicting(self.method.as_ref(), &self.specs);
        let Some(validator) = &mut self.validator else { return Ok(Vec::new()) };
        let states = prediction_states(self.recipe, self.states.host()?, net);
        let seen = validator.look(self.recipe, self.method.as_ref(), net, states)?;
        for (name, value) in &seen.scores {
            self.val_events.scalar(name, step, *value as f32)?;
        }
        if let Some((tag, image)) = &seen.panel {
            image.save(&self.run.join("samples").join(format!("step-{step:07}.png")))?;
            self.val_events.image(tag, step, image)?;
        }
        for (tag, image) in &seen.tiles {
            self.val_events.image(tag, step, image)?;
        }
        let metric = self.recipe.validate.metric;
        let wanted = format!("val/{}", metric.name());
        let value = seen.scores.iter().find(|(n, _)| *n == wanted).map_or(f64::NAN, |(_, v)| *v);
        self.schedule().observe(value, &mut self.progress.plateau);
        if self.progress.best.is_none_or(|(best, _)| metric.better(value, best)) {
            self.progress.best = Some((value, step));
            self.checkpoint("best")?;
        }
        self.val_events.flush()?;
        self.train_events.flush()?;
        Ok(seen.scores)
    }

    fn checkpoint(&mut self, which: &str) -> Result<()> {
        let dir = self.run.checkpoints();
        let states = self.states.host()?;
        for net in &self.specs {
            checkpoint::save_weights(
                &checkpoint::weights_path(&dir, which, &net.name),
                net,
                &prediction_states(self.recipe, states, net),
                &run::architecture(self.recipe, self.method.as_ref(), &net.name),
            )?;
        }
        if which == "last" {
            self.train_events.flush()?;
            checkpoint::save_state(&checkpoint::state_path(&dir, which), states, &self.progress, &self.hash)?;
        }
        Ok(())
    }

    fn finish(mut self, reporter: &mut Reporter, began: Instant) -> Result<()> {
        reporter.end();
        let mut info: RunInfo = self.run.load_json("run.json")?;
        info.finished = true;
        self.run.save_json("run.json", &info)?;
        self.train_events.flush()?;
        self.val_events.flush()?;
        reporter.summary(&self.run, &self.progress, began.elapsed());
        Ok(())
    }
}

/// What each image pool does with the images of step `step`: its input's name and value.
pub(super) fn pool_choices(
    recipe: &Recipe,
    pools: &[(&'static str, Shape)],
    step: u64,
) -> Vec<(String, Vec<f32>)> {
    let choices = |(name, shape): &(&'static str, Shape)| {
        let stream = name.trim_start_matches("pool.");
        let choices = image_pool::choices(recipe.seed, stream, step, recipe.train.batch, shape[0]);
        (format!("{name}.choices"), choices.into_iter().map(|c| c as f32).collect())
    };
    pools.iter().map(choices).collect()
}

/// Refuses a batch of more images than there are.
pub(super) fn check_batch(recipe: &Recipe, dataset: &Dataset) -> Result<()> {
    if recipe.train.batch > dataset.len() {
        return Err(Error::input(format!(
            "`train.batch` is {}, but the split `train` has {} slices only; lower it, or add images",
            recipe.train.batch,
            dataset.len()
        )));
    }
    Ok(())
}

pub(super) fn open_loader(
    recipe: &Recipe,
    method: &dyn Method,
    dataset: Arc<Dataset>,
    first_batch: u64,
) -> Result<Loader> {
    let config = LoaderConfig {
        batch: recipe.train.batch,
        seed: recipe.seed,
        workers: recipe.train.workers,
        shuffle: true,
        augment: recipe.data.augment,
        drop_last: true,
        unpaired: method.needs() == Needs::Unpaired,
    };
    Loader::new(dataset, config, first_batch)
}

fn total_steps(recipe: &Recipe, per_epoch: u64) -> u64 {
    recipe.train.steps.unwrap_or((recipe.train.epochs + recipe.train.decay_epochs) as u64 * per_epoch)
}

pub(super) fn initial_states(
    recipe: &Recipe,
    method: &dyn Method,
    specs: &[NetSpec],
    shapes: &Shapes,
) -> Result<States> {
    let mut states = States::new();
    for spec in specs {
        spec.initialise::<f32>(&mut states, recipe.seed, recipe.optimiser.rule.slots());
    }
    init::from_files(recipe, specs, &mut states)?;
    if recipe.optimiser.ema.is_some() {
        for spec in specs.iter().filter(|s| !method::judges(&s.name)) {
            let start = states.get::<f32>(&spec.store_name())[..spec.param_count()].to_vec();
            states.set(&spec.ema_name(), &start);
        }
    }
    for (name, shape) in method.pools(&shapes.size) {
        states.set(name, &vec![0f32; shape.numel()]);
    }
    Ok(states)
}

/// The states of a network that predictions use: its parameters (or their running mean) without moments.
fn prediction_states(recipe: &Recipe, all: &States, net: &NetSpec) -> States {
    let mut states = States::new();
    let averaged = recipe.optimiser.ema.is_some() && !method::judges(&net.name);
    let source = if averaged { net.ema_name() } else { net.store_name() };
    states.set(&net.store_name(), &all.get::<f32>(&source)[..net.param_count()]);
    states.set(&net.buffers_name(), all.get::<f32>(&net.buffers_name()));
    states
}

/// What a step of a recipe sees, on the data that was fitted.
fn shapes(recipe: &Recipe, fit: &DataFit) -> Shapes {
    Shapes::new(recipe, recipe.data.size(fit))
}

fn describe_plan(
    reporter: &mut Reporter,
    specs: &[NetSpec],
    cost: &StepCost,
    device: &Device,
    total: u64,
    per_epoch: u64,
) {
    let params: Vec<String> =
        specs.iter().map(|s| format!("{} {}", s.name, csvlog::count(s.param_count() as u64))).collect();
    reporter.note(&format!("networks: {} parameters", params.join(", ")));
    reporter.note(&format!(
        "a step: {} operations, {:.2} GFLOP; memory {} of temporaries (peak) and {} of parameters and moments",
        cost.operations,
        cost.flops as f64 / 1e9,
        csvlog::bytes(cost.temporaries as u64),
        csvlog::bytes(cost.states as u64)
    ));
    reporter.note(&format!("training: {total} steps, {per_epoch} an epoch, on {}", device.describe()));
}
