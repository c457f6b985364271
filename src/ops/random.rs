//! Random numbers inside a step: noise for generators, mixing weights for WGAN-GP. Like dropout's masks they are a pure
//! function of (seed, stream, step, element): nothing is stored, and a resumed run sees the same ones.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, count};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::rng::{philox4x32, step_number, unit_f32};
use crate::shape::Shape;

/// How the numbers are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Mean 0, variance 1 (Box and Muller 1958).
    Normal,
    /// Evenly in [0, 1), 24 bits.
    Uniform,
}

/// A tensor of random numbers. Input: the step number in two parts ([`crate::rng::step_input`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Random {
    /// How they are distributed.
    pub distribution: Distribution,
    /// Extents.
    pub shape: Shape,
    /// The run's seed.
    pub seed: u64,
    /// Tells the tensors of a step apart.
    pub stream: u32,
}

/// Keeps these numbers apart from the dropout masks of the same seed, stream and step.
const KEY: u64 = 0x7261_6e64_6f6d_2e31;

impl Random {
    /// Elements `4 block ..`.
    fn block(&self, step: u32, block: u64) -> [f64; 4] {
        let key = self.seed ^ KEY;
        let words = philox4x32(
            [block as u32, (block >> 32) as u32, self.stream, step],
            [key as u32, (key >> 32) as u32],
        );
        match self.distribution {
            Distribution::Uniform => words.map(|w| f64::from(unit_f32(w))),
            Distribution::Normal => {
                let [a, b] = normals(words[0], words[1]);
                let [c, d] = normals(words[2], words[3]);
                [a, b, c, d]
            }
        }
    }

    fn run<T: Real>(&self, io: &mut Io) {
        let step = io.input::<T>(0);
        let (step, out) = (step_number(step[0].f64(), step[1].f64()), io.output::<T>());
        parallel::for_chunks(out, parallel::CHUNK, |start, piece| {
            for (b, four) in piece.chunks_mut(4).enumerate() {
                let values = self.block(step, (start / 4 + b) as u64);
                four.iter_mut().zip(values).for_each(|(o, v)| *o = T::of(v));
            }
        });
    }
}

/// Two independent normal numbers from two words: a radius and an angle.
fn normals(radius: u32, angle: u32) -> [f64; 2] {
    let scale = 1.0 / 4_294_967_296.0;
    let r = (-2.0 * ((f64::from(radius) + 0.5) * scale).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * f64::from(angle) * scale).sin_cos();
    [r * cos, r * sin]
}

impl Op for Random {
    fn name(&self) -> &'static str {
        match self.distribution {
            Distribution::Normal => "random_normal",
            Distribution::Uniform => "random_uniform",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if *inputs[0] != [2].into() {
            return Err(format!("the step number has shape {} where its two parts are [2]", inputs[0]));
        }
        Ok(self.shape.clone())
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        vec![None] // noise depends on nothing
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (n, key) = (io.out().numel(), self.seed ^ KEY);
        let args = vec![
            count(n),
            (key as u32).into(),
            ((key >> 32) as u32).into(),
            self.stream.into(),
            LaunchArg::Input(0),
            LaunchArg::Output,
        ];
        let normal = u8::from(self.distribution == Distribution::Normal);
        let kernel = Specialisation::new("random.cu", [format!("NORMAL={normal}")]);
        let grid = [gpu.blocks(n.div_ceil(4)), 1, 1];
        Ok(LaunchList::of(Launch::new(kernel, "random_numbers", grid, args)))
    }
}

/// Both distributions; sizes that divide by four and that do not, and one of several pieces.
pub fn samples() -> Vec<Sample> {
    let cases: [(Distribution, &[usize]); 4] = [
        (Distribution::Normal, &[3, 5]),
        (Distribution::Normal, &[2, 101, 97]),
        (Distribution::Uniform, &[4, 1, 1, 1]),
        (Distribution::Uniform, &[7]),
    ];
    cases
        .into_iter()
        .map(|(distribution, shape)| {
            let op = Random { distribution, shape: shape.into(), seed: 0x1234_5678_9abc, stream: 5 };
            let name = if distribution == Distribution::Normal { "random_normal" } else { "random_uniform" };
            sample::op(name, op, &[(&[2], Domain::Label(250))], move |x| {
                let n = shape.iter().product::<usize>();
                let data = (0..n)
                    .map(|i| naive(distribution, i, (x[0].data[1] * 2f64.powi(24) + x[0].data[0]) as u32))
                    .collect();
                sample::array(shape, data)
            })
        })
        .collect()
}

/// Element by element: the words of its block, then the textbook formula.
fn naive(distribution: Distribution, i: usize, step: u32) -> f64 {
    let key = [0x5678_9abc ^ 0x6f6d_2e31, 0x1234 ^ 0x7261_6e64];
    let words = philox4x32([(i / 4) as u32, 0, 5, step], key);
    match distribution {
        Distribution::Uniform => f64::from(words[i % 4] >> 8) / 16_777_216.0,
        Distribution::Normal => {
            let pair = i % 4 / 2 * 2;
            let u = (f64::from(words[pair]) + 0.5) / 2f64.powi(32);
            let angle = 2.0 * std::f64::consts::PI * f64::from(words[pair + 1]) / 2f64.powi(32);
            (-2.0 * u.ln()).sqrt() * if i.is_multiple_of(2) { angle.cos() } else { angle.sin() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(distribution: Distribution, seed: u64, stream: u32, step: u32) -> Vec<f64> {
        let op = Random { distribution, shape: [4].into(), seed, stream };
        (0..10_000).flat_map(|b| op.block(step, b)).collect()
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let power = |v: &[f64], p: i32| v.iter().map(|x| x.powi(p)).sum::<f64>() / v.len() as f64;
        let normal = values(Distribution::Normal, 1, 2, 3);
        for (p, wanted, room) in [(1, 0.0, 0.02), (2, 1.0, 0.03), (3, 0.0, 0.06), (4, 3.0, 0.15)] {
            assert!((power(&normal, p) - wanted).abs() < room, "moment {p}: {}", power(&normal, p));
        }
        let uniform = values(Distribution::Uniform, 1, 2, 3);
        assert!((power(&uniform, 1) - 0.5).abs() < 0.01 && (power(&uniform, 2) - 1.0 / 3.0).abs() < 0.01);
        assert!(uniform.iter().all(|v| (0.0..1.0).contains(v)));
    }

    #[test]
    fn seeds_streams_and_steps_are_independent() {
        let base = values(Distribution::Normal, 1, 2, 3);
        for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4)] {
            let v = values(Distribution::Normal, other.0, other.1, other.2);
            let correlation = base.iter().zip(&v).map(|(a, b)| a * b).sum::<f64>() / base.len() as f64;
            assert!(correlation.abs() < 0.03, "{other:?}: {correlation}");
        }
        assert_eq!(base, values(Distribution::Normal, 1, 2, 3));
    }
}
