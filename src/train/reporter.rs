//! What is seen of a run while it goes on: for people a progress bar, or plain lines where there is no terminal; for
//! programs a JSON object a line on standard output (`docs/watching.md` describes them).

use crate::device::cuda::workers::{self, Compilation};
use crate::run::checkpoint::Progress;
use crate::run::folder::RunDir;
use crate::watch::csvlog::{duration, rate};
use crate::watch::table::Table;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Writes to standard error; standard output is for results, and for the lines of JSON.
pub struct Reporter {
    quiet: bool,
    json: bool,
    bar: Option<ProgressBar>,
    total: u64,
    first: u64,
    began: Instant,
    last_line: Instant,
}

/// Writes a line to standard error. That it can't be written (a closed pipe, a full disk) ends no training.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Tells of kernels that are being compiled: by a bar on a terminal, elsewhere by a line when they begin.
pub fn show_compilation() {
    let shown: Mutex<Option<ProgressBar>> = Mutex::default();
    workers::watch(move |now: &Compilation| {
        let mut bar = shown.lock().unwrap_or_else(|e| e.into_inner());
        if now.done == 0 {
            let text = format!(
                "compiling {} kernel{} for {} in {} process{}",
                now.missing,
                if now.missing == 1 { "" } else { "s" },
                now.architecture,
                now.processes,
                if now.processes == 1 { "" } else { "es" }
            );
            if !std::io::stderr().is_terminal() {
                return line(&text);
            }
            let new = ProgressBar::new(now.missing as u64).with_message(text);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} [{elapsed} < {eta}] {msg}");
            new.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            *bar = Some(new);
        }
        if let Some(shown) = &*bar {
            shown.set_position(now.done as u64);
        }
        if now.done == now.missing
            && let Some(shown) = bar.take()
        {
            shown.finish_and_clear();
        }
    });
}

/// Named numbers as an object. What is no number is null.
fn object(values: &[(String, f64)]) -> Value {
    Value::Object(values.iter().map(|(n, v)| (n.clone(), json!(v))).collect::<Map<_, _>>())
}

impl Reporter {
    /// A reporter that says nothing to people if `quiet`, and something to programs if `json`.
    pub fn new(quiet: bool, json: bool) -> Self {
        let now = Instant::now();
        Reporter { quiet, json, bar: None, total: 0, first: 0, began: now, last_line: now }
    }

    /// A line for programs. That it can't be written ends no training.
    pub fn emit(&self, event: &str, fields: Value) {
        if !self.json {
            return;
        }
        let mut all = Map::from_iter([("event".to_string(), json!(event))]);
        if let Value::Object(fields) = fields {
            all.extend(fields);
        }
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", Value::Object(all)).and_then(|()| out.flush());
    }

    /// One line of information.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if !self.quiet => line(text),
            None => {}
        }
    }

    /// Something that is worth a look.
    pub fn warn(&self, step: u64, text: &str) {
        self.note(&format!("health at step {step}: {text}"));
        self.emit("warning", json!({ "step": step, "message": text }));
    }

    /// The loop begins, or begins again at an earlier step.
    pub fn begin(&mut self, done: u64, total: u64) {
        (self.total, self.first, self.began, self.last_line) = (total, done, Instant::now(), Instant::now());
        if !self.quiet && std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total).with_position(done);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} [{elapsed} < {eta}] {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.reset_eta();
            if let Some(old) = self.bar.replace(bar) {
                old.finish_and_clear();
            }
        }
    }

    /// A step was done. `logged` are the numbers that go into the table, if this step's do.
    pub fn step(
        &mut self,
        step: u64,
        losses: &[(String, f64)],
        batch: usize,
        logged: Option<&[(String, f64)]>,
    ) {
        let done = step.saturating_sub(self.first) as f64;
        let elapsed = self.began.elapsed();
        let speed = done * batch as f64 / elapsed.as_secs_f64().max(1e-9);
        let left = elapsed.div_f64(done.max(1.0)).mul_f64(self.total.saturating_sub(step) as f64);
        if let Some(values) = logged {
            self.emit(
                "step",
                json!({
                    "step": step, "steps": self.total, "seconds": elapsed.as_secs_f64(),
                    "seconds_left": left.as_secs_f64(), "images_per_second": speed, "values": object(values),
                }),
            );
        }
        if self.quiet {
            return;
        }
        let text = || {
            let shown =
                losses.iter().filter_map(|(n, v)| Some(format!("{} {v:.3}", n.strip_prefix("loss/")?)));
            format!("{}  {}", shown.collect::<Vec<_>>().join("  "), rate(speed, "img"))
        };
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(text());
        } else if self.last_line.elapsed() >= LINE_EVERY || step == self.total || step == self.first + 1 {
            self.last_line = Instant::now();
            line(&format!("step {step}/{}  {}  {} left", self.total, text(), duration(left)));
        }
    }

    /// A validation was done.
    pub fn validation(&mut self, step: u64, scores: &[(String, f64)]) {
        let parts: Vec<String> =
            scores.iter().map(|(n, v)| format!("{} {v:.4}", n.rsplit('/').next().unwrap_or(n))).collect();
        self.note(&format!("validation at step {step}: {}", parts.join("  ")));
        self.emit("validation", json!({ "step": step, "values": object(scores) }));
    }

    /// A checkpoint was written.
    pub fn checkpoint(&self, step: u64, which: &str) {
        self.emit("checkpoint", json!({ "step": step, "which": which }));
    }

    /// The loop ends.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// The last lines of a run: its numbers in a table with their course, and where to look.
    pub fn summary(&self, run: &RunDir, progress: &Progress, took: Duration) {
        if self.quiet {
            return;
        }
        let best =
            progress.best.map_or(String::new(), |(v, s)| format!(", best validation {v:.4} at step {s}"));
        line(&format!("finished {} steps in {}{best}\n", progress.step, duration(took)));
        if let Ok(table) = Table::read(&run.join("metrics.csv")) {
            line(&format!("{}\n", table.summary()));
        }
        let root = run.root().display();
        line(&format!("look at it:   tensorboard --logdir {root}    and {root}/samples"));
        line(&format!("measure it:   gan evaluate {root}"));
        line(&format!("report it:    gan report {root}"));
    }
}
