//! Named ranges for NVIDIA's profilers (Nsight Systems and Compute), by way of NVTX: the toolkit's library if it is there,
//! and nothing otherwise. Without a profiler that listens a range costs a few nanoseconds.

#![allow(unsafe_code)]

use libloading::Library;
use std::ffi::{CString, c_char, c_int};
use std::sync::OnceLock;

/// The library's names, of toolkits from CUDA 12 on and of those before.
const LIBRARIES: &[&str] = if cfg!(windows) {
    &["nvtx3interop.dll", "nvToolsExt64_1.dll"]
} else {
    &["libnvtx3interop.so.1", "libnvtx3interop.so", "libnvToolsExt.so.1", "libnvToolsExt.so"]
};

struct Functions {
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
    // Kept loaded for as long as the functions above may be called; dropped after them.
    _library: Library,
}

impl Functions {
    fn load() -> Option<Self> {
        LIBRARIES.iter().find_map(|name| {
            // SAFETY: loading NVIDIA's library runs its initialisers, which have no precondition.
            let library = unsafe { Library::new(*name) }.ok()?;
            // SAFETY: these are the functions' types in every version of NVTX.
            let (push, pop) =
                unsafe { (*library.get(b"nvtxRangePushA\0").ok()?, *library.get(b"nvtxRangePop\0").ok()?) };
            Some(Functions { push, pop, _library: library })
        })
    }
}

fn functions() -> Option<&'static Functions> {
    static LOADED: OnceLock<Option<Functions>> = OnceLock::new();
    LOADED.get_or_init(Functions::load).as_ref()
}

/// Begins a range of this thread.
pub(super) fn push(name: &str) {
    if let (Some(nvtx), Ok(name)) = (functions(), CString::new(name)) {
        // SAFETY: the text ends in NUL and is copied before the call returns.
        unsafe { (nvtx.push)(name.as_ptr()) };
    }
}

/// Ends this thread's innermost range.
pub(super) fn pop() {
    if let Some(nvtx) = functions() {
        // SAFETY: takes nothing; without a range it does nothing.
        unsafe { (nvtx.pop)() };
    }
}
