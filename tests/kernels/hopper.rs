//! The convolutions of sm_90a (`conv_hopper.cu`, `conv_hopper_grad_w.cu`) with the launches that the program makes, on the
//! emulator against plain double-precision sums; with bugs planted; and compiled.

use crate::common::{assert_close, kernels, module, normal};
use crate::geometry::{cube, operands, products, row, square};
use gan::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Math, Operand, Operands, Tailored};
use gan::dtype::DType;
use gan::ops::conv::cuda::hopper::{choose, launches};
use gan::ops::conv::cuda::launch::{Epilogue, Normed, Pass, Stats};
use gan::ops::conv::geometry::ConvGeometry;
use gan::shape::Shape;
use gan_emu::{Arg, Async, Buffer, Build, Mode, Order, Sanitizer, bf16_round, launch_sanitized};

pub const PASSES: [Pass; 3] = [Pass::Forward, Pass::GradX, Pass::GradW];

/// A device with so many multiprocessors that takes these kernels wherever it can.
pub fn device(multiprocessors: usize, hopper: Tailored, fixed_shapes: bool) -> GpuTraits {
    GpuTraits {
        multiprocessors,
        math: Math::Bf16,
        fixed_shapes,
        fused: true,
        choices: None,
        hopper,
        window: Tailored::Off,
    }
}

/// What a pass launches on a device, its operands stored in bf16; `None` if it is not for these kernels.
pub fn list(
    g: &ConvGeometry,
    pass: Pass,
    gpu: &GpuTraits,
    out: DType,
    epilogue: &Epilogue,
) -> Option<LaunchList> {
    let variant = choose(g, pass, [true; 2], gpu)?;
    let shapes = operands(g, pass);
    let operand = |i: usize, dtype| Operand { shape: &shapes[i], aligned: true, dtype };
    let inputs = [operand(0, DType::Bf16), operand(1, DType::Bf16)];
    let io = Operands { inputs: &inputs, output: operand(2, out) };
    Some(launches(g, pass, &variant, &io, gpu, epilogue, io.output.kind()))
}

/// The memory of one pass: operands, a bias and a second tensor, what else; result, workspace, tables.
pub struct Memory {
    pub inputs: Vec<Buffer>,
    pub output: Buffer,
    pub workspace: Buffer,
    pub tables: Vec<Buffer>,
}

impl Memory {
    pub fn arg<'a>(&'a self, arg: &LaunchArg) -> Arg<'a> {
        match arg {
            LaunchArg::Bytes(bytes) => Arg::Value(bytes.clone()),
            LaunchArg::Input(i) => (&self.inputs[*i]).into(),
            LaunchArg::Output => (&self.output).into(),
            LaunchArg::Workspace(0) => (&self.workspace).into(),
            LaunchArg::Table(i) => (&self.tables[*i]).into(),
            LaunchArg::Maps(of, maps) => match **of {
                LaunchArg::Input(i) => {
                    Arg::Maps(&self.inputs[i], maps.iter().flat_map(|m| m.describe(0)).collect())
                }
                _ => unreachable!("the operands are stored in bf16"),
            },
            LaunchArg::Null => Arg::Null,
            other => unreachable!("convolutions take no {other:?}"),
        }
    }
}

/// Bytes of an argument at most, with what aligns it.
fn argument_bytes(arg: &LaunchArg) -> usize {
    match arg {
        LaunchArg::Bytes(bytes) => bytes.len().next_multiple_of(8),
        LaunchArg::Maps(_, maps) => 64 + 128 * maps.len(),
        _ => 8,
    }
}

pub fn shape(launch: &Launch) -> gan_emu::Shape {
    gan_emu::Shape { grid: launch.grid, threads: launch.threads, shared: launch.shared }
}

pub fn build(launch: &Launch) -> Build {
    Build::new(kernels(), launch.specialisation.file).define(&launch.specialisation.constants)
}

/// One pass with everything that it computes from and what it must give.
pub struct Case {
    pub g: ConvGeometry,
    pub pass: Pass,
    pub operands: [Vec<f32>; 2],
    pub bias: Vec<f32>,
    pub extra: Vec<f32>,
    pub want: Vec<f64>,
}

