//! How many blocks of a kernel a multiprocessor holds at once, from what the kernel takes and what there is (CUDA C++
//! Programming Guide, "Multiprocessor Level").

use serde::{Deserialize, Serialize};

/// What a compiled kernel takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// Registers of a thread.
    pub registers: usize,
    /// Bytes of shared memory of a block that are known when it is compiled.
    pub static_shared: usize,
    /// Bytes of a thread that found no place in registers and lie in memory: spills, and arrays that are indexed.
    pub local: usize,
}

/// What a multiprocessor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads at once.
    pub threads: usize,
    /// Blocks at once.
    pub blocks: usize,
    /// Registers.
    pub registers: usize,
    /// Bytes of shared memory.
    pub shared: usize,
    /// Bytes of shared memory that the driver keeps of every block.
    pub reserved: usize,
}

/// Threads of a warp.
const WARP: usize = 32;
/// Registers are given to warps in pieces of so many.
const REGISTER_PIECE: usize = 256;

impl Limits {
    /// The share of the threads that a multiprocessor could hold which blocks of such a kernel fill; `None` where not even
    /// one fits, or the device does not say what it has.
    pub fn occupancy(&self, facts: &KernelFacts, threads: usize, dynamic_shared: usize) -> Option<f64> {
        let warps = threads.div_ceil(WARP);
        if warps == 0 || self.threads == 0 {
            return None;
        }
        let registers = (facts.registers * WARP).next_multiple_of(REGISTER_PIECE) * warps;
        let shared = facts.static_shared + dynamic_shared + self.reserved;
        let by = |there: usize, taken: usize| there.checked_div(taken).unwrap_or(usize::MAX);
        let blocks = [
            self.blocks,
            self.threads / (warps * WARP),
            by(self.registers, registers),
            by(self.shared, shared),
        ]
        .into_iter()
        .min()
        .unwrap_or(0);
        (blocks > 0).then(|| (blocks * warps * WARP) as f64 / self.threads as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compute capability 9.0.
    const HOPPER: Limits =
        Limits { threads: 2048, blocks: 32, registers: 65536, shared: 228 << 10, reserved: 1024 };

    fn of(registers: usize, shared: usize, threads: usize) -> Option<f64> {
        HOPPER.occupancy(&KernelFacts { registers, ..Default::default() }, threads, shared)
    }

    /// As NVIDIA's occupancy calculator gives them.
    #[test]
    fn the_scarcest_decides() {
        assert_eq!(of(32, 0, 256), Some(1.0), "nothing is scarce: 8 blocks");
        assert_eq!(of(128, 0, 256), Some(0.25), "registers: 2 blocks of 32768");
        assert_eq!(of(33, 0, 256), Some(0.75), "40 registers a thread: 6 blocks of 10240");
        assert_eq!(of(32, 100 << 10, 256), Some(0.25), "shared memory: 2 blocks of 101 KiB");
        assert_eq!(of(32, 0, 32), Some(0.5), "32 blocks of one warp");
        assert_eq!(of(255, 0, 1024), None, "one block wants more registers than there are");
    }
}
