//! Which subjects there are, where their images lie, and which part of the data each belongs to.
//!
//! A manifest is a CSV file with a column `subject`, optionally `session` and `split` (`train`, `val`, `test`), and
//! one column per modality with paths relative to the CSV's folder; an empty cell means that there is no such image.
//! A pattern such as `data/{subject}/{subject}_{modality}.nii.gz` does without a CSV. All images of a subject are in
//! one part: patients never straddle training and test.

mod columns;

use super::duplicates::Seen;
use super::notes::Notes;
use super::pattern;
use super::sheet::Sheet;
use crate::error::{Error, Result};
use crate::fsio;
use crate::rng::Philox;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from.
    Train,
    /// To watch and to choose by.
    Val,
    /// To report on, once.
    Test,
}

impl Split {
    /// All three.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    /// `train`, `val`, `test`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }

    fn parse(text: &str) -> Option<Split> {
        match text.trim().to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Split::Train),
            "val" | "valid" | "validation" | "dev" => Some(Split::Val),
            "test" | "testing" => Some(Split::Test),
            _ => None,
        }
    }
}

/// One case: the images of one subject, in one session if there are several.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The subject, with `_` and the session if there is one. Unique.
    pub id: String,
    /// The subject (patient) by which the data is split.
    pub subject: String,
    /// Its part of the data.
    pub split: Split,
    /// Modality to file.
    pub files: BTreeMap<String, PathBuf>,
    /// What stands in the table's other columns, of modalities as files and of what is no image; empty cells are left out.
    pub cells: BTreeMap<String, String>,
}

/// All cases.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The CSV file or the pattern, for messages.
    pub source: String,
    /// The modalities it knows.
    pub modalities: Vec<String>,
    /// The cases, in the order of the file, or sorted by name.
    pub entries: Vec<Entry>,
    /// Every case is in every part; see `data.share_subjects`.
    pub shared: bool,
    /// How the subjects were dealt; none if a list says their splits.
    pub dealt: Option<String>,
    /// What was guessed, dealt or left out, here and by those who load the cases.
    pub notes: Notes,
    /// The images that were read so far.
    pub seen: Seen,
}

impl Manifest {
    /// Reads a CSV manifest. Without a `split` column the subjects are dealt by `fractions` (train, val, test) with `seed`.
    pub fn read(path: &Path, fractions: &[f64; 3], seed: u64) -> Result<Manifest> {
        Self::read_from(path, None, fractions, seed)
    }

    /// [`Manifest::read`] with paths relative to `root` instead of the CSV's folder.
    pub fn read_from(path: &Path, root: Option<&Path>, fractions: &[f64; 3], seed: u64) -> Result<Manifest> {
        let p = path.display();
        let notes = Notes::default();
        let sheet = Sheet::read(path, &notes)?;
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .flexible(false)
            .delimiter(sheet.delimiter)
            .from_reader(sheet.text.as_bytes());
        let broken =
            |e: csv::Error| Error::input(format!("{p} is not a readable CSV file ({e}); correct that line"));
        let headers: Vec<String> = reader.headers().map_err(broken)?.iter().map(str::to_string).collect();
        let records: Vec<csv::StringRecord> = reader.records().collect::<csv::Result<_>>().map_err(broken)?;
        let columns = columns::find(&p.to_string(), &headers, &records, &notes)?;
        let modalities: Vec<String> = headers
            .iter()
            .enumerate()
            .filter(|(c, _)| columns.is_modality(*c))
            .map(|(_, h)| h.clone())
            .collect();
        let folder = root.or(path.parent()).unwrap_or(Path::new(""));
        let mut entries = Vec::new();
        let mut lines: HashMap<String, u64> = HashMap::new();
        let mut splits: HashMap<String, (Split, u64)> = HashMap::new();
        for record in &records {
            let line = record.position().map_or(0, csv::Position::line);
            let cell = |c: usize| record.get(c).unwrap_or("");
            let subject = cell(columns.subject).to_string();
            if subject.is_empty() {
                return Err(Error::input(format!(
                    "{p}, line {line}: the subject is empty; name it or delete the line"
                )));
            }
            let id = match columns.session.map(cell) {
                Some(s) if !s.is_empty() => format!("{subject}_{s}"),
                _ => subject.clone(),
            };
            let split = match columns.split.map(cell) {
                None => Split::Train,
                Some(text) => Split::parse(text).ok_or_else(|| {
                    Error::input(format!(
                        "{p}, line {line}: the split `{text}` is unknown; write train, val or test"
                    ))
                })?,
            };
            if let Some((other, at)) = splits.get(&subject).filter(|(s, _)| *s != split) {
                return Err(Error::input(format!(
                    "{p}: subject {subject} is in {} (line {at}) and in {} (line {line}); a subject must be in one split only",
                    other.name(),
                    split.name()
                )));
            }
            if let Some(at) = lines.insert(id.clone(), line) {
                return Err(Error::input(format!(
                    "{p}: subject {id} stands in lines {at} and {line}; delete one, or tell them apart by a column `session`"
                )));
            }
            splits.insert(subject.clone(), (split, line));
            let files = headers
                .iter()
                .enumerate()
                .filter(|(c, _)| columns.is_modality(*c) && !cell(*c).is_empty())
                .map(|(c, h)| (h.clone(), sheet.file(folder, cell(c))))
                .collect();
            let cells = headers
                .iter()
                .enumerate()
                .filter(|(c, _)| columns.is_modality(*c) && !cell(*c).is_empty())
                .map(|(c, h)| (h.clone(), cell(c).to_string()))
                .collect();
            entries.push(Entry { id, subject, split, files, cells });
        }
        if entries.is_empty() {
            return Err(Error::input(format!("{p} lists no subject; add a line for each")));
        }
        let mut manifest = Manifest { modalities, entries, notes, ..Manifest::empty(p.to_string()) };
        if columns.split.is_none() {
            manifest.shuffle_into_splits(fractions, seed)?;
        }
        Ok(manifest)
    }

