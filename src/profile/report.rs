//! What a profile says, as it is written to JSON: every other form is made from this.

use super::memory::{Kept, Live};
use super::target::Mode;
use crate::error::{Error, Result};
use crate::exec::cost::{Bound, Peaks};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What marks the files.
pub const FORMAT: &str = "gan-profile";

/// Of the files' layout. Raised when a field changes its meaning or goes; new fields do not raise it.
pub const VERSION: u32 = 1;

/// A profile of a recipe's training step. Times are in milliseconds (calls: microseconds), sums and shares are of one
/// training step on average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program.
    pub program: String,
    /// What was profiled.
    pub subject: Subject,
    /// In words, how times were taken.
    pub timing: String,
    /// By what those of calls were; absent in profiles of earlier versions.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// The highest rates that the device was seen to reach.
    pub peaks: Peaks,
    /// How long a step takes.
    pub step: StepTimes,
    /// Where its time goes.
    pub shares: Shares,
    /// What it computes.
    pub work: WorkDone,
    /// Who holds how much memory.
    pub memory: MemoryUse,
    /// How batches arrive.
    pub input: InputPipeline,
    /// Rows of `kernels` whose mending would gain most, the best first.
    pub mending: Vec<Mending>,
    /// Operations or kernels, the most time first.
    pub kernels: Vec<Kernel>,
    /// Time by layer and phase; layers before their parts.
    pub layers: Vec<Layer>,
}

/// What was profiled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// The recipe's name.
    pub recipe: String,
    /// Images at once.
    pub batch: usize,
    /// Spatial extents of an image.
    pub size: Vec<usize>,
    /// "cpu", "cuda:0".
    pub device: String,
    /// The device in words.
    pub on: String,
    /// "f32", "tf32" or "bf16".
    pub precision: String,
    /// Threads of the CPU.
    pub threads: usize,
}

/// How long a step takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTimes {
    /// The median of steps as in training.
    pub median_ms: f64,
    /// A quarter of the steps was faster.
    pub p25_ms: f64,
    /// A quarter of the steps was slower.
    pub p75_ms: f64,
    /// The fastest.
    pub min_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Each of them.
    pub ms: Vec<f64>,
    /// The median of the steps in which every call was timed.
    pub watched_ms: f64,
    /// What timing every call costs, as a share: of processor time on the CPU, where the system tells it, else of the fastest
    /// step.
    pub overhead: f64,
    /// The share of the processor time that this process could have used that went to other processes: where it is high,
    /// all times are too long and all peaks too low. Where the system tells it.
    #[serde(default)]
    pub crowded: Option<f64>,
}

/// Where a step's time goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Wall time of the steps that this is of: on the CPU those in which every call was timed.
    pub step_ms: f64,
    /// The device computed.
    pub compute_ms: f64,
    /// Inputs were copied to the device, or the plan's own copies made.
    pub copies_ms: f64,
    /// The device waited for the host, which waited for a batch.
    pub idle_data_ms: f64,
    /// The device waited for the host, which prepared or launched.
    pub idle_host_ms: f64,
    /// The device waited for the host, which read results.
    pub idle_synchronisation_ms: f64,
    /// All calls alone, from the steps in which each was timed: on a GPU what is left of `compute_ms` and of the plan's own
    /// copies without the gaps within a recording.
    pub calls_ms: f64,
}

/// What a step computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkDone {
    /// Calls.
    pub calls: f64,
    /// All FLOPs.
    pub flops: u64,
    /// Those of convolutions and matrix products, as PyTorch's counter counts them.
    pub product_flops: u64,
    /// Bytes that the device moves: every input and output of every operation of its plan once.
    pub bytes: u64,
    /// Bytes of the step as it was traced: the same on every device and in every precision. (0 in older files.)
    #[serde(default)]
    pub traced_bytes: u64,
    /// The least time that this takes at the peaks.
    pub floor_ms: f64,
}

/// Who holds how much memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Everything that is reserved for training.
    pub total_bytes: u64,
    /// What lives from step to step.
    pub kept: Kept,
    /// Reserved for temporaries, by all programs.
    pub temporaries_bytes: u64,
    /// Workspace, tables and staging areas on a GPU.
    pub other_bytes: u64,
    /// The most that the process has held of the computer's memory so far, where the system says so.
    pub process_peak_bytes: Option<u64>,
    /// Temporaries over the time of each program.
    pub programs: Vec<ProgramMemory>,
}

