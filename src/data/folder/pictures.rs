//! Folders of single images: classes, pairs by name, and two sets without pairs (junyanz's layouts).

use super::{Folder, Found, Layout, entry, split_of};
use crate::data::manifest::{Entry, Split};
use crate::data::notes::Notes;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The folders to look into: those of splits, if there are any, else the folder itself.
fn parts(folder: &Folder) -> Result<Vec<(Option<Split>, Folder)>> {
    let splits: Vec<(Split, &String)> =
        folder.folders.iter().filter_map(|f| Some((split_of(f)?, f))).collect();
    if splits.is_empty() {
        return Ok(vec![(None, Folder::read(&folder.path, &folder.notes)?)]);
    }
    splits.into_iter().map(|(split, f)| Ok((Some(split), folder.open(f)?))).collect()
}

/// Images of a class, on average, below which folders are taken for something else.
const LEAST: usize = 4;

/// `[train/]CLASS/*.png`: at least two folders that hold images and no folders.
pub(super) fn classes(folder: &Folder, notes: &Notes) -> Result<Option<Found>> {
    let (mut entries, mut classes, mut split) = (Vec::new(), BTreeSet::new(), false);
    for (own, part) in parts(folder)? {
        split |= own.is_some();
        for (_, stray) in part.images() {
            notes.about("images outside of class folders, left out", stray.display().to_string());
        }
        for class in &part.folders {
            let inner = part.open(class)?;
            let images = inner.images();
            if images.is_empty() || !inner.folders.is_empty() {
                notes.about(
                    "folders without images, or with folders in them, are no classes",
                    inner.path.display().to_string(),
                );
                continue;
            }
            classes.insert(class.clone());
            for (stem, file) in images {
                let id = format!("{}{class}/{stem}", own.map_or(String::new(), |s| format!("{}/", s.name())));
                let mut e =
                    entry(&id, &id, own.unwrap_or(Split::Train), [("image".to_string(), file)].into());
                e.cells.insert("class".into(), class.clone());
                entries.push(e);
            }
        }
    }
    // Folders with an image or two each are patients.
    if classes.len() < 2 || entries.len() < LEAST * classes.len() {
        return Ok(None);
    }
    notes.add("every image counts as a patient of its own, as class folders don't say whose it is: where a patient has several, list them in a table with a column `subject`");
    let classes = classes.into_iter().collect();
    Ok(Some(Found { layout: Layout::Classes, entries, split, classes, notes: notes.clone() }))
}

/// `A/[train/]x.png` and `B/[train/]x.png`.
pub(super) fn pairs(folder: &Folder, notes: &Notes) -> Result<Option<Found>> {
    if !folder.has("A") || !folder.has("B") {
        return Ok(None);
    }
    let (mut entries, mut split): (Vec<Entry>, bool) = (Vec::new(), false);
    let (a, b) = (parts(&folder.open("A")?)?, parts(&folder.open("B")?)?);
    for (own, part) in a {
        split |= own.is_some();
        let other = b.iter().find(|(s, _)| *s == own);
        let twins: Vec<(String, PathBuf)> = other.map_or_else(Vec::new, |(_, f)| f.images());
        for (stem, file) in part.images() {
            let Some((_, twin)) = twins.iter().find(|(s, _)| *s == stem) else {
                notes.about("in A without one of the same name in B, left out", file.display().to_string());
                continue;
            };
            let id = format!("{}{stem}", own.map_or(String::new(), |s| format!("{}/", s.name())));
            let files = [("A".to_string(), file), ("B".to_string(), twin.clone())];
            entries.push(entry(&id, &stem, own.unwrap_or(Split::Train), files.into()));
        }
        for (stem, file) in &twins {
            if !part.images().iter().any(|(s, _)| s == stem) {
                notes.about("in B without one of the same name in A, left out", file.display().to_string());
            }
        }
    }
    twice(&entries, folder)?;
    Ok(Some(Found { layout: Layout::Pairs, entries, split, classes: Vec::new(), notes: notes.clone() }))
}

/// A name that stands in two splits would be one patient in both.
fn twice(entries: &[Entry], folder: &Folder) -> Result<()> {
    for (i, e) in entries.iter().enumerate() {
        if let Some(other) = entries[..i].iter().find(|o| o.subject == e.subject && o.split != e.split) {
            return Err(Error::input(format!(
                "{}: `{}` stands in {} and in {}; rename one of them, or take one out",
                folder.path.display(),
                e.subject,
                other.split.name(),
                e.split.name()
            )));
        }
    }
    Ok(())
}

/// `trainA`, `trainB`, `valA`, `testA`, ...
pub(super) fn unpaired(folder: &Folder, notes: &Notes) -> Result<Option<Found>> {
    if !folder.has("trainA") || !folder.has("trainB") {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for name in &folder.folders {
        let Some((part, side)) = name.split_at_checked(name.len() - 1) else { continue };
        let (Some(split), "A" | "B") = (split_of(part), side) else { continue };
        for (stem, file) in folder.open(name)?.images() {
            let id = format!("{name}/{stem}");
            entries.push(entry(&id, &id, split, [(side.to_string(), file)].into()));
        }
    }
    notes.add("no image of A belongs to one of B: such a folder is for `data.unpaired = true`");
    Ok(Some(Found {
        layout: Layout::Unpaired,
        entries,
        split: true,
        classes: Vec::new(),
        notes: notes.clone(),
    }))
}
