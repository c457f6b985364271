//! Whether a step has become slower from one profile to another, and where.

use super::report::{Kernel, Profile};
use super::summary::quantile;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Rows of a comparison that are printed.
const ROWS: usize = 12;

/// The outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By more than the noise.
    Slower,
    /// No change that stands out of the noise.
    Same,
    /// By more than the noise.
    Faster,
}

/// Two profiles side by side.
pub struct Diff<'a> {
    old: &'a Profile,
    new: &'a Profile,
    /// The change of the median that counts, as a share of the old one.
    pub noise: f64,
    /// The change of the median, as a share of the old one.
    pub change: f64,
}

/// How far a median of so many steps may be off by chance, as a share of it: twice its standard error, told from the
/// quartiles (of normal numbers they lie 1.349 standard deviations apart, and a median's error is 1.253 times a mean's).
fn spread(p: &Profile) -> f64 {
    let mut ms = p.step.ms.clone();
    ms.sort_by(f64::total_cmp);
    let deviation = (quantile(&ms, 0.75) - quantile(&ms, 0.25)) / 1.349;
    2.0 * 1.253 * deviation / (ms.len().max(1) as f64).sqrt() / p.step.median_ms.max(1e-12)
}

impl<'a> Diff<'a> {
    /// Compares; `threshold` is the least change that counts, as a share. Where the steps of either profile scatter so
    /// much that their medians are less certain than that, more is asked for.
    pub fn new(old: &'a Profile, new: &'a Profile, threshold: f64) -> Self {
        let scatter = spread(old).hypot(spread(new));
        let change = new.step.median_ms / old.step.median_ms.max(1e-12) - 1.0;
        Diff { old, new, noise: threshold.max(scatter), change }
    }

    /// Slower, faster, or neither.
    pub fn verdict(&self) -> Verdict {
        if self.change > self.noise {
            Verdict::Slower
        } else if self.change < -self.noise {
            Verdict::Faster
        } else {
            Verdict::Same
        }
    }

    /// What differs in the circumstances, so that times do not compare.
    pub fn caveats(&self) -> Vec<String> {
        let (a, b) = (&self.old.subject, &self.new.subject);
        let mut all = Vec::new();
        let mut differ = |what: &str, x: String, y: String| {
            if x != y {
                all.push(format!("{what}: {x} then, {y} now"));
            }
        };
        differ("recipe", a.recipe.clone(), b.recipe.clone());
        differ("batch", a.batch.to_string(), b.batch.to_string());
        differ("size", format!("{:?}", a.size), format!("{:?}", b.size));
        differ("device", a.on.clone(), b.on.clone());
        differ("precision", a.precision.clone(), b.precision.clone());
        if let (Some(a), Some(b)) = (self.old.mode, self.new.mode) {
            differ("timing of calls", format!("{a:?}").to_lowercase(), format!("{b:?}").to_lowercase());
        }
        differ("FLOPs", self.old.work.flops.to_string(), self.new.work.flops.to_string());
        all
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for caveat in self.caveats() {
            let _ = writeln!(out, "not alike: {caveat}");
        }
        let word = match self.verdict() {
            Verdict::Slower => "slower",
            Verdict::Same => "no change beyond the noise",
            Verdict::Faster => "faster",
        };
        let _ = writeln!(
            out,
            "a step: {:.2} ms then, {:.2} ms now: {:+.1} % (what counts: {:.1} %): {word}",
            self.old.step.median_ms,
            self.new.step.median_ms,
            100.0 * self.change,
            100.0 * self.noise
        );
        let rows = [
            ("computing", self.old.shares.compute_ms, self.new.shares.compute_ms),
            ("copying", self.old.shares.copies_ms, self.new.shares.copies_ms),
            ("waiting for data", self.old.shares.idle_data_ms, self.new.shares.idle_data_ms),
            ("waiting for the host", self.old.shares.idle_host_ms, self.new.shares.idle_host_ms),
            (
                "synchronising",
                self.old.shares.idle_synchronisation_ms,
                self.new.shares.idle_synchronisation_ms,
            ),
            ("floor", self.old.work.floor_ms, self.new.work.floor_ms),
        ];
        for (what, then, now) in rows {
            let _ = writeln!(out, "  {what:<22} {then:>10.3} {now:>10.3} ms  {:+.3}", now - then);
        }
        let (then, now) =
            (self.old.memory.total_bytes as f64 / 1e6, self.new.memory.total_bytes as f64 / 1e6);
        let _ = writeln!(out, "  {:<22} {then:>10.1} {now:>10.1} MB  {:+.1}", "memory", now - then);
        if !self.kernels().is_empty() {
            let _ = writeln!(out, "by kernel, layer and phase (ms a step), the largest changes:");
        }
        for (name, then, now) in self.kernels().into_iter().take(ROWS) {
            let _ = writeln!(out, "  {:+9.3}  {then:>9.3} {now:>9.3}  {name}", now - then);
        }
        out
    }

    /// Name, old and new time a step of what changed, the most changed first. Rows of the same name are added up.
    pub fn kernels(&self) -> Vec<(String, f64, f64)> {
        let mut all: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        let name = |k: &Kernel| {
            let kernel = k.kernel.as_ref().map_or(String::new(), |n| format!("{n} of "));
            let layer = if k.layer.is_empty() { "no layer" } else { &k.layer };
            format!("{kernel}{}, {layer}, {}", k.operation, k.phase)
        };
        for k in &self.old.kernels {
            all.entry(name(k)).or_default().0 += k.total_ms;
        }
        for k in &self.new.kernels {
            all.entry(name(k)).or_default().1 += k.total_ms;
        }
        let mut all: Vec<_> =
            all.into_iter().map(|(n, (a, b))| (n, a, b)).filter(|(_, a, b)| a != b).collect();
        all.sort_by(|a, b| (b.2 - b.1).abs().total_cmp(&(a.2 - a.1).abs()));
        all
    }
}