impl Case {
    pub fn new(g: &ConvGeometry, pass: Pass) -> Self {
        let random = |seed, shape: &Shape| -> Vec<f32> {
            normal(seed, shape.numel()).into_iter().map(bf16_round).collect()
        };
        let [first, second, result] = operands(g, pass);
        let operands = [random(1, &first), random(2, &second)];
        let mut want = vec![0.0; result.numel()];
        let [a, b] = &operands;
        products(g, |x, w, y| {
            let (to, from, by) = match pass {
                Pass::Forward => (y, x, w),
                Pass::GradX => (x, y, w),
                Pass::GradW => (w, x, y),
            };
            want[to] += f64::from(a[from]) * f64::from(b[by]);
        });
        let channels = result.channels();
        Case { g: g.clone(), pass, operands, bias: normal(3, channels), extra: random(4, &result), want }
    }

    fn list(&self, gpu: &GpuTraits, out: DType, epilogue: &Epilogue) -> LaunchList {
        list(&self.g, self.pass, gpu, out, epilogue).expect("possible")
    }

    pub fn memory(&self, list: &LaunchList, out: DType) -> Memory {
        let [a, b] = &self.operands;
        let inputs =
            vec![Buffer::bf16(a), Buffer::bf16(b), Buffer::f32(&self.bias), Buffer::bf16(&self.extra)];
        let output = Buffer::poisoned(self.want.len() * out.size());
        let tables = list.tables.iter().map(|t| Buffer::i32(&vec![0; t.len() / 4])).collect();
        Memory { inputs, output, workspace: Buffer::poisoned(list.workspace_bytes), tables }
    }

    fn run(&self, list: &LaunchList, out: DType, mode: Mode) -> Result<Vec<f32>, String> {
        self.run_with(list, out, mode, &self.memory(list, out))
    }

    pub fn run_with(
        &self,
        list: &LaunchList,
        out: DType,
        mode: Mode,
        memory: &Memory,
    ) -> Result<Vec<f32>, String> {
        for launch in &list.launches {
            let args: Vec<Arg> = launch.args.iter().map(|a| memory.arg(a)).collect();
            let program = module(launch.specialisation.file, &launch.specialisation.constants);
            program.launch(launch.kernel, shape(launch), &args, mode)?;
        }
        Ok(if out == DType::Bf16 { memory.output.to_bf16() } else { memory.output.to_f32() })
    }
}

/// What is asked of a convolution for a norm, or for the gradient of one whose channels are some of the result's; with its inputs:
/// where it goes, the norm's input, and its statistics.
pub struct Asked {
    pub stats: Stats,
    pub channels: usize,
    pub buffers: Vec<Buffer>,
    x: Vec<f32>,
    forward: Vec<f32>,
}

impl Asked {
    pub fn new(case: &Case, sets: usize, gradient: bool) -> Self {
        Asked::from(case, sets, gradient, 2)
    }

    /// The channels of the gradient begin with number `first` of the result's.
    fn from(case: &Case, sets: usize, gradient: bool, first: usize) -> Self {
        let [.., result] = operands(&case.g, case.pass);
        let channels = if gradient { 8 } else { result.channels() };
        let (stats, x) =
            (normal(6, 2 * sets * channels), normal(5, result.numel() / result.channels() * channels));
        let (forward, x) =
            (stats.into_iter().map(f32::abs).collect::<Vec<_>>(), x.into_iter().map(bf16_round));
        let x: Vec<f32> = x.collect();
        let normed = gradient.then_some(Normed {
            x: LaunchArg::Input(5),
            kind: "bf16",
            stats: LaunchArg::Input(6),
            eps: 1e-3,
            first,
            channels,
        });
        let buffers = vec![Buffer::poisoned(8 * sets * channels), Buffer::bf16(&x), Buffer::f32(&forward)];
        let stats = Stats { sets, to: LaunchArg::Input(4), normed };
        Asked { stats, channels, buffers, x, forward }
    }

    /// What it must be, of a result as it is stored.
    pub fn want(&self, stored: &[f32], all: usize) -> Vec<f64> {
        let (of, sets) = (self.channels, self.stats.sets);
        let rows = stored.len() / all / sets;
        let mut want = vec![0.0; 2 * sets * of];
        for at in 0..sets * of {
            let (set, c) = (at / of, at % of);
            let each = |r: usize, first: usize| f64::from(stored[(set * rows + r) * all + first + c]);
            let pair = match &self.stats.normed {
                Some(norm) => {
                    let (mean, variance) =
                        (f64::from(self.forward[at]), f64::from(self.forward[sets * of + at]));
                    let x = |r: usize| f64::from(self.x[(set * rows + r) * of + c]);
                    let hat = |r: usize| (x(r) - mean) / (variance + norm.eps).sqrt();
                    let v = |r: usize| each(r, norm.first);
                    [(0..rows).map(|r| v(r) * hat(r)).sum::<f64>(), (0..rows).map(v).sum()]
                }
                None => {
                    let mean = (0..rows).map(|r| each(r, 0)).sum::<f64>() / rows as f64;
                    [mean, (0..rows).map(|r| (each(r, 0) - mean).powi(2)).sum::<f64>() / rows as f64]
                }
            };
            [want[at], want[sets * of + at]] = pair;
        }
        want
    }
}

