//! NVRTC, the run-time compiler of CUDA: looked for where toolkits and Python packages put it, and loaded by absolute
//! path together with its builtins (which it would otherwise not find beside itself).

#![allow(unsafe_code)]

use super::driver::Version;
use super::search::{folders, library_in};
use super::sources::HEADERS;
use crate::error::{Error, Result};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

type Program = *mut c_void;

/// What stands behind the name of a library that the system's loader found.
const BY_LOADER: &str = " of the system's loader";

/// The functions of the library that we call.
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    architecture_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    architectures: unsafe extern "C" fn(*mut c_int) -> c_int,
}

/// A loaded run-time compiler.
pub struct Nvrtc {
    functions: Functions,
    /// Where it was found; "the system's loader" when that found it.
    pub origin: String,
    /// Its version.
    pub version: Version,
    // Kept loaded for as long as the functions above may be called; dropped after them.
    _libraries: Vec<Library>,
}

/// What a compilation gives.
pub struct Image {
    /// A cubin for a real architecture (`sm_90`), PTX text for a virtual one (`compute_90`).
    pub bytes: Vec<u8>,
    /// The compiler's log, with registers and shared memory of each kernel.
    pub log: String,
}

impl Nvrtc {
    /// Looks for the library and loads it.
    pub fn find() -> Result<Self> {
        Self::find_for(None)
    }

