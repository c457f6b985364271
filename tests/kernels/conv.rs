//! The three convolution kernels, and the statistics that they leave for a norm.

use crate::common::{assert_close, module, normal, numbers, unwritten};
use crate::geometry::{cube, line, products, row, square};
use gan::ops::conv::cuda::launch::{Math, Pass, Tiles, plan, shape_argument};
use gan::ops::conv::geometry::ConvGeometry;
use gan_emu::{Arg, Buffer, Mode, Shape, bf16_round};

/// The geometry whose `grad_x` is the transposed convolution with these numbers.
fn transposed(
    n: usize,
    c: usize,
    size: [usize; 3],
    k: usize,
    kernel: [usize; 3],
    s: [usize; 3],
    p: [usize; 3],
    extra: [usize; 3],
    d: usize,
    g: usize,
) -> ConvGeometry {
    let input = std::array::from_fn(|a| (size[a] - 1) * s[a] + d * (kernel[a] - 1) + 1 + extra[a] - 2 * p[a]);
    ConvGeometry {
        n,
        c: k,
        k: c,
        groups: g,
        input,
        output: size,
        kernel,
        stride: s,
        padding: p,
        dilation: [1, d, d],
    }
}

/// Every shape of the reference goldens (small and odd), then some that fill whole tiles and vector copies.
fn cases() -> Vec<(&'static str, ConvGeometry)> {
    vec![
        ("k1", row(square(2, 3, 5, 4, 1, 1, 0, 1, 1))),
        ("k3s1p1", row(square(2, 3, 6, 5, 3, 1, 1, 1, 1))),
        ("k3s1p0", row(square(1, 4, 5, 4, 3, 1, 0, 1, 1))),
        ("k4s2p1", row(square(2, 3, 8, 6, 4, 2, 1, 1, 1))),
        ("k4s1p1", row(square(1, 5, 6, 3, 4, 1, 1, 1, 1))),
        ("k4s2p1_to1", row(square(2, 6, 2, 5, 4, 2, 1, 1, 1))),
        ("k4s1p0_to1", row(square(3, 4, 4, 1, 4, 1, 0, 1, 1))),
        ("k7s1p0", row(square(1, 2, 9, 3, 7, 1, 0, 1, 1))),
        ("k7s1p3", row(square(1, 1, 7, 3, 7, 1, 3, 1, 1))),
        ("k3s2p1_odd", row(square(2, 3, 7, 4, 3, 2, 1, 1, 1))),
        ("k3s2p1_even", row(square(1, 3, 8, 4, 3, 2, 1, 1, 1))),
        ("k3d2p2", row(square(1, 3, 7, 3, 3, 1, 2, 2, 1))),
        ("k3d3s2p3", row(square(1, 2, 11, 3, 3, 2, 3, 3, 1))),
        ("k3s3_leftover", row(square(1, 2, 10, 3, 3, 3, 0, 1, 1))),
        ("k2s3_gap", row(square(1, 2, 9, 3, 2, 3, 0, 1, 1))),
        ("k3d2s2", row(square(1, 2, 9, 3, 3, 2, 2, 2, 1))),
        ("k4d6s4", row(square(1, 2, 23, 3, 4, 4, 3, 6, 1))),
        ("k3x5_mixed", row((2, 3, [1, 9, 8], 4, [1, 3, 5], [1, 2, 1], [0, 1, 2], [1, 1, 2], 1))),
        ("groups2", row(square(2, 4, 6, 6, 3, 1, 1, 1, 2))),
        ("depthwise", row(square(2, 5, 6, 5, 3, 2, 1, 1, 5))),
        ("depthwise_x2", row(square(1, 3, 6, 6, 3, 1, 1, 1, 3))),
        ("k1s2", row(square(1, 4, 7, 3, 1, 2, 0, 1, 1))),
        ("k2s2", row(square(1, 3, 6, 4, 2, 2, 0, 1, 1))),
        ("k5p4_wide_pad", row(square(1, 2, 4, 2, 5, 1, 4, 1, 1))),
        ("c17to19", row(square(1, 17, 5, 19, 3, 1, 1, 1, 1))),
        ("c33to2", row(square(1, 33, 4, 2, 3, 1, 1, 1, 1))),
        ("wide_row", row((1, 2, [1, 3, 37], 3, [1, 3, 3], [1; 3], [0, 1, 1], [1; 3], 1))),
        ("tall", row((1, 2, [1, 35, 2], 3, [1, 3, 3], [1; 3], [0, 1, 1], [1; 3], 1))),
        ("batch5_c1", row(square(5, 1, 6, 2, 4, 2, 1, 1, 1))),
        ("1d_k3s1p1", row(line(2, 3, 9, 4, 3, 1, 1, 1, 1))),
        ("1d_k4s2p1", row(line(2, 3, 10, 4, 4, 2, 1, 1, 1))),
        ("1d_k5d2g2", row(line(1, 4, 12, 4, 5, 1, 4, 2, 2))),
        ("3d_k3s1p1", row(cube(2, 2, 5, 3, 3, 1, 1, 1, 1))),
        ("3d_k3s2p1", row(cube(1, 2, 6, 3, 3, 2, 1, 1, 1))),
        ("3d_k1", row(cube(1, 4, 4, 2, 1, 1, 0, 1, 1))),
        ("3d_k4s2p1", row(cube(1, 2, 6, 3, 4, 2, 1, 1, 1))),
        ("3d_k3d2g2", row(cube(1, 4, 6, 4, 3, 1, 2, 2, 2))),
        ("3d_mixed", row((1, 2, [4, 5, 6], 3, [1, 3, 2], [1, 2, 1], [0, 1, 1], [1; 3], 1))),
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
        ("full_k3", row(square(1, 16, 12, 72, 3, 1, 1, 1, 1))),
        ("full_k4s2", row(square(2, 8, 16, 40, 4, 2, 1, 1, 1))),
        ("full_groups", row(square(1, 32, 8, 48, 3, 1, 1, 1, 2))),
        ("full_even", row(square(1, 6, 9, 10, 3, 2, 1, 1, 1))),
        ("inner", row(square(1, 64, 2, 64, 4, 2, 1, 1, 1))),
        ("full_3d", row(cube(1, 8, 6, 16, 3, 1, 1, 1, 1))),
    ]
}

