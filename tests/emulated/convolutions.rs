//! The convolutions of sm_90a, and those for few channels, by themselves, launched as the program launches them, against plain
//! double-precision sums: on the emulator, and on a device before anything is trained with them.

use crate::geometry::{operands, row, square};
use crate::oracle::exact;
use gan::device::backend::{Backend, Fetch};
use gan::device::launch::{GpuTraits, LaunchArg, LaunchList, Math, Operand, Operands, Tailored};
use gan::dtype::DType;
use gan::ops::conv::cuda::launch::{Epilogue, Pass, launches};
use gan::ops::conv::geometry::ConvGeometry;
use gan::rng::Philox;
use gan::shape::Shape;
use gan_emu::bf16_round;

/// Small: tails, padding, strides, dilation, width unlike height, three axes, one tile and several.
pub fn small() -> Vec<ConvGeometry> {
    vec![
        row(square(1, 64, 12, 64, 3, 1, 1, 1, 1)),
        row((2, 72, [1, 13, 10], 40, [1, 4, 4], [1, 2, 2], [0, 1, 1], [1; 3], 1)),
        row((1, 24, [1, 9, 11], 16, [1, 3, 5], [1; 3], [0, 2, 2], [1, 2, 1], 1)),
        row((2, 16, [4, 6, 7], 8, [4, 2, 3], [2, 2, 1], [1, 0, 1], [1; 3], 1)),
        row(square(2, 128, 5, 264, 1, 1, 0, 1, 1)),
    ]
}

/// Small ones of few channels, one after the other in whole boxes and in parts of them.
pub fn small_windows() -> Vec<ConvGeometry> {
    vec![
        row((1, 16, [5, 9, 12], 32, [3; 3], [1; 3], [1; 3], [1; 3], 1)),
        row((2, 8, [4, 6, 17], 24, [3; 3], [1; 3], [0, 1, 2], [1; 3], 1)),
        row((1, 64, [3, 4, 9], 40, [3; 3], [1; 3], [1; 3], [1; 3], 1)),
        row(square(2, 64, 11, 64, 3, 1, 1, 1, 1)),
    ]
}

/// Kernels that only some convolutions take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Those of sm_90a.
    Hopper,
    /// Those for few channels.
    Window,
}

