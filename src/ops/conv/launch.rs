//! How a convolution is launched on the GPU: which tiles, which constants, what grid. Pure arithmetic, so that it is
//! tested without a GPU; the kernels' own headers (`kernels/conv.cu`, `kernels/conv_grad_w.cu`) say what it all means.

use super::geometry::ConvGeometry;
use crate::device::cuda::compiler::Specialisation;

/// The arithmetic of the matrix kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Math {
    /// fp32 multiply-adds: exact, any device.
    Fma,
    /// fp32 operands rounded to tf32, on tensor cores.
    Tf32,
    /// bf16 operands, on tensor cores.
    Bf16,
}

impl Math {
    /// Bytes of an operand's element.
    pub fn element_bytes(self) -> usize {
        if self == Math::Bf16 { 2 } else { 4 }
    }

    fn constant(self) -> &'static str {
        match self {
            Math::Fma => "MATH=MATH_FMA",
            Math::Tf32 => "MATH=MATH_TF32",
            Math::Bf16 => "MATH=MATH_BF16",
        }
    }

    /// The most elements that one copy may move when all runs are multiples of each of `extents` long.
    pub fn vector(self, extents: &[usize]) -> usize {
        let choices: &[usize] = if self == Math::Bf16 { &[8, 2] } else { &[4] };
        choices.iter().copied().find(|v| extents.iter().all(|e| e % v == 0)).unwrap_or(1)
    }
}

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
    /// Slices of the sum; with more than one, `sum_slices` must follow.
    pub slices: usize,
    /// Elements of the result.
    pub results: usize,
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

/// Tiles and slices for a device with that many multiprocessors: tiles no larger than the product needs, and as many
/// slices as it takes to give every multiprocessor something to do, of at least four steps each.
pub fn choose(g: &ConvGeometry, pass: Pass, math: Math, multiprocessors: usize) -> (Tiles, usize) {
    let p = product(g, pass);
    let side = |extent: usize| extent.next_power_of_two().clamp(16, 128);
    let (bm, bn) = (side(p.m), side(p.n));
    let warps_m = (bm / 32).max(1);
    let warps_n = (bn / 32).clamp(1, 8 / warps_m);
    let tiles = Tiles { bm, bn, bk: 32, warps_m, warps_n, stages: if math == Math::Fma { 2 } else { 3 } };
    let phases: usize = if pass == Pass::GradX { g.stride.iter().product() } else { 1 };
    let blocks = p.m.div_ceil(bm) * p.n.div_ceil(bn) * g.groups * phases;
    let steps = p.k.div_ceil(tiles.bk);
    let slices = if blocks >= multiprocessors {
        1
    } else {
        (2 * multiprocessors / blocks).min(steps / 4).clamp(1, 64)
    };
    (tiles, slices)
}

/// The geometry as the kernels take it, by value: 22 integers in the order of its fields.
pub fn geometry_argument(g: &ConvGeometry) -> [i32; 22] {
    let axes = [g.input, g.output, g.kernel, g.stride, g.padding, g.dilation];
    let mut all = [g.n, g.c, g.k, g.groups].into_iter().chain(axes.into_iter().flatten());
    std::array::from_fn(|_| all.next().expect("22 numbers") as i32)
}

/// Plans a launch. `pitches` are the elements between neighbouring pixels of the two gathered or streamed tensors (for
/// the forward pass x and y, for `GradX` dy and dx, for `GradW` x and dy); `constants` are OUT and the epilogue's.
/// With `fixed`, the geometry becomes part of the code.
pub fn plan(
    g: &ConvGeometry,
    pass: Pass,
    math: Math,
    tiles: Tiles,
    slices: usize,
    pitches: [usize; 2],
    constants: &[&str],
    fixed: bool,
) -> Plan {
    let p = product(g, pass);
    let (vec_a, vec_b) = match pass {
        Pass::Forward => (math.vector(&[g.group_c(), pitches[0]]), math.vector(&[g.group_c()])),
        Pass::GradX => (math.vector(&[g.group_k(), pitches[0]]), math.vector(&[g.group_c()])),
        Pass::GradW => (math.vector(&[g.group_k(), pitches[1]]), math.vector(&[g.group_c(), pitches[0]])),
    };
    let Tiles { bm, bn, bk, warps_m, warps_n, stages } = tiles;
    let mut all: Vec<String> = vec![math.constant().into()];
    let sizes = [
        ("BM", bm),
        ("BN", bn),
        ("BK", bk),
        ("WARPS_M", warps_m),
        ("WARPS_N", warps_n),
        ("STAGES", stages),
        ("VEC_A", vec_a),
        ("VEC_B", vec_b),
    ];
    all.extend(sizes.iter().map(|(name, v)| format!("{name}={v}")));
    if math == Math::Bf16 && vec_a == 8 {
        all.push("MIN_BLOCKS=2".into()); // fits into 128 registers; the others do not, or would spill
    }
    if pass != Pass::GradW {
        all.push(format!("GRAD_X={}", u8::from(pass == Pass::GradX)));
    }
    if fixed {
        all.push(format!("GEOMETRY={}", geometry_argument(g).map(|v| v.to_string()).join(",")));
    }
    all.extend(constants.iter().map(|c| c.to_string()));
    let phases: usize = if pass == Pass::GradX { g.stride.iter().product() } else { 1 };
    let (rows, columns) = (p.m.div_ceil(bm), p.n.div_ceil(bn));
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
        threads: (32 * warps_m * warps_n) as u32,
        shared: stages * (bm + bn) * bk * math.element_bytes(),
        slices,
        results,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(c: usize, k: usize, size: usize) -> ConvGeometry {
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
        assert_eq!((tiles.bm, tiles.bn, tiles.warps_m * tiles.warps_n), (128, 128, 8));
        assert_eq!(slices, 8);
        let (tiles, slices) = choose(&geometry(512, 512, 1), Pass::Forward, Math::Bf16, 132);
        assert_eq!((tiles.bm, tiles.bn, slices), (16, 128, 64));
        let (_, slices) = choose(&geometry(64, 128, 256), Pass::Forward, Math::Bf16, 132);
        assert_eq!(slices, 1);
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
    fn copies_are_as_wide_as_channels_and_pitch_allow() {
        assert_eq!(Math::Bf16.vector(&[64, 128]), 8);
        assert_eq!(Math::Bf16.vector(&[64, 66]), 2);
        assert_eq!(Math::Bf16.vector(&[3, 8]), 1);
        assert_eq!(Math::Tf32.vector(&[12]), 4);
        assert_eq!(Math::Fma.vector(&[6]), 1);
    }
}
