//! Running a trained network on images or on noise, in batches. Programs are kept by the extents they were planned for.

use super::method::Method;
use super::step::StepBuilder;
use crate::dtype::DType;
use crate::error::Result;
use crate::exec::{Program, States};
use crate::nn::NetSpec;
use crate::rng::Philox;
use std::collections::HashMap;

/// Images that are predicted at once.
const BATCH: usize = 8;

/// The programs of a network's predictions. `states` must hold the network's parameters without an optimiser's moments.
#[derive(Default)]
pub struct Forward {
    /// By the input's extents, then the image's.
    programs: HashMap<(Vec<usize>, Vec<usize>), Program>,
}

impl Forward {
    /// No program yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Predicts slices `[n, h, w, c]`.
    pub fn slices(
        &mut self,
        method: &dyn Method,
        net: &NetSpec,
        states: &mut States,
        input: &[f32],
        [n, h, w, c]: [usize; 4],
    ) -> Result<Vec<f32>> {
        self.run(method, net, states, input, n, &[h, w, c], &[h, w])
    }

    /// Makes the images of noise `[n, nz]`: `[n, size.., channels]`.
    pub fn images(
        &mut self,
        method: &dyn Method,
        net: &NetSpec,
        states: &mut States,
        noise: &[f32],
        nz: usize,
        size: &[usize],
    ) -> Result<Vec<f32>> {
        self.run(method, net, states, noise, noise.len() / nz.max(1), &[nz], size)
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &mut self,
        method: &dyn Method,
        net: &NetSpec,
        states: &mut States,
        input: &[f32],
        n: usize,
        item: &[usize],
        size: &[usize],
    ) -> Result<Vec<f32>> {
        let each = item.iter().product::<usize>();
        let mut out = Vec::new();
        for first in (0..n).step_by(BATCH) {
            let batch = BATCH.min(n - first);
            let shape = [&[batch], item].concat();
            let key = (shape.clone(), size.to_vec());
            if let std::collections::hash_map::Entry::Vacant(slot) = self.programs.entry(key.clone()) {
                slot.insert(program(method, net, &shape, size)?);
            }
            let program = self.programs.get_mut(&key).expect("just made");
            program
                .run(states, &[("input", &input[first * each..(first + batch) * each]), ("step", &[0f32])]);
            out.extend(program.output::<f32>(states, "output"));
        }
        Ok(out)
    }
}

fn program(method: &dyn Method, net: &NetSpec, shape: &[usize], size: &[usize]) -> Result<Program> {
    let step = StepBuilder::new(DType::F32, 0);
    let x = step.graph().input("input", shape.to_vec());
    let net = step.bind(net, 1);
    let y = step.graph().phase("predict", || method.trace_predict(&step, &net, &x, size));
    Program::new(step.graph(), &[("output", &y)])
}

/// Standard normal noise for `n` images, `nz` numbers each: a pure function of the seed, the same for the first images
/// however many there are.
pub fn noise(seed: u64, n: usize, nz: usize) -> Vec<f32> {
    let mut rng = Philox::named(seed, "samples");
    (0..n * nz).map(|_| rng.normal() as f32).collect()
}
