//! What a device lets be launched: the conditions under which a driver refuses, told beforehand and in a sentence.
//!
//! Sources: CUDA C++ Programming Guide, "Compute Capabilities"; CUDA driver API, `cuLaunchKernel` and
//! `cuFuncSetAttribute`; for arguments of more than 4 KiB the notes on CUDA 12.1.

use super::launch::{Launch, LaunchArg};
use super::tensor_map::{self, TensorMap};

/// Dynamic and static shared memory of a block that need no asking for, together.
pub const PLAIN_SHARED: usize = 48 << 10;

/// What one launch may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchLimits {
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Registers of a block.
    pub registers: usize,
    /// Bytes of shared memory of a block, static and dynamic together, where they were asked for.
    pub shared: usize,
    /// Bytes of arguments.
    pub arguments: usize,
}

/// What a compiled kernel demands of its launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Registers of a thread.
    pub registers: usize,
    /// Bytes of shared memory of a block that are known when it is compiled.
    pub static_shared: usize,
    /// The most threads of a block that it was compiled for.
    pub threads: usize,
}

/// Registers are given to warps in pieces of so many.
const REGISTER_PIECE: usize = 256;
const WARP: usize = 32;

impl LaunchLimits {
    /// Those of a compute capability such as 90 for 9.0; `long_arguments` where driver and compiler are of CUDA 12.1 or newer.
    pub fn of(capability: u32, long_arguments: bool) -> Self {
        let shared = match capability {
            ..70 => 48 << 10,
            70..75 => 96 << 10,
            75..80 => 64 << 10,
            80 | 87 => 163 << 10,
            90 | 100..120 => 227 << 10,
            _ => 99 << 10,
        };
        LaunchLimits {
            grid: [i32::MAX as u32, 65_535, 65_535],
            threads: 1024,
            registers: 65_536,
            shared,
            arguments: Self::argument_bytes(capability, long_arguments),
        }
    }

    /// The bytes of arguments that a kernel of a compute capability may have.
    pub fn argument_bytes(capability: u32, long_arguments: bool) -> usize {
        if capability >= 70 && long_arguments { 32_764 } else { 4096 }
    }

    /// Why a launch would be refused.
    pub fn check(&self, launch: &Launch, kernel: &Compiled) -> Result<(), String> {
        let name = launch.kernel;
        let axes = launch.grid.iter().zip(self.grid).zip(["x", "y", "z"]);
        for ((&blocks, most), axis) in axes {
            if blocks == 0 {
                return Err(format!("{name} has a grid without blocks: {:?}", launch.grid));
            }
            if blocks > most {
                return Err(format!("{name} wants {blocks} blocks along {axis}; a grid has {most} at most"));
            }
        }
        let threads = launch.threads as usize;
        let most = self.threads.min(kernel.threads);
        if threads == 0 || threads > most {
            return Err(format!("{name} wants blocks of {threads} threads; it was compiled for 1 to {most}"));
        }
        let registers = (kernel.registers * WARP).next_multiple_of(REGISTER_PIECE) * threads.div_ceil(WARP);
        if registers > self.registers {
            return Err(format!(
                "{name} wants {registers} registers a block ({} a thread, {threads} threads); the device has {}",
                kernel.registers, self.registers
            ));
        }
        self.check_shared(name, kernel.static_shared, launch.shared)?;
        let bytes = argument_bytes(&launch.args);
        if bytes > self.arguments {
            return Err(format!("{name} wants {bytes} bytes of arguments; a launch has {}", self.arguments));
        }
        Ok(())
    }

    /// Why a block would not get its shared memory.
    pub fn check_shared(&self, name: &str, fixed: usize, dynamic: usize) -> Result<(), String> {
        if fixed + dynamic > self.shared {
            return Err(format!(
                "{name} wants {} bytes of shared memory a block ({fixed} static, {dynamic} dynamic); the device has {}",
                fixed + dynamic,
                self.shared
            ));
        }
        Ok(())
    }
}

/// Where arguments begin in the constant bank of sm_90, the one architecture whose kernels take maps. Maps are aligned within
/// the bank; for everything else any multiple of 16 is as good.
const FIRST_ARGUMENT: usize = 0x210;

