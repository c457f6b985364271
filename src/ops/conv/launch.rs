//! How a convolution is launched on the GPU: which tiles, which constants, what grid. Pure arithmetic, so that it is
//! tested without a GPU; the kernels' own headers (`kernels/conv.cu`, `kernels/conv_grad_w.cu`) say what it all means.

use super::depthwise;
use super::geometry::ConvGeometry;
use super::hopper;
use super::variants::chosen;
use super::window;
pub use crate::device::launch::Math;
use crate::device::launch::{
    ELEMENT, GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, count, int,
};
use crate::device::pointwise::copy_as;
use crate::dtype::DType;

/// Which of the three partial derivatives of the trilinear form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// y from x and w.
    Forward,
    /// dx from dy and w (a transposed convolution, too).
    GradX,
    /// dw from x and dy.
    GradW,
}

/// The shape of a block's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiles {
    /// Rows of the result of one block.
    pub bm: usize,
    /// Columns of the result of one block.
    pub bn: usize,
    /// Depth of one step.
    pub bk: usize,
    /// Warps along the rows.
    pub warps_m: usize,
    /// Warps along the columns.
    pub warps_n: usize,
    /// Buffers in flight.
    pub stages: usize,
}

impl Tiles {
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        (32 * self.warps_m * self.warps_n) as u32
    }

    /// Bytes of dynamic shared memory.
    pub fn shared(&self, math: Math) -> usize {
        self.stages * (self.bm + self.bn) * self.bk * math.element_bytes()
    }

    /// The constants that tell the kernels.
    pub fn constants(&self) -> [String; 6] {
        let Tiles { bm, bn, bk, warps_m, warps_n, stages } = self;
        [
            format!("BM={bm}"),
            format!("BN={bn}"),
            format!("BK={bk}"),
            format!("WARPS_M={warps_m}"),
            format!("WARPS_N={warps_n}"),
            format!("STAGES={stages}"),
        ]
    }
}

/// The implicit matrix product of a pass, for one group (and, for [`Pass::GradX`], its largest phase).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// Length of each sum.
    pub k: usize,
}

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

/// The matrix product that a pass amounts to.
pub fn product(g: &ConvGeometry, pass: Pass) -> Product {
    match pass {
        Pass::Forward => Product { m: g.n * g.out_pixels(), n: g.group_k(), k: g.taps() * g.group_c() },
        Pass::GradX => {
            let per_axis =
                |extents: [usize; 3]| -> usize { (0..3).map(|a| extents[a].div_ceil(g.stride[a])).product() };
            Product { m: g.n * per_axis(g.input), n: g.group_c(), k: per_axis(g.kernel) * g.group_k() }
        }
        Pass::GradW => Product { m: g.group_k(), n: g.taps() * g.group_c(), k: g.n * g.out_pixels() },
    }
}

/// The most partial sums that the last block of a tile adds: 64 KiB, less than a microsecond's worth of what one multiprocessor
/// reads from the L2 cache. The launch that it saves took 4 to 10 us on an H100, `sum_slices` of a convolution by itself.
const MOST_PARTIAL: usize = 1 << 14;

/// Sides of tiles that are not halved any more.
const LEAST_SIDE: usize = 32;

/// Tiles and slices for a device with that many multiprocessors: tiles no larger than the product needs, and as many
/// slices as it takes to give every multiprocessor something to do, of at least four steps each; smaller tiles where one
/// tile's slices were too much for its last block.
pub fn choose(g: &ConvGeometry, pass: Pass, math: Math, multiprocessors: usize) -> (Tiles, usize) {
    let p = product(g, pass);
    let Tiles { mut bm, mut bn, .. } = tiles(p, math);
    loop {
        let tiles = tiled(bm, bn, math);
        let slices = usual_slices(g, pass, &tiles, multiprocessors);
        if slices == 1 || slices * bm * bn <= MOST_PARTIAL || bm.max(bn) <= LEAST_SIDE {
            return (tiles, slices);
        }
        *(if bm > bn { &mut bm } else { &mut bn }) /= 2;
    }
}

