//! The device that a session computes on, and programs and states as they are on whichever it is.

use super::gpu::{DeviceStates, GpuProgram, Prepared, check_memory};
use super::{Program, States};
use crate::compile::plan::{Plan, Step, plan};
use crate::device::backend::Backend;
use crate::device::cpu;
use crate::device::cuda::device::CudaDevice;
use crate::device::launch::{Launch, Math};
use crate::error::{Error, Result};
use crate::graph::{Graph, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A graph, and the outputs by name that a run of it leaves readable.
pub type Traced<'a> = (&'a Graph, Vec<(&'a str, &'a Var)>);

/// Where a session computes.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// This machine's processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU.
    Cuda(Arc<CudaDevice>),
}

impl Device {
    pub(super) fn cuda(ordinal: usize, precision: Math) -> Result<Self> {
        Ok(Device::Cuda(Arc::new(CudaDevice::open(ordinal, precision)?)))
    }

    /// For records.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu => "cpu".into(),
            Device::Cuda(d) if d.precision() != Math::Fma => {
                format!("cuda:{} in {}", d.ordinal(), d.precision().name())
            }
            Device::Cuda(d) => format!("cuda:{}", d.ordinal()),
        }
    }

    /// How it multiplies.
    pub fn precision(&self) -> Math {
        match self {
            Device::Cpu => Math::Fma,
            Device::Cuda(d) => d.precision(),
        }
    }

    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu => format!("the CPU with {} threads", rayon::current_num_threads()),
            Device::Cuda(d) => format!("{} in {}", d.describe(), d.precision().name()),
        }
    }

    /// Plans a run of `graph` that leaves the named outputs readable. Refuses what will not fit into memory.
    pub fn plan(&self, graph: &Graph, outputs: &[(&str, &Var)]) -> Result<Planned> {
        Ok(self.plan_all(&[(graph, outputs.to_vec())])?.swap_remove(0))
    }

    /// Plans runs that share their states. Refuses what will not fit into the device's memory together.
    pub fn plan_all(&self, runs: &[Traced]) -> Result<Vec<Planned>> {
        match self {
            Device::Cpu => {
                runs.iter().map(|(graph, outputs)| Ok(Planned::Cpu(Program::new(graph, outputs)?))).collect()
            }
            Device::Cuda(d) => {
                let all = prepare(d, runs)?;
                check_memory(&**d, together(all.iter().map(|p| (p.plan(), p.bytes()))))?;
                Ok(all.into_iter().map(|p| Planned::Cuda(d.clone(), Box::new(p))).collect())
            }
        }
    }

    /// Bytes of the device's memory that runs need together, with the states that they share.
    pub fn needs(&self, runs: &[Traced]) -> Result<u64> {
        match self {
            Device::Cpu => {
                let plans: Vec<Plan> =
                    runs.iter().map(|(g, outputs)| plan(g, outputs)).collect::<Result<_>>()?;
                Ok(together(plans.iter().map(|p| (p, p.arena_bytes as u64))))
            }
            Device::Cuda(d) => Ok(together(prepare(d, runs)?.iter().map(|p| (p.plan(), p.bytes())))),
        }
    }

    /// Compiles together the kernels of runs that will be made ready, where the device has any.
    pub fn compile<'a>(&self, runs: impl IntoIterator<Item = &'a Planned>) -> Result<()> {
        let Device::Cuda(device) = self else { return Ok(()) };
        let launches = runs.into_iter().flat_map(Planned::launches);
        device.compile(&mut launches.map(|l| &l.specialisation))
    }

    /// Bytes of memory that are free, where that is known.
    pub fn free(&self) -> Option<u64> {
        match self {
            Device::Cpu => cpu::available(),
            Device::Cuda(d) => d.available(),
        }
    }

    /// Brings states to the device.
    pub fn states(&self, states: States) -> Result<LiveStates> {
        Ok(match self {
            Device::Cpu => LiveStates::Cpu(states),
            Device::Cuda(d) => {
                LiveStates::Cuda { there: DeviceStates::new(d, &states)?, copy: states, stale: false }
            }
        })
    }

    /// Free and total bytes of its memory, where it is not the computer's own.
    pub fn memory(&self) -> Result<Option<(u64, u64)>> {
        match self {
            Device::Cpu => Ok(None),
            Device::Cuda(d) => d.memory().map(Some),
        }
    }

    /// Waits until everything that was asked of the device is done.
    pub fn finish(&self) -> Result<()> {
        match self {
            Device::Cpu => Ok(()),
            Device::Cuda(d) => d.finish(),
        }
    }
}

fn prepare(device: &CudaDevice, runs: &[Traced]) -> Result<Vec<Prepared>> {
    runs.iter().map(|(graph, outputs)| Prepared::new(&device.traits(), graph, outputs)).collect()
}

/// Bytes of plans, each with what it needs for itself alone, and of their states, each once.
fn together<'a>(plans: impl Iterator<Item = (&'a Plan, u64)>) -> u64 {
    let mut states = BTreeMap::new();
    let mut own = 0;
    for (plan, bytes) in plans {
        own += bytes;
        states.extend(plan.states.iter().map(|s| (&s.name, s.shape.numel() * plan.dtype.size())));
    }
    own + states.values().sum::<usize>() as u64
}

/// Adds to a refusal for want of memory the largest batch that would have fitted. `needs` tells what a batch takes.
pub fn fitting(e: Error, batch: usize, needs: impl Fn(usize) -> Result<u64>) -> Error {
    let Error::Memory { of, needed, free, .. } = e else { return e };
    // The first fits (nothing needs nothing), the second does not.
    let (mut low, mut high) = (0, batch);
    while high - low > 1 {
        let middle = (low + high) / 2;
        match needs(middle) {
            Ok(bytes) if bytes <= free => low = middle,
            _ => high = middle,
        }
    }
    Error::Memory { of, needed, free, fits: Some(low) }
}

