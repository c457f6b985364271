//! Patterns of file names: `data/{subject}/{subject}_{modality}.nii.gz`. Names need not be UTF-8.

use super::names;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

const SUBJECT: &str = "{subject}";

/// The file of a subject and a modality.
pub(super) fn file(pattern: &str, modality: &str, subject: &OsStr) -> PathBuf {
    PathBuf::from(filled(&pattern.replace("{modality}", modality), subject))
}

/// The subjects for which there is a file of the modality, in order. A link that leads nowhere is one, so that it is named
/// later and not left out.
pub(super) fn subjects(pattern: &str, modality: &str) -> Result<BTreeSet<OsString>> {
    let sought = pattern.replace("{modality}", modality);
    let parts = || Path::new(&sought).components().map(|c| c.as_os_str().to_string_lossy().into_owned());
    let has = |p: &String| p.contains(SUBJECT);
    let start: PathBuf = parts().take_while(|p| !has(p)).collect();
    let start = if start.as_os_str().is_empty() { PathBuf::from(".") } else { start };
    let rest: Vec<String> = parts().skip_while(|p| !has(p)).collect();
    let mut found = BTreeSet::new();
    walk(&start, &rest, None, &mut found)?;
    Ok(found)
}

/// Walks the folders that fit the pattern's remaining parts and collects the subjects of the files found.
fn walk(at: &Path, rest: &[String], subject: Option<&OsStr>, found: &mut BTreeSet<OsString>) -> Result<()> {
    let Some((part, deeper)) = rest.split_first() else {
        if at.is_file() || at.is_symlink() && !at.exists() {
            found.extend(subject.map(OsStr::to_os_string));
        }
        return Ok(());
    };
    if !part.contains(SUBJECT) {
        return walk(&at.join(part), deeper, subject, found);
    }
    if let Some(s) = subject {
        return walk(&at.join(filled(part, s)), deeper, subject, found);
    }
    if !at.is_dir() {
        return Err(Error::input(format!(
            "the pattern's folder {} does not exist; check the path",
            at.display()
        )));
    }
    for entry in fs::read_dir(at).map_err(Error::io("read", at))? {
        let entry = entry.map_err(Error::io("read", at))?;
        let name = entry.file_name();
        // What macOS puts beside each file (`._sub-01_T1w.nii.gz`) would be a subject of its own.
        if names::foreign(&name) && !part.starts_with('.') {
            continue;
        }
        if let Some(s) = matched(part, &name) {
            walk(&entry.path(), deeper, Some(&s), found)?;
        }
    }
    Ok(())
}

/// A part of the pattern with the subject in its places.
fn filled(part: &str, subject: &OsStr) -> OsString {
    let mut out = OsString::new();
    for (i, piece) in part.split(SUBJECT).enumerate() {
        if i > 0 {
            out.push(subject);
        }
        out.push(piece);
    }
    out
}

/// The subject for which the pattern's part reads as `name`: the longest; a second occurrence must repeat the first.
fn matched(part: &str, name: &OsStr) -> Option<OsString> {
    let (prefix, _) = part.split_once(SUBJECT)?;
    let bytes = name.as_encoded_bytes();
    let body = bytes.strip_prefix(prefix.as_bytes())?;
    (1..=body.len()).rev().filter_map(|end| slice(&body[..end])).find(|s| filled(part, s) == name)
}

#[cfg(unix)]
fn slice(bytes: &[u8]) -> Option<OsString> {
    use std::os::unix::ffi::OsStrExt;
    Some(OsStr::from_bytes(bytes).to_os_string())
}

#[cfg(not(unix))]
fn slice(bytes: &[u8]) -> Option<OsString> {
    std::str::from_utf8(bytes).ok().map(OsString::from)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn subjects_are_found_in_bytes_and_leftovers_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let odd = OsStr::from_bytes(b"k\xf6pfe");
        for subject in [OsStr::new("s1"), odd, OsStr::new("._s1"), OsStr::new(".DS_Store")] {
            let mut name = subject.to_os_string();
            name.push("_t1.nii");
            fs::write(dir.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", dir.path().join("gone_t1.nii")).unwrap();
        let pattern = format!("{}/{{subject}}_{{modality}}.nii", dir.path().display());
        let found: Vec<OsString> = subjects(&pattern, "t1").unwrap().into_iter().collect();
        assert_eq!(found, ["gone".into(), odd.to_os_string(), "s1".into()]);
        assert!(file(&pattern, "t1", odd).is_file());
        assert_eq!(matched("{subject}_{subject}.nii", OsStr::new("a_a.nii")), Some("a".into()));
        assert_eq!(matched("{subject}_{subject}.nii", OsStr::new("a_b.nii")), None);
    }
}
