//! Files are written to a temporary name beside their destination and renamed, so that a reader never sees half
//! a file and a full disk never destroys the old one.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `path` atomically: `fill` writes the content, then the file is flushed, synced and renamed into place.
/// On any error the temporary file is removed and the destination is what it was before.
pub fn write_atomic<F>(path: &Path, fill: F) -> Result<()>
where
    F: FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
{
    let tmp = temporary_beside(path);
    let done = (|| {
        let mut out = BufWriter::new(File::create(&tmp)?);
        fill(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        drop(out);
        fs::rename(&tmp, path)
    })();
    done.map_err(|e| {
        let _ = fs::remove_file(&tmp);
        Error::io("write", path)(e)
    })
}

/// [`write_atomic`] for content that is at hand.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |out| out.write_all(bytes))
}

/// A name in the same folder that a crashed run may leave behind; it starts with a dot and ends in `.tmp` plus
/// the file's own extension (readers that look at the extension still recognise the format).
pub fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{}.tmp.{name}", std::process::id()))
}

/// Whether a file name is one of [`temporary_beside`]'s.
pub fn is_temporary(name: &str) -> bool {
    let process = name.strip_prefix('.').and_then(|n| n.split_once(".tmp."));
    process.is_some_and(|(id, _)| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
}

/// A path as text for JSON: bytes that are not UTF-8 (names from old systems) are escaped, `\xFC`, as Python's
/// `backslashreplace` does.
pub fn text(path: impl AsRef<Path>) -> String {
    let mut out = String::new();
    for chunk in path.as_ref().as_os_str().as_encoded_bytes().utf8_chunks() {
        out.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|b| out.push_str(&format!("\\x{b:02X}")));
    }
    out
}

/// Creates a folder and its parents.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create the folder", path))
}
