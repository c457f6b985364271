//! From measured times to a [`Profile`].

use super::measure::{Measured, Work};
use super::memory::{Kept, Live, over_time};
use super::report::*;
use super::target::{Call, Target};
use crate::compile::plan::Step;
use crate::error::Result;
use crate::exec::cost::Peaks;
use crate::graph::Cost;
use std::collections::BTreeMap;

/// Rows that are named as worth mending.
const MENDING: usize = 3;
/// Points of a curve of memory over time.
const POINTS: usize = 400;

/// The value below which a share `q` of sorted numbers lies.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = q * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut all = values.to_vec();
    all.sort_by(f64::total_cmp);
    all
}

/// What tells rows apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    operation: &'static str,
    kernel: Option<&'static str>,
    variant: Option<String>,
    layer: String,
    phase: String,
    shape: String,
}

impl Key {
    fn of(step: &Step, call: &Call) -> Self {
        let launch = call.launched.as_ref().map(|l| &l.launch);
        Key {
            operation: step.op.name(),
            kernel: launch.map(|l| l.kernel),
            variant: launch.map(|l| l.specialisation.constants.join(" ")),
            layer: step.path.to_string(),
            phase: if step.phase.is_empty() { "other".into() } else { step.phase.to_string() },
            shape: step.output.shape.to_string(),
        }
    }
}

/// What falls into a row.
#[derive(Default)]
struct Row {
    seconds: Vec<f64>,
    gaps: f64,
    /// Of all calls together.
    cost: Cost,
    /// Seconds that all of them take at the least.
    floor: f64,
    gpu: Option<Gpu>,
}

/// Makes the profile; what it does not know is filled in by the caller.
pub fn summarise(
    target: &dyn Target,
    work: &Work,
    measured: &Measured,
    subject: Subject,
    peaks: Peaks,
) -> Result<Profile> {
    let steps = measured.watched.len().max(1) as f64;
    let parts = work.method.parts();
    let peaks = raised(peaks, target, parts, measured)?;
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    for part in 0..parts {
        let calls = target.calls(part)?;
        let owner = longest(&calls, part, measured);
        for (i, call) in calls.iter().enumerate() {
            let step = &target.plan(part).steps[call.step];
            let Some(samples) = measured.samples.get(&(part, i)) else { continue };
            let row = rows.entry(Key::of(step, call)).or_default();
            row.seconds.extend(samples);
            row.gaps += measured.gaps.get(&(part, i)).copied().unwrap_or(0.0);
            if owner.get(&call.step) == Some(&i) {
                let n = samples.len() as u64;
                row.cost.flops += n * step.cost.flops;
                row.cost.products += n * step.cost.products;
                row.cost.bytes += n * step.cost.bytes;
                row.floor += n as f64 * peaks.floor(&step.cost);
            }
            row.gpu = call.launched.as_ref().map(|l| Gpu {
                grid: l.launch.grid,
                block: l.launch.threads,
                registers: l.facts.registers,
                shared: l.facts.static_shared + l.launch.shared,
                spilled: l.facts.local,
                occupancy: l.occupancy,
                gap_us: 0.0,
            });
        }
    }
    let all: f64 = rows.values().flat_map(|r| &r.seconds).sum();
    let mut kernels: Vec<Kernel> =
        rows.into_iter().map(|(key, row)| kernel(key, row, &peaks, steps, all)).collect();
    kernels.sort_by(|a, b| b.total_ms.total_cmp(&a.total_ms));
    let mut mending: Vec<Mending> = kernels
        .iter()
        .enumerate()
        // By the median: a call that was held up by something else is nothing to mend.
        .map(|(kernel, k)| Mending { kernel, gain_ms: 1e-3 * k.median_us * k.calls - k.floor_ms })
        .filter(|m| m.gain_ms > 0.0)
        .collect();
    mending.sort_by(|a, b| b.gain_ms.total_cmp(&a.gain_ms));
    mending.truncate(MENDING);
    let runs = work.method.runs(u64::from(u32::MAX));
    let plans = || runs.iter().map(|r| target.plan(r.part));
    let cost: Cost = plans().map(|p| p.cost()).sum();
    Ok(Profile {
        format: FORMAT.into(),
        version: VERSION,
        program: env!("CARGO_PKG_VERSION").into(),
        timing: target.timing(),
        mode: Some(target.mode()),
        step: step_times(measured, target.asynchronous()),
        shares: shares(measured),
        work: WorkDone {
            calls: kernels.iter().map(|k| k.calls).sum(),
            flops: cost.flops,
            product_flops: cost.products,
            bytes: cost.bytes,
            traced_bytes: plans().map(|p| p.work.bytes).sum(),
            floor_ms: 1e3 * peaks.step_floor(plans()),
        },
        memory: memory(target, work),
        input: input(work, measured),
        layers: layers(&kernels),
        mending,
        kernels,
        subject,
        peaks,
    })
}

