//! Folders as people have them: which of the known layouts a folder has, and the cases that lie in it.
//!
//! A layout is told by its own marks (a `dataset.json`, names of cases, names of folders), never guessed from one file; what lies
//! in the folder and belongs to no case is said.

mod bids;
mod cases;
mod nnunet;
mod pictures;

use super::manifest::{Entry, Manifest, Split};
use super::names;
use super::notes::Notes;
use crate::error::{Error, Result};
use crate::fsio;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// What a folder was recognised as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// BIDS: `sub-*/[ses-*/]*/*_SUFFIX.nii.gz`, with its derivatives and `participants.tsv`.
    Bids,
    /// nnU-Net's raw data: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`.
    NnUnet,
    /// Medical Segmentation Decathlon: `dataset.json` with a list of images and labels.
    Decathlon,
    /// BraTS: a folder for each case, files `CASE_flair.nii.gz` or `CASE-t2f.nii.gz`.
    Brats,
    /// SynthRAD: a folder for each case with `mr` or `cbct`, `ct` and `mask`.
    SynthRad,
    /// Class folders: `[train/]CLASS/*.png`.
    Classes,
    /// Pairs by name: `A/[train/]x.png` and `B/[train/]x.png`.
    Pairs,
    /// Two sets without pairs: `trainA`, `trainB`, `testA`, `testB`.
    Unpaired,
}

impl Layout {
    /// As in messages.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Bids => "BIDS",
            Layout::NnUnet => "nnU-Net raw",
            Layout::Decathlon => "Medical Segmentation Decathlon",
            Layout::Brats => "BraTS",
            Layout::SynthRad => "SynthRAD",
            Layout::Classes => "class folders",
            Layout::Pairs => "paired folders A and B",
            Layout::Unpaired => "trainA and trainB",
        }
    }
}

/// A folder's cases.
#[derive(Debug)]
pub struct Found {
    /// What it was recognised as.
    pub layout: Layout,
    /// The cases. Where the layout says no splits, all are for training, and `split` is false.
    pub entries: Vec<Entry>,
    /// Whether the layout says who is in which split.
    pub split: bool,
    /// The classes of [`Layout::Classes`], which stand in the column `class`.
    pub classes: Vec<String>,
    /// What was left out or guessed.
    pub notes: Notes,
}

/// A folder that is being looked at.
struct Folder {
    path: PathBuf,
    /// Names of the folders in it, in order.
    folders: Vec<String>,
    /// Names of the files in it, in order.
    files: Vec<String>,
    /// Where to say what is left out.
    notes: Notes,
}

impl Folder {
    fn read(path: &Path, notes: &Notes) -> Result<Folder> {
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(path).map_err(Error::io("read the folder", path))? {
            let entry = entry.map_err(Error::io("read the folder", path))?;
            let name: OsString = entry.file_name();
            if names::foreign(&name) {
                continue;
            }
            let Ok(name) = name.into_string() else {
                notes.about("left out, as their names are no Unicode", fsio::text(entry.path()));
                continue;
            };
            // Links count as what they lead to.
            let list = if entry.path().is_dir() { &mut folders } else { &mut files };
            list.push(name);
        }
        folders.sort();
        files.sort();
        Ok(Folder { path: path.to_path_buf(), folders, files, notes: notes.clone() })
    }

    fn has(&self, folder: &str) -> bool {
        self.folders.iter().any(|f| f == folder)
    }

    fn open(&self, folder: &str) -> Result<Folder> {
        Folder::read(&self.path.join(folder), &self.notes)
    }

    /// The images in it: name without extension, and file.
    fn images(&self) -> Vec<(String, PathBuf)> {
        let image = |f: &String| {
            let name = names::image(Path::new(f))?;
            // Of a pair of files the header.
            let second = name.kind == names::Kind::Img && self.files.iter().any(|o| is_header(o, &name.stem));
            let stem = name.stem.into_string().ok()?;
            (!second).then(|| (stem, self.path.join(f)))
        };
        self.files.iter().filter_map(image).collect()
    }
}

fn is_header(file: &str, stem: &std::ffi::OsStr) -> bool {
    names::image(Path::new(file)).is_some_and(|n| n.kind == names::Kind::Hdr && n.stem == stem)
}

/// A case as layouts find it.
fn entry(id: &str, subject: &str, split: Split, files: BTreeMap<String, PathBuf>) -> Entry {
    Entry { id: id.into(), subject: subject.into(), split, files, cells: BTreeMap::new() }
}

/// The split that a folder's name says.
fn split_of(folder: &str) -> Option<Split> {
    match folder.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" => Some(Split::Val),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}

/// Finds a layout's cases; nothing where a folder is not of it.
type Reader = fn(&Folder, &Notes) -> Result<Option<Found>>;

/// Recognises a folder.
pub fn find(path: &Path) -> Result<Found> {
    if !path.is_dir() {
        return Err(match path.exists() {
            true => Error::input(format!(
                "{} is no folder; name one, or a table with `data.manifest`",
                path.display()
            )),
            false => Error::missing(path),
        });
    }
    let notes = Notes::default();
    let folder = Folder::read(path, &notes)?;
    let readers: [Reader; 6] =
        [nnunet::find, bids::find, pictures::unpaired, pictures::pairs, cases::find, pictures::classes];
    for read in readers {
        if let Some(found) = read(&folder, &notes)? {
            if found.entries.is_empty() {
                return Err(Error::input(format!(
                    "{} looks like {}, but holds no case; check the path",
                    path.display(),
                    found.layout.name()
                )));
            }
            return Ok(found);
        }
    }
    let inside: Vec<&String> = folder.folders.iter().chain(&folder.files).take(5).collect();
    Err(Error::input(format!(
        "{} has no layout that is known (BIDS, nnU-Net raw, Medical Segmentation Decathlon, BraTS, SynthRAD, A and B, trainA and trainB, class folders); it holds {}; say with `data.pattern` how files are named, or list them in a table (`data.manifest`)",
        path.display(),
        if inside.is_empty() {
            "nothing".into()
        } else {
            inside.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
        }
    )))
}

impl Found {
    /// The modalities and columns that any case has.
    pub fn modalities(&self) -> Vec<String> {
        let names = |e: &Entry| e.files.keys().chain(e.cells.keys()).cloned().collect::<Vec<_>>();
        self.entries.iter().flat_map(names).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// As a manifest. Who is in which split says the layout, or `fractions` with `seed`; a layout that says no validation has it
    /// from its training cases.
    pub fn manifest(self, path: &Path, fractions: &[f64; 3], seed: u64) -> Result<Manifest> {
        let modalities = self.modalities();
        let source = fsio::text(path);
        self.notes.add(format!(
            "{source} is read as {}: {} cases of {}",
            self.layout.name(),
            self.entries.len(),
            modalities.iter().map(|m| format!("`{m}`")).collect::<Vec<_>>().join(", ")
        ));
        Manifest::of_entries(source, modalities, self.entries, self.split, self.notes, fractions, seed)
    }
}

/// Whether a value is BIDS' or another table's way to say that there is none.
fn is_missing(cell: &str) -> bool {
    let cell = cell.trim();
    cell.is_empty() || ["n/a", "na", "nan", "none"].iter().any(|n| cell.eq_ignore_ascii_case(n))
}