/// Slices of the sum that give a device with that many multiprocessors something to do, for given tiles.
pub(super) fn usual_slices(g: &ConvGeometry, pass: Pass, tiles: &Tiles, multiprocessors: usize) -> usize {
    let p = product(g, pass);
    let blocks = p.m.div_ceil(tiles.bm) * p.n.div_ceil(tiles.bn) * g.groups * phases(g, pass);
    slices(blocks, depth(g, pass).div_ceil(tiles.bk), multiprocessors)
}

/// Length of each sum, of the largest phase, without the taps that meet nothing but padding.
pub(super) fn depth(g: &ConvGeometry, pass: Pass) -> usize {
    let live = |a: usize, tap: &usize| (0..g.output[a]).any(|o| g.input_at(a, o, *tap).is_some());
    let taps = |a: usize| (0..g.kernel[a]).filter(move |tap| live(a, tap));
    // Taps of an input position differ by what the stride divides.
    let phase = |a: usize, tap: usize| (tap * g.dilation[a] + g.padding[a] * (g.stride[a] - 1)) % g.stride[a];
    let of_phase = |a: usize, p: usize| taps(a).filter(|&tap| phase(a, tap) == p).count();
    let largest = |a: usize| (0..g.stride[a]).map(|p| of_phase(a, p)).max().unwrap_or(0);
    match pass {
        Pass::Forward => (0..3).map(|a| taps(a).count()).product::<usize>() * g.group_c(),
        Pass::GradX => (0..3).map(largest).product::<usize>() * g.group_k(),
        Pass::GradW => product(g, pass).k,
    }
}

/// Groups of result pixels that see different taps.
fn phases(g: &ConvGeometry, pass: Pass) -> usize {
    if pass == Pass::GradX { g.stride.iter().product() } else { 1 }
}

/// Tiles no larger than a product needs.
pub fn tiles(p: Product, math: Math) -> Tiles {
    tiled(side(p.m), side(p.n), math)
}

/// A side of a tile no larger than an extent needs.
pub fn side(extent: usize) -> usize {
    extent.next_power_of_two().clamp(16, 128)
}

/// Bytes that a block has on their way while it multiplies. With a block on each of 132 multiprocessors 4.3 MB: what
/// 4.3 TB/s deliver in a microsecond, about the time that memory takes to answer. Predicted; on an H100 such layers
/// reach 0.35 to 0.5 TB/s at batch 1, so what is in flight is not all that holds them back.
const IN_FLIGHT: usize = 32 << 10;

/// The most buffers: a slice has as few as four steps.
const MOST_STAGES: usize = 8;

/// Tiles of so many rows and columns, with warps and buffers to suit: thin tiles, which are mostly weights that nobody reads
/// again, take more buffers.
pub fn tiled(bm: usize, bn: usize, math: Math) -> Tiles {
    let warps_m = (bm / 32).max(1);
    let warps_n = (bn / 32).clamp(1, 8 / warps_m);
    let fewest = if math == Math::Fma { 2 } else { 3 };
    let mut tiles = Tiles { bm, bn, bk: 32, warps_m, warps_n, stages: 1 };
    tiles.stages = (IN_FLIGHT / tiles.shared(math) + 1).clamp(fewest, MOST_STAGES);
    tiles
}

/// Slices of a sum of so many steps, for so many blocks.
pub fn slices(blocks: usize, steps: usize, multiprocessors: usize) -> usize {
    if blocks == 0 || blocks >= multiprocessors {
        1
    } else {
        (2 * multiprocessors / blocks).min(steps / 4).clamp(1, 64)
    }
}

/// The geometry as the kernels take it, by value: 22 integers in the order of its fields.
pub fn geometry_argument(g: &ConvGeometry) -> [i32; 22] {
    let axes = [g.input, g.output, g.kernel, g.stride, g.padding, g.dilation];
    let mut all = [g.n, g.c, g.k, g.groups].into_iter().chain(axes.into_iter().flatten());
    std::array::from_fn(|_| all.next().expect("22 numbers") as i32)
}

