//! How a convolution is launched on sm_90a's own kernels (`kernels/conv_hopper.cu`, `kernels/conv_hopper_grad_w.cu`): when
//! they are taken, which tiles, and what TMA is told. Pure arithmetic, like `launch.rs`.

use super::epilogue::{Epilogue, operand, sum_slices, tiles_suit};
use super::product::{Math, Pass, even_phases, product, shape_argument, window_constant};
use super::variant::{self, ConvShape, Kernels};
use crate::device::launch::{
    ELEMENT, GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, Tailored, int,
};
use crate::device::tensor_map::{ROW, Take, TensorMap};
use crate::dtype::DType;
use crate::ops::conv::geometry::ConvGeometry;

/// Rows of a tile of two warpgroups.
const ROWS: usize = 128;
/// Summed indices of a step.
const DEPTH: usize = 64;
/// Bytes that all buffers of a block may take: what a block may have, less the barriers, what a tile's statistics take, and what
/// the system keeps.
const SHARED: usize = 218 << 10;
/// Threads of a block.
const THREADS: u32 = 384;
/// Maps of phases that the arguments hold beside the others: 4 KiB in all.
const MOST_PHASES: usize = 27;

/// The shape of a block's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Rows of a tile: of two warpgroups, or of one, which then share its columns.
    pub rows: usize,
    /// Columns of a tile.
    pub bn: usize,
    /// Buffers in flight.
    pub stages: usize,
    /// Slices of the sum; with more than one, `sum_slices` must follow.
    pub slices: usize,
    /// Tiles along the rows (of the largest phase).
    row_tiles: usize,
    /// All there is to do: tiles of all slices and phases.
    items: usize,
}

impl Variant {
    /// The rule's.
    fn new(g: &ConvGeometry, pass: Pass, multiprocessors: usize) -> Self {
        let (columns, rows) = (columns(g, pass), rows(g, pass));
        // Wide tiles read shared memory less often; they must still be enough for all multiprocessors.
        let bn = match columns {
            0..=64 if rows == ROWS => 64,
            c if c > 128 && tiles(g, pass, 256) >= multiprocessors => 256,
            _ => 128,
        };
        Variant::of(g, pass, bn, usual_slices(g, pass, bn, multiprocessors))
    }

    /// With tiles so wide, and about so many slices.
    fn of(g: &ConvGeometry, pass: Pass, bn: usize, wanted: usize) -> Self {
        let (rows, steps) = (rows(g, pass), steps(g, pass));
        let slices = steps.div_ceil(steps.div_ceil(wanted)); // none is empty
        let stages = (SHARED / stage_bytes(rows, bn)).min(8);
        let row_tiles = product(g, pass).m.div_ceil(rows);
        Variant { rows, bn, stages, slices, row_tiles, items: tiles(g, pass, bn) * slices }
    }

    /// Bytes of dynamic shared memory: the buffers, two barriers for each, and one of the multiplying warps.
    pub fn shared(&self) -> usize {
        self.stages * (stage_bytes(self.rows, self.bn) + 16) + 16
    }

    /// Whether a pass can leave statistics of its result, of `sets` sets of pixels: if it has all sums in one slice, no tile
    /// lies in two sets, and there are not too many.
    pub fn takes_stats(&self, g: &ConvGeometry, pass: Pass, sets: usize) -> bool {
        self.slices == 1 && pass != Pass::GradW && tiles_suit(g, pass, self.rows, sets)
    }
}

/// Rows of a tile: a gradient by few weights takes one warpgroup's.
fn rows(g: &ConvGeometry, pass: Pass) -> usize {
    if pass == Pass::GradW && product(g, pass).m <= 64 { 64 } else { ROWS }
}

/// Columns of the product; those of a gradient by weights are tap by tap in whole sub-tiles.
fn columns(g: &ConvGeometry, pass: Pass) -> usize {
    if pass == Pass::GradW { g.taps() * g.c.next_multiple_of(ROW) } else { product(g, pass).n }
}

/// Tiles of all phases.
fn tiles(g: &ConvGeometry, pass: Pass, bn: usize) -> usize {
    let rows = product(g, pass).m.div_ceil(rows(g, pass));
    rows * columns(g, pass).div_ceil(bn) * phases(g, pass).len()
}