/// Shapes with several tiles, whose phases have unlike numbers of them; of all pixels and of each image.
fn cases_for_norms() -> [(ConvGeometry, usize); 3] {
    let images = row((2, 16, [1, 16, 32], 72, [1, 4, 4], [1, 2, 2], [0, 1, 1], [1; 3], 1));
    [
        (row((1, 16, [1, 23, 23], 24, [1, 3, 3], [1, 2, 2], [0, 1, 1], [1; 3], 1)), 1),
        (images.clone(), 1),
        (images, 2),
    ]
}

/// Statistics for the norm that follows, and sums for the gradient of one, of what is stored.
#[test]
fn what_norms_want_is_left_by_the_multiplying_warps() {
    for (g, sets) in cases_for_norms() {
        for pass in [Pass::Forward, Pass::GradX] {
            for (gradient, out) in [(false, DType::F32), (true, DType::F32), (true, DType::Bf16)] {
                let case = Case::new(&g, pass);
                let variant =
                    choose(&g, pass, [true; 2], &device(1, Tailored::Always, false)).expect("possible");
                assert!(variant.takes_stats(&g, pass, sets), "{g:?} {pass:?}");
                let epilogue =
                    |asked: &Asked| Epilogue { stats: Some(asked.stats.clone()), ..Epilogue::default() };
                for (m, mode) in Mode::all().into_iter().enumerate() {
                    let gpu = device(1, Tailored::Always, m % 4 == 3); // as compiled for a device
                    let asked = Asked::new(&case, sets, gradient);
                    let list = case.list(&gpu, out, &epilogue(&asked));
                    assert_eq!(list.launches.len(), 1);
                    let mut memory = case.memory(&list, out);
                    let Asked { stats, channels, buffers, x, forward } = asked;
                    memory.inputs.extend(buffers);
                    let what = format!("{pass:?} of {sets} gradient {gradient} {out:?} {mode:?}");
                    let stored =
                        case.run_with(&list, out, mode, &memory).unwrap_or_else(|e| panic!("{what}: {e}"));
                    assert!(
                        memory.tables[0].to_i32().iter().all(|c| *c == 0),
                        "counters are left as they were"
                    );
                    let asked = Asked { stats, channels, buffers: Vec::new(), x, forward };
                    let want = asked.want(&stored, operands(&g, pass)[2].channels());
                    let (got, half) = (memory.inputs[4].to_f32(), want.len() / 2);
                    assert_close(&format!("first {what}"), &got[..half], &want[..half], 4e-6);
                    assert_close(&format!("second {what}"), &got[half..], &want[half..], 4e-6);
                }
            }
        }
    }
}

/// A set of one tile ends without anybody waiting, and a tile of one step does not hold up the next one: a group that is done
/// may begin it while the other has not even begun to sum up, and must leave it what it reads.
#[test]
fn a_group_that_is_held_back_a_whole_tile_sums_up_its_own() {
    let g = row((4, 256, [1, 8, 16], 8, [1; 3], [1; 3], [0; 3], [1; 3], 1));
    let case = Case::new(&g, Pass::GradX);
    let gpu = device(1, Tailored::Always, false);
    let variant = choose(&g, Pass::GradX, [true; 2], &gpu).expect("possible");
    assert!(variant.bn == 256 && variant.takes_stats(&g, Pass::GradX, 4), "{variant:?}");
    for mode in Mode::all().into_iter().chain(Mode::held(3)) {
        // Channels of the group that does not list the pixels.
        let Asked { stats, channels, buffers, x, forward } = Asked::from(&case, 4, true, 200);
        let list =
            case.list(&gpu, DType::F32, &Epilogue { stats: Some(stats.clone()), ..Epilogue::default() });
        let mut memory = case.memory(&list, DType::F32);
        memory.inputs.extend(buffers);
        let stored = case.run_with(&list, DType::F32, mode, &memory).unwrap_or_else(|e| panic!("{e}"));
        let want = Asked { stats, channels, buffers: Vec::new(), x, forward }.want(&stored, 256);
        assert_close(&format!("{mode:?}"), &memory.inputs[4].to_f32(), &want, 4e-6);
    }
}

