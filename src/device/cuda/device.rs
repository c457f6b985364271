//! A CUDA device as a [`Backend`]: one stream in which everything happens in order, and a second one on which inputs arrive
//! while the first computes.
//!
//! Proven without a GPU are the kernels and launches (on the emulator) and the order of the calls (on a stand-in for the driver
//! that keeps a log of them); docs/kernels.md tells what an H100 showed beyond that.

#![allow(unsafe_code)]

use super::compiler::{Compiler, Specialisation};
use super::context::{Context, Event, Memory, Module, Pinned, Recording};
use super::cupti::Cupti;
use super::driver::{Driver, Version, done};
use super::nvrtc::suits;
use super::nvtx;
use crate::device::backend::{Backend, Fetch, KernelRecord, Piece, Timed};
use crate::device::choices::Choices;
use crate::device::launch::{GpuTraits, Launch, Math, Tailored};
use crate::device::limits::{Compiled, LaunchLimits, PLAIN_SHARED};
use crate::device::occupancy::{KernelFacts, Limits};
use crate::device::tensor_map::TensorMap;
use crate::error::{Error, Result};
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUfunction_attribute as FunctionAttribute};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex};

/// Reads of so many bytes go by way of pinned memory: the losses of a step in one.
const SMALL_READ: usize = 64 * 1024;

/// Which convolutions take the kernels of sm_90a: the variable GAN_HOPPER, or those that fill their tiles.
pub fn hopper_setting() -> Result<Tailored> {
    setting("GAN_HOPPER")
}

/// Which convolutions take the kernels for few channels: the variable GAN_WINDOW, or those of enough pixels.
pub fn window_setting() -> Result<Tailored> {
    setting("GAN_WINDOW")
}

fn setting(variable: &str) -> Result<Tailored> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => {
            text.parse().map_err(|e| Error::input(format!("{variable} = {text:?}: {e}")))
        }
        _ => Ok(Tailored::Auto),
    }
}

/// A kernel of a loaded module.
pub struct Kernel {
    function: sys::CUfunction,
    _module: Arc<Module>,
}

/// Two areas that take turns: one is filled and sent while the other is still on its way or being read.
pub struct Staging {
    turns: [Turn; 2],
    turn: usize,
    context: Arc<Context>,
}

struct Turn {
    host: Pinned,
    device: Memory,
    /// When the bytes have arrived: then `host` may be filled again.
    arrived: Event,
    /// When they were copied to where runs read them: then `device` may be written again.
    taken: Event,
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The areas are given back in the order of the other stream: nothing may be on its way any more.
        let _ = self.context.enter();
        let _ = self.context.finish(self.context.uploads);
    }
}

/// A CUDA device.
pub struct CudaDevice {
    context: Arc<Context>,
    compiler: Compiler,
    modules: Mutex<HashMap<Specialisation, Arc<Module>>>,
    reads: Mutex<Pinned>,
    traits: GpuTraits,
    /// Which variants of kernels programs take that are planned from now on.
    choices: Mutex<Option<&'static Choices>>,
    target: String,
    limits: LaunchLimits,
    ordinal: usize,
    capability: u32,
    name: String,
}

impl std::fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cuda:{} ({})", self.ordinal, self.name)
    }
}

