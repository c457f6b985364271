//! How a convolution with few channels is launched on the kernels that copy a box of pixels once for all taps
//! (`kernels/conv_window.cu`, `kernels/conv_window_grad_w.cu`): when they are taken, and which boxes. Pure arithmetic, like
//! `launch.rs`.

use super::epilogue::{Epilogue, MOST_TILES, operand, sum_slices};
use super::hopper::readable;
use super::product::{Math, Pass, geometry_argument};
use crate::device::launch::{
    ELEMENT, GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, Tailored, int,
};
use crate::ops::conv::geometry::ConvGeometry;

/// Bytes of dynamic shared memory that every device with tensor cores for bf16 allows a block: 99 KiB on 8.6 and 8.9, less what
/// statistics take.
const SHARED: usize = 96 << 10;
/// The most channels on either side: with more, weights and sums would be too large, and the products are what takes time.
const MOST_CHANNELS: usize = 64;
/// The largest extent of a kernel: the sums of a plane of taps are kept in registers.
const MOST_EXTENT: usize = 3;
/// Channels of 16 bytes.
const CHUNK: usize = 8;
/// Buffers in flight: one is read, one filled.
const STAGES: usize = 2;
/// Warps of a block that computes pixels.
const WARPS: usize = 4;
/// The least products (`mma`) of a warp between two barriers.
const PRODUCTS: usize = 64;
/// What a multiprocessor copies from the second-level cache, and multiplies by `mma.sync`, in a clock: to weigh boxes by, from
/// published figures of an H100. Not measured by themselves: the steps timed so far had no run without these kernels.
const BYTES_A_CLOCK: usize = 24;
const FLOPS_A_CLOCK: usize = 2048;

/// The shape of a block's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Pixels of a box, by axis.
    pub extents: [usize; 3],
    /// Boxes of all images.
    pub boxes: usize,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// How the taps are gone through.
    pub taps: Taps,
}

/// How a block goes through the taps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taps {
    /// A box a block, so many taps from barrier to barrier.
    Steps(usize),
    /// Sums of all taps of so many planes of the kernel are kept while `blocks` walk over the boxes, whose pixels are shared by
    /// so many parts of each block.
    Planes {
        /// Planes of the kernel in a block.
        depths: usize,
        /// Warps that share a box's pixels.
        parts: usize,
        /// Blocks, for each so many planes.
        blocks: usize,
    },
}

impl Variant {
    /// Slices of the sum; with more than one, `sum_slices` must follow.
    pub fn slices(&self) -> usize {
        if let Taps::Planes { parts, blocks, .. } = self.taps { parts * blocks } else { 1 }
    }

    /// Whether it can leave statistics of so many sets.
    pub fn takes_stats(&self, g: &ConvGeometry, sets: usize) -> bool {
        matches!(self.taps, Taps::Steps(_)) && (sets == 1 || sets == g.n) && self.boxes / sets <= MOST_TILES
    }
}

/// Chunks from one plane to the next, and the bytes of all: `plane` in `kernels/include/window.cuh`.
fn planes(rows: usize, chunks: usize, room: usize) -> usize {
    let apart = 8 / chunks.next_power_of_two().min(8);
    let plane = rows + (apart + 8 * rows - rows) % 8;
    16 * plane * room
}

/// Source and result channels of a pass that computes pixels.
fn channels(g: &ConvGeometry, pass: Pass) -> [usize; 2] {
    if pass == Pass::GradX { [g.k, g.c] } else { [g.c, g.k] }
}

/// Bytes of the weights of so many taps.
fn weight_bytes(g: &ConvGeometry, pass: Pass, taps: usize) -> usize {
    let [from, to] = channels(g, pass).map(|c| c / CHUNK);
    let (even, depth) = (to.next_multiple_of(2), (taps * from).next_multiple_of(2));
    if pass == Pass::GradX { planes(CHUNK * depth, to, even) } else { planes(CHUNK * even, depth, depth) }
}

/// The extents of the tensor that is cut into boxes.
fn cut(g: &ConvGeometry, pass: Pass) -> [usize; 3] {
    if pass == Pass::GradX { g.input } else { g.output }
}

fn product(e: [usize; 3]) -> usize {
    e.iter().product()
}

/// Boxes of all images.
fn boxes(g: &ConvGeometry, pass: Pass, extents: [usize; 3]) -> usize {
    let whole = cut(g, pass);
    g.n * (0..3).map(|a| whole[a].div_ceil(extents[a])).product::<usize>()
}

/// Pixels of a box with those around it that `kernel` reaches.
fn window(extents: [usize; 3], kernel: [usize; 3]) -> usize {
    (0..3).map(|a| extents[a] + kernel[a] - 1).product()
}