/// Runs one pass: two operands stored in bf16, the result in fp32.
fn run<B: Backend>(
    backend: &B,
    list: LaunchList,
    operands: [&[f32]; 2],
    results: usize,
) -> gan::error::Result<Vec<f32>> {
    let half = |v: &f32| ((v.to_bits() >> 16) as u16).to_ne_bytes();
    let mut inputs = Vec::new();
    for values in operands {
        let bytes: Vec<u8> = values.iter().flat_map(half).collect();
        let memory = backend.allocate(bytes.len())?;
        backend.upload(&bytes, &memory, 0)?;
        inputs.push(memory);
    }
    let mut raw = vec![0xffu8; 4 * results];
    let output = backend.allocate(raw.len())?;
    backend.upload(&raw, &output, 0)?;
    let workspace = backend.allocate(list.workspace_bytes)?;
    let address = |arg: &LaunchArg| match arg {
        LaunchArg::Input(i) => backend.address(&inputs[*i]),
        LaunchArg::Output => backend.address(&output),
        LaunchArg::Workspace(at) => backend.address(&workspace) + *at as u64,
        LaunchArg::Null => 0,
        other => unreachable!("a convolution takes no {other:?}"),
    };
    for launch in list.launches {
        let mut arguments = Vec::new();
        for arg in &launch.args {
            arguments.push(match arg {
                LaunchArg::Bytes(bytes) => bytes.clone(),
                LaunchArg::Maps(of, maps) => {
                    let encoded = maps.iter().map(|m| backend.tensor_map(m, address(of)));
                    encoded.collect::<gan::error::Result<Vec<_>>>()?.concat()
                }
                other => address(other).to_ne_bytes().to_vec(),
            });
        }
        let kernel = backend.kernel(&launch)?;
        backend.launch(&kernel, &launch, &arguments)?;
    }
    backend.download(&mut [Fetch { from: &output, offset: 0, into: &mut raw }])?;
    Ok(raw.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// A pass of a geometry, by kernels of a kind.
#[derive(Clone, Debug)]
pub struct Task {
    kind: Kind,
    geometry: ConvGeometry,
    pass: Pass,
}

/// All passes of all geometries by kernels of a kind.
pub fn tasks(kind: Kind, geometries: &[ConvGeometry]) -> Vec<Task> {
    let passes = [Pass::Forward, Pass::GradX, Pass::GradW];
    let of = |g: &ConvGeometry| passes.map(|pass| Task { kind, geometry: g.clone(), pass });
    geometries.iter().flat_map(of).collect()
}

impl Task {
    /// What is launched on a device of these traits, operands stored in bf16 and the result in fp32; nothing where other kernels
    /// would be taken.
    pub fn list(&self, gpu: &GpuTraits) -> Option<LaunchList> {
        let (hopper, window, name) = match self.kind {
            Kind::Hopper => (Tailored::Always, Tailored::Off, "conv_hopper"),
            Kind::Window => (Tailored::Off, Tailored::Always, "conv_window"),
        };
        let gpu = GpuTraits { hopper, window, math: Math::Bf16, ..*gpu };
        let shapes = operands(&self.geometry, self.pass);
        let operand = |i: usize, dtype| Operand { shape: &shapes[i], aligned: true, dtype };
        let inputs = [operand(0, DType::Bf16), operand(1, DType::Bf16)];
        let io = Operands { inputs: &inputs, output: operand(2, DType::F32) };
        let list = launches(&self.geometry, self.pass, &io, &gpu, &Epilogue::default());
        list.launches.iter().any(|l| l.kernel.starts_with(name)).then_some(list)
    }

    /// Runs it twice; a line if it is off, differs from run to run, or was not taken.
    pub fn fault<B: Backend>(&self, backend: &B) -> Option<String> {
        let Task { geometry, pass, .. } = self;
        let wrong = |why: String| Some(format!("{pass:?} of {geometry:?}{why}"));
        let shapes = operands(geometry, *pass);
        let numbers = |name: &str, shape: &Shape| -> Vec<f32> {
            let mut rng = Philox::named(13, name);
            (0..shape.numel()).map(|_| bf16_round(rng.normal() as f32)).collect()
        };
        let (a, b) = (numbers("a", &shapes[0]), numbers("b", &shapes[1]));
        let want = exact(geometry, *pass, &a, &b);
        let Some(list) = self.list(&backend.traits()) else { return wrong(" takes other kernels".into()) };
        let once = || run(backend, list.clone(), [&a, &b], want.len());
        let (first, again) = match once().and_then(|first| Ok((first, once()?))) {
            Err(e) => return wrong(format!(": {e}")),
            Ok(both) => both,
        };
        let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        // Products are exact in fp32; what is left is the order of additions, over sums of up to 10^5 terms.
        let off = |i: &usize| {
            let error = (f64::from(first[*i]) - want[*i]).abs();
            error.is_nan() || error > 1e-5 * scale
        };
        if let Some(i) = (0..want.len()).find(off) {
            return wrong(format!(": number {i} is {}, not {}", first[i], want[i]));
        }
        let differ = first.iter().zip(&again).any(|(a, b)| a.to_bits() != b.to_bits());
        if differ { wrong(": another run gives other bits".into()) } else { None }
    }
}

/// All passes of all geometries by kernels of a kind; one line for each that is wrong.
#[allow(dead_code)] // a device is tested task by task
pub fn faults<B: Backend>(backend: &B, kind: Kind, geometries: &[ConvGeometry]) -> Vec<String> {
    tasks(kind, geometries).iter().filter_map(|task| task.fault(backend)).collect()
}
