//! The NVIDIA driver: whether it is there, whether it is new enough, and what its refusals mean.
//!
//! The calls themselves are cudarc's, which looks every function up when it is first called and panics if there is none;
//! [`Driver::load`] makes sure beforehand that there are all of them.

#![allow(unsafe_code)]

use crate::error::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};
use std::ffi::c_int;

/// Every function that this program calls. The oldest driver that has them all is that of CUDA 11.4.
pub const FUNCTIONS: [&str; 47] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetDefaultMemPool",
    "cuMemPoolSetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuEventDestroy_v2",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemAllocAsync",
    "cuMemFreeAsync",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuFuncGetAttribute",
    "cuLaunchKernel",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphDestroy",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
];

/// A version of CUDA, such as (13, 0).
pub type Version = (i32, i32);

/// A loaded and started driver.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// The newest CUDA that it runs.
    pub version: Version,
}

impl Driver {
    /// Whether there is a driver's library at all.
    pub fn is_present() -> bool {
        // SAFETY: loading NVIDIA's library runs its initialisers, which have no precondition.
        unsafe { sys::is_culib_present() }
    }

    /// Loads and starts the driver.
    pub fn load() -> Result<Self> {
        // SAFETY: loading NVIDIA's library runs its initialisers, which have no precondition.
        let why = match unsafe { libloading::Library::new(LIBRARY) } {
            Ok(_) => String::new(),
            Err(e) => format!(" ({})", super::reason(&e)),
        };
        if !Self::is_present() {
            return Err(Error::input(format!(
                "no NVIDIA driver found{why}; install the driver of your device (in a container: start it with access to the GPU), or use `--device cpu`"
            )));
        }
        // SAFETY: it is present, and stays loaded for good.
        let library = unsafe { sys::culib() };
        // SAFETY: only asked whether it is there.
        let lacking = |name: &&str| unsafe { library.get::<*const ()>(name.as_bytes()) }.is_err();
        if let Some(name) = FUNCTIONS.into_iter().find(|name| lacking(name)) {
            return Err(Error::input(format!(
                "the NVIDIA driver is too old (it has no {name}); install one for CUDA 11.4 or newer (470 or newer), or use `--device cpu`"
            )));
        }
        done(result::init(), "start the NVIDIA driver")?;
        let mut version: c_int = 0;
        // SAFETY: one integer to write to.
        done(unsafe { sys::cuDriverGetVersion(&mut version) }.result(), "ask for the driver's version")?;
        Ok(Driver { version: (version / 1000, version % 1000 / 10) })
    }

    /// How many devices it shows.
    pub fn devices(&self) -> Result<usize> {
        Ok(done(result::device::get_count(), "count the NVIDIA devices")?.max(0) as usize)
    }
}

/// Seconds between two events of the same context that have happened.
///
/// Not by way of cudarc, which at this version of CUDA only knows `cuEventElapsedTime_v2`: drivers before 12.8 have none.
///
/// # Safety
/// Both events exist.
pub(super) unsafe fn seconds_between(from: sys::CUevent, to: sys::CUevent) -> Result<f64> {
    type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult;
    // SAFETY: `Driver::load` has made sure of the library and the function; this is its type in every version.
    let elapsed = unsafe { sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0") };
    let elapsed = elapsed
        .map_err(|e| Error::input(format!("the NVIDIA driver cannot time ({e}); see `gan doctor`")))?;
    let mut ms = 0f32;
    // SAFETY: one number to write to; the events exist.
    done(unsafe { elapsed(&mut ms, from, to) }.result(), "ask for the time between two events")?;
    Ok(f64::from(ms) / 1e3)
}

/// The name by which the system's loader is asked for the reason why there is none.
const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// Turns the driver's refusal into an error that says what was tried and what to do.
pub(super) fn done<T>(result: std::result::Result<T, DriverError>, what: &str) -> Result<T> {
    let Err(e) = result else { return result.map_err(|_| unreachable!("just matched")) };
    let text = |t: std::result::Result<&std::ffi::CStr, DriverError>| {
        t.map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned())
    };
    let reason =
        format!("cannot {what}: {} ({}, {})", text(e.error_string()), text(e.error_name()), e.0 as u32);
    Err(match (is_lost(e.0), hint(e.0)) {
        (true, _) => Error::Device(reason),
        (false, hint) => Error::input(reason + hint),
    })
}

/// Whether the context is of no use any more after such a code: whatever is called next fails as well.
fn is_lost(code: CUresult) -> bool {
    use CUresult::*;
    matches!(
        code,
        CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_CONTAINED
            | CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_UNKNOWN
    )
}

fn hint(code: CUresult) -> &'static str {
    use CUresult::*;
    match code {
        CUDA_ERROR_OUT_OF_MEMORY => "; lower `train.batch`, `data.canvas` or the networks' sizes",
        CUDA_ERROR_NO_DEVICE => {
            "; the driver sees no device (see CUDA_VISIBLE_DEVICES and nvidia-smi); or use `--device cpu`"
        }
        CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "; the driver's library and its kernel module differ: reboot, or install the driver again"
        }
        CUDA_ERROR_STUB_LIBRARY => {
            "; the libcuda found is a toolkit's stub and no driver: take its folder out of LD_LIBRARY_PATH"
        }
        CUDA_ERROR_NO_BINARY_FOR_GPU
        | CUDA_ERROR_INVALID_IMAGE
        | CUDA_ERROR_INVALID_SOURCE
        | CUDA_ERROR_INVALID_PTX
        | CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            "; empty the cache with `gan kernels clear`, then see `gan doctor`"
        }
        _ => "; see `gan doctor`",
    }
}
