//! The convolutions for channels that see few others (`conv_depthwise.cu`, `conv_depthwise_grad_w.cu`) with the launches that the
//! program makes, on the emulator against plain double-precision sums; with bugs planted; and compiled.

use crate::common::{assert_close, module, precision};
use crate::compile::{cache, disassemble, disassembler, nvrtc};
use crate::geometry::{cube, line, operands, row, square};
use crate::hopper::{Case, Memory, PASSES, build, shape};
use gan::device::cuda::compiler::Compiler;
use gan::device::cuda::usage;
use gan::device::launch::{GpuTraits, LaunchArg, LaunchList, Math, Operand, Operands, Tailored, kind};
use gan::dtype::DType;
use gan::ops::conv::cuda::depthwise::{choose, launches};
use gan::ops::conv::cuda::launch::{Epilogue, Pass};
use gan::ops::conv::geometry::ConvGeometry;
use gan_emu::{Arg, Async, Buffer, Build, Mode, Order, Sanitizer, launch_sanitized};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// A device with so many multiprocessors.
fn device(multiprocessors: usize, math: Math) -> GpuTraits {
    GpuTraits {
        multiprocessors,
        math,
        fixed_shapes: false,
        fused: true,
        choices: None,
        hopper: Tailored::Off,
        window: Tailored::Off,
    }
}

/// How the two operands and the result are stored, and whether they begin where vectors may.
#[derive(Clone, Copy, Debug)]
struct Stored {
    operands: [DType; 2],
    out: DType,
    aligned: bool,
}

const SINGLE: Stored = Stored { operands: [DType::F32; 2], out: DType::F32, aligned: true };
const HALF: Stored = Stored { operands: [DType::Bf16; 2], out: DType::Bf16, aligned: true };

/// What a pass launches. Inputs: its operands, a bias, a second tensor in bf16.
fn list(g: &ConvGeometry, pass: Pass, gpu: &GpuTraits, stored: Stored, epilogue: &Epilogue) -> LaunchList {
    let shapes = operands(g, pass);
    let Stored { operands: [a, b], out, aligned } = stored;
    let operand = |i: usize, dtype| Operand { shape: &shapes[i], aligned, dtype };
    let inputs = [operand(0, a), operand(1, b), operand(2, DType::F32), operand(2, DType::Bf16)];
    let io = Operands { inputs: &inputs, output: operand(2, out) };
    let v = choose(g, pass, gpu).expect("possible");
    launches(g, pass, &v, &io, gpu, epilogue, kind(out))
}

fn memory(case: &Case, list: &LaunchList, stored: Stored) -> Memory {
    let mut memory = case.memory(list, stored.out);
    for i in 0..2 {
        if stored.operands[i] == DType::F32 {
            memory.inputs[i] = Buffer::f32(&case.operands[i]);
        }
    }
    memory
}

fn run(case: &Case, list: &LaunchList, stored: Stored, mode: Mode) -> Vec<f32> {
    case.run_with(list, stored.out, mode, &memory(case, list, stored)).unwrap_or_else(|e| panic!("{e}"))
}

/// Every width, patches and runs that do not divide the extents, every axis, strides, dilations and paddings of all kinds.
fn cases() -> Vec<(&'static str, ConvGeometry)> {
    let mixed = (2, 6, [4, 7, 9], 12, [2, 3, 2], [2, 1, 3], [1, 0, 2], [1, 2, 2], 6);
    vec![
        ("3x3", row(square(2, 64, 9, 64, 3, 1, 1, 1, 64))),
        ("wide", row((1, 80, [1, 5, 37], 80, [1, 3, 3], [1; 3], [0, 1, 1], [1; 3], 80))),
        ("stride 2", row(square(1, 24, 12, 24, 3, 2, 1, 1, 24))),
        ("stride 2 odd", row(square(2, 8, 11, 8, 4, 2, 2, 1, 8))),
        ("stride 3", row(square(1, 4, 13, 4, 2, 3, 1, 1, 4))),
        ("stride 5 dilation 3", row(square(1, 4, 23, 4, 3, 5, 3, 3, 4))),
        ("dilation", row(square(1, 8, 14, 8, 3, 1, 4, 4, 8))),
        ("7x7", row(square(1, 16, 10, 16, 7, 1, 3, 1, 16))),
        ("odd channels", row(square(2, 7, 6, 7, 3, 1, 1, 1, 7))),
        ("more than a tile", row(square(1, 150, 5, 150, 3, 1, 1, 1, 150))),
        ("multiplier 2", row(square(1, 12, 8, 24, 3, 1, 1, 1, 12))),
        ("multiplier 3", row(square(1, 5, 8, 15, 3, 2, 1, 1, 5))),
        ("multiplier 8", row(square(1, 3, 6, 24, 3, 1, 0, 1, 3))),
        ("groups of 4", row(square(2, 32, 7, 32, 3, 1, 1, 1, 8))),
        ("groups of 2 to 4", row(square(1, 12, 7, 24, 3, 2, 1, 1, 6))),
        ("groups of 4 to 2", row(square(1, 24, 7, 12, 3, 1, 1, 1, 6))),
        ("groups of 3", row(square(1, 9, 6, 9, 3, 1, 1, 1, 3))),
        ("one pixel", row(square(3, 16, 3, 16, 3, 1, 0, 1, 16))),
        ("one tap", row(square(1, 16, 5, 16, 1, 1, 0, 1, 16))),
        ("1d", row(line(2, 10, 21, 10, 5, 2, 3, 1, 10))),
        ("3d", row(cube(1, 16, 6, 16, 3, 1, 1, 1, 16))),
        ("3d mixed", row(mixed)),
    ]
}