/// The operand as the arithmetic sees it.
fn round(math: Math, v: f32) -> f64 {
    f64::from(match math {
        Math::Fma => v,
        Math::Tf32 => f32::from_bits((v.to_bits() + 0x1000) & 0xffff_e000),
        Math::Bf16 => bf16_round(v),
    })
}

fn operand(math: Math, v: &[f32]) -> Buffer {
    if math == Math::Bf16 { Buffer::bf16(v) } else { Buffer::f32(v) }
}

const fn tiles([bm, bn, bk, warps_m, warps_n, stages]: [usize; 6]) -> Tiles {
    Tiles { bm, bn, bk, warps_m, warps_n, stages }
}

struct Setup {
    g: ConvGeometry,
    math: Math,
    tiles: Tiles,
    slices: usize,
    fixed: bool,
}

impl Setup {
    fn constants(&self, pass: Pass) -> Vec<String> {
        let g = &self.g;
        let pitches = if pass == Pass::GradX { [g.k, g.c] } else { [g.c, g.k] };
        let all = (self.math, self.tiles, self.slices, pitches, [true; 2]);
        plan(g, pass, all.0, all.1, all.2, all.3, all.4, &["OUT=float"], self.fixed).specialisation.constants
    }

    /// Runs one pass on two operands: x (or dy) and w, for `GradW` x and dy.
    fn run(&self, pass: Pass, operands: [&[f32]; 2], bias: Option<&[f32]>, mode: Mode) -> Vec<f32> {
        let g = &self.g;
        let has_bias = format!("BIAS={}", u8::from(bias.is_some()));
        let pitches = if pass == Pass::GradX { [g.k, g.c] } else { [g.c, g.k] };
        let plan = plan(
            g,
            pass,
            self.math,
            self.tiles,
            self.slices,
            pitches,
            [true; 2],
            &["OUT=float", &has_bias],
            self.fixed,
        );
        let out = Buffer::poisoned(4 * plan.results);
        let partial = Buffer::poisoned(plan.partial_bytes());
        let bias = bias.map(Buffer::f32);
        let bias_or_null = || bias.as_ref().map_or(Arg::Null, Arg::from);
        let operands = operands.map(|v| operand(self.math, v));
        let counters = Buffer::i32(&vec![0; plan.tiles]);
        let mut args: Vec<Arg> =
            vec![shape_argument(g, pass)[..].into(), (&operands[0]).into(), (&operands[1]).into()];
        if pass != Pass::GradW {
            args.push(bias_or_null());
        }
        let [first, second] = pitches.map(|p| Arg::from(p as i32));
        args.extend([
            Arg::Null,
            (&out).into(),
            (&partial).into(),
            (plan.slices as i32).into(),
            first,
            second,
        ]);
        args.push((&counters).into());
        if pass != Pass::GradW {
            args.extend([1.into(), Arg::Null, Arg::Null]);
        }
        let program = module(plan.specialisation.file, &plan.specialisation.constants);
        let shape = Shape { grid: plan.grid, threads: plan.threads, shared: plan.shared };
        program.launch(plan.kernel, shape, &args, mode).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(program.bank_conflicts(), 0, "{:?}", plan.specialisation);
        assert!(counters.to_i32().iter().all(|c| *c == 0), "counters are left as they were");
        out.to_f32()
    }
}

