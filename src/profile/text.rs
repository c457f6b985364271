//! A profile for the terminal: the verdict first, then where to look.

use super::report::{Kernel, Profile};
use crate::exec::cost::Bound;
use crate::watch::csvlog;
use std::fmt::Write as _;

/// Rows of the table that are printed; the files have all of them.
const ROWS: usize = 25;
/// The share of the processor time that others may take before it is said.
const CROWDED: f64 = 0.05;
/// Layers that are printed, and how deep.
const LAYERS: usize = 30;
const DEPTH: usize = 2;

/// The verdict: what the step takes, why, and what to mend first.
pub fn verdict(p: &Profile) -> String {
    let mut out = String::new();
    let mut say = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    let (t, s, w) = (&p.step, &p.shares, &p.work);
    let extents = p.subject.size.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
    say(format!(
        "{}: batch {}, {extents}, {} on {}",
        p.subject.recipe, p.subject.batch, p.subject.precision, p.subject.on
    ));
    say(format!("timing      {}", p.timing));
    say(format!(
        "peaks       {:.1} GFLOP/s; {} (the highest seen of this program's own kernels)",
        p.peaks.flops_per_s / 1e9,
        bandwidths(p)
    ));
    say(String::new());
    say(format!(
        "a step      {:.2} ms (median of {}; half of them {:.2} to {:.2}, all {:.2} to {:.2})",
        t.median_ms,
        t.ms.len(),
        t.p25_ms,
        t.p75_ms,
        t.min_ms,
        t.max_ms
    ));
    let share = |ms: f64| format!("{:.1} %", 100.0 * ms / s.step_ms.max(1e-12));
    let idle = s.idle_data_ms + s.idle_host_ms + s.idle_synchronisation_ms;
    say(format!(
        "of which    computing {}, copying {}, idle {} (waiting for data {}, for the host {}, synchronising {})",
        share(s.compute_ms),
        share(s.copies_ms),
        share(idle),
        share(s.idle_data_ms),
        share(s.idle_host_ms),
        share(s.idle_synchronisation_ms)
    ));
    say(format!(
        "floor       {:.2} ms ({:.1} GFLOP, of which products {:.1}; {} moved{}): the step takes {:.1} times as long",
        w.floor_ms,
        w.flops as f64 / 1e9,
        w.product_flops as f64 / 1e9,
        csvlog::bytes(w.bytes),
        match w.traced_bytes {
            0 => String::new(),
            traced => format!(", of {} as traced", csvlog::bytes(traced)),
        },
        t.median_ms / w.floor_ms.max(1e-12)
    ));
    say(format!(
        "memory      {} in all: parameters {}, optimiser {}, temporaries {}{}{}",
        csvlog::bytes(p.memory.total_bytes),
        csvlog::bytes(p.memory.kept.parameters),
        csvlog::bytes(p.memory.kept.optimiser),
        csvlog::bytes(p.memory.temporaries_bytes),
        if p.memory.kept.ema + p.memory.kept.other > 0 {
            format!(", other states {}", csvlog::bytes(p.memory.kept.ema + p.memory.kept.other))
        } else {
            String::new()
        },
        if p.memory.other_bytes > 0 {
            format!(", workspace and staging {}", csvlog::bytes(p.memory.other_bytes))
        } else {
            String::new()
        }
    ));
    say(input(p));
    say(format!(
        "profiling   costs {:+.1} % (steps with every call timed: {:.2} ms)",
        100.0 * t.overhead,
        t.watched_ms
    ));
    if let Some(crowded) = t.crowded.filter(|c| *c > CROWDED) {
        say(format!(
            "busy        other programs took {:.0} % of the processor time that this one could have used: times are too long, peaks too low",
            100.0 * crowded
        ));
    }
    if !p.mending.is_empty() {
        say(String::new());
        say("most to gain (time above the floor, a step):".into());
        for m in &p.mending {
            let k = &p.kernels[m.kernel];
            say(format!(
                "  {:>8.3} ms  {} in {}, {}: {:.3} ms, at {}",
                m.gain_ms,
                name(k),
                layer(k),
                k.phase,
                1e-3 * k.median_us * k.calls,
                reached(k)
            ));
        }
    }
    out
}

fn bandwidths(p: &Profile) -> String {
    let rates = p.peaks.bandwidth.iter();
    let each: Vec<String> =
        rates.map(|b| format!("{:.1} GB/s at {}", b.bytes_per_s / 1e9, csvlog::bytes(b.bytes))).collect();
    each.join(", ")
}

fn input(p: &Profile) -> String {
    let i = &p.input;
    let each = i.batch_ms.map_or(String::new(), |ms| format!("; one thread takes {ms:.2} ms for a batch"));
    format!(
        "input       a step takes {} and waits {:.2} ms for it (longest {:.2}; {} of {} steps stalled); {} workers{each}",
        if i.batches == 1.0 { "one batch".into() } else { format!("{} batches", i.batches) },
        i.wait_ms,
        i.longest_wait_ms,
        i.stalled_steps,
        i.steps,
        i.workers
    )
}

fn name(k: &Kernel) -> String {
    match &k.kernel {
        Some(kernel) => format!("{kernel} ({})", k.operation),
        None => k.operation.clone(),
    }
}

