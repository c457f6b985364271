//! Who was in which split when a run began: `splits.json`. From then on it is the only truth; what the folder, the manifest
//! or the seed say later is compared with it.

use super::config::DataConfig;
use super::manifest::{Entry, Manifest, Split};
use super::notes::Notes;
use crate::error::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Version of the format.
const VERSION: u32 = 1;

/// The lists of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Splits {
    version: u32,
    /// The manifest or the pattern.
    source: String,
    /// How the subjects came into their splits.
    dealt: String,
    /// All subjects are in all splits (`data.share_subjects`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    shared: bool,
    train: Vec<Subject>,
    val: Vec<Subject>,
    test: Vec<Subject>,
}

/// A patient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Subject {
    subject: String,
    /// One, or one for each visit.
    cases: Vec<Recorded>,
}

/// The images of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Recorded {
    id: String,
    images: BTreeMap<String, Image>,
    /// What stood in the target's columns, where these are no images.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    answers: BTreeMap<String, String>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Image {
    file: String,
    /// Of a pair, both files together.
    bytes: u64,
    sha256: String,
}

impl Splits {
    /// Records a manifest: of the images that the settings name, with size and digest. All are read once, in parallel.
    pub fn of(manifest: &Manifest, config: &DataConfig) -> Result<Splits> {
        let named: Vec<&String> = config.input.iter().chain(config.target_images()).collect();
        let answered = if config.answers().is_some() { config.target.as_slice() } else { &[] };
        let record = |e: &Entry| -> Result<Recorded> {
            let there = named.iter().filter_map(|m| Some((m.to_string(), e.files.get(*m)?)));
            let images = there.filter(|(_, path)| path.is_file()).map(|(m, path)| Ok((m, Image::of(path)?)));
            let cells = answered.iter().filter_map(|c| Some((c.clone(), e.cells.get(c)?.clone())));
            let answers = cells.collect();
            Ok(Recorded { id: e.id.clone(), images: images.collect::<Result<_>>()?, answers })
        };
        let cases: Vec<Recorded> = manifest.entries.par_iter().map(record).collect::<Result<_>>()?;
        let list = |split: Split| {
            let mut subjects: Vec<Subject> = Vec::new();
            for (e, case) in manifest.entries.iter().zip(&cases) {
                if e.split != split && !manifest.shared {
                    continue;
                }
                match subjects.iter_mut().find(|s| s.subject == e.subject) {
                    Some(s) => s.cases.push(case.clone()),
                    None => subjects.push(Subject { subject: e.subject.clone(), cases: vec![case.clone()] }),
                }
            }
            subjects
        };
        Ok(Splits {
            version: VERSION,
            source: manifest.source.clone(),
            dealt: manifest.dealt.clone().unwrap_or_else(|| "by the column `split`".into()),
            shared: manifest.shared,
            train: list(Split::Train),
            val: list(Split::Val),
            test: list(Split::Test),
        })
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Splits> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let broken = |why: String| {
            Error::input(format!(
                "{} is damaged ({why}), and without it nobody knows whom the run was trained on; restore it from a copy",
                path.display()
            ))
        };
        let splits: Splits = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
        if splits.version != VERSION {
            return Err(Error::input(format!(
                "{} has version {}, this program reads {VERSION}; use the program that wrote it",
                path.display(),
                splits.version
            )));
        }
        let mut split_of: HashMap<&str, Split> = HashMap::new();
        for (split, s) in splits.subjects() {
            if split_of.insert(&s.subject, split).is_some_and(|other| other != split) && !splits.shared {
                return Err(broken(format!("{} is in two splits", s.subject)));
            }
        }
        Ok(splits)
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.recorded().map(|(_, _, r)| r.images.len()).sum()
    }

    fn subjects(&self) -> impl Iterator<Item = (Split, &Subject)> {
        let of = |split: Split, list: &'_ [Subject]| list.iter().map(|_| split).collect::<Vec<_>>();
        let splits = [of(Split::Train, &self.train), of(Split::Val, &self.val), of(Split::Test, &self.test)];
        splits.into_iter().flatten().zip(self.train.iter().chain(&self.val).chain(&self.test))
    }

    /// Every case once.
    fn recorded(&self) -> impl Iterator<Item = (Split, &str, &Recorded)> {
        let once = if self.shared { self.train.len() } else { usize::MAX };
        let all = self.subjects().take(once);
        all.flat_map(|(split, s)| s.cases.iter().map(move |case| (split, s.subject.as_str(), case)))
    }

