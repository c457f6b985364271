//! The phantom on disk: generated beside its place and renamed, so that a folder is complete or not there.

use super::{MODALITIES, Modality, PhantomConfig, Subject, simulate};
use crate::data::affine::Affine;
use crate::data::manifest::{self, Split};
use crate::data::nifti_io::{Stored, Volume};
use crate::error::{Error, Result};
use crate::fsio;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Changes whenever the generator's images change, so that an old folder is not taken for a new one.
const GENERATOR: &str = "gan phantom 1";

/// Range of PET values (SUVR) for which `phantom.json` states a PSNR.
const PET_RANGE: f64 = 2.0;

/// A phantom on disk.
#[derive(Clone, Debug)]
pub struct Phantom {
    /// Its folder.
    pub folder: PathBuf,
    /// The manifest in it.
    pub manifest: PathBuf,
    /// Whether this call generated it (otherwise it was there).
    pub generated: bool,
    /// What is written in `phantom.json`.
    pub summary: Summary,
}

/// The content of `phantom.json`: the completion marker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Generator and version.
    pub generator: String,
    /// Hash of generator and settings.
    pub hash: String,
    /// The settings.
    pub config: PhantomConfig,
    /// PET range L for the ceilings below (SUVR).
    pub pet_range: f64,
    /// Root mean square error (SUVR, whole volume) of a predictor that knows the anatomy perfectly, over the test
    /// subjects: counting noise and what the MR does not show.
    pub oracle_rmse_test: f64,
    /// The same as PSNR: 20 log10(L / RMSE).
    pub oracle_psnr_test: f64,
    /// Subject by subject.
    pub subjects: Vec<SubjectSummary>,
}

/// One subject's line of [`Summary`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubjectSummary {
    /// `sub-0001`, ...
    pub id: String,
    /// Its part of the data.
    pub split: Split,
    /// Whether there is a tumour.
    pub tumour: bool,
    /// Whether there is a hidden hypometabolism.
    pub hypometabolism: bool,
    /// RMSE of the all-knowing predictor, whole volume (SUVR).
    pub oracle_rmse: f64,
    /// The same inside the head.
    pub oracle_rmse_head: f64,
}

/// The phantom in the folder `config.dir`: what is there if it is complete and has these settings, else a new one. A folder that
/// holds something else is left alone and named in the error.
pub fn ensure(config: &PhantomConfig) -> Result<Phantom> {
    config.check()?;
    let folder = config.dir.as_path();
    // Where it lies is no part of what it is.
    let config = &PhantomConfig { dir: PathBuf::new(), ..config.clone() };
    if let Some(found) = existing(folder, config)? {
        return Ok(found);
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).ok_or_else(|| {
        Error::input(format!(
            "phantom: {} is no folder name; set `dir` to a folder to create",
            folder.display()
        ))
    })?;
    fsio::create_dir(parent)?;
    remove_leftovers(parent, &name);
    let temporary = parent.join(format!("{}{}", partial_prefix(&name), std::process::id()));
    let made = generate(&temporary, config).and_then(|summary| {
        if folder.is_dir() {
            // Empty, or `existing` would have objected.
            let _ = fs::remove_dir(folder);
        }
        fs::rename(&temporary, folder).map_err(Error::io("create the folder", folder))?;
        Ok(summary)
    });
    match made {
        Ok(summary) => Ok(Phantom {
            folder: folder.to_path_buf(),
            manifest: folder.join("manifest.csv"),
            generated: true,
            summary,
        }),
        Err(e) => {
            let _ = fs::remove_dir_all(&temporary);
            // Another process may have finished the same phantom meanwhile.
            existing(folder, config).ok().flatten().ok_or(e)
        }
    }
}

fn existing(folder: &Path, config: &PhantomConfig) -> Result<Option<Phantom>> {
    let p = folder.display();
    let marker = folder.join("phantom.json");
    if !marker.is_file() {
        let taken = folder.exists() && !fs::read_dir(folder).is_ok_and(|mut d| d.next().is_none());
        return if taken {
            Err(Error::input(format!(
                "phantom: {p} exists and is not a phantom; set `dir` to another folder"
            )))
        } else {
            Ok(None)
        };
    }
    let text = fs::read_to_string(&marker).map_err(Error::io("read", &marker))?;
    let summary: Summary = serde_json::from_str(&text).map_err(|e| {
        Error::input(format!(
            "{} is damaged ({e}); delete {p} to have the phantom made again",
            marker.display()
        ))
    })?;
    if summary.hash != hash(config) {
        return Err(Error::input(format!(
            "phantom: {p} holds a phantom made with other settings ({}); delete it or set `dir` to another folder",
            difference(&summary.config, config)
        )));
    }
    let manifest = folder.join("manifest.csv");
    let text = fs::read_to_string(&manifest).map_err(Error::io("read", &manifest))?;
    if !text.lines().next().is_some_and(|header| header.contains("has_tumour")) {
        // An earlier version's, which did not say what a subject has. Where the folder can't be written it stays.
        let _ = fsio::write_bytes(&manifest, table(&summary.subjects).as_bytes());
    }
    Ok(Some(Phantom { folder: folder.to_path_buf(), manifest, generated: false, summary }))
}

/// The settings that differ, as "subjects: 16 there, 32 asked".
fn difference(there: &PhantomConfig, asked: &PhantomConfig) -> String {
    let value = |c: &PhantomConfig| serde_json::to_value(c).unwrap_or_default();
    let (a, b) = (value(there), value(asked));
    let keys = a.as_object().into_iter().flatten().filter(|(k, v)| b.get(k.as_str()) != Some(v));
    let list: Vec<String> = keys
        .map(|(k, v)| format!("{k}: {v} there, {} asked", b.get(k).unwrap_or(&serde_json::Value::Null)))
        .collect();
    if list.is_empty() { "another version of the generator".into() } else { list.join("; ") }
}

