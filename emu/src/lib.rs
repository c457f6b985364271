//! Runs the CUDA sources of `kernels/` on the CPU, for tests: builds a `.cu` file as plain C++ against
//! `kernels/emu/emu.cuh` and launches its kernels by name, with the argument convention of the CUDA driver.
//!
//! What it catches and how is told in `kernels/emu/emu.cpp`. Built libraries are kept in `target/emu`, named by a hash
//! of everything that went into them.

mod buffer;
mod build;

pub use buffer::{Buffer, bf16_round};
pub use build::{Build, Sanitizer};

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

/// In which order the threads of a block (and the blocks) run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first one.
    Forward = 0,
    /// From the last one.
    Reverse = 1,
    /// A new permutation every time.
    Random = 2,
    /// One warpgroup, which one the seed says, goes on only when nobody else can, and no further than past its next barrier.
    Held = 3,
}

/// When asynchronous copies land.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Async {
    /// Not before a wait demands it; the destination holds NaN until then.
    Late = 0,
    /// At once.
    Early = 1,
    /// At any time between.
    Random = 2,
}

/// One way to run a launch.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Thread order.
    pub order: Order,
    /// Timing of asynchronous copies.
    pub copies: Async,
    /// For the random orders.
    pub seed: u64,
}

impl Mode {
    /// All nine combinations.
    pub fn all() -> Vec<Mode> {
        let orders = [Order::Forward, Order::Reverse, Order::Random];
        let copies = [Async::Late, Async::Early, Async::Random];
        let pairs =
            orders.into_iter().flat_map(|order| copies.into_iter().map(move |copies| (order, copies)));
        pairs.enumerate().map(|(i, (order, copies))| Mode { order, copies, seed: 17 + i as u64 }).collect()
    }

    /// For kernels whose warps have different tasks: each of so many warpgroups held back, with copies as late and as early
    /// as may be.
    pub fn held(groups: u64) -> Vec<Mode> {
        let copies = [Async::Late, Async::Early];
        let pairs = (0..groups).flat_map(|seed| copies.into_iter().map(move |copies| (seed, copies)));
        pairs.map(|(seed, copies)| Mode { order: Order::Held, copies, seed }).collect()
    }
}

/// An argument of a kernel.
pub enum Arg<'a> {
    /// Passed by value: its bytes.
    Value(Vec<u8>),
    /// A pointer to a buffer.
    Buffer(&'a Buffer),
    /// Passed by value: maps of a tensor in a buffer, 128 bytes each, which begin with an offset in it.
    Maps(&'a Buffer, Vec<u8>),
    /// A pointer that the kernel does not follow.
    Null,
}

impl From<i32> for Arg<'_> {
    fn from(v: i32) -> Self {
        Arg::Value(v.to_ne_bytes().to_vec())
    }
}
impl From<u32> for Arg<'_> {
    fn from(v: u32) -> Self {
        Arg::Value(v.to_ne_bytes().to_vec())
    }
}
impl From<i64> for Arg<'_> {
    fn from(v: i64) -> Self {
        Arg::Value(v.to_ne_bytes().to_vec())
    }
}
impl From<f32> for Arg<'_> {
    fn from(v: f32) -> Self {
        Arg::Value(v.to_ne_bytes().to_vec())
    }
}
impl From<f64> for Arg<'_> {
    fn from(v: f64) -> Self {
        Arg::Value(v.to_ne_bytes().to_vec())
    }
}
impl<'a> From<&'a Buffer> for Arg<'a> {
    fn from(b: &'a Buffer) -> Self {
        Arg::Buffer(b)
    }
}
/// A struct of ints, passed by value.
impl From<&[i32]> for Arg<'_> {
    fn from(v: &[i32]) -> Self {
        Arg::Value(v.iter().flat_map(|i| i.to_ne_bytes()).collect())
    }
}

/// Maps whose offsets are made addresses.
fn located(maps: &[u8], base: u64) -> Vec<u8> {
    let mut maps = maps.to_vec();
    for map in maps.chunks_mut(128) {
        let offset = u64::from_ne_bytes(map[..8].try_into().expect("eight bytes"));
        map[..8].copy_from_slice(&(base + offset).to_ne_bytes());
    }
    maps
}

/// Grid, block and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, one-dimensional.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
}

impl Shape {
    /// `blocks` blocks of `threads` threads.
    pub fn flat(blocks: usize, threads: usize) -> Self {
        Shape { grid: [blocks as u32, 1, 1], threads: threads as u32, shared: 0 }
    }
}

type Run = unsafe extern "C" fn(
    *const c_char,
    *mut *mut c_void,
    *const u32,
    c_int,
    *const u32,
    *const u32,
    usize,
    c_int,
    c_int,
    u64,
    *mut c_char,
    usize,
) -> c_int;

/// A built `.cu` file.
pub struct Module {
    /// The library itself, which `run` points into.
    library: libloading::Library,
    run: Run,
    /// The machine behind a library runs one launch at a time.
    busy: Mutex<()>,
    path: PathBuf,
}

impl Module {
    fn open(path: PathBuf) -> Result<Self, String> {
        // SAFETY: the library was built by `Build` from our own sources and runs no initialisers of consequence.
        let library =
            unsafe { libloading::Library::new(&path) }.map_err(|e| format!("{}: {e}", path.display()))?;
        // SAFETY: the generated entry point has exactly this signature.
        let run = *unsafe { library.get::<Run>(b"gan_emu_run\0") }.map_err(|e| e.to_string())?;
        Ok(Module { library, run, busy: Mutex::new(()), path })
    }

