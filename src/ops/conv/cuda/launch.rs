//! How a convolution is launched on the GPU: on which kernels, with which constants, in what grid. Pure arithmetic, so that it is
//! tested without a GPU; the kernels' own headers (`kernels/conv.cu`, `kernels/conv_grad_w.cu`) say what it all means.

use super::depthwise;
use super::epilogue::tiles_suit;
pub use super::epilogue::{Epilogue, Normed, Stats, operand, sum_slices};
use super::hopper;
pub use super::product::{
    Math, Pass, Product, Tiles, choose, geometry_argument, product, shape_argument, side, slices, tiled,
    tiles,
};
use super::product::{even_phases, phases, window_constant};
use super::variants::{chosen, measured};
use super::window;
use crate::device::launch::{
    ELEMENT, GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, int,
};
use crate::ops::conv::geometry::ConvGeometry;

/// Everything about a launch but the addresses.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kernel file and its constants.
    pub specialisation: Specialisation,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// Slices of the sum.
    pub slices: usize,
    /// Elements of the result.
    pub results: usize,
    /// Tiles of the result.
    pub tiles: usize,
}

impl Plan {
    /// Bytes of workspace for the partial results.
    pub fn partial_bytes(&self) -> usize {
        if self.slices > 1 { 4 * self.slices * self.results } else { 0 }
    }
}

/// Whether the general kernels for a layer's window are as good as those for its very shape: where copies are wide (else there
/// is much more to compute for each), and no tap meets nothing but padding, which is then left out.
fn shares(g: &ConvGeometry, pass: Pass, math: Math, vectors: [usize; 2]) -> bool {
    let widest = if math == Math::Bf16 { 8 } else { 4 };
    let live = |a: usize, tap: usize| (0..g.output[a]).any(|o| g.input_at(a, o, tap).is_some());
    vectors == [widest; 2] && even_phases(g, pass) && (0..3).all(|a| (0..g.kernel[a]).all(|tap| live(a, tap)))
}

/// Plans a launch. `pitches` are the elements between neighbouring pixels of the two gathered or streamed tensors (for
/// the forward pass x and y, for `GradX` dy and dx, for `GradW` x and dy); `aligned` says of the two tensors that are read
/// (for the forward pass x and w, for `GradX` dy and w, for `GradW` x and dy) whether they begin at a multiple of 16
/// bytes; `constants` are OUT and the epilogue's. With `fixed`, the geometry becomes part of the code, or what of it matters.
pub fn plan(
    g: &ConvGeometry,
    pass: Pass,
    math: Math,
    tiles: Tiles,
    slices: usize,
    pitches: [usize; 2],
    aligned: [bool; 2],
    constants: &[&str],
    fixed: bool,
) -> Plan {
    let p = product(g, pass);
    let vec = |i: usize, runs: &[usize]| if aligned[i] { math.vector(runs) } else { 1 };
    let (vec_a, vec_b) = match pass {
        Pass::Forward => (vec(0, &[g.group_c(), pitches[0]]), vec(1, &[g.group_c()])),
        Pass::GradX => (vec(0, &[g.group_k(), pitches[0]]), vec(1, &[g.group_c()])),
        Pass::GradW => (vec(1, &[g.group_k(), pitches[1]]), vec(0, &[g.group_c(), pitches[0]])),
    };
    let mut all: Vec<String> = vec![math.constant().into()];
    all.extend(tiles.constants());
    all.extend([format!("VEC_A={vec_a}"), format!("VEC_B={vec_b}")]);
    if math == Math::Bf16 && vec_a == 8 {
        all.push("MIN_BLOCKS=2".into()); // fits into 128 registers; the others do not, or would spill
    }
    if pass != Pass::GradW {
        all.push(format!("GRAD_X={}", u8::from(pass == Pass::GradX)));
    }
    if fixed && shares(g, pass, math, [vec_a, vec_b]) {
        all.push(window_constant(g));
        if p.n.is_multiple_of(tiles.bn) {
            all.push("WHOLE=1".into());
        }
    } else if fixed {
        all.push(format!("GEOMETRY={}", geometry_argument(g).map(|v| v.to_string()).join(",")));
    }
    all.extend(constants.iter().map(|c| c.to_string()));
    let phases = phases(g, pass);
    let (rows, columns) = (p.m.div_ceil(tiles.bm), p.n.div_ceil(tiles.bn));
    let (file, kernel, grid, results) = match pass {
        Pass::Forward => ("conv.cu", "conv", [rows, columns * g.groups, slices], g.n * g.out_pixels() * g.k),
        Pass::GradX => {
            ("conv.cu", "conv", [rows, columns * g.groups, slices * phases], g.n * g.in_pixels() * g.c)
        }
        Pass::GradW => (
            "conv_grad_w.cu",
            "conv_grad_w",
            [columns, rows * g.groups, slices],
            g.k * g.taps() * g.group_c(),
        ),
    };
    Plan {
        specialisation: Specialisation::new(file, all),
        kernel,
        grid: grid.map(|v| v as u32),
        threads: tiles.threads(),
        shared: tiles.shared(math),
        slices,
        results,
        tiles: rows * columns * g.groups * phases,
    }
}

