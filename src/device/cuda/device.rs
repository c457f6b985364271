//! A CUDA device as a [`Backend`]: one stream, in which everything happens in order.
//!
//! Not yet run on a GPU: what is proven without one are the kernels, the launches and the order of calls, on the
//! emulator; this file's calls of the driver are written after its documentation.

#![allow(unsafe_code)]

use super::compiler::{Compiler, Specialisation};
use super::driver::{Address, Driver, Handle};
use crate::device::backend::Backend;
use crate::device::launch::{GpuTraits, Launch, Math};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Arc, Mutex};

/// Numbers of cuda.h.
const MULTIPROCESSORS: c_int = 16;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;
const MAX_DYNAMIC_SHARED: c_int = 8;
const NON_BLOCKING: u32 = 1;
const CAPTURE_THREAD_LOCAL: c_int = 1;

/// Dynamic shared memory that needs no asking for.
const PLAIN_SHARED: usize = 48 * 1024;

/// What memory, modules and recordings need when they are dropped.
struct Context {
    driver: Driver,
    device: c_int,
    context: Handle,
    stream: Handle,
}

// SAFETY: the driver's handles may be used from any thread that has made the context current, which every method does.
unsafe impl Send for Context {}
// SAFETY: as above; the driver locks its own structures.
unsafe impl Sync for Context {}

impl Context {
    /// Makes the context this thread's current one.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained until `Context` is dropped.
        let code = unsafe { (self.driver.call.set_context)(self.context) };
        self.driver.check(code, "use the device")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: everything made in the context holds an `Arc` of it, so it is gone by now; failures leave nothing to do.
        unsafe {
            (self.driver.call.set_context)(self.context);
            if !self.stream.is_null() {
                (self.driver.call.destroy_stream)(self.stream);
            }
            (self.driver.call.release_context)(self.device);
        }
    }
}

/// A stretch of the device's memory.
pub struct Memory {
    address: Address,
    bytes: usize,
    owner: Arc<Context>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in this context and freed once; the driver waits for what still uses it.
        unsafe {
            (self.owner.driver.call.set_context)(self.owner.context);
            (self.owner.driver.call.free)(self.address);
        }
    }
}

struct Module {
    handle: Handle,
    owner: Arc<Context>,
}

// SAFETY: as for `Context`.
unsafe impl Send for Module {}
// SAFETY: as for `Context`.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded in this context and unloaded once.
        unsafe {
            (self.owner.driver.call.set_context)(self.owner.context);
            (self.owner.driver.call.unload_module)(self.handle);
        }
    }
}

/// A kernel of a loaded module.
pub struct Kernel {
    function: Handle,
    _module: Arc<Module>,
}

/// A recorded run: an executable CUDA graph.
pub struct Recording {
    executable: Handle,
    owner: Arc<Context>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        // SAFETY: instantiated in this context and destroyed once.
        unsafe {
            (self.owner.driver.call.set_context)(self.owner.context);
            (self.owner.driver.call.destroy_executable)(self.executable);
        }
    }
}

/// A CUDA device.
pub struct CudaDevice {
    context: Arc<Context>,
    compiler: Compiler,
    modules: Mutex<HashMap<Specialisation, Arc<Module>>>,
    traits: GpuTraits,
    architecture: String,
    /// The device's name, as its maker gives it.
    pub name: String,
}

