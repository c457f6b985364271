//! The functions of the NVIDIA driver that we call, looked up when the device is first asked for.
//!
//! Not yet run on a GPU: written after the driver's documentation, and known to compile.

#![allow(unsafe_code)]

use crate::error::{Error, Result};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// A handle of the driver's: context, stream, module, function, graph.
pub(super) type Handle = *mut c_void;

/// An address in the device's memory.
pub(super) type Address = u64;

macro_rules! driver {
    ($($field:ident = $name:literal ($($argument:ty),*);)*) => {
        /// Each function by what it does; the types are those of cuda.h, where the names carry their version.
        pub(super) struct Functions {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Functions {
            fn find(library: &Library) -> std::result::Result<Self, libloading::Error> {
                Ok(Functions {
                    $(
                        // SAFETY: the type is the function's signature in cuda.h, which never changes for a name; the
                        // library stays loaded for as long as `Driver` lives.
                        $field: *unsafe { library.get(concat!($name, "\0").as_bytes()) }?,
                    )*
                })
            }
        }
    };
}

driver! {
    init = "cuInit" (c_uint);
    version = "cuDriverGetVersion" (*mut c_int);
    error_name = "cuGetErrorName" (c_int, *mut *const c_char);
    error_string = "cuGetErrorString" (c_int, *mut *const c_char);
    device_count = "cuDeviceGetCount" (*mut c_int);
    device = "cuDeviceGet" (*mut c_int, c_int);
    device_name = "cuDeviceGetName" (*mut c_char, c_int, c_int);
    device_attribute = "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    retain_context = "cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
    release_context = "cuDevicePrimaryCtxRelease_v2" (c_int);
    set_context = "cuCtxSetCurrent" (Handle);
    create_stream = "cuStreamCreate" (*mut Handle, c_uint);
    destroy_stream = "cuStreamDestroy_v2" (Handle);
    synchronise = "cuStreamSynchronize" (Handle);
    free_memory = "cuMemGetInfo_v2" (*mut usize, *mut usize);
    allocate = "cuMemAlloc_v2" (*mut Address, usize);
    free = "cuMemFree_v2" (Address);
    upload = "cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Handle);
    download = "cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Handle);
    load_module = "cuModuleLoadData" (*mut Handle, *const c_void);
    unload_module = "cuModuleUnload" (Handle);
    function = "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
    set_attribute = "cuFuncSetAttribute" (Handle, c_int, c_int);
    launch = "cuLaunchKernel" (
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void
    );
    begin_capture = "cuStreamBeginCapture_v2" (Handle, c_int);
    end_capture = "cuStreamEndCapture" (Handle, *mut Handle);
    instantiate = "cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
    destroy_graph = "cuGraphDestroy" (Handle);
    launch_graph = "cuGraphLaunch" (Handle, Handle);
    destroy_executable = "cuGraphExecDestroy" (Handle);
}

/// The loaded driver.
pub(super) struct Driver {
    pub(super) call: Functions,
    /// Such as 13000 for CUDA 13.0: the newest that it runs.
    pub(super) version: i32,
    _library: Library,
}

impl Driver {
    /// Loads and starts the driver.
    pub(super) fn load() -> Result<Self> {
        let mut why = String::new();
        for name in ["libcuda.so.1", "libcuda.so", "nvcuda.dll"] {
            // SAFETY: loading NVIDIA's library runs its initialisers, which have no precondition.
            match unsafe { Library::new(name) } {
                Ok(library) => return Self::start(library),
                Err(e) if why.is_empty() => why = e.to_string(),
                Err(_) => {}
            }
        }
        Err(Error::input(format!(
            "no NVIDIA driver found ({why}); install the driver of your device, or use `--device cpu`"
        )))
    }

    fn start(library: Library) -> Result<Self> {
        let call = Functions::find(&library).map_err(|e| {
            Error::input(format!(
                "the NVIDIA driver is too old ({e}); install one for CUDA 11.4 or newer, or use `--device cpu`"
            ))
        })?;
        let mut driver = Driver { call, version: 0, _library: library };
        // SAFETY: the first call to be made; its argument must be 0.
        let code = unsafe { (driver.call.init)(0) };
        driver.check(code, "start the NVIDIA driver")?;
        // SAFETY: one integer to write to.
        let code = unsafe { (driver.call.version)(&mut driver.version) };
        driver.check(code, "ask for the driver's version")?;
        Ok(driver)
    }

    /// Turns a code into an error that says what was tried.
    pub(super) fn check(&self, code: c_int, what: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let text = |f: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
            let mut text = std::ptr::null();
            // SAFETY: one pointer to write to; what is written is a static string, or null for an unknown code.
            unsafe {
                f(code, &mut text);
                if text.is_null() {
                    String::new()
                } else {
                    CStr::from_ptr(text).to_string_lossy().into_owned()
                }
            }
        };
        let (name, meaning) = (text(self.call.error_name), text(self.call.error_string));
        let hint = match name.as_str() {
            "CUDA_ERROR_OUT_OF_MEMORY" => "; lower `train.batch`, `data.canvas` or the networks' sizes",
            "CUDA_ERROR_NO_DEVICE" => "; no NVIDIA device is visible (see CUDA_VISIBLE_DEVICES)",
            _ => "",
        };
        Err(Error::input(format!("cannot {what}: {meaning} ({name}, {code}){hint}")))
    }
}
