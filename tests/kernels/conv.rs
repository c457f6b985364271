//! The three convolution kernels and the sum of slices.

use crate::common::{assert_close, module, normal};
use gan::ops::conv::geometry::ConvGeometry;
use gan_emu::{Arg, Buffer, Mode, Shape, bf16_round};

/// Dimensions, batch, channels in, size, channels out, kernel, stride, padding, dilation, groups.
type Case = (usize, usize, usize, [usize; 3], usize, [usize; 3], [usize; 3], [usize; 3], [usize; 3], usize);

/// A geometry from 2D numbers that are the same along both axes.
fn square(n: usize, c: usize, size: usize, k: usize, kernel: usize, s: usize, p: usize, d: usize, g: usize) -> ConvGeometry {
    geometry((2, n, c, [1, size, size], k, [1, kernel, kernel], [1, s, s], [0, p, p], [1, d, d], g))
}

/// A geometry from 3D numbers that are the same along all axes.
fn cube(n: usize, c: usize, size: usize, k: usize, kernel: usize, s: usize, p: usize, d: usize, g: usize) -> ConvGeometry {
    geometry((3, n, c, [size; 3], k, [kernel; 3], [s; 3], [p; 3], [d; 3], g))
}

fn line(n: usize, c: usize, size: usize, k: usize, kernel: usize, s: usize, p: usize, d: usize, g: usize) -> ConvGeometry {
    geometry((1, n, c, [1, 1, size], k, [1, 1, kernel], [1, 1, s], [0, 0, p], [1, 1, d], g))
}