/// Clocks of a multiprocessor for what is copied and multiplied.
fn clocks(bytes: usize, multiplied: usize) -> usize {
    bytes / BYTES_A_CLOCK + 2 * multiplied / FLOPS_A_CLOCK
}

/// A block for each box.
fn pixels(g: &ConvGeometry, pass: Pass, multiprocessors: usize) -> Option<Variant> {
    let of = |extents: [usize; 3]| {
        let [from, to] = channels(g, pass).map(|c| c / CHUNK);
        let window = planes(window(extents, g.kernel), from, from);
        let [_, kh, kw] = g.kernel;
        let shared = |taps: usize| window + weight_bytes(g, pass, taps) * STAGES.min(g.taps() / taps);
        let products = |taps: usize| product(extents) / (16 * WARPS) * to * (taps * from).div_ceil(2);
        let mut fits = [1, kw, kh * kw, g.taps()].into_iter().filter(|&taps| shared(taps) <= SHARED);
        let last = fits.clone().next_back()?;
        let taps = fits.find(|&taps| products(taps) >= PRODUCTS).unwrap_or(last);
        let boxes = boxes(g, pass, extents);
        let copied = window + 2 * g.taps() * g.c * g.k;
        let each = clocks(copied, product(extents) * g.taps() * g.c * g.k);
        let variant = Variant { extents, boxes, shared: shared(taps), taps: Taps::Steps(taps) };
        Some((boxes.div_ceil(multiprocessors) * each, variant))
    };
    let flat = cut(g, pass)[0] == 1;
    let all = if flat { [[1, 16, 16], [1, 8, 16], [1, 8, 8]] } else { [[4, 8, 8], [2, 8, 8], [2, 4, 8]] };
    all.into_iter().filter_map(of).min_by_key(|v| v.0).map(|v| v.1)
}

/// Blocks that walk over boxes.
fn weights(g: &ConvGeometry, multiprocessors: usize) -> Option<Variant> {
    let [c, k] = [g.c / CHUNK, g.k / CHUNK];
    // As many as the registers of a multiprocessor hold the sums of.
    let warps = if k > 4 { 8 } else { 12 };
    let depths = if g.kernel[0] * c <= warps { g.kernel[0] } else { 1 };
    let room = warps / (depths * c);
    let parts = if room.is_power_of_two() { room } else { room.next_power_of_two() / 2 };
    let groups = g.kernel[0] / depths;
    let of = |extents: [usize; 3]| {
        let around = window(extents, [depths, g.kernel[1], g.kernel[2]]);
        let bytes = planes(around, c, c) + planes(product(extents), k, k);
        let boxes = boxes(g, Pass::GradW, extents);
        let each = clocks(bytes, product(extents) * g.taps() / groups * g.c * g.k);
        let wanted = (multiprocessors / groups).min(boxes / 2).max(1);
        let blocks = boxes.div_ceil(boxes.div_ceil(wanted)); // none is empty
        let parts = parts.min(product(extents) / 16);
        let taps = Taps::Planes { depths, parts, blocks };
        let variant = Variant { extents, boxes, shared: STAGES * bytes, taps };
        (variant.shared <= SHARED).then_some((boxes * each, variant))
    };
    let all = [[4, 8, 8], [2, 8, 8], [1, 16, 16], [1, 8, 16], [1, 8, 8]];
    all.into_iter().filter_map(of).min_by_key(|v| v.0).map(|v| v.1)
}

/// Which of these kernels a pass takes, if any: this alone decides, by the shape, the device, and whether the operands lie
/// where 16 bytes can be copied at once.
pub fn choose(g: &ConvGeometry, pass: Pass, aligned: [bool; 2], gpu: &GpuTraits) -> Option<Variant> {
    let few = |c: usize| c.is_multiple_of(CHUNK) && (1..=MOST_CHANNELS).contains(&c);
    let possible = gpu.math == Math::Bf16
        && g.groups == 1
        && few(g.c)
        && few(g.k)
        && g.stride == [1; 3]
        && g.dilation == [1; 3]
        && g.kernel.iter().all(|k| (1..=MOST_EXTENT).contains(k))
        && g.n * product(cut(g, pass)) > 0
        && aligned == [true; 2];
    if !possible || gpu.window == Tailored::Off {
        return None;
    }
    let variant = match pass {
        Pass::GradW => weights(g, gpu.multiprocessors),
        Pass::Forward | Pass::GradX => pixels(g, pass, gpu.multiprocessors),
    }?;
    // By reasoning, not by timing: with fewer taps a pixel is not gathered often; with fewer boxes the multiprocessors have nothing to
    // do, and the general kernels cut the sums into slices; mostly empty boxes are mostly wasted.
    let enough = variant.boxes * if pass == Pass::GradW { 1 } else { 2 } >= gpu.multiprocessors;
    let full = 2 * g.n * product(cut(g, pass)) >= variant.boxes * product(variant.extents);
    let suited = g.taps() >= 9 && enough && full;
    (suited || gpu.window == Tailored::Always).then_some(variant)
}

