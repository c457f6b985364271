//! The history of generated images that a discriminator is shown (Shrivastava et al., CVPR 2017; junyanz's
//! `ImagePool`): with probability 1/2 an older image is shown and replaced by the new one.
//!
//! The pool is a state, and what happens to each image is decided outside, so that a step stays a pure function of its
//! inputs: `choice` per image is -1 (pass it on), `s` (swap with slot s), or `size + s` (keep a copy in slot s, pass it on).

use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, count, int};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Memory, Op, Var};
use crate::ops::sample::{self, Array, Domain, Sample};
use crate::rng::Philox;
use crate::shape::Shape;

/// What the discriminator is shown. Inputs: pool `[size, ..]`, images `[n, ..]`, choices `[n]`; output `[n, ..]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolQuery;

/// The pool afterwards. Inputs and choices as [`PoolQuery`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStore;

/// What a choice says.
enum Choice {
    Pass,
    Swap(usize),
    Keep(usize),
}

fn choice<T: Real>(v: T, size: usize) -> Choice {
    match v.f64() {
        c if c < 0.0 => Choice::Pass,
        c if (c as usize) < size => Choice::Swap(c as usize),
        c => Choice::Keep(c as usize - size),
    }
}

fn check(inputs: &[&Shape]) -> Result<(), String> {
    let [pool, images, choices] = [inputs[0], inputs[1], inputs[2]];
    if pool.rank() != images.rank() || pool[1..] != images[1..] || choices.numel() != images[0] {
        return Err(format!("a pool {pool}, images {images} and choices {choices} do not belong together"));
    }
    Ok(())
}

impl Op for PoolQuery {
    fn name(&self) -> &'static str {
        "pool_query"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        check(inputs)?;
        Ok(inputs[1].clone())
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        vec![None; 3] // the discriminator's input is data
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let (pool, images, choices, out) = (io.input::<T>(0), io.input::<T>(1), io.input::<T>(2), io.output::<T>());
            let (size, each) = (io.in_shape(0)[0], images.len() / choices.len());
            // Which image of this batch a slot holds by now.
            let mut newer = vec![None; size];
            for (i, shown) in out.chunks_mut(each).enumerate() {
                let image = |j: usize| &images[j * each..(j + 1) * each];
                match choice(choices[i], size) {
                    Choice::Pass => shown.copy_from_slice(image(i)),
                    Choice::Keep(s) => {
                        newer[s] = Some(i);
                        shown.copy_from_slice(image(i));
                    }
                    Choice::Swap(s) => {
                        shown.copy_from_slice(newer[s].map_or(&pool[s * each..(s + 1) * each], image));
                        newer[s] = Some(i);
                    }
                }
            }
        });
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let pointers = [LaunchArg::Input(0), LaunchArg::Input(1), LaunchArg::Input(2), LaunchArg::Output];
        Ok(launch("pool_query", io, gpu, &pointers))
    }
}

impl Op for PoolStore {
    fn name(&self) -> &'static str {
        "pool_store"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        check(inputs)?;
        Ok(inputs[0].clone())
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        vec![None; 3]
    }

    fn memory(&self) -> Memory {
        Memory::InPlace(0)
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let (images, choices, pool) = (io.input::<T>(1), io.input::<T>(2), io.output::<T>());
            let (size, each) = (io.out_shape()[0], images.len() / choices.len());
            for (image, &c) in images.chunks(each).zip(choices) {
                if let Choice::Swap(s) | Choice::Keep(s) = choice(c, size) {
                    pool[s * each..(s + 1) * each].copy_from_slice(image);
                }
            }
        });
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        Ok(launch("pool_store", io, gpu, &[LaunchArg::Input(1), LaunchArg::Input(2), LaunchArg::Output]))
    }
}

/// A launch of `kernels/image_pool.cu`.
fn launch(kernel: &'static str, io: &Operands, gpu: &GpuTraits, pointers: &[LaunchArg]) -> LaunchList {
    let (size, n) = (io.shape(0)[0], io.shape(1)[0]);
    let each = io.shape(1).numel() / n.max(1);
    let args = [count(each), int(n), int(size)].into_iter().chain(pointers.iter().cloned()).collect();
    let file = Specialisation::new("image_pool.cu", ["TYPE=float"]);
    LaunchList::of(Launch::new(file, kernel, [gpu.blocks(io.out().numel()), 1, 1], args))
}

/// The choices for the images of step `step`: a pure function of the seed and the step.
pub fn choices(seed: u64, name: &str, step: u64, n: usize, size: usize) -> Vec<f64> {
    let mut rng = Philox::named(seed ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15), &format!("pool {name}"));
    (0..n)
        .map(|i| {
            let (swap, slot) = (rng.uniform() < 0.5, rng.below(size));
            let held = step as usize * n + i;
            if held < size {
                (size + held) as f64
            } else if swap {
                slot as f64
            } else {
                -1.0
            }
        })
        .collect()
}

/// A pool of three, and batches that pass, keep and swap, the same slot twice too.
pub fn samples() -> Vec<Sample> {
    let plays: [&'static [f64]; 3] = [&[-1.0, 3.0, 4.0], &[1.0, 1.0, -1.0], &[5.0, 2.0, 0.0]];
    let mut all = Vec::new();
    for play in plays {
        let inputs: [(&[usize], Domain); 2] = [(&[3, 2, 2], Domain::Normal), (&[3, 2, 2], Domain::Normal)];
        let with = move |v: &[Var]| v[0].graph().constant([3], play.to_vec());
        let note = format!("{play:?}");
        let query = move |v: &[Var]| v[0].apply(PoolQuery, &[&v[1], &with(v)]);
        let store = move |v: &[Var]| v[0].mul_scalar(2.0).apply(PoolStore, &[&v[1], &with(v)]);
        let sample = sample::composite("pool_query", &inputs, query, move |x| naive(&x[0], &x[1], play).0);
        all.push(sample.noted(&note).fixing(0).fixing(1));
        let twice =
            |a: &Array| Array { shape: a.shape.clone(), data: a.data.iter().map(|v| 2.0 * v).collect() };
        let sample =
            sample::composite("pool_store", &inputs, store, move |x| naive(&twice(&x[0]), &x[1], play).1);
        all.push(sample.noted(&note).fixing(0).fixing(1));
    }
    all
}

/// One image after the other, as the paper tells it.
fn naive(pool: &Array, images: &Array, play: &[f64]) -> (Array, Array) {
    let (mut pool, mut shown) = (pool.clone(), images.clone());
    for (i, &c) in play.iter().enumerate() {
        for e in 0..4 {
            let slot = c as usize % 3 * 4 + e;
            if (0.0..3.0).contains(&c) {
                shown.data[4 * i + e] = pool.data[slot];
            }
            if c >= 0.0 {
                pool.data[slot] = images.data[4 * i + e];
            }
        }
    }
    (shown, pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_first_then_swaps_about_half() {
        let all: Vec<f64> = (0..200).flat_map(|s| choices(1, "A", s, 2, 50)).collect();
        assert_eq!(all[..50], (50..100).map(f64::from).collect::<Vec<_>>());
        let swaps = all[50..].iter().filter(|c| **c >= 0.0).count();
        assert!(all[50..].iter().all(|c| *c < 50.0) && (140..210).contains(&swaps), "{swaps} of 350");
        assert_eq!(choices(1, "A", 77, 2, 50), all[154..156]);
    }
}