/// All passes of all shapes, in fp32 and with bf16 operands or one of them, in some modes each and in all of them together.
#[test]
fn every_pass_of_every_shape() {
    let modes = Mode::all();
    let mut widths = BTreeSet::new();
    let stored = [
        (SINGLE, Math::Fma),
        (Stored { out: DType::F32, ..HALF }, Math::Bf16),
        (Stored { operands: [DType::F32, DType::Bf16], ..SINGLE }, Math::Tf32),
        (Stored { operands: [DType::Bf16, DType::F32], aligned: false, ..SINGLE }, Math::Bf16),
    ];
    for (i, (name, g)) in cases().into_iter().enumerate() {
        for (j, pass) in PASSES.into_iter().enumerate() {
            let case = Case::new(&g, pass);
            let own = stored.into_iter().enumerate().filter(|(k, _)| (i + j + k) % 4 == 0);
            for (k, (stored, math)) in own {
                let gpu = device([1, 2, 9][i % 3], math);
                let Some(v) = choose(&g, pass, &gpu) else {
                    let from = if pass == Pass::GradX { g.group_k() } else { g.group_c() };
                    assert!(from > 4 && math != Math::Fma, "{name} {pass:?}");
                    continue;
                };
                let list = list(&g, pass, &gpu, stored, &Epilogue::default());
                widths.insert((pass == Pass::GradW, v.width));
                let mode = modes[(i + 4 * j + k) % modes.len()];
                let got = run(&case, &list, stored, mode);
                let what = format!("{name} {pass:?} {stored:?} {v:?} {mode:?}");
                assert_close(&what, &got, &case.want, 4e-6);
            }
        }
    }
    let wanted = [(false, 8), (false, 4), (false, 1), (true, 4), (true, 2), (true, 1)];
    assert!(wanted.iter().all(|w| widths.contains(w)), "{widths:?}");
}

/// Bias, second tensor and activation, stored in bf16 and where vectors may not begin; of weights with slices and without.
#[test]
fn epilogues_and_bf16_results() {
    let g = row((2, 144, [1, 6, 11], 144, [1, 3, 3], [1; 3], [0, 1, 1], [1; 3], 144));
    for (pass, multiprocessors, aligned, launches) in [
        (Pass::Forward, 9, true, 1),
        (Pass::Forward, 9, false, 1),
        (Pass::GradX, 1, true, 1),
        (Pass::GradW, 1, true, 1),
        (Pass::GradW, 9, true, 2),
    ] {
        let case = Case::new(&g, pass);
        let bias = (pass == Pass::Forward).then_some(LaunchArg::Input(2));
        let finish = |(i, v): (usize, &f64)| {
            let v = if bias.is_some() { v + f64::from(case.bias[i % g.k]) } else { *v };
            (if v > 0.0 { v } else { f64::from(0.2f32) * v }) + f64::from(case.extra[i])
        };
        let want: Vec<f64> = case.want.iter().enumerate().map(finish).collect();
        let epilogue = Epilogue {
            bias: bias.clone(),
            extra: Some(LaunchArg::Input(3)),
            extra_dtype: Some(DType::Bf16),
            activation: Some("leaky_relu(v, 0.2f) + x".into()),
            stats: None,
        };
        let stored = Stored { aligned, ..HALF };
        let list = list(&g, pass, &device(multiprocessors, Math::Bf16), stored, &epilogue);
        assert_eq!(list.launches.len(), launches, "{pass:?}");
        let pieces = |n: usize| list.launches[0].specialisation.constants.contains(&format!("OUT_PIECE={n}"));
        assert!(pass == Pass::GradW || pieces(if aligned { 8 } else { 1 }));
        for mode in Mode::all() {
            let got = run(&case, &list, stored, mode);
            assert_close(&format!("{pass:?} {mode:?}"), &got, &want, precision("bf16", 0.0));
        }
    }
}

