//! The emulator as a device, and a watch over what each step of a program writes.

use gan::compile::plan::Step;
use gan::device::backend::{Backend, Fetch, Piece, Timed};
use gan::device::launch::{GpuTraits, Launch, Math, Specialisation, Tailored};
use gan::device::limits::{Compiled, LaunchLimits};
use gan::device::occupancy::{KernelFacts, Limits};
use gan::device::tensor_map::TensorMap;
use gan::error::{Error, Result};
use gan::exec::States;
use gan::exec::gpu::{DeviceStates, GpuProgram};
use gan::graph::{Graph, Var};
use gan_emu::{Arg, Buffer, Build, Mode, Module, Shape};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// A device made of the emulator: kernels are compiled as C++, memory is the host's and reads as NaN until written.
pub struct Emulator {
    pub mode: Mode,
    pub traits: GpuTraits,
    memory: RefCell<Vec<Weak<Buffer>>>,
}

impl Emulator {
    pub fn new(mode: Mode, math: Math) -> Arc<Self> {
        Self::with(mode, math, true)
    }

    /// With or without fusion.
    pub fn with(mode: Mode, math: Math, fused: bool) -> Arc<Self> {
        Self::like(mode, math, fused, Tailored::Off, Tailored::Off)
    }

    /// With or without the kernels of sm_90a, and those for few channels.
    pub fn like(mode: Mode, math: Math, fused: bool, hopper: Tailored, window: Tailored) -> Arc<Self> {
        // Few multiprocessors, so that loops take several turns; more than one, so that long sums are sliced.
        let traits =
            GpuTraits { multiprocessors: 3, math, fixed_shapes: false, fused, choices: None, hopper, window };
        #[allow(clippy::arc_with_non_send_sync)]
        // a program holds its device by Arc; this one stays in its thread
        Arc::new(Emulator { mode, traits, memory: RefCell::default() })
    }

    fn live(&self) -> Vec<Rc<Buffer>> {
        self.memory.borrow().iter().filter_map(Weak::upgrade).collect()
    }
}

fn fault(e: String) -> Error {
    Error::input(e)
}

/// A built kernel file; each specialisation is built and loaded once.
fn module(what: &Specialisation) -> Arc<Module> {
    type Slot = Arc<OnceLock<Arc<Module>>>;
    static LOADED: OnceLock<Mutex<HashMap<Specialisation, Slot>>> = OnceLock::new();
    let slot = LOADED.get_or_init(Mutex::default).lock().unwrap().entry(what.clone()).or_default().clone();
    slot.get_or_init(|| {
        let kernels = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let build = Build::new(kernels, what.file).define(&what.constants);
        Arc::new(build.load().unwrap_or_else(|e| panic!("{e}")))
    })
    .clone()
}

impl Backend for Emulator {
    type Memory = Rc<Buffer>;
    type Staging = Vec<u8>;
    type Kernel = Arc<Module>;
    type Recording = ();

    fn traits(&self) -> GpuTraits {
        self.traits
    }

    fn available(&self) -> Option<u64> {
        None
    }

    fn allocate(&self, bytes: usize) -> Result<Rc<Buffer>> {
        let buffer = Rc::new(Buffer::poisoned(bytes));
        self.memory.borrow_mut().push(Rc::downgrade(&buffer));
        Ok(buffer)
    }

    fn address(&self, memory: &Rc<Buffer>) -> u64 {
        memory.pointer() as u64
    }

    fn tensor_map(&self, map: &TensorMap, address: u64) -> Result<Vec<u8>> {
        map.check(address).map_err(fault)?;
        Ok(map.describe(address))
    }

    fn upload(&self, bytes: &[u8], to: &Rc<Buffer>, offset: usize) -> Result<()> {
        to.write(offset, bytes);
        Ok(())
    }

    fn download(&self, what: &mut [Fetch<Rc<Buffer>>]) -> Result<()> {
        for fetch in what {
            let end = fetch.offset + fetch.into.len();
            fetch.into.copy_from_slice(&fetch.from.bytes()[fetch.offset..end]);
        }
        Ok(())
    }

    fn staging(&self, bytes: usize) -> Result<Vec<u8>> {
        Ok(vec![0xff; bytes])
    }

    fn stage(&self, staging: &mut Vec<u8>, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        fill(staging);
        Ok(())
    }

    fn unstage(&self, staging: &mut Vec<u8>, to: &Rc<Buffer>, pieces: &[Piece]) -> Result<()> {
        pieces.iter().for_each(|p| to.write(p.to, &staging[p.from..p.from + p.bytes]));
        staging.fill(0xff);
        Ok(())
    }

