//! The same image twice: a line that was copied and half changed, a file that was exported under two names. Between training
//! and test it makes scores that say nothing; as input and target of one case there is nothing to learn.

use super::manifest::{Entry, Manifest, Split};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// To be given to a network.
    Input,
    /// To be made by it.
    Target,
}

/// Which file a path leads to, whatever links lie between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    #[cfg(unix)]
    Inode(u64, u64),
    #[cfg(not(unix))]
    Path(PathBuf),
}

fn identity(path: &Path) -> Option<Identity> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(path).ok()?;
        Some(Identity::Inode(meta.dev(), meta.ino()))
    }
    #[cfg(not(unix))]
    fs::canonicalize(path).ok().map(Identity::Path)
}

struct Place<'a> {
    entry: &'a Entry,
    modality: &'a str,
    role: Role,
    path: &'a Path,
}

/// Refuses a file that stands under subjects of two splits, or as input and target of one case.
pub fn check_files(manifest: &Manifest, input: &[String], target: &[String], degraded: bool) -> Result<()> {
    let roles = input.iter().map(|m| (m, Role::Input));
    let roles: Vec<(&String, Role)> = roles.chain(target.iter().map(|m| (m, Role::Target))).collect();
    let of = |entry: &'_ Entry| {
        let images = roles.iter().filter_map(|(m, role)| Some((m.as_str(), *role, entry.files.get(*m)?)));
        images.map(|(m, role, path)| (m.to_string(), role, identity(path))).collect::<Vec<_>>()
    };
    // A file system in a network answers slowly, but many at once.
    let known: Vec<Vec<(String, Role, Option<Identity>)>> = manifest.entries.par_iter().map(of).collect();
    let mut uses: HashMap<&Identity, Vec<Place>> = HashMap::new();
    for (entry, images) in manifest.entries.iter().zip(&known) {
        for (modality, role, identity) in images {
            if let (Some(identity), Some(path)) = (identity, entry.files.get(modality)) {
                uses.entry(identity).or_default().push(Place { entry, modality, role: *role, path });
            }
        }
    }
    for places in uses.values().filter(|p| p.len() > 1) {
        compare(manifest, input, degraded, places)?;
    }
    Ok(())
}

fn compare(manifest: &Manifest, input: &[String], degraded: bool, places: &[Place]) -> Result<()> {
    let first = &places[0];
    // An atlas that every case has beside its own images.
    let everywhere = places.len() == manifest.entries.len()
        && input.len() > 1
        && places.iter().all(|p| p.role == Role::Input && p.modality == first.modality);
    if everywhere {
        manifest.notes.about(
            "every case has the same file as one of its inputs",
            format!("{} ({})", first.path.display(), first.modality),
        );
        return Ok(());
    }
    for other in &places[1..] {
        let (a, b) = (first, other);
        let same_case = a.entry.id == b.entry.id;
        if same_case && a.role != b.role && !degraded {
            return Err(input_is_target(&manifest.source, &a.entry.id, a.path, b.path));
        }
        if a.entry.subject != b.entry.subject && a.entry.split != b.entry.split && !manifest.shared {
            return Err(both(
                &manifest.source,
                "the same file",
                place(a.entry, a.path),
                place(b.entry, b.path),
            ));
        }
        if a.entry.id != b.entry.id || a.modality != b.modality {
            let twice = !(same_case && a.role != b.role);
            if twice {
                manifest.notes.about(TWICE, pair(a.entry, a.path, b.entry, b.path));
            }
        }
    }
    Ok(())
}

/// What is said of an image that counts twice within a split.
const TWICE: &str = "the same image stands twice and counts twice";

fn pair(a: &Entry, pa: &Path, b: &Entry, pb: &Path) -> String {
    let mut both = [format!("{} of {}", pa.display(), a.id), format!("{} of {}", pb.display(), b.id)];
    both.sort();
    both.join(" and ")
}

fn place(entry: &Entry, path: &Path) -> (String, Split, PathBuf) {
    (entry.id.clone(), entry.split, path.to_path_buf())
}

fn both(source: &str, what: &str, a: (String, Split, PathBuf), b: (String, Split, PathBuf)) -> Error {
    // Whichever was found first.
    let ((a, sa, pa), (b, sb, pb)) = if (a.1, &a.0) <= (b.1, &b.0) { (a, b) } else { (b, a) };
    Error::input(format!(
        "{source}: {what} stands under {a} (in {}: {}) and {b} (in {}: {}), so scores would be those of images trained on; correct the path, or delete one of the two",
        sa.name(),
        pa.display(),
        sb.name(),
        pb.display()
    ))
}

fn input_is_target(source: &str, id: &str, input: &Path, target: &Path) -> Error {
    let files = match input == target {
        true => input.display().to_string(),
        false => format!("{} and {}", input.display(), target.display()),
    };
    Error::input(format!(
        "{source}: input and target of {id} are the same image, both {files}; correct the path (or make the input worse with `data.degrade`, if that is to be undone)"
    ))
}

/// A digest of voxels in canonical order; none if all are equal (an empty label map is no one's in particular).
pub fn digest(voxels: &[f32], dims: [usize; 3]) -> Option<u64> {
    let first = voxels.first()?;
    if voxels.iter().all(|v| v == first) {
        return None;
    }
    let mix = |h: u64, v: u64| (h.rotate_left(23) ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let start = dims.iter().fold(0x2545_f491_4f6c_dd1d, |h, n| mix(h, *n as u64));
    // Minus zero is zero.
    let all = voxels.iter().fold(start, |h, v| mix(h, u64::from((v + 0.0).to_bits())));
    Some(all ^ all >> 29)
}

/// An image as it was read.
#[derive(Clone, Debug)]
pub struct Print {
    /// The file.
    pub path: PathBuf,
    /// What it is for.
    pub role: Role,
    /// [`digest`].
    pub digest: Option<u64>,
}

/// The images that were read so far, of all splits. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// By digest: the first that had it.
    first: HashMap<u64, (Entry, PathBuf)>,
    /// What was looked at already.
    done: HashSet<(String, PathBuf)>,
}

impl Seen {
    /// Compares the images of a case with each other and with all that were read before.
    pub fn check(&self, manifest: &Manifest, entry: &Entry, prints: &[Print], degraded: bool) -> Result<()> {
        for (i, a) in prints.iter().enumerate() {
            let same = |b: &&Print| a.role != b.role && a.digest.is_some() && a.digest == b.digest;
            if let Some(b) = prints[i + 1..].iter().find(same)
                && !degraded
            {
                return Err(input_is_target(&manifest.source, &entry.id, &a.path, &b.path));
            }
        }
        // A poisoned lock only means that another thread panicked between two consistent states.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for print in prints {
            let Some(digest) = print.digest else { continue };
            if !held.done.insert((entry.id.clone(), print.path.clone())) {
                continue;
            }
            let Some((other, path)) = held.first.get(&digest) else {
                held.first.insert(digest, (entry.clone(), print.path.clone()));
                continue;
            };
            // The same file under two names was compared before.
            if other.id == entry.id || identity(path) == identity(&print.path) {
                continue;
            }
            if other.subject != entry.subject && other.split != entry.split && !manifest.shared {
                let what = "the same image (voxel by voxel, in two files)";
                return Err(both(&manifest.source, what, place(other, path), place(entry, &print.path)));
            }
            manifest.notes.about(TWICE, pair(other, path, entry, &print.path));
        }
        Ok(())
    }
}