fn hash(config: &PhantomConfig) -> String {
    let text = serde_json::to_string(config).unwrap_or_default();
    let digest = Sha256::digest(format!("{GENERATOR}\n{text}"));
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn partial_prefix(name: &str) -> String {
    format!(".{name}.partial-")
}

/// Removes what killed runs left behind: partial folders whose process is gone.
fn remove_leftovers(parent: &Path, name: &str) {
    let prefix = partial_prefix(name);
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = file.strip_prefix(&prefix).and_then(|p| p.parse::<u32>().ok()) else { continue };
        if pid == std::process::id()
            || (Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn generate(folder: &Path, config: &PhantomConfig) -> Result<Summary> {
    fsio::create_dir(folder)?;
    let splits = manifest::deal(config.subjects, &config.split);
    let subjects = (0..config.subjects)
        .into_par_iter()
        .map(|index| {
            let s = simulate(config, index);
            write_subject(folder, config, &s)?;
            Ok(SubjectSummary {
                split: splits[index],
                tumour: s.tumour,
                hypometabolism: s.hypometabolism,
                oracle_rmse: s.oracle_rmse[0],
                oracle_rmse_head: s.oracle_rmse[1],
                id: s.id,
            })
        })
        .collect::<Result<Vec<_>>>()?;

    let mut participants = String::from("participant_id\tsplit\ttumour\thypometabolism\n");
    for s in &subjects {
        participants +=
            &format!("{}\t{}\t{}\t{}\n", s.id, s.split.name(), yes(s.tumour), yes(s.hypometabolism));
    }
    let write = |name: &str, text: &str| fsio::write_bytes(&folder.join(name), text.as_bytes());
    write("manifest.csv", &table(&subjects))?;
    write("participants.tsv", &participants)?;
    write(
        "dataset_description.json",
        "{\n  \"Name\": \"Synthetic head phantom\",\n  \"BIDSVersion\": \"1.9.0\",\n  \"DatasetType\": \"derivative\",\n  \"GeneratedBy\": [{\"Name\": \"gan phantom\"}]\n}\n",
    )?;
    let test: Vec<f64> =
        subjects.iter().filter(|s| s.split == Split::Test).map(|s| s.oracle_rmse.powi(2)).collect();
    let oracle = (test.iter().sum::<f64>() / test.len().max(1) as f64).sqrt();
    let summary = Summary {
        generator: GENERATOR.into(),
        hash: hash(config),
        config: config.clone(),
        pet_range: PET_RANGE,
        oracle_rmse_test: oracle,
        oracle_psnr_test: 20.0 * (PET_RANGE / oracle.max(1e-9)).log10(),
        subjects,
    };
    let text = serde_json::to_string_pretty(&summary).map_err(|e| {
        Error::input(format!("phantom: its settings cannot be written as JSON ({e}); use finite numbers"))
    })?;
    write("phantom.json", &text)?;
    Ok(summary)
}

/// The manifest: the images, and what a subject has.
fn table(subjects: &[SubjectSummary]) -> String {
    let mut table =
        format!("subject,split,{},has_tumour,has_hypometabolism\n", MODALITIES.map(|(n, _)| n).join(","));
    for s in subjects {
        let files = MODALITIES.map(|(name, m)| relative_path(&s.id, name, m)).join(",");
        let (tumour, hypometabolism) = (yes(s.tumour), yes(s.hypometabolism));
        table += &format!("{},{},{files},{tumour},{hypometabolism}\n", s.id, s.split.name());
    }
    table
}

fn yes(there: bool) -> &'static str {
    if there { "yes" } else { "no" }
}

/// Where an image lies in the folder, after BIDS.
fn relative_path(id: &str, name: &str, modality: Modality) -> String {
    let suffix = match name {
        "t1" => "T1w",
        "t1ce" => "ce-gadolinium_T1w",
        "t2" => "T2w",
        "flair" => "FLAIR",
        "mprage_3t" => "acq-mprage3T_T1w",
        "mprage_7t" => "acq-mprage7T_T1w",
        "pet" => "trc-18FFDG_pet",
        "tissue" => "desc-tissue_dseg",
        "tumour" => "desc-tumour_dseg",
        other => other,
    };
    let kind = if modality == Modality::Pet { "pet" } else { "anat" };
    format!("{id}/{kind}/{id}_{suffix}.nii.gz")
}

fn write_subject(folder: &Path, config: &PhantomConfig, subject: &Subject) -> Result<()> {
    for kind in ["anat", "pet"] {
        fsio::create_dir(&folder.join(&subject.id).join(kind))?;
    }
    let affine = Affine::centred(config.size, [config.spacing; 3]);
    MODALITIES.par_iter().zip(&subject.images).try_for_each(|((name, modality), voxels)| {
        let path = folder.join(relative_path(&subject.id, name, *modality));
        let stored = match modality {
            Modality::Mr(_) => Stored::Int16 { slope: 1.0 },
            // A multiple of a power of two, so that stored values are exact in f32.
            Modality::Pet => Stored::Int16 { slope: 1.0 / 4096.0 },
            Modality::Tissue | Modality::Tumour => Stored::Uint8,
        };
        Volume::new(config.size, affine, voxels.clone())?.save_as(path, stored)
    })
}
