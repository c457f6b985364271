//! The CUDA sources, carried inside the binary.

/// A source file: its name as `#include` or a message gives it, and its text.
pub type Source = (&'static str, &'static str);

/// One file per family of kernels.
pub const KERNELS: &[Source] = &[
    ("blend.cu", include_str!("../../../kernels/blend.cu")),
    ("conv.cu", include_str!("../../../kernels/conv.cu")),
    ("conv_depthwise.cu", include_str!("../../../kernels/conv_depthwise.cu")),
    ("conv_depthwise_grad_w.cu", include_str!("../../../kernels/conv_depthwise_grad_w.cu")),
    ("conv_grad_w.cu", include_str!("../../../kernels/conv_grad_w.cu")),
    ("conv_hopper.cu", include_str!("../../../kernels/conv_hopper.cu")),
    ("conv_hopper_grad_w.cu", include_str!("../../../kernels/conv_hopper_grad_w.cu")),
    ("conv_loss.cu", include_str!("../../../kernels/conv_loss.cu")),
    ("conv_window.cu", include_str!("../../../kernels/conv_window.cu")),
    ("conv_window_grad_w.cu", include_str!("../../../kernels/conv_window_grad_w.cu")),
    ("image_pool.cu", include_str!("../../../kernels/image_pool.cu")),
    ("matmul.cu", include_str!("../../../kernels/matmul.cu")),
    ("norm.cu", include_str!("../../../kernels/norm.cu")),
    ("optim.cu", include_str!("../../../kernels/optim.cu")),
    ("pointwise.cu", include_str!("../../../kernels/pointwise.cu")),
    ("pointwise_pair.cu", include_str!("../../../kernels/pointwise_pair.cu")),
    ("pool.cu", include_str!("../../../kernels/pool.cu")),
    ("pool_tiles.cu", include_str!("../../../kernels/pool_tiles.cu")),
    ("primitives.cu", include_str!("../../../kernels/primitives.cu")),
    ("primitives_hopper.cu", include_str!("../../../kernels/primitives_hopper.cu")),
    ("random.cu", include_str!("../../../kernels/random.cu")),
    ("reduce.cu", include_str!("../../../kernels/reduce.cu")),
    ("resample.cu", include_str!("../../../kernels/resample.cu")),
    ("softmax.cu", include_str!("../../../kernels/softmax.cu")),
    ("sum_slices.cu", include_str!("../../../kernels/sum_slices.cu")),
];

/// What the kernels include; there is nothing else for them to include.
pub const HEADERS: &[Source] = &[
    ("conv.cuh", include_str!("../../../kernels/include/conv.cuh")),
    ("depthwise.cuh", include_str!("../../../kernels/include/depthwise.cuh")),
    ("epilogue.cuh", include_str!("../../../kernels/include/epilogue.cuh")),
    ("gan.cuh", include_str!("../../../kernels/include/gan.cuh")),
    ("hopper.cuh", include_str!("../../../kernels/include/hopper.cuh")),
    ("last_block.cuh", include_str!("../../../kernels/include/last_block.cuh")),
    ("layout.cuh", include_str!("../../../kernels/include/layout.cuh")),
    ("math.cuh", include_str!("../../../kernels/include/math.cuh")),
    ("moments.cuh", include_str!("../../../kernels/include/moments.cuh")),
    ("operands.cuh", include_str!("../../../kernels/include/operands.cuh")),
    ("pairs.cuh", include_str!("../../../kernels/include/pairs.cuh")),
    ("philox.cuh", include_str!("../../../kernels/include/philox.cuh")),
    ("ptx.cuh", include_str!("../../../kernels/include/ptx.cuh")),
    ("reduce.cuh", include_str!("../../../kernels/include/reduce.cuh")),
    ("ring.cuh", include_str!("../../../kernels/include/ring.cuh")),
    ("strided.cuh", include_str!("../../../kernels/include/strided.cuh")),
    ("tile.cuh", include_str!("../../../kernels/include/tile.cuh")),
    ("warp_tile.cuh", include_str!("../../../kernels/include/warp_tile.cuh")),
    ("window.cuh", include_str!("../../../kernels/include/window.cuh")),
];

/// The text of a kernel file.
///
/// # Panics
/// If there is no such file: names of kernel files are written in our own code only.
pub fn kernel(name: &str) -> &'static str {
    KERNELS.iter().find(|s| s.0 == name).unwrap_or_else(|| panic!("no kernel file {name}")).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A new file in `kernels/` must be listed above, or the binary would lack it.
    #[test]
    fn every_file_is_carried() {
        for (folder, listed) in [("kernels", KERNELS), ("kernels/include", HEADERS)] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            let there: BTreeSet<String> = std::fs::read_dir(path)
                .unwrap()
                .map(|e| e.unwrap().path())
                .filter(|p| p.is_file())
                .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
                .collect();
            assert_eq!(there, listed.iter().map(|s| s.0.to_string()).collect(), "{folder}");
        }
    }

    /// The promise that makes both the run-time compiler and the emulator possible.
    #[test]
    fn kernels_include_only_our_headers_and_assembly_has_one_home() {
        for &(name, text) in KERNELS.iter().chain(HEADERS) {
            for line in text.lines().filter(|l| l.trim_start().starts_with("#include")) {
                let ours = HEADERS.iter().any(|h| line == format!("#include \"{}\"", h.0));
                let emulated =
                    ["emu", "hopper"].iter().any(|e| line == format!("#include \"../emu/{e}.cuh\""));
                assert!(ours || emulated, "{name}: {line}");
            }
            assert!(
                ["ptx.cuh", "hopper.cuh"].contains(&name) || !text.contains("asm"),
                "{name} has inline assembly"
            );
            assert!(text.lines().count() <= 500, "{name} is longer than a file should be");
        }
    }
}
