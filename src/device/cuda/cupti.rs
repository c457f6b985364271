//! CUPTI's Activity API, where NVIDIA's library is found: the device notes when every kernel began and ended, also those of
//! a CUDA graph, which events cannot see into.
//!
//! Records of kernels have grown with CUPTI's versions (`CUpti_ActivityKernel5` to `13`), but only at their ends: up to the
//! field `graphId` they are laid out as in version 5. That was compared with the headers (`cupti_activity.h`) of CUDA 11.8,
//! 12.1, 12.4, 12.6, 12.8, 12.9, 13.0, 13.2 and 13.5; versions outside of [`KNOWN`] are refused.

#![allow(unsafe_code)]

use super::driver::Version;
use super::search::{folders, library_in};
use crate::device::backend::KernelRecord;
use crate::device::occupancy::KernelFacts;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

/// Versions of the API (as `cuptiGetVersion` tells them) whose records are known: CUDA 11.8 to 12.9, and 13.0 to 13.5.
pub const KNOWN: [RangeInclusive<u32>; 2] = [18..=28, 130_000..=130_599];

/// `CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL`: kernels, without keeping them from running side by side.
const CONCURRENT_KERNEL: c_int = 10;
/// `CUPTI_ACTIVITY_FLAG_FLUSH_FORCED`: also buffers whose last records are not complete.
const FORCED: u32 = 1;
/// Bytes of a buffer of records; those of a training step (some hundred of up to 248 bytes) fit into one.
const BUFFER: usize = 4 << 20;

/// The part of a kernel's record that all known versions share (`CUpti_ActivityKernel5`).
#[repr(C)]
struct Record {
    kind: c_int,
    _cache: [u8; 2],
    registers: u16,
    _partitioned_cache: [c_int; 2],
    start: u64,
    end: u64,
    _completed: u64,
    _device_context_stream: [u32; 3],
    grid: [i32; 3],
    block: [i32; 3],
    static_shared: i32,
    dynamic_shared: i32,
    local_per_thread: u32,
    _local_total: u32,
    _correlation: u32,
    _grid_id: i64,
    name: *const c_char,
}

type Requested = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
type Completed = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

/// The functions of the library that we call.
#[derive(Clone, Copy)]
struct Functions {
    version: unsafe extern "C" fn(*mut u32) -> c_int,
    result_string: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
    register: unsafe extern "C" fn(Requested, Completed) -> c_int,
    enable: unsafe extern "C" fn(c_int) -> c_int,
    disable: unsafe extern "C" fn(c_int) -> c_int,
    flush: unsafe extern "C" fn(u32) -> c_int,
    next: unsafe extern "C" fn(*mut u8, usize, *mut *mut Record) -> c_int,
    dropped: unsafe extern "C" fn(*mut c_void, u32, *mut usize) -> c_int,
}

/// A loaded library that this program knows the records of.
pub struct Cupti {
    functions: Functions,
    /// Where it was found; "the system's loader" when that found it.
    pub origin: String,
    /// The version of its API: 13 05 00 for CUDA 13.5, 28 for CUDA 12.9.
    pub version: u32,
    // Kept loaded for as long as the functions above may be called; dropped after them.
    _library: Library,
}

/// What the library's callbacks, which are given nothing of ours, work on.
#[derive(Default)]
struct Noted {
    next: Option<unsafe extern "C" fn(*mut u8, usize, *mut *mut Record) -> c_int>,
    records: Vec<KernelRecord>,
}

static NOTED: Mutex<Noted> = Mutex::new(Noted { next: None, records: Vec::new() });

