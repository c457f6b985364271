//! Running a plan on a device that runs launches.
//!
//! Every step is resolved to launches with all their arguments once, when the program is made; a run is then a walk
//! through a list, or the replay of a recording of it. Nothing is allocated in between.

use super::States;
use crate::compile::plan::{Passes, Plan, Step, plan_with};
use crate::device::backend::{Backend, Fetch, Piece};
use crate::device::cpu::{Place, Slot};
use crate::device::launch::{
    ALIGNED, ELEMENT, GpuTraits, Launch, LaunchArg, LaunchList, Math, Operand, Operands,
};
use crate::device::pointwise::copy_as;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Memory, Storage, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The states on the device, by name. Shared by all programs of a session.
pub struct DeviceStates<B: Backend> {
    backend: Arc<B>,
    buffers: BTreeMap<String, (B::Memory, usize)>,
}

impl<B: Backend> DeviceStates<B> {
    /// Copies all states to the device.
    pub fn new(backend: &Arc<B>, states: &States) -> Result<Self> {
        let mut own = DeviceStates { backend: backend.clone(), buffers: BTreeMap::new() };
        for (name, buffer) in &states.buffers {
            let memory = backend.allocate(buffer.len())?;
            backend.upload(bytemuck::cast_slice(buffer.slice::<f32>()), &memory, 0)?;
            own.buffers.insert(name.clone(), (memory, buffer.len()));
        }
        Ok(own)
    }

    /// Copies all states back, for a checkpoint or a look at them.
    pub fn download(&self, states: &mut States) -> Result<()> {
        let all: Vec<_> = self.buffers.values().map(|(memory, bytes)| (memory, 0, *bytes)).collect();
        for (name, values) in self.buffers.keys().zip(read(&*self.backend, &all)?) {
            states.set(name, &values);
        }
        Ok(())
    }

    /// Overwrites the states with those of the same names and sizes.
    pub fn upload(&mut self, states: &States) -> Result<()> {
        for (name, (memory, bytes)) in &self.buffers {
            let values = states.get::<f32>(name);
            assert_eq!(size_of_val(values), *bytes, "size of state {name}");
            self.backend.upload(bytemuck::cast_slice(values), memory, 0)?;
        }
        Ok(())
    }

    fn get(&self, name: &str) -> &B::Memory {
        &self.buffers.get(name).unwrap_or_else(|| panic!("no state {name}")).0
    }
}

/// Reads stretches of memory (which, from where, bytes), waiting once.
fn read<B: Backend>(backend: &B, what: &[(&B::Memory, usize, usize)]) -> Result<Vec<Vec<f32>>> {
    let mut all: Vec<Vec<f32>> = what.iter().map(|(_, _, bytes)| vec![0.0; bytes / ELEMENT]).collect();
    let mut fetches: Vec<Fetch<B::Memory>> = what
        .iter()
        .zip(&mut all)
        .map(|((from, offset, _), into)| Fetch {
            from: *from,
            offset: *offset,
            into: bytemuck::cast_slice_mut(into),
        })
        .collect();
    backend.download(&mut fetches)?;
    Ok(all)
}

/// A launch with its kernel loaded and its addresses known.
pub(super) struct Ready<B: Backend> {
    pub(super) kernel: B::Kernel,
    pub(super) launch: Launch,
    pub(super) arguments: Vec<Vec<u8>>,
}

/// A plan with its launches, for which nothing has been reserved yet.
pub struct Prepared {
    plan: Plan,
    lists: Vec<LaunchList>,
    workspace_bytes: usize,
    tables: Vec<u8>,
    table_offsets: Vec<Vec<usize>>,
    /// Where each input lies in the staging area, and how it goes from there into the arena.
    pieces: Vec<Piece>,
}