/// A planned run, whose states the device need not have yet.
pub enum Planned {
    /// With its memory.
    Cpu(Program),
    /// With its launches.
    Cuda(Arc<CudaDevice>, Box<Prepared>),
}

impl Planned {
    /// What it does and where.
    pub fn plan(&self) -> &Plan {
        match self {
            Planned::Cpu(p) => p.plan(),
            Planned::Cuda(_, p) => p.plan(),
        }
    }

    /// What it launches.
    fn launches(&self) -> impl Iterator<Item = &Launch> {
        let prepared = match self {
            Planned::Cpu(_) => None,
            Planned::Cuda(_, p) => Some(p),
        };
        prepared.into_iter().flat_map(|p| p.launches())
    }

    /// Makes it ready to run on these states, and no others.
    pub fn bind(self, states: &LiveStates) -> Result<Runner> {
        match (self, states) {
            (Planned::Cpu(p), LiveStates::Cpu(_)) => Ok(Runner::Cpu(p)),
            (Planned::Cuda(d, p), LiveStates::Cuda { there, .. }) => {
                Ok(Runner::Cuda(Box::new(GpuProgram::bind(&d, *p, there)?)))
            }
            _ => panic!("states of another device"),
        }
    }
}

/// The states where the device has them.
pub enum LiveStates {
    /// On the host.
    Cpu(States),
    /// On the device, and what they were when they were last fetched.
    Cuda {
        /// The states themselves.
        there: DeviceStates<CudaDevice>,
        /// A copy on the host.
        copy: States,
        /// Whether something has run since the copy was made.
        stale: bool,
    },
}

impl LiveStates {
    /// Their present values on the host.
    pub fn host(&mut self) -> Result<&States> {
        match self {
            LiveStates::Cpu(states) => Ok(states),
            LiveStates::Cuda { there, copy, stale } => {
                if std::mem::take(stale) {
                    there.download(copy)?;
                }
                Ok(copy)
            }
        }
    }

    /// As [`LiveStates::host`], for those who run programs on the host; what they change reaches no GPU.
    pub fn host_copy(&mut self) -> Result<&mut States> {
        self.host()?;
        match self {
            LiveStates::Cpu(states) | LiveStates::Cuda { copy: states, .. } => Ok(states),
        }
    }

    /// Overwrites all of them. Names and sizes must be the same.
    pub fn set(&mut self, states: States) -> Result<()> {
        match self {
            LiveStates::Cpu(own) => *own = states,
            LiveStates::Cuda { there, copy, stale } => {
                there.upload(&states)?;
                (*copy, *stale) = (states, false);
            }
        }
        Ok(())
    }
}

/// A program ready to run.
pub enum Runner {
    /// On the CPU.
    Cpu(Program),
    /// On a GPU.
    Cuda(Box<GpuProgram<CudaDevice>>),
}

impl Runner {
    /// What it does and where.
    pub fn plan(&self) -> &Plan {
        match self {
            Runner::Cpu(p) => p.plan(),
            Runner::Cuda(p) => p.plan(),
        }
    }

    /// Runs once; on a GPU this only asks for the run, and returns. `inputs` are given by name; every declared input that
    /// is used must be there with its full size.
    pub fn run(&mut self, states: &mut LiveStates, inputs: &[(&str, &[f32])]) -> Result<()> {
        match (self, states) {
            (Runner::Cpu(p), LiveStates::Cpu(states)) => {
                p.run(states, inputs);
                Ok(())
            }
            (Runner::Cuda(p), LiveStates::Cuda { there, stale, .. }) => {
                *stale = true;
                p.run(there, inputs)
            }
            _ => panic!("states of another device"),
        }
    }

    /// As [`Runner::run`], step by step; `observe` must call the closure, which returns when the step is done.
    pub fn run_observed(
        &mut self,
        states: &mut LiveStates,
        inputs: &[(&str, &[f32])],
        mut observe: impl FnMut(&Step, &mut dyn FnMut()),
    ) -> Result<()> {
        match (self, states) {
            (Runner::Cpu(p), LiveStates::Cpu(states)) => {
                p.run_observed(states, inputs, observe);
                Ok(())
            }
            (Runner::Cuda(p), LiveStates::Cuda { there, stale, .. }) => {
                *stale = true;
                p.run_observed(there, inputs, |program, step, run| {
                    let mut done = Ok(());
                    observe(step, &mut || done = run().and_then(|()| program.backend().finish()));
                    done
                })
            }
            _ => panic!("states of another device"),
        }
    }

    /// Outputs of the last run, waiting for it once.
    pub fn outputs(&mut self, states: &mut LiveStates, names: &[&str]) -> Result<Vec<Vec<f32>>> {
        match (self, states) {
            (Runner::Cpu(p), LiveStates::Cpu(states)) => {
                Ok(names.iter().map(|n| p.output(states, n)).collect())
            }
            (Runner::Cuda(p), LiveStates::Cuda { there, .. }) => p.outputs(there, names),
            _ => panic!("states of another device"),
        }
    }

    /// An output of the last run.
    pub fn output(&mut self, states: &mut LiveStates, name: &str) -> Result<Vec<f32>> {
        Ok(self.outputs(states, &[name])?.swap_remove(0))
    }

    /// Scalar outputs of the last run, waiting for it once.
    pub fn scalars(&mut self, states: &mut LiveStates, names: &[&str]) -> Result<Vec<f64>> {
        Ok(self.outputs(states, names)?.iter().map(|v| f64::from(v[0])).collect())
    }
}
