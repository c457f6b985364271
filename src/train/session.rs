//! A training run from its first step to its last, and again from any checkpoint in between.

use super::checkpoint::{self, Progress};
use super::csvlog::{self, MetricsLog};
use super::init;
use super::panels::{Comparison, ComparisonStyle, comparison};
use super::pix2pix::{POOL_STATE, Pix2pix};
use super::recipe::Recipe;
use super::reporter::Reporter;
use super::run::{self, RunDir};
use super::score;
use super::start;
use super::step::{StepBuilder, Update};
use super::tensorboard::Events;
use crate::compile::plan::Plan;
use crate::data::{Case, DataFit, Dataset, Loader, LoaderConfig, OpenOptions, Split};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::device::{Device, LiveStates, Planned, Runner, fitting};
use crate::exec::{Program, States};
use crate::fsio;
use crate::metrics::case::Summary;
use crate::nn::NetSpec;
use crate::nn::schedule::Schedule;
use crate::ops::image_pool;
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
    method: Pix2pix,
    specs: [NetSpec; 2],
    states: LiveStates,
    program: Runner,
    predictors: HashMap<[usize; 3], Runner>,
    /// What the predictors work on, once there are any.
    predicting: Option<LiveStates>,
    /// As of the last step after which they were read.
    losses: Vec<(&'static str, f64)>,
    loader: Loader,
    validation: Vec<Case>,
    progress: Progress,
    total: u64,
    hash: String,
    log: MetricsLog,
    train_events: Events,
    val_events: Events,
    /// Held as long as the run.
    _lock: Option<File>,
}

/// Columns of `metrics.csv`.
const LOSSES: [&str; 4] = ["loss/D_fake", "loss/D_real", "loss/G_GAN", "loss/G_L1"];
const SCORES: [&str; 4] = ["val/mae", "val/nmse", "val/psnr", "val/ssim"];