    /// Of cases that a folder was found to hold. Where their layout does not say the splits, they are dealt by `fractions` with
    /// `seed`; where it says none for validation, those for training are dealt between the two, as `fractions` has them.
    #[allow(clippy::too_many_arguments)]
    pub fn of_entries(
        source: String,
        modalities: Vec<String>,
        entries: Vec<Entry>,
        split: bool,
        notes: Notes,
        fractions: &[f64; 3],
        seed: u64,
    ) -> Result<Manifest> {
        let mut manifest = Manifest { modalities, entries, notes, ..Manifest::empty(source) };
        let has = |m: &Manifest, split: Split| m.entries.iter().any(|e| e.split == split);
        if !split {
            manifest.shuffle_into_splits(fractions, seed)?;
        } else if !has(&manifest, Split::Val) && fractions[1] > 0.0 {
            let both = fractions[0] + fractions[1];
            let shares = [fractions[0] / both, fractions[1] / both, 0.0];
            let (mut own, rest): (Vec<Entry>, Vec<Entry>) =
                manifest.entries.into_iter().partition(|e| e.split == Split::Train);
            let mut train = Manifest { entries: std::mem::take(&mut own), ..Manifest::empty(String::new()) };
            train.shuffle_into_splits(&shares, seed)?;
            let held = train.entries.iter().filter(|e| e.split == Split::Val).count();
            manifest.notes.add(format!(
                "the folder has no validation split: {held} of its training cases are held out for it, dealt by data.split = {fractions:?} with data.split_seed = {seed}"
            ));
            manifest.entries = train.entries.into_iter().chain(rest).collect();
        }
        Ok(manifest)
    }

    /// Finds the files of a pattern with the placeholders `{subject}` and `{modality}`. A subject counts if it has any of the
    /// modalities `firsts`; the splits are dealt by `fractions` with `seed`.
    pub fn scan(
        pattern: &str,
        modalities: &[String],
        firsts: &[String],
        fractions: &[f64; 3],
        seed: u64,
    ) -> Result<Manifest> {
        for part in ["{subject}", "{modality}"] {
            if !pattern.contains(part) {
                return Err(Error::input(format!(
                    "the pattern `{pattern}` lacks {part}; write it like data/{{subject}}/{{subject}}_{{modality}}.nii.gz"
                )));
            }
        }
        if firsts.is_empty() {
            return Err(Error::input("data: `input` lists no modality; name at least one"));
        }
        let mut found = BTreeSet::new();
        for first in firsts {
            let own = pattern::subjects(pattern, first)?;
            if own.is_empty() {
                return Err(Error::input(format!(
                    "no file matches the pattern `{}`; check the path and the modality's name",
                    pattern.replace("{modality}", first)
                )));
            }
            found.extend(own);
        }
        let notes = Notes::default();
        for other in modalities.iter().filter(|m| !firsts.contains(m)) {
            // A folder that is not there has nothing that could be left out.
            let have = pattern::subjects(pattern, other).unwrap_or_default();
            for subject in have.difference(&found) {
                notes.about(
                    format!("left out, as they have `{other}` but no `{}`", firsts.join("` or `")),
                    fsio::text(subject),
                );
            }
        }
        let entries = found
            .into_iter()
            .map(|name| {
                // A link that leads nowhere is kept, to be named when it is read.
                let there = |f: &PathBuf| f.is_file() || f.is_symlink();
                let file = |m: &String| pattern::file(pattern, m, &name);
                let files =
                    modalities.iter().map(|m| (m.clone(), file(m))).filter(|(_, f)| there(f)).collect();
                let subject = fsio::text(&name);
                Entry { id: subject.clone(), subject, split: Split::Train, files, cells: BTreeMap::new() }
            })
            .collect();
        let mut manifest = Manifest {
            modalities: modalities.to_vec(),
            entries,
            notes,
            ..Manifest::empty(pattern.to_string())
        };
        manifest.shuffle_into_splits(fractions, seed)?;
        Ok(manifest)
    }

