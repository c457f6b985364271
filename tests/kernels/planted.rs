//! Tests of the test: bugs planted in copies of the sources must be noticed, and the sources as they are must run clean
//! under the sanitizers.

use crate::common::{kernels, normal};
use gan_emu::{Arg, Async, Buffer, Build, Mode, Order, Sanitizer, Shape, launch_sanitized};

const TILES: [&str; 12] = [
    "MATH=MATH_BF16",
    "OUT=float",
    "BM=32",
    "BN=32",
    "BK=32",
    "WARPS_M=2",
    "WARPS_N=1",
    "STAGES=3",
    "VEC_A=8",
    "VEC_B=8",
    "A_STORED=ALONG_K",
    "B_STORED=ACROSS_K",
];
const SIZE: usize = 96; // m = n = k: three tiles each way, three steps through three buffers

fn matmul() -> Build {
    Build::new(kernels(), "matmul.cu").define(TILES)
}

struct Product {
    a: Buffer,
    b: Buffer,
    out: Buffer,
}

impl Product {
    fn new() -> Self {
        let n = SIZE * SIZE;
        Product {
            a: Buffer::bf16(&normal(1, n)),
            b: Buffer::bf16(&normal(2, n)),
            out: Buffer::poisoned(4 * n),
        }
    }

    fn args(&self) -> Vec<Arg<'_>> {
        let n = SIZE as i32;
        vec![
            n.into(),
            n.into(),
            n.into(),
            (&self.a).into(),
            (&self.b).into(),
            Arg::Null,
            (&self.out).into(),
            Arg::Null,
            1i32.into(),
            n.into(),
            n.into(),
            n.into(),
            0i64.into(),
            0i64.into(),
            0i64.into(),
        ]
    }

    fn shape() -> Shape {
        Shape { grid: [9, 1, 1], threads: 64, shared: 3 * 64 * 32 * 2 }
    }

    /// The largest error of the product, or the emulator's complaint.
    fn run(&self, build: &Build, mode: Mode) -> Result<f64, String> {
        build.load()?.launch("matmul", Self::shape(), &self.args(), mode)?;
        let (a, b, out) = (self.a.to_bf16(), self.b.to_bf16(), self.out.to_f32());
        let mut worst = 0.0;
        for i in 0..SIZE {
            for j in 0..SIZE {
                let want: f64 =
                    (0..SIZE).map(|k| f64::from(a[i * SIZE + k]) * f64::from(b[k * SIZE + j])).sum();
                let error = (f64::from(out[i * SIZE + j]) - want).abs();
                worst = if error.is_nan() { f64::INFINITY } else { error.max(worst) };
            }
        }
        Ok(worst)
    }
}

/// How many of the nine modes notice that something is wrong.
fn noticed(build: &Build) -> usize {
    Mode::all()
        .into_iter()
        .filter(|&mode| Product::new().run(build, mode).map_or(true, |error| error > 1e-3))
        .count()
}

#[test]
fn the_sources_as_they_are_pass() {
    assert_eq!(noticed(&matmul()), 0);
}

#[test]
fn a_missing_barrier_is_noticed() {
    let build = matmul().patch("include/tile.cuh", "        __syncthreads();\n", "");
    assert!(noticed(&build) >= 6, "only {} modes noticed", noticed(&build));
}

#[test]
fn a_wait_for_too_few_copies_is_noticed() {
    let build = matmul().patch("include/tile.cuh", "cp_async_wait<Stages - 2>", "cp_async_wait<Stages - 1>");
    assert!(noticed(&build) >= 3, "only {} modes noticed", noticed(&build));
}

#[test]
fn a_buffer_released_too_early_is_noticed() {
    let build = matmul().patch("include/tile.cuh", "stage == 0 ? Stages - 1 : stage - 1", "stage");
    assert!(noticed(&build) >= 6, "only {} modes noticed", noticed(&build));
}

#[test]
fn tiles_without_their_swizzle_are_noticed() {
    let conflicts = |build: Build| {
        let program = build.load().unwrap();
        program.launch("matmul", Product::shape(), &Product::new().args(), Mode::all()[0]).unwrap();
        program.bank_conflicts()
    };
    assert_eq!(conflicts(matmul()), 0);
    assert!(conflicts(matmul().patch("include/tile.cuh", "return chunk ^ (", "return chunk ^ 0 * (")) > 0);
}

