//! The convolutions for few channels (`conv_window.cu`, `conv_window_grad_w.cu`) with the launches that the program makes, on
//! the emulator against plain double-precision sums; with bugs planted; and compiled.

use crate::common::{assert_close, module};
use crate::compile::{cache, disassemble, disassembler, nvrtc};
use crate::geometry::{cube, operands, row, square};
use crate::hopper::{Asked, Case, PASSES, build, shape};
use gan::device::cuda::compiler::Compiler;
use gan::device::cuda::usage;
use gan::device::launch::{GpuTraits, LaunchArg, LaunchList, Math, Operand, Operands, Tailored};
use gan::dtype::DType;
use gan::ops::conv::cuda::launch::{Epilogue, Pass, Stats};
use gan::ops::conv::cuda::window::{Taps, Variant, choose, launches};
use gan::ops::conv::geometry::ConvGeometry;
use gan_emu::{Arg, Async, Build, Mode, Order, Sanitizer, launch_sanitized};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// A device with so many multiprocessors that takes these kernels wherever it can.
fn device(multiprocessors: usize, fixed_shapes: bool) -> GpuTraits {
    GpuTraits {
        multiprocessors,
        math: Math::Bf16,
        fixed_shapes,
        fused: true,
        choices: None,
        hopper: Tailored::Off,
        window: Tailored::Always,
    }
}

fn variant(g: &ConvGeometry, pass: Pass, gpu: &GpuTraits) -> Variant {
    choose(g, pass, [true; 2], gpu).expect("possible")
}

/// What a pass launches, its operands stored in bf16.
fn list(g: &ConvGeometry, pass: Pass, gpu: &GpuTraits, out: DType, epilogue: &Epilogue) -> LaunchList {
    let shapes = operands(g, pass);
    let operand = |i: usize, dtype| Operand { shape: &shapes[i], aligned: true, dtype };
    let inputs = [operand(0, DType::Bf16), operand(1, DType::Bf16)];
    let io = Operands { inputs: &inputs, output: operand(2, out) };
    launches(g, pass, &variant(g, pass, gpu), &io, gpu, epilogue, io.output.kind())
}

/// Runs a pass: its result, and what it leaves for a norm. No access to shared memory may meet a conflict of banks.
fn run(
    case: &Case,
    list: &LaunchList,
    out: DType,
    mode: Mode,
    asked: Option<&mut Asked>,
) -> Result<[Vec<f32>; 2], String> {
    let mut memory = case.memory(list, out);
    let for_norm = asked.is_some();
    memory.inputs.extend(asked.into_iter().flat_map(|a| std::mem::take(&mut a.buffers)));
    let stored = case.run_with(list, out, mode, &memory)?;
    for launch in &list.launches {
        let program = module(launch.specialisation.file, &launch.specialisation.constants);
        assert_eq!(program.bank_conflicts(), 0, "{:?}", launch.specialisation);
    }
    assert!(
        memory.tables.iter().all(|t| t.to_i32().iter().all(|c| *c == 0)),
        "counters are left as they were"
    );
    Ok([stored, if for_norm { memory.inputs[4].to_f32() } else { Vec::new() }])
}

/// Boxes that do not divide the extents, several images, every padding and kernel, all numbers of chunks on either side.
fn cases() -> Vec<(&'static str, ConvGeometry)> {
    vec![
        ("3d", row(cube(1, 16, 9, 16, 3, 1, 1, 1, 1))),
        ("3d odd", row((2, 8, [5, 7, 10], 24, [3; 3], [1; 3], [1; 3], [1; 3], 1))),
        ("3d valid", row((1, 24, [4, 6, 11], 40, [3; 3], [1; 3], [0; 3], [1; 3], 1))),
        ("3d wide", row((1, 32, [5, 9, 9], 64, [3; 3], [1; 3], [1; 3], [1; 3], 1))),
        ("3d narrow", row((2, 64, [3, 4, 9], 8, [3; 3], [1; 3], [1; 3], [1; 3], 1))),
        ("3d mixed", row((1, 40, [4, 9, 6], 16, [1, 3, 2], [1; 3], [2, 0, 1], [1; 3], 1))),
        ("3d planes", row((1, 64, [3, 5, 9], 64, [3; 3], [1; 3], [1; 3], [1; 3], 1))),
        ("2d", row(square(2, 32, 17, 32, 3, 1, 1, 1, 1))),
        ("2d odd", row((3, 48, [1, 9, 20], 56, [1, 3, 3], [1; 3], [0, 1, 0], [1; 3], 1))),
        ("2d one tap", row(square(1, 16, 9, 8, 1, 1, 0, 1, 1))),
        ("1d", row((2, 8, [1, 1, 30], 16, [1, 1, 3], [1; 3], [0, 0, 1], [1; 3], 1))),
    ]
}