impl CudaDevice {
    /// Opens device number `ordinal` for matrix products of the given arithmetic.
    pub fn open(ordinal: usize, math: Math) -> Result<Self> {
        let driver = Driver::load()?;
        let (mut count, mut device, mut handle) = (0, 0, std::ptr::null_mut());
        // SAFETY: one integer to write to.
        driver.check(unsafe { (driver.call.device_count)(&mut count) }, "count the NVIDIA devices")?;
        if ordinal >= count as usize {
            return Err(Error::input(format!(
                "there is no NVIDIA device number {ordinal} ({count} are visible); see CUDA_VISIBLE_DEVICES, or use `--device cpu`"
            )));
        }
        // SAFETY: one integer to write to; the number was just checked.
        driver.check(unsafe { (driver.call.device)(&mut device, ordinal as c_int) }, "open the device")?;
        // SAFETY: one handle to write to; released when `Context` is dropped.
        let code = unsafe { (driver.call.retain_context)(&mut handle, device) };
        driver.check(code, "open the device")?;
        let mut context = Context { driver, device, context: handle, stream: std::ptr::null_mut() };
        context.enter()?;
        let mut stream = std::ptr::null_mut();
        // SAFETY: one handle to write to, in the current context.
        let code = unsafe { (context.driver.call.create_stream)(&mut stream, NON_BLOCKING) };
        context.driver.check(code, "make a stream")?;
        context.stream = stream;

        let attribute = |which: c_int| -> Result<usize> {
            let mut value = 0;
            // SAFETY: one integer to write to.
            let code = unsafe { (context.driver.call.device_attribute)(&mut value, which, device) };
            context.driver.check(code, "ask what the device is")?;
            Ok(value as usize)
        };
        let (major, minor) = (attribute(CAPABILITY_MAJOR)?, attribute(CAPABILITY_MINOR)?);
        let multiprocessors = attribute(MULTIPROCESSORS)?;
        if math != Math::Fma && major < 8 {
            return Err(Error::input(format!(
                "the device (compute capability {major}.{minor}) has no tensor cores for {math:?}; 8.0 is needed; use f32"
            )));
        }
        let mut name = [0u8; 256];
        // SAFETY: as many bytes to write to as are told.
        let code = unsafe {
            (context.driver.call.device_name)(name.as_mut_ptr().cast(), name.len() as c_int, device)
        };
        context.driver.check(code, "ask for the device's name")?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        Ok(CudaDevice {
            context: Arc::new(context),
            compiler: Compiler::new()?,
            modules: Mutex::default(),
            traits: GpuTraits { multiprocessors, math, fixed_shapes: true },
            architecture: format!("{major}{minor}"),
            name: String::from_utf8_lossy(&name[..end]).into_owned(),
        })
    }

    /// The newest CUDA version that the driver runs, such as 13000 for 13.0.
    pub fn driver_version(&self) -> i32 {
        self.context.driver.version
    }

    fn check(&self, code: c_int, what: &str) -> Result<()> {
        self.context.driver.check(code, what)
    }

    /// The module of a specialisation, compiled and loaded once.
    fn module(&self, what: &Specialisation) -> Result<Arc<Module>> {
        let mut modules = self.modules.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(module) = modules.get(what) {
            return Ok(module.clone());
        }
        let mut code = self.compiler.image(what, &format!("sm_{}", self.architecture))?.bytes;
        code.push(0);
        let mut handle = std::ptr::null_mut();
        // SAFETY: one handle to write to; the code outlives the call, and its header tells its length.
        let status = unsafe { (self.context.driver.call.load_module)(&mut handle, code.as_ptr().cast()) };
        self.check(status, &format!("load {} for sm_{}", what.file, self.architecture))?;
        let module = Arc::new(Module { handle, owner: self.context.clone() });
        modules.insert(what.clone(), module.clone());
        Ok(module)
    }
}

impl Backend for CudaDevice {
    type Memory = Memory;
    type Kernel = Kernel;
    type Recording = Recording;

    fn traits(&self) -> GpuTraits {
        self.traits
    }

    fn available(&self) -> Option<u64> {
        self.context.enter().ok()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: two integers to write to.
        let code = unsafe { (self.context.driver.call.free_memory)(&mut free, &mut total) };
        (code == 0).then_some(free as u64)
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        self.context.enter()?;
        let mut address = 0;
        // SAFETY: one address to write to; nothing is asked for zero bytes, which the driver refuses.
        let code = unsafe { (self.context.driver.call.allocate)(&mut address, bytes.max(1)) };
        self.check(code, &format!("reserve {bytes} bytes of the device's memory"))?;
        Ok(Memory { address, bytes, owner: self.context.clone() })
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.address
    }

    fn upload(&self, bytes: &[u8], to: &Memory, offset: usize) -> Result<()> {
        assert!(offset + bytes.len() <= to.bytes, "an upload beyond the end");
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: source and destination are as long as told; from pageable memory the driver returns when it has read
        // everything.
        let code = unsafe {
            (self.context.driver.call.upload)(
                to.address + offset as u64,
                bytes.as_ptr().cast(),
                bytes.len(),
                self.context.stream,
            )
        };
        self.check(code, "copy to the device")
    }