    /// Looks for a library whose code a driver of the given version runs, and loads it. With none like that, says what was
    /// found instead.
    pub fn find_for(driver: Option<Version>) -> Result<Self> {
        let mut tried = Vec::new();
        let mut unfit = None;
        let mut fits =
            |found: Self| match driver.map_or(Ok(()), |d| suits(d, found.version, &found.origin, false)) {
                Ok(()) => Some(found),
                Err(e) => {
                    unfit.get_or_insert(e);
                    None
                }
            };
        for folder in folders("GAN_NVRTC", &[]) {
            match library_in(&folder, "libnvrtc.so.") {
                Some(path) => match Self::load(&path) {
                    Ok(found) => {
                        if let Some(found) = fits(found) {
                            return Ok(found);
                        }
                    }
                    Err(e) => tried.push(format!("{} cannot be loaded ({e})", path.display())),
                },
                None => tried.push(format!("{} has none", folder.display())),
            }
        }
        for name in ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"] {
            if let Ok(library) = Self::by_name(name) {
                let found =
                    Self::from_library(vec![library], format!("{name}{BY_LOADER}")).map_err(Error::input)?;
                if let Some(found) = fits(found) {
                    return Ok(found);
                }
            }
        }
        if let Some(e) = unfit {
            return Err(e);
        }
        tried.push("the system's loader knows none".into());
        Err(Error::input(format!(
            "no CUDA run-time compiler (NVRTC) found: {}; install one with `pip install {}` in a Python environment and activate it \
             (or name its folder in GAN_NVRTC), or set CUDA_HOME to a CUDA toolkit",
            tried.join(", "),
            package(driver.map_or(13, |d| d.0))
        )))
    }

    /// The library in a given folder.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let path = library_in(folder, "libnvrtc.so.").ok_or_else(|| {
            Error::input(format!(
                "no libnvrtc.so in {}; install nvidia-cuda-nvrtc with pip",
                folder.display()
            ))
        })?;
        Self::load(&path)
            .map_err(|e| Error::input(format!("{} cannot be loaded: {e}; install it again", path.display())))
    }

    /// The library that another process found, by its [`Nvrtc::origin`].
    pub fn at(origin: &str) -> Result<Self> {
        let found = match origin.strip_suffix(BY_LOADER) {
            None => Self::load(Path::new(origin)),
            Some(name) => Self::by_name(name).and_then(|l| Self::from_library(vec![l], origin.into())),
        };
        found.map_err(|e| Error::input(format!("{origin} cannot be loaded: {e}; install it again")))
    }

    /// Loads a library by way of the system's loader.
    fn by_name(name: &str) -> std::result::Result<Library, String> {
        // SAFETY: loading NVIDIA's library runs its initialisers, which have no precondition.
        unsafe { Library::new(name) }.map_err(|e| super::reason(&e))
    }

    /// Loads the library at `path` and the builtins beside it.
    fn load(path: &Path) -> std::result::Result<Self, String> {
        let mut libraries = Vec::new();
        // The compiler opens its builtins by bare name, which succeeds once they are in memory.
        for file in path
            .parent()
            .and_then(|f| library_in(f, "libnvrtc-builtins.so."))
            .iter()
            .map(PathBuf::as_path)
            .chain([path])
        {
            // SAFETY: loading NVIDIA's libraries runs their initialisers, which have no precondition.
            libraries.push(unsafe { Library::new(file) }.map_err(|e| super::reason(&e))?);
        }
        Self::from_library(libraries, path.display().to_string())
    }

    /// Looks up the functions in the last of `libraries`.
    fn from_library(libraries: Vec<Library>, origin: String) -> std::result::Result<Self, String> {
        let library = libraries.last().expect("a library was loaded");
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is the function's signature in nvrtc.h, the same since CUDA 11; the library
                // stays loaded for as long as `Self` lives.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(|e| super::reason(&e))?
            };
        }
        let functions = Functions {
            version: function!("nvrtcVersion"),
            error_string: function!("nvrtcGetErrorString"),
            create: function!("nvrtcCreateProgram"),
            destroy: function!("nvrtcDestroyProgram"),
            compile: function!("nvrtcCompileProgram"),
            log_size: function!("nvrtcGetProgramLogSize"),
            log: function!("nvrtcGetProgramLog"),
            cubin_size: function!("nvrtcGetCUBINSize"),
            cubin: function!("nvrtcGetCUBIN"),
            ptx_size: function!("nvrtcGetPTXSize"),
            ptx: function!("nvrtcGetPTX"),
            architecture_count: function!("nvrtcGetNumSupportedArchs"),
            architectures: function!("nvrtcGetSupportedArchs"),
        };
        let mut version = (0, 0);
        // SAFETY: two integers to write to.
        unsafe { (functions.version)(&mut version.0, &mut version.1) };
        Ok(Nvrtc { functions, origin, version, _libraries: libraries })
    }

    /// The architectures that it makes code for, such as 90 for sm_90, rising.
    pub fn architectures(&self) -> Vec<u32> {
        let mut count = 0;
        // SAFETY: one integer to write to.
        let code = unsafe { (self.functions.architecture_count)(&mut count) };
        let mut found: Vec<c_int> = vec![0; if code == 0 { count.max(0) as usize } else { 0 }];
        // SAFETY: as many integers as the library has just asked for.
        if !found.is_empty() && unsafe { (self.functions.architectures)(found.as_mut_ptr()) } != 0 {
            found.clear();
        }
        let mut found: Vec<u32> = found.into_iter().map(|a| a.max(0) as u32).collect();
        found.sort_unstable();
        found
    }

    /// The architecture to compile for a device of the given capability (such as 90 for 9.0): its own, as machine code, or
    /// for a device newer than the compiler the newest that there is, as PTX, which the driver translates.
    pub fn target(&self, capability: u32) -> Result<String> {
        let known = self.architectures();
        match known.iter().rfind(|a| **a <= capability) {
            // With what only this generation has, which compilers know since CUDA 12.
            Some(90) if capability == 90 && self.version.0 >= 12 => Ok("sm_90a".into()),
            Some(a) if *a == capability => Ok(format!("sm_{a}")),
            // Machine code runs on later devices of the same generation; those of the next need PTX.
            Some(a) if a / 10 == capability / 10 => Ok(format!("sm_{a}")),
            Some(a) => Ok(format!("compute_{a}")),
            None => Err(Error::input(format!(
                "the device (compute capability {}.{}) is too old for NVRTC {}.{} at {}, which begins at {}; install an older one with `pip install {}`, or use `--device cpu`",
                capability / 10,
                capability % 10,
                self.version.0,
                self.version.1,
                self.origin,
                known.first().map_or("nothing".into(), |a| format!("{}.{}", a / 10, a % 10)),
                package(self.version.0 - 1)
            ))),
        }
    }

    /// Compiles a source that includes our headers. `options` must name the architecture.
    pub fn compile(&self, name: &str, source: &str, options: &[String]) -> Result<Image> {
        let text = |s: &str| {
            CString::new(s)
                .map_err(|_| Error::input(format!("{name}: a NUL byte in its source or constants")))
        };
        let (source_text, name_text) = (text(source)?, text(name)?);
        let bodies = HEADERS.iter().map(|h| text(h.1)).collect::<Result<Vec<_>>>()?;
        let names = HEADERS.iter().map(|h| text(h.0)).collect::<Result<Vec<_>>>()?;
        let arguments = options.iter().map(|o| text(o)).collect::<Result<Vec<_>>>()?;
        let pointers = |v: &[CString]| v.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let f = &self.functions;
        let mut program = Guard { program: std::ptr::null_mut(), destroy: f.destroy };
        // SAFETY: all strings end in NUL and outlive the call; the counts are those of the arrays.
        let code = unsafe {
            (f.create)(
                &mut program.program,
                source_text.as_ptr(),
                name_text.as_ptr(),
                bodies.len() as c_int,
                pointers(&bodies).as_ptr(),
                pointers(&names).as_ptr(),
            )
        };
        self.check(code, name, "")?;
        // SAFETY: the program was created above; the options are NUL-terminated and outlive the call.
        let code =
            unsafe { (f.compile)(program.program, arguments.len() as c_int, pointers(&arguments).as_ptr()) };
        let log = String::from_utf8_lossy(&program.read(f.log_size, f.log))
            .trim_end_matches('\0')
            .trim()
            .to_string();
        self.check(code, name, &log)?;
        let real = options.iter().any(|o| o.starts_with("--gpu-architecture=sm_"));
        let bytes = if real { program.read(f.cubin_size, f.cubin) } else { program.read(f.ptx_size, f.ptx) };
        if bytes.is_empty() {
            return Err(Error::input(format!("{name}: the compiler gave no code for {}", options.join(" "))));
        }
        Ok(Image { bytes, log })
    }

    fn check(&self, code: c_int, name: &str, log: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: returns a static string for every code.
        let why =
            unsafe { CStr::from_ptr((self.functions.error_string)(code)) }.to_string_lossy().into_owned();
        Err(Error::input(format!(
            "kernel {name} does not compile with NVRTC {}.{} ({why}):\n{log}",
            self.version.0, self.version.1
        )))
    }
}

