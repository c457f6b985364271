//! Dropout with counter-based random numbers: the mask is a pure function of (seed, stream, step, element), so nothing
//! is stored, the derivative is the same operation, and a resumed run sees the same masks.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, LaunchArg, LaunchList, Operands};
use crate::device::pointwise::{Mask, Strided, dropping};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::rng::{philox4x32, step_number, unit_f32};
use crate::shape::Shape;

/// `y = x mask / (1 - p)`. Inputs: `x`, and the step number in two parts ([`crate::rng::step_input`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of dropping an element.
    pub p: f64,
    /// The run's seed.
    pub seed: u64,
    /// Tells the layers of a step apart.
    pub stream: u32,
}

impl Dropout {
    /// The four numbers that decide on elements `4 block ..`.
    #[inline]
    fn block(&self, step: u32, block: u64) -> [u32; 4] {
        philox4x32(
            [block as u32, (block >> 32) as u32, self.stream, step],
            [self.seed as u32, (self.seed >> 32) as u32],
        )
    }

    /// What becomes of element `at` at a step.
    pub fn value<T: Real>(&self, v: T, step: u32, at: u64) -> T {
        let keep = f64::from(unit_f32(self.block(step, at / 4)[(at % 4) as usize])) >= self.p;
        if keep { v * T::of(1.0 / (1.0 - self.p)) } else { T::zero() }
    }

    /// Draws that are below it, of 24 bits, drop: exactly those whose fraction of 2^24 is less than `p`.
    fn threshold(&self) -> u32 {
        (self.p * f64::from(1 << 24)).ceil() as u32
    }

    fn scale(&self) -> f32 {
        (1.0 / (1.0 - self.p)) as f32
    }

    /// As the pointwise kernels take it, with the address of the step number.
    pub fn mask(&self, step: LaunchArg) -> Mask {
        let words = [self.seed as u32, (self.seed >> 32) as u32, self.stream, self.threshold()];
        let words = words.map(u32::to_ne_bytes).into_iter().chain([self.scale().to_ne_bytes()]);
        Mask { step, argument: LaunchArg::Bytes(words.flatten().collect()) }
    }

    fn run<T: Real>(&self, io: &mut Io) {
        let (x, step, out) = (io.input::<T>(0), io.input::<T>(1), io.output::<T>());
        let step = step_number(step[0].f64(), step[1].f64());
        let scale = T::of(1.0 / (1.0 - self.p));
        parallel::for_chunks(out, parallel::CHUNK, |start, piece| {
            for (b, four) in piece.chunks_mut(4).enumerate() {
                let words = self.block(step, (start / 4 + b) as u64);
                for (i, o) in four.iter_mut().enumerate() {
                    let keep = f64::from(unit_f32(words[i])) >= self.p;
                    *o = if keep { x[start + 4 * b + i] * scale } else { T::zero() };
                }
            }
        });
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if !(0.0..1.0).contains(&self.p) {
            return Err(format!("a probability of {} is not in [0, 1)", self.p));
        }
        if *inputs[1] != [2].into() {
            return Err(format!("the step number has shape {} where its two parts are [2]", inputs[1]));
        }
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![a.want(0, || a.dy.apply(*self, &[&a.inputs[1]])), None]
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn storage(&self) -> Storage {
        Storage::Mixed { alike: &[0], free: &[] }
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let flat = Shape::from([io.out().numel()]);
        let x = Strided::dense(LaunchArg::Input(0), &flat, io.inputs[0].aligned).of(io.inputs[0].kind());
        let y = Strided::dense(LaunchArg::Output, &flat, io.output.aligned).of(io.output.kind());
        let mask = Some(self.mask(LaunchArg::Input(1)));
        Ok(LaunchList::of(dropping(gpu, "dropped(a, numbers)", [0.0; 2], mask, &flat, y, &[x])))
    }
}

/// Several rates and sizes.
pub fn samples() -> Vec<Sample> {
    let cases: [(f64, &[usize]); 3] = [(0.5, &[3, 5, 7]), (0.2, &[2, 9]), (0.0, &[4])];
    cases
        .into_iter()
        .map(|(p, shape)| {
            let op = Dropout { p, seed: 0x1234_5678_9abc, stream: 3 };
            sample::op("dropout", op, &[(shape, Domain::Normal), (&[2], Domain::Label(250))], move |x| {
                let step = (x[1].data[1] * 2f64.powi(24) + x[1].data[0]) as u32;
                let data = x[0].data.iter().enumerate().map(|(i, v)| {
                    let counter = [(i / 4) as u32, 0, 3, step];
                    let word = philox4x32(counter, [0x5678_9abc, 0x1234])[i % 4];
                    if f64::from(word >> 8) / 16_777_216.0 < p { 0.0 } else { v / (1.0 - p) }
                });
                sample::array(shape, data.collect())
            })
        })
        .collect()
}