/// What the kernels divide by a number by: the number, and the factor and shift of a multiplication that gives the quotient of
/// anything below 2^31 (`Divider` in `kernels/include/conv.cuh`).
pub(super) fn divider(by: usize) -> [i32; 3] {
    if by <= 1 {
        return [1, 0, 0];
    }
    let bits = usize::BITS - (by - 1).leading_zeros();
    let factor = (1u64 << (31 + bits)).div_ceil(by as u64);
    [by as i32, factor as u32 as i32, bits as i32 - 1]
}

/// The geometry with the dividers for a pass, as the kernels take it.
pub fn shape_argument(g: &ConvGeometry, pass: Pass) -> Vec<i32> {
    let [d, h, w] = match pass {
        Pass::GradX => std::array::from_fn(|a| g.input[a].div_ceil(g.stride[a])),
        Pass::Forward | Pass::GradW => g.output,
    };
    let channels = if pass == Pass::GradX { g.group_k() } else { g.group_c() };
    let dividers = [d * h * w, h, w, channels].into_iter().flat_map(divider);
    geometry_argument(g).into_iter().chain(dividers).collect()
}

/// The constant that makes kernels for all layers whose kernel moves alike over its source, whatever their extents and channels.
pub(super) fn window_constant(g: &ConvGeometry) -> String {
    let axes = [g.kernel, g.stride, g.padding, g.dilation];
    let all = [g.groups].into_iter().chain(axes.into_iter().flatten());
    format!("WINDOW={}", all.map(|v| v.to_string()).collect::<Vec<_>>().join(","))
}

