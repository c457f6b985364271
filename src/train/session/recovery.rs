//! When numbers stop being numbers: finding out where, and going on or ending.

use super::super::setup::{initial_states, open_loader, shapes};
use super::Session;
use crate::data::Notes;
use crate::error::{Error, Result};
use crate::exec::device::Device;
use crate::recipe::OnNan;
use crate::run::checkpoint::{self, Progress};
use crate::run::info::RunInfo;
use crate::train::guard::{self, Finding, Guard};
use crate::train::reporter::Reporter;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Session<'_> {
    /// Reads the losses of the last step; says what is no number any more, among them and, if asked for, in the states.
    pub(super) fn fault(&mut self, states: bool) -> Result<Option<String>> {
        // Of several programs that log under one name, such as the norm of a gradient, that counts which ran in this step.
        let now = self.method.runs(self.progress.step.saturating_sub(1));
        let mut order: Vec<usize> = (0..self.programs.len()).collect();
        order.sort_by_key(|part| now.iter().all(|run| run.part != *part));
        let (mut losses, mut seldom): (Vec<(String, f64)>, _) = (Vec::new(), Vec::new());
        for i in order {
            let part = &mut self.programs[i];
            let values: Vec<(String, f64)> = if self.ran[i] {
                let names: Vec<&str> = part.scalars.iter().map(String::as_str).collect();
                let values = part.program.scalars(&mut self.states, &names)?;
                part.scalars.iter().cloned().zip(values).collect()
            } else {
                // As of the checkpoint that the run was taken up from, if it had run by then.
                let known = self.progress.losses.iter().filter(|l| l.0 == i);
                known.map(|(_, name, value)| (name.clone(), f64::from(*value))).collect()
            };
            if !self.method.always(i) {
                seldom.extend(values.iter().map(|(n, v)| (i, n.clone(), *v as f32)));
            }
            for (name, value) in values {
                if losses.iter().all(|(known, _)| *known != name) {
                    losses.push((name, value));
                }
            }
        }
        self.losses = losses;
        self.progress.losses = seldom;
        if let Some((name, value)) = self.losses.iter().find(|(_, v)| !v.is_finite()) {
            return Ok(Some(format!("{name} became {value}")));
        }
        if !states {
            return Ok(None);
        }
        let found = guard::bad_tensor(&self.specs, self.states.host()?);
        Ok(found.map(|tensor| format!("{tensor} stopped being numbers")))
    }

    /// Looks for where a fault began, by repeating the steps since the last checkpoint with a look at everything; then ends
    /// the run, or lets it go on from that checkpoint with a lower learning rate, as the recipe wants it.
    pub(super) fn survive(&mut self, fault: &str, reporter: &mut Reporter) -> Result<()> {
        let health = self.recipe.health.clone();
        let at = self.progress.step;
        let when = if matches!(self.options.device, Device::Cpu) { "at" } else { "by" };
        let cuts = self.progress.lr_cuts.clone();
        let good = self.roll_back()?;
        reporter.note(&format!(
            "{fault} {when} step {at}; repeating the steps from {good} on to see where it began"
        ));
        let story = match self.trace_back(at)? {
            Some((step, found)) => format!("{fault} {when} step {at}: in step {step}, {found}"),
            None => format!(
                "{fault} {when} step {at}, and not when the steps were repeated: suspect the hardware"
            ),
        };
        let stands = match good {
            0 => "there was no checkpoint yet".to_string(),
            step => format!("the last good checkpoint, of step {step}, stands"),
        };
        let out = "lower `optimiser.lr`, set `optimiser.clip_norm`, or check the images for outliers";
        if health.nan == OnNan::Stop {
            return Err(Error::input(format!(
                "{story}; {stands}: {out}; `health.nan = \"roll-back\"` goes on by itself"
            )));
        }
        if cuts.len() >= health.retries {
            return Err(Error::input(format!(
                "{story}; {stands}, and the run was rolled back {} times already (`health.retries`): {out}",
                cuts.len()
            )));
        }
        self.roll_back()?;
        self.progress.lr_cuts = cuts;
        self.progress.lr_cuts.push(health.lr_factor);
        let text = format!("{story}; rolled back to step {good}, learning rate times {}", health.lr_factor);
        self.record.back_to(good)?;
        self.record.incident(good, &text)?;
        let mut info: RunInfo = self.run.load_json("run.json")?;
        info.incidents.push(text.clone());
        self.run.save_json("run.json", &info)?;
        reporter.begin(good, self.total);
        reporter.warn(good, &text);
        self.paced = (good, Instant::now());
        Ok(())
    }

    /// Goes back to the last checkpoint, or to the beginning where there is none; returns its step. What was best stays
    /// so: its weights are on the disk.
    fn roll_back(&mut self) -> Result<u64> {
        let shapes = shapes(self.recipe, &self.fit);
        let mut states = initial_states(self.recipe, &self.method, &self.specs, &shapes, &Notes::default())?;
        let path = checkpoint::state_path(&self.run.checkpoints(), "last");
        let best = self.progress.best;
        self.progress = match path.exists() {
            true => checkpoint::load_state(&path, &self.specs, &mut states, &self.hash)?,
            false => Progress::default(),
        };
        self.progress.best = best;
        self.ran.fill(false);
        self.states.set(states)?;
        let first = self.method.batches_before(self.progress.step);
        self.loader = open_loader(self.recipe, &self.method, self.dataset.clone(), first)?;
        Ok(self.progress.step)
    }

    /// Repeats the steps up to `until` under a guard; the first that goes wrong, and where in it.
    fn trace_back(&mut self, until: u64) -> Result<Option<(u64, Finding)>> {
        let mut guard = Guard::new(&self.specs, self.states.host()?);
        while self.progress.step < until {
            self.step(Some(&mut guard))?;
            let sound = self.fault(false)?.is_none();
            if let Some(found) = guard.settle(sound) {
                return Ok(Some((self.progress.step, found)));
            }
            if self.options.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
        }
        Ok(None)
    }
}
