//! What the hardware allows: the highest rates that a device was seen to reach, and the least time that operations of
//! known cost can take at them (the roofline of Williams, Waterman and Patterson, CACM 2009).

use super::States;
use super::device::Device;
use crate::compile::plan::Plan;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Cost, Graph, Var};
use crate::ops::conv::ConvSpec;
use crate::rng::Philox;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// How fast bytes go back and forth, of a given amount: small amounts stay in caches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes that were read and written together.
    pub bytes: u64,
    /// Bytes per second, read and written.
    pub bytes_per_s: f64,
}

/// The highest rates that a device was seen to reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// FLOPs per second, in the precision of the programs.
    pub flops_per_s: f64,
    /// By rising amount, at least one; the last is that of the device's main memory.
    pub bandwidth: Vec<Bandwidth>,
}

/// What keeps an operation from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// The way to and from memory.
    Memory,
}

impl Peaks {
    /// Bytes per second that an operation which moves `bytes` may hope for: the highest rate seen with so many or more. (That
    /// fewer went slower was not the memory's fault.)
    pub fn bytes_per_s(&self, bytes: u64) -> f64 {
        let last = self.bandwidth.last().map_or(f64::INFINITY, |b| b.bytes_per_s);
        self.bandwidth.iter().filter(|b| b.bytes >= bytes).map(|b| b.bytes_per_s).fold(last, f64::max)
    }

    /// Seconds that a cost's arithmetic and its bytes take at the least.
    fn parts(&self, cost: &Cost) -> (f64, f64) {
        (cost.flops as f64 / self.flops_per_s, cost.bytes as f64 / self.bytes_per_s(cost.bytes))
    }

    /// Seconds that something of this cost takes at the least. FLOPs are set against the one rate of matrix products, faster
    /// than any other arithmetic of the device, so this is never too much.
    pub fn floor(&self, cost: &Cost) -> f64 {
        let (compute, memory) = self.parts(cost);
        compute.max(memory)
    }

    /// Which of the two the floor comes from.
    pub fn bound(&self, cost: &Cost) -> Bound {
        let (compute, memory) = self.parts(cost);
        if compute > memory { Bound::Compute } else { Bound::Memory }
    }

    /// Seconds that a run of a plan takes at the least, its operations one after another.
    pub fn plan_floor(&self, plan: &Plan) -> f64 {
        plan.steps.iter().map(|s| self.floor(&s.cost)).sum()
    }

    /// Seconds that a training step takes at the least: `runs` names the plan of each run of it.
    pub fn step_floor<'a>(&self, runs: impl IntoIterator<Item = &'a Plan>) -> f64 {
        runs.into_iter().map(|plan| self.plan_floor(plan)).sum()
    }

    /// Measures a device with this program's own operations: matrix products and convolutions that should suit it best, and
    /// copies of rising amounts. Takes some two seconds.
    pub fn measure(device: &Device) -> Result<Peaks> {
        let cpu = matches!(device, Device::Cpu);
        // Large enough to fill the device, small enough to be done soon.
        let (edge, batch, side, channels, chain) =
            if cpu { (512, 1, 24, 128, 1) } else { (4096, 16, 64, 256, 6) };
        let products = [product(device, edge)?, convolutions(device, batch, side, channels, chain)?];
        // The largest is far beyond any cache.
        let amounts: [u64; 4] =
            if cpu { [1 << 18, 1 << 21, 1 << 24, 1 << 27] } else { [1 << 20, 1 << 23, 1 << 26, 1 << 29] };
        let mut bandwidth = Vec::new();
        for bytes in amounts {
            match copy(device, bytes) {
                // So much is not free; less was.
                Err(Error::Memory { .. }) if !bandwidth.is_empty() => break,
                measured => bandwidth.push(measured?),
            }
        }
        Ok(Peaks { flops_per_s: products.into_iter().fold(0.0, f64::max), bandwidth })
    }
}

/// FLOPs per second of a product of square matrices.
fn product(device: &Device, edge: usize) -> Result<f64> {
    let shapes = [Shape::from([edge, edge]), Shape::from([edge, edge])];
    rate(device, &shapes, |v| v[0].matmul(&v[1], false, false), |cost| cost.flops)
}