/// A peak is the highest rate that was seen, and the step itself may have shown a higher one than the measurement before it.
fn raised(mut peaks: Peaks, target: &dyn Target, parts: usize, measured: &Measured) -> Result<Peaks> {
    for part in 0..parts {
        let calls = target.calls(part)?;
        for (step, call) in longest(&calls, part, measured) {
            let Some(samples) = measured.samples.get(&(part, call)) else { continue };
            let median = quantile(&sorted(samples), 0.5);
            let products = target.plan(part).steps[step].cost.products as f64;
            if median > 0.0 && calls.iter().filter(|c| c.step == step).count() == 1 {
                peaks.flops_per_s = peaks.flops_per_s.max(products / median);
            }
        }
    }
    Ok(peaks)
}

/// For each step of a plan, the call that takes most of its time.
fn longest(calls: &[Call], part: usize, measured: &Measured) -> BTreeMap<usize, usize> {
    let total = |call: usize| measured.samples.get(&(part, call)).map_or(0.0, |s| s.iter().sum::<f64>());
    let mut owner: BTreeMap<usize, usize> = BTreeMap::new();
    for (i, call) in calls.iter().enumerate() {
        let best = owner.entry(call.step).or_insert(i);
        if total(i) > total(*best) {
            *best = i;
        }
    }
    owner
}

fn kernel(key: Key, row: Row, peaks: &Peaks, steps: f64, all: f64) -> Kernel {
    let seconds = sorted(&row.seconds);
    let (total, count) = (seconds.iter().sum::<f64>(), seconds.len() as f64);
    let median = quantile(&seconds, 0.5);
    // Of one call. (Those of a row are alike but for what their inputs are.)
    let each = |amount: u64| (amount as f64 / count.max(1.0)).round() as u64;
    let cost =
        Cost { flops: each(row.cost.flops), products: each(row.cost.products), bytes: each(row.cost.bytes) };
    let rate = |amount: u64| if median > 0.0 { amount as f64 / median } else { 0.0 };
    let (flops, bytes) = (rate(cost.flops), rate(cost.bytes));
    Kernel {
        operation: key.operation.into(),
        kernel: key.kernel.map(Into::into),
        variant: key.variant,
        layer: key.layer,
        phase: key.phase,
        shape: key.shape,
        calls: count / steps,
        total_ms: 1e3 * total / steps,
        share: if all > 0.0 { total / all } else { 0.0 },
        median_us: 1e6 * median,
        p95_us: 1e6 * quantile(&seconds, 0.95),
        flops: cost.flops,
        product_flops: cost.products,
        bytes: cost.bytes,
        gflops_per_s: flops / 1e9,
        flops_share: flops / peaks.flops_per_s,
        gb_per_s: bytes / 1e9,
        bytes_share: bytes / peaks.bytes_per_s(cost.bytes),
        bound: peaks.bound(&cost),
        floor_ms: 1e3 * row.floor / steps,
        gpu: row.gpu.map(|g| Gpu { gap_us: 1e6 * row.gaps / count.max(1.0), ..g }),
    }
}

/// What timing every call costs, as a share. On the CPU by processor time, which what else the machine does leaves alone.
fn overhead(measured: &Measured, asynchronous: bool) -> f64 {
    let processor = [measured.watched_processor.ran, measured.plain_processor.ran];
    let [watched, plain] = match processor {
        [watched, plain] if !asynchronous && plain > 0.0 => [watched, plain],
        _ => [fastest(&measured.watched), fastest(&measured.plain)],
    };
    if plain > 0.0 { watched / plain - 1.0 } else { 0.0 }
}

/// The share of the processor time that this process could have used that went to others.
fn crowded(measured: &Measured) -> Option<f64> {
    let p = &measured.plain_processor;
    (p.ran > 0.0).then(|| p.waited / (p.ran + p.waited))
}

/// The fastest is the least disturbed.
fn fastest(seconds: &[f64]) -> f64 {
    seconds.iter().copied().reduce(f64::min).unwrap_or(0.0)
}

fn step_times(measured: &Measured, asynchronous: bool) -> StepTimes {
    let plain = sorted(&measured.plain);
    let watched = quantile(&sorted(&measured.watched), 0.5);
    let median = quantile(&plain, 0.5);
    StepTimes {
        median_ms: 1e3 * median,
        p25_ms: 1e3 * quantile(&plain, 0.25),
        p75_ms: 1e3 * quantile(&plain, 0.75),
        min_ms: 1e3 * quantile(&plain, 0.0),
        max_ms: 1e3 * quantile(&plain, 1.0),
        ms: measured.plain.iter().map(|s| 1e3 * s).collect(),
        watched_ms: 1e3 * watched,
        overhead: overhead(measured, asynchronous),
        crowded: crowded(measured),
    }
}