fn layer(k: &Kernel) -> &str {
    if k.layer.is_empty() { "no layer" } else { &k.layer }
}

fn reached(k: &Kernel) -> String {
    match k.bound {
        Bound::Compute => format!("{:.0} % of the peak GFLOP/s", 100.0 * k.flops_share),
        Bound::Memory => format!("{:.0} % of the peak GB/s", 100.0 * k.bytes_share),
    }
}

/// The table of operations or kernels.
pub fn table(p: &Profile) -> String {
    let gpu = p.kernels.iter().any(|k| k.gpu.is_some());
    let mut out = String::new();
    let mut head = format!(
        "{:>9} {:>6} {:>6} {:>9} {:>9} {:>9} {:>5} {:>8} {:>5}  bound ",
        "ms/step", "share", "calls", "median us", "p95 us", "GFLOP/s", "peak", "GB/s", "peak"
    );
    if gpu {
        head += &format!(
            "{:>14} {:>5} {:>4} {:>7} {:>6} {:>5} {:>7} ",
            "grid", "block", "regs", "shared", "spills", "occ.", "gap us"
        );
    }
    let _ = writeln!(out, "{head} kernel, layer, phase, output");
    for k in p.kernels.iter().take(ROWS) {
        let _ = write!(
            out,
            "{:>9.3} {:>5.1}% {:>6} {:>9.1} {:>9.1} {:>9.1} {:>4.0}% {:>8.2} {:>4.0}%  {:<6}",
            k.total_ms,
            100.0 * k.share,
            (k.calls * 10.0).round() / 10.0,
            k.median_us,
            k.p95_us,
            k.gflops_per_s,
            100.0 * k.flops_share,
            k.gb_per_s,
            100.0 * k.bytes_share,
            if k.bound == Bound::Compute { "flops" } else { "bytes" }
        );
        if let Some(g) = &k.gpu {
            let grid = g.grid.map(|n| n.to_string()).join("x");
            let occupancy = g.occupancy.map_or("?".into(), |o| format!("{:.0}%", 100.0 * o));
            let _ = write!(
                out,
                "{grid:>14} {:>5} {:>4} {:>7} {:>6} {occupancy:>5} {:>7.1} ",
                g.block, g.registers, g.shared, g.spilled, g.gap_us
            );
        }
        let _ = writeln!(out, "  {}, {}, {}, {}", name(k), layer(k), k.phase, k.shape);
    }
    if let Some(rest) = p.kernels.get(ROWS..).filter(|r| !r.is_empty()) {
        let total: f64 = rest.iter().map(|k| k.total_ms).sum();
        let _ =
            writeln!(out, "{total:>9.3} {:>19} more rows (all of them with --json or --html)", rest.len());
    }
    out
}

/// Time by layer and phase.
pub fn tree(p: &Profile) -> String {
    let phases = p.phases();
    let mut out = String::new();
    let shown: Vec<_> = p.layers.iter().filter(|l| l.depth < DEPTH).collect();
    let width = shown
        .iter()
        .map(|l| 2 * l.depth + last(&l.path).len())
        .max()
        .unwrap_or(5)
        .max("layer (ms a step)".len());
    let _ = write!(out, "{:<width$} {:>9}", "layer (ms a step)", "all");
    for phase in &phases {
        let _ = write!(out, " {:>w$}", phase, w = phase.len().max(8));
    }
    out.push('\n');
    for l in shown.iter().take(LAYERS) {
        let _ = write!(
            out,
            "{:<width$} {:>9.3}",
            format!("{}{}", "  ".repeat(l.depth), last(&l.path)),
            l.total_ms
        );
        for phase in &phases {
            let w = phase.len().max(8);
            match l.phases.get(phase) {
                Some(ms) => {
                    let _ = write!(out, " {ms:>w$.3}");
                }
                None => {
                    let _ = write!(out, " {:>w$}", "");
                }
            }
        }
        out.push('\n');
    }
    if let Some(rest) = shown.len().checked_sub(LAYERS).filter(|n| *n > 0) {
        let _ = writeln!(out, "{rest} more layers (all of them with --json or --html)");
    }
    out
}

fn last(path: &str) -> &str {
    if path.is_empty() { "(no layer)" } else { path.rsplit('/').next().unwrap_or(path) }
}

/// Temporaries by owner at the peak of each program.
pub fn memory(p: &Profile) -> String {
    let mut out = String::new();
    for (i, program) in p.memory.programs.iter().enumerate() {
        let of = if p.memory.programs.len() > 1 { format!(" of program {i}") } else { String::new() };
        let _ = writeln!(
            out,
            "temporaries{of}: {} reserved; at the peak (in {}, {}) activations {}, gradients {}, inputs {}",
            csvlog::bytes(program.reserved_bytes),
            if program.peak_layer.is_empty() { "no layer" } else { &program.peak_layer },
            program.peak_phase,
            csvlog::bytes(program.peak.activations),
            csvlog::bytes(program.peak.gradients),
            csvlog::bytes(program.peak.inputs)
        );
    }
    if let Some(peak) = p.memory.process_peak_bytes {
        let _ =
            writeln!(out, "the process held {} of the computer's memory at the most", csvlog::bytes(peak));
    }
    out
}

/// All of it.
pub fn whole(p: &Profile) -> String {
    [verdict(p), table(p), tree(p), memory(p)].join("\n")
}