impl Prepared {
    /// Plans a run of `graph` that leaves the named outputs readable.
    pub fn new(traits: &GpuTraits, graph: &Graph, outputs: &[(&str, &Var)]) -> Result<Self> {
        let passes = Passes { fuse: traits.fused, mixed: traits.math == Math::Bf16 };
        let plan = plan_with(graph, outputs, passes)?;
        if plan.dtype != DType::F32 {
            return Err(Error::input(format!(
                "the GPU computes in f32, not in {}; use the CPU for that",
                plan.dtype.name()
            )));
        }
        let lists = plan.steps.iter().map(|s| launches(s, traits)).collect::<Result<Vec<LaunchList>>>()?;
        let workspace_bytes = lists.iter().map(|l| l.workspace_bytes).max().unwrap_or(0);
        let (table_offsets, tables) = join_tables(&lists);
        let mut from = 0usize;
        let mut piece = |slot: &Slot| {
            let Place::Arena(to) = slot.place else { unreachable!("inputs lie in the arena") };
            let piece = Piece { from: from.next_multiple_of(ALIGNED), to, bytes: slot.bytes() };
            from = piece.from + piece.bytes;
            piece
        };
        let pieces = plan.inputs.iter().map(|(_, slot)| piece(slot)).collect();
        Ok(Prepared { plan, lists, workspace_bytes, tables, table_offsets, pieces })
    }

    /// What it does and where.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Everything that is launched.
    pub fn launches(&self) -> impl Iterator<Item = &Launch> {
        self.lists.iter().flat_map(|l| &l.launches)
    }

    /// The plan's operations with what each launches.
    pub fn steps(&self) -> impl Iterator<Item = (&Step, &LaunchList)> {
        self.plan.steps.iter().zip(&self.lists)
    }

    fn staging_bytes(&self) -> usize {
        self.pieces.last().map_or(0, |p| p.from + p.bytes)
    }

    /// Bytes of the device's memory that it needs beside the states.
    pub fn bytes(&self) -> u64 {
        (self.plan.arena_bytes + self.workspace_bytes + self.tables.len() + 2 * self.staging_bytes()) as u64
    }

    /// Bytes that it needs with its states.
    pub fn bytes_with_states(&self) -> u64 {
        self.bytes() + self.plan.state_bytes() as u64
    }
}

/// Refuses what does not fit.
pub fn check_memory<B: Backend>(backend: &B, needed: u64) -> Result<()> {
    match backend.available() {
        Some(free) if needed > free => {
            Err(Error::Memory { of: "the device's memory", needed, free, fits: None })
        }
        _ => Ok(()),
    }
}

/// A planned graph with its memory on a device, bound to the states that it was made for.
pub struct GpuProgram<B: Backend> {
    pub(super) backend: Arc<B>,
    pub(super) plan: Plan,
    arena: B::Memory,
    workspace: B::Memory,
    workspace_bytes: usize,
    /// Kept for the launches that read them.
    _tables: B::Memory,
    staging: B::Staging,
    pieces: Vec<Piece>,
    states: Vec<u64>,
    /// The launches of each step of the plan.
    pub(super) ready: Vec<Vec<Ready<B>>>,
    recording: Option<B::Recording>,
}

impl<B: Backend> GpuProgram<B> {
    /// Plans a run of `graph` that leaves the named outputs readable, reserves its memory and loads its kernels.
    pub fn new(
        backend: &Arc<B>,
        graph: &Graph,
        outputs: &[(&str, &Var)],
        states: &DeviceStates<B>,
    ) -> Result<Self> {
        Self::bind(backend, Prepared::new(&backend.traits(), graph, outputs)?, states)
    }

    /// Reserves a plan's memory and loads its kernels.
    pub fn bind(backend: &Arc<B>, prepared: Prepared, states: &DeviceStates<B>) -> Result<Self> {
        check_memory(&**backend, prepared.bytes())?;
        backend.compile(&mut prepared.launches().map(|l| &l.specialisation))?;
        let staging = backend.staging(prepared.staging_bytes())?;
        let Prepared { plan, lists, workspace_bytes, tables, table_offsets, pieces } = prepared;
        let arena = backend.allocate(plan.arena_bytes)?;
        let workspace = backend.allocate(workspace_bytes)?;
        let table_memory = backend.allocate(tables.len())?;
        backend.upload(&tables, &table_memory, 0)?;
        let mut program = GpuProgram {
            backend: backend.clone(),
            arena,
            workspace,
            workspace_bytes,
            _tables: table_memory,
            staging,
            pieces,
            states: addresses(&**backend, &plan, states),
            ready: Vec::new(),
            recording: None,
            plan,
        };
        let tables = program.backend.address(&program._tables);
        for ((step, list), offsets) in program.plan.steps.iter().zip(lists).zip(&table_offsets) {
            let launches = list.launches.into_iter().map(|launch| {
                let kernel = program.backend.kernel(&launch)?;
                let resolve = |a: &LaunchArg| program.resolve(step, a, tables, offsets);
                let arguments = launch.args.iter().map(resolve).collect::<Result<_>>()?;
                Ok(Ready { kernel, launch, arguments })
            });
            let launches = launches.collect::<Result<Vec<_>>>()?;
            program.ready.push(launches);
        }
        Ok(program)
    }