/// All passes of all shapes, in all modes where there is something that could differ: all kinds of steps and parts.
#[test]
fn every_pass_of_every_shape() {
    let modes = Mode::all();
    let (mut steps, mut parts) = (BTreeSet::new(), BTreeSet::new());
    for (i, (name, g)) in cases().into_iter().enumerate() {
        for pass in PASSES {
            let case = Case::new(&g, pass);
            let gpu = device([1, 2, 9][i % 3], i % 2 == 1);
            let new = match variant(&g, pass, &gpu).taps {
                Taps::Steps(taps) => steps.insert((pass == Pass::GradX, g.taps() / taps)),
                Taps::Planes { depths, parts: n, blocks } => parts.insert((depths, n > 1, blocks > 1)),
            };
            let list = list(&g, pass, &gpu, DType::F32, &Epilogue::default());
            for mode in if new { &modes[..] } else { &modes[7..] } {
                let [got, _] = run(&case, &list, DType::F32, *mode, None)
                    .unwrap_or_else(|e| panic!("{name} {pass:?}: {e}"));
                // Products of bf16 numbers are exact in fp32; what is left is the order of additions.
                assert_close(&format!("{name} {pass:?} {mode:?}"), &got, &case.want, 4e-6);
            }
        }
    }
    assert!(steps.contains(&(true, 27)) && steps.contains(&(false, 1)) && steps.len() > 5, "{steps:?}");
    assert!(parts.contains(&(1, false, false)) && parts.contains(&(3, true, true)), "{parts:?}");
}

/// Bias, second tensor and activation, stored in bf16; of weights with slices and without.
#[test]
fn epilogues_and_bf16_results() {
    let g = row((1, 16, [3, 6, 11], 24, [3; 3], [1; 3], [1; 3], [1; 3], 1));
    for (pass, multiprocessors, launches) in
        [(Pass::Forward, 9, 1), (Pass::GradX, 9, 1), (Pass::GradW, 1, 2), (Pass::GradW, 9, 2)]
    {
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
        let list = list(&g, pass, &device(multiprocessors, false), DType::Bf16, &epilogue);
        assert_eq!(list.launches.len(), launches, "{pass:?}");
        for mode in Mode::all() {
            let [got, _] = run(&case, &list, DType::Bf16, mode, None).unwrap_or_else(|e| panic!("{e}"));
            assert_close(&format!("{pass:?} {mode:?}"), &got, &want, 4.1e-3);
        }
    }
}

/// A gradient by the weights that one block sums up goes straight through its epilogue; and a result that begins anywhere is
/// stored element by element.
#[test]
fn one_slice_and_results_that_begin_anywhere() {
    let g = row(square(1, 64, 8, 8, 3, 1, 1, 1, 1));
    for pass in PASSES {
        let case = Case::new(&g, pass);
        let gpu = device(1, false);
        let shapes = operands(&g, pass);
        let operand = |i: usize, dtype, aligned| Operand { shape: &shapes[i], aligned, dtype };
        let inputs = [operand(0, DType::Bf16, true), operand(1, DType::Bf16, true)];
        let io = Operands { inputs: &inputs, output: operand(2, DType::F32, false) };
        let v = variant(&g, pass, &gpu);
        assert_eq!(v.slices(), 1);
        let list = launches(&g, pass, &v, &io, &gpu, &Epilogue::default(), "float");
        assert!(list.launches[0].specialisation.constants.contains(&"PAIRS=0".into()));
        let [got, _] = run(&case, &list, DType::F32, Mode::all()[8], None).unwrap_or_else(|e| panic!("{e}"));
        assert_close(&format!("{pass:?}"), &got, &case.want, 4e-6);
    }
}