#[test]
fn a_write_outside_global_or_shared_memory_is_noticed() {
    let build = matmul().patch("matmul.cu", "if (row >= m || column >= n) return;", "if (row > m) return;");
    let build =
        build.patch("matmul.cu", "i64(row) * out_pitch + column", "i64(row) * out_pitch + column + 1");
    assert_eq!(noticed(&build), 9);

    let error =
        statistics(|b| b.patch("norm.cu", "SMEM(Moments, scratch, 256)", "SMEM(Moments, scratch, 255)"));
    assert!(error.contains("outside shared memory: scratch"), "{error}");
}

/// Runs the statistics of 70 pixels in 32 channels, patched, and gives back the emulator's complaint.
fn statistics(patch: impl Fn(Build) -> Build) -> String {
    let build = Build::new(kernels(), "norm.cu").define(["IN=float", "OUT=float", "LANES=32"]);
    let (x, partial) = (Buffer::f32(&normal(1, 70 * 32)), Buffer::poisoned(12 * 32));
    let (shape, slices): (&[i32], Arg) = (&[1, 70, 32, 2], 1i32.into());
    let args = [shape.into(), slices, (&x).into(), (&partial).into(), Arg::Null, Arg::Null];
    let program = patch(build).load().unwrap();
    program.launch("norm_stats", Shape::flat(1, 256), &args, Mode::all()[0]).unwrap_err()
}

#[test]
fn a_barrier_that_some_threads_skip_is_reported() {
    let error = statistics(|b| {
        let (barrier, skipped) = (
            "        team.sync();\n        if (row < half)",
            "        if (row != 3) team.sync();\n        if (row < half)",
        );
        b.patch("include/reduce.cuh", barrier, skipped)
    });
    assert!(error.contains("deadlock") && error.contains("reduce.cuh"), "{error}");
}

#[test]
fn lanes_that_part_are_reported() {
    let build = Build::new(kernels(), "softmax.cu").define(["TYPE=float", "LOG=0", "LANES=32"]).patch(
        "softmax.cu",
        "    top = warp_max<LANES>(top);",
        "    if (lane != 5) top = warp_max<LANES>(top);",
    );
    let (x, y) = (Buffer::f32(&normal(1, 320)), Buffer::poisoned(1280));
    let args: [Arg; 5] = [8i32.into(), 40i32.into(), 1i32.into(), (&x).into(), (&y).into()];
    let error =
        build.load().unwrap().launch("softmax", Shape::flat(1, 256), &args, Mode::all()[0]).unwrap_err();
    assert!(error.contains("diverged") || error.contains("deadlock"), "{error}");
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let program = matmul().load().unwrap();
    let error = program.launch("matmul", Product::shape(), &[1i32.into()], Mode::all()[0]).unwrap_err();
    assert!(error.contains("1 arguments given, the kernel has 15"), "{error}");
}

// ---- sanitizers: skipped with a notice where the compiler is not installed, unless CI demands them ------------------

/// Whether the sanitizer can be built here; in CI it must.
pub fn available(sanitizer: Sanitizer) -> bool {
    let probe = Build::new(kernels(), "sum_slices.cu").define(["OUT=float"]).program(sanitizer);
    match probe {
        Ok(_) => true,
        Err(e) if std::env::var_os("CI").is_some() => panic!("{e}"),
        Err(e) => {
            println!("skipped: {}", e.lines().next().unwrap_or_default());
            false
        }
    }
}

const MODES: [Mode; 2] = [
    Mode { order: Order::Forward, copies: Async::Late, seed: 1 },
    Mode { order: Order::Random, copies: Async::Random, seed: 2 },
];

fn sanitized(build: &Build, sanitizer: Sanitizer) -> Result<(), String> {
    let p = Product::new();
    MODES
        .into_iter()
        .try_for_each(|mode| launch_sanitized(build, sanitizer, "matmul", Product::shape(), &p.args(), mode))
}

#[test]
fn thread_sanitizer_finds_planted_races_only() {
    if !available(Sanitizer::Thread) {
        return;
    }
    sanitized(&matmul(), Sanitizer::Thread).unwrap_or_else(|e| panic!("{e}"));
    for (from, to) in [
        ("        __syncthreads();\n", ""),
        ("stage == 0 ? Stages - 1 : stage - 1", "stage"),
        ("cp_async_wait<Stages - 2>", "cp_async_wait<Stages - 1>"),
    ] {
        let error = sanitized(&matmul().patch("include/tile.cuh", from, to), Sanitizer::Thread).unwrap_err();
        assert!(error.contains("data race"), "{from:?}: {error}");
    }
}