// ---- planted bugs, and the sources as they are under the sanitizers -----------------------------------------------------

/// Several patches a block, several warps, padding, channels that end within a tile.
fn several(pass: Pass) -> (Case, LaunchList) {
    let g = row((2, 72, [1, 9, 21], 72, [1, 3, 3], [1; 3], [0, 1, 1], [1; 3], 72));
    let case = Case::new(&g, pass);
    let list =
        list(&g, pass, &device(1, Math::Bf16), Stored { out: DType::F32, ..HALF }, &Epilogue::default());
    let v = choose(&g, pass, &device(1, Math::Bf16)).expect("possible");
    assert!(v.patches > v.blocks, "{v:?}");
    (case, list)
}

/// In how many of the nine modes a bug is noticed.
fn noticed(pass: Pass, patch: Option<(&str, &str, &str)>) -> usize {
    let (case, list) = several(pass);
    let patched =
        patch.into_iter().fold(build(&list.launches[0]), |b, (file, from, to)| b.patch(file, from, to));
    let program = patched.load().unwrap_or_else(|e| panic!("{e}"));
    let wrong = |mode: &Mode| {
        let memory = case.memory(&list, DType::F32);
        for (i, launch) in list.launches.iter().enumerate() {
            let args: Vec<Arg> = launch.args.iter().map(|a| memory.arg(a)).collect();
            let own = module(launch.specialisation.file, &launch.specialisation.constants);
            let program = if i == 0 { &program } else { &*own };
            if program.launch(launch.kernel, shape(launch), &args, *mode).is_err() {
                return true;
            }
        }
        let off = |(g, w): (&f32, &f64)| (f64::from(*g) - w).abs() > 1e-3 || g.is_nan();
        memory.output.to_f32().iter().zip(&case.want).any(off)
    };
    Mode::all().iter().filter(|m| wrong(m)).count()
}

#[test]
fn what_could_go_wrong_is_noticed() {
    let shared = "include/depthwise.cuh";
    for pass in PASSES {
        assert_eq!(noticed(pass, None), 0, "{pass:?}");
        for (what, patch) in [
            ("padding that is read", (shared, "if (inside(first + read, extent)) seen", "seen")),
            (
                "a run that begins elsewhere",
                (shared, "% PATCH_W) * RUN - before", "% PATCH_W) * RUN + 1 - before"),
            ),
        ] {
            let modes = noticed(pass, Some(patch));
            assert_eq!(modes, 9, "{pass:?}: {what}: only {modes} modes noticed");
        }
        let (file, least) = match pass {
            Pass::GradW => ("conv_depthwise_grad_w.cu", 6),
            Pass::Forward | Pass::GradX => ("conv_depthwise.cu", 6),
        };
        let modes = noticed(pass, Some((file, "    __syncthreads();\n", "")));
        assert!(modes >= least, "{pass:?}: a missing barrier: only {modes} modes noticed");
    }
    let rows = "for (int mask = LANES; mask < 32; mask *= 2) v += shuffle_xor(v, mask);";
    assert_eq!(noticed(Pass::GradW, Some(("conv_depthwise_grad_w.cu", rows, ""))), 9, "rows of a warp");
}

/// ThreadSanitizer sees weights that are read while they are written, AddressSanitizer every end of a tensor.
#[test]
fn the_sanitizers_find_planted_bugs_only() {
    let modes = [
        Mode { order: Order::Forward, copies: Async::Late, seed: 1 },
        Mode { order: Order::Random, copies: Async::Random, seed: 2 },
    ];
    for sanitizer in [Sanitizer::Thread, Sanitizer::Address] {
        if !crate::planted::available(sanitizer) {
            continue;
        }
        for pass in PASSES {
            let (case, list) = several(pass);
            let (memory, launch) = (case.memory(&list, DType::F32), &list.launches[0]);
            let args: Vec<Arg> = launch.args.iter().map(|a| memory.arg(a)).collect();
            let run = |build: &Build, mode: Mode| {
                launch_sanitized(build, sanitizer, launch.kernel, shape(launch), &args, mode)
            };
            for mode in modes {
                run(&build(launch), mode).unwrap_or_else(|e| panic!("{pass:?} {sanitizer:?}: {e}"));
            }
            let (file, from, to, word) = match sanitizer {
                Sanitizer::Thread => (launch.specialisation.file, "    __syncthreads();\n", "", "data race"),
                Sanitizer::Address => (
                    "include/depthwise.cuh",
                    "if (inside(first + read, extent)) seen",
                    "seen",
                    "heap-buffer-overflow",
                ),
            };
            let error = run(&build(launch).patch(file, from, to), modes[0]).unwrap_err();
            assert!(error.contains(word), "{pass:?} {sanitizer:?}: {error}");
        }
    }
}

