//! A training run from its first step to its last, and again from any checkpoint in between.

mod recovery;

use super::guard::Guard;
use super::options::TrainOptions;
use super::record::Record;
use super::reporter::Reporter;
use super::said::{about, describe_plan, tell};
use super::setup::{
    check_batch, initial_states, open_loader, pool_choices, prediction_states, shapes, total_steps,
};
use super::start;
use crate::data::{DataFit, Dataset, Loader, OpenOptions, Split};
use crate::error::{Error, Result};
use crate::evaluate::validation::Validator;
use crate::exec::device::{Device, LiveStates, Runner};
use crate::fsio;
use crate::methods::Method;
use crate::nn::NetSpec;
use crate::nn::schedule::Schedule;
use crate::recipe::Recipe;
use crate::run::checkpoint::{self, Progress};
use crate::run::folder::{self, RunDir};
use crate::run::info::{self, RunInfo};
use crate::run::predictor;
use crate::run::programs::{StepCost, StepProgram, check_validation, plan_step, trace_step};
use crate::run::splits;
use crate::run::tuning;
use crate::watch::health::Health;
use crate::watch::model_graph;
use serde_json::json;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Trains a recipe to its end. Fails with [`Error::Interrupted`], after a checkpoint, when asked to stop.
pub fn train(recipe: &Recipe, options: &TrainOptions) -> Result<()> {
    let run = RunDir::new(&options.out);
    let mut reporter = Reporter::new(options.quiet, options.json_lines);
    let done = begin(recipe, options, run, &mut reporter);
    reporter.end();
    let status = match &done {
        Ok(()) => "finished",
        Err(Error::Interrupted) => "stopped",
        Err(_) => "failed",
    };
    let message = done.as_ref().err().map(ToString::to_string);
    reporter.emit("end", json!({ "status": status, "message": message }));
    done
}