/// Tails in rows, columns and depth; padding; strides; dilation; width unlike height; one axis and three.
fn cases() -> Vec<(&'static str, ConvGeometry)> {
    vec![
        ("k3s1p1", row(square(1, 64, 12, 64, 3, 1, 1, 1, 1))),
        ("k4s2p1 tails", row((2, 72, [1, 13, 10], 40, [1, 4, 4], [1, 2, 2], [0, 1, 1], [1; 3], 1))),
        ("k3s2p1 wide", row((1, 8, [1, 9, 20], 136, [1, 3, 3], [1, 2, 2], [0, 1, 1], [1; 3], 1))),
        ("k3d2 mixed", row((1, 24, [1, 9, 11], 16, [1, 3, 5], [1; 3], [0, 2, 2], [1, 2, 1], 1))),
        ("k2s3 gap", row(square(1, 16, 9, 16, 2, 3, 0, 1, 1))),
        ("k7s1p3", row(square(1, 16, 11, 8, 7, 1, 3, 1, 1))),
        ("k1", row(square(2, 40, 9, 72, 1, 1, 0, 1, 1))),
        ("to one pixel", row(square(3, 80, 4, 64, 4, 1, 0, 1, 1))),
        ("1d", row((3, 16, [1, 1, 70], 24, [1, 1, 5], [1, 1, 2], [0, 0, 2], [1; 3], 1))),
        ("3d k3s1p1", row((1, 16, [5, 6, 7], 24, [3; 3], [1; 3], [1; 3], [1; 3], 1))),
        ("3d k4s2 mixed", row((2, 16, [4, 6, 7], 8, [4, 2, 3], [2, 2, 1], [1, 0, 1], [1; 3], 1))),
        ("3d k2s2", row(cube(1, 32, 6, 64, 2, 2, 0, 1, 1))),
    ]
}

/// All passes of all shapes in all modes: few blocks, so that each takes several tiles; and enough to slice sums.
#[test]
fn every_pass_of_every_shape_in_every_mode() {
    for (i, (name, g)) in cases().into_iter().enumerate() {
        for pass in PASSES {
            let case = Case::new(&g, pass);
            let lists = [false, true].map(|fixed| {
                let gpu = device([1, 2, 9][i % 3], Tailored::Always, fixed);
                case.list(&gpu, DType::F32, &Epilogue::default())
            });
            for (m, mode) in Mode::all().into_iter().chain(Mode::held(3)).enumerate() {
                // In two of the modes as it is compiled for a device.
                let list = &lists[usize::from(m % 4 == 3)];
                let got = case.run(list, DType::F32, mode).unwrap_or_else(|e| panic!("{name} {pass:?}: {e}"));
                // Products of bf16 numbers are exact in fp32; what is left is the order of additions.
                assert_close(&format!("{name} {pass:?} {mode:?}"), &got, &case.want, 4e-6);
            }
        }
    }
}

/// Wide tiles, several tiles each way, slices, shapes as constants; and that the cases above have met all of it.
#[test]
fn every_variant_of_a_tile() {
    let g = row(square(1, 136, 17, 264, 3, 1, 1, 1, 1));
    let mut met = Vec::new();
    for (multiprocessors, fixed) in [(1, false), (3, true), (40, false)] {
        for pass in PASSES {
            let gpu = device(multiprocessors, Tailored::Always, fixed);
            let variant = choose(&g, pass, [true; 2], &gpu).expect("possible");
            met.push((variant.bn, variant.slices > 1));
            let case = Case::new(&g, pass);
            let list = case.list(&gpu, DType::F32, &Epilogue::default());
            let got = case.run(&list, DType::F32, Mode::all()[8]).unwrap_or_else(|e| panic!("{pass:?}: {e}"));
            assert_close(&format!("{pass:?} {variant:?}"), &got, &case.want, 4e-6);
        }
    }
    assert!(met.contains(&(256, false)) && met.contains(&(128, true)), "{met:?}");
}