/// Steps of the largest phase.
fn steps(g: &ConvGeometry, pass: Pass) -> usize {
    let p = product(g, pass);
    match pass {
        Pass::GradW => p.k.div_ceil(DEPTH),
        // Its taps, and the source's channels.
        Pass::Forward => g.taps() * g.c.div_ceil(DEPTH),
        Pass::GradX => p.k / g.k * g.k.div_ceil(DEPTH),
    }
}

/// Slices that give every multiprocessor a tile, of at least four steps each.
fn usual_slices(g: &ConvGeometry, pass: Pass, bn: usize, multiprocessors: usize) -> usize {
    let tiles = tiles(g, pass, bn);
    if tiles >= multiprocessors { 1 } else { (multiprocessors / tiles).min(steps(g, pass) / 4).clamp(1, 64) }
}

/// Widths of tiles that the kernels are made for.
const WIDTHS: [usize; 3] = [64, 128, 256];

/// Whether these kernels can compute a shape so.
pub(super) fn allows(shape: &ConvShape, v: &variant::Variant) -> bool {
    let (g, pass) = (&shape.geometry, shape.pass);
    let rows = rows(g, pass);
    // No wider than there are columns; two warpgroups that share 64 rows share the columns.
    let widest = columns(g, pass).next_power_of_two().max(64);
    possible(g, pass, shape.math)
        && v.bm == rows
        && WIDTHS.contains(&v.bn)
        && (v.bn <= widest || v.bn == 128 && rows != ROWS)
        && (v.bn > 64 || rows == ROWS)
        && (1..=(steps(g, pass) / 4).clamp(1, 64)).contains(&v.slices)
        && Variant::of(g, pass, v.bn, v.slices).slices == v.slices
}

/// Ways to compute a shape that may be worth a trial; not all of them need be possible.
pub(super) fn variants(shape: &ConvShape, multiprocessors: usize) -> Vec<variant::Variant> {
    let (g, pass) = (&shape.geometry, shape.pass);
    let mut all = Vec::new();
    if !possible(g, pass, shape.math) {
        return all;
    }
    for bn in WIDTHS {
        let usual = usual_slices(g, pass, bn, multiprocessors);
        for wanted in [usual, 1, usual.div_ceil(2), 2 * usual] {
            let slices = Variant::of(g, pass, bn, wanted).slices;
            all.push(variant::Variant { kernels: Kernels::Hopper, bm: rows(g, pass), bn, slices });
        }
    }
    all
}

/// Whether these kernels can compute a pass whose operands lie well.
fn possible(g: &ConvGeometry, pass: Pass, math: Math) -> bool {
    math == Math::Bf16
        && g.groups == 1
        && g.c.is_multiple_of(8)
        && g.k.is_multiple_of(8)
        && g.output.iter().all(|&o| o > 0)
        && (pass != Pass::GradX || g.stride.iter().product::<usize>() <= MOST_PHASES)
        && maps(g, pass, 64).is_some()
}

fn stage_bytes(rows: usize, bn: usize) -> usize {
    (rows + bn) * 2 * DEPTH
}

/// Which of sm_90a's kernels a pass takes, if any, where nothing was measured: by the shape, the device, and whether the operands
/// lie where TMA can read them.
pub fn choose(g: &ConvGeometry, pass: Pass, aligned: [bool; 2], gpu: &GpuTraits) -> Option<Variant> {
    choose_measured(g, pass, aligned, gpu, None)
}

/// As [`choose`], where a variant was `measured` to be the fastest.
pub fn choose_measured(
    g: &ConvGeometry,
    pass: Pass,
    aligned: [bool; 2],
    gpu: &GpuTraits,
    measured: Option<variant::Variant>,
) -> Option<Variant> {
    if gpu.hopper == Tailored::Off || aligned != [true; 2] || !possible(g, pass, gpu.math) {
        return None;
    }
    let rule = || Variant::new(g, pass, gpu.multiprocessors);
    match measured {
        _ if gpu.hopper == Tailored::Always => Some(rule()),
        Some(v) => (v.kernels == Kernels::Hopper).then(|| Variant::of(g, pass, v.bn, v.slices)),
        None => suits(g, pass).then(rule),
    }
}

