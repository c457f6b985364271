//! Running a trained network on images or on noise, in batches. Programs are kept by the extents they were planned for.

use crate::dtype::DType;
use crate::error::Result;
use crate::exec::States;
use crate::exec::device::{Device, LiveStates, Runner};
use crate::graph::Var;
use crate::methods::Method;
use crate::methods::step::StepBuilder;
use crate::nn::NetSpec;
use crate::rng::Philox;
use std::collections::HashMap;

/// Images that are predicted at once.
pub const BATCH: usize = 8;

/// A network on a device, with the programs of its predictions.
pub struct Forward {
    device: Device,
    states: LiveStates,
    /// By the input's extents, then the image's. They belong to these states.
    programs: HashMap<(Vec<usize>, Vec<usize>), Runner>,
}

impl Forward {
    /// Brings a network's parameters, without an optimiser's moments, to a device.
    pub fn new(device: &Device, states: States) -> Result<Self> {
        let states = device.states(states)?;
        Ok(Forward { device: device.clone(), states, programs: HashMap::new() })
    }

    /// Replaces the parameters by others of the same network.
    pub fn set(&mut self, states: States) -> Result<()> {
        self.states.set(states)
    }

    /// The parameters.
    pub fn states(&mut self) -> &mut LiveStates {
        &mut self.states
    }

    /// Predicts slices `[n, h, w, c]`.
    pub fn slices(
        &mut self,
        method: &Method,
        net: &NetSpec,
        input: &[f32],
        [n, h, w, c]: [usize; 4],
    ) -> Result<Vec<f32>> {
        self.run(method, net, input, n, &[h, w, c], &[h, w])
    }

    /// Predicts a volume `[n, h, w, c]` patch by patch: neighbours overlap by half, and the middle of a patch counts most
    /// (a Gaussian with an eighth of the patch as standard deviation, as in nnU-Net). An axis that is shorter than the
    /// patch is continued by its last slice.
    pub fn volume(
        &mut self,
        method: &Method,
        net: &NetSpec,
        input: &[f32],
        [n, h, w, c]: [usize; 4],
        patch: [usize; 3],
    ) -> Result<Vec<f32>> {
        let extents = [n, h, w];
        let weights: Vec<f32> = indices(patch)
            .map(|at| (0..3).map(|a| bell(at[a], patch[a])).product::<f64>().max(1e-4) as f32)
            .collect();
        let (mut sum, mut total) = (Vec::new(), vec![0f32; n * h * w]);
        for corner in corners([n, h, w, c], patch) {
            let seen = cut(input, [n, h, w, c], corner, patch);
            let item = [patch[0], patch[1], patch[2], c];
            let made = self.run(method, net, &seen, 1, &item, &patch)?;
            let outputs = made.len() / weights.len();
            sum.resize(n * h * w * outputs, 0.0);
            for ((at, values), weight) in indices(patch).zip(made.chunks(outputs)).zip(&weights) {
                if (0..3).any(|a| corner[a] + at[a] >= extents[a]) {
                    continue;
                }
                let p = place(extents, corner, at);
                total[p] += weight;
                sum[p * outputs..(p + 1) * outputs]
                    .iter_mut()
                    .zip(values)
                    .for_each(|(s, v)| *s += weight * v);
            }
        }
        let outputs = sum.len() / total.len();
        sum.chunks_mut(outputs).zip(&total).for_each(|(s, t)| s.iter_mut().for_each(|v| *v /= t));
        Ok(sum)
    }

    /// What a network says of patches of a volume `[n, h, w, c]`, one after the other; they lie as those of
    /// [`Forward::volume`].
    pub fn patches(
        &mut self,
        method: &Method,
        net: &NetSpec,
        input: &[f32],
        shape: [usize; 4],
        patch: [usize; 3],
    ) -> Result<Vec<f32>> {
        let item = [patch[0], patch[1], patch[2], shape[3]];
        let mut all = Vec::new();
        for corner in corners(shape, patch) {
            all.extend(self.run(method, net, &cut(input, shape, corner, patch), 1, &item, &patch)?);
        }
        Ok(all)
    }

    /// Makes the images of noise `[n, nz]`: `[n, size.., channels]`.
    pub fn images(
        &mut self,
        method: &Method,
        net: &NetSpec,
        noise: &[f32],
        nz: usize,
        size: &[usize],
    ) -> Result<Vec<f32>> {
        self.run(method, net, noise, noise.len() / nz.max(1), &[nz], size)
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &mut self,
        method: &Method,
        net: &NetSpec,
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
                let (step, y) = trace(method, net, &shape, size);
                slot.insert(self.device.plan(step.graph(), &[("output", &y)])?.bind(&self.states)?);
            }
            let program = self.programs.get_mut(&key).expect("just made");
            let images = &input[first * each..(first + batch) * each];
            program.run(&mut self.states, &[("input", images), ("step", &[0f32; 2])])?;
            out.extend(program.output(&mut self.states, "output")?);
        }
        Ok(out)
    }
}

/// Where patches begin along an axis: about half a patch apart, evenly, from end to end.
fn starts(extent: usize, patch: usize) -> Vec<usize> {
    let spare = extent.saturating_sub(patch);
    let steps = spare.div_ceil((patch / 2).max(1));
    (0..=steps).map(|i| (i * spare).checked_div(steps).unwrap_or(0)).collect()
}

