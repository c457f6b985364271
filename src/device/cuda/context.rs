//! A device's context with its two streams, and what is owned in it: memory, events, modules, recordings. Each frees itself
//! when dropped; the context goes last.

#![allow(unsafe_code)]

use super::driver::{Driver, done, seconds_between};
use crate::error::{Error, Result};
use cudarc::driver::result::{self, device, event, primary_ctx, stream};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUevent_flags, CUevent_wait_flags};
use std::ffi::{c_int, c_void};
use std::sync::Arc;

/// The context, its streams, and how memory is reserved.
pub(super) struct Context {
    pub(super) driver: Driver,
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// Where everything is computed, in order.
    pub(super) compute: sys::CUstream,
    /// Where inputs arrive meanwhile.
    pub(super) uploads: sys::CUstream,
    /// Whether memory comes from the device's pool, in the order of the stream. Some virtual devices have none.
    pub(super) pooled: bool,
}

// SAFETY: the driver's handles may be used from any thread, one call at a time or several: it locks by itself. Every use
// here makes the context the calling thread's own first.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Opens device number `ordinal`.
    pub(super) fn open(driver: Driver, ordinal: usize) -> Result<Arc<Self>> {
        let count = driver.devices()?;
        if ordinal >= count {
            let there = match count {
                0 => "the driver shows none".to_string(),
                1 => "there is one, `cuda:0`".to_string(),
                n => format!("there are {n}, `cuda:0` to `cuda:{}`", n - 1),
            };
            return Err(Error::input(format!(
                "there is no NVIDIA device `cuda:{ordinal}`: {there}; see CUDA_VISIBLE_DEVICES and nvidia-smi, or use `--device cpu`"
            )));
        }
        let device = done(device::get(ordinal as c_int), "open the device")?;
        // SAFETY: the device was just got; released when `Context` is dropped.
        let context = done(unsafe { primary_ctx::retain(device) }, "open the device")?;
        let null = std::ptr::null_mut();
        let mut own = Context { driver, device, context, compute: null, uploads: null, pooled: false };
        own.enter()?;
        own.compute = done(stream::create(stream::StreamKind::NonBlocking), "make a stream")?;
        own.uploads = done(stream::create(stream::StreamKind::NonBlocking), "make a stream")?;
        own.pooled = own.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)? != 0;
        if own.pooled {
            own.keep_memory()?;
        }
        Ok(Arc::new(own))
    }

    /// Lets the pool keep what is freed: the next program of the session takes it up again.
    fn keep_memory(&self) -> Result<()> {
        let mut all = u64::MAX;
        let what = "prepare the memory pool";
        // SAFETY: our own device.
        let pool = done(unsafe { device::get_default_mem_pool(self.device) }, what)?;
        // SAFETY: the pool was just got, and this attribute is a 64-bit number.
        let set = unsafe {
            result::mem_pool::set_attribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut all).cast(),
            )
        };
        done(set, what)
    }

    /// Makes the context this thread's current one.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained until `Context` is dropped.
        done(unsafe { result::ctx::set_current(self.context) }, "use the device")
    }

    pub(super) fn attribute(&self, which: Attribute) -> Result<usize> {
        // SAFETY: our own device.
        let value = done(unsafe { device::get_attribute(self.device, which) }, "ask what the device is")?;
        Ok(value.max(0) as usize)
    }

    /// The name that its maker gave the device.
    pub(super) fn name(&self) -> Result<String> {
        done(device::get_name(self.device), "ask for the device's name")
    }

    /// Free and total bytes of memory.
    pub(super) fn memory(&self) -> Result<(u64, u64)> {
        self.enter()?;
        let (free, total) = done(result::mem_get_info(), "ask for the free memory")?;
        Ok((free as u64, total as u64))
    }

    /// Lets a stream go on only when an event has happened.
    pub(super) fn wait(&self, stream: sys::CUstream, event: &Event) -> Result<()> {
        // SAFETY: both exist as long as their owners, which are borrowed.
        let waits =
            unsafe { stream::wait_event(stream, event.handle, CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) };
        done(waits, "order the streams")
    }

    /// Waits until a stream has done everything.
    pub(super) fn finish(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: our own stream.
        done(unsafe { stream::synchronize(stream) }, "wait for the device")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _ = self.enter();
        // SAFETY: everything made in the context holds an `Arc` of it, so it is gone by now. Failures leave nothing to do.
        unsafe {
            for stream in [self.compute, self.uploads] {
                if !stream.is_null() {
                    let _ = stream::destroy(stream);
                }
            }
            let _ = primary_ctx::release(self.device);
        }
    }
}

/// A stretch of the device's memory.
pub struct Memory {
    pub(super) address: u64,
    pub(super) bytes: usize,
    owner: Arc<Context>,
}