#[test]
fn address_sanitizer_finds_planted_overruns_only() {
    if !available(Sanitizer::Address) {
        return;
    }
    sanitized(&matmul(), Sanitizer::Address).unwrap_or_else(|e| panic!("{e}"));
    let late =
        matmul().patch("matmul.cu", "i64(row) * out_pitch + column", "i64(row) * out_pitch + column + 1");
    let short = matmul().patch(
        "include/tile.cuh",
        "(row * CHUNKS + swizzled(row, chunk)) * 16",
        "(row * CHUNKS + swizzled(row, chunk)) * 16 + 8",
    );
    for (name, build, word) in [("write", late, "heap-buffer-overflow"), ("misaligned", short, "misaligned")]
    {
        let error = sanitized(&build, Sanitizer::Address).unwrap_err();
        assert!(error.contains(word), "{name}: {error}");
    }
}

/// Runs a kernel: its file, constants, name, shape and arguments.
type Run<'a> = &'a dyn Fn(&str, &[&str], &str, Shape, &[Arg]);

/// Kernels without shared memory: what they may get wrong are the ends.
fn elementwise(run: Run, x: &Buffer, y: &Buffer, z: &Buffer) {
    let null = || Arg::Null;
    let shape = Shape::flat(3, 256);
    // 60 rows of 64 channels, in fours, by one number a channel.
    let layout: &[i32] = &[60, 16, 64, 4, 64, 4, 0, 4];
    let strided = ["OUT=float", "RANK=2", "WIDTH=4", "INPUTS=2", "EXPRESSION=leaky_relu(a * b, 0.2f)"];
    let no_mask: &[i32] = &[0; 5];
    let ends = || [null(), null(), null(), null(), null(), 0f32.into(), 0f32.into(), no_mask.into()];
    let head: [Arg; 5] = [layout.into(), 960i64.into(), y.into(), x.into(), z.into()];
    run("pointwise.cu", &strided, "pointwise", shape, &head.into_iter().chain(ends()).collect::<Vec<_>>());
    let dense = ["OUT=float", "RANK=2", "INPUTS=1", "EXPRESSION=tanhf(a)"];
    let head: [Arg; 4] = [3838i64.into(), y.into(), x.into(), null()];
    run(
        "pointwise.cu",
        &dense,
        "pointwise_dense",
        shape,
        &head.into_iter().chain(ends()).collect::<Vec<_>>(),
    );
    let drop = ["OUT=float", "RANK=2", "INPUTS=1", "DROPOUT=1", "EXPRESSION=dropped(a, numbers)"];
    let head: [Arg; 8] = [3839i64.into(), y.into(), x.into(), null(), null(), null(), null(), null()];
    let mask: [i32; 5] = [1, 2, 3, 1 << 23, 2f32.to_bits() as i32];
    let ends: [Arg; 4] = [z.into(), 0f32.into(), 0f32.into(), mask[..].into()];
    run("pointwise.cu", &drop, "pointwise_dense", shape, &head.into_iter().chain(ends).collect::<Vec<_>>());
    for normal in ["NORMAL=0", "NORMAL=1"] {
        let draw: [Arg; 6] = [3839i64.into(), 1u32.into(), 2u32.into(), 3u32.into(), z.into(), y.into()];
        run("random.cu", &[normal], "random_numbers", shape, &draw);
    }
    // 1 x 12 x 12 x 4 by windows of 2 x 2.
    let geometry: &[i32] = &[1, 4, 4, 1, 1, 12, 12, 1, 6, 6, 1, 2, 2, 1, 2, 2, 0, 0, 0, 1, 1, 1];
    let place = Buffer::poisoned(4 * 144);
    let pool: [Arg; 4] = [geometry.into(), x.into(), y.into(), (&place).into()];
    run("pool.cu", &["TYPE=float"], "max_pool", shape, &pool);
    // Four images of 240 into a pool of three: kept, shown again, passed on, kept over another.
    let choices = Buffer::f32(&[0.0, 2.0, -1.0, 0.0]);
    let head = || [240i64.into(), 4i32.into(), 3i32.into()];
    let query: [Arg; 4] = [x.into(), z.into(), (&choices).into(), y.into()];
    let query: Vec<Arg> = head().into_iter().chain(query).collect();
    run("image_pool.cu", &["TYPE=float"], "pool_query", shape, &query);
    let store: [Arg; 3] = [z.into(), (&choices).into(), y.into()];
    let store: Vec<Arg> = head().into_iter().chain(store).collect();
    run("image_pool.cu", &["TYPE=float"], "pool_store", shape, &store);
    // 1 x 1 x 3 x 4 x 2 to twice the height: two neighbours for each new row.
    let extents: &[i32] = &[1, 2, 1, 3, 4, 1, 6, 4];
    let ints = |v: &[i32]| Buffer::i32(v);
    let (one, rows, columns) = (ints(&[0, 1]), ints(&[0, 2, 4, 6, 8, 10, 12]), ints(&[0, 1, 2, 3, 4]));
    let (first, pairs, each) = (ints(&[0]), ints(&[0, 0, 0, 1, 0, 1, 1, 2, 1, 2, 2, 2]), ints(&[0, 1, 2, 3]));
    let weights = Buffer::f32(&[0.5; 12]);
    let w = || Arg::from(&weights);
    let resample: [Arg; 12] = [
        extents.into(),
        x.into(),
        y.into(),
        (&one).into(),
        (&first).into(),
        w(),
        (&rows).into(),
        (&pairs).into(),
        w(),
        (&columns).into(),
        (&each).into(),
        w(),
    ];
    run("resample.cu", &["IN=float", "OUT=float"], "resample", shape, &resample);
    // A store of parameters and two moments.
    let numbers: Vec<u8> =
        [0.5, 0.999, 1e-8, 0.0, 0.0, 0.0, 0.0, 0.0f64].iter().flat_map(|v| v.to_ne_bytes()).collect();
    let adam =
        ["RULE=ADAM", "MOMENTUM=0", "AMSGRAD=0", "CENTERED=0", "NESTEROV=0", "SHADOW=0", "ZERO_GRADIENT=0"];
    let step: [Arg; 7] =
        [Arg::Value(numbers), 1279i64.into(), z.into(), z.into(), y.into(), x.into(), null()];
    run("optim.cu", &adam, "optimise", shape, &step);
}