/// Where patches of a volume `[n, h, w, c]` begin, the last axis fastest.
fn corners([n, h, w, _]: [usize; 4], patch: [usize; 3]) -> Vec<[usize; 3]> {
    let [d, y, x] = [(n, 0), (h, 1), (w, 2)].map(|(extent, a)| starts(extent, patch[a]));
    let rows = |d: usize| y.iter().flat_map(|&y| x.iter().map(move |&x| [d, y, x])).collect::<Vec<_>>();
    d.iter().flat_map(|&d| rows(d)).collect()
}

/// The index of a patch's place in a volume, which is continued by its last voxels.
fn place(extents: [usize; 3], corner: [usize; 3], at: [usize; 3]) -> usize {
    let p: [usize; 3] = std::array::from_fn(|a| (corner[a] + at[a]).min(extents[a] - 1));
    (p[0] * extents[1] + p[1]) * extents[2] + p[2]
}

/// A patch of a volume.
fn cut(input: &[f32], [n, h, w, c]: [usize; 4], corner: [usize; 3], patch: [usize; 3]) -> Vec<f32> {
    let seen = |at: [usize; 3]| {
        let p = place([n, h, w], corner, at);
        input[p * c..(p + 1) * c].iter().copied()
    };
    indices(patch).flat_map(seen).collect()
}

/// All places of a patch, the last axis fastest.
fn indices(patch: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..patch[0]).flat_map(move |d| (0..patch[1]).flat_map(move |y| (0..patch[2]).map(move |x| [d, y, x])))
}

/// A Gaussian around the middle of an axis.
fn bell(at: usize, extent: usize) -> f64 {
    let t = (at as f64 + 0.5 - 0.5 * extent as f64) / (extent as f64 / 8.0);
    (-0.5 * t * t).exp()
}

/// Traces a prediction from `shape`, images or noise: the step, and what it puts out.
pub fn trace(method: &Method, net: &NetSpec, shape: &[usize], size: &[usize]) -> (StepBuilder, Var) {
    let step = StepBuilder::new(DType::F32, 0);
    let x = step.graph().input("input", shape.to_vec());
    let net = step.bind(net, 1);
    let y = step.graph().phase("predict", || method.trace_predict(&step, &net, &x, size));
    (step, y)
}

/// Standard normal noise for `n` images, `nz` numbers each: a pure function of the seed, the same for the first images
/// however many there are.
pub fn noise(seed: u64, n: usize, nz: usize) -> Vec<f32> {
    let mut rng = Philox::named(seed, "samples");
    (0..n * nz).map(|_| rng.normal() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::preset;
    use crate::models::{AnyNetwork, Limits, Network, Signature, Wanted};
    use crate::nn::{ConvLayer, Ctx};

    #[test]
    fn patches_reach_from_end_to_end_and_overlap_by_half() {
        assert_eq!(starts(32, 32), [0]);
        assert_eq!(starts(20, 32), [0]);
        assert_eq!(starts(96, 32), [0, 16, 32, 48, 64]);
        assert_eq!(starts(33, 32), [0, 1]);
        for (extent, patch) in [(50, 16), (97, 32), (64, 48)] {
            let all = starts(extent, patch);
            assert_eq!(*all.last().expect("one at least") + patch, extent);
            assert!(all.windows(2).all(|w| w[1] - w[0] <= patch / 2));
        }
    }

    /// A network that doubles, to see that patches put back together are the whole.
    #[derive(Debug, serde::Serialize)]
    struct Doubler {}

    impl Network for Doubler {
        fn signature(&self) -> Signature {
            Signature::Dense
        }

        fn mixes_batch(&self) -> bool {
            false
        }

        fn check(&self, _: &Limits) -> Result<()> {
            Ok(())
        }

        fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
            cx.conv("c", x, ConvLayer::new(1, 1).bias(false));
            vec![x.mul_scalar(2.0)]
        }
    }

    fn doubling() -> Method {
        let table = |text: &str| text.parse().expect("TOML");
        let model = table("kind = \"supervised\"\nnetwork = { kind = \"srcnn\" }");
        let mut spec = preset::expand(&model, &table("kind = \"distance\"")).expect("valid").spec;
        spec.networks[0].network = AnyNetwork::new("doubler", Doubler {});
        Method::of_channels(&spec, 1, 1, 1)
    }

    #[test]
    fn a_volume_is_put_together_from_its_patches() {
        let method = doubling();
        let spec = method.networks(&[4, 4, 4]).expect("valid").remove(0);
        let mut states = States::new();
        spec.initialise::<f32>(&mut states, 1, 1);
        let mut forward = Forward::new(&Device::Cpu, states).expect("the CPU");
        // One axis is shorter than the patch, one as long, one no multiple of it.
        for shape in [[3, 4, 9, 1], [7, 5, 4, 1]] {
            let volume: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
            let made = forward.volume(&method, &spec, &volume, shape, [4, 4, 4]).expect("it runs");
            assert_eq!(made.len(), volume.len());
            // A weighted mean of equal numbers, in single precision.
            for (m, v) in made.iter().zip(&volume) {
                assert!((m - 2.0 * v).abs() <= 4.0 * f32::EPSILON * 2.0 * v, "{m} instead of {}", 2.0 * v);
            }
        }
    }

    #[test]
    fn the_middle_counts_most() {
        assert!(bell(16, 32) > bell(8, 32) && bell(8, 32) > bell(0, 32));
        assert_eq!(bell(15, 32), bell(16, 32));
    }
}
