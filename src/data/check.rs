//! A cohort looked over before anything is trained: what its images are like, and what would spoil a result.

use super::case::{canonical_grid, same_grid};
use super::duplicates;
use super::manifest::{Entry, Manifest, Split};
use super::nifti_io::{LoadOptions, NanPolicy, Volume};
use super::normalise::percentile;
use crate::error::Result;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;

/// Most whole numbers that a label map has.
const MOST_LABELS: usize = 64;
/// Foregrounds of two images of a case that share less than this (Dice) are hardly of one place.
const FAINT: f64 = 0.5;
/// At most so many cases of one finding are named.
const NAMED: usize = 5;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// It would spoil a result, or training would refuse it.
    Error,
    /// It deserves a look.
    Warning,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// What it is.
    pub what: String,
    /// What to do.
    pub way_out: String,
    /// Where, the first few.
    pub of: Vec<String>,
    /// How often.
    pub count: usize,
}

/// All images of a modality.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Modality {
    /// How many there are.
    pub images: usize,
    /// Extents along i, j, k, and how often.
    pub shapes: BTreeMap<String, usize>,
    /// Voxel sizes in mm, and how often.
    pub spacings: BTreeMap<String, usize>,
    /// Directions of the stored axes, and how often.
    pub orientations: BTreeMap<String, usize>,
    /// Smallest and largest finite value.
    pub range: Option<[f32; 2]>,
    /// Of label maps: voxels of each label.
    pub labels: BTreeMap<i64, u64>,
}

/// What a cohort is like.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The folder, table or pattern.
    pub source: String,
    /// Cases, and different patients among them.
    pub cases: usize,
    /// Different patients.
    pub patients: usize,
    /// Cases in train, val and test.
    pub splits: [usize; 3],
    /// By name.
    pub modalities: BTreeMap<String, Modality>,
    /// What stands in columns that are no images: each value's cases, for columns of few values; else how many have one.
    pub columns: BTreeMap<String, BTreeMap<String, usize>>,
    /// Errors first.
    pub findings: Vec<Finding>,
    /// What was left out, guessed or dealt.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether training on it would be refused, or its result spoiled.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|f| f.weight == Weight::Error)
    }
}

/// What is kept of an image once it was read.
struct Seen {
    shape: String,
    spacing: String,
    axes: String,
    range: Option<[f32; 2]>,
    bad: usize,
    labels: Option<BTreeMap<i64, u64>>,
    digest: Option<u64>,
    notes: Vec<String>,
    /// Coarse foreground in canonical order, to compare places.
    foreground: Vec<bool>,
    /// The geometry, without voxels.
    geometry: Volume,
}

/// An image of a case that others are compared with.
type Shown<'a> = Option<(&'a PathBuf, Rc<Seen>)>;

/// Collects findings of one kind.
#[derive(Default)]
struct Findings(BTreeMap<(Weight, String, String), BTreeSet<String>>);

impl Findings {
    fn add(&mut self, weight: Weight, what: &str, way_out: &str, of: impl Into<String>) {
        self.0.entry((weight, what.into(), way_out.into())).or_default().insert(of.into());
    }

    fn list(self) -> Vec<Finding> {
        let finding = |((weight, what, way_out), of): ((Weight, String, String), BTreeSet<String>)| Finding {
            weight,
            what,
            way_out,
            count: of.len(),
            of: of.into_iter().take(NAMED).collect(),
        };
        self.0.into_iter().map(finding).collect()
    }
}