    /// What it does and where.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The address of a value.
    pub fn address(&self, slot: &Slot) -> u64 {
        match slot.place {
            Place::Arena(at) => self.backend.address(&self.arena) + at as u64,
            Place::State(s, at) => self.states[s] + at as u64,
        }
    }

    /// The address and size of the memory that each step may use as it likes.
    pub fn workspace(&self) -> (u64, usize) {
        (self.backend.address(&self.workspace), self.workspace_bytes)
    }

    /// The bytes of an argument.
    fn resolve(&self, step: &Step, arg: &LaunchArg, tables: u64, offsets: &[usize]) -> Result<Vec<u8>> {
        let input = |i: usize| self.address(&step.inputs[i]);
        let address = match arg {
            LaunchArg::Bytes(bytes) => return Ok(bytes.clone()),
            LaunchArg::Maps(of, maps) => {
                let address = self.resolve(step, of, tables, offsets)?;
                let address = u64::from_ne_bytes(address.try_into().expect("an address"));
                let encoded = maps.iter().map(|m| self.backend.tensor_map(m, address));
                return Ok(encoded.collect::<Result<Vec<_>>>()?.concat());
            }
            LaunchArg::Input(i) => input(*i),
            LaunchArg::InputAt(i, at) => input(*i) + (at * step.inputs[*i].dtype.size()) as u64,
            LaunchArg::Output => self.address(&step.output),
            LaunchArg::OutputAt(at) => self.address(&step.output) + (at * step.output.dtype.size()) as u64,
            LaunchArg::Workspace(at) => self.backend.address(&self.workspace) + *at as u64,
            LaunchArg::Table(i) => tables + offsets[*i] as u64,
            LaunchArg::Null => 0,
        };
        Ok(address.to_ne_bytes().to_vec())
    }

    /// Runs once. `inputs` are given by name; every declared input that is used must be there with its full size. The
    /// states must be those that the program was made for.
    pub fn run(&mut self, states: &DeviceStates<B>, inputs: &[(&str, &[f32])]) -> Result<()> {
        self.begin(states, inputs)?;
        self.go()
    }

    /// Runs on the inputs that are there, as a recording.
    pub(super) fn go(&mut self) -> Result<()> {
        if self.recording.is_none() {
            match self.record()? {
                Some(recording) => self.recording = Some(recording),
                None => return launch_all(&*self.backend, self.ready.iter().flatten()),
            }
        }
        self.backend.replay(self.recording.as_ref().expect("just recorded"))
    }

    /// Records all launches anew.
    pub(super) fn record(&self) -> Result<Option<B::Recording>> {
        self.backend.record(&mut || launch_all(&*self.backend, self.ready.iter().flatten()))
    }