impl<'a> Session<'a> {
    fn open(
        recipe: &'a Recipe,
        options: &'a TrainOptions,
        run: RunDir,
        reporter: &mut Reporter,
    ) -> Result<Self> {
        let locked = if run.root().exists() { start::lock(&run)? } else { None };
        let method = run::method(recipe);
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
        if recipe.train.batch > dataset.len() {
            return Err(Error::input(format!(
                "`train.batch` is {}, but the split `train` has {} slices only; lower it, or add images",
                recipe.train.batch,
                dataset.len()
            )));
        }
        let fit = dataset.fit().clone();
        let [h, w] = fit.canvas;
        let specs = method.describe(h, w)?;
        let hash = run::recipe_hash(recipe, &fit);

        // Before anything large is allocated: this refuses what does not fit into memory.
        let program = plan_step(recipe, &options.device, &method, &specs, [h, w])?;
        let mut states = initial_states(recipe, &method, &specs, [h, w])?;
        let validation = open_validation(recipe, &fit, open)?;
        let before = run.load_json::<RunInfo>("run.json").ok().map(|info| info.device);
        let progress = start::restore(&run, options, recipe, &mut states, &hash, reporter)?;
        let loader = open_loader(recipe, Arc::new(dataset), progress.step)?;
        let total = total_steps(recipe, loader.steps_per_epoch());
        fsio::create_dir(run.root())?;
        let locked = if locked.is_some() { locked } else { start::lock(&run)? };
        start::prepare_folder(recipe, options, &run, &fit, &specs, program.plan())?;

        let resumed = (progress.step > 0).then_some(progress.step);
        if let Some(other) = before.filter(|b| resumed.is_some() && *b != options.device.name()) {
            reporter.note(&format!(
                "until now the run was on {other}: from here on it is not bit for bit what it would have been there"
            ));
        }
        let columns: Vec<&str> = LOSSES.iter().chain(&["lr/G"]).chain(&SCORES).copied().collect();
        let log = MetricsLog::resume(&run.join("metrics.csv"), &columns, progress.step)?;
        let mut train_events = Events::create(&run.join("train"), resumed)?;
        let val_events = Events::create(&run.join("val"), resumed)?;
        if resumed.is_none() {
            train_events.text("recipe", 0, &format!("```toml\n{}\n```", recipe.to_toml()))?;
        }
        describe_plan(reporter, &specs, program.plan(), &options.device, total, loader.steps_per_epoch());
        let states = options.device.states(states)?;
        let program = program.bind(&states)?;
        Ok(Session {
            recipe,
            options,
            run,
            method,
            specs,
            states,
            program,
            predictors: HashMap::new(),
            predicting: None,
            losses: Vec::new(),
            loader,
            validation,
            progress,
            total,
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
            let validate = !self.validation.is_empty() && ((every > 0 && step.is_multiple_of(every)) || last);
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
        let batch = self.loader.next()?;
        let step = self.progress.step;
        let [lr_g, lr_d] = self.learning_rates(step);
        let t = [(step + 1) as f32];
        let choices: Vec<f32> = match self.recipe.loss.pool {
            0 => Vec::new(),
            size => image_pool::choices(self.recipe.seed, "AB", step, self.recipe.train.batch, size)
                .into_iter()
                .map(|c| c as f32)
                .collect(),
        };
        let inputs: [(&str, &[f32]); 8] = [
            ("input", &batch.input),
            ("target", &batch.target),
            ("step", &[step as f32]),
            ("lr.G", &[lr_g as f32]),
            ("lr.D", &[lr_d as f32]),
            ("t.G", &t),
            ("t.D", &t),
            ("pool.choices", &choices),
        ];
        self.program.run(&mut self.states, &inputs)?;
        self.progress.step += 1;
        Ok(())
    }

    /// Reads the losses of the last step.
    fn read_losses(&mut self) -> Result<()> {
        let values = self.program.scalars(&mut self.states, &LOSSES)?;
        let losses: Vec<(&'static str, f64)> = LOSSES.into_iter().zip(values).collect();
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

    /// Of the generator and the discriminator in step `step` (from 0).
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
    fn log_losses(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let step = self.progress.step;
        // The rate that this step, the last one done, was taken with.
        let [lr, _] = self.learning_rates(step - 1);
        let mut row = self.losses.clone();
        row.push(("lr/G", lr));
        for (name, value) in &row {
            self.train_events.scalar(name, step, *value as f32)?;
        }
        Ok(row)
    }

    /// The states that predictions use: the generator's parameters (or their running mean) without moments.
    fn prediction_states(&mut self) -> Result<States> {
        let g = &self.specs[0];
        let own = self.states.host()?;
        let mut states = States::new();
        let source = if self.recipe.optimiser.ema.is_some() { g.ema_name() } else { g.store_name() };
        states.set(&g.store_name(), &own.get::<f32>(&source)[..g.param_count()]);
        states.set(&g.buffers_name(), own.get::<f32>(&g.buffers_name()));
        Ok(states)
    }

    /// Predicts the validation subjects, scores them, draws samples, and keeps the best checkpoint.
    fn validate(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let step = self.progress.step;
        let states = self.prediction_states()?;
        match &mut self.predicting {
            Some(predicting) => predicting.set(states)?,
            None => self.predicting = Some(self.options.device.states(states)?),
        }
        let states = self.predicting.as_mut().expect("just made");
        let mut cases = Vec::new();
        let mut outputs = Vec::new();
        for case in &self.validation {
            let g = &self.specs[0];
            let predicted = run::predict_slices(
                &mut self.predictors,
                &self.options.device,
                &self.method,
                g,
                1,
                states,
                &case.input,
                case.input_shape,
            )?;
            cases.push(score::score(case, &predicted, false)?);
            outputs.push(predicted);
        }
        let summary = Summary::of(cases)?;
        let of = |name: &str| summary.get(name).map_or(f64::NAN, |m| m.mean.mean);
        let scores = SCORES.map(|name| (name, of(name.trim_start_matches("val/"))));
        for (name, value) in scores {
            self.val_events.scalar(name, step, value as f32)?;
        }
        self.draw_samples(&outputs)?;
        let metric = self.recipe.validate.metric;
        let value = of(metric.name());
        self.schedule().observe(value, &mut self.progress.plateau);
        if self.progress.best.is_none_or(|(best, _)| metric.better(value, best)) {
            self.progress.best = Some((value, step));
            self.checkpoint("best")?;
        }
        self.val_events.flush()?;
        self.train_events.flush()?;
        Ok(scores.to_vec())
    }

    /// A picture of evenly spaced slices of the validation subjects: input | target | output | error.
    fn draw_samples(&mut self, outputs: &[Vec<f32>]) -> Result<()> {
        let rows = self.recipe.log.samples;
        if rows == 0 {
            return Ok(());
        }
        let mut tiles: Vec<[Vec<f32>; 3]> = Vec::new();
        for r in 0..rows {
            let (case, output) = (&self.validation[r % self.validation.len()], &outputs[r % outputs.len()]);
            let [n, h, w, ci] = case.input_shape;
            // From a quarter to three quarters of the way: where there is something to see.
            let k = n / 4 + (2 * r + 1) * n / (4 * rows);
            let first = |v: &[f32], c: usize| -> Vec<f32> {
                v[k * h * w * c..(k + 1) * h * w * c].iter().step_by(c).copied().collect()
            };
            let target = case.target.as_deref().unwrap_or_default();
            tiles.push([
                first(&case.input, ci),
                first(target, case.target_shape[3]),
                first(output, case.target_shape[3]),
            ]);
        }
        let [_, h, w, _] = self.validation[0].input_shape;
        let lines: Vec<Comparison> =
            tiles.iter().map(|[input, target, output]| Comparison { input, target, output }).collect();
        let image = comparison(&lines, h, w, &ComparisonStyle::signed_unit())?;
        let step = self.progress.step;
        image.save(&self.run.join("samples").join(format!("step-{step:07}.png")))?;
        self.val_events.image("images/input_target_output_error", step, &image)?;
        let style = ComparisonStyle::signed_unit();
        for (i, tag) in ["images/real_A", "images/real_B", "images/fake_B"].into_iter().enumerate() {
            let tile = style.target.draw(&tiles[0][i], h, w)?;
            self.val_events.image(tag, step, &tile)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, which: &str) -> Result<()> {
        let dir = self.run.checkpoints();
        let predicting = self.prediction_states()?;
        let states = self.states.host()?;
        let [g, d] = &self.specs;
        checkpoint::save_weights(
            &checkpoint::weights_path(&dir, which, "G"),
            g,
            &predicting,
            &run::architecture(self.recipe, "G"),
        )?;
        checkpoint::save_weights(
            &checkpoint::weights_path(&dir, which, "D"),
            d,
            states,
            &run::architecture(self.recipe, "D"),
        )?;
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

fn open_validation(recipe: &Recipe, fit: &DataFit, open: OpenOptions) -> Result<Vec<Case>> {
    if recipe.validate.every_epochs == 0 {
        return Ok(Vec::new());
    }
    let set = Dataset::open(&recipe.data, Split::Val, Some(fit), open)?;
    (0..set.cases()).map(|i| set.case(i)).collect()
}

fn open_loader(recipe: &Recipe, dataset: Arc<Dataset>, first_step: u64) -> Result<Loader> {
    let config = LoaderConfig {
        batch: recipe.train.batch,
        seed: recipe.seed,
        workers: recipe.train.workers,
        shuffle: true,
        augment: recipe.data.augment,
        drop_last: true,
        unpaired: false,
    };
    Loader::new(dataset, config, first_step)
}

fn total_steps(recipe: &Recipe, per_epoch: u64) -> u64 {
    recipe.train.steps.unwrap_or((recipe.train.epochs + recipe.train.decay_epochs) as u64 * per_epoch)
}

fn update(recipe: &Recipe, ema: bool) -> Update {
    let o = &recipe.optimiser;
    Update { rule: o.rule, clip_norm: o.clip_norm, ema: o.ema.filter(|_| ema) }
}

fn initial_states(
    recipe: &Recipe,
    method: &Pix2pix,
    specs: &[NetSpec; 2],
    [h, w]: [usize; 2],
) -> Result<States> {
    let mut states = States::new();
    for spec in specs {
        spec.initialise::<f32>(&mut states, recipe.seed, recipe.optimiser.rule.slots());
    }
    init::from_files(recipe, specs, &mut states)?;
    if recipe.optimiser.ema.is_some() {
        let g = &specs[0];
        let start = states.get::<f32>(&g.store_name())[..g.param_count()].to_vec();
        states.set(&g.ema_name(), &start);
    }
    if let Some(shape) = method.pool_shape(h, w) {
        states.set(POOL_STATE, &vec![0f32; shape.numel()]);
    }
    Ok(states)
}

/// Traces the training step of a recipe for slices of the given extents.
pub fn trace_step(
    recipe: &Recipe,
    method: &Pix2pix,
    specs: &[NetSpec; 2],
    [h, w]: [usize; 2],
) -> StepBuilder {
    let mut step = StepBuilder::new(DType::F32, recipe.seed);
    let n = recipe.train.batch;
    let a = step.graph().input("input", [n, h, w, method.inputs]);
    let b = step.graph().input("target", [n, h, w, method.targets]);
    let slots = recipe.optimiser.rule.slots();
    let (g, d) = (step.bind(&specs[0], slots), step.bind(&specs[1], slots));
    method.trace_step(&mut step, &g, &d, &a, &b, [&update(recipe, true), &update(recipe, false)]);
    step
}

/// Plans the training step of a recipe for slices of the given extents, on the CPU.
pub fn step_program(
    recipe: &Recipe,
    method: &Pix2pix,
    specs: &[NetSpec; 2],
    size: [usize; 2],
) -> Result<Program> {
    let step = trace_step(recipe, method, specs, size);
    Program::new(step.graph(), &step.outputs())
}

/// Plans the training step of a recipe on a device. Where it does not fit, says which batch would.
pub fn plan_step(
    recipe: &Recipe,
    device: &Device,
    method: &Pix2pix,
    specs: &[NetSpec; 2],
    size: [usize; 2],
) -> Result<Planned> {
    let step = trace_step(recipe, method, specs, size);
    device.plan(step.graph(), &step.outputs()).map_err(|e| {
        fitting(e, recipe.train.batch, |batch| {
            let mut smaller = recipe.clone();
            smaller.train.batch = batch;
            let step = trace_step(&smaller, method, specs, size);
            device.needs(step.graph(), &step.outputs())
        })
    })
}

fn describe_plan(
    reporter: &mut Reporter,
    specs: &[NetSpec; 2],
    plan: &Plan,
    device: &Device,
    total: u64,
    per_epoch: u64,
) {
    let params: Vec<String> =
        specs.iter().map(|s| format!("{} {}", s.name, csvlog::count(s.param_count() as u64))).collect();
    reporter.note(&format!("networks: {} parameters", params.join(", ")));
    reporter.note(&format!(
        "a step: {} operations, {:.2} GFLOP; memory {} of temporaries (peak) and {} of parameters and moments",
        plan.steps.len(),
        plan.cost().flops as f64 / 1e9,
        csvlog::bytes(plan.arena_bytes as u64),
        csvlog::bytes(plan.state_bytes() as u64)
    ));
    reporter.note(&format!("training: {total} steps, {per_epoch} an epoch, on {}", device.describe()));
}