/// The temporaries of one program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgramMemory {
    /// What is reserved for them.
    pub reserved_bytes: u64,
    /// The most that live at once.
    pub peak: Live,
    /// In which layer that is.
    pub peak_layer: String,
    /// In which phase that is.
    pub peak_phase: String,
    /// From the first operation to the last, at most a few hundred of them: where several fall together, the largest.
    pub live: Vec<Live>,
}

/// How batches arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputPipeline {
    /// Threads that prepare batches.
    pub workers: usize,
    /// Batches that a step takes.
    pub batches: f64,
    /// The time that a step waits for them.
    pub wait_ms: f64,
    /// The longest that a step waited.
    pub longest_wait_ms: f64,
    /// Steps that waited for more than a hundredth of their time.
    pub stalled_steps: usize,
    /// Of so many.
    pub steps: usize,
    /// The time that one thread takes for a batch, where that was measured.
    pub batch_ms: Option<f64>,
}

/// What mending a kernel would gain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mending {
    /// Which row of the table.
    pub kernel: usize,
    /// The median time of its calls of a step above their floor.
    pub gain_ms: f64,
}

/// A row of the table: one kind of call in one layer and phase, of one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// The operation.
    pub operation: String,
    /// On a GPU, the kernel.
    pub kernel: Option<String>,
    /// On a GPU, what the kernel was compiled for.
    pub variant: Option<String>,
    /// The layer.
    pub layer: String,
    /// The part of the step.
    pub phase: String,
    /// Extents of the output.
    pub shape: String,
    /// Calls a step.
    pub calls: f64,
    /// Their time.
    pub total_ms: f64,
    /// As a share of all calls.
    pub share: f64,
    /// Of one call.
    pub median_us: f64,
    /// One call in twenty takes longer.
    pub p95_us: f64,
    /// Of one call. Where an operation makes several launches, all of its work stands in the row of the longest.
    pub flops: u64,
    /// Those of convolutions and matrix products among them.
    pub product_flops: u64,
    /// Of one call.
    pub bytes: u64,
    /// FLOPs per second at the median, in units of 10^9.
    pub gflops_per_s: f64,
    /// As a share of the peak.
    pub flops_share: f64,
    /// Bytes per second at the median, in units of 10^9.
    pub gb_per_s: f64,
    /// As a share of the peak for so many bytes.
    pub bytes_share: f64,
    /// What keeps it from being faster.
    pub bound: Bound,
    /// The least that its calls of a step take at the peaks.
    pub floor_ms: f64,
    /// On a GPU.
    pub gpu: Option<Gpu>,
}

/// How a kernel is launched on a GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Registers of a thread.
    pub registers: usize,
    /// Bytes of shared memory of a block.
    pub shared: usize,
    /// Bytes of a thread that found no place in registers.
    pub spilled: usize,
    /// The share of a multiprocessor's threads that it can fill, where that is known.
    pub occupancy: Option<f64>,
    /// The time that the device had nothing to do before a call: inside of the CUDA graph if [`Profile::mode`] is
    /// [`Mode::Cupti`], else where calls are launched one by one.
    pub gap_us: f64,
}

/// The time of a layer with all its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Its path; empty for what belongs to no layer.
    pub path: String,
    /// How many layers it lies in.
    pub depth: usize,
    /// All of it.
    pub total_ms: f64,
    /// By phase.
    pub phases: BTreeMap<String, f64>,
}

impl Profile {
    /// The phases, the longest first.
    pub fn phases(&self) -> Vec<String> {
        let mut all: BTreeMap<&str, f64> = BTreeMap::new();
        for k in &self.kernels {
            *all.entry(&k.phase).or_default() += k.total_ms;
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.into_iter().map(|(name, _)| name.to_string()).collect()
    }

    /// As a file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data") + "\n"
    }

    /// Reads a file that [`Profile::to_json`] made.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let wrong = |why: String| {
            Error::input(format!(
                "{} is no profile ({why}); make one with `gan profile RECIPE --json FILE`",
                path.display()
            ))
        };
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let head: Head = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if head.format != FORMAT {
            return Err(wrong(format!("its format is \"{}\"", head.format)));
        }
        if head.version != VERSION {
            return Err(Error::input(format!(
                "{} is a profile of version {}, this program reads version {VERSION}; make it anew",
                path.display(),
                head.version
            )));
        }
        serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))
    }
}