/// Statistics for the norm that follows, and sums for the gradient of one, of what is stored: of all pixels or image by image.
#[test]
fn what_norms_want_is_that_of_what_is_stored() {
    let g = row((2, 24, [5, 6, 9], 40, [3; 3], [1; 3], [1; 3], [1; 3], 1));
    for (pass, out, sets, gradient) in [
        (Pass::Forward, DType::Bf16, 1, false),
        (Pass::Forward, DType::F32, 2, false),
        (Pass::GradX, DType::F32, 2, true),
        (Pass::GradX, DType::Bf16, 1, true),
    ] {
        let case = Case::new(&g, pass);
        let gpu = device(1, false);
        assert!(variant(&g, pass, &gpu).takes_stats(&g, sets));
        for mode in Mode::all() {
            let mut asked = Asked::new(&case, sets, gradient);
            let activation = (!gradient).then(|| "(v + 30.0f)".into());
            let stats = Some(asked.stats.clone());
            let list = list(&g, pass, &gpu, out, &Epilogue { activation, stats, ..Epilogue::default() });
            assert_eq!(list.launches.len(), 1);
            let what = format!("{pass:?} {out:?} of {sets} gradient {gradient} {mode:?}");
            let [stored, got] =
                run(&case, &list, out, mode, Some(&mut asked)).unwrap_or_else(|e| panic!("{what}: {e}"));
            let want = asked.want(&stored, case.bias.len());
            let half = want.len() / 2;
            assert_close(&format!("first {what}"), &got[..half], &want[..half], 4e-6);
            assert_close(&format!("second {what}"), &got[half..], &want[half..], 4e-6);
        }
    }
}

// ---- planted bugs, and the sources as they are under the sanitizers -----------------------------------------------------

/// Two steps and more through two buffers, two boxes and more; forward with statistics.
fn several(pass: Pass) -> (Case, LaunchList, Option<Asked>) {
    let g = row((1, 32, [3, 8, 24], 16, [3; 3], [1; 3], [1; 3], [1; 3], 1));
    let case = Case::new(&g, pass);
    let asked = (pass == Pass::Forward).then(|| Asked::new(&case, 1, false));
    let epilogue = Epilogue { stats: asked.as_ref().map(|a| a.stats.clone()), ..Epilogue::default() };
    let list = list(&g, pass, &device(1, false), DType::F32, &epilogue);
    let v = variant(&g, pass, &device(1, false));
    assert!(v.boxes > 2 && v.taps != Taps::Steps(27), "{v:?}");
    (case, list, asked)
}

/// In how many of the nine modes a bug is noticed in the result or the statistics, and how often banks were in conflict.
fn noticed(pass: Pass, patches: &[(&str, &str, &str)]) -> (usize, u64) {
    let (case, list, _) = several(pass);
    let patched =
        patches.iter().fold(build(&list.launches[0]), |build, (file, from, to)| build.patch(file, from, to));
    let program = patched.load().unwrap_or_else(|e| panic!("{e}"));
    let wrong = |mode: &Mode| {
        let mut asked = several(pass).2;
        let mut memory = case.memory(&list, DType::F32);
        memory.inputs.extend(asked.iter_mut().flat_map(|a| std::mem::take(&mut a.buffers)));
        for (i, launch) in list.launches.iter().enumerate() {
            let args: Vec<Arg> = launch.args.iter().map(|a| memory.arg(a)).collect();
            let own = module(launch.specialisation.file, &launch.specialisation.constants);
            let program = if i == 0 { &program } else { &*own };
            if program.launch(launch.kernel, shape(launch), &args, *mode).is_err() {
                return true;
            }
        }
        let off = |(g, w): (&f32, &f64)| (f64::from(*g) - w).abs();
        let lost = |v: f64| v.is_nan() || v > 1e-3;
        let results = memory.output.to_f32();
        let stats = asked.is_some_and(|asked| {
            let want = asked.want(&results, case.bias.len());
            memory.inputs[4].to_f32().iter().zip(&want).any(|p| lost(off(p)))
        });
        stats || results.iter().zip(&case.want).any(|p| lost(off(p)))
    };
    (Mode::all().iter().filter(|m| wrong(m)).count(), program.bank_conflicts())
}

#[test]
fn what_could_go_wrong_is_noticed() {
    let tile = "include/tile.cuh";
    for pass in PASSES {
        assert_eq!(noticed(pass, &[]), (0, 0), "{pass:?}");
        for (what, patch, least) in [
            ("a missing barrier", (tile, "        __syncthreads();\n", ""), 6),
            ("a wait for too few", (tile, "cp_async_wait<Stages - 2>", "cp_async_wait<Stages - 1>"), 3),
            ("a buffer filled too early", (tile, "stage == 0 ? Stages - 1 : stage - 1", "stage"), 6),
            ("padding that is read", ("include/window.cuh", " && inside(h, extents[1])", ""), 9),
        ] {
            let (modes, _) = noticed(pass, &[patch]);
            assert!(modes >= least, "{pass:?}: {what}: only {modes} modes noticed");
        }
        // Pixels with all of their chunks, one after the other.
        let together = "return 16 * (pixel * Chunks + chunk);";
        let planes = "return 16 * (chunk * PLANE + pixel);";
        let (modes, conflicts) = noticed(pass, &[("include/window.cuh", planes, together)]);
        assert!(modes == 0 && conflicts > 0, "{pass:?}: {modes} modes, {conflicts} conflicts");
    }
    let barrier = "    __syncthreads(); // others stored what this thread looks at\n";
    let (modes, _) = noticed(Pass::Forward, &[("conv_window.cu", barrier, "")]);
    assert!(modes >= 3, "statistics of what is not yet stored: only {modes} modes noticed");
}