    fn download(&self, from: &Memory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        assert!(offset + bytes.len() <= from.bytes, "a download beyond the end");
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.enter()?;
        let call = &self.context.driver.call;
        // SAFETY: source and destination are as long as told, and the borrow lasts until the stream has come this far.
        let code = unsafe {
            let started = (call.download)(
                bytes.as_mut_ptr().cast(),
                from.address + offset as u64,
                bytes.len(),
                self.context.stream,
            );
            let finished = (call.synchronise)(self.context.stream);
            if started != 0 { started } else { finished }
        };
        self.check(code, "copy from the device")
    }

    fn kernel(&self, what: &Specialisation, name: &'static str, shared: usize) -> Result<Kernel> {
        self.context.enter()?;
        let module = self.module(what)?;
        let text = CString::new(name).expect("kernel names hold no NUL");
        let mut function = std::ptr::null_mut();
        // SAFETY: one handle to write to; the module is loaded, the name ends in NUL.
        let code =
            unsafe { (self.context.driver.call.function)(&mut function, module.handle, text.as_ptr()) };
        self.check(code, &format!("find the kernel {name} in {}", what.file))?;
        if shared > PLAIN_SHARED {
            // SAFETY: a function of a loaded module, and an attribute that takes a number of bytes.
            let code = unsafe {
                (self.context.driver.call.set_attribute)(function, MAX_DYNAMIC_SHARED, shared as c_int)
            };
            self.check(code, &format!("give {name} {shared} bytes of shared memory"))?;
        }
        Ok(Kernel { function, _module: module })
    }

    fn launch(&self, kernel: &Kernel, launch: &Launch, arguments: &[Vec<u8>]) -> Result<()> {
        self.context.enter()?;
        // Each argument at a 16-byte boundary, as a struct may want.
        let words: Vec<Vec<u128>> = arguments
            .iter()
            .map(|bytes| {
                let word = |b: &[u8]| {
                    let mut word = [0; 16];
                    word[..b.len()].copy_from_slice(b);
                    u128::from_ne_bytes(word)
                };
                bytes.chunks(16).map(word).collect()
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = words.iter().map(|w| w.as_ptr().cast_mut().cast()).collect();
        let [x, y, z] = launch.grid;
        // SAFETY: number and sizes of the arguments are those of the kernel, as the emulator has checked for the same
        // launches; the driver copies them before it returns; addresses were resolved to memory that the program holds.
        let code = unsafe {
            (self.context.driver.call.launch)(
                kernel.function,
                x,
                y,
                z,
                launch.threads,
                1,
                1,
                launch.shared as u32,
                self.context.stream,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        self.check(code, &format!("launch {}", launch.kernel))
    }

    fn record(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<Option<Recording>> {
        self.context.enter()?;
        let call = &self.context.driver.call;
        // SAFETY: our own stream, which no other thread captures.
        let code = unsafe { (call.begin_capture)(self.context.stream, CAPTURE_THREAD_LOCAL) };
        self.check(code, "begin to record a run")?;
        let ran = run();
        let mut graph = std::ptr::null_mut();
        // SAFETY: ends the capture begun above, whatever has happened in between; one handle to write to.
        let code = unsafe { (call.end_capture)(self.context.stream, &mut graph) };
        ran?;
        self.check(code, "record a run")?;
        let mut executable = std::ptr::null_mut();
        // SAFETY: the graph was just made, and is not needed once it is instantiated.
        let code = unsafe {
            let code = (call.instantiate)(&mut executable, graph, 0);
            (call.destroy_graph)(graph);
            code
        };
        self.check(code, "make a recorded run ready")?;
        Ok(Some(Recording { executable, owner: self.context.clone() }))
    }

    fn replay(&self, recording: &Recording) -> Result<()> {
        self.context.enter()?;
        // SAFETY: instantiated in this context; the memory that it works on belongs to the same program.
        let code =
            unsafe { (self.context.driver.call.launch_graph)(recording.executable, self.context.stream) };
        self.check(code, "replay a recorded run")
    }
}