fn begin(recipe: &Recipe, options: &TrainOptions, run: RunDir, reporter: &mut Reporter) -> Result<()> {
    start::check_folder(&run, options.resume)?;
    let existed = options.out.exists();
    let session = Session::open(recipe, options, run, reporter).inspect_err(|_| {
        if !existed {
            // A run that could not begin leaves nothing.
            let _ = std::fs::remove_dir_all(&options.out);
        }
    })?;
    session.run(reporter).map_err(|e| lost(e, &RunDir::new(&options.out)))
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
    method: Method,
    specs: Vec<NetSpec>,
    states: LiveStates,
    programs: Vec<StepProgram<Runner>>,
    /// Which of them ran since the states were those of a checkpoint, or the run began.
    ran: Vec<bool>,
    /// As of the last step after which they were read.
    losses: Vec<(String, f64)>,
    dataset: Arc<Dataset>,
    loader: Loader,
    validator: Option<Validator>,
    progress: Progress,
    total: u64,
    fit: DataFit,
    hash: String,
    record: Record,
    health: Health,
    /// When this process began with it.
    began: Instant,
    /// Since when the time is not in `run.json` yet.
    since: Instant,
    /// The last logged step, and when.
    paced: (u64, Instant),
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
        let method = recipe.method()?;
        let open = OpenOptions { multiple: method.multiple(), ..Default::default() };
        start::check_settings(&run, options.resume, recipe)?;
        if let Some(phantom) = &recipe.data.phantom {
            reporter.note(&format!(
                "data: made-up patients, no real ones: a phantom of {} subjects (seed {}) in {}",
                phantom.subjects,
                phantom.seed,
                phantom.dir.display()
            ));
        }
        let cases = splits::of_training(&run, &recipe.data, options.resume, &|text| reporter.note(text))?;
        let dataset = Dataset::open_from(&recipe.data, &cases, Split::Train, None, open)?;
        reporter.note(&format!("data: {}", dataset.stats()));
        check_batch(recipe, &dataset)?;
        let fit = dataset.fit().clone();
        let shapes = shapes(recipe, &fit);
        let specs = method.networks(&shapes.size)?;
        let hash = folder::recipe_hash(recipe, &fit);

        let table = if options.resume && run.exists() {
            tuning::apply_recorded(&run, &options.device)?
        } else {
            options.choices.apply(&options.device)?
        };
        if let Some(table) = &table {
            let n = table.choices.len();
            reporter.note(&format!(
                "kernels: the variants of {n} shapes are as they were measured ({})",
                tuning::FILE
            ));
        }
        // Before anything large is allocated: this refuses what does not fit into memory.
        let programs = plan_step(recipe, &options.device, &method, &specs, &shapes)?;
        let mut states = initial_states(recipe, &method, &specs, &shapes, dataset.notes())?;
        let validator = match recipe.validate.every_epochs {
            0 => None,
            _ => Some(Validator::open(recipe, &method, &cases, &fit, open, &options.device)?),
        };
        if validator.is_some() {
            let net = predictor::predicting(&method, &specs);
            check_validation(recipe, &options.device, &method, net, &programs, &shapes)?;
        }
        let before = run.load_json::<RunInfo>("run.json").ok().map(|info| info.device);
        let progress = start::restore(&run, options, &specs, &mut states, &hash, reporter)?;
        let begins = progress.step == 0;
        let record_of = if begins {
            Some(splits::record(&cases, &recipe.data, &|text| reporter.note(text))?)
        } else {
            None
        };
        if begins {
            dataset.compare_with(Split::Test)?;
        }
        tell(recipe, &method, &dataset);
        let first_batch = method.batches_before(progress.step);
        let dataset = Arc::new(dataset);
        let loader = open_loader(recipe, &method, dataset.clone(), first_batch)?;
        let total = total_steps(recipe, loader.steps_per_epoch());
        fsio::create_dir(run.root())?;
        let locked = if locked.is_some() { locked } else { start::lock(&run)? };
        let cost = StepCost::of(&method, &programs, total);
        start::prepare_folder(
            recipe,
            options,
            &run,
            &fit,
            &specs,
            &cost,
            table.as_ref(),
            dataset.notes(),
            record_of.as_ref(),
        )?;

        let resumed = (progress.step > 0).then_some(progress.step);
        if let Some(other) = before.filter(|b| resumed.is_some() && *b != options.device.name()) {
            reporter.note(&format!(
                "until now the run was on {other}: from here on it is not bit for bit what it would have been there"
            ));
        }
        let scalars = programs.iter().flat_map(|p| p.scalars.clone());
        let scores = validator.as_ref().map_or_else(Vec::new, Validator::columns);
        let mut columns: Vec<String> = Vec::new();
        for name in scalars.chain(["lr/G".to_string()]).chain(scores) {
            if !columns.contains(&name) {
                columns.push(name);
            }
        }
        let mut record = Record::open(&run, columns, resumed)?;
        if resumed.is_none() {
            let graph = model_graph::of(&trace_step(recipe, &method, &specs, &shapes));
            record.describe(recipe, &about(options, &specs), &graph)?;
        }
        record.settings(recipe)?;
        reporter.emit(
            "start",
            json!({
                "run": fsio::text(run.root()), "step": progress.step, "steps": total, "steps_per_epoch": loader.steps_per_epoch(),
                "batch": recipe.train.batch, "device": options.device.name(),
                "notes": dataset.notes().lines(),
            }),
        );
        dataset.notes().lines().iter().for_each(|text| reporter.note(&format!("note: {text}")));
        describe_plan(reporter, &specs, &cost, &options.device, total, loader.steps_per_epoch());
        let states = options.device.states(states)?;
        let first = progress.step;
        options.device.compile(programs.iter().map(|p| &p.program))?;
        let programs = programs.into_iter().map(|p| p.bind(&states)).collect::<Result<Vec<_>>>()?;
        Ok(Session {
            recipe,
            options,
            run,
            method,
            specs,
            states,
            ran: vec![false; programs.len()],
            programs,
            losses: Vec::new(),
            dataset,
            loader,
            validator,
            progress,
            total,
            fit,
            hash,
            record,
            health: Health::default(),
            began: Instant::now(),
            since: Instant::now(),
            paced: (first, Instant::now()),
            _lock: locked,
        })
    }

    fn run(mut self, reporter: &mut Reporter) -> Result<()> {
        reporter.begin(self.progress.step, self.total);
        let per_epoch = self.loader.steps_per_epoch();
        let every = self.recipe.validate.every_epochs as u64 * per_epoch;
        while self.progress.step < self.total {
            if self.options.stop.load(Ordering::Relaxed) {
                return self.stop(reporter);
            }
            self.step(None)?;
            let step = self.progress.step;
            let last = step == self.total;
            let log = step.is_multiple_of(self.recipe.log.every) || last || step == 1;
            let save = step.is_multiple_of(self.recipe.log.checkpoint_every) || last;
            let validate = self.validator.is_some() && ((every > 0 && step.is_multiple_of(every)) || last);
            // A GPU must be waited for to know them; and nothing is kept of weights that are none any more.
            if (log || save || validate || matches!(self.options.device, Device::Cpu))
                && let Some(fault) = self.fault(save || validate)?
            {
                self.survive(&fault, reporter)?;
                continue;
            }
            // One row a step: of losses, of scores, or of both.
            let mut row = Vec::new();
            if log {
                row.extend(self.log_losses()?);
                self.health.logged(&row).iter().for_each(|text| reporter.warn(step, text));
            }
            reporter.step(step, &self.losses, self.recipe.train.batch, log.then_some(&row));
            let histograms = self.recipe.log.histograms;
            if histograms > 0 && (step.is_multiple_of(histograms) || last || step == 1) {
                self.histograms()?;
            }
            if validate {
                let scores = self.validate(reporter)?;
                reporter.validation(step, &scores);
                self.health
                    .validated(&scores, step, self.total)
                    .iter()
                    .for_each(|text| reporter.warn(step, text));
                row.extend(scores);
            }
            if !row.is_empty() {
                self.record.row(step, &row)?;
            }
            if save {
                self.checkpoint("last", reporter)?;
            }
        }
        self.finish(reporter)
    }

    /// Ends on request, after a checkpoint.
    fn stop(&mut self, reporter: &mut Reporter) -> Result<()> {
        let fault = if self.progress.step > 0 { self.fault(true)? } else { None };
        reporter.end();
        let step = self.progress.step;
        match fault {
            None => self.checkpoint("last", reporter)?,
            Some(fault) => {
                reporter.note(&format!("{fault} by step {step}: the checkpoint before it is kept"))
            }
        }
        reporter.note(&format!(
            "stopped at step {step} of {}; continue with --resume --out {}",
            self.total,
            self.run.root().display()
        ));
        Err(Error::Interrupted)
    }

    /// Runs one step, or asks a GPU for it; under a guard it is run operation by operation.
    fn step(&mut self, mut guard: Option<&mut Guard>) -> Result<()> {
        let step = self.progress.step;
        let rates = self.learning_rates(step);
        let pools = self.method.pools(&shapes(self.recipe, &self.fit).size);
        let pools = pool_choices(self.recipe, &pools, step);
        for run in self.method.runs(step) {
            let batch = if run.takes_batch { Some(self.loader.next()?) } else { None };
            let scalars = self.method.scalars(&self.specs, run, rates);
            let mut inputs: Vec<(&str, &[f32])> =
                scalars.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            inputs.extend(pools.iter().map(|(n, v)| (n.as_str(), v.as_slice())));
            if let Some(batch) = &batch {
                inputs.extend([("input", batch.input.as_slice()), ("target", batch.target.as_slice())]);
            }
            let program = &mut self.programs[run.part].program;
            self.ran[run.part] = true;
            match &mut guard {
                None => program.run(&mut self.states, &inputs)?,
                Some(guard) => {
                    let source = batch.as_ref().map_or_else(String::new, |b| b.ids.join(", "));
                    guard.run(run.part, program, &mut self.states, &inputs, &source)?;
                }
            }
        }
        self.progress.step += 1;
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
        let cuts: f64 = self.progress.lr_cuts.iter().product();
        let factor = cuts * self.schedule().factor(epoch as f64, &self.progress.plateau);
        [o.lr * factor, o.lr_discriminator.unwrap_or(o.lr) * factor]
    }

    /// Writes the losses and the learning rate for TensorBoard and returns them.
    fn log_losses(&mut self) -> Result<Vec<(String, f64)>> {
        let step = self.progress.step;
        // The rate that this step, the last one done, was taken with.
        let [lr, _] = self.learning_rates(step - 1);
        let mut row = self.losses.clone();
        row.push(("lr/G".to_string(), lr));
        self.record.scalars(step, &row)?;
        // The table has no times: it is the same for every run of a recipe.
        let (before, then) = std::mem::replace(&mut self.paced, (step, Instant::now()));
        let each = then.elapsed().as_secs_f64() / step.saturating_sub(before).max(1) as f64;
        let speed = self.recipe.train.batch as f64 / each.max(1e-9);
        let pace = [("perf/step_ms".to_string(), 1e3 * each), ("perf/images_per_s".to_string(), speed)];
        self.record.scalars(step, &pace)?;
        Ok(row)
    }

    /// Writes histograms of all networks.
    fn histograms(&mut self) -> Result<()> {
        let step = self.progress.step;
        for net in &self.specs {
            // Programs that a step runs may update different networks.
            let gradient = self.programs.iter_mut().find(|p| p.gradients.contains(&net.name));
            let gradient = gradient
                .map(|p| p.program.output(&mut self.states, &format!("gradient/{}", net.name)))
                .transpose()?;
            let weights = &self.states.host()?.get::<f32>(&net.store_name())[..net.param_count()];
            self.record.histograms(step, net, weights, gradient.as_deref())?;
        }
        Ok(())
    }

    /// Predicts the validation subjects, scores them, draws samples, and keeps the best checkpoint.
    fn validate(&mut self, reporter: &Reporter) -> Result<Vec<(String, f64)>> {
        let step = self.progress.step;
        let net = predictor::predicting(&self.method, &self.specs);
        let Some(validator) = &mut self.validator else { return Ok(Vec::new()) };
        let states = prediction_states(self.recipe, &self.method, self.states.host()?, net);
        let seen = validator.look(self.recipe, &self.method, net, states)?;
        self.record.seen(step, &seen)?;
        let metric = self.recipe.validate.metric;
        let wanted = format!("val/{}", metric.name());
        let value = seen.scores.iter().find(|(n, _)| *n == wanted).map_or(f64::NAN, |(_, v)| *v);
        self.schedule().observe(value, &mut self.progress.plateau);
        if value.is_nan() {
            reporter.warn(step, &format!("{wanted} is no number: this validation cannot be the best"));
        }
        if metric.improves(value, self.progress.best.map(|(best, _)| best)) {
            self.progress.best = Some((value, step));
            self.checkpoint("best", reporter)?;
        }
        Ok(seen.scores)
    }

    fn checkpoint(&mut self, which: &str, reporter: &Reporter) -> Result<()> {
        let dir = self.run.checkpoints();
        let states = self.states.host()?;
        // A frozen network is in the state alone: nothing else needs it.
        for net in self.specs.iter().filter(|s| !self.method.frozen(&s.name)) {
            checkpoint::save_weights(
                &checkpoint::weights_path(&dir, which, &net.name),
                net,
                &prediction_states(self.recipe, &self.method, states, net),
                &predictor::architecture(self.recipe, &self.method, &net.name),
            )?;
        }
        if which == "last" {
            self.record.flush()?;
            checkpoint::save_state(
                &checkpoint::state_path(&dir, which),
                &self.specs,
                states,
                &self.progress,
                &self.hash,
            )?;
            self.note_time(false)?;
        }
        reporter.checkpoint(self.progress.step, which);
        Ok(())
    }

    /// Brings the times in `run.json` up to date.
    fn note_time(&mut self, finished: bool) -> Result<()> {
        let mut info: RunInfo = self.run.load_json("run.json")?;
        info.finished = finished;
        info.updated = info::now();
        info.seconds += std::mem::replace(&mut self.since, Instant::now()).elapsed().as_secs_f64();
        self.run.save_json("run.json", &info)
    }

    fn finish(mut self, reporter: &mut Reporter) -> Result<()> {
        reporter.end();
        self.note_time(true)?;
        let mut results: Vec<(String, f64)> = self
            .losses
            .iter()
            .filter_map(|(n, v)| Some((format!("final/{}", n.strip_prefix("loss/")?), *v)))
            .collect();
        let best = self
            .progress
            .best
            .map(|(v, _)| (format!("final/best_{}", self.recipe.validate.metric.name()), v));
        results.extend(best);
        self.record.finish(self.progress.step, &results)?;
        reporter.summary(&self.run, &self.progress, self.began.elapsed());
        Ok(())
    }
}
