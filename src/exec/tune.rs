//! Times the variants of convolutions on a device, to find the fastest for each shape.

use super::States;
use super::gpu::{DeviceStates, GpuProgram, Prepared};
use super::timed::RunMarks;
use crate::device::backend::Timed;
use crate::device::choices::Choices;
use crate::device::launch::{GpuTraits, Tailored};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Var};
use crate::ops::conv::ConvSpec;
use crate::ops::conv::cuda::launch::Pass;
use crate::ops::conv::cuda::variants::{ConvShape, Variant};
use crate::rng::Philox;
use std::sync::Arc;

/// Runs of each variant before, and runs of which the median counts.
const WARM_UP: usize = 2;
const RUNS: usize = 9;
/// Another variant must be faster by this share to be taken in place of the rule's: less is told from noise too seldom.
const WORTH: f64 = 0.02;

/// What was found for one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuned {
    /// The shape.
    pub shape: ConvShape,
    /// Its fastest variant.
    pub variant: Variant,
    /// Seconds that it takes.
    pub seconds: f64,
    /// Seconds that the rule's variant takes.
    pub default_seconds: f64,
}

/// Times all variants of a shape.
pub fn tune<B: Timed>(backend: &Arc<B>, shape: &ConvShape) -> Result<Tuned> {
    let bench = Bench::new(backend, shape)?;
    let variants = shape.legal(&backend.traits());
    let prepared = variants.iter().map(|v| bench.prepared(v)).collect::<Result<Vec<Prepared>>>()?;
    let launches = prepared.iter().flat_map(Prepared::launches);
    backend.compile(&mut launches.map(|l| &l.specialisation))?;
    let times = prepared.into_iter().map(|p| bench.seconds(p)).collect::<Result<Vec<f64>>>()?;
    let (variant, seconds) = fastest(&variants, &times);
    Ok(Tuned { shape: shape.clone(), variant, seconds, default_seconds: times[0] })
}

/// The fastest, or the first where none is faster by enough.
fn fastest(variants: &[Variant], times: &[f64]) -> (Variant, f64) {
    let best = (0..times.len()).min_by(|&a, &b| times[a].total_cmp(&times[b])).unwrap_or(0);
    let taken = if times[best] < (1.0 - WORTH) * times[0] { best } else { 0 };
    (variants[taken], times[taken])
}

/// A convolution by itself, with its operands on the device.
struct Bench<'a, B: Timed> {
    backend: &'a Arc<B>,
    shape: &'a ConvShape,
    graph: Graph,
    result: Var,
    states: DeviceStates<B>,
}

impl<'a, B: Timed> Bench<'a, B> {
    fn new(backend: &'a Arc<B>, shape: &'a ConvShape) -> Result<Self> {
        let g = &shape.geometry;
        let spec = ConvSpec {
            stride: g.stride.to_vec(),
            padding: g.padding.to_vec(),
            dilation: g.dilation.to_vec(),
            groups: g.groups,
        };
        let graph = Graph::new(DType::F32);
        let mut states = States::new();
        // Numbers like a network's: zeros would be cheaper to multiply.
        let mut rng = Philox::named(1, "tune");
        let pattern: Vec<f32> = (0..4096).map(|_| rng.normal() as f32).collect();
        // States and not inputs: those would be sent to the device anew with every run.
        let mut operand = |name: &str, extents: [usize; 5]| {
            let n = extents.iter().product();
            states.set::<f32>(name, &pattern.iter().copied().cycle().take(n).collect::<Vec<_>>());
            graph.read(graph.state(name, extents))
        };
        let [x, y] = [(g.input, g.c), (g.output, g.k)].map(|([d, h, w], c)| [g.n, d, h, w, c]);
        let [d, h, w] = g.kernel;
        let weight = [g.k, d, h, w, g.group_c()];
        let result = match shape.pass {
            Pass::Forward => operand("x", x).conv(&operand("w", weight), &spec),
            Pass::GradX => operand("dy", y).conv_grad_x(&operand("w", weight), &spec, &g.input),
            Pass::GradW => operand("x", x).conv_grad_w(&operand("dy", y), &spec, &g.kernel),
        };
        graph.check()?;
        let states = DeviceStates::new(backend, &states)?;
        Ok(Bench { backend, shape, graph, result, states })
    }

    /// What a variant launches.
    fn prepared(&self, variant: &Variant) -> Result<Prepared> {
        let table = [(self.shape.to_string(), variant.to_string())].into();
        // Variants are of the general kernels.
        let traits = GpuTraits {
            math: self.shape.math,
            choices: Some(Choices::leak(table)),
            hopper: Tailored::Off,
            window: Tailored::Off,
            ..self.backend.traits()
        };
        Prepared::new(&traits, &self.graph, &[("result", &self.result)])
    }

    /// The median time of a variant: of the convolution and what joins its slices, without what prepares its operands.
    fn seconds(&self, prepared: Prepared) -> Result<f64> {
        let mut program = GpuProgram::bind(self.backend, prepared, &self.states)?;
        let launched = program.launched()?;
        let marks = RunMarks::new(&**self.backend)?;
        let each = launched
            .iter()
            .map(|_| Ok([self.backend.mark()?, self.backend.mark()?]))
            .collect::<Result<Vec<_>>>()?;
        let counts = |file: &str| file.starts_with("conv") || file == "sum_slices.cu";
        let mut times = Vec::new();
        for run in 0..WARM_UP + RUNS {
            program.run_marked_each(&self.states, &[], &marks, &each)?;
            self.backend.finish()?;
            let mut seconds = 0.0;
            for (l, [before, behind]) in launched.iter().zip(&each) {
                if counts(l.launch.specialisation.file) {
                    seconds += self.backend.seconds(before, behind)?;
                }
            }
            if run >= WARM_UP {
                times.push(seconds);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[RUNS / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv::cuda::variants::Kernels;

    #[test]
    fn another_variant_must_be_worth_it() {
        let v = |slices| Variant { kernels: Kernels::General, bm: 16, bn: 16, slices };
        let variants = [v(1), v(2), v(3)];
        assert_eq!(fastest(&variants, &[1.0, 0.99, 1.5]), (v(1), 1.0));
        assert_eq!(fastest(&variants, &[1.0, 0.97, 0.5]), (v(3), 0.5));
    }
}