    /// The cases of one part; an empty one is an error.
    pub fn part(&self, split: Split) -> Result<Vec<&Entry>> {
        let part: Vec<&Entry> = self.entries.iter().filter(|e| self.shared || e.split == split).collect();
        if part.is_empty() {
            return Err(Error::input(format!(
                "{}: no subject is in the split `{}` ({} subjects in all); mark some, or change `data.split`",
                self.source,
                split.name(),
                self.entries.len()
            )));
        }
        Ok(part)
    }

    /// Whether there is such a modality; an error names the nearest.
    pub fn check_column(&self, modality: &str) -> Result<()> {
        if self.modalities.iter().any(|m| m == modality) {
            return Ok(());
        }
        Err(missing_column(&self.source, modality, &self.modalities))
    }

    /// The file of a modality; a missing column, cell or file is an error that says which.
    pub fn file<'a>(&self, entry: &'a Entry, modality: &str) -> Result<&'a Path> {
        self.check_column(modality)?;
        let path = entry.files.get(modality).ok_or_else(|| {
            Error::input(format!(
                "{}: subject {} has no `{modality}` image; add it or leave the subject out",
                self.source, entry.id
            ))
        })?;
        if path.is_symlink() && !path.exists() {
            return Err(Error::input(format!(
                "{}: the `{modality}` image of subject {}: {}",
                self.source,
                entry.id,
                Error::missing(path)
            )));
        }
        if !path.is_file() {
            return Err(Error::input(format!(
                "{}: the `{modality}` image of subject {}, {}, does not exist; correct the path (relative ones start at the manifest's folder, or at `data.root`)",
                self.source,
                entry.id,
                path.display()
            )));
        }
        Ok(path)
    }

    /// What stands in a column of the table; a missing column or cell is an error that says which.
    pub fn cell<'a>(&self, entry: &'a Entry, column: &str) -> Result<&'a str> {
        self.check_column(column)?;
        entry.cells.get(column).map(String::as_str).ok_or_else(|| {
            Error::input(format!(
                "{}: nothing stands for subject {} in the column `{column}`; fill it in or leave the subject out",
                self.source, entry.id
            ))
        })
    }

    fn empty(source: String) -> Manifest {
        Manifest {
            source,
            modalities: Vec::new(),
            entries: Vec::new(),
            shared: false,
            dealt: None,
            notes: Notes::default(),
            seen: Seen::default(),
        }
    }

    /// Deals the subjects, shuffled by `seed`, to the three parts.
    pub(super) fn shuffle_into_splits(&mut self, fractions: &[f64; 3], seed: u64) -> Result<()> {
        check_fractions("data: `split`", fractions)?;
        let mut subjects: Vec<String> =
            self.entries.iter().map(|e| e.subject.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        Philox::named(seed, "data/split").shuffle(&mut subjects);
        let parts = deal(subjects.len(), fractions);
        let part_of: HashMap<String, Split> = subjects.into_iter().zip(parts).collect();
        for e in &mut self.entries {
            e.split = part_of[&e.subject];
        }
        self.dealt = Some(format!(
            "by data.split = {fractions:?} with data.split_seed = {seed}, as no column `split` says it"
        ));
        Ok(())
    }
}

/// Three shares that are not negative, with a positive sum of at most 1 (plus rounding).
pub fn check_fractions(key: &str, fractions: &[f64; 3]) -> Result<()> {
    let sum: f64 = fractions.iter().sum();
    if fractions.iter().any(|f| !(0.0..=1.0).contains(f))
        || !(0.999..=1.001).contains(&sum)
        || fractions[0] <= 0.0
    {
        return Err(Error::input(format!(
            "{key} = {fractions:?} must be three shares (train, val, test) that add up to 1, the first above 0; use for example [0.7, 0.1, 0.2]"
        )));
    }
    Ok(())
}

/// The part of each of `n` subjects: train first, then val, then test. Every part with a share gets at least one
/// subject if there are enough.
pub fn deal(n: usize, fractions: &[f64; 3]) -> Vec<Split> {
    let least = |f: f64| usize::from(f > 0.0);
    let wanted = |f: f64| ((n as f64 * f).round() as usize).max(least(f));
    // One is kept for training, then one for test, then one for validation.
    let spare = n.saturating_sub(1);
    let test = wanted(fractions[2]).min(spare.saturating_sub(least(fractions[1])).max(spare.min(1)));
    let val = wanted(fractions[1]).min(n.saturating_sub(1 + test));
    let train = n - val - test;
    let part = |i: usize| match i {
        i if i < train => Split::Train,
        i if i < train + val => Split::Val,
        _ => Split::Test,
    };
    (0..n).map(part).collect()
}

/// "no column X; the nearest is Y".
fn missing_column(source: &str, wanted: &str, there: &[String]) -> Error {
    let nearest = there.iter().min_by_key(|h| distance(&h.to_lowercase(), &wanted.to_lowercase()));
    let hint = match nearest {
        Some(h) if distance(&h.to_lowercase(), &wanted.to_lowercase()) <= wanted.len().max(2) / 2 => {
            format!("did you mean `{h}`?")
        }
        _ => format!("it has {}", there.iter().map(|h| format!("`{h}`")).collect::<Vec<_>>().join(", ")),
    };
    Error::input(format!("{source} has no column `{wanted}`; {hint}"))
}

/// Edit distance (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