// ---- compiled ------------------------------------------------------------------------------------------------------------

/// Layers of mobile networks, ConvNeXt, ResNeXt and their like, flat and of volumes; and the limits of what a thread keeps.
fn typical() -> Vec<ConvGeometry> {
    vec![
        row(square(2, 256, 64, 256, 3, 1, 1, 1, 256)),
        row(square(2, 64, 128, 64, 3, 2, 1, 1, 64)),
        row(square(2, 96, 64, 96, 7, 1, 3, 1, 96)),
        row(square(2, 32, 64, 32, 5, 1, 4, 2, 32)),
        row(square(2, 33, 64, 33, 3, 1, 1, 1, 33)),
        row(square(2, 32, 64, 64, 3, 1, 1, 1, 32)),
        row(square(2, 128, 64, 128, 3, 1, 1, 1, 32)),
        row(square(2, 128, 64, 128, 3, 2, 1, 1, 16)),
        row(square(2, 256, 64, 256, 4, 2, 1, 1, 256)),
        row(square(2, 36, 64, 36, 3, 1, 1, 1, 12)),
        row(cube(1, 64, 32, 64, 3, 1, 1, 1, 64)),
        row(cube(1, 48, 32, 48, 3, 2, 1, 1, 48)),
        row(line(4, 64, 512, 64, 15, 1, 7, 1, 64)),
    ]
}

#[test]
fn everything_compiles_within_its_budget() {
    let Some(nvrtc) = nvrtc() else { return };
    let tool = disassembler(&nvrtc);
    let compiler = Compiler::with(nvrtc, cache());
    let mut all = Vec::new();
    for (i, g) in typical().iter().enumerate() {
        for (pass, math) in PASSES.into_iter().flat_map(|p| [(p, Math::Bf16), (p, Math::Fma)]) {
            let gpu = device(132, math);
            if choose(g, pass, &gpu).is_none() {
                assert_eq!((g.group_c(), math), (8, Math::Bf16), "{g:?} {pass:?}");
                continue;
            }
            let bias = (pass == Pass::Forward).then_some(LaunchArg::Input(2));
            let epilogue = if i % 2 == 0 && pass != Pass::GradW {
                Epilogue {
                    bias,
                    extra: Some(LaunchArg::Input(3)),
                    extra_dtype: Some(DType::Bf16),
                    activation: Some("gate(v, x, 0.2f)".into()),
                    stats: None,
                }
            } else {
                Epilogue { bias, ..Epilogue::default() }
            };
            let mut stored = if math == Math::Bf16 { HALF } else { SINGLE };
            if pass == Pass::GradW {
                stored.out = DType::F32;
            }
            let launch = list(g, pass, &gpu, stored, &epilogue).launches.remove(0);
            let several = ["sm_90", "sm_75", "sm_80", "sm_100", "sm_120"];
            for architecture in &several[..if i % 3 == 0 { 5 } else { 1 }] {
                all.push((launch.clone(), *architecture));
            }
        }
    }
    let faults: Vec<String> = all
        .par_iter()
        .flat_map(|(launch, architecture)| {
            let what = &launch.specialisation;
            let image = compiler.image(what, architecture).unwrap_or_else(|e| panic!("{e}"));
            let mut faults = Vec::new();
            for k in usage::parse(&image.log) {
                println!("{architecture} {} {}: {}", k.kernel, k.registers, what.constants.join(" "));
                if k.spills > 0 || k.stack > 0 || k.registers > 128 || launch.shared > 48 << 10 {
                    faults.push(format!("{k:?} {}", launch.shared));
                }
            }
            if let Some(tool) = &tool {
                let code = disassemble(tool, &image.bytes);
                // Vectors of channels are read as such, where there are any.
                let wide = ["SOURCE_PIECE=8", "SOURCE=float SOURCE_PIECE=4"];
                if wide.iter().any(|w| what.constants.join(" ").contains(w)) && !code.contains("LDG.E.128") {
                    faults.push("no 16 bytes at once".into());
                }
                faults.extend(["LDL", "STL"].iter().filter(|w| code.contains(**w)).map(ToString::to_string));
            }
            let tell = |f: &String| format!("{f}: {} {architecture} {}", what.file, what.constants.join(" "));
            faults.iter().map(tell).collect::<Vec<_>>()
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