impl Cupti {
    /// Looks for the library once, for a driver of the given version; says in one sentence why there is none that can be
    /// used.
    pub fn find(driver: Version) -> Result<&'static Self, String> {
        static FOUND: OnceLock<Result<Cupti, String>> = OnceLock::new();
        FOUND.get_or_init(|| Self::search(driver)).as_ref().map_err(Clone::clone)
    }

    fn search(driver: Version) -> Result<Self, String> {
        let package = |major: i32| match major {
            ..=12 => format!("nvidia-cuda-cupti-cu{}", major.max(11)),
            _ => format!("'nvidia-cuda-cupti=={major}.*'"),
        };
        let mut unfit = None;
        let mut fits = |found: Self| match found.suits(driver) {
            Ok(()) => Some(found),
            Err(e) => {
                unfit.get_or_insert(e);
                None
            }
        };
        for folder in folders("GAN_CUPTI", &["extras/CUPTI/lib64"]) {
            let Some(path) = library_in(&folder, "libcupti.so") else { continue };
            match Self::load(path.as_os_str(), &path.display().to_string()) {
                Ok(found) => {
                    if let Some(found) = fits(found) {
                        return Ok(found);
                    }
                }
                Err(e) => return Err(format!("{} cannot be loaded ({e})", path.display())),
            }
        }
        for name in ["libcupti.so.13", "libcupti.so.12", "libcupti.so"] {
            if let Ok(found) = Self::load(name.as_ref(), &format!("{name} of the system's loader"))
                && let Some(found) = fits(found)
            {
                return Ok(found);
            }
        }
        let install = format!(
            "install one with `pip install {}` in a Python environment and activate it, or name its folder in GAN_CUPTI",
            package(driver.0)
        );
        Err(match unfit {
            Some(e) => format!("{e}; {install}"),
            None => format!("no libcupti found; {install}"),
        })
    }

    fn load(path: &std::ffi::OsStr, origin: &str) -> Result<Self, String> {
        // SAFETY: loading NVIDIA's library runs its initialisers, which have no precondition.
        let library = unsafe { Library::new(Path::new(path)) }.map_err(|e| super::reason(&e))?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is the function's signature in cupti_activity.h, the same in every known version;
                // the library stays loaded for as long as `Self` lives.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(|e| super::reason(&e))?
            };
        }
        let functions = Functions {
            version: function!("cuptiGetVersion"),
            result_string: function!("cuptiGetResultString"),
            register: function!("cuptiActivityRegisterCallbacks"),
            enable: function!("cuptiActivityEnable"),
            disable: function!("cuptiActivityDisable"),
            flush: function!("cuptiActivityFlushAll"),
            next: function!("cuptiActivityGetNextRecord"),
            dropped: function!("cuptiActivityGetNumDroppedRecords"),
        };
        let mut version = 0;
        // SAFETY: one integer to write to.
        let code = unsafe { (functions.version)(&mut version) };
        if code != 0 {
            return Err(format!("it does not tell its version (code {code})"));
        }
        Ok(Cupti { functions, origin: origin.into(), version, _library: library })
    }

    /// Whether its records are known, and the driver is as new as it.
    fn suits(&self, driver: Version) -> Result<(), String> {
        let Cupti { version, origin, .. } = self;
        if !KNOWN.iter().any(|known| known.contains(version)) {
            return Err(format!(
                "the CUPTI found has version {version} of its API ({origin}), and this program knows the records of versions 18 to 28 (CUDA 11.8 to 12.9) and 130000 to 130599 (CUDA 13.0 to 13.5)"
            ));
        }
        // Before CUDA 13 the number does not tell the toolkit; a library that is too new then refuses by itself.
        let major = (*version / 10_000) as i32;
        if major > driver.0 {
            return Err(format!(
                "the CUPTI found is for CUDA {major} ({origin}), and the driver runs CUDA up to {}.{}",
                driver.0, driver.1
            ));
        }
        Ok(())
    }

    /// What it is, in words.
    pub fn describe(&self) -> String {
        format!("CUPTI {}, {}", self.version, self.origin)
    }

    /// Notes every kernel from here on.
    pub fn begin(&self) -> Result<(), String> {
        static REGISTERED: OnceLock<c_int> = OnceLock::new();
        let code = *REGISTERED.get_or_init(|| {
            lock().next = Some(self.functions.next);
            // SAFETY: both functions are of the types that it asks for, and never go away.
            unsafe { (self.functions.register)(requested, completed) }
        });
        self.done(code, "register callbacks")?;
        lock().records.clear();
        // SAFETY: a kind of activity that every known version has.
        self.done(unsafe { (self.functions.enable)(CONCURRENT_KERNEL) }, "note kernels")
    }

    /// Ends what [`Cupti::begin`] began, and gives the kernels that were noted, in the order of their starts. The device must
    /// have nothing to do any more.
    pub fn end(&self) -> Result<Vec<KernelRecord>, String> {
        let f = &self.functions;
        // SAFETY: takes a number; callbacks are registered since `begin`.
        self.done(unsafe { (f.flush)(0) }, "hand over its records")?;
        // SAFETY: as in `begin`.
        self.done(unsafe { (f.disable)(CONCURRENT_KERNEL) }, "stop noting kernels")?;
        // SAFETY: as above. What has not come by now is incomplete, which is told by its times.
        self.done(unsafe { (f.flush)(FORCED) }, "hand over its records")?;
        let mut dropped = 0;
        // SAFETY: no context means the records of all of them; one number to write to.
        self.done(unsafe { (f.dropped)(std::ptr::null_mut(), 0, &mut dropped) }, "count lost records")?;
        let mut records = std::mem::take(&mut lock().records);
        if dropped > 0 {
            return Err(format!("CUPTI lost {dropped} records"));
        }
        if let Some(r) = records.iter().find(|r| r.began == 0 || r.ended < r.began) {
            return Err(format!("CUPTI has no times for the kernel {}", r.name));
        }
        records.sort_by_key(|r| r.began);
        Ok(records)
    }

    fn done(&self, code: c_int, what: &str) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: one pointer to write to.
        let told = unsafe { (self.functions.result_string)(code, &mut text) };
        let name = if told == 0 && !text.is_null() {
            // SAFETY: a static string that ends in NUL.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        } else {
            "an unknown error".into()
        };
        let hint = match code {
            35 | 40 => "; the driver lets only administrators profile here (NVIDIA: ERR_NVGPUCTRPERM)",
            39 => "; another profiler is at work",
            _ => "",
        };
        Err(format!("{} cannot {what}: {name} ({code}){hint}", self.describe()))
    }
}