fn shares(measured: &Measured) -> Shares {
    let ms = |seconds: f64| 1e3 * seconds / measured.shared_steps.max(1) as f64;
    let s = &measured.shares;
    Shares {
        step_ms: ms(s.total()),
        compute_ms: ms(s.compute),
        copies_ms: ms(s.copies),
        idle_data_ms: ms(s.data),
        idle_host_ms: ms(s.host),
        idle_synchronisation_ms: ms(s.synchronisation),
        calls_ms: 1e3 * measured.calls,
    }
}

fn memory(target: &dyn Target, work: &Work) -> MemoryUse {
    let plans = || (0..work.method.parts()).map(|part| target.plan(part));
    let kept = Kept::of(plans(), work.specs);
    let temporaries_bytes = plans().map(|p| p.arena_bytes as u64).sum();
    let other_bytes = target.other_bytes();
    let programs = plans().map(|plan| {
        let live = over_time(plan);
        // The first of the largest.
        let at = (0..live.len()).rev().max_by_key(|&i| live[i].total());
        let chunk = live.len().div_ceil(POINTS).max(1);
        let largest = |c: &[Live]| c.iter().copied().max_by_key(Live::total).unwrap_or_default();
        ProgramMemory {
            reserved_bytes: plan.arena_bytes as u64,
            peak: at.map(|i| live[i]).unwrap_or_default(),
            peak_layer: at.map(|i| plan.steps[i].path.to_string()).unwrap_or_default(),
            peak_phase: at.map(|i| plan.steps[i].phase.to_string()).unwrap_or_default(),
            live: live.chunks(chunk).map(largest).collect(),
        }
    });
    MemoryUse {
        total_bytes: kept.total() + temporaries_bytes + other_bytes,
        temporaries_bytes,
        other_bytes,
        process_peak_bytes: process_peak(),
        programs: programs.collect(),
        kept,
    }
}

/// The most memory that this process has held.
fn process_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn input(work: &Work, measured: &Measured) -> InputPipeline {
    let waits = &measured.waits;
    let steps = waits.len();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let step = mean(&[measured.plain.as_slice(), &measured.watched].concat());
    let runs = work.method.runs(u64::from(u32::MAX));
    InputPipeline {
        workers: work.recipe.train.workers,
        batches: runs.iter().filter(|r| r.takes_batch).count() as f64,
        wait_ms: 1e3 * mean(waits),
        longest_wait_ms: 1e3 * waits.iter().copied().fold(0.0, f64::max),
        stalled_steps: waits.iter().filter(|w| **w > 0.01 * step).count(),
        steps,
        batch_ms: None,
    }
}

/// Sums by layer, each with all its parts, in the order of the paths.
fn layers(kernels: &[Kernel]) -> Vec<Layer> {
    let mut all: BTreeMap<Vec<&str>, Layer> = BTreeMap::new();
    for k in kernels {
        let parts: Vec<&str> = if k.layer.is_empty() { vec![] } else { k.layer.split('/').collect() };
        let shown = if parts.is_empty() { vec![""] } else { parts };
        for depth in 0..shown.len() {
            let layer = all.entry(shown[..=depth].to_vec()).or_insert_with(|| Layer {
                path: shown[..=depth].join("/"),
                depth,
                total_ms: 0.0,
                phases: BTreeMap::new(),
            });
            layer.total_ms += k.total_ms;
            *layer.phases.entry(k.phase.clone()).or_default() += k.total_ms;
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::load::ProcessorTime;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let v = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(quantile(&v, 0.5), 2.5);
        assert_eq!(quantile(&v, 0.0), 1.0);
        assert_eq!(quantile(&v, 1.0), 4.0);
        assert_eq!(quantile(&[7.0], 0.95), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn what_timing_costs_is_told_by_processor_time() {
        let time = |ran, waited| ProcessorTime { ran, waited };
        let measured = Measured {
            plain: vec![1.0, 3.0],
            watched: vec![1.5, 2.0],
            plain_processor: time(2.0, 6.0),
            watched_processor: time(2.5, 1.0),
            ..Measured::default()
        };
        assert_eq!(overhead(&measured, false), 0.25);
        assert_eq!(overhead(&measured, true), 0.5, "of a GPU: the fastest step of each kind");
        assert_eq!(crowded(&measured), Some(0.75));
        let unknown = Measured { plain_processor: time(0.0, 0.0), ..measured };
        assert_eq!((overhead(&unknown, false), crowded(&unknown)), (0.5, None));
    }
}
