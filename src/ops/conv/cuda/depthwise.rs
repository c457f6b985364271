//! How a convolution whose channels see few others is launched on kernels of its own (`kernels/conv_depthwise.cu`,
//! `kernels/conv_depthwise_grad_w.cu`): when they are taken, and what a thread computes. Pure arithmetic, like `launch.rs`.

use super::epilogue::{Epilogue, sum_slices};
use super::product::{Math, Pass, divider, geometry_argument};
use super::variant::{self, ConvShape, Kernels};
use crate::device::launch::{
    ELEMENT, GpuTraits, Launch, LaunchArg, LaunchList, Operand, Operands, Specialisation, THREADS, int,
};
use crate::ops::conv::geometry::ConvGeometry;
use std::collections::BTreeSet;

/// Bytes that a thread reads or stores at once, at most.
const VECTOR: usize = 16;
/// Bytes of neighbouring lanes' channels: a line of the caches.
const LINE: usize = 128;
/// Results of a run, if the stride does not ask for more, or the width or registers for fewer.
const RUN: usize = 4;
/// The largest stride along the width: in a gradient by the input a run is at least one stride.
const MOST_STRIDE: usize = 8;
/// Registers of a thread for a line of taps' weights, for sums, and for what a run reads: what two blocks leave each of theirs,
/// less what addresses take.
const MOST_REGISTERS: usize = 96;
/// Channels of the source that a thread reads of a neighbour, at most.
const MOST_SOURCES: usize = 16;
/// Sums that a thread of the gradient by the weights keeps at most.
const MOST_VALUES: usize = 48;
/// Bytes of dynamic shared memory: no device needs to be asked for so many.
const SHARED: usize = 48 << 10;
/// Blocks of a multiprocessor, at the registers that the kernels are bound to.
const RESIDENT: usize = 2;
/// Slices of the sum of a gradient by the weights, at most: one thread adds them.
const MOST_SLICES: usize = 64;

/// What a thread and a block compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Channels of the result (of dy, in the gradient by the weights) a thread.
    pub width: usize,
    /// Pixels a thread, in a row.
    pub run: usize,
    /// Threads along the channels.
    pub lanes: usize,
    /// Threads along the axes.
    pub patch: [usize; 3],
    /// Patches of all images.
    pub patches: usize,
    /// Lines of taps whose sums a thread keeps; all where results are pixels.
    pub lines: usize,
    /// Blocks along the patches. In the gradient by the weights slices of the sum; with more than one, `sum_slices` must follow.
    pub blocks: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

/// Channels of the source and of the result in a group: of x and of dy in the gradient by the weights.
fn group(g: &ConvGeometry, pass: Pass) -> [usize; 2] {
    if pass == Pass::GradX { [g.group_k(), g.group_c()] } else { [g.group_c(), g.group_k()] }
}

/// The extents of the pixels that are gone through: of the result, or of dy.
fn extents(g: &ConvGeometry, pass: Pass) -> [usize; 3] {
    if pass == Pass::GradX { g.input } else { g.output }
}

/// Channels of the source that a thread of so many channels of the result reads.
fn sources([from, to]: [usize; 2], width: usize) -> usize {
    (width / to).max(1) * from
}

/// Neighbours that a run reads of a row.
fn neighbours(g: &ConvGeometry, pass: Pass, run: usize) -> usize {
    let (stride, dilation) = (g.stride[2] as i64, g.dilation[2] as i64);
    let pairs = (0..run as i64).flat_map(|t| (0..g.kernel[2] as i64).map(move |r| (t, r * dilation)));
    let seen: BTreeSet<i64> = match pass {
        Pass::GradX => {
            pairs.map(|(t, r)| t - r).filter(|at| at % stride == 0).map(|at| at / stride).collect()
        }
        Pass::Forward | Pass::GradW => pairs.map(|(t, r)| t * stride + r).collect(),
    };
    seen.len()
}

/// Pixels before the first one where the first run begins.
fn before(g: &ConvGeometry, pass: Pass) -> usize {
    if pass == Pass::GradX { g.padding[2] % g.stride[2] } else { 0 }
}

/// Patches of an image along each axis.
fn patches(g: &ConvGeometry, pass: Pass, run: usize, patch: [usize; 3]) -> [usize; 3] {
    let [d, h, w] = extents(g, pass);
    let w = (w + before(g, pass)).div_ceil(run);
    [d.div_ceil(patch[0]), h.div_ceil(patch[1]), w.div_ceil(patch[2])]
}