/// Whether a pass can leave its result's statistics itself.
pub fn takes_stats(g: &ConvGeometry, pass: Pass, sets: usize, io: &Operands, gpu: &GpuTraits) -> bool {
    if g.groups > 1 {
        return false; // nor are there any that a norm's statistics were fused with
    }
    if let Some(variant) = window::suited(g, pass, io, gpu) {
        return variant.takes_stats(g, sets);
    }
    match hopper::suited(g, pass, io, gpu, measured(g, pass, gpu)) {
        Some(variant) => variant.takes_stats(g, pass, sets),
        None => {
            let (tiles, _) = chosen(g, pass, gpu);
            pass != Pass::GradW && tiles_suit(g, pass, tiles.bm, sets)
        }
    }
}

/// The launches of a pass whose two inputs are those of its operation: x and w, dy and w, or x and dy.
pub fn launches(
    g: &ConvGeometry,
    pass: Pass,
    io: &Operands,
    gpu: &GpuTraits,
    epilogue: &Epilogue,
) -> LaunchList {
    launches_as(g, pass, io, gpu, epilogue, io.output.kind())
}

/// The same with a result of a type that the output's does not tell.
pub fn launches_as(
    g: &ConvGeometry,
    pass: Pass,
    io: &Operands,
    gpu: &GpuTraits,
    epilogue: &Epilogue,
    out: &str,
) -> LaunchList {
    let known = measured(g, pass, gpu);
    if let Some(variant) = depthwise::choose_measured(g, pass, gpu, known) {
        return depthwise::launches(g, pass, &variant, io, gpu, epilogue, out);
    }
    if let Some(variant) = window::suited(g, pass, io, gpu) {
        return window::launches(g, pass, &variant, io, gpu, epilogue, out);
    }
    if let Some(variant) = hopper::suited(g, pass, io, gpu, known) {
        return hopper::launches(g, pass, &variant, io, gpu, epilogue, out);
    }
    let mut list = LaunchList::default();
    sums(&mut list, g, pass, io, gpu, epilogue, out, None);
    list
}

/// Appends a pass with `results` results whose sums stay as they are, fp32 in slices `[slices, results]`; says where they are
/// and how many slices there are.
pub fn partial_sums(
    list: &mut LaunchList,
    g: &ConvGeometry,
    pass: Pass,
    io: &Operands,
    gpu: &GpuTraits,
    results: usize,
) -> (LaunchArg, usize) {
    let (_, slices) = chosen(g, pass, gpu);
    let partial = list.workspace(ELEMENT * slices * results);
    sums(list, g, pass, io, gpu, &Epilogue::default(), "float", Some(partial.clone()));
    (partial, slices)
}