/// Whether a driver runs what a compiler makes: machine code of the same major version of CUDA or an older one, PTX of the
/// same version or an older one.
pub fn suits(driver: Version, compiler: Version, origin: &str, ptx: bool) -> Result<()> {
    if (ptx && driver >= compiler) || (!ptx && driver.0 >= compiler.0) {
        return Ok(());
    }
    let (what, needed) = match ptx {
        false => ("code", format!("CUDA {}", compiler.0)),
        true => ("PTX", format!("CUDA {}.{}", compiler.0, compiler.1)),
    };
    let driver_needed = match compiler.0 {
        _ if ptx => "see NVIDIA's release notes for its number",
        13 => "580 or newer",
        12 => "525 or newer",
        _ => "see NVIDIA's table of CUDA compatibility",
    };
    let package = match driver.0 {
        13.. if ptx => format!("'nvidia-cuda-nvrtc=={}.{}.*'", driver.0, driver.1),
        major => package(major),
    };
    Err(Error::input(format!(
        "the NVIDIA driver runs CUDA up to {}.{}, but the run-time compiler found (NVRTC {}.{}, {origin}) makes {what} for {needed}; \
         update the driver to one for {needed} ({driver_needed}), or install the compiler that fits the driver: `pip install {package}`",
        driver.0, driver.1, compiler.0, compiler.1,
    )))
}

/// The Python package that holds the compiler of a major version of CUDA.
pub fn package(major: i32) -> String {
    match major {
        ..=12 => format!("nvidia-cuda-nvrtc-cu{}", major.max(11)),
        _ => format!("'nvidia-cuda-nvrtc=={major}.*'"),
    }
}

/// A program that is destroyed when dropped.
struct Guard {
    program: Program,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
}

impl Guard {
    /// Asks for a size, then for that many bytes; empty when either is refused.
    fn read(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        content: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Vec<u8> {
        let mut bytes = 0;
        // SAFETY: the program is alive, `bytes` can be written to.
        if unsafe { size(self.program, &mut bytes) } != 0 {
            return Vec::new();
        }
        let mut out = vec![0u8; bytes];
        // SAFETY: as many bytes as the library has just asked for.
        if unsafe { content(self.program, out.as_mut_ptr().cast()) } != 0 {
            return Vec::new();
        }
        out
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: created by the same library and not destroyed yet.
            unsafe { (self.destroy)(&mut self.program) };
        }
    }
}