impl CudaDevice {
    /// Opens device number `ordinal` for matrix products of the given arithmetic.
    pub fn open(ordinal: usize, math: Math) -> Result<Self> {
        let driver = Driver::load()?;
        let context = Context::open(driver, ordinal)?;
        let compiler = Compiler::for_driver(driver.version)?;
        let major = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let multiprocessors = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        if math != Math::Fma && major < 8 {
            return Err(Error::input(format!(
                "the device (compute capability {major}.{minor}) has no tensor cores for {}; 8.0 is needed: use `--precision f32`",
                math.name()
            )));
        }
        let capability = (10 * major + minor) as u32;
        let target = compiler.nvrtc().target(capability)?;
        let nvrtc = compiler.nvrtc();
        suits(driver.version, nvrtc.version, &nvrtc.origin, target.starts_with("compute_"))?;
        // Their code is for this architecture alone, and their operands' maps take a driver that knows it.
        let hopper = if target == "sm_90a" && context.driver.has_tensor_maps() {
            hopper_setting()?
        } else {
            Tailored::Off
        };
        let limit = |which| context.attribute(which);
        let grid =
            |which| -> Result<u32> { Ok(u32::try_from(context.attribute(which)?).unwrap_or(u32::MAX)) };
        let limits = LaunchLimits {
            grid: [
                grid(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
                grid(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
                grid(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
            ],
            threads: limit(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            registers: limit(Attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK)?,
            shared: limit(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            // No attribute tells it.
            arguments: LaunchLimits::argument_bytes(capability, driver.version.min(nvrtc.version) >= (12, 1)),
        };
        Ok(CudaDevice {
            name: context.name()?,
            limits,
            reads: Mutex::new(Pinned::new(&context, SMALL_READ)?),
            context,
            compiler,
            modules: Mutex::default(),
            traits: GpuTraits {
                multiprocessors,
                math,
                fixed_shapes: true,
                fused: true,
                choices: None,
                hopper,
                window: window_setting()?,
            },
            choices: Mutex::default(),
            target,
            ordinal,
            capability,
        })
    }

    /// Lets programs that are planned from now on take these variants of kernels, or what the rule by shape says.
    pub fn choose(&self, choices: Option<&'static Choices>) {
        *self.choices.lock().unwrap_or_else(|e| e.into_inner()) = choices;
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// How it multiplies.
    pub fn precision(&self) -> Math {
        self.traits.math
    }

    /// Its name, as its maker gives it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The newest CUDA that the driver runs.
    pub fn driver_version(&self) -> Version {
        self.context.driver.version
    }

    /// Free and total bytes of memory.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.context.memory()
    }

    /// The run-time compiler and its cache.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// What kernels are compiled for: `sm_90a`, or `compute_90` where the driver translates for a newer device.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Its compute capability, such as 90 for 9.0.
    pub fn capability(&self) -> u32 {
        self.capability
    }

    /// Blocks that run side by side, at one a multiprocessor.
    pub fn multiprocessors(&self) -> usize {
        self.traits.multiprocessors
    }

    /// One line about what computes here.
    pub fn describe(&self) -> String {
        let (driver, nvrtc) = (self.driver_version(), self.compiler.nvrtc());
        let translated = match self.target.strip_prefix("compute_") {
            Some(_) => format!(", newer than the compiler: the driver translates {}", self.target),
            None => String::new(),
        };
        let pool = if self.context.pooled { "" } else { ", without a memory pool" };
        let kernels = match (self.target.as_str(), self.traits.math, self.traits.hopper) {
            (_, Math::Bf16, Tailored::Auto) => ", sm_90a's own convolutions",
            (_, Math::Bf16, Tailored::Always) => ", sm_90a's own convolutions wherever they can",
            ("sm_90a", Math::Bf16, Tailored::Off) => ", without sm_90a's own convolutions",
            _ => "",
        };
        let window = match (self.traits.math, self.traits.window) {
            (Math::Bf16, Tailored::Off) => ", without those for few channels",
            (Math::Bf16, Tailored::Always) => ", those for few channels wherever they can",
            _ => "",
        };
        format!(
            "cuda:{} {} (compute capability {}.{}{translated}{pool}{kernels}{window}), driver for CUDA {}.{}, NVRTC {}.{}",
            self.ordinal,
            self.name,
            self.capability / 10,
            self.capability % 10,
            driver.0,
            driver.1,
            nvrtc.version.0,
            nvrtc.version.1,
        )
    }

    /// What the device lets be launched.
    pub fn launch_limits(&self) -> LaunchLimits {
        self.limits
    }

    /// The refusal of what the device cannot do, with a way out.
    fn cannot(&self, why: &str) -> Error {
        Error::input(format!(
            "{} cannot run this: {why}; use another `--precision`, a smaller batch or image, or `--device cpu`, and report this with the output of `gan doctor`",
            self.name
        ))
    }

    /// The module of a specialisation, compiled and loaded once.
    fn module(&self, what: &Specialisation) -> Result<Arc<Module>> {
        let mut modules = self.modules.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(module) = modules.get(what) {
            return Ok(module.clone());
        }
        let mut code = self.compiler.image(what, &self.target)?.bytes;
        code.push(0);
        let purpose = format!("load {} for {}", what.file, self.target);
        let module = Arc::new(Module::load(&self.context, &code, &purpose)?);
        modules.insert(what.clone(), module.clone());
        Ok(module)
    }
}

/// An attribute of a function whose module is loaded.
fn ask(function: sys::CUfunction, which: FunctionAttribute) -> Result<usize> {
    // SAFETY: a function of a module that stays loaded, as the caller has seen to.
    let value = unsafe { result::function::get_function_attribute(function, which) };
    Ok(done(value, "ask what a kernel takes")?.max(0) as usize)
}

/// What a function whose module is loaded demands of its launches.
fn compiled(function: sys::CUfunction) -> Result<Compiled> {
    Ok(Compiled {
        registers: ask(function, FunctionAttribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
        static_shared: ask(function, FunctionAttribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
        threads: ask(function, FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
    })
}

impl Backend for CudaDevice {
    type Memory = Memory;
    type Staging = Staging;
    type Kernel = Kernel;
    type Recording = Recording;

    fn traits(&self) -> GpuTraits {
        GpuTraits { choices: *self.choices.lock().unwrap_or_else(|e| e.into_inner()), ..self.traits }
    }

    fn available(&self) -> Option<u64> {
        self.context.memory().ok().map(|(free, _)| free)
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        Memory::new(&self.context, bytes)
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.address
    }

    fn tensor_map(&self, map: &TensorMap, address: u64) -> Result<Vec<u8>> {
        map.check(address).map_err(|e| self.cannot(&e))?;
        self.context.enter()?;
        self.context.driver.tensor_map(map, address)
    }

    fn upload(&self, bytes: &[u8], to: &Memory, offset: usize) -> Result<()> {
        assert!(offset + bytes.len() <= to.bytes, "an upload beyond the end");
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.enter()?;
        let at = to.address + offset as u64;
        // SAFETY: source and destination are as long as told; from pageable memory the driver returns when it has read
        // everything.
        let copied = unsafe { result::memcpy_htod_async(at, bytes, self.context.compute) };
        done(copied, "copy to the device")
    }

    fn download(&self, what: &mut [Fetch<Memory>]) -> Result<()> {
        self.context.enter()?;
        let total: usize = what.iter().map(|f| f.into.len()).sum();
        let mut reads = self.reads.lock().unwrap_or_else(|e| e.into_inner());
        let small = total <= SMALL_READ;
        let mut rest = reads.bytes();
        let mut started = Ok(());
        for fetch in what.iter_mut().filter(|f| !f.into.is_empty()) {
            assert!(fetch.offset + fetch.into.len() <= fetch.from.bytes, "a download beyond the end");
            let at = fetch.from.address + fetch.offset as u64;
            let into = if small {
                let (own, others) = rest.split_at_mut(fetch.into.len());
                rest = others;
                own
            } else {
                &mut *fetch.into
            };
            // SAFETY: source and destination are as long as told, and both stay until the stream has come this far: the
            // wait below is not left out.
            let copied = unsafe { result::memcpy_dtoh_async(into, at, self.context.compute) };
            started = started.and(done(copied, "copy from the device"));
        }
        started.and(self.context.finish(self.context.compute))?;
        if small {
            let mut rest = &*reads.bytes();
            for fetch in what {
                let (own, others) = rest.split_at(fetch.into.len());
                fetch.into.copy_from_slice(own);
                rest = others;
            }
        }
        Ok(())
    }

    fn staging(&self, bytes: usize) -> Result<Staging> {
        let turn = || -> Result<Turn> {
            Ok(Turn {
                host: Pinned::new(&self.context, bytes)?,
                device: Memory::new(&self.context, bytes)?,
                arrived: Event::new(&self.context)?,
                taken: Event::new(&self.context)?,
            })
        };
        let turns = [turn()?, turn()?];
        // The areas are there when the stream for computing has come this far.
        for turn in &turns {
            turn.taken.record(self.context.compute)?;
        }
        Ok(Staging { turns, turn: 0, context: self.context.clone() })
    }

    fn stage(&self, staging: &mut Staging, fill: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        self.context.enter()?;
        let (compute, uploads) = (self.context.compute, self.context.uploads);
        staging.turn = 1 - staging.turn;
        let turn = &mut staging.turns[staging.turn];
        turn.arrived.wait()?;
        let bytes = turn.device.bytes;
        fill(&mut turn.host.bytes()[..bytes]);
        self.context.wait(uploads, &turn.taken)?;
        let host = &turn.host.bytes()[..bytes];
        // SAFETY: both areas are as long as told; the host's is not touched before `arrived`, the device's was taken.
        let copied = unsafe { result::memcpy_htod_async(turn.device.address, host, uploads) };
        done(copied, "copy to the device")?;
        turn.arrived.record(uploads)?;
        self.context.wait(compute, &turn.arrived)
    }

    fn unstage(&self, staging: &mut Staging, to: &Memory, pieces: &[Piece]) -> Result<()> {
        self.context.enter()?;
        let turn = &staging.turns[staging.turn];
        for piece in pieces.iter().filter(|p| p.bytes > 0) {
            assert!(piece.from + piece.bytes <= turn.device.bytes, "a piece beyond the end of its source");
            assert!(piece.to + piece.bytes <= to.bytes, "a piece beyond the end of its destination");
            let (from, to) = (turn.device.address + piece.from as u64, to.address + piece.to as u64);
            // SAFETY: both lie in memory of this device, and are as long as told.
            let copied = unsafe { result::memcpy_dtod_async(to, from, piece.bytes, self.context.compute) };
            done(copied, "copy within the device")?;
        }
        turn.taken.record(self.context.compute)
    }

    fn compile(&self, all: &mut dyn Iterator<Item = &Specialisation>) -> Result<()> {
        // Those that are loaded need not be looked for in the cache.
        let modules = self.modules.lock().unwrap_or_else(|e| e.into_inner());
        let new: Vec<&Specialisation> = all.filter(|what| !modules.contains_key(*what)).collect();
        drop(modules);
        self.compiler.compile_all(new, &self.target, None).map(|_| ())
    }

    fn kernel(&self, launch: &Launch) -> Result<Kernel> {
        let (what, name, shared) = (&launch.specialisation, launch.kernel, launch.shared);
        self.context.enter()?;
        let module = self.module(what)?;
        let text = CString::new(name).expect("kernel names hold no NUL");
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(module.handle, text) };
        let function = done(function, &format!("find the kernel {name} in {}", what.file))?;
        let compiled = compiled(function)?;
        self.limits.check(launch, &compiled).map_err(|e| self.cannot(&e))?;
        // What is static counts as well.
        if shared + compiled.static_shared > PLAIN_SHARED {
            let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a function of a loaded module, and an attribute that takes a number of bytes.
            let set = unsafe { result::function::set_function_attribute(function, most, shared as i32) };
            done(set, &format!("give {name} {shared} bytes of shared memory"))?;
        }
        Ok(Kernel { function, _module: module })
    }

    fn launch(&self, kernel: &Kernel, launch: &Launch, arguments: &[Vec<u8>]) -> Result<()> {
        self.context.enter()?;
        // Each argument at a 16-byte boundary, as a struct may want.
        let words: Vec<Vec<u128>> = arguments
            .iter()
            .map(|bytes| {
                let mut words = vec![0; bytes.len().div_ceil(16)];
                bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
                words
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = words.iter().map(|w| w.as_ptr().cast_mut().cast()).collect();
        // SAFETY: number and sizes of the arguments are those of the kernel, as the emulator has checked for the same
        // launches; the driver copies them before it returns; addresses were resolved to memory that the program holds.
        let launched = unsafe {
            result::launch_kernel(
                kernel.function,
                launch.grid.into(),
                (launch.threads, 1, 1),
                launch.shared as u32,
                self.context.compute,
                &mut pointers,
            )
        };
        done(launched, &format!("launch {}", launch.kernel))
    }

    fn record(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<Option<Recording>> {
        self.context.enter()?;
        Recording::of(&self.context, run).map(Some)
    }

    fn replay(&self, recording: &Recording) -> Result<()> {
        self.context.enter()?;
        // SAFETY: instantiated in this context; the memory that it works on belongs to the same program.
        let launched = unsafe { result::graph::launch(recording.executable, self.context.compute) };
        done(launched, "replay a recorded run")
    }

    fn finish(&self) -> Result<()> {
        self.context.enter()?;
        self.context.finish(self.context.compute)
    }
}

impl Timed for CudaDevice {
    type Mark = Event;

    fn mark(&self) -> Result<Event> {
        Event::timing(&self.context)
    }

    fn place(&self, mark: &Event) -> Result<()> {
        self.context.enter()?;
        mark.record(self.context.compute)
    }

    fn seconds(&self, from: &Event, to: &Event) -> Result<f64> {
        self.context.enter()?;
        from.seconds_until(to)
    }

    fn facts(&self, kernel: &Kernel) -> Result<KernelFacts> {
        self.context.enter()?;
        let Compiled { registers, static_shared, .. } = compiled(kernel.function)?;
        let local = ask(kernel.function, FunctionAttribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?;
        Ok(KernelFacts { registers, static_shared, local })
    }

    fn limits(&self) -> Result<Limits> {
        let ask = |which| self.context.attribute(which);
        Ok(Limits {
            threads: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
            blocks: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR)?,
            registers: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR)?,
            shared: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
            // A driver of CUDA 11.4 knows all of them.
            reserved: ask(Attribute::CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK)?,
        })
    }

    fn note(&self) -> std::result::Result<String, String> {
        let cupti = Cupti::find(self.driver_version())?;
        cupti.begin()?;
        Ok(cupti.describe())
    }

    fn noted(&self) -> std::result::Result<Vec<KernelRecord>, String> {
        Backend::finish(self).map_err(|e| e.to_string())?;
        Cupti::find(self.driver_version())?.end()
    }

    fn enter(&self, name: &str) {
        nvtx::push(name);
    }

    fn leave(&self) {
        nvtx::pop();
    }
}