/// Whether all phases of a pass have the extents of the first, for which the dividers are.
pub(super) fn even_phases(g: &ConvGeometry, pass: Pass) -> bool {
    pass != Pass::GradX || (0..3).all(|a| g.input[a].is_multiple_of(g.stride[a]))
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

/// Input `i` as the matrix kernels take it, and whether it is aligned: a copy, unless it is stored in their type.
pub fn operand(list: &mut LaunchList, io: &Operands, i: usize, gpu: &GpuTraits) -> (LaunchArg, bool) {
    let wanted = if gpu.math == Math::Bf16 { DType::Bf16 } else { DType::F32 };
    if io.inputs[i].dtype == wanted {
        return (LaunchArg::Input(i), io.inputs[i].aligned);
    }
    (copy_as(list, gpu, i, &io.inputs[i], wanted), true)
}

/// What happens to a finished sum before it is stored.
#[derive(Clone, Debug, Default)]
pub struct Epilogue {
    /// One number a channel, added first.
    pub bias: Option<LaunchArg>,
    /// A second tensor, which lies like the result.
    pub extra: Option<LaunchArg>,
    /// How that one is stored.
    pub extra_dtype: Option<DType>,
    /// C++ of the sum `v` and the second tensor's element `x`.
    pub activation: Option<String>,
    /// Statistics of what is stored, for a norm.
    pub stats: Option<Stats>,
}

/// Mean and variance of the channels of each of a result's sets of pixels, or the sums that a norm's gradient is made of.
#[derive(Clone, Debug)]
pub struct Stats {
    /// All pixels (1), or those of each image.
    pub sets: usize,
    /// Where they go.
    pub to: LaunchArg,
    /// Where the result is the gradient by a norm's result, that norm.
    pub normed: Option<Normed>,
}

/// A norm's input.
#[derive(Clone, Debug)]
pub struct Normed {
    /// Where it is.
    pub x: LaunchArg,
    /// How its elements are stored.
    pub kind: &'static str,
    /// Where its statistics are.
    pub stats: LaunchArg,
    /// Added to the variance.
    pub eps: f64,
    /// The first channel of the gradient that belongs to it.
    pub first: usize,
    /// Its channels.
    pub channels: usize,
}

impl Stats {
    /// The channels that they are of, of a result that has so many.
    pub(super) fn channels(&self, result: usize) -> usize {
        self.normed.as_ref().map_or(result, |n| n.channels)
    }

    /// The kernels' arguments for them: how many sets, partial ones for each of `tiles` tiles of all sets, themselves.
    pub(super) fn args(&self, list: &mut LaunchList, tiles: usize, channels: usize) -> Vec<LaunchArg> {
        let partial = list.workspace(MOMENTS * tiles * self.channels(channels));
        let mut args = vec![int(self.sets), partial, self.to.clone()];
        if let Some(n) = &self.normed {
            args.extend([n.x.clone(), n.stats.clone(), (n.eps as f32).into(), int(n.first), int(n.channels)]);
        }
        args
    }
}

/// The most tiles of one set whose statistics a last block joins.
pub(super) const MOST_TILES: usize = 1024;

/// Whether tiles of so many rows can leave statistics of `sets` sets of pixels: if none lies in two sets, and there are not too
/// many of each.
pub(super) fn tiles_suit(g: &ConvGeometry, pass: Pass, rows: usize, sets: usize) -> bool {
    let even = (0..3).all(|a| g.input[a].is_multiple_of(g.stride[a]));
    let m = product(g, pass).m;
    let alone = sets == 1 || sets == g.n && (m / g.n).is_multiple_of(rows) && (pass == Pass::Forward || even);
    alone && m.div_ceil(rows) * phases(g, pass) / sets <= MOST_TILES
}

/// Whether a pass can leave its result's statistics itself.
pub fn takes_stats(g: &ConvGeometry, pass: Pass, sets: usize, io: &Operands, gpu: &GpuTraits) -> bool {
    if g.groups > 1 {
        return false; // nor are there any that a norm's statistics were fused with
    }
    if let Some(variant) = window::suited(g, pass, io, gpu) {
        return variant.takes_stats(g, sets);
    }
    match hopper::suited(g, pass, io, gpu) {
        Some(variant) => variant.takes_stats(g, pass, sets),
        None => {
            let (tiles, _) = chosen(g, pass, gpu);
            pass != Pass::GradW && tiles_suit(g, pass, tiles.bm, sets)
        }
    }
}

impl Epilogue {
    /// The constants that tell the kernels; `out` is the type of what is stored.
    pub(crate) fn constants(&self, out: &str) -> Vec<String> {
        let mut all = vec![format!("OUT={out}")];
        if self.bias.is_some() {
            all.push("BIAS=1".into());
        }
        if self.extra.is_some() {
            all.push("EXTRA=1".into());
            if self.extra_dtype == Some(DType::Bf16) {
                all.push("EXTRA_TYPE=bf16".into());
            }
        }
        all.extend(self.activation.as_ref().map(|a| format!("ACTIVATION(v)={a}")));
        match &self.stats {
            Some(Stats { normed: Some(n), .. }) => {
                all.extend(["STATS=2".into(), format!("NORMED={}", n.kind)])
            }
            Some(_) => all.push("STATS=1".into()),
            None => {}
        }
        all
    }

    /// Its arguments of the kernels.
    pub(super) fn args(&self) -> [LaunchArg; 2] {
        [&self.bias, &self.extra].map(|a| a.clone().unwrap_or(LaunchArg::Null))
    }
}

/// The launch that adds `slices` partial results into the output.
pub fn sum_slices(
    gpu: &GpuTraits,
    partial: LaunchArg,
    results: usize,
    slices: usize,
    channels: usize,
    out: &str,
    epilogue: &Epilogue,
) -> Launch {
    let [bias, extra] = epilogue.args();
    let args = vec![
        partial,
        bias,
        extra,
        LaunchArg::Output,
        count(results),
        int(slices),
        int(channels),
        int(channels),
    ];
    let kernel = Specialisation::new("sum_slices.cu", epilogue.constants(out));
    Launch::new(kernel, "sum_slices", [gpu.blocks(results), 1, 1], args)
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
    if let Some(variant) = depthwise::choose(g, pass, gpu) {
        return depthwise::launches(g, pass, &variant, io, gpu, epilogue, out);
    }
    if let Some(variant) = window::suited(g, pass, io, gpu) {
        return window::launches(g, pass, &variant, io, gpu, epilogue, out);
    }
    if let Some(variant) = hopper::suited(g, pass, io, gpu) {
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

/// Bytes of a tile's statistics of a channel, or at most of its sums.
const MOMENTS: usize = 12;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A 4x4 convolution with stride 2 of one image, to a result of `size` x `size`.
    pub(in crate::ops::conv) fn geometry(c: usize, k: usize, size: usize) -> ConvGeometry {
        ConvGeometry {
            n: 1,
            c,
            k,
            groups: 1,
            input: [1, 2 * size, 2 * size],
            output: [1, size, size],
            kernel: [1, 4, 4],
            stride: [1, 2, 2],
            padding: [0, 1, 1],
            dilation: [1; 3],
        }
    }

    #[test]
    fn large_layers_get_large_tiles_and_small_ones_are_sliced() {
        let (tiles, slices) = choose(&geometry(64, 128, 64), Pass::Forward, Math::Bf16, 132);
        assert_eq!((tiles.bm, tiles.bn, tiles.warps_m * tiles.warps_n), (64, 64, 4));
        assert_eq!(slices, 2);
        let (tiles, slices) = choose(&geometry(512, 512, 1), Pass::Forward, Math::Bf16, 132);
        assert_eq!((tiles.bm, tiles.bn, slices), (16, 64, 16));
        let (tiles, slices) = choose(&geometry(64, 128, 256), Pass::Forward, Math::Bf16, 132);
        assert_eq!((tiles.bm, tiles.bn, slices), (128, 128, 1));
    }

    #[test]
    fn thin_tiles_have_more_on_their_way() {
        let stages = |bm, bn, math| tiled(bm, bn, math).stages;
        assert_eq!([(16, 32), (16, 64), (64, 64)].map(|(m, n)| stages(m, n, Math::Bf16)), [8, 7, 5]);
        assert_eq!([Math::Bf16, Math::Fma].map(|math| stages(128, 128, math)), [3, 2]);
    }

    #[test]
    fn taps_in_padding_are_not_counted() {
        // From 2x2 to 1x1 a 4x4 kernel meets 2x2 numbers; an output of 2x2 meets 3x3 taps of an input of 2x2 with stride 1.
        let g = geometry(64, 128, 1);
        assert_eq!([Pass::Forward, Pass::GradX, Pass::GradW].map(|p| depth(&g, p)), [4 * 64, 128, 1]);
        let g = geometry(64, 128, 8);
        assert_eq!([Pass::Forward, Pass::GradX].map(|p| depth(&g, p)), [16 * 64, 4 * 128]);
        let same = ConvGeometry {
            input: [1, 2, 2],
            output: [1, 2, 2],
            kernel: [1, 5, 5],
            stride: [1; 3],
            padding: [0, 2, 2],
            ..g
        };
        assert_eq!([Pass::Forward, Pass::GradX].map(|p| depth(&same, p)), [9 * 64, 9 * 128]);
    }

    #[test]
    fn products_of_the_passes() {
        let g = geometry(64, 128, 8);
        assert_eq!(product(&g, Pass::Forward), Product { m: 64, n: 128, k: 16 * 64 });
        assert_eq!(product(&g, Pass::GradX), Product { m: 64, n: 64, k: 4 * 128 });
        assert_eq!(product(&g, Pass::GradW), Product { m: 128, n: 16 * 64, k: 64 });
        assert_eq!(geometry_argument(&g)[..5], [1, 64, 128, 1, 1]);
    }

    #[test]
    fn dividers_divide() {
        let most = i32::MAX as u64;
        for by in (1..2000).chain([4096, 65_535, 65_536, 65_537, 1 << 30, i32::MAX as usize]) {
            let [number, factor, shift] = divider(by);
            assert_eq!(number, by as i32);
            let near = |q: u64| [q.saturating_sub(1), q, q + 1].into_iter();
            let multiples =
                (0..40).map(|i| most / by as u64 / 39 * i * by as u64).chain([by as u64, 7 * by as u64]);
            for v in multiples.flat_map(near).chain([0, most]).filter(|v| *v <= most) {
                let quotient = if by == 1 { v } else { (v * u64::from(factor as u32)) >> 32 >> shift };
                assert_eq!(quotient, v / by as u64, "{v} / {by}");
            }
        }
        let g = ConvGeometry { input: [1, 9, 8], ..geometry(64, 128, 4) };
        let by = |pass| shape_argument(&g, pass)[22..].chunks(3).map(|d| d[0]).collect::<Vec<_>>();
        assert_eq!(by(Pass::Forward), [16, 4, 4, 64]);
        assert_eq!(by(Pass::GradX), [20, 5, 4, 128], "of the largest phase");
    }

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