/// As many threads as there are, along the axes: the axis that reaches least far is doubled, until all of it is covered.
fn patch(g: &ConvGeometry, pass: Pass, run: usize, threads: usize) -> [usize; 3] {
    let [d, h, w] = extents(g, pass);
    let (whole, step) = ([d, h, w + before(g, pass)], [1, 1, run]);
    let mut patch = [1; 3];
    while patch.iter().product::<usize>() < threads {
        let reach = |a: &usize| patch[*a] * step[*a];
        let axis = (0..3).rev().filter(|a| reach(a) < whole[*a]).min_by_key(reach).unwrap_or(1);
        patch[axis] *= 2;
    }
    patch
}

impl Variant {
    /// The rule's, if the kernels can compute the pass; with so many slices, where a number is given.
    fn new(
        g: &ConvGeometry,
        pass: Pass,
        bytes: usize,
        multiprocessors: usize,
        slices: Option<usize>,
    ) -> Option<Self> {
        let wide = extents(g, pass)[2].next_power_of_two();
        // Shorter ones where registers do not hold what a longer one reads.
        let mut runs = if pass == Pass::GradX {
            vec![RUN.next_multiple_of(g.stride[2]), g.stride[2]]
        } else {
            vec![RUN, 2, 1]
        };
        runs.retain(|run| pass == Pass::GradX || *run <= wide);
        runs.into_iter().find_map(|run| Variant::with(g, pass, run, bytes, multiprocessors, slices))
    }

    fn with(
        g: &ConvGeometry,
        pass: Pass,
        run: usize,
        bytes: usize,
        multiprocessors: usize,
        slices: Option<usize>,
    ) -> Option<Self> {
        let parts @ [from, to] = group(g, pass);
        let by_weights = pass == Pass::GradW;
        let [kd, kh, kw] = g.kernel;
        // With the gradient by the weights half as many, whose sums leave room for a plane of taps.
        let widest = VECTOR / bytes / if by_weights { 2 } else { 1 };
        let kept = kw * from; // weights of a line, or sums
        let read = neighbours(g, pass, run);
        let suits = |width: usize| {
            let whole = width.is_multiple_of(to) && g.groups.is_multiple_of(width / to);
            (whole || to.is_multiple_of(width))
                && (!by_weights || width * kept <= MOST_VALUES)
                && width * (kept + run) + read * (sources(parts, width) * bytes).div_ceil(4) <= MOST_REGISTERS
                && sources(parts, width) <= MOST_SOURCES
        };
        let width = [8, 4, 2, 1].into_iter().filter(|w| *w <= widest && suits(*w)).max()?;
        // A group of three or so at once where that is wider: its sources are read once.
        let width = if to > width && to <= widest && suits(to) { to } else { width };
        let channels = g.groups * to;
        let lanes =
            (channels / width).next_power_of_two().min(32).min((LINE / bytes / width).next_power_of_two());
        let lines = if by_weights { (MOST_VALUES / (kept * width)).min(kd * kh) } else { kd * kh };
        // Balanced: no group of lines has much less to do than the others.
        let lines = (kd * kh).div_ceil((kd * kh).div_ceil(lines));
        let shared = |lanes: usize| {
            let a_lane = if by_weights { THREADS / 32 * lines * kept } else { g.taps() * from };
            ELEMENT * a_lane * width * lanes
        };
        let lanes = (0..=lanes.ilog2()).rev().map(|l| 1 << l).find(|l| shared(*l) <= SHARED)?;
        let patch = patch(g, pass, run, THREADS / lanes);
        let patches = g.n * patches(g, pass, run, patch).iter().product::<usize>();
        let tiles = channels.div_ceil(lanes * width) * (kd * kh).div_ceil(lines);
        let wanted = (RESIDENT * multiprocessors).div_ceil(tiles);
        let blocks = if by_weights {
            slices.unwrap_or(wanted).min(MOST_SLICES).min(patches.div_ceil(2))
        } else {
            // Twice as many as there is room for: not all patches take equally long.
            (2 * wanted).min(patches)
        };
        let shared = shared(lanes);
        Some(Variant { width, run, lanes, patch, patches, lines, blocks: blocks.max(1), shared })
    }

    /// Slices of the sum.
    pub fn slices(&self, pass: Pass) -> usize {
        if pass == Pass::GradW { self.blocks } else { 1 }
    }
}

/// Whether these kernels can compute a pass.
fn possible(g: &ConvGeometry, pass: Pass) -> bool {
    g.groups > 1
        && g.n * g.in_pixels() * g.out_pixels() > 0
        && (pass != Pass::GradX || g.stride[2] <= MOST_STRIDE)
        && group(g, pass)[0] <= MOST_SOURCES
}