    /// The subjects that the run was trained on whose image this file is, by its digest.
    pub fn trained_on(&self, file: &Path) -> Result<Option<&str>> {
        let bytes = size(file)?;
        let trained = self.recorded().filter(|(split, ..)| *split == Split::Train);
        let alike: Vec<(&str, &Image)> = trained
            .flat_map(|(_, subject, r)| r.images.values().map(move |i| (subject, i)))
            .filter(|(_, i)| i.bytes == bytes)
            .collect();
        if alike.is_empty() {
            return Ok(None);
        }
        let own = Image::of(file)?;
        Ok(alike.iter().find(|(_, i)| i.sha256 == own.sha256).map(|(subject, _)| *subject))
    }

    /// The cases of the run: its own splits, with each image where it lies now. `now` is what the recipe's data say today;
    /// images of the splits in `wanted` are compared with those that the run began with.
    pub fn apply(&self, now: Result<Manifest>, config: &DataConfig, wanted: &[Split]) -> Result<Found> {
        let recorded_at = |e: &Recorded| {
            let files = e.images.iter().map(|(m, i)| (m.clone(), PathBuf::from(&i.file)));
            files.collect::<BTreeMap<String, PathBuf>>()
        };
        let mut modalities: Vec<String> = config.input.iter().chain(&config.target).cloned().collect();
        let (now, unreadable) = match now {
            Ok(now) => (Some(now), None),
            Err(e) => (None, Some(e.to_string())),
        };
        if let Some(now) = &now {
            modalities.extend(
                now.modalities.iter().filter(|m| !modalities.contains(m)).cloned().collect::<Vec<_>>(),
            );
        }
        let today: HashMap<&str, &Entry> =
            now.iter().flat_map(|m| &m.entries).map(|e| (e.id.as_str(), e)).collect();
        let looked: Vec<(Entry, Vec<Fault>)> = self
            .recorded()
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|(split, subject, r)| {
                let check = self.shared || wanted.contains(&split);
                let mut files = today.get(r.id.as_str()).map_or_else(BTreeMap::new, |e| e.files.clone());
                let mut faults = Vec::new();
                for (modality, old) in recorded_at(r) {
                    let at = files.get(&modality).cloned();
                    let (path, fault) = place(&r.images[&modality], at, old, check)?;
                    faults.extend(fault.map(|kind| Fault {
                        kind,
                        split,
                        id: r.id.clone(),
                        modality: modality.clone(),
                        path: path.clone(),
                    }));
                    files.insert(modality, path);
                }
                let mut cells = today.get(r.id.as_str()).map_or_else(BTreeMap::new, |e| e.cells.clone());
                cells.extend(r.answers.clone());
                let (id, subject) = (r.id.clone(), subject.to_string());
                Ok((Entry { id, subject, split, files, cells }, faults))
            })
            .collect::<Result<_>>()?;
        let ours: HashSet<&str> = self.recorded().map(|(_, _, r)| r.id.as_str()).collect();
        let new = now.iter().flat_map(|m| &m.entries).filter(|e| !ours.contains(e.id.as_str()));
        let new: Vec<String> = new.map(|e| e.id.clone()).collect();
        let (mut moved, mut gone, mut corrected) = (Vec::new(), Vec::new(), Vec::new());
        for (split, _, r) in self.recorded() {
            let other = |(column, text): (&String, &String)| {
                let now = today.get(r.id.as_str())?.cells.get(column).filter(|now| *now != text)?;
                Some(format!("{} (`{column}` was `{text}`, now `{now}`)", r.id))
            };
            corrected.extend(r.answers.iter().filter_map(other));
            match today.get(r.id.as_str()) {
                None => gone.push(r.id.clone()),
                Some(e) if e.split != split && !self.shared => {
                    moved.push((r.id.clone(), split, e.split));
                }
                Some(_) => {}
            }
        }
        let explicit = now.as_ref().is_some_and(|m| m.dealt.is_none());
        let (entries, faults): (Vec<Entry>, Vec<Vec<Fault>>) = looked.into_iter().unzip();
        let manifest = Manifest {
            source: self.source.clone(),
            modalities,
            entries,
            shared: self.shared,
            dealt: Some(self.dealt.clone()),
            // What today's list says of its splits is not what counts.
            notes: Notes::default(),
            seen: Default::default(),
        };
        let faults = faults.into_iter().flatten().collect();
        Ok(Found { manifest, new, gone, moved, corrected, explicit, faults, unreadable })
    }
}

/// A run's cases, and how the data differ from what the run began with.
pub struct Found {
    /// The run's own cases and splits.
    pub manifest: Manifest,
    /// Cases that the data have now and the run does not know.
    pub new: Vec<String>,
    /// Cases of the run that the data no longer list.
    pub gone: Vec<String>,
    /// Cases that would be in another split: the run's, and the other.
    pub moved: Vec<(String, Split, Split)>,
    /// Cases of which the table says something else now: what it said and says.
    pub corrected: Vec<String>,
    /// Whether a list says these splits, as against a seed.
    pub explicit: bool,
    /// Images that changed or are gone.
    pub faults: Vec<Fault>,
    /// Why the data can't be listed now.
    pub unreadable: Option<String>,
}