    /// As [`GpuProgram::run`], never as a recording; `observe` is called for every step and must call the closure that
    /// runs it.
    pub fn run_observed(
        &mut self,
        states: &DeviceStates<B>,
        inputs: &[(&str, &[f32])],
        mut observe: impl FnMut(&Self, &Step, &mut dyn FnMut() -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        self.begin(states, inputs)?;
        let own = &*self;
        for (step, ready) in own.plan.steps.iter().zip(&own.ready) {
            observe(own, step, &mut || {
                launch_all(&*own.backend, ready)
                    .map_err(|e| Error::input(format!("{} in layer {}: {e}", step.op.name(), step.path)))
            })?;
        }
        Ok(())
    }

    /// Sends the inputs to where the run reads them.
    pub(super) fn begin(&mut self, states: &DeviceStates<B>, inputs: &[(&str, &[f32])]) -> Result<()> {
        assert_eq!(
            addresses(&*self.backend, &self.plan, states),
            self.states,
            "other states than it was made for"
        );
        let (wanted, pieces) = (&self.plan.inputs, &self.pieces);
        self.backend.stage(&mut self.staging, &mut |bytes| {
            for ((name, slot), piece) in wanted.iter().zip(pieces) {
                let (_, values) = inputs
                    .iter()
                    .find(|(n, _)| n == name)
                    .unwrap_or_else(|| panic!("input {name} is missing"));
                assert_eq!(values.len(), slot.shape.numel(), "size of input {name}");
                bytes[piece.from..piece.from + piece.bytes].copy_from_slice(bytemuck::cast_slice(values));
            }
        })?;
        self.backend.unstage(&mut self.staging, &self.arena, &self.pieces)
    }

    /// Outputs of the last run, waiting for it once.
    pub fn outputs(&self, states: &DeviceStates<B>, names: &[&str]) -> Result<Vec<Vec<f32>>> {
        let place = |name: &&str| {
            let (_, slot) = self
                .plan
                .outputs
                .iter()
                .find(|(n, _)| n == name)
                .unwrap_or_else(|| panic!("no output {name}"));
            match slot.place {
                Place::Arena(at) => (&self.arena, at, slot.bytes()),
                Place::State(s, at) => (states.get(&self.plan.states[s].name), at, slot.bytes()),
            }
        };
        read(&*self.backend, &names.iter().map(place).collect::<Vec<_>>())
    }

    /// An output of the last run.
    pub fn output(&self, states: &DeviceStates<B>, name: &str) -> Result<Vec<f32>> {
        Ok(self.outputs(states, &[name])?.swap_remove(0))
    }

    /// What lies in a slot at the moment, in single precision.
    pub(super) fn value(&self, states: &DeviceStates<B>, slot: &Slot) -> Result<Vec<f32>> {
        let (from, offset) = match slot.place {
            Place::Arena(at) => (&self.arena, at),
            Place::State(s, at) => (states.get(&self.plan.states[s].name), at),
        };
        if slot.dtype == DType::F32 {
            return Ok(read(&*self.backend, &[(from, offset, slot.bytes())])?.swap_remove(0));
        }
        let mut raw = vec![0; slot.bytes()];
        self.backend.download(&mut [Fetch { from, offset, into: &mut raw }])?;
        let half = |b: &[u8]| half::bf16::from_le_bytes([b[0], b[1]]).to_f32();
        Ok(raw.chunks_exact(2).map(half).collect())
    }

    /// A scalar output of the last run.
    pub fn scalar(&self, states: &DeviceStates<B>, name: &str) -> Result<f32> {
        Ok(self.output(states, name)?[0])
    }
}

fn launch_all<'a, B: Backend + 'a>(backend: &B, ready: impl IntoIterator<Item = &'a Ready<B>>) -> Result<()> {
    ready.into_iter().try_for_each(|r| backend.launch(&r.kernel, &r.launch, &r.arguments))
}

/// The addresses of a plan's states.
fn addresses<B: Backend>(backend: &B, plan: &Plan, states: &DeviceStates<B>) -> Vec<u64> {
    plan.states.iter().map(|s| backend.address(states.get(&s.name))).collect()
}

/// Whether a value begins where vectors may be read.
fn aligned(slot: &Slot) -> bool {
    let (Place::Arena(at) | Place::State(_, at)) = slot.place;
    at.is_multiple_of(ALIGNED)
}

fn operand(slot: &Slot) -> Operand<'_> {
    Operand { shape: &slot.shape, aligned: aligned(slot), dtype: slot.dtype }
}