/// Whether a group's channels are too few for the tiles of the general kernels. By reasoning, not by timing: with one channel of
/// sixteen of a tile the copies, with fp32 the multiply-adds too, are sixteen times as many as are needed; with four channels and
/// tensor cores both ways come to the same.
fn suits(g: &ConvGeometry, pass: Pass, math: Math) -> bool {
    group(g, pass)[0] <= if math == Math::Fma { 8 } else { 4 }
}

/// Bytes of an operand's element that a variant is for.
fn element(math: Math) -> usize {
    math.element_bytes()
}

/// Whether these kernels can compute a shape so.
pub(super) fn allows(shape: &ConvShape, v: &variant::Variant) -> bool {
    let (g, pass) = (&shape.geometry, shape.pass);
    // Slices do not depend on the device once they are given.
    let own = || Variant::new(g, pass, element(shape.math), 1, Some(v.slices));
    possible(g, pass) && own().is_some_and(|o| (o.run, o.width, o.slices(pass)) == (v.bm, v.bn, v.slices))
}

/// Ways to compute a shape that may be worth a trial; not all of them need be possible.
pub(super) fn variants(shape: &ConvShape, multiprocessors: usize) -> Vec<variant::Variant> {
    let (g, pass) = (&shape.geometry, shape.pass);
    let of = |slices| Variant::new(g, pass, element(shape.math), multiprocessors, slices);
    let Some(usual) = of(None).filter(|_| possible(g, pass)) else { return Vec::new() };
    let slices = usual.slices(pass);
    [slices, slices / 2, 2 * slices].map(|slices| named(&usual, slices)).into()
}

fn named(v: &Variant, slices: usize) -> variant::Variant {
    variant::Variant { kernels: Kernels::Depthwise, bm: v.run, bn: v.width, slices }
}

/// What is taken of these kernels where nothing was measured.
pub(super) fn default(shape: &ConvShape, gpu: &GpuTraits) -> Option<variant::Variant> {
    let (g, pass) = (&shape.geometry, shape.pass);
    choose(g, pass, &GpuTraits { math: shape.math, choices: None, ..*gpu }).map(|v| named(&v, v.slices(pass)))
}

/// Which of these kernels a pass takes, if any, where nothing was measured: by the shape and the device.
pub fn choose(g: &ConvGeometry, pass: Pass, gpu: &GpuTraits) -> Option<Variant> {
    choose_measured(g, pass, gpu, None)
}

/// As [`choose`], where a variant was `measured` to be the fastest.
pub fn choose_measured(
    g: &ConvGeometry,
    pass: Pass,
    gpu: &GpuTraits,
    measured: Option<variant::Variant>,
) -> Option<Variant> {
    if !possible(g, pass) {
        return None;
    }
    let of = |slices| Variant::new(g, pass, element(gpu.math), gpu.multiprocessors, slices);
    match measured {
        Some(v) if v.kernels == Kernels::Depthwise => of(Some(v.slices)),
        Some(_) => None,
        None if suits(g, pass, gpu.math) => of(None),
        None => None,
    }
}