/// Bias, second tensor and activation, stored in bf16, directly and after slices.
#[test]
fn epilogues_and_bf16_results() {
    let g = row(square(1, 64, 10, 72, 3, 1, 1, 1, 1));
    let case = Case::new(&g, Pass::Forward);
    let epilogue = Epilogue {
        bias: Some(LaunchArg::Input(2)),
        extra: Some(LaunchArg::Input(3)),
        extra_dtype: Some(DType::Bf16),
        activation: Some("leaky_relu(v, 0.2f) + x".into()),
        stats: None,
    };
    let finish = |(i, v): (usize, &f64)| {
        let v = v + f64::from(case.bias[i % g.k]);
        (if v > 0.0 { v } else { f64::from(0.2f32) * v }) + f64::from(case.extra[i])
    };
    let want: Vec<f64> = case.want.iter().enumerate().map(finish).collect();
    for multiprocessors in [1, 9] {
        let list = case.list(&device(multiprocessors, Tailored::Always, false), DType::Bf16, &epilogue);
        assert_eq!(list.launches.len(), if multiprocessors == 1 { 1 } else { 2 }, "slices");
        for mode in Mode::all() {
            let got = case.run(&list, DType::Bf16, mode).unwrap_or_else(|e| panic!("{e}"));
            assert_close(&format!("{mode:?}"), &got, &want, 4.1e-3);
        }
    }
}

/// What TMA or the tiles can't take goes to the other kernels.
#[test]
fn what_these_kernels_cannot_take_is_left_to_the_others() {
    let gpu = device(132, Tailored::Always, false);
    let takes = |g: &ConvGeometry, pass, gpu: &GpuTraits| choose(g, pass, [true; 2], gpu).is_some();
    let plain = row(square(1, 64, 16, 64, 3, 1, 1, 1, 1));
    for pass in PASSES {
        assert!(takes(&plain, pass, &gpu));
        assert!(!takes(&plain, pass, &GpuTraits { math: Math::Tf32, ..gpu }));
        assert!(!takes(&plain, pass, &device(132, Tailored::Off, false)));
        assert!(choose(&plain, pass, [true, false], &gpu).is_none(), "an operand that begins anywhere");
        let channels = row(square(1, 60, 16, 64, 3, 1, 1, 1, 1));
        assert!(!takes(&channels, pass, &gpu), "rows of 120 bytes");
        let groups = row(square(1, 64, 16, 64, 3, 1, 1, 1, 2));
        assert!(!takes(&groups, pass, &gpu), "groups");
        for (stride, fits) in [(3, true), (4, pass != Pass::GradX)] {
            let phases = row(cube(1, 8, 16, 8, 4, stride, 0, 1, 1));
            assert_eq!(
                takes(&phases, pass, &gpu),
                fits,
                "a map for each of {} phases",
                stride * stride * stride
            );
            let bytes = |l: &Launch| l.args.iter().map(argument_bytes).sum::<usize>();
            let list = list(&phases, pass, &gpu, DType::F32, &Epilogue::default());
            assert!(list.is_none_or(|l| l.launches.iter().all(|l| bytes(l) <= 4096)));
        }
        let far = row(square(1, 8, 300, 8, 3, 1, 130, 130, 1));
        assert!(!takes(&far, pass, &gpu), "offsets of more than 8 bits");
        let deep = row(cube(1, 8, 40, 8, 3, 1, 0, 9, 1));
        assert!(!takes(&deep, pass, &gpu), "in three axes more than 4 bits");
    }
}

// ---- planted bugs, and the sources as they are under the sanitizers -----------------------------------------------------

/// In how many of the nine modes a bug is noticed.
fn noticed(patches: &[(&str, &str)]) -> usize {
    let case = Case::new(&row(square(1, 64, 10, 64, 3, 1, 1, 1, 1)), Pass::Forward);
    let list = case.list(&device(1, Tailored::Always, false), DType::F32, &Epilogue::default());
    let launch = &list.launches[0];
    // Fewer buffers than steps, else none is used twice.
    let constants: Vec<String> = launch.specialisation.constants.clone();
    let constants = constants.iter().map(|c| if c.starts_with("STAGES=") { "STAGES=3" } else { c });
    let mut build = Build::new(kernels(), "conv_hopper.cu").define(constants);
    for (from, to) in patches {
        build = build.patch("include/ring.cuh", from, to);
    }
    let wrong = |mode: &Mode| {
        let memory = case.memory(&list, DType::F32);
        let args: Vec<Arg> = launch.args.iter().map(|a| memory.arg(a)).collect();
        let program = build.load().unwrap_or_else(|e| panic!("{e}"));
        match program.launch(launch.kernel, shape(launch), &args, *mode) {
            Err(_) => true,
            Ok(()) => {
                let off = |(g, w): (&f32, &f64)| (f64::from(*g) - w).abs();
                memory.output.to_f32().iter().zip(&case.want).any(|p| off(p).is_nan() || off(p) > 1e-3)
            }
        }
    };
    Mode::all().iter().filter(|m| wrong(m)).count()
}

