//! The convolutions for few channels (`conv_window.cu`, `conv_window_grad_w.cu`) with the launches that the program makes, on
//! the emulator against plain double-precision sums; with bugs planted; and compiled.

use crate::common::{assert_close, kernels, module, normal};
use crate::geometry::{cube, products, row, square};
use gan::device::launch::{GpuTraits, Hopper, Launch, LaunchArg, LaunchList, Math, Operand, Operands};
use gan::dtype::DType;
use gan::ops::conv::geometry::ConvGeometry;
use gan::ops::conv::launch::{Epilogue, Pass, Stats};
use gan::ops::conv::window::{Taps, Variant, choose, launches};
use gan::shape::Shape;
use gan_emu::{Arg, Buffer, Build, Mode, bf16_round};

const PASSES: [Pass; 3] = [Pass::Forward, Pass::GradX, Pass::GradW];

/// A device with so many multiprocessors that takes these kernels wherever it can.
fn device(multiprocessors: usize, fixed_shapes: bool) -> GpuTraits {
    GpuTraits {
        multiprocessors,
        math: Math::Bf16,
        fixed_shapes,
        fused: true,
        choices: None,
        hopper: Hopper::Off,
        window: Hopper::Always,
    }
}

fn operands(g: &ConvGeometry, pass: Pass) -> [Shape; 3] {
    let tensor = |n: usize, e: [usize; 3], c: usize| Shape::from([n, e[0], e[1], e[2], c]);
    let [x, w, y] = [tensor(g.n, g.input, g.c), tensor(g.k, g.kernel, g.c), tensor(g.n, g.output, g.k)];
    match pass {
        Pass::Forward => [x, w, y],
        Pass::GradX => [y, w, x],
        Pass::GradW => [x, y, w],
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

/// The memory of one pass: operands, a bias and a second tensor, result, workspace, counters, statistics.
struct Memory {
    inputs: Vec<Buffer>,
    output: Buffer,
    workspace: Buffer,
    counters: Buffer,
    stats: Buffer,
}

impl Memory {
    fn arg<'a>(&'a self, arg: &LaunchArg) -> Arg<'a> {
        match arg {
            LaunchArg::Bytes(bytes) => Arg::Value(bytes.clone()),
            LaunchArg::Input(i) => (&self.inputs[*i]).into(),
            LaunchArg::Output => (&self.output).into(),
            LaunchArg::OutputAt(_) => (&self.stats).into(),
            LaunchArg::Workspace(0) => (&self.workspace).into(),
            LaunchArg::Table(0) => (&self.counters).into(),
            LaunchArg::Null => Arg::Null,
            other => unreachable!("these convolutions take no {other:?}"),
        }
    }
}

fn shape(launch: &Launch) -> gan_emu::Shape {
    gan_emu::Shape { grid: launch.grid, threads: launch.threads, shared: launch.shared }
}

fn build(launch: &Launch) -> Build {
    Build::new(kernels(), launch.specialisation.file).define(&launch.specialisation.constants)
}

/// One pass with everything that it computes from and what it must give.
struct Case {
    g: ConvGeometry,
    pass: Pass,
    operands: [Vec<f32>; 2],
    bias: Vec<f32>,
    extra: Vec<f32>,
    want: Vec<f64>,
}

impl Case {
    fn new(g: &ConvGeometry, pass: Pass) -> Self {
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
        list(&self.g, self.pass, gpu, out, epilogue)
    }

    fn memory(&self, list: &LaunchList, out: DType) -> Memory {
        let [a, b] = &self.operands;
        Memory {
            inputs: vec![
                Buffer::bf16(a),
                Buffer::bf16(b),
                Buffer::f32(&self.bias),
                Buffer::bf16(&self.extra),
            ],
            output: Buffer::poisoned(self.want.len() * out.size()),
            workspace: Buffer::poisoned(list.workspace_bytes),
            counters: Buffer::i32(&vec![0; list.tables.first().map_or(0, |t| t.len() / 4)]),
            stats: Buffer::poisoned(8 * self.g.n * self.bias.len()),
        }
    }

    /// The result and what was left of statistics. No access to shared memory may meet a conflict of banks.
    fn run(&self, list: &LaunchList, out: DType, mode: Mode) -> Result<[Vec<f32>; 2], String> {
        let memory = self.memory(list, out);
        for launch in &list.launches {
            let args: Vec<Arg> = launch.args.iter().map(|a| memory.arg(a)).collect();
            let program = module(launch.specialisation.file, &launch.specialisation.constants);
            program.launch(launch.kernel, shape(launch), &args, mode)?;
            assert_eq!(program.bank_conflicts(), 0, "{:?}", launch.specialisation);
        }
        assert!(memory.counters.to_i32().iter().all(|c| *c == 0), "counters are left as they were");
        let result = if out == DType::Bf16 { memory.output.to_bf16() } else { memory.output.to_f32() };
        Ok([result, memory.stats.to_f32()])
    }
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

/// Both passes of all shapes in all modes.
#[test]
fn every_pass_of_every_shape_in_every_mode() {
    let mut met = Vec::new();
    for (i, (name, g)) in cases().into_iter().enumerate() {
        for pass in PASSES {
            let case = Case::new(&g, pass);
            let gpu = device([1, 2, 9][i % 3], i % 2 == 1);
            let v = variant(&g, pass, &gpu);
            met.push((v.extents, v.taps));
            let list = case.list(&gpu, DType::F32, &Epilogue::default());
            for mode in Mode::all() {
                let [got, _] =
                    case.run(&list, DType::F32, mode).unwrap_or_else(|e| panic!("{name} {pass:?}: {e}"));
                // Products of bf16 numbers are exact in fp32; what is left is the order of additions.
                assert_close(&format!("{name} {pass:?} {mode:?}"), &got, &case.want, 4e-6);
            }
        }
    }
    println!("{met:?}");
}
