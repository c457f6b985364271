//! What a person sees of a run in the terminal: a progress bar, or plain lines where there is no terminal.

use super::checkpoint::Progress;
use super::csvlog::{duration, rate};
use super::run::RunDir;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Seconds between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Writes to standard error; standard output is for results.
pub struct Reporter {
    quiet: bool,
    bar: Option<ProgressBar>,
    total: u64,
    first: u64,
    began: Instant,
    last_line: Instant,
    headline: &'static str,
    history: Vec<f64>,
}

/// Writes a line to standard error. That it can't be written (a closed pipe, a full disk) ends no training.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Reporter {
    /// A reporter that is silent if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Reporter {
            quiet,
            bar: None,
            total: 0,
            first: 0,
            began: now,
            last_line: now,
            headline: "",
            history: Vec::new(),
        }
    }

    /// Names the loss whose course the last lines show.
    pub fn watch(&mut self, headline: &'static str) {
        self.headline = headline;
    }

    /// One line of information.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if !self.quiet => line(text),
            None => {}
        }
    }

    /// The loop begins.
    pub fn begin(&mut self, done: u64, total: u64) {
        (self.total, self.first, self.began, self.last_line) = (total, done, Instant::now(), Instant::now());
        if !self.quiet && std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total).with_position(done);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} [{elapsed} < {eta}] {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    /// A step was done.
    pub fn step(&mut self, step: u64, losses: &[(String, f64)], batch: usize) {
        if let Some((_, v)) = losses.iter().find(|(n, _)| n == self.headline) {
            self.history.push(*v);
        }
        if self.quiet {
            return;
        }
        let done = (step - self.first) as f64;
        let speed = done * batch as f64 / self.began.elapsed().as_secs_f64().max(1e-9);
        let text = || {
            let parts: Vec<String> =
                losses.iter().map(|(n, v)| format!("{} {v:.3}", n.trim_start_matches("loss/"))).collect();
            format!("{}  {}", parts.join("  "), rate(speed, "img"))
        };
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(text());
        } else if self.last_line.elapsed() >= LINE_EVERY || step == self.total || step == self.first + 1 {
            self.last_line = Instant::now();
            let left = self.began.elapsed().div_f64(done.max(1.0)).mul_f64((self.total - step) as f64);
            line(&format!("step {step}/{}  {}  {} left", self.total, text(), duration(left)));
        }
    }

    /// A validation was done.
    pub fn validation(&mut self, step: u64, scores: &[(String, f64)]) {
        let parts: Vec<String> =
            scores.iter().map(|(n, v)| format!("{} {v:.4}", n.trim_start_matches("val/"))).collect();
        self.note(&format!("validation at step {step}: {}", parts.join("  ")));
    }

    /// The loop ends.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// The last lines of a run.
    pub fn summary(&self, run: &RunDir, progress: &Progress, took: Duration) {
        if self.quiet {
            return;
        }
        let best =
            progress.best.map_or(String::new(), |(v, s)| format!(", best validation {v:.4} at step {s}"));
        line(&format!("finished {} steps in {}{best}", progress.step, duration(took)));
        let name = self.headline.trim_start_matches("loss/");
        line(&format!("{name} {}", super::csvlog::sparkline(&self.history, 60)));
        let root = run.root().display();
        line(&format!("look at it:   tensorboard --logdir {root}    and {root}/samples"));
        line(&format!("measure it:   gan evaluate {root}"));
    }
}
