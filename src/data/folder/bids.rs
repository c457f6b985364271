//! BIDS 1.11 (<https://bids-specification.readthedocs.io>): subjects, sessions, derivatives, and the columns of
//! `participants.tsv`.

use super::{Folder, Found, Layout, entry, is_missing};
use crate::data::manifest::Split;
use crate::data::notes::Notes;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A file of a subject, in a session if there are several.
struct Image {
    subject: String,
    session: Option<String>,
    /// Its other entities, as in `ce-gadolinium_`, and the suffix.
    entities: String,
    suffix: String,
    /// The pipeline that derived it.
    pipeline: Option<String>,
    file: PathBuf,
}

/// Folders of sub-folders with a subject each.
fn subjects(folder: &Folder) -> impl Iterator<Item = &String> {
    folder.folders.iter().filter(|f| f.starts_with("sub-") && f.len() > 4)
}

pub(super) fn find(folder: &Folder, notes: &Notes) -> Result<Option<Found>> {
    let described = folder.files.iter().any(|f| f == "dataset_description.json");
    if subjects(folder).next().is_none() && !(described && folder.has("derivatives")) {
        return Ok(None);
    }
    let mut images = Vec::new();
    collect(folder, None, &mut images, notes)?;
    if folder.has("derivatives") {
        let derivatives = folder.open("derivatives")?;
        for pipeline in &derivatives.folders {
            collect(&derivatives.open(pipeline)?, Some(pipeline), &mut images, notes)?;
        }
    }
    if images.is_empty() {
        return Ok(None);
    }
    let names = modalities(&images);
    let mut cases: BTreeMap<(String, Option<String>), BTreeMap<String, PathBuf>> = BTreeMap::new();
    for (image, name) in images.iter().zip(names) {
        let case = cases.entry((image.subject.clone(), image.session.clone())).or_default();
        if let Some(other) = case.insert(name.clone(), image.file.clone()) {
            return Err(Error::input(format!(
                "{} and {} are both `{name}` of {}; rename one, or take it out",
                other.display(),
                image.file.display(),
                image.subject
            )));
        }
    }
    let mut entries: Vec<_> = cases
        .into_iter()
        .map(|((subject, session), files)| {
            let id = session.as_ref().map_or(subject.clone(), |s| format!("{subject}_{s}"));
            entry(&id, &subject, Split::Train, files)
        })
        .collect();
    let split = participants(folder, &mut entries, notes)?;
    Ok(Some(Found { layout: Layout::Bids, entries, split, classes: Vec::new(), notes: notes.clone() }))
}

/// All images of a tree of subjects.
fn collect(folder: &Folder, pipeline: Option<&str>, images: &mut Vec<Image>, notes: &Notes) -> Result<()> {
    for subject in subjects(folder) {
        let own = folder.open(subject)?;
        let sessions = own.folders.iter().filter(|f| f.starts_with("ses-"));
        let mut places: Vec<(Option<&String>, Folder)> = Vec::new();
        for session in sessions {
            places.push((Some(session), own.open(session)?));
        }
        places.push((None, Folder::read(&own.path, notes)?));
        for (session, place) in places {
            let inner = place.folders.iter().filter(|f| !f.starts_with("ses-"));
            let mut kinds: Vec<Folder> = inner.map(|f| place.open(f)).collect::<Result<_>>()?;
            kinds.push(place);
            for (stem, file) in kinds.iter().flat_map(Folder::images) {
                match parts(&stem, subject) {
                    Some((entities, suffix)) => images.push(Image {
                        subject: subject.clone(),
                        session: session.cloned(),
                        entities,
                        suffix,
                        pipeline: pipeline.map(String::from),
                        file,
                    }),
                    None => {
                        notes.about("left out, as their names are none of BIDS", file.display().to_string())
                    }
                }
            }
        }
    }
    Ok(())
}

/// The entities but subject and session, and the suffix: `sub-01_ses-2_ce-gadolinium_T1w` is `ce-gadolinium_` and `T1w`.
fn parts(stem: &str, subject: &str) -> Option<(String, String)> {
    let mut all: Vec<&str> = stem.split('_').collect();
    let suffix = all.pop().filter(|s| !s.contains('-') && !s.is_empty())?;
    if all.first() != Some(&subject) || all.iter().any(|e| !e.contains('-')) {
        return None;
    }
    let others = all[1..].iter().filter(|e| !e.starts_with("ses-"));
    Some((others.map(|e| format!("{e}_")).collect(), suffix.to_string()))
}

/// The modalities' names, in small letters: the suffix alone where all files of it have the same entities, else with these; with
/// the pipeline before it where another file has the same name.
fn modalities(images: &[Image]) -> Vec<String> {
    let kinds = |suffix: &str| {
        images
            .iter()
            .filter(|i| i.suffix == suffix)
            .map(|i| (&i.entities, &i.pipeline))
            .collect::<BTreeSet<_>>()
    };
    let full = |i: &Image| format!("{}{}", i.entities, i.suffix);
    let name = |i: &Image| {
        let alone = kinds(&i.suffix).len() == 1;
        let name = if alone { i.suffix.clone() } else { full(i) };
        let shared = images.iter().any(|o| o.pipeline != i.pipeline && full(o) == full(i));
        let before = i.pipeline.as_ref().filter(|_| shared).map_or(String::new(), |p| format!("{p}/"));
        format!("{before}{name}").to_lowercase()
    };
    images.iter().map(name).collect()
}

/// Adds the columns of `participants.tsv` to the cases. Gives whether a column `split` says the splits.
fn participants(
    folder: &Folder,
    entries: &mut [crate::data::manifest::Entry],
    notes: &Notes,
) -> Result<bool> {
    let path = folder.path.join("participants.tsv");
    if !path.is_file() {
        return Ok(false);
    }
    let p = path.display();
    let broken =
        |e: csv::Error| Error::input(format!("{p} is not a readable table ({e}); correct that line"));
    let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(text);
    let mut reader =
        csv::ReaderBuilder::new().delimiter(b'\t').trim(csv::Trim::All).from_reader(text.as_slice());
    let headers: Vec<String> = reader.headers().map_err(broken)?.iter().map(String::from).collect();
    let Some(id) = headers.iter().position(|h| h == "participant_id") else {
        notes.add(format!("{p} has no column `participant_id` and is left out"));
        return Ok(false);
    };
    let mut said = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let subject = record.get(id).unwrap_or("");
        let subject =
            if subject.starts_with("sub-") { subject.to_string() } else { format!("sub-{subject}") };
        let cells: BTreeMap<String, String> = headers
            .iter()
            .zip(&record)
            .filter(|(h, cell)| *h != "participant_id" && !is_missing(cell))
            .map(|(h, cell)| (h.to_lowercase(), cell.to_string()))
            .collect();
        said.insert(subject, cells);
    }
    let splits = headers.iter().any(|h| h.eq_ignore_ascii_case("split"));
    for e in entries {
        match said.get(&e.subject) {
            Some(cells) => {
                for (column, cell) in cells {
                    // An image of that name goes first.
                    if !e.files.contains_key(column) {
                        e.cells.insert(column.clone(), cell.clone());
                    }
                }
            }
            None => notes.about(format!("in no row of {p}"), &e.subject),
        }
        if splits {
            let text = e.cells.remove("split").unwrap_or_default();
            e.split = super::split_of(&text).ok_or_else(|| {
                Error::input(format!("{p}: the split of {} is `{text}`; write train, val or test", e.subject))
            })?;
        }
    }
    Ok(splits)
}
