//! A convolution's passes as matrix products: the products, tiles and slices of the general kernels, and the arguments that all
//! kernels take of a geometry. Pure arithmetic, so that it is tested without a GPU.

pub use crate::device::launch::Math;
use crate::ops::conv::geometry::ConvGeometry;

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
pub(super) fn phases(g: &ConvGeometry, pass: Pass) -> usize {
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
}