/// Kernels with shared memory or warp primitives of their own, under both sanitizers.
#[test]
fn the_other_kernels_run_clean_under_the_sanitizers() {
    for sanitizer in [Sanitizer::Thread, Sanitizer::Address] {
        if !available(sanitizer) {
            continue;
        }
        let run = |file: &str, defines: &[&str], kernel: &str, shape: Shape, args: &[Arg]| {
            let build = Build::new(kernels(), file).define(defines);
            for mode in MODES {
                launch_sanitized(&build, sanitizer, kernel, shape, args, mode)
                    .unwrap_or_else(|e| panic!("{e}"));
            }
        };
        let (x, y, z) =
            (Buffer::f32(&normal(1, 3840)), Buffer::poisoned(4 * 3840), Buffer::f32(&normal(2, 3840)));
        let grid = |grid: [u32; 3], shared: usize| Shape { grid, threads: 256, shared };
        let softmax = ["TYPE=float", "LOG=1", "LANES=8"];
        run(
            "softmax.cu",
            &softmax,
            "softmax",
            grid([12, 1, 1], 0),
            &[384i32.into(), 10i32.into(), 1i32.into(), (&x).into(), (&y).into()],
        );
        let norm = ["IN=float", "OUT=float", "LANES=8"];
        let shape: &[i32] = &[2, 192, 10, 5];
        let n = || Arg::from(3i32);
        let (partial, counters) = (Buffer::poisoned(4 * 3840), Buffer::i32(&[0; 16]));
        run(
            "norm.cu",
            &norm,
            "norm_stats",
            grid([2, 2, 3], 0),
            &[shape.into(), n(), (&x).into(), (&y).into(), Arg::Null, (&counters).into()],
        );
        let single: &[i32] = &[2, 192, 10, 1];
        run(
            "norm.cu",
            &norm,
            "norm_stats",
            grid([2, 2, 3], 0),
            &[single.into(), n(), (&x).into(), (&partial).into(), (&y).into(), (&counters).into()],
        );
        run(
            "norm.cu",
            &norm,
            "norm_finish",
            grid([1, 1, 1], 0),
            &[shape.into(), n(), (&x).into(), (&y).into()],
        );
        run(
            "norm.cu",
            &norm,
            "norm_grad_sums",
            grid([2, 2, 3], 0),
            &[
                shape.into(),
                n(),
                1e-5f32.into(),
                (&x).into(),
                (&z).into(),
                10i32.into(),
                (&z).into(),
                (&partial).into(),
                (&y).into(),
                (&counters).into(),
            ],
        );
        run(
            "norm.cu",
            &norm,
            "norm_averages",
            grid([1, 1, 1], 0),
            &[shape.into(), 1i32.into(), (&x).into(), Arg::Null, (&y).into()],
        );
        run("norm.cu", &norm, "norm_join", grid([1, 1, 1], 0), &[shape.into(), (&x).into(), (&y).into()]);
        let reduce = [
            "OUT=float",
            "KEPT_RANK=1",
            "REDUCED_RANK=1",
            "MAXIMUM=0",
            "LANES=8",
            "INPUTS=1",
            "EXPRESSION=a",
        ];
        let (kept, reduced): (&[i32], &[i32]) = (&[10, 1], &[384, 10]);
        run(
            "reduce.cu",
            &reduce,
            "reduce",
            grid([2, 3, 1], 0),
            &[
                kept.into(),
                reduced.into(),
                10i32.into(),
                384i64.into(),
                3i32.into(),
                1f32.into(),
                (&y).into(),
                (&partial).into(),
                (&x).into(),
                Arg::Null,
                Arg::Null,
                Arg::Null,
                Arg::Null,
                Arg::Null,
                Arg::Null,
                (&counters).into(),
            ],
        );
        elementwise(&run, &x, &y, &z);
        let loss =
            ["OUT=float", "PREDICTION_TYPE=float", "PREDICTION=1", "LOSS(v)=square(v)", "GRADIENT(v)=v"];
        let (prediction, total) = (Buffer::poisoned(4 * 700), Buffer::poisoned(4));
        run(
            "conv_loss.cu",
            &loss,
            "conv_loss",
            Shape { grid: [1, 1, 1], threads: 512, shared: 0 },
            &[
                (&x).into(),
                Arg::Null,
                (&y).into(),
                (&prediction).into(),
                (&total).into(),
                700i32.into(),
                5i32.into(),
                1i32.into(),
                1f32.into(),
            ],
        );
        // Convolutions: 1 x 6 x 6 x 8 by 16 kernels of 3 x 3.
        let window = [1, 8, 16, 1, 1, 6, 6, 1, 6, 6, 1, 3, 3, 1, 1, 1, 0, 1, 1, 1, 1, 1];
        // Without factors to multiply by, the kernels divide.
        let geometry: Vec<i32> = window.into_iter().chain([0; 12]).collect();
        let geometry = &geometry[..];
        for math in ["FMA", "TF32", "BF16"] {
            let (math_define, vec) = (format!("MATH=MATH_{math}"), if math == "BF16" { 8 } else { 4 });
            let (a, b) = (format!("VEC_A={vec}"), format!("VEC_B={vec}"));
            let common = [
                &math_define,
                &a,
                &b,
                "OUT=float",
                "BM=32",
                "BN=32",
                "BK=32",
                "WARPS_M=2",
                "WARPS_N=1",
                "STAGES=3",
            ];
            let shared = 3 * 64 * 32 * if math == "BF16" { 2 } else { 4 };
            let shape = |x: u32, y: u32| Shape { grid: [x, y, 2], threads: 64, shared };
            let two = || Arg::from(2i32);
            let (moments, stats) = (Buffer::poisoned(12 * 32), Buffer::poisoned(4 * 32));
            for grad_x in [0, 1] {
                let pass = format!("GRAD_X={grad_x}");
                let wanted = if grad_x == 1 { "STATS=2" } else { "STATS=1" };
                let defines: Vec<&str> = common.iter().copied().chain([pass.as_str(), wanted]).collect();
                let pitches = if grad_x == 1 { [16i32, 8] } else { [8, 16] };
                let mut args: Vec<Arg> = vec![
                    geometry.into(),
                    (&x).into(),
                    (&z).into(),
                    Arg::Null,
                    Arg::Null,
                    (&y).into(),
                    (&partial).into(),
                    two(),
                    pitches[0].into(),
                    pitches[1].into(),
                    (&counters).into(),
                    1i32.into(),
                    (&moments).into(),
                    (&stats).into(),
                ];
                if grad_x == 1 {
                    args.extend([(&x).into(), (&z).into(), 1e-5f32.into(), 2i32.into(), 4i32.into()]);
                }
                run("conv.cu", &defines, "conv", shape(2, 1), &args);
            }
            let args = [
                geometry.into(),
                (&x).into(),
                (&z).into(),
                Arg::Null,
                (&y).into(),
                (&partial).into(),
                two(),
                8i32.into(),
                16i32.into(),
                (&counters).into(),
            ];
            run("conv_grad_w.cu", &common, "conv_grad_w", shape(3, 1), &args);
        }
    }
}
