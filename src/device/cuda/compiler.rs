//! From a kernel file and its constants to code for a device, by way of the cache.

use super::cache::Cache;
use super::driver::Version;
use super::nvrtc::{Image, Nvrtc};
use super::sources::{self, HEADERS};
use crate::error::Result;

/// A kernel file specialised by constants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Specialisation {
    /// The file, such as `conv.cu`.
    pub file: &'static str,
    /// Its constants, each `NAME=value` or `NAME(a)=expression`; the file's header says which there are.
    pub constants: Vec<String>,
}

impl Specialisation {
    /// A file with its constants.
    pub fn new<S: Into<String>>(file: &'static str, constants: impl IntoIterator<Item = S>) -> Self {
        Specialisation { file, constants: constants.into_iter().map(Into::into).collect() }
    }

    /// The compiler's options for an architecture: `sm_90` gives a cubin, `compute_90` gives PTX.
    fn options(&self, architecture: &str) -> Vec<String> {
        let fixed = ["--std=c++17", "--ptxas-options=-v", "--generate-line-info"].map(String::from);
        [format!("--gpu-architecture={architecture}")]
            .into_iter()
            .chain(fixed)
            .chain(self.constants.iter().map(|c| format!("-D{c}")))
            .collect()
    }
}

/// The run-time compiler with its cache.
pub struct Compiler {
    nvrtc: Nvrtc,
    cache: Cache,
}

impl Compiler {
    /// Finds the run-time compiler and opens the cache.
    pub fn new() -> Result<Self> {
        Ok(Compiler { nvrtc: Nvrtc::find()?, cache: Cache::open()? })
    }

    /// Finds a run-time compiler whose code a driver of the given version runs, and opens the cache.
    pub fn for_driver(driver: Version) -> Result<Self> {
        Ok(Compiler { nvrtc: Nvrtc::find_for(Some(driver))?, cache: Cache::open()? })
    }

    /// With a given compiler and cache.
    pub fn with(nvrtc: Nvrtc, cache: Cache) -> Self {
        Compiler { nvrtc, cache }
    }

    /// The run-time compiler.
    pub fn nvrtc(&self) -> &Nvrtc {
        &self.nvrtc
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The name under which the cache holds a specialisation.
    fn key(&self, what: &Specialisation, architecture: &str) -> String {
        let options = what.options(architecture);
        let version = format!("{}.{}", self.nvrtc.version.0, self.nvrtc.version.1);
        let source = sources::kernel(what.file);
        let parts = [source, &version].into_iter().chain(options.iter().map(String::as_str));
        Cache::key(what.file, architecture, parts.chain(HEADERS.iter().flat_map(|h| [h.0, h.1])))
    }

    /// Whether the code of a specialisation need not be compiled.
    pub fn is_cached(&self, what: &Specialisation, architecture: &str) -> bool {
        self.cache.get(&self.key(what, architecture)).and_then(unpack).is_some()
    }

    /// The code of a specialisation for an architecture, compiled unless the cache has it.
    pub fn image(&self, what: &Specialisation, architecture: &str) -> Result<Image> {
        let key = self.key(what, architecture);
        if let Some(image) = self.cache.get(&key).and_then(unpack) {
            return Ok(image);
        }
        let image = self.nvrtc.compile(what.file, sources::kernel(what.file), &what.options(architecture))?;
        self.cache.put(&key, &pack(&image))?;
        Ok(image)
    }
}

/// An entry of the cache: the log's length, the log, the code.
fn pack(image: &Image) -> Vec<u8> {
    let mut bytes = (image.log.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(image.log.as_bytes());
    bytes.extend_from_slice(&image.bytes);
    bytes
}

/// `None` for anything that `pack` did not write.
fn unpack(bytes: Vec<u8>) -> Option<Image> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?) as usize;
    let log = String::from_utf8(bytes.get(8..length.checked_add(8)?)?.to_vec()).ok()?;
    let code = bytes[8 + length..].to_vec();
    (!code.is_empty()).then_some(Image { bytes: code, log })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_entries_are_read_back_and_damaged_ones_are_not() {
        let image = Image { bytes: vec![1, 2, 3], log: "log".into() };
        let packed = pack(&image);
        let back = unpack(packed.clone()).unwrap();
        assert_eq!((back.bytes, back.log), (image.bytes, image.log));
        assert!(unpack(packed[..packed.len() - 3].to_vec()).is_none());
        assert!(unpack(packed[..9].to_vec()).is_none());
        assert!(unpack(vec![0xff; 20]).is_none());
        assert!(unpack(Vec::new()).is_none());
    }
}