impl Memory {
    pub(super) fn new(owner: &Arc<Context>, bytes: usize) -> Result<Self> {
        owner.enter()?;
        let size = bytes.max(1); // the driver refuses zero
        // SAFETY: freed once, when `Memory` is dropped; whoever reads it has written it before.
        let reserved = unsafe {
            if owner.pooled { result::malloc_async(owner.compute, size) } else { result::malloc_sync(size) }
        };
        match reserved {
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(Error::Memory {
                of: "the device's memory",
                needed: size as u64,
                free: owner.memory()?.0,
                fits: None,
            }),
            other => {
                let address = done(other, &format!("reserve {size} bytes of the device's memory"))?;
                Ok(Memory { address, bytes, owner: owner.clone() })
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = self.owner.enter();
        // SAFETY: reserved in this context and freed once. From the pool it is freed after everything that was asked of the
        // stream before; otherwise the driver waits for what still uses it.
        unsafe {
            let _ = if self.owner.pooled {
                result::free_async(self.address, self.owner.compute)
            } else {
                result::free_sync(self.address)
            };
        }
    }
}

/// Memory of the host that the device reads and writes by itself.
pub(super) struct Pinned {
    pointer: *mut c_void,
    bytes: usize,
    owner: Arc<Context>,
}

// SAFETY: memory like any other, owned alone.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(owner: &Arc<Context>, bytes: usize) -> Result<Self> {
        owner.enter()?;
        let bytes = bytes.max(1);
        // SAFETY: freed once, when `Pinned` is dropped.
        let pointer = done(
            unsafe { result::malloc_host(bytes, 0) },
            &format!("pin {bytes} bytes of the computer's memory"),
        )?;
        // SAFETY: as long as told; it has no defined content before this.
        unsafe { std::ptr::write_bytes(pointer.cast::<u8>(), 0, bytes) };
        Ok(Pinned { pointer, bytes, owner: owner.clone() })
    }

    /// Its bytes. No copy to or from them may be under way.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: as long as told, written when it was made, and borrowed as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.owner.enter();
        // SAFETY: made in this context and freed once; the driver waits for copies that are under way.
        unsafe {
            let _ = result::free_host(self.pointer);
        }
    }
}

/// A point in a stream.
pub struct Event {
    handle: sys::CUevent,
    owner: Arc<Context>,
}

impl Event {
    pub(super) fn new(owner: &Arc<Context>) -> Result<Self> {
        Self::with(owner, CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    /// One that remembers when it happened.
    pub(super) fn timing(owner: &Arc<Context>) -> Result<Self> {
        Self::with(owner, CUevent_flags::CU_EVENT_DEFAULT)
    }

    fn with(owner: &Arc<Context>, flags: CUevent_flags) -> Result<Self> {
        owner.enter()?;
        Ok(Event { handle: done(event::create(flags), "make an event")?, owner: owner.clone() })
    }

    /// Seconds until another one happened. Both are of [`Event::timing`], and have.
    pub(super) fn seconds_until(&self, later: &Event) -> Result<f64> {
        // SAFETY: both exist as long as their owners, which are borrowed.
        unsafe { seconds_between(self.handle, later.handle) }
    }

    /// Happens when the stream has done everything so far.
    pub(super) fn record(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: event and stream are of this context and exist.
        done(unsafe { event::record(self.handle, stream) }, "mark a point in a stream")
    }

    /// Waits on the host; costs nothing if it has happened, as it has unless the host is two runs ahead.
    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: the event exists.
        match unsafe { event::query(self.handle) } {
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NOT_READY => {
                // SAFETY: as above.
                done(unsafe { event::synchronize(self.handle) }, "wait for an upload")
            }
            other => done(other, "ask for an upload"),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.owner.enter();
        // SAFETY: made in this context and destroyed once.
        unsafe {
            let _ = event::destroy(self.handle);
        }
    }
}

pub(super) struct Module {
    pub(super) handle: sys::CUmodule,
    owner: Arc<Context>,
}

// SAFETY: as for `Context`.
unsafe impl Send for Module {}
// SAFETY: as for `Context`.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a cubin, or PTX text that ends in NUL.
    pub(super) fn load(owner: &Arc<Context>, code: &[u8], what: &str) -> Result<Self> {
        owner.enter()?;
        assert_eq!(code.last(), Some(&0), "code that the driver can find the end of");
        // SAFETY: the code outlives the call; a cubin's header tells its length, PTX ends in NUL.
        let handle = done(unsafe { result::module::load_data(code.as_ptr().cast()) }, what)?;
        Ok(Module { handle, owner: owner.clone() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.owner.enter();
        // SAFETY: loaded in this context and unloaded once.
        unsafe {
            let _ = result::module::unload(self.handle);
        }
    }
}

/// A recorded run: an executable CUDA graph.
pub struct Recording {
    pub(super) executable: sys::CUgraphExec,
    owner: Arc<Context>,
}

impl Recording {
    /// Records what `run` asks of the stream for computing.
    pub(super) fn of(owner: &Arc<Context>, run: &mut dyn FnMut() -> Result<()>) -> Result<Self> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: our own stream, which no other thread uses.
        done(unsafe { stream::begin_capture(owner.compute, mode) }, "begin to record a run")?;
        let ran = run();
        // SAFETY: ends the capture begun above, whatever has happened in between.
        let graph = unsafe { stream::end_capture(owner.compute) };
        if let (Err(_), Ok(graph)) = (&ran, graph) {
            // SAFETY: just made, and of no use.
            let _ = unsafe { result::graph::destroy(graph) };
        }
        ran?;
        let graph = done(graph, "record a run")?;
        // SAFETY: the graph was just made, and is not needed once it is instantiated.
        let executable = unsafe {
            let made = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            made
        };
        let executable = done(executable, "make a recorded run ready")?;
        Ok(Recording { executable, owner: owner.clone() })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.owner.enter();
        // SAFETY: instantiated in this context and destroyed once.
        unsafe {
            let _ = result::graph::exec_destroy(self.executable);
        }
    }
}
