//! What a driver refuses, the emulator refuses: each fault planted once.

use crate::common::kernels;
use gan_emu::{Arg, Buffer, Build, Mode, Module, Shape};
use std::path::Path;

const SOURCE: &str = r#"
#include "gan.cuh"
struct Large {
    int values[8190]; // 32760 bytes: with one pointer behind it, more than a launch has
};
KERNEL __launch_bounds__(64, 2) little(float* out) {
    SMEM(float, fixed, 1024);
    SMEM_DYN(memory);
    fixed[threadIdx.x] = 1.0f;
    if (blockIdx.x == 0 && threadIdx.x == 0) memory[0] = 1;
    __syncthreads();
    if (blockIdx.x == 0) out[threadIdx.x] = fixed[63 - threadIdx.x];
}
KERNEL large(const Large numbers, float* out) { out[threadIdx.x] = float(numbers.values[threadIdx.x]); }
"#;

/// The kernels' folder with one more file in it.
fn module(folder: &Path) -> Module {
    for part in ["include", "emu"] {
        std::os::unix::fs::symlink(kernels().join(part), folder.join(part)).expect("a link");
    }
    std::fs::write(folder.join("refused.cu"), SOURCE).expect("written");
    Build::new(folder.to_path_buf(), "refused.cu").load().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_emulator_refuses_what_a_driver_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = module(folder.path());
    let out = Buffer::poisoned(4 * 64);
    let launch = |grid: [u32; 3], threads: u32, shared: usize| {
        module.launch("little", Shape { grid, threads, shared }, &[(&out).into()], Mode::all()[0])
    };
    let refused = |grid, threads, shared, why: &str| {
        let told = launch(grid, threads, shared).expect_err(why);
        assert!(told.contains(why), "{told}");
    };
    assert_eq!(launch([2, 1, 1], 64, 1024), Ok(()));
    refused([1, 1, 1], 96, 1024, "blocks of 96 threads; the kernel's launch bounds are 64");
    for empty in [[0, 1, 1], [1, 0, 1], [1, 1, 0]] {
        refused(empty, 64, 1024, "a grid of");
    }
    refused([1 << 31, 1, 1], 64, 1024, "a grid of (2147483648, 1, 1) blocks");
    refused([1, 65_536, 1], 64, 1024, "a grid of (1, 65536, 1) blocks");
    refused([1, 1, 65_536], 64, 1024, "a grid of (1, 1, 65536) blocks");
    // 4096 bytes are static.
    let most = (227 << 10) - 4096;
    assert_eq!(launch([1, 1, 1], 64, most), Ok(()));
    refused([1, 1, 1], 64, most + 16, "bytes of shared memory with fixed");
    refused([1, 1, 1], 64, (227 << 10) + 16, "bytes of shared memory with dynamic shared memory");

    let numbers = vec![7i32; 8190];
    let args: [Arg; 2] = [(&numbers[..]).into(), (&out).into()];
    let told = module.launch("large", Shape::flat(1, 64), &args, Mode::all()[0]).expect_err("too long");
    assert!(told.contains("32768 bytes of arguments; a launch has 32764"), "{told}");
}