/// Reads all images of a manifest's modalities (all that it has where `wanted` is empty) and reports.
pub fn check(manifest: &Manifest, wanted: &[String], frame: super::nifti_io::Frame) -> Result<Report> {
    wanted.iter().try_for_each(|name| manifest.check_column(name))?;
    let is_image = |name: &String| {
        manifest.entries.iter().any(|e| e.files.get(name).is_some_and(|f| f.is_file() || f.is_symlink()))
    };
    let names: Vec<String> = match wanted {
        [] => manifest.modalities.clone(),
        wanted => wanted.to_vec(),
    };
    let (images, columns): (Vec<String>, Vec<String>) = names.into_iter().partition(is_image);
    let mut findings = Findings::default();
    let mut modalities: BTreeMap<String, Modality> = BTreeMap::new();
    let mut digests: HashMap<u64, (&Entry, String, PathBuf)> = HashMap::new();
    let options = LoadOptions { nan: NanPolicy::Keep, frame, recipe: false };
    for entry in &manifest.entries {
        let files: Vec<(&String, &PathBuf)> =
            images.iter().filter_map(|m| Some((m, entry.files.get(m)?))).collect();
        for missing in images.iter().filter(|m| !entry.files.contains_key(*m)) {
            let what = format!("`{missing}` is missing");
            findings.add(
                Weight::Warning,
                &what,
                "add it, or leave the case out where it is needed",
                &entry.id,
            );
        }
        let seen: Vec<(&String, &PathBuf, Result<Seen>)> = files
            .into_par_iter()
            .map(|(m, path)| (m, path, Volume::load_with(path, options).map(|v| look(&v))))
            .collect();
        // The first image, and the first that is no label map.
        let (mut first, mut image): (Shown, Shown) = (None, None);
        for (modality, path, seen) in seen {
            let shown = path.display().to_string();
            let seen = match seen {
                Ok(seen) => seen,
                Err(e) => {
                    findings.add(Weight::Error, &e.to_string(), "mend or replace the file", &entry.id);
                    continue;
                }
            };
            count(modalities.entry(modality.clone()).or_default(), &seen);
            for note in &seen.notes {
                findings.add(Weight::Warning, note, "nothing needs to be done if that is meant", &shown);
            }
            if seen.bad > 0 {
                findings.add(
                    Weight::Error,
                    "NaN or infinite voxels",
                    "clean the files, or set `data.nan = \"zero\"`",
                    &shown,
                );
            }
            if seen.range.is_some_and(|[low, high]| low == high) && seen.labels.is_none() {
                findings.add(
                    Weight::Warning,
                    "every voxel has the same value",
                    "look at the image, or leave the case out",
                    &shown,
                );
            }
            if let Some(digest) = seen.digest.filter(|_| seen.labels.is_none()) {
                match digests.get(&digest) {
                    Some((other, name, twin)) if other.id != entry.id || name != modality => {
                        let apart = other.subject != entry.subject && other.split != entry.split;
                        let weight = if apart && !manifest.shared { Weight::Error } else { Weight::Warning };
                        let what =
                            if apart { "the same image in two splits" } else { "the same image twice" };
                        let both = format!("{} ({}) and {shown} ({})", twin.display(), other.id, entry.id);
                        findings.add(weight, what, "delete one, or correct its path", both);
                    }
                    Some(_) => {}
                    None => drop(digests.insert(digest, (entry, modality.clone(), path.clone()))),
                }
            }
            if let Some((_, reference)) = &first
                && let Err(e) = same_grid(&reference.geometry, &seen.geometry)
            {
                findings.add(Weight::Error, &e.to_string(), "resample one on the other's grid", &entry.id);
            } else if let Some((other, under)) = &image
                && seen.labels.is_none()
                && overlap(&under.foreground, &seen.foreground).is_some_and(|d| d < FAINT)
            {
                let both = format!("{} and {shown}", other.display());
                let way_out = "look at them: are they registered?";
                findings.add(Weight::Warning, "two images of a case hardly overlap", way_out, both);
            }
            let seen = Rc::new(seen);
            if seen.labels.is_none() {
                image.get_or_insert((path, seen.clone()));
            }
            first.get_or_insert((path, seen));
        }
    }
    let columns = columns.into_iter().map(|c| (c.clone(), values(manifest, &c))).collect();
    let splits = Split::ALL.map(|s| manifest.entries.iter().filter(|e| e.split == s).count());
    for (split, n) in Split::ALL.into_iter().zip(splits) {
        if n == 0 && !manifest.shared {
            let what = format!("no case is in the split `{}`", split.name());
            findings.add(Weight::Warning, &what, "mark some, or change `data.split`", &manifest.source);
        }
    }
    Ok(Report {
        source: manifest.source.clone(),
        cases: manifest.entries.len(),
        patients: manifest.entries.iter().map(|e| &e.subject).collect::<BTreeSet<_>>().len(),
        splits,
        modalities,
        columns,
        findings: findings.list(),
        notes: manifest.notes.lines(),
    })
}

