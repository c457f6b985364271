//! A folder for each case, with files whose names say what they are: BraTS and SynthRAD.

use super::{Folder, Found, Layout, entry};
use crate::data::manifest::{Entry, Split};
use crate::data::notes::Notes;
use crate::data::visits;
use crate::error::Result;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How deep cases may lie: `Task1/brain/1BA001`, `MICCAI_BraTS2020_TrainingData/HGG/CASE`.
const DEEPEST: usize = 4;

/// Endings of BraTS's files, by the years 2017 to 2021 and from 2023 on.
const OLD: [(&str, &str); 5] =
    [("_flair", "flair"), ("_t1", "t1"), ("_t1ce", "t1ce"), ("_t2", "t2"), ("_seg", "seg")];
const NEW: [(&str, &str); 5] =
    [("-t2f", "flair"), ("-t1n", "t1"), ("-t1c", "t1ce"), ("-t2w", "t2"), ("-seg", "seg")];
/// SynthRAD's files.
const SYNTHRAD: [&str; 4] = ["mr", "cbct", "ct", "mask"];

pub(super) fn find(folder: &Folder, notes: &Notes) -> Result<Option<Found>> {
    let (mut cases, mut others) = (Vec::new(), Vec::new());
    walk(folder, 0, &mut cases, &mut others, notes)?;
    let Some(first) = cases.first().map(|(layout, _)| *layout) else { return Ok(None) };
    let (own, of_others): (Vec<_>, Vec<_>) = cases.into_iter().partition(|(layout, _)| *layout == first);
    for left_out in of_others.into_iter().map(|(_, e)| e.id).chain(others) {
        notes.about(format!("left out, as they are no case of {}", first.name()), left_out);
    }
    let entries: Vec<Entry> = own.into_iter().map(|(_, e)| e).collect();
    if first == Layout::Brats {
        let new = entries.iter().any(|e| e.files.values().any(|f| f.to_string_lossy().contains("-t1n")));
        notes.add(if new {
            "BraTS from 2023 on: label 1 is necrosis, 2 oedema, 3 enhancing tumour (post-treatment sets: 4 the resection cavity)"
        } else {
            "BraTS up to 2021: label 1 is necrosis, 2 oedema, 4 enhancing tumour; 3 is not used"
        });
    }
    Ok(Some(Found { layout: first, entries, split: false, classes: Vec::new(), notes: notes.clone() }))
}

/// Collects cases, and folders with images that are none.
fn walk(
    folder: &Folder,
    depth: usize,
    cases: &mut Vec<(Layout, Entry)>,
    others: &mut Vec<String>,
    notes: &Notes,
) -> Result<()> {
    if let Some(case) = brats(folder, notes).or_else(|| synthrad(folder)) {
        cases.push(case);
        return Ok(());
    }
    if !folder.images().is_empty() {
        others.push(folder.path.display().to_string());
    }
    if depth < DEEPEST {
        for inner in &folder.folders {
            walk(&folder.open(inner)?, depth + 1, cases, others, notes)?;
        }
    }
    Ok(())
}

fn id(folder: &Folder) -> String {
    folder.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Files that begin with the folder's own name, and end as BraTS's do.
fn brats(folder: &Folder, notes: &Notes) -> Option<(Layout, Entry)> {
    let id = id(folder);
    let images = folder.images();
    let of = |endings: &[(&str, &str); 5]| -> BTreeMap<String, PathBuf> {
        let file = |(ending, name): &(&str, &str)| {
            let wanted = format!("{id}{ending}").to_lowercase();
            let (_, file) = images.iter().find(|(stem, _)| stem.to_lowercase() == wanted)?;
            Some((name.to_string(), file.clone()))
        };
        endings.iter().filter_map(file).collect()
    };
    let files = [of(&OLD), of(&NEW)].into_iter().max_by_key(BTreeMap::len)?;
    if files.keys().filter(|k| *k != "seg").count() < 2 {
        return None;
    }
    for (_, file) in images.iter().filter(|(_, f)| !files.values().any(|known| known == f)) {
        notes.about("left out, as their names are none of BraTS", file.display().to_string());
    }
    let patient = visits::patient(&id).unwrap_or(&id).to_string();
    Some((Layout::Brats, entry(&id, &patient, Split::Train, files)))
}

fn synthrad(folder: &Folder) -> Option<(Layout, Entry)> {
    let of = |(stem, file): (String, PathBuf)| {
        let name = stem.to_lowercase();
        SYNTHRAD.contains(&name.as_str()).then_some((name, file))
    };
    let files: BTreeMap<String, PathBuf> = folder.images().into_iter().filter_map(of).collect();
    let input = files.contains_key("mr") || files.contains_key("cbct");
    let id = id(folder);
    (input && files.contains_key("ct")).then(|| (Layout::SynthRad, entry(&id, &id, Split::Train, files)))
}