    /// Static shared memory and launch bounds are looked at by the emulator itself, when it runs the kernel.
    fn kernel(&self, launch: &Launch) -> Result<Arc<Module>> {
        let unknown = Compiled { registers: 0, static_shared: 0, threads: 1024 };
        LaunchLimits::of(90, true).check(launch, &unknown).map_err(fault)?;
        Ok(module(&launch.specialisation))
    }

    fn launch(&self, kernel: &Arc<Module>, launch: &Launch, arguments: &[Vec<u8>]) -> Result<()> {
        let shape = Shape { grid: launch.grid, threads: launch.threads, shared: launch.shared };
        let args: Vec<Arg> = arguments.iter().map(|bytes| Arg::Value(bytes.clone())).collect();
        kernel.launch(launch.kernel, shape, &args, self.mode).map_err(fault)?;
        for buffer in self.live() {
            buffer.check().map_err(|e| fault(format!("{}: {e}", launch.kernel)))?;
        }
        Ok(())
    }

    fn record(&self, _: &mut dyn FnMut() -> Result<()>) -> Result<Option<()>> {
        Ok(None)
    }

    fn replay(&self, (): &()) -> Result<()> {
        unreachable!("nothing is recorded")
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Everything is done when the call returns, so marks are moments. Of what kernels take it knows nothing: fixed numbers.
impl Timed for Emulator {
    type Mark = Cell<Option<Instant>>;

    fn mark(&self) -> Result<Self::Mark> {
        Ok(Cell::new(None))
    }

    fn place(&self, mark: &Self::Mark) -> Result<()> {
        mark.set(Some(Instant::now()));
        Ok(())
    }

    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64> {
        let at = |mark: &Self::Mark| mark.get().ok_or_else(|| fault("a mark that was never placed".into()));
        Ok(at(to)?.duration_since(at(from)?).as_secs_f64())
    }

    fn facts(&self, _: &Arc<Module>) -> Result<KernelFacts> {
        Ok(KernelFacts { registers: 64, static_shared: 1024, local: 0 })
    }

    fn limits(&self) -> Result<Limits> {
        Ok(Limits { threads: 2048, blocks: 32, registers: 65536, shared: 228 << 10, reserved: 1024 })
    }
}

/// A graph, made ready on an emulator, with its states.
pub struct Emulated {
    emulator: Arc<Emulator>,
    pub program: GpuProgram<Emulator>,
    pub states: DeviceStates<Emulator>,
}

impl Emulated {
    pub fn new(
        emulator: &Arc<Emulator>,
        graph: &Graph,
        outputs: &[(&str, &Var)],
        states: &States,
    ) -> Result<Self> {
        let states = DeviceStates::new(emulator, states)?;
        let program = GpuProgram::new(emulator, graph, outputs, &states)?;
        Ok(Emulated { emulator: emulator.clone(), program, states })
    }

    /// Runs once, and fails if a step writes anything but its output and the workspace. The workspace holds NaN
    /// whenever a step begins.
    pub fn run(&mut self, inputs: &[(&str, &[f32])]) -> Result<()> {
        let emulator = self.emulator.clone();
        self.program.run_observed(&self.states, inputs, |program, step, run| {
            let (workspace, size) = program.workspace();
            let own = [(program.address(&step.output), step.output.bytes()), (workspace, size)];
            let buffers = emulator.live();
            let scratch = buffers.iter().find(|b| b.pointer() as u64 == workspace).expect("a buffer");
            scratch.write(0, &vec![0xff; size]);
            let before: Vec<Vec<u8>> = buffers.iter().map(|b| b.bytes().to_vec()).collect();
            run()?;
            for (buffer, before) in buffers.iter().zip(&before) {
                untouched(step, buffer, before, &own)?;
            }
            Ok(())
        })
    }

    pub fn output(&self, name: &str) -> Vec<f32> {
        self.program.output(&self.states, name).expect("an output")
    }
}

/// Fails if anything outside `own` (addresses and sizes) has changed.
fn untouched(step: &Step, buffer: &Buffer, before: &[u8], own: &[(u64, usize)]) -> Result<()> {
    let (start, now) = (buffer.pointer() as u64, buffer.bytes());
    let mut at = 0;
    let mut ends: Vec<(usize, usize)> = own
        .iter()
        .filter(|(a, n)| *a >= start && (*a - start) as usize + n <= now.len())
        .map(|(a, n)| ((a - start) as usize, (a - start) as usize + n))
        .collect();
    ends.sort_unstable();
    for (from, to) in ends.into_iter().chain([(now.len(), now.len())]) {
        if from > at && now[at..from] != before[at..from] {
            return Err(fault(format!("{} writes outside its output", step.op.name())));
        }
        at = at.max(to);
    }
    Ok(())
}