/// FLOPs per second of 3x3 convolutions, each of the one before, channels in and out alike. In mixed precision all but the
/// first find their input as they want it.
fn convolutions(device: &Device, batch: usize, side: usize, channels: usize, chain: usize) -> Result<f64> {
    let shapes = [Shape::from([batch, side, side, channels]), Shape::from([channels, 3, 3, channels])];
    let build = |v: &[Var]| (0..chain).fold(v[0].clone(), |x, _| x.conv(&v[1], &ConvSpec::new(2, 1, 1)));
    rate(device, &shapes, build, |cost| cost.flops)
}

/// How fast `bytes` are moved, half of them read and half written.
fn copy(device: &Device, bytes: u64) -> Result<Bandwidth> {
    let shape = Shape::from([bytes as usize / 2 / DType::F32.size()]);
    let bytes_per_s = rate(device, &[shape], |v| v[0].mul_scalar(0.5), |cost| cost.bytes)?;
    Ok(Bandwidth { bytes, bytes_per_s })
}

/// The highest of several rates at which a device gets through an amount of something, told from the cost of a run.
fn rate(
    device: &Device,
    operands: &[Shape],
    build: impl Fn(&[Var]) -> Var,
    amount: impl Fn(&Cost) -> u64,
) -> Result<f64> {
    /// Enough for the clocks to rise, and for one of them to be undisturbed by whatever else the machine does.
    const LEAST: usize = 7;
    const SECONDS: f64 = 0.2;
    /// A GPU is asked for several runs at once: launching and waiting are no part of them.
    const AT_ONCE: usize = 20;
    let graph = Graph::new(DType::F32);
    let mut states = States::new();
    let mut rng = Philox::named(1, "peaks");
    let mut vars = Vec::new();
    // States and not inputs: those would be sent to the device anew with every run.
    for (i, shape) in operands.iter().enumerate() {
        let name = format!("operand{i}");
        vars.push(graph.read(graph.state(&name, shape.clone())));
        // Not all alike (a GPU saves power, and gains clock, by multiplying zeros), but not a new one each: there may be many.
        let some: Vec<f32> = (0..1021).map(|_| rng.range(-1.0, 1.0) as f32).collect();
        states.set(&name, &some.iter().copied().cycle().take(shape.numel()).collect::<Vec<f32>>());
    }
    let y = build(&vars);
    let planned = device.plan(&graph, &[("y", &y)])?;
    let amount = amount(&planned.plan().cost()) as f64;
    let mut states = device.states(states)?;
    let mut program = planned.bind(&states)?;
    let (runs, most) = if matches!(device, Device::Cpu) { (1, 20_000) } else { (AT_ONCE, 50) };
    let mut best = f64::INFINITY;
    let start = Instant::now();
    for round in 0..most {
        if round >= LEAST && start.elapsed().as_secs_f64() > SECONDS {
            break;
        }
        let began = Instant::now();
        for _ in 0..runs {
            program.run(&mut states, &[])?;
        }
        device.finish()?;
        best = best.min(began.elapsed().as_secs_f64() / runs as f64);
    }
    Ok(amount / best.max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peaks() -> Peaks {
        let at = |bytes, bytes_per_s| Bandwidth { bytes, bytes_per_s };
        Peaks { flops_per_s: 1e9, bandwidth: vec![at(1000, 5e8), at(10_000, 8e8), at(100_000, 1e8)] }
    }

    #[test]
    fn a_floor_is_the_longer_of_arithmetic_and_memory() {
        let cost = |flops, bytes| Cost { flops, products: 0, bytes };
        let p = peaks();
        // 1 s of arithmetic against 0.8 s of memory at 1e8 bytes/s, and the other way round.
        assert_eq!(p.floor(&cost(1_000_000_000, 80_000_000)), 1.0);
        assert_eq!(p.bound(&cost(1_000_000_000, 80_000_000)), Bound::Compute);
        assert_eq!(p.floor(&cost(500_000_000, 80_000_000)), 0.8);
        assert_eq!(p.bound(&cost(500_000_000, 80_000_000)), Bound::Memory);
    }

    #[test]
    fn what_fits_a_cache_may_hope_for_the_caches_rate() {
        let p = peaks();
        assert_eq!(p.bytes_per_s(500), 8e8, "the smallest went slower for another reason");
        assert_eq!(p.bytes_per_s(5000), 8e8);
        assert_eq!(p.bytes_per_s(50_000), 1e8);
        assert_eq!(p.bytes_per_s(5_000_000), 1e8, "beyond what was measured");
    }
}
