//! What `gan doctor` and `--device auto` compare, on the emulator: every set of kernels is met and agrees, and one that computes
//! something else is found.

use crate::device::Emulator;
use gan::device::launch::{GpuTraits, Math, Tailored};
use gan::exec::probe::{compare, parts, specialisations};
use gan_emu::Mode;
use std::collections::BTreeSet;

/// Of an H100.
fn traits() -> GpuTraits {
    GpuTraits {
        multiprocessors: 132,
        math: Math::Fma,
        fixed_shapes: true,
        fused: true,
        choices: None,
        hopper: Tailored::Auto,
        window: Tailored::Auto,
    }
}

const PRECISIONS: [Math; 3] = [Math::Fma, Math::Tf32, Math::Bf16];

#[test]
fn every_set_of_kernels_agrees_with_the_cpu() {
    for math in PRECISIONS {
        for part in parts(&traits(), math) {
            let emulator = Emulator::new(Mode::all()[5], math);
            let error = compare(&emulator, "cuda:0", &part).unwrap_or_else(|e| panic!("{}: {e}", part.0));
            println!("{} {error:.1e}", part.0);
            assert!(error < 2e-6, "{}: {error:e}", part.0);
        }
    }
}

/// A first `gan doctor` compiles each of them, at a third of a second.
#[test]
fn the_sets_are_all_met_by_few_kernels() {
    let all: Vec<_> = PRECISIONS.iter().flat_map(|&math| parts(&traits(), math)).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["f32", "tf32", "bf16", "sm_90a's kernels", "those for few channels"]);
    let kernels = specialisations(&all).expect("valid");
    let files: BTreeSet<&str> = kernels.iter().map(|k| k.file).collect();
    for file in [
        "conv.cu",
        "conv_grad_w.cu",
        "conv_hopper.cu",
        "conv_hopper_grad_w.cu",
        "conv_window.cu",
        "conv_window_grad_w.cu",
        "norm.cu",
    ] {
        assert!(files.contains(file), "{file} is not among {files:?}");
    }
    for kernel in &kernels {
        println!("{} {}", kernel.file, kernel.constants.join(" "));
    }
    assert!(kernels.len() <= 15, "{} kernels", kernels.len());
    // A run looks at its own precision alone.
    let own = specialisations(&parts(&traits(), Math::Fma)).expect("valid");
    assert!(own.len() <= 4, "{} kernels in f32", own.len());
    // A device without them, or a user who does not want them, is not asked for them.
    let old = GpuTraits { hopper: Tailored::Off, window: Tailored::Off, ..traits() };
    assert_eq!(parts(&old, Math::Bf16).len(), 1);
}