fn lock() -> std::sync::MutexGuard<'static, Noted> {
    NOTED.lock().unwrap_or_else(|e| e.into_inner())
}

/// A buffer, as the allocator wants to hear of it again: records lie at multiples of 8 bytes.
fn buffer() -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(BUFFER, 8).expect("a small size")
}

/// The library wants a buffer for records.
unsafe extern "C" fn requested(at: *mut *mut u8, bytes: *mut usize, most: *mut usize) {
    // SAFETY: the library gives three places to write to; the buffer is as long as told (or absent and of no bytes: then it
    // drops records and counts them), and given back to `completed`. As many records as fit (0).
    unsafe {
        *at = std::alloc::alloc_zeroed(buffer());
        *bytes = if (*at).is_null() { 0 } else { BUFFER };
        *most = 0;
    }
}

/// The library gives a buffer back, of which `valid` bytes are records.
unsafe extern "C" fn completed(_: *mut c_void, _: u32, at: *mut u8, _: usize, valid: usize) {
    if at.is_null() {
        return;
    }
    let mut noted = lock();
    if let Some(next) = noted.next {
        let mut record = std::ptr::null_mut();
        // SAFETY: the buffer's own bytes; a record that is given lies in it, and one of a kernel begins with what `Record`
        // names, in every known version. Its name ends in NUL and stays as long as the kernel's module.
        unsafe {
            while next(at, valid, &mut record) == 0 {
                if (*record).kind == CONCURRENT_KERNEL {
                    noted.records.push(read(&*record));
                }
            }
        }
    }
    drop(noted);
    // SAFETY: made by `requested` with this layout.
    unsafe { std::alloc::dealloc(at, buffer()) };
}

/// # Safety
/// The record's name is null or ends in NUL.
unsafe fn read(record: &Record) -> KernelRecord {
    let name = if record.name.is_null() {
        String::new()
    } else {
        // SAFETY: as promised.
        unsafe { CStr::from_ptr(record.name) }.to_string_lossy().into_owned()
    };
    let amount = |n: i32| n.max(0) as usize;
    KernelRecord {
        name,
        began: record.start,
        ended: record.end,
        grid: record.grid.map(|n| n.max(0) as u32),
        threads: record.block.iter().map(|n| (*n).max(0) as u32).product(),
        dynamic_shared: amount(record.dynamic_shared),
        facts: KernelFacts {
            registers: record.registers.into(),
            static_shared: amount(record.static_shared),
            local: record.local_per_thread as usize,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// As `offsetof` tells of CUpti_ActivityKernel5 to 13 in the headers.
    #[test]
    fn records_are_laid_out_as_in_the_headers() {
        assert_eq!(offset_of!(Record, registers), 6);
        assert_eq!([offset_of!(Record, start), offset_of!(Record, end)], [16, 24]);
        assert_eq!([offset_of!(Record, grid), offset_of!(Record, block)], [52, 64]);
        assert_eq!([offset_of!(Record, static_shared), offset_of!(Record, dynamic_shared)], [76, 80]);
        assert_eq!([offset_of!(Record, local_per_thread), offset_of!(Record, name)], [84, 104]);
    }
}
