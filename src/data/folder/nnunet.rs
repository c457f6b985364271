//! nnU-Net's raw data (v2, and v1's `modality`), and the Medical Segmentation Decathlon, whose `dataset.json` is its ancestor.

use super::{Folder, Found, Layout, entry};
use crate::data::manifest::{Entry, Split};
use crate::data::notes::Notes;
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the label map.
const LABEL: &str = "label";

pub(super) fn find(folder: &Folder, notes: &Notes) -> Result<Option<Found>> {
    if !folder.files.iter().any(|f| f == "dataset.json") {
        return Ok(None);
    }
    let path = folder.path.join("dataset.json");
    let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let broken = |why: String| {
        Error::input(format!("{} is no nnU-Net or Decathlon description ({why}); correct it", path.display()))
    };
    let about: Value = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
    let Some(channels) = about.get("channel_names").or(about.get("modality")).and_then(Value::as_object)
    else {
        return Err(broken("it has neither `channel_names` nor `modality`".into()));
    };
    let mut channels: Vec<(usize, String)> = channels
        .iter()
        .map(|(k, v)| Some((k.parse().ok()?, v.as_str()?.to_lowercase())))
        .collect::<Option<_>>()
        .ok_or_else(|| broken("its channels are not numbered from \"0\"".into()))?;
    channels.sort();
    let names: Vec<String> = channels.into_iter().map(|c| c.1).collect();
    if (1..names.len()).any(|i| names[..i].contains(&names[i])) {
        return Err(broken("two of its channels have one name".into()));
    }
    tell_labels(&about, notes);
    let numbered = folder.has("imagesTr")
        && folder.open("imagesTr")?.images().iter().any(|(stem, _)| channel(stem).is_some());
    let entries = if numbered {
        raw(folder, &names, notes)?
    } else {
        decathlon(folder, &about, &names, notes, &broken)?
    };
    let layout = if numbered { Layout::NnUnet } else { Layout::Decathlon };
    Ok(Some(Found { layout, entries, split: false, classes: Vec::new(), notes: notes.clone() }))
}

/// What labels mean, so that `data.labels` can be written.
fn tell_labels(about: &Value, notes: &Notes) {
    let Some(labels) = about.get("labels").and_then(Value::as_object) else { return };
    let one = |(k, v): (&String, &Value)| match v {
        Value::String(name) => format!("{k} {name}"),
        number => format!("{number} {k}"),
    };
    notes.add(format!(
        "dataset.json says of the labels: {}",
        labels.iter().map(one).collect::<Vec<_>>().join(", ")
    ));
}

/// `CASE_0003` is channel 3 of a case.
fn channel(stem: &str) -> Option<(&str, usize)> {
    let (case, number) = stem.rsplit_once('_')?;
    let digits = number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| Some((case, number.parse().ok()?)))?
}

fn raw(folder: &Folder, names: &[String], notes: &Notes) -> Result<Vec<Entry>> {
    let mut cases: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for (stem, file) in folder.open("imagesTr")?.images() {
        match channel(&stem) {
            Some((case, k)) if k < names.len() => {
                cases.entry(case.into()).or_default().insert(names[k].clone(), file);
            }
            _ => notes.about(
                "left out, as their names end in no channel of dataset.json",
                file.display().to_string(),
            ),
        }
    }
    if folder.has("labelsTr") {
        for (stem, file) in folder.open("labelsTr")?.images() {
            match cases.get_mut(&stem) {
                Some(case) => drop(case.insert(LABEL.into(), file)),
                None => notes.about("labels without images, left out", file.display().to_string()),
            }
        }
    }
    if folder.has("imagesTs") {
        let n = folder.open("imagesTs")?.images().len();
        notes.add(format!(
            "{n} images in imagesTs have no labels and are left out; predict from them with `gan predict`"
        ));
    }
    Ok(cases.into_iter().map(|(case, files)| entry(&case, &case, Split::Train, files)).collect())
}

fn decathlon(
    folder: &Folder,
    about: &Value,
    names: &[String],
    notes: &Notes,
    broken: &dyn Fn(String) -> Error,
) -> Result<Vec<Entry>> {
    let list = about.get("training").and_then(Value::as_array);
    let list = list.ok_or_else(|| broken("it has no list `training`".into()))?;
    if let [_, _, ..] = names {
        return Err(Error::input(format!(
            "{} has its {} modalities in one file each case (four axes), which is not read; split them into nnU-Net's raw layout (`nnUNetv2_convert_MSD_dataset` does)",
            folder.path.display(),
            names.len()
        )));
    }
    let mut entries = Vec::new();
    for item in list {
        let file = |key: &str| {
            let text = item
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(|| broken(format!("a case has no `{key}`")))?;
            Ok(folder.path.join(text.trim_start_matches("./")))
        };
        let (image, label) = (file("image")?, file("label")?);
        let stem = crate::data::names::image(&image).and_then(|n| n.stem.into_string().ok());
        let id = stem.ok_or_else(|| broken(format!("{} is no image's name", image.display())))?;
        let files = [(names.first().cloned().unwrap_or_default(), image), (LABEL.to_string(), label)];
        entries.push(entry(&id, &id, Split::Train, files.into()));
    }
    let tests = about.get("test").and_then(Value::as_array).map_or(0, Vec::len);
    if tests > 0 {
        notes.add(format!("{tests} images of the list `test` have no labels and are left out; predict from them with `gan predict`"));
    }
    let missing = |e: &&Entry| e.files.values().any(|f| !Path::new(f).is_file());
    for e in entries.iter().filter(missing) {
        notes.about("in dataset.json, but a file is missing", &e.id);
    }
    Ok(entries)
}