/// Which of these kernels a pass of an operation takes, if any: see [`choose`].
pub fn suited(g: &ConvGeometry, pass: Pass, io: &Operands, gpu: &GpuTraits) -> Option<Variant> {
    choose(g, pass, [0, 1].map(|i| readable(io, i)), gpu)
}

/// The launches of a pass by a variant that was chosen for it; its operands are those of its operation, its result is of
/// type `out`.
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
    let [first, second] = [0, 1].map(|i| operand(&mut list, io, i, gpu).0);
    let [from, to] = channels(g, pass);
    let by_axis =
        |name: &str, e: [usize; 3]| [0, 1, 2].map(|a| format!("{name}_{}={}", ["D", "H", "W"][a], e[a]));
    let mut constants = vec![
        format!("CHANNELS={from}"),
        format!("COLUMNS={to}"),
        format!("STAGES={STAGES}"),
        format!("PAIRS={}", u8::from(io.output.aligned)),
    ];
    constants.extend(by_axis("KERNEL", g.kernel));
    constants.extend(by_axis("BOX", v.extents));
    if gpu.fixed_shapes {
        constants.push(format!("GEOMETRY={}", geometry_argument(g).map(|v| v.to_string()).join(",")));
    }
    let slices = v.slices();
    let last = if slices == 1 { epilogue.clone() } else { Epilogue::default() };
    constants.extend(last.constants(out));
    let [bias, extra] = last.args();
    let mut args = vec![geometry_argument(g)[..].into(), first, second];
    let results = g.k * g.taps() * g.c;
    let partial = if slices > 1 { list.workspace(ELEMENT * slices * results) } else { LaunchArg::Null };
    let (file, kernel, grid, warps) = match v.taps {
        Taps::Steps(taps) => {
            constants.push(format!("GRAD_X={}", u8::from(pass == Pass::GradX)));
            constants.extend([format!("STEP_TAPS={taps}"), format!("WARPS={WARPS}"), "MIN_BLOCKS=2".into()]);
            args.extend([bias, extra, LaunchArg::Output]);
            match &epilogue.stats {
                Some(s) => {
                    args.push(list.counters(s.sets));
                    args.extend(s.args(&mut list, v.boxes, to));
                }
                None => args.extend([LaunchArg::Null, int(1), LaunchArg::Null, LaunchArg::Null]),
            }
            ("conv_window.cu", "conv_window", [v.boxes, 1, 1], WARPS)
        }
        Taps::Planes { depths, parts, blocks } => {
            constants.extend([format!("DEPTHS={depths}"), format!("PARTS={parts}"), "MIN_BLOCKS=1".into()]);
            let whole = if slices == 1 { LaunchArg::Output } else { LaunchArg::Null };
            args.extend([extra, whole, partial.clone(), int(slices)]);
            let warps = depths * parts * from / CHUNK;
            let groups = g.kernel[0] / depths;
            ("conv_window_grad_w.cu", "conv_window_grad_w", [blocks, groups, 1], warps)
        }
    };
    list.push(Launch {
        specialisation: Specialisation::new(file, constants),
        kernel,
        grid: grid.map(|v| v as u32),
        threads: 32 * warps as u32,
        shared: v.shared,
        args,
    });
    if slices > 1 {
        list.push(sum_slices(gpu, partial, results, slices, g.c, out, epilogue));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(n: usize, c: usize, k: usize, size: [usize; 3]) -> ConvGeometry {
        let kernel = size.map(|s| if s == 1 { 1 } else { 3 });
        ConvGeometry {
            n,
            c,
            k,
            groups: 1,
            input: size,
            output: size,
            kernel,
            stride: [1; 3],
            padding: kernel.map(|k| k / 2),
            dilation: [1; 3],
        }
    }

    fn gpu(window: Tailored) -> GpuTraits {
        GpuTraits {
            multiprocessors: 132,
            math: Math::Bf16,
            fixed_shapes: true,
            fused: true,
            choices: None,
            hopper: Tailored::Off,
            window,
        }
    }

    fn taken(g: &ConvGeometry, pass: Pass, window: Tailored) -> Option<Variant> {
        choose(g, pass, [true; 2], &gpu(window))
    }

    const PASSES: [Pass; 3] = [Pass::Forward, Pass::GradX, Pass::GradW];

    #[test]
    fn boxes_are_large_where_there_are_many_pixels_and_small_where_there_are_few() {
        let of = |g: &ConvGeometry, pass| {
            let v = taken(g, pass, Tailored::Auto).expect("suited");
            (v.extents, v.taps)
        };
        let large = geometry(2, 64, 64, [64; 3]);
        assert_eq!(of(&large, Pass::Forward), ([4, 8, 8], Taps::Steps(1)));
        assert_eq!(of(&large, Pass::GradX), ([4, 8, 8], Taps::Steps(1)));
        let taps = Taps::Planes { depths: 1, parts: 1, blocks: 44 };
        assert_eq!(of(&large, Pass::GradW), ([1, 8, 16], taps));
        assert_eq!(of(&geometry(2, 32, 32, [64; 3]), Pass::Forward), ([4, 8, 8], Taps::Steps(3)));
        let taps = Taps::Planes { depths: 3, parts: 1, blocks: 128 };
        assert_eq!(of(&geometry(2, 32, 32, [64; 3]), Pass::GradW), ([2, 8, 8], taps));
        assert_eq!(of(&geometry(2, 64, 64, [16; 3]), Pass::Forward), ([2, 4, 8], Taps::Steps(3)));
        assert_eq!(of(&geometry(1, 64, 64, [1, 256, 256]), Pass::Forward), ([1, 16, 16], Taps::Steps(1)));
    }

    #[test]
    fn what_these_kernels_cannot_take_or_would_not_fill_is_left_to_the_others() {
        let suited = geometry(2, 32, 32, [64; 3]);
        let g = || suited.clone();
        for pass in PASSES {
            let takes = |g: &ConvGeometry, window| taken(g, pass, window).is_some();
            assert!(takes(&suited, Tailored::Auto) && !takes(&suited, Tailored::Off));
            for impossible in [
                ConvGeometry { c: 72, ..g() },
                ConvGeometry { k: 12, ..g() },
                ConvGeometry { groups: 2, ..g() },
                ConvGeometry { stride: [1, 2, 2], output: [64, 32, 32], ..g() },
                ConvGeometry { dilation: [2, 1, 1], output: [62, 64, 64], ..g() },
                ConvGeometry { kernel: [3, 3, 5], output: [64, 64, 62], ..g() },
            ] {
                assert!(!takes(&impossible, Tailored::Always), "{impossible:?}");
            }
            assert_eq!(choose(&suited, pass, [true, false], &gpu(Tailored::Always)), None, "begins anywhere");
            let exact = GpuTraits { math: Math::Tf32, ..gpu(Tailored::Always) };
            assert_eq!(choose(&suited, pass, [true; 2], &exact), None);
            let one_tap = ConvGeometry { kernel: [1; 3], padding: [0; 3], ..g() };
            for possible in [one_tap, geometry(1, 32, 32, [8; 3]), geometry(512, 32, 32, [1, 3, 3])] {
                assert!(
                    takes(&possible, Tailored::Always) && !takes(&possible, Tailored::Auto),
                    "{possible:?}"
                );
            }
        }
    }

    /// Whatever the channels, a variant fits and is what the kernels demand.
    #[test]
    fn everything_fits() {
        for (c, k) in (1..=8).flat_map(|c| (1..=8).map(move |k| (8 * c, 8 * k))) {
            for size in [[1, 1, 5], [1, 20, 30], [3, 9, 9], [40, 40, 40]] {
                for (pass, multiprocessors) in PASSES.into_iter().flat_map(|p| [1, 7, 132].map(|m| (p, m))) {
                    let g = geometry(2, c, k, size);
                    let device = GpuTraits { multiprocessors, ..gpu(Tailored::Always) };
                    let v = choose(&g, pass, [true; 2], &device).expect("possible");
                    assert!(v.shared <= SHARED, "{g:?} {v:?}");
                    let pixels = product(v.extents);
                    match v.taps {
                        Taps::Steps(taps) => {
                            assert!(pixels.is_multiple_of(16 * WARPS) && g.taps().is_multiple_of(taps));
                        }
                        Taps::Planes { depths, parts, blocks } => {
                            let warps = depths * parts * c / CHUNK;
                            assert!(warps <= if k > 32 { 8 } else { 12 }, "{g:?} {v:?}");
                            assert!((pixels / 16).is_multiple_of(parts) && blocks <= v.boxes);
                            assert!(g.kernel[0].is_multiple_of(depths));
                        }
                    }
                }
            }
        }
    }

    /// Eight neighbouring threads copy to eight different places of the banks: chunk after chunk, row after row.
    #[test]
    fn copies_meet_no_conflicts_of_banks() {
        for chunks in [1, 2, 4, 8] {
            for rows in [27, 64, 100, 600] {
                let plane = planes(rows, chunks, 1) / 16;
                assert!((rows..rows + 8).contains(&plane));
                let mut places: Vec<usize> = (0..8).map(|i| (i % chunks * plane + i / chunks) % 8).collect();
                places.sort_unstable();
                assert_eq!(places, (0..8).collect::<Vec<_>>(), "{chunks} chunks of {rows} rows");
            }
        }
    }
}