/// Whether tiles would not be mostly empty: then the other kernels fit better. (By reasoning; on an H100 a pix2pix step of
/// batch 1 takes 3.02 ms with these kernels and 3.40 without.)
fn suits(g: &ConvGeometry, pass: Pass) -> bool {
    let p = product(g, pass);
    match pass {
        Pass::GradW => g.k >= 64 && g.c >= 32 && p.k >= 4 * DEPTH,
        Pass::Forward => p.m >= ROWS && g.k >= 32 && g.c >= 32,
        Pass::GradX => p.m >= ROWS && g.c >= 32 && g.k >= 32,
    }
}

/// Along one axis, how the result of a pass meets its source: see `Axis` in `kernels/include/conv.cuh`.
struct Walk {
    /// Positions of the result.
    positions: usize,
    /// The lowest source coordinate, and the distance of those of neighbouring positions.
    low: i64,
    scale: usize,
    /// How much further the last tap reads.
    reach: usize,
}

fn forward_walk(g: &ConvGeometry, a: usize) -> Walk {
    let reach = (g.kernel[a] - 1) * g.dilation[a];
    Walk { positions: g.output[a], low: -(g.padding[a] as i64), scale: g.stride[a], reach }
}

/// Result positions of one residue by the stride: those taps meet them whose distance is divisible by it.
fn phase_walk(g: &ConvGeometry, a: usize, phase: usize) -> Walk {
    let (stride, dilation) = (g.stride[a] as i64, g.dilation[a] as i64);
    let target = (phase + g.padding[a]) as i64;
    let hits: Vec<i64> = (0..g.kernel[a] as i64).filter(|r| (target - r * dilation) % stride == 0).collect();
    let positions = g.input[a].saturating_sub(phase).div_ceil(g.stride[a]);
    let (Some(first), Some(last)) = (hits.first(), hits.last()) else {
        return Walk { positions, low: 0, scale: 1, reach: 0 };
    };
    let reach = ((last - first) * dilation / stride) as usize;
    Walk { positions, low: (target - first * dilation) / stride - reach as i64, scale: 1, reach }
}

/// The walks of a pass, phase by phase.
fn phases(g: &ConvGeometry, pass: Pass) -> Vec<[Walk; 3]> {
    let s = g.stride;
    let count = if pass == Pass::GradX { s.iter().product() } else { 1 };
    let of = |phase: usize| [phase / (s[1] * s[2]), phase / s[2] % s[1], phase % s[2]];
    let walk = |a: usize, phase: usize| {
        if pass == Pass::GradX { phase_walk(g, a, of(phase)[a]) } else { forward_walk(g, a) }
    };
    (0..count).map(|phase| std::array::from_fn(|a| walk(a, phase))).collect()
}

/// Axes of a pixel in the maps: two where there is no depth.
fn spatial(g: &ConvGeometry) -> usize {
    if g.input[0] == 1 && g.output[0] == 1 && g.kernel[0] == 1 && g.padding[0] == 0 { 2 } else { 3 }
}

/// The im2col maps of the gathered tensor, one a phase, or nothing if TMA can't walk so.
fn gathered(g: &ConvGeometry, pass: Pass, pixels: usize) -> Option<Vec<TensorMap>> {
    let (channels, source) = if pass == Pass::GradX { (g.k, g.output) } else { (g.c, g.input) };
    let axes = (3 - spatial(g)..3).rev(); // the fastest first
    let map = |walks: &[Walk; 3]| {
        let (mut lower, mut upper, mut steps, mut reach) = (vec![], vec![], vec![], vec![]);
        for a in axes.clone() {
            let w = &walks[a];
            // A phase without positions is never walked: any map will do.
            let positions = w.positions.max(1);
            lower.push(w.low as i32);
            upper.push((w.low + ((positions - 1) * w.scale + 1) as i64 - source[a] as i64) as i32);
            steps.push(w.scale);
            reach.push(w.reach);
        }
        let extents = [channels].into_iter().chain(axes.clone().map(|a| source[a])).chain([g.n]).collect();
        let map = TensorMap { extents, take: Take::Im2col { lower, upper, steps, pixels } };
        map.is_valid(&reach).then_some(map)
    };
    phases(g, pass).iter().map(map).collect()
}