/// What a step launches, checked. Its own memory is taken to be where the plan says, of an arena and states that are
/// aligned.
pub fn launches(step: &Step, gpu: &GpuTraits) -> Result<LaunchList> {
    let fault = |why: String| {
        let place = if step.path.is_empty() { String::new() } else { format!("layer {}: ", step.path) };
        Error::input(format!("{place}{}: {why}", step.op.name()))
    };
    for slot in step.inputs.iter().chain([&step.output]) {
        if i32::try_from(slot.shape.numel()).is_err() {
            return Err(fault(format!(
                "shape {} has 2^31 elements or more, which kernels do not count; lower `train.batch` or the images' extents",
                slot.shape
            )));
        }
    }
    for (i, input) in step.inputs.iter().enumerate() {
        let taken = step.reused == Some(i);
        let in_place = taken && matches!(step.op.memory(), Memory::InPlace(_));
        let same = taken && input.place == step.output.place;
        assert!(
            in_place || same || !input.overlaps(&step.output),
            "the plan lets an output overwrite input {i}"
        );
    }
    if step.output.shape.numel() == 0 {
        return Ok(LaunchList::default());
    }
    let mut inputs: Vec<Operand> = step.inputs.iter().map(operand).collect();
    let output = operand(&step.output);
    let converted = conversions(step, &mut inputs);
    let gpu =
        GpuTraits { math: if step.exact && gpu.math == Math::Bf16 { Math::Tf32 } else { gpu.math }, ..*gpu };
    let list = step.op.launches(&Operands { inputs: &inputs, output }, &gpu).map_err(fault)?;
    let list = if converted.is_empty() { list } else { convert_first(step, &inputs, &gpu, list, &converted) };
    for launch in &list.launches {
        if launch.grid.contains(&0) || launch.grid[1..].iter().any(|&g| g > 65_535) {
            return Err(fault(format!("{} cannot be launched in {:?} blocks", launch.kernel, launch.grid)));
        }
    }
    Ok(list)
}

/// The inputs that the operation takes only in another type than they are stored in; `inputs` says so afterwards.
fn conversions(step: &Step, inputs: &mut [Operand]) -> Vec<usize> {
    let wanted = |i: usize| match step.op.storage() {
        Storage::Any => None,
        Storage::Operands(free) | Storage::Product(free) | Storage::Mixed { free, .. }
            if free.contains(&i) =>
        {
            None
        }
        Storage::Mixed { alike, .. } if alike.contains(&i) => Some(step.output.dtype),
        _ => Some(DType::F32),
    };
    let mut differ = Vec::new();
    for (i, input) in inputs.iter_mut().enumerate() {
        if let Some(dtype) = wanted(i).filter(|&dtype| dtype != input.dtype) {
            *input = Operand { dtype, aligned: true, ..*input };
            differ.push(i);
        }
    }
    differ
}

/// `list` with copies of some inputs made before it, which its launches read in their place.
fn convert_first(
    step: &Step,
    inputs: &[Operand],
    gpu: &GpuTraits,
    list: LaunchList,
    which: &[usize],
) -> LaunchList {
    let mut all =
        LaunchList { workspace_bytes: list.workspace_bytes, tables: list.tables, ..Default::default() };
    let mut copies = Vec::new();
    for &i in which {
        let to = copy_as(&mut all, gpu, i, &operand(&step.inputs[i]), inputs[i].dtype);
        copies.push((i, to));
    }
    for mut launch in list.launches {
        for arg in &mut launch.args {
            let arg = if let LaunchArg::Maps(of, _) = arg { &mut **of } else { arg };
            let at = match *arg {
                LaunchArg::Input(i) => Some((i, 0)),
                LaunchArg::InputAt(i, at) => Some((i, at)),
                _ => None,
            };
            if let Some((i, at)) = at
                && let Some((_, LaunchArg::Workspace(copy))) = copies.iter().find(|(c, _)| *c == i)
            {
                *arg = LaunchArg::Workspace(copy + at * inputs[i].dtype.size());
            }
        }
        all.push(launch);
    }
    all
}

/// All tables behind one another, and where each list's begin.
fn join_tables(lists: &[LaunchList]) -> (Vec<Vec<usize>>, Vec<u8>) {
    let mut all = Vec::new();
    let mut place = |table: &Vec<u8>| {
        all.resize(all.len().next_multiple_of(ALIGNED), 0);
        let at = all.len();
        all.extend_from_slice(table);
        at
    };
    let offsets = lists.iter().map(|l| l.tables.iter().map(&mut place).collect()).collect();
    (offsets, all)
}