/// ThreadSanitizer sees every buffer that is filled while it is read, AddressSanitizer every end of a tensor.
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
            let (case, list, asked) = several(pass);
            let (mut memory, launch) = (case.memory(&list, DType::F32), &list.launches[0]);
            memory.inputs.extend(asked.into_iter().flat_map(|a| a.buffers));
            let args: Vec<Arg> = launch.args.iter().map(|a| memory.arg(a)).collect();
            let run = |build: &Build, mode: Mode| {
                launch_sanitized(build, sanitizer, launch.kernel, shape(launch), &args, mode)
            };
            for mode in modes {
                run(&build(launch), mode).unwrap_or_else(|e| panic!("{pass:?} {sanitizer:?}: {e}"));
            }
            let (file, from, to, word) = match sanitizer {
                Sanitizer::Thread => ("include/tile.cuh", "        __syncthreads();\n", "", "data race"),
                Sanitizer::Address => {
                    let fill = "tensor + from * (8 * Chunks) + 8 * chunk";
                    (
                        "include/window.cuh",
                        fill,
                        "tensor + from * (8 * Chunks) + 16 * chunk",
                        "heap-buffer-overflow",
                    )
                }
            };
            let error = run(&build(launch).patch(file, from, to), modes[0]).unwrap_err();
            assert!(error.contains(word), "{pass:?} {sanitizer:?}: {error}");
        }
    }
}

// ---- compiled ------------------------------------------------------------------------------------------------------------

/// Registers of a thread with which two blocks of the largest sums share a multiprocessor.
const REGISTERS: u32 = 224;

/// Volumes and images as networks have them, with all numbers of chunks.
fn typical() -> Vec<ConvGeometry> {
    let volume = |c, k, size| row(cube(2, c, size, k, 3, 1, 1, 1, 1));
    vec![
        volume(64, 64, 64),
        volume(32, 32, 64),
        volume(32, 64, 16),
        volume(64, 32, 32),
        volume(16, 16, 128),
        volume(8, 16, 64),
        volume(24, 40, 48),
        volume(56, 8, 48),
        row(square(1, 64, 256, 64, 3, 1, 1, 1, 1)),
        row(square(4, 16, 96, 48, 3, 1, 1, 1, 1)),
    ]
}

#[test]
fn everything_compiles_within_its_budget() {
    let Some(nvrtc) = nvrtc() else { return };
    let tool = disassembler(&nvrtc);
    let compiler = Compiler::with(nvrtc, cache());
    let mut all = Vec::new();
    for (i, g) in typical().iter().enumerate() {
        for pass in PASSES {
            let gpu = device(132, i % 4 != 1);
            let bias = (pass == Pass::Forward).then_some(LaunchArg::Input(2));
            let stats = (i % 2 == 0 && pass != Pass::GradW).then_some(Stats {
                sets: 1,
                to: LaunchArg::Null,
                normed: None,
            });
            let out = if pass == Pass::GradW { DType::F32 } else { DType::Bf16 };
            let launches =
                list(g, pass, &gpu, out, &Epilogue { bias, stats, ..Epilogue::default() }).launches;
            for architecture in ["sm_80", "sm_90", "sm_100"] {
                all.push((launches[0].clone(), architecture));
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
                println!(
                    "{architecture} {} of {} threads: {}",
                    k.registers,
                    launch.threads,
                    what.constants.join(" ")
                );
                let fits = k.registers * launch.threads <= 65536 && k.registers <= REGISTERS;
                // What every device of compute capability 8.0 and more allows a block.
                let shared = k.shared as usize + launch.shared <= 99 << 10;
                if k.spills > 0 || k.stack > 0 || !fits || !shared {
                    faults.push(format!("{k:?} {}", launch.shared));
                }
            }
            if let Some(tool) = &tool {
                let code = disassemble(tool, &image.bytes);
                let wanted = ["HMMA", "LDGSTS", "LDSM"].iter().filter(|w| !code.contains(**w));
                faults.extend(wanted.map(|w| format!("no {w}")));
                let local = ["LDL", "STL"].iter().filter(|w| code.contains(**w));
                faults.extend(local.map(ToString::to_string));
            }
            let tell = |f: &String| format!("{f}: {} {architecture} {}", what.file, what.constants.join(" "));
            faults.iter().map(tell).collect::<Vec<_>>()
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