/// How many channels of an operand move at once, of as many as a thread has.
fn piece(channels: usize, operand: &Operand) -> usize {
    let most = VECTOR / operand.dtype.size();
    let fits = |n: &usize| operand.aligned && *n <= most && channels.is_multiple_of(*n);
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// The launches of a pass by a variant that was chosen for it; its operands are those of its operation, read as they are
/// stored, its result is of type `out`.
pub fn launches(
    g: &ConvGeometry,
    pass: Pass,
    v: &Variant,
    io: &Operands,
    gpu: &GpuTraits,
    epilogue: &Epilogue,
    out: &str,
) -> LaunchList {
    let mut list = LaunchList::default();
    let parts @ [from, to] = group(g, pass);
    let mut constants = vec![
        format!("GRAD_X={}", u8::from(pass == Pass::GradX)),
        format!("FROM={from}"),
        format!("TO={to}"),
        format!("WIDTH={}", v.width),
        format!("RUN={}", v.run),
        format!("LANES={}", v.lanes),
        format!("SOURCE={}", io.inputs[0].kind()),
        format!("SOURCE_PIECE={}", piece(sources(parts, v.width), &io.inputs[0])),
    ];
    for (name, axes) in
        [("PATCH", v.patch), ("KERNEL", g.kernel), ("STRIDE", g.stride), ("DILATION", g.dilation)]
    {
        constants.extend(["D", "H", "W"].iter().zip(axes).map(|(axis, n)| format!("{name}_{axis}={n}")));
    }
    let slices = v.slices(pass);
    let last = if slices == 1 { epilogue.clone() } else { Epilogue::default() };
    constants.extend(last.constants(out));
    let [bias, extra] = last.args();
    let patches = patches(g, pass, v.run, v.patch);
    let numbers: Vec<i32> =
        [v.patches as i32].into_iter().chain(patches.into_iter().flat_map(divider)).collect();
    let mut args =
        vec![geometry_argument(g)[..].into(), numbers[..].into(), LaunchArg::Input(0), LaunchArg::Input(1)];
    let tiles = (g.groups * to).div_ceil(v.lanes * v.width);
    let results = g.k * g.taps() * g.group_c();
    let partial = if slices > 1 { list.workspace(ELEMENT * slices * results) } else { LaunchArg::Null };
    let (file, kernel, grid) = if pass == Pass::GradW {
        constants.push(format!("LINES={}", v.lines));
        constants.push(format!("GRADIENT={}", io.inputs[1].kind()));
        constants.push(format!("GRADIENT_PIECE={}", piece(v.width, &io.inputs[1])));
        let whole = if slices == 1 { LaunchArg::Output } else { LaunchArg::Null };
        args.extend([extra, whole, partial.clone(), int(slices)]);
        let groups = (g.kernel[0] * g.kernel[1]).div_ceil(v.lines);
        ("conv_depthwise_grad_w.cu", "conv_depthwise_grad_w", [v.blocks, tiles, groups])
    } else {
        constants.push(format!("WEIGHT={}", io.inputs[1].kind()));
        // The result may lie in a larger tensor, of another type.
        let wide = |bytes: usize, aligned: bool| {
            let fits = |n: &usize| aligned && n * bytes <= VECTOR && v.width.is_multiple_of(*n);
            [8, 4, 2].into_iter().find(fits).unwrap_or(1)
        };
        let out_bytes = if out == "bf16" { 2 } else { 4 };
        constants.push(format!("OUT_PIECE={}", wide(out_bytes, io.output.aligned)));
        let second = match &epilogue.extra {
            Some(LaunchArg::Input(i)) => piece(v.width, &io.inputs[*i]),
            _ => 1,
        };
        constants.push(format!("EXTRA_PIECE={second}"));
        args.extend([bias, extra, LaunchArg::Output]);
        ("conv_depthwise.cu", "conv_depthwise", [v.blocks, tiles, 1])
    };
    list.push(Launch {
        shared: v.shared,
        ..Launch::new(Specialisation::new(file, constants), kernel, grid, args)
    });
    if slices > 1 {
        list.push(sum_slices(gpu, partial, results, slices, g.group_c(), out, epilogue));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::choices::Choices;
    use crate::device::launch::Tailored;
    use crate::ops::conv::cuda::variants::measured;

    fn geometry(c: usize, k: usize, groups: usize, size: [usize; 3]) -> ConvGeometry {
        let kernel = size.map(|s| if s == 1 { 1 } else { 3 });
        ConvGeometry {
            n: 2,
            c,
            k,
            groups,
            input: size,
            output: size,
            kernel,
            stride: [1; 3],
            padding: kernel.map(|k| k / 2),
            dilation: [1; 3],
        }
    }

    fn gpu(math: Math) -> GpuTraits {
        GpuTraits {
            multiprocessors: 132,
            math,
            fixed_shapes: true,
            fused: true,
            choices: None,
            hopper: Tailored::Auto,
            window: Tailored::Auto,
        }
    }

    const PASSES: [Pass; 3] = [Pass::Forward, Pass::GradX, Pass::GradW];

    #[test]
    fn channels_are_read_in_vectors_and_patches_are_nearly_square() {
        let of = |g: &ConvGeometry, pass, math| choose(g, pass, &gpu(math)).expect("suited");
        let g = geometry(256, 256, 256, [1, 64, 64]);
        let v = of(&g, Pass::Forward, Math::Bf16);
        assert_eq!((v.width, v.run, v.lanes, v.patch, v.patches), (8, 4, 8, [1, 8, 4], 2 * 8 * 4));
        assert_eq!(v.shared, 9 * 64 * 4);
        assert_eq!(of(&g, Pass::Forward, Math::Fma).width, 4);
        let v = of(&g, Pass::GradW, Math::Bf16);
        assert_eq!((v.width, v.lanes, v.lines, v.blocks), (4, 16, 3, 64), "{v:?}");
        let volume = of(&geometry(64, 64, 64, [32; 3]), Pass::Forward, Math::Bf16);
        assert_eq!((volume.width, volume.patch), (8, [4, 4, 2]));
        // Channels that no vector divides; groups of three; a multiplier.
        assert_eq!(of(&geometry(99, 99, 99, [1, 9, 9]), Pass::Forward, Math::Bf16).width, 1);
        assert_eq!(of(&geometry(30, 30, 10, [1, 9, 9]), Pass::Forward, Math::Bf16).width, 3);
        let g = geometry(32, 64, 32, [1, 9, 9]);
        assert_eq!([Pass::Forward, Pass::GradX].map(|p| of(&g, p, Math::Bf16).width), [8, 4]);
    }

    #[test]
    fn what_they_cannot_compute_or_tiles_suit_is_left_to_the_others() {
        for pass in PASSES {
            let takes =
                |c, k, groups, math| choose(&geometry(c, k, groups, [1, 9, 9]), pass, &gpu(math)).is_some();
            assert!(takes(64, 64, 64, Math::Bf16) && takes(64, 64, 16, Math::Bf16));
            assert!(!takes(64, 64, 1, Math::Fma), "no groups");
            assert!(!takes(64, 64, 8, Math::Bf16) && takes(64, 64, 8, Math::Fma), "groups of 8");
            assert!(!takes(64, 64, 4, Math::Fma), "groups of 16");
            let wide = ConvGeometry { kernel: [1, 1, 99], ..geometry(4, 4, 4, [1, 9, 9]) };
            assert_eq!(choose(&wide, pass, &gpu(Math::Fma)), None, "a line of taps is kept in registers");
        }
    }

    /// Whatever the shape, a variant is what the kernels demand.
    #[test]
    fn everything_fits() {
        for (multiplier, groups) in [1, 2, 3, 8, 12].into_iter().flat_map(|m| [2, 3, 8, 96].map(|g| (m, g))) {
            for (each, size) in [1, 2, 3, 4, 5, 8]
                .into_iter()
                .flat_map(|e| [[1, 1, 5], [1, 20, 31], [5, 9, 9]].map(|s| (e, s)))
            {
                for (kernel, stride) in [(1, 1), (2, 2), (3, 1), (7, 1), (5, 3)] {
                    let g = geometry(each * groups, each * multiplier * groups, groups, size);
                    let kernel = size.map(|s| if s < kernel { 1 } else { kernel });
                    let g = ConvGeometry { kernel, stride: kernel.map(|k| stride.min(k)), ..g };
                    for (pass, math) in
                        PASSES.into_iter().flat_map(|p| [Math::Fma, Math::Bf16].map(|m| (p, m)))
                    {
                        let Some(v) = choose(&g, pass, &gpu(math)) else { continue };
                        let [from, to] = group(&g, pass);
                        assert!(v.width.is_multiple_of(to) || to.is_multiple_of(v.width), "{g:?} {v:?}");
                        assert!((g.groups * to).is_multiple_of(v.width), "{g:?} {v:?}");
                        assert_eq!(v.lanes * v.patch.iter().product::<usize>(), THREADS);
                        assert!(v.shared <= SHARED && v.blocks > 0);
                        assert!(pass != Pass::GradX || v.run.is_multiple_of(g.stride[2]));
                        assert!(v.width * (from * g.kernel[2] + v.run) <= MOST_REGISTERS);
                        let shape = ConvShape { geometry: g.clone(), pass, math };
                        let legal = shape.legal(&gpu(math));
                        assert_eq!(legal[0], named(&v, v.slices(pass)));
                        assert!(legal.iter().all(|v| shape.allows(v)), "{legal:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_measured_is_taken() {
        let shape =
            ConvShape { geometry: geometry(64, 64, 64, [1, 32, 32]), pass: Pass::GradW, math: Math::Bf16 };
        let with = |variant: &str| {
            let choices = Choices::leak([(shape.to_string(), variant.to_string())].into());
            let gpu = GpuTraits { choices: Some(choices), ..gpu(Math::Bf16) };
            let known = measured(&shape.geometry, shape.pass, &gpu);
            choose_measured(&shape.geometry, shape.pass, &gpu, known).map(|v| v.blocks)
        };
        assert_eq!(with("depthwise 4x4/2"), Some(2));
        assert_eq!(with("16x16/1"), None, "the general kernels were faster");
        assert_eq!(
            with("depthwise 4x8/2"),
            choose(&shape.geometry, shape.pass, &gpu(Math::Bf16)).map(|v| v.blocks)
        );
    }
}
