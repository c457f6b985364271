//! Compiled kernels on disk. An entry's name holds a hash of everything that went into it, so entries are never
//! invalidated, only thrown away when there are too many; they appear by atomic rename, so no lock is needed.

use crate::error::Result;
use crate::fsio;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// All entries together are kept below this many bytes.
const LIMIT: u64 = 256 << 20;

/// A folder of compiled kernels.
pub struct Cache {
    folder: PathBuf,
    limit: u64,
}

/// One entry of the cache.
#[derive(Debug)]
pub struct Entry {
    /// File name: kernel file, architecture, hash.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it was last written or used.
    pub used: SystemTime,
}

impl Cache {
    /// The cache in `GAN_CACHE_DIR`, else in the user's cache folder, else (where that cannot be written) in the
    /// temporary folder.
    pub fn open() -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(folder) = variable("GAN_CACHE_DIR") {
            return Self::at(&folder.join("kernels"));
        }
        let home = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        if let Some(cache) = home.and_then(|h| Self::at(&h.join("gan/kernels")).ok()) {
            return Ok(cache);
        }
        Self::at(&std::env::temp_dir().join("gan-cache/kernels"))
    }

    /// The cache in a folder, which is created; fails where it cannot be written.
    pub fn at(folder: &Path) -> Result<Self> {
        fsio::create_dir(folder)?;
        static PROBES: AtomicUsize = AtomicUsize::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let probe = folder.join(format!(".probe-{}-{number}", std::process::id()));
        fsio::write_bytes(&probe, b"")?;
        let _ = std::fs::remove_file(&probe);
        Ok(Cache { folder: folder.to_path_buf(), limit: LIMIT })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The entry's name for a kernel file, an architecture and everything that determines the code.
    pub fn key<'a>(file: &str, architecture: &str, parts: impl IntoIterator<Item = &'a str>) -> String {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let hex: String = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
        format!("{}-{architecture}-{hex}", file.trim_end_matches(".cu"))
    }

    /// The content of an entry. What cannot be read counts as absent.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.folder.join(key);
        let bytes = std::fs::read(&path).ok()?;
        if let Ok(file) = std::fs::File::open(&path) {
            let _ = file.set_modified(SystemTime::now()); // marks it as used; a read-only cache works without
        }
        Some(bytes)
    }

    /// Adds an entry, then drops the longest unused ones if there is too much.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        // Threads of one process share a temporary name, whichever cache they write to.
        static WRITING: Mutex<()> = Mutex::new(());
        let _one = WRITING.lock().unwrap_or_else(|e| e.into_inner());
        fsio::write_bytes(&self.folder.join(key), bytes)?;
        let mut entries = self.list();
        let mut total: u64 = entries.iter().map(|e| e.bytes).sum();
        if total > self.limit {
            entries.sort_by_key(|e| e.used);
            for e in entries.iter().filter(|e| e.name != key) {
                if total <= self.limit / 4 * 3 {
                    break;
                }
                let _ = std::fs::remove_file(self.folder.join(&e.name));
                total -= e.bytes;
            }
        }
        Ok(())
    }

    /// All entries, by name.
    pub fn list(&self) -> Vec<Entry> {
        let Ok(files) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let mut entries: Vec<Entry> = files
            .filter_map(|f| {
                let f = f.ok()?;
                let about = f.metadata().ok()?;
                let name = f.file_name().into_string().ok()?;
                (about.is_file() && !name.starts_with('.')).then(|| Entry {
                    name,
                    bytes: about.len(),
                    used: about.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                })
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }

    /// Removes all entries; says how many there were.
    pub fn clear(&self) -> usize {
        self.list().iter().filter(|e| std::fs::remove_file(self.folder.join(&e.name)).is_ok()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn entries_come_back_and_the_longest_unused_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::at(&folder.path().join("a/b")).unwrap();
        cache.limit = 100;
        assert!(cache.get("none").is_none());
        for (i, name) in ["one", "two", "three"].into_iter().enumerate() {
            cache.put(name, &[i as u8; 40]).unwrap();
            let file = std::fs::File::open(cache.folder().join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(i as u64)).unwrap();
            if name == "two" {
                assert_eq!(cache.get("one").unwrap(), vec![0; 40]); // now the one used last
            }
        }
        let names: Vec<String> = cache.list().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["three"], "120 bytes: dropped until 75 or fewer are left, the new one stays");
        assert_eq!(cache.clear(), 1);
    }

    #[test]
    fn every_part_changes_the_key() {
        let key = |parts: &[&str]| Cache::key("conv.cu", "sm_90", parts.iter().copied());
        assert!(key(&["a", "b"]).starts_with("conv-sm_90-"));
        assert_ne!(key(&["a", "b"]), key(&["ab", ""]));
        assert_ne!(key(&["a", "b"]), key(&["b", "a"]));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"").unwrap();
        assert!(Cache::at(&folder.path().join("file/below")).is_err());
    }
}