fn geometry((_, n, c, input, k, kernel, stride, padding, dilation, groups): Case) -> ConvGeometry {
    let output = std::array::from_fn(|a| (input[a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) / stride[a] + 1);
    ConvGeometry { n, c, k, groups, input, output, kernel, stride, padding, dilation }
}

/// The geometry whose `grad_x` is the transposed convolution with these numbers.
fn transposed(n: usize, c: usize, size: [usize; 3], k: usize, kernel: [usize; 3], s: [usize; 3], p: [usize; 3], extra: [usize; 3], d: usize, g: usize) -> ConvGeometry {
    let input = std::array::from_fn(|a| (size[a] - 1) * s[a] + d * (kernel[a] - 1) + 1 + extra[a] - 2 * p[a]);
    ConvGeometry { n, c: k, k: c, groups: g, input, output: size, kernel, stride: s, padding: p, dilation: [1, d, d] }
}

/// Every shape of the reference goldens (small and odd), then some that fill whole tiles and vector copies.
fn cases() -> Vec<(&'static str, ConvGeometry)> {
    vec![
        ("k1", square(2, 3, 5, 4, 1, 1, 0, 1, 1)),
        ("k3s1p1", square(2, 3, 6, 5, 3, 1, 1, 1, 1)),
        ("k3s1p0", square(1, 4, 5, 4, 3, 1, 0, 1, 1)),
        ("k4s2p1", square(2, 3, 8, 6, 4, 2, 1, 1, 1)),
        ("k4s1p1", square(1, 5, 6, 3, 4, 1, 1, 1, 1)),
        ("k4s2p1_to1", square(2, 6, 2, 5, 4, 2, 1, 1, 1)),
        ("k4s1p0_to1", square(3, 4, 4, 1, 4, 1, 0, 1, 1)),
        ("k7s1p0", square(1, 2, 9, 3, 7, 1, 0, 1, 1)),
        ("k7s1p3", square(1, 1, 7, 3, 7, 1, 3, 1, 1)),
        ("k3s2p1_odd", square(2, 3, 7, 4, 3, 2, 1, 1, 1)),
        ("k3s2p1_even", square(1, 3, 8, 4, 3, 2, 1, 1, 1)),
        ("k3d2p2", square(1, 3, 7, 3, 3, 1, 2, 2, 1)),
        ("k3d3s2p3", square(1, 2, 11, 3, 3, 2, 3, 3, 1)),
        ("k3s3_leftover", square(1, 2, 10, 3, 3, 3, 0, 1, 1)),
        ("k2s3_gap", square(1, 2, 9, 3, 2, 3, 0, 1, 1)),
        ("k3d2s2", square(1, 2, 9, 3, 3, 2, 2, 2, 1)),
        ("k4d6s4", square(1, 2, 23, 3, 4, 4, 3, 6, 1)),
        ("k3x5_mixed", geometry((2, 2, 3, [1, 9, 8], 4, [1, 3, 5], [1, 2, 1], [0, 1, 2], [1, 1, 2], 1))),
        ("groups2", square(2, 4, 6, 6, 3, 1, 1, 1, 2)),
        ("depthwise", square(2, 5, 6, 5, 3, 2, 1, 1, 5)),
        ("depthwise_x2", square(1, 3, 6, 6, 3, 1, 1, 1, 3)),
        ("k1s2", square(1, 4, 7, 3, 1, 2, 0, 1, 1)),
        ("k2s2", square(1, 3, 6, 4, 2, 2, 0, 1, 1)),
        ("k5p4_wide_pad", square(1, 2, 4, 2, 5, 1, 4, 1, 1)),
        ("c17to19", square(1, 17, 5, 19, 3, 1, 1, 1, 1)),
        ("c33to2", square(1, 33, 4, 2, 3, 1, 1, 1, 1)),
        ("wide_row", geometry((2, 1, 2, [1, 3, 37], 3, [1, 3, 3], [1; 3], [0, 1, 1], [1; 3], 1))),
        ("tall", geometry((2, 1, 2, [1, 35, 2], 3, [1, 3, 3], [1; 3], [0, 1, 1], [1; 3], 1))),
        ("batch5_c1", square(5, 1, 6, 2, 4, 2, 1, 1, 1)),
        ("1d_k3s1p1", line(2, 3, 9, 4, 3, 1, 1, 1, 1)),
        ("1d_k4s2p1", line(2, 3, 10, 4, 4, 2, 1, 1, 1)),
        ("1d_k5d2g2", line(1, 4, 12, 4, 5, 1, 4, 2, 2)),
        ("3d_k3s1p1", cube(2, 2, 5, 3, 3, 1, 1, 1, 1)),
        ("3d_k3s2p1", cube(1, 2, 6, 3, 3, 2, 1, 1, 1)),
        ("3d_k1", cube(1, 4, 4, 2, 1, 1, 0, 1, 1)),
        ("3d_k4s2p1", cube(1, 2, 6, 3, 4, 2, 1, 1, 1)),
        ("3d_k3d2g2", cube(1, 4, 6, 4, 3, 1, 2, 2, 2)),
        ("3d_mixed", geometry((3, 1, 2, [4, 5, 6], 3, [1, 3, 2], [1, 2, 1], [0, 1, 1], [1; 3], 1))),
        ("t_k4s2p1", transposed(2, 3, [1, 4, 4], 5, [1, 4, 4], [1, 2, 2], [0, 1, 1], [0; 3], 1, 1)),
        ("t_k3s2p1op1", transposed(2, 4, [1, 4, 4], 3, [1, 3, 3], [1, 2, 2], [0, 1, 1], [0, 1, 1], 1, 1)),
        ("t_k2s2", transposed(2, 4, [1, 3, 3], 3, [1, 2, 2], [1, 2, 2], [0; 3], [0; 3], 1, 1)),
        ("t_k4s1p0_from1", transposed(3, 5, [1, 1, 1], 4, [1, 4, 4], [1; 3], [0; 3], [0; 3], 1, 1)),
        ("t_groups2", transposed(1, 4, [1, 3, 3], 6, [1, 3, 3], [1, 2, 2], [0, 1, 1], [0, 1, 1], 1, 2)),
        ("t_depthwise", transposed(1, 4, [1, 4, 4], 4, [1, 4, 4], [1, 2, 2], [0, 1, 1], [0; 3], 1, 4)),
        ("t_d2", transposed(1, 3, [1, 4, 4], 3, [1, 3, 3], [1; 3], [0; 3], [0; 3], 2, 1)),
        ("t_k3s3op2", transposed(1, 2, [1, 3, 3], 3, [1, 3, 3], [1, 3, 3], [0; 3], [0, 2, 2], 1, 1)),
        ("t_k5s2p2op1", transposed(1, 2, [1, 4, 4], 3, [1, 5, 5], [1, 2, 2], [0, 2, 2], [0, 1, 1], 1, 1)),
        ("t_mixed", transposed(1, 3, [1, 3, 5], 2, [1, 3, 4], [1, 2, 1], [0, 1, 0], [0, 1, 0], 1, 1)),
        ("t_k2s3_gap", transposed(1, 2, [1, 3, 3], 2, [1, 2, 2], [1, 3, 3], [0; 3], [0; 3], 1, 1)),
        ("t_c18to1", transposed(1, 18, [1, 3, 3], 1, [1, 4, 4], [1, 2, 2], [0, 1, 1], [0; 3], 1, 1)),
        ("t3d_k3s2p1op1", transposed(1, 2, [3; 3], 3, [3; 3], [2; 3], [1; 3], [1; 3], 1, 1)),
        ("t3d_k4s2p1", transposed(1, 2, [2; 3], 3, [4; 3], [2; 3], [1; 3], [0; 3], 1, 1)),
        // Two and more tiles each way, 16-byte and 4-byte copies.
        ("full_k3", square(1, 16, 12, 72, 3, 1, 1, 1, 1)),
        ("full_k4s2", square(2, 8, 16, 40, 4, 2, 1, 1, 1)),
        ("full_groups", square(1, 32, 8, 48, 3, 1, 1, 1, 2)),
        ("full_even", square(1, 6, 9, 10, 3, 2, 1, 1, 1)),
        ("inner", square(1, 64, 2, 64, 4, 2, 1, 1, 1)),
        ("full_3d", cube(1, 8, 6, 16, 3, 1, 1, 1, 1)),
    ]
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Math {
    Fma,
    Tf32,
    Bf16,
}

impl Math {
    fn define(self) -> &'static str {
        match self {
            Math::Fma => "MATH=MATH_FMA",
            Math::Tf32 => "MATH=MATH_TF32",
            Math::Bf16 => "MATH=MATH_BF16",
        }
    }

    /// The operand as the arithmetic sees it.
    fn round(self, v: f32) -> f64 {
        f64::from(match self {
            Math::Fma => v,
            Math::Tf32 => f32::from_bits((v.to_bits() + 0x1000) & 0xffff_e000),
            Math::Bf16 => bf16_round(v),
        })
    }

    fn buffer(self, v: &[f32]) -> Buffer {
        if self == Math::Bf16 { Buffer::bf16(v) } else { Buffer::f32(v) }
    }

    fn bytes(self) -> usize {
        if self == Math::Bf16 { 2 } else { 4 }
    }

    /// The most elements that one copy may move when runs are multiples of `extent` long.
    fn vec(self, extent: usize) -> usize {
        let choices: &[usize] = if self == Math::Bf16 { &[8, 2, 1] } else { &[4, 1] };
        *choices.iter().find(|&&v| extent % v == 0).unwrap()
    }
}

/// Tile shape: BM, BN, BK, WARPS_M, WARPS_N, STAGES.
#[derive(Clone, Copy)]
struct Tiles([usize; 6]);

impl Tiles {
    fn defines(self) -> Vec<String> {
        ["BM", "BN", "BK", "WARPS_M", "WARPS_N", "STAGES"].iter().zip(self.0).map(|(n, v)| format!("{n}={v}")).collect()
    }
    fn threads(self) -> u32 {
        (32 * self.0[3] * self.0[4]) as u32
    }
    fn shared(self, math: Math) -> usize {
        self.0[5] * (self.0[0] + self.0[1]) * self.0[2] * math.bytes()
    }
}

fn ints(g: &ConvGeometry) -> Vec<i32> {
    let axes = [g.input, g.output, g.kernel, g.stride, g.padding, g.dilation];
    [g.n, g.c, g.k, g.groups].into_iter().chain(axes.into_iter().flatten()).map(|v| v as i32).collect()
}

/// Calls `f(x index, w index, y index)` for every product of the trilinear form.
fn products(g: &ConvGeometry, mut f: impl FnMut(usize, usize, usize)) {
    let (gc, gk) = (g.group_c(), g.group_k());
    for image in 0..g.n {
        for o in 0..g.out_pixels() {
            let oc = [o / (g.output[1] * g.output[2]), o / g.output[2] % g.output[1], o % g.output[2]];
            for t in 0..g.taps() {
                let tc = [t / (g.kernel[1] * g.kernel[2]), t / g.kernel[2] % g.kernel[1], t % g.kernel[2]];
                let at: Option<Vec<usize>> = (0..3).map(|a| g.input_at(a, oc[a], tc[a])).collect();
                let Some(i) = at else { continue };
                let pixel = ((image * g.input[0] + i[0]) * g.input[1] + i[1]) * g.input[2] + i[2];
                for k in 0..g.k {
                    for c in 0..gc {
                        f(pixel * g.c + k / gk * gc + c, (k * g.taps() + t) * gc + c, (image * g.out_pixels() + o) * g.k + k);
                    }
                }
            }
        }
    }
}

struct Setup {
    g: ConvGeometry,
    math: Math,
    tiles: Tiles,
    slices: usize,
    specialised: bool,
}

impl Setup {
    fn defines(&self, vec: [usize; 2]) -> Vec<String> {
        let mut d = self.tiles.defines();
        d.extend([self.math.define().to_string(), "OUT=float".into(), format!("VEC_A={}", vec[0]), format!("VEC_B={}", vec[1])]);
        if self.specialised {
            let numbers: Vec<String> = ints(&self.g).iter().map(i32::to_string).collect();
            d.push(format!("GEOMETRY={}", numbers.join(",")));
        }
        d
    }

    /// Adds the partial results, when there are any.
    fn finish(&self, partial: &Buffer, out: &Buffer, bias: Option<&Buffer>, channels: usize, mode: Mode) -> Result<(), String> {
        if self.slices == 1 {
            return Ok(());
        }
        let count = out.bytes().len() / 4;
        let m = module("sum_slices.cu", &["OUT=float".to_string(), format!("BIAS={}", u8::from(bias.is_some()))]);
        let args = [
            partial.into(),
            bias.map_or(Arg::Null, Arg::from),
            out.into(),
            (count as i64).into(),
            (self.slices as i32).into(),
            (channels as i32).into(),
            (channels as i32).into(),
        ];
        m.launch("sum_slices", Shape::flat(3, 256), &args, mode)
    }

    /// Forward (or, with `grad_x`, the gradient by the input) under one mode.
    fn gather(&self, grad_x: bool, source: &[f32], weight: &[f32], bias: Option<&[f32]>, mode: Mode) -> Vec<f32> {
        let g = &self.g;
        let (c_in, c_out) = if grad_x { (g.group_k(), g.group_c()) } else { (g.group_c(), g.group_k()) };
        let vec = [self.math.vec(c_in), self.math.vec(g.group_c())];
        let mut defines = self.defines(vec);
        defines.push(format!("GRAD_X={}", u8::from(grad_x)));
        defines.push(format!("BIAS={}", u8::from(bias.is_some())));
        let m = module("conv.cu", &defines);
        let extent = if grad_x { g.input } else { g.output };
        let channels = c_out * g.groups;
        let count = g.n * extent.iter().product::<usize>() * channels;
        let (phases, phase_extent) = if grad_x {
            (g.stride.iter().product(), std::array::from_fn(|a| extent[a].div_ceil(g.stride[a])))
        } else {
            (1, extent)
        };
        let rows = g.n * phase_extent.iter().product::<usize>();
        let [bm, bn, ..] = self.tiles.0;
        let grid = [rows.div_ceil(bm), c_out.div_ceil(bn) * g.groups, phases * self.slices].map(|v| v as u32);
        let out = Buffer::poisoned(4 * count);
        let partial = Buffer::poisoned(if self.slices > 1 { 4 * count * self.slices } else { 0 });
        let bias = bias.map(Buffer::f32);
        let (source, weight) = (self.math.buffer(source), self.math.buffer(weight));
        let args = [
            ints(g)[..].into(),
            (&source).into(),
            (&weight).into(),
            bias.as_ref().map_or(Arg::Null, Arg::from),
            (&out).into(),
            (&partial).into(),
            (self.slices as i32).into(),
            ((c_in * g.groups) as i32).into(),
            (channels as i32).into(),
        ];
        let shape = Shape { grid, threads: self.tiles.threads(), shared: self.tiles.shared(self.math) };
        m.launch("conv", shape, &args, mode)
            .and_then(|()| self.finish(&partial, &out, bias.as_ref(), channels, mode))
            .unwrap_or_else(|e| panic!("{e}"));
        out.to_f32()
    }

    fn grad_w(&self, x: &[f32], dy: &[f32], mode: Mode) -> Vec<f32> {
        let g = &self.g;
        let m = module("conv_grad_w.cu", &self.defines([self.math.vec(g.group_k()), self.math.vec(g.group_c())]));
        let columns = g.taps() * g.group_c();
        let count = g.k * columns;
        let [bm, bn, ..] = self.tiles.0;
        let grid = [columns.div_ceil(bn), g.group_k().div_ceil(bm) * g.groups, self.slices].map(|v| v as u32);
        let dw = Buffer::poisoned(4 * count);
        let partial = Buffer::poisoned(if self.slices > 1 { 4 * count * self.slices } else { 0 });
        let (x, dy) = (self.math.buffer(x), self.math.buffer(dy));
        let args = [
            ints(g)[..].into(),
            (&x).into(),
            (&dy).into(),
            (&dw).into(),
            (&partial).into(),
            (self.slices as i32).into(),
            (g.c as i32).into(),
            (g.k as i32).into(),
        ];
        let shape = Shape { grid, threads: self.tiles.threads(), shared: self.tiles.shared(self.math) };
        m.launch("conv_grad_w", shape, &args, mode)
            .and_then(|()| self.finish(&partial, &dw, None, columns, mode))
            .unwrap_or_else(|e| panic!("{e}"));
        dw.to_f32()
    }
}

/// All three derivatives of one geometry against the plain sums, under the given modes.
fn check(name: &str, setup: &Setup, modes: &[Mode]) {
    let (g, math) = (&setup.g, setup.math);
    let x = normal(1, g.n * g.in_pixels() * g.c);
    let w = normal(2, g.k * g.taps() * g.group_c());
    let y = normal(3, g.n * g.out_pixels() * g.k);
    let bias = normal(4, g.k);
    let rounded = |v: &[f32]| v.iter().map(|&v| math.round(v)).collect::<Vec<f64>>();
    let (rx, rw, ry) = (rounded(&x), rounded(&w), rounded(&y));
    let mut want_y: Vec<f64> = (0..y.len()).map(|i| f64::from(bias[i % g.k])).collect();
    let (mut want_x, mut want_w) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    products(g, |xi, wi, yi| {
        want_y[yi] += rx[xi] * rw[wi];
        want_x[xi] += ry[yi] * rw[wi];
        want_w[wi] += rx[xi] * ry[yi];
    });
    for &mode in modes {
        let what = format!("{name} {math:?} x{} {mode:?}", setup.slices);
        assert_close(&format!("forward {what}"), &setup.gather(false, &x, &w, Some(&bias), mode), &want_y, 4e-6);
        assert_close(&format!("grad_x {what}"), &setup.gather(true, &y, &w, None, mode), &want_x, 4e-6);
        assert_close(&format!("grad_w {what}"), &setup.grad_w(&x, &y, mode), &want_w, 4e-6);
    }
}

const SMALL: Tiles = Tiles([32, 32, 32, 2, 1, 3]);
const LARGE: Tiles = Tiles([64, 64, 32, 2, 2, 2]);

fn check_all(math: Math) {
    for (i, (name, g)) in cases().into_iter().enumerate() {
        let tiles = if name.starts_with("full") && i % 2 == 0 { LARGE } else { SMALL };
        check(name, &Setup { g, math, tiles, slices: 1 + i % 3, specialised: false }, &Mode::all());
    }
}

#[test]
fn fp32_is_exact_for_every_geometry() {
    check_all(Math::Fma);
}

#[test]
fn tf32_tensor_cores_for_every_geometry() {
    check_all(Math::Tf32);
}

#[test]
fn bf16_tensor_cores_for_every_geometry() {
    check_all(Math::Bf16);
}

/// A geometry given as constants is the same kernel; other tile shapes and depths of the pipeline too.
#[test]
fn constants_and_tile_shapes_change_nothing() {
    let modes = Mode::all();
    let g = square(1, 16, 10, 24, 4, 2, 1, 1, 1);
    for math in [Math::Fma, Math::Tf32, Math::Bf16] {
        check("constants", &Setup { g: g.clone(), math, tiles: SMALL, slices: 2, specialised: true }, &modes[..2]);
        for tiles in [[128, 128, 32, 4, 2, 3], [16, 128, 64, 1, 4, 2], [128, 16, 32, 4, 1, 4]] {
            check("tiles", &Setup { g: g.clone(), math, tiles: Tiles(tiles), slices: 1, specialised: false }, &modes[7..9]);
        }
    }
}
