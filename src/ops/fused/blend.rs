//! Several small updates of one flat tensor at once.

use super::no_derivative;
use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, int};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Var};
use crate::shape::Shape;

/// `v = keep v + weight x` for a stretch v of a flat tensor and as long a stretch x of another. With `keep` 0 v need not be a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Where v begins.
    pub offset: usize,
    /// Elements.
    pub length: usize,
    /// Number of the operation's input that x lies in, from 1.
    pub input: usize,
    /// Where x begins there.
    pub first: usize,
    /// Weight of what was.
    pub keep: f64,
    /// Weight of what comes.
    pub weight: f64,
    /// Whether its FLOPs are any of the step's: not those of a copy, or of constants.
    pub counted: bool,
}

/// Blends stretch after stretch into a flat tensor, in its memory. Two stretches are the same elements of it or have none in
/// common. Inputs: the tensor, and what is blended into it.
#[derive(Clone, Debug, PartialEq)]
pub struct Blend {
    /// In order.
    pub stretches: Vec<Stretch>,
}

/// The stretches that one launch takes.
const AT_ONCE: usize = 16;

impl Op for Blend {
    fn name(&self) -> &'static str {
        "blend"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        no_derivative()
    }

    fn flops(&self, _: &[&Shape], _: &Shape) -> u64 {
        // A factor of 1 is no product.
        let each = |s: &Stretch| if (s.keep, s.weight) == (1.0, 1.0) { 1 } else { 3 };
        self.stretches.iter().filter(|s| s.counted).map(|s| each(s) * s.length as u64).sum()
    }

    fn reads(&self, i: usize, _: &[&Shape], _: &Shape) -> usize {
        self.stretches.iter().filter(|s| i == 0 || s.input == i).map(|s| s.length).sum()
    }

    fn writes(&self, _: &Shape) -> usize {
        self.stretches.iter().map(|s| s.length).sum()
    }

    fn memory(&self) -> Memory {
        Memory::InPlace(0)
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let out = io.output::<T>();
            for s in &self.stretches {
                let x = &io.input::<T>(s.input)[s.first..s.first + s.length];
                let (keep, weight) = (T::of(s.keep), T::of(s.weight));
                // What is not kept need not be a number.
                let old = |v: T| if s.keep == 0.0 { T::of(0.0) } else { keep * v };
                out[s.offset..s.offset + s.length].iter_mut().zip(x).for_each(|(v, &x)| *v = old(*v) + weight * x);
            }
        });
    }

    fn launches(&self, _: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let mut list = LaunchList::default();
        for some in self.stretches.chunks(AT_ONCE) {
            let padded = |of: &dyn Fn(usize) -> i32| -> Vec<i32> {
                (0..AT_ONCE).map(|i| if i < some.len() { of(i) } else { 0 }).collect()
            };
            let same = |i: usize, j: usize| some[i].offset == some[j].offset;
            // The next of the same elements; none begins with one that another goes before.
            let next = |i: usize| (i + 1..some.len()).find(|&j| same(i, j)).map_or(-1, |j| j as i32);
            let begins = |i: usize| (0..i).all(|j| !same(i, j)) as i32;
            let bits = |v: f64| (v as f32).to_bits() as i32;
            let stretches: Vec<i32> = [
                padded(&|i| some[i].offset as i32),
                padded(&|i| some[i].length as i32),
                padded(&begins),
                padded(&next),
                padded(&|i| bits(some[i].keep)),
                padded(&|i| bits(some[i].weight)),
            ]
            .concat();
            let mut args = vec![stretches[..].into(), int(some.len()), LaunchArg::Output];
            let inputs = some.iter().map(|s| LaunchArg::InputAt(s.input, s.first));
            args.extend(inputs.chain(std::iter::repeat(LaunchArg::Null)).take(AT_ONCE));
            let longest = some.iter().map(|s| s.length).max().unwrap_or(0);
            let kernel = Specialisation::new("blend.cu", Vec::<String>::new());
            list.push(Launch::new(kernel, "blend", [gpu.blocks(longest), some.len(), 1], args));
        }
        Ok(list)
    }
}