    /// How many times `ldmatrix` has had to read again so far, because rows of a matrix lay on the same banks: zero for
    /// a well swizzled tile.
    pub fn bank_conflicts(&self) -> u64 {
        // SAFETY: the function takes nothing and reads one number; `busy` keeps launches away.
        let _one = self.busy.lock().unwrap_or_else(|e| e.into_inner());
        unsafe {
            self.library.get::<unsafe extern "C" fn() -> u64>(b"gan_emu_bank_conflicts\0").map_or(0, |f| f())
        }
    }

    /// The library's file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Runs one kernel to its end. Fails on a deadlock, a divergence, or a write outside shared memory or a buffer.
    pub fn launch(&self, kernel: &str, shape: Shape, args: &[Arg], mode: Mode) -> Result<(), String> {
        let name = CString::new(kernel).unwrap();
        let bytes: Vec<Vec<u8>> = args
            .iter()
            .map(|arg| match arg {
                Arg::Value(v) => v.clone(),
                Arg::Maps(b, maps) => located(maps, b.pointer() as u64),
                Arg::Buffer(b) => (b.pointer() as usize).to_ne_bytes().to_vec(),
                Arg::Null => 0usize.to_ne_bytes().to_vec(),
            })
            .collect();
        let sizes: Vec<u32> = bytes.iter().map(|b| b.len() as u32).collect();
        // Each at a 16-byte boundary, as a struct argument may want.
        let mut aligned: Vec<Vec<u128>> = bytes
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
        let mut pointers: Vec<*mut c_void> = aligned.iter_mut().map(|a| a.as_mut_ptr().cast()).collect();
        let block = [shape.threads, 1, 1];
        let mut report = vec![0u8; 1024];
        let code = {
            let _one = self.busy.lock().unwrap_or_else(|e| e.into_inner());
            // SAFETY: the entry point checks number and sizes of the arguments; the buffers live for the whole call and
            // are only reached through `UnsafeCell`; the report is as long as told.
            unsafe {
                (self.run)(
                    name.as_ptr(),
                    pointers.as_mut_ptr(),
                    sizes.as_ptr(),
                    sizes.len() as c_int,
                    shape.grid.as_ptr(),
                    block.as_ptr(),
                    shape.shared,
                    mode.order as c_int,
                    mode.copies as c_int,
                    mode.seed,
                    report.as_mut_ptr().cast(),
                    report.len(),
                )
            }
        };
        if code != 0 {
            let end = report.iter().position(|&b| b == 0).unwrap_or(report.len());
            return Err(format!("{kernel} ({mode:?}): {}", String::from_utf8_lossy(&report[..end])));
        }
        for (i, arg) in args.iter().enumerate() {
            if let Arg::Buffer(b) = arg {
                b.check().map_err(|e| format!("{kernel} ({mode:?}): argument {i}: {e}"))?;
            }
        }
        Ok(())
    }
}

/// Runs one launch in a program of its own, built with a sanitizer; fails with the sanitizer's report.
pub fn launch_sanitized(
    build: &Build,
    sanitizer: Sanitizer,
    kernel: &str,
    shape: Shape,
    args: &[Arg],
    mode: Mode,
) -> Result<(), String> {
    let program = build.program(sanitizer)?;
    let mut file = Vec::new();
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(&(kernel.len() as u32).to_ne_bytes());
    put(kernel.as_bytes());
    shape.grid.iter().chain([&shape.threads]).for_each(|v| put(&v.to_ne_bytes()));
    put(&(shape.shared as u64).to_ne_bytes());
    [mode.order as u32, mode.copies as u32, mode.seed as u32, args.len() as u32]
        .iter()
        .for_each(|v| put(&v.to_ne_bytes()));
    for arg in args {
        let (kind, bytes) = match arg {
            Arg::Value(v) => (0u32, v.clone()),
            Arg::Buffer(b) => (1, b.bytes().to_vec()),
            Arg::Null => (2, Vec::new()),
            Arg::Maps(_, maps) => (3, maps.clone()),
        };
        put(&kind.to_ne_bytes());
        put(&(bytes.len() as u64).to_ne_bytes());
        put(&bytes);
        if let Arg::Maps(of, _) = arg {
            put(&(of.bytes().len() as u64).to_ne_bytes());
            put(of.bytes());
        }
    }
    let mut path = String::new();
    write!(path, "{}-{kernel}-{:?}-{}", program.display(), std::thread::current().id(), std::process::id())
        .unwrap();
    let path = PathBuf::from(path);
    std::fs::write(&path, file).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    let output = std::process::Command::new(&program)
        .arg(&path)
        .env("TSAN_OPTIONS", format!("exitcode=66 report_signal_unsafe=0 halt_on_error=1{}", symbolizer()))
        .env("ASAN_OPTIONS", "detect_leaks=0 exitcode=67")
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .output()
        .map_err(|e| format!("cannot run {}: {e}", program.display()));
    let _ = std::fs::remove_file(&path);
    let output = output?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{kernel} ({mode:?}): {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// The option that names LLVM's symbolizer where it has a version in its name, so that reports tell lines.
fn symbolizer() -> String {
    let found = (17..24)
        .rev()
        .map(|v| format!("/usr/bin/llvm-symbolizer-{v}"))
        .find(|p| std::path::Path::new(p).exists());
    found.map_or(String::new(), |p| format!(" external_symbolizer_path={p}"))
}