/// An image that is not what the run began with.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What about it.
    pub kind: Kind,
    /// The case's split.
    pub split: Split,
    /// The case.
    pub id: String,
    /// Its modality.
    pub modality: String,
    /// Where it is, or was.
    pub path: PathBuf,
}

/// What happened to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another digest. This is the one that it has now.
    Changed(String),
    /// There is no such file.
    Gone,
}

impl Found {
    /// Adds to the manifest's notes what is new, gone, changed or would be elsewhere.
    pub fn say(&self) {
        let (notes, source) = (&self.manifest.notes, &self.manifest.source);
        notes.add("the splits are those that the run began with (splits.json)");
        if let Some(why) = &self.unreadable {
            notes.add(format!(
                "the data can't be listed as when the run began ({why}); its own list is used (splits.json)"
            ));
            return;
        }
        for id in &self.new {
            notes.about(format!("new in {source}, in no split of this run and left out"), id);
        }
        for id in &self.gone {
            notes.about(format!("no longer in {source}; the run's own list counts (splits.json)"), id);
        }
        for (id, ours, theirs) in &self.moved {
            notes.about(
                "would be in another split now; the one that the run began with counts (splits.json)",
                format!("{id} ({}, now {})", ours.name(), theirs.name()),
            );
        }
        for case in &self.corrected {
            notes.about(
                format!(
                    "{source} says something else now; what it said when the run began counts (splits.json)"
                ),
                case,
            );
        }
        for fault in self.faults.iter().filter(|f| f.kind != Kind::Gone) {
            notes.about(
                format!(
                    "not the {} image that the run began with (its digest differs from splits.json)",
                    fault.split.name()
                ),
                format!("{} of {}", fault.path.display(), fault.id),
            );
        }
    }

    /// Refuses a changed image that is one that the run was trained on, in the place of a held-out one.
    pub fn check_leaks(&self, splits: &Splits) -> Result<()> {
        let trained: HashMap<&str, &str> = splits
            .recorded()
            .filter(|(split, ..)| *split == Split::Train && !splits.shared)
            .flat_map(|(_, subject, r)| r.images.values().map(move |i| (i.sha256.as_str(), subject)))
            .collect();
        for fault in self.faults.iter().filter(|f| f.split != Split::Train) {
            if let Kind::Changed(digest) = &fault.kind
                && let Some(subject) = trained.get(digest.as_str())
            {
                return Err(Error::input(format!(
                    "{}, the `{}` image of {} (in {}), is now an image of {subject}, whom the run was trained on; put the former file back",
                    fault.path.display(),
                    fault.modality,
                    fault.id,
                    fault.split.name()
                )));
            }
        }
        Ok(())
    }
}

/// Where an image is now: of the two places the one that has the recorded digest, if it is to be compared.
fn place(image: &Image, now: Option<PathBuf>, old: PathBuf, check: bool) -> Result<(PathBuf, Option<Kind>)> {
    let mut places: Vec<PathBuf> = now.into_iter().chain([old]).collect();
    places.dedup();
    let there: Vec<&PathBuf> = places.iter().filter(|p| p.is_file()).collect();
    let Some(first) = there.first() else { return Ok((places[0].clone(), Some(Kind::Gone))) };
    if !check {
        return Ok((first.to_path_buf(), None));
    }
    let mut other = None;
    for path in &there {
        let found = Image::of(path)?;
        if found.sha256 == image.sha256 {
            return Ok((path.to_path_buf(), None));
        }
        other.get_or_insert(found.sha256);
    }
    Ok((first.to_path_buf(), other.map(Kind::Changed)))
}

impl Image {
    fn of(path: &Path) -> Result<Image> {
        let mut hasher = Sha256::new();
        let mut bytes = 0;
        for file in parts(path) {
            let mut stream = File::open(&file).map_err(Error::io("read", &file))?;
            let mut buffer = vec![0; 1 << 18];
            loop {
                let n = match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(Error::io("read", &file)(e)),
                };
                hasher.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
        let sha256 = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
        // A name that is no Unicode can't be written; then the digest tells the file that the data list now.
        Ok(Image { file: path.to_string_lossy().into_owned(), bytes, sha256 })
    }
}

fn size(path: &Path) -> Result<u64> {
    parts(path).iter().map(|f| fs::metadata(f).map(|m| m.len()).map_err(Error::io("read", f))).sum()
}

/// The file, and the other of a `.hdr`/`.img` pair.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_path_buf()];
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let others: &[&str] = match extension.as_deref() {
        Some("hdr") => &["img", "IMG", "img.gz"],
        Some("img") => &["hdr", "HDR"],
        _ => &[],
    };
    all.extend(others.iter().map(|e| path.with_extension(e)).find(|p| p.is_file()));
    all.sort();
    all
}