#[test]
fn a_ring_that_is_used_wrongly_is_noticed() {
    assert_eq!(noticed(&[]), 0);
    let too_early = "if (step > begin) release(stage == 0 ? Stages - 1 : stage - 1);";
    let at_the_end = "if (begin < end) release(stage == 0 ? Stages - 1 : stage - 1);";
    for (what, patches, least) in [
        ("a step is read before it has come", vec![("            await();\n", "")], 9),
        ("a buffer goes back while it is read", vec![(too_early, "release(stage);"), (at_the_end, "")], 3),
        ("a product is not waited for", vec![("wgmma_wait<1>();", "")], 3),
        ("a buffer is filled again unasked", vec![("mbar_wait(empty(stage), parity ^ 1);", "")], 9),
        ("phases have no parity", vec![("parity ^= 1;", "")], 9),
        (
            "fewer bytes are expected than come",
            vec![("(full(stage), Bytes)", "(full(stage), Bytes - 128)")],
            9,
        ),
        ("sums are used without a fence", vec![("wgmma_fence();", "")], 9),
    ] {
        let modes = noticed(&patches);
        assert!(modes >= least, "{what}: only {modes} modes noticed");
    }
}

/// ThreadSanitizer sees every buffer's hand-over, AddressSanitizer every end of a tensor.
#[test]
fn the_sanitizers_find_nothing() {
    let modes = [
        Mode { order: Order::Forward, copies: Async::Late, seed: 1 },
        Mode { order: Order::Random, copies: Async::Random, seed: 2 },
    ];
    for sanitizer in [Sanitizer::Thread, Sanitizer::Address] {
        if !crate::planted::available(sanitizer) {
            continue;
        }
        let g = row((2, 16, [1, 9, 12], 24, [1, 3, 3], [1, 2, 2], [0, 1, 1], [1; 3], 1));
        for pass in PASSES {
            let case = Case::new(&g, pass);
            let gpu = device(2, Tailored::Always, false);
            let mut epilogue = Epilogue::default();
            let asked = Asked::new(&case, 1, pass == Pass::GradX);
            if choose(&g, pass, [true; 2], &gpu).is_some_and(|v| v.takes_stats(&g, pass, 1)) {
                epilogue.stats = Some(asked.stats);
            }
            assert!(epilogue.stats.is_some() == (pass == Pass::GradX), "so that both are met");
            let list = case.list(&gpu, DType::F32, &epilogue);
            let mut memory = case.memory(&list, DType::F32);
            memory.inputs.extend(asked.buffers);
            let launch = &list.launches[0];
            let args: Vec<Arg> = launch.args.iter().map(|a| memory.arg(a)).collect();
            for mode in modes {
                launch_sanitized(&build(launch), sanitizer, launch.kernel, shape(launch), &args, mode)
                    .unwrap_or_else(|e| panic!("{pass:?} {sanitizer:?}: {e}"));
            }
        }
    }
}

/// A buffer given back too early is a race, with the line of the copy that came too early.
#[test]
fn threadsanitizer_sees_a_buffer_given_back_too_early() {
    if !crate::planted::available(Sanitizer::Thread) {
        return;
    }
    let case = Case::new(&row(square(1, 64, 8, 64, 3, 1, 1, 1, 1)), Pass::Forward);
    let list = case.list(&device(1, Tailored::Always, false), DType::F32, &Epilogue::default());
    let (memory, launch) = (case.memory(&list, DType::F32), &list.launches[0]);
    let args: Vec<Arg> = launch.args.iter().map(|a| memory.arg(a)).collect();
    let faulty = build(launch)
        .patch(
            "include/ring.cuh",
            "if (step > begin) release(stage == 0 ? Stages - 1 : stage - 1);",
            "release(stage);",
        )
        .patch("include/ring.cuh", "if (begin < end) release(stage == 0 ? Stages - 1 : stage - 1);", "");
    let mode = Mode { order: Order::Forward, copies: Async::Late, seed: 1 };
    let error =
        launch_sanitized(&faulty, Sanitizer::Thread, launch.kernel, shape(launch), &args, mode).unwrap_err();
    assert!(error.contains("data race"), "{error}");
}