/// Appends the matrix product of a pass. Its result goes through the epilogue to the output, or, if a place is given, stays
/// there in slices, side by side.
fn sums(
    list: &mut LaunchList,
    g: &ConvGeometry,
    pass: Pass,
    io: &Operands,
    gpu: &GpuTraits,
    epilogue: &Epilogue,
    out: &str,
    slices_to: Option<LaunchArg>,
) {
    let (tiles, slices) = chosen(g, pass, gpu);
    let pitches = if pass == Pass::GradX { [g.k, g.c] } else { [g.c, g.k] };
    let [(first, first_aligned), (second, second_aligned)] = [0, 1].map(|i| operand(list, io, i, gpu));
    let constants = epilogue.constants(out);
    let constants: Vec<&str> = constants.iter().map(String::as_str).collect();
    let aligned = [first_aligned, second_aligned];
    let plan = plan(g, pass, gpu.math, tiles, slices, pitches, aligned, &constants, gpu.fixed_shapes);
    let [bias, extra] = epilogue.args();
    let (whole, partial, counted) = match slices_to {
        Some(to) if slices > 1 => (LaunchArg::Null, to, false),
        Some(to) => (to, LaunchArg::Null, false),
        None => {
            let bytes = plan.partial_bytes();
            let partial = if bytes > 0 { list.workspace(bytes) } else { LaunchArg::Null };
            (LaunchArg::Output, partial, slices > 1 || epilogue.stats.is_some())
        }
    };
    // Of tiles; and of the tiles of each set, by columns of tiles.
    let sets = epilogue.stats.as_ref().map_or(1, |s| s.sets);
    let columns = if epilogue.stats.is_some() { plan.grid[1] as usize } else { 0 };
    let counters = if counted { list.counters(plan.tiles + sets * columns) } else { LaunchArg::Null };
    let [first_pitch, second_pitch] = pitches.map(int);
    let mut args = vec![shape_argument(g, pass)[..].into(), first, second];
    if pass == Pass::GradW {
        args.extend([extra, whole, partial, int(slices), first_pitch, second_pitch, counters]);
    } else {
        args.extend([bias, extra, whole, partial, int(slices), first_pitch, second_pitch, counters]);
        let channels = if pass == Pass::GradX { g.c } else { g.k };
        args.extend(match &epilogue.stats {
            Some(s) => s.args(list, plan.tiles / columns, channels),
            None => vec![int(1), LaunchArg::Null, LaunchArg::Null],
        });
    }
    list.push(Launch {
        specialisation: plan.specialisation,
        kernel: plan.kernel,
        grid: plan.grid,
        threads: plan.threads,
        shared: plan.shared,
        args,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv::cuda::product::tests::geometry;

    #[test]
    fn layers_that_differ_in_extents_and_channels_are_one_kernel() {
        let constants = |g: &ConvGeometry, pass| {
            let tiles = tiled(32, 64, Math::Bf16);
            let pitches = if pass == Pass::GradX { [g.k, g.c] } else { [g.c, g.k] };
            plan(g, pass, Math::Bf16, tiles, 1, pitches, [true; 2], &["OUT=bf16"], true)
                .specialisation
                .constants
        };
        for pass in [Pass::Forward, Pass::GradX, Pass::GradW] {
            let [a, b] = [geometry(64, 128, 8), geometry(256, 512, 16)].map(|g| constants(&g, pass));
            assert_eq!(a, b);
            assert!(
                a.contains(&"WINDOW=1,1,4,4,1,2,2,0,1,1,1,1,1".to_string())
                    && a.contains(&"WHOLE=1".to_string())
            );
            // Kernels for the very shape: where most taps meet padding, where copies are narrow.
            for g in [geometry(64, 128, 1), geometry(1, 128, 8)] {
                assert!(constants(&g, pass).iter().any(|c| c.starts_with("GEOMETRY=")), "{g:?} {pass:?}");
            }
            let odd = ConvGeometry { input: [1, 17, 16], ..geometry(64, 128, 8) };
            let shared = constants(&odd, pass).iter().any(|c| c.starts_with("WINDOW="));
            assert_eq!(shared, pass != Pass::GradX, "phases of unlike extents");
        }
    }
}