/// The bytes of an argument block: each argument at a multiple of its alignment, as the kernel declares it.
pub fn argument_bytes(args: &[LaunchArg]) -> usize {
    let end = args.iter().fold(FIRST_ARGUMENT, |at, arg| {
        let (bytes, align) = match arg {
            // Numbers of 4 and 8 bytes, and structs of ints.
            LaunchArg::Bytes(bytes) => (bytes.len(), if bytes.len() == 8 { 8 } else { 4 }),
            LaunchArg::Maps(_, maps) => (tensor_map::BYTES * maps.len(), tensor_map::ALIGNED),
            _ => (8, 8),
        };
        at.next_multiple_of(align) + bytes
    });
    end - FIRST_ARGUMENT
}

/// Why a driver would not encode the maps of a launch, `address` telling where an argument points to.
pub fn check_maps(launch: &Launch, address: impl Fn(&LaunchArg) -> u64) -> Result<(), String> {
    let maps = launch.args.iter().filter_map(|arg| match arg {
        LaunchArg::Maps(of, maps) => Some((of, maps)),
        _ => None,
    });
    for (of, maps) in maps {
        let at = address(of);
        maps.iter()
            .try_for_each(|map: &TensorMap| map.check(at))
            .map_err(|e| format!("{}: {e}", launch.kernel))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::launch::Specialisation;

    const HOPPER: fn() -> LaunchLimits = || LaunchLimits::of(90, true);
    const KERNEL: Compiled = Compiled { registers: 64, static_shared: 2560, threads: 256 };

    fn launch() -> Launch {
        let args = vec![LaunchArg::Input(0), 1i32.into(), LaunchArg::Output];
        Launch {
            shared: 48 << 10,
            ..Launch::new(Specialisation::new("conv.cu", ["BM=64"]), "conv", [7, 1, 1], args)
        }
    }

    fn refused(launch: Launch, kernel: Compiled, limits: LaunchLimits) -> String {
        limits.check(&launch, &kernel).expect_err("refused")
    }

    #[test]
    fn what_is_refused_is_told_and_why() {
        let limits = HOPPER();
        assert_eq!(limits.check(&launch(), &KERNEL), Ok(()));
        let of = |change: &dyn Fn(&mut Launch)| {
            let mut one = launch();
            change(&mut one);
            refused(one, KERNEL, limits)
        };
        assert!(of(&|l| l.grid[1] = 0).contains("without blocks"));
        assert!(of(&|l| l.grid[0] = 1 << 31).contains("along x"));
        assert!(of(&|l| l.grid[1] = 65_536).contains("65536 blocks along y; a grid has 65535 at most"));
        assert!(of(&|l| l.grid[2] = 65_536).contains("along z"));
        assert!(of(&|l| l.threads = 0).contains("1 to 256"));
        assert!(of(&|l| l.threads = 288).contains("blocks of 288 threads; it was compiled for 1 to 256"));
        let why = of(&|l| l.shared = (227 << 10) - 2560 + 1);
        assert!(why.contains("232449 bytes of shared memory a block (2560 static, 229889 dynamic)"), "{why}");
        assert!(of(&|l| l.args.push(vec![0i32; 8191][..].into())).contains("bytes of arguments"));
        // Of the kernel itself.
        let many = Compiled { registers: 255, threads: 1024, ..KERNEL };
        let mut wide = launch();
        wide.threads = 288;
        assert!(refused(wide, many, limits).contains("registers a block"));
    }

    #[test]
    fn devices_differ_in_shared_memory_and_arguments() {
        let mut large = launch();
        large.shared = 164 << 10;
        assert_eq!(HOPPER().check(&large, &KERNEL), Ok(()));
        let why = refused(large, KERNEL, LaunchLimits::of(80, true));
        assert!(why.ends_with("the device has 166912"), "{why}");
        let mut long = launch();
        long.args.push(vec![0i32; 1100][..].into());
        assert_eq!(HOPPER().check(&long, &KERNEL), Ok(()));
        assert!(refused(long, KERNEL, LaunchLimits::of(90, false)).ends_with("a launch has 4096"));
        assert_eq!(
            [75, 86, 89, 100, 103, 120].map(|c| LaunchLimits::of(c, true).shared >> 10),
            [64, 99, 99, 227, 227, 99]
        );
    }

    #[test]
    fn arguments_lie_where_the_kernel_declares_them() {
        let list = [1i32.into(), LaunchArg::Output, 2i32.into(), LaunchArg::Null];
        assert_eq!(argument_bytes(&list), 32);
    }
}