/// The maps of both operands, the gathered one first; `bn` columns of a tile.
fn maps(g: &ConvGeometry, pass: Pass, bn: usize) -> Option<[Vec<TensorMap>; 2]> {
    let weights = vec![g.c, g.taps(), g.k];
    let other = match pass {
        Pass::Forward => TensorMap { extents: weights, take: Take::Tiled(vec![ROW, 1, bn]) },
        Pass::GradX => TensorMap { extents: weights, take: Take::Tiled(vec![ROW, 1, DEPTH]) },
        Pass::GradW => {
            TensorMap { extents: vec![g.k, g.n * g.out_pixels()], take: Take::Tiled(vec![ROW, DEPTH]) }
        }
    };
    let pixels = if pass == Pass::GradW { DEPTH } else { ROWS };
    other.is_valid(&[]).then_some(())?;
    Some([gathered(g, pass, pixels)?, vec![other]])
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
    let (results, channels) = match pass {
        Pass::Forward => (g.n * g.out_pixels() * g.k, g.k),
        Pass::GradX => (g.n * g.in_pixels() * g.c, g.c),
        Pass::GradW => (g.k * g.taps() * g.c, g.c),
    };
    let operands = [0, 1].map(|i| operand(&mut list, io, i, gpu).0);
    let [gathered, other] = maps(g, pass, v.bn).expect("chosen for a geometry that has maps");
    let phases = gathered.len();
    let [first, second] = operands;
    let sources = LaunchArg::Maps(first.into(), gathered);
    let others = LaunchArg::Maps(second.into(), other);

    let whole = v.slices == 1;
    let last = if whole { epilogue.clone() } else { Epilogue::default() };
    let mut constants = vec![
        format!("BN={}", v.bn),
        format!("STAGES={}", v.stages),
        format!("SPATIAL={}", spatial(g)),
        format!("PAIRS={}", u8::from(io.output.aligned && channels.is_multiple_of(2))),
    ];
    constants.extend(last.constants(out));
    if gpu.fixed_shapes && even_phases(g, pass) {
        constants.push(window_constant(g));
    }
    let whole_tiles = if pass == Pass::GradW { 64 } else { v.bn };
    if gpu.fixed_shapes && channels.is_multiple_of(whole_tiles) {
        constants.push("WHOLE=1".into());
    }
    let partial = if whole { LaunchArg::Null } else { list.workspace(ELEMENT * v.slices * results) };
    let to = if whole { LaunchArg::Output } else { LaunchArg::Null };
    let mut args = vec![shape_argument(g, pass)[..].into(), sources, others];
    let (file, kernel) = match pass {
        Pass::GradW => {
            constants.push(format!("ROWS={}", v.rows));
            let [_, extra] = last.args();
            args.extend([extra, to, partial.clone(), int(v.slices)]);
            ("conv_hopper_grad_w.cu", "conv_hopper_grad_w")
        }
        Pass::Forward | Pass::GradX => {
            constants.push(format!("GRAD_X={}", u8::from(pass == Pass::GradX)));
            constants.push(format!("PHASES={phases}"));
            let parts = if pass == Pass::GradX { g.k } else { g.c }.div_ceil(16);
            if gpu.fixed_shapes && parts < DEPTH / 16 {
                constants.push(format!("PARTS={parts}"));
            }
            args.extend(last.args());
            args.extend([to, partial.clone(), int(v.slices), int(v.row_tiles), int(channels)]);
            match &epilogue.stats {
                Some(s) => {
                    args.push(list.counters(s.sets * channels.div_ceil(v.bn)));
                    args.extend(s.args(&mut list, v.row_tiles * phases, channels));
                }
                None => args.extend([LaunchArg::Null, int(1), LaunchArg::Null, LaunchArg::Null]),
            }
            ("conv_hopper.cu", "conv_hopper")
        }
    };
    list.push(Launch {
        specialisation: Specialisation::new(file, constants),
        kernel,
        grid: [v.items.min(gpu.multiprocessors) as u32, 1, 1],
        threads: THREADS,
        shared: v.shared(),
        args,
    });
    if !whole {
        list.push(sum_slices(gpu, partial, results, v.slices, channels, out, epilogue));
    }
    list
}

/// Which of sm_90a's kernels a pass of an operation takes, if any: see [`choose_measured`].
pub fn suited(
    g: &ConvGeometry,
    pass: Pass,
    io: &Operands,
    gpu: &GpuTraits,
    measured: Option<variant::Variant>,
) -> Option<Variant> {
    choose_measured(g, pass, [0, 1].map(|i| readable(io, i)), gpu, measured)
}

/// Whether TMA can read an operand where it is: a copy of it always lies well.
pub(super) fn readable(io: &Operands, i: usize) -> bool {
    io.inputs[i].dtype != DType::Bf16 || io.inputs[i].aligned
}