/// All three derivatives of one geometry against the plain sums, under the given modes.
fn check(name: &str, setup: &Setup, modes: &[Mode]) {
    let (g, math) = (&setup.g, setup.math);
    let x = normal(1, g.n * g.in_pixels() * g.c);
    let w = normal(2, g.k * g.taps() * g.group_c());
    let y = normal(3, g.n * g.out_pixels() * g.k);
    let bias = normal(4, g.k);
    let rounded = |v: &[f32]| v.iter().map(|&v| round(math, v)).collect::<Vec<f64>>();
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
        assert_close(
            &format!("forward {what}"),
            &setup.run(Pass::Forward, [&x, &w], Some(&bias), mode),
            &want_y,
            4e-6,
        );
        assert_close(&format!("grad_x {what}"), &setup.run(Pass::GradX, [&y, &w], None, mode), &want_x, 4e-6);
        assert_close(&format!("grad_w {what}"), &setup.run(Pass::GradW, [&x, &y], None, mode), &want_w, 4e-6);
    }
}

const SMALL: Tiles = tiles([32, 32, 32, 2, 1, 3]);
const LARGE: Tiles = tiles([64, 64, 32, 2, 2, 2]);

fn check_all(math: Math) {
    for (i, (name, g)) in cases().into_iter().enumerate() {
        let tiles = if name.starts_with("full") && i % 2 == 0 { LARGE } else { SMALL };
        check(name, &Setup { g, math, tiles, slices: 1 + i % 3, fixed: false }, &Mode::all());
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
    let g = row(square(1, 16, 10, 24, 4, 2, 1, 1, 1));
    for math in [Math::Fma, Math::Tf32, Math::Bf16] {
        check("constants", &Setup { g: g.clone(), math, tiles: SMALL, slices: 2, fixed: true }, &modes[..2]);
        for shape in [[128, 128, 32, 4, 2, 3], [16, 128, 64, 1, 4, 2], [128, 16, 32, 4, 1, 4]] {
            check(
                "tiles",
                &Setup { g: g.clone(), math, tiles: tiles(shape), slices: 1, fixed: false },
                &modes[7..9],
            );
        }
    }
}

/// What is compiled for a device: for a window and any extents, with whole tiles of channels or parts of them, in groups; and for
/// the very shape where taps meet nothing but padding, or phases have unlike extents.
#[test]
fn kernels_for_a_window_serve_all_extents() {
    let modes = [Mode::all()[0], Mode::all()[8]];
    let narrow = Tiles { bm: 16, bn: 16, bk: 32, warps_m: 1, warps_n: 1, stages: 3 };
    let of = |g: ConvGeometry, math| Setup { g, math, tiles: narrow, slices: 2, fixed: true };
    for math in [Math::Fma, Math::Tf32, Math::Bf16] {
        let kinds = [Pass::Forward, Pass::GradX, Pass::GradW].map(|pass| {
            let shared = |g: &ConvGeometry| of(g.clone(), math).constants(pass);
            let [a, b] =
                [row(square(2, 16, 8, 32, 4, 2, 1, 1, 1)), row(square(1, 32, 10, 16, 4, 2, 1, 1, 1))];
            assert_eq!(shared(&a), shared(&b), "{pass:?}");
            shared(&a).iter().any(|c| c.starts_with("WINDOW=")) && shared(&a).contains(&"WHOLE=1".to_string())
        });
        assert_eq!(kinds, [true; 3], "{math:?}");
        for g in [
            square(2, 16, 8, 32, 4, 2, 1, 1, 1),
            square(1, 32, 10, 16, 4, 2, 1, 1, 1),
            square(1, 24, 7, 40, 3, 1, 1, 1, 1),
            square(1, 32, 6, 64, 3, 1, 0, 2, 2),
            square(1, 16, 9, 16, 4, 2, 1, 1, 1),
            square(2, 16, 2, 16, 4, 2, 1, 1, 1),
            square(1, 16, 9, 16, 3, 3, 0, 1, 1),
            cube(1, 16, 4, 16, 3, 1, 1, 1, 1),
        ] {
            check("for a window", &of(row(g), math), &modes);
        }
    }
}

/// Reading from and writing into a slice of a wider tensor's channels (how a concatenation is stored), an activation in
/// the epilogue, and a bf16 result.
#[test]
fn pitches_activations_and_bf16_results() {
    let g = row(square(2, 8, 6, 12, 3, 1, 1, 1, 1));
    let (x_pitch, y_pitch) = (24usize, 20usize);
    let x = normal(1, g.n * g.in_pixels() * x_pitch);
    let (w, bias) = (normal(2, g.k * g.taps() * g.c), normal(3, g.k));
    let mut want: Vec<f64> = (0..g.n * g.out_pixels() * g.k).map(|i| f64::from(bias[i % g.k])).collect();
    products(&g, |xi, wi, yi| {
        want[yi] += f64::from(bf16_round(x[xi / g.c * x_pitch + xi % g.c])) * f64::from(bf16_round(w[wi]));
    });
    want.iter_mut().for_each(|v| *v = if *v > 0.0 { *v } else { f64::from(0.2f32) * *v });
    for slices in [1, 2] {
        let epilogue = ["OUT=bf16", "BIAS=1", "ACTIVATION(v)=leaky_relu(v, 0.2f)"];
        let plan = plan(
            &g,
            Pass::Forward,
            Math::Bf16,
            SMALL,
            slices,
            [x_pitch, y_pitch],
            [true; 2],
            &epilogue,
            false,
        );
        let program = module(plan.specialisation.file, &plan.specialisation.constants);
        for mode in Mode::all() {
            let out = Buffer::poisoned(2 * (g.n * g.out_pixels() * y_pitch - (y_pitch - g.k)));
            let partial = Buffer::poisoned(plan.partial_bytes());
            let (vx, vw, vbias) = (Buffer::bf16(&x), Buffer::bf16(&w), Buffer::f32(&bias));
            let counters = Buffer::i32(&vec![0; plan.tiles]);
            let args = [
                shape_argument(&g, Pass::Forward)[..].into(),
                (&vx).into(),
                (&vw).into(),
                (&vbias).into(),
                Arg::Null,
                (&out).into(),
                (&partial).into(),
                (slices as i32).into(),
                (x_pitch as i32).into(),
                (y_pitch as i32).into(),
                (&counters).into(),
                1.into(),
                Arg::Null,
                Arg::Null,
            ];
            let shape = Shape { grid: plan.grid, threads: plan.threads, shared: plan.shared };
            program.launch(plan.kernel, shape, &args, mode).unwrap_or_else(|e| panic!("{e}"));
            let got = out.to_bf16();
            for (pixel, row) in got.chunks(y_pitch).enumerate() {
                assert_close("pixel", &row[..g.k], &want[pixel * g.k..][..g.k], 4.1e-3);
                assert!(row[g.k..].iter().all(|v| v.is_nan()), "wrote beside the slice");
            }
        }
    }
}

/// A norm in the middle of a convolution's channels, and its eps.
const NORM: (usize, usize, f32) = (1, 3, 1e-3);

/// What a pass leaves for a norm, `[2, sets, channels]`, and what it should: of a forward norm mean and variance of each channel,
/// else the sums of the gradient of a norm whose channels are some of the result's.
fn statistics(
    g: &ConvGeometry,
    pass: Pass,
    sets: usize,
    kind: &str,
    slices: usize,
    gradient: bool,
    mode: Mode,
) -> (Vec<f32>, Vec<f64>) {
    let (math, first, pixels, channels) = match pass {
        Pass::GradX => (Math::Fma, g.n * g.out_pixels() * g.k, g.n * g.in_pixels(), g.c),
        _ => (Math::Tf32, g.n * g.in_pixels() * g.c, g.n * g.out_pixels(), g.k),
    };
    let pitches = if pass == Pass::GradX { [g.k, g.c] } else { [g.c, g.k] };
    let (out, normed) = (format!("OUT={kind}"), format!("NORMED={kind}"));
    let plain = [&out[..], "STATS=1", "ACTIVATION(v)=(v + 30.0f)"];
    let sums = [&out[..], "STATS=2", &normed];
    let constants = if gradient { sums } else { plain };
    let plan = plan(g, pass, math, SMALL, slices, pitches, [true; 2], &constants, false);
    let (a, w) = (normal(1, first), normal(2, g.k * g.taps() * g.c));
    let program = module(plan.specialisation.file, &plan.specialisation.constants);
    let columns = plan.grid[1] as usize;
    let (va, vw) = (Buffer::f32(&a), Buffer::f32(&w));
    let out = unwritten(kind, plan.results);
    let partial = Buffer::poisoned(plan.partial_bytes());
    let counters = Buffer::i32(&vec![0; plan.tiles + sets * columns]);
    let (from, of, eps) = if gradient { NORM } else { (0, channels, 0.0) };
    let moments = Buffer::poisoned(12 * plan.tiles / columns * of);
    let stats = Buffer::poisoned(8 * sets * of);
    let x = normal(5, pixels * of);
    let vx = if kind == "bf16" { Buffer::bf16(&x) } else { Buffer::f32(&x) };
    let x = numbers(kind, &vx);
    let forward: Vec<f32> = normal(6, 2 * sets * of).iter().map(|v| v.abs()).collect();
    let vforward = Buffer::f32(&forward);
    let mut args: Vec<Arg> = vec![
        shape_argument(g, pass)[..].into(),
        (&va).into(),
        (&vw).into(),
        Arg::Null,
        Arg::Null,
        (&out).into(),
        (&partial).into(),
        (slices as i32).into(),
        (pitches[0] as i32).into(),
        (pitches[1] as i32).into(),
        (&counters).into(),
        (sets as i32).into(),
        (&moments).into(),
        (&stats).into(),
    ];
    if gradient {
        args.extend([(&vx).into(), (&vforward).into(), eps.into(), (from as i32).into(), (of as i32).into()]);
    }
    let shape = Shape { grid: plan.grid, threads: plan.threads, shared: plan.shared };
    program.launch(plan.kernel, shape, &args, mode).unwrap_or_else(|e| panic!("{e}"));
    assert!(counters.to_i32().iter().all(|c| *c == 0), "counters are left as they were");

    let (stored, rows) = (numbers(kind, &out), pixels / sets);
    let mut want = vec![0.0; 2 * sets * of];
    for at in 0..sets * of {
        let (set, c) = (at / of, at % of);
        let pixel = |r: usize| set * rows + r;
        let v = |r: usize| f64::from(stored[pixel(r) * channels + from + c]);
        let all = 0..rows;
        let pair = if gradient {
            let (mean, variance) = (f64::from(forward[at]), f64::from(forward[sets * of + at]));
            let hat =
                |r: usize| (f64::from(x[pixel(r) * of + c]) - mean) / (variance + f64::from(eps)).sqrt();
            [all.clone().map(|r| v(r) * hat(r)).sum::<f64>(), all.map(v).sum()]
        } else {
            let mean = all.clone().map(v).sum::<f64>() / rows as f64;
            [mean, all.map(|r| (v(r) - mean).powi(2)).sum::<f64>() / rows as f64]
        };
        [want[at], want[sets * of + at]] = pair;
    }
    (stats.to_f32(), want)
}

/// What convolutions leave for norms: over everything or image by image, of a forward and of a transposed convolution, in one
/// slice and in several, of what is stored.
#[test]
fn statistics_are_those_of_what_is_stored() {
    let odd = row(square(2, 3, 7, 5, 3, 2, 1, 1, 1));
    let even = row(square(2, 16, 16, 40, 4, 2, 1, 1, 1));
    for (g, sets) in [(&odd, 1), (&even, 1), (&even, 2)] {
        for (pass, kind) in [(Pass::Forward, "float"), (Pass::GradX, "float"), (Pass::Forward, "bf16")] {
            for (slices, gradient) in [(1, false), (2, false), (1, true), (2, true)] {
                if gradient && pass == Pass::GradX && g == &odd {
                    continue; // fewer channels than the norm's
                }
                for mode in Mode::all() {
                    let (got, want) = statistics(g, pass, sets, kind, slices, gradient, mode);
                    let what = format!("{pass:?} {kind} of {sets} x{slices} gradient {gradient} {mode:?}");
                    let half = want.len() / 2;
                    // Sums that cancel are as exact as their terms.
                    let close = if gradient { 4e-6 } else { 2e-6 };
                    assert_close(&format!("first {what}"), &got[..half], &want[..half], close);
                    assert_close(&format!("second {what}"), &got[half..], &want[half..], 4e-6);
                }
            }
        }
    }
}