fn look(volume: &Volume) -> Seen {
    let finite = || volume.voxels.iter().copied().filter(|v| v.is_finite());
    let range = finite().fold(None, |r: Option<[f32; 2]>, v| {
        let [low, high] = r.unwrap_or([v; 2]);
        Some([low.min(v), high.max(v)])
    });
    let (orientation, dims, _) = canonical_grid(volume);
    let canonical = orientation.to_canonical(&volume.voxels);
    let spacing =
        volume.spacing().map(|s| format!("{:.4}", s).trim_end_matches('0').trim_end_matches('.').to_string());
    Seen {
        shape: volume.dims.map(|d| d.to_string()).join(" x "),
        spacing: spacing.join(" x "),
        axes: volume.axis_codes(),
        range,
        bad: volume.voxels.iter().filter(|v| !v.is_finite()).count(),
        labels: labels(&volume.voxels),
        digest: duplicates::digest(&canonical, dims),
        notes: volume.notes.clone(),
        foreground: foreground(&canonical),
        geometry: Volume { voxels: Vec::new(), ..volume.clone() },
    }
}

/// Voxels of each label, where an image is a label map: few whole numbers, most of them zero.
fn labels(voxels: &[f32]) -> Option<BTreeMap<i64, u64>> {
    let mut counts = BTreeMap::new();
    for v in voxels {
        if v.fract() != 0.0 || !(0.0..=65535.0).contains(v) {
            return None;
        }
        *counts.entry(*v as i64).or_insert(0) += 1;
        if counts.len() > MOST_LABELS {
            return None;
        }
    }
    // An image of few grey levels has no background.
    let zero = counts.get(&0).copied().unwrap_or(0);
    (2 * zero >= voxels.len() as u64).then_some(counts)
}

/// Voxels above a tenth of the way between the 1st and the 99th percentile.
fn foreground(voxels: &[f32]) -> Vec<bool> {
    let step = (voxels.len() >> 18).max(1);
    let mut sample: Vec<f32> = voxels.iter().step_by(step).copied().filter(|v| v.is_finite()).collect();
    if sample.is_empty() {
        return Vec::new();
    }
    let (low, high) = (percentile(&mut sample, 1.0), percentile(&mut sample, 99.0));
    let threshold = (low + 0.1 * (high - low)) as f32;
    voxels.iter().step_by(step).map(|v| *v > threshold).collect()
}

/// Dice of two foregrounds; none where either is empty or they have different grids.
fn overlap(a: &[bool], b: &[bool]) -> Option<f64> {
    let n = |m: &[bool]| m.iter().filter(|v| **v).count();
    let both = a.iter().zip(b).filter(|(a, b)| **a && **b).count();
    let sum = n(a) + n(b);
    (a.len() == b.len() && n(a) > 0 && n(b) > 0).then(|| 2.0 * both as f64 / sum as f64)
}

fn count(modality: &mut Modality, seen: &Seen) {
    modality.images += 1;
    *modality.shapes.entry(seen.shape.clone()).or_insert(0) += 1;
    *modality.spacings.entry(seen.spacing.clone()).or_insert(0) += 1;
    *modality.orientations.entry(seen.axes.clone()).or_insert(0) += 1;
    if let Some([low, high]) = seen.range {
        let [l, h] = modality.range.unwrap_or([low, high]);
        modality.range = Some([l.min(low), h.max(high)]);
    }
    for (label, n) in seen.labels.iter().flatten() {
        *modality.labels.entry(*label).or_insert(0) += n;
    }
}

/// The cases of each value of a column; of many different values only how many cases have one.
fn values(manifest: &Manifest, column: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for cell in manifest.entries.iter().filter_map(|e| e.cells.get(column)) {
        *counts.entry(cell.clone()).or_insert(0) += 1;
    }
    match counts.len() {
        n if n > 20 => [(format!("{n} different values"), counts.values().sum())].into(),
        _ => counts,
    }
}
