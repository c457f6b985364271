//! A folder of predictions against a folder of references: which belong together, and how near they are.

use crate::data::nifti_io::{LoadOptions, NanPolicy};
use crate::data::orient::Orientation;
use crate::data::{Notes, Volume};
use crate::error::{Error, Result};
use crate::fsio;
use crate::metrics::case::{CaseScores, MetricSummary, Summary};
use crate::metrics::masks::{self, Grid};
use crate::metrics::ssim::{Ssim, Window};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::evaluate::pairing::{self, Pairing};

/// Images with at most so many different whole numbers are taken for label maps.
const MOST_LABELS: usize = 64;
/// Largest distance between the places of one voxel in two images, mm.
const TOLERANCE_MM: f64 = 1e-3;

/// What the images are compared as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Compare {
    /// Label maps where all images hold few and only whole numbers, else images
    #[default]
    Auto,
    /// Label by label: Dice, sensitivity, specificity, PPV, HD95
    Labels,
    /// Voxel by voxel: MAE, NMSE, PSNR, SSIM
    Images,
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Folders<'a> {
    /// Folder of predictions.
    pub predictions: &'a Path,
    /// Folder of references.
    pub references: &'a Path,
    /// Folder of masks; only voxels above 0 count.
    pub masks: Option<&'a Path>,
    /// The data range L; that of all references together if it is not given.
    pub range: Option<f64>,
    /// As what.
    pub compare: Compare,
}

/// What was found.
pub struct Compared {
    /// What the reader must know: files left out, matched by case, read with a guess.
    pub notes: Vec<String>,
    /// How many cases, and how they were compared.
    pub headline: String,
    /// The scores.
    pub summary: Summary,
    /// For programs.
    pub json: Value,
}

impl Compared {
    /// What is shown of each case: of several labels only Dice.
    pub fn cases_shown(&self) -> Summary {
        let kept = |m: &&MetricSummary| m.metric.starts_with("dice_") || !m.metric.contains("_label");
        let metrics = self.summary.metrics.iter().filter(kept).cloned().collect();
        Summary { metrics, cases: self.summary.cases.clone() }
    }
}

/// One case's files.
struct Files {
    name: String,
    output: PathBuf,
    truth: PathBuf,
    mask: Option<PathBuf>,
}

/// One case's voxels, on one grid and in one order.
struct Voxels {
    output: Vec<f32>,
    truth: Vec<f32>,
    mask: Option<Vec<bool>>,
    grid: Grid,
    /// Lowest and highest finite value of the reference.
    range: [f32; 2],
}

/// What the first look at all cases found.
struct Look {
    /// Labels of output and truth; `None` where it is no label map.
    labels: [Option<BTreeSet<u32>>; 2],
    range: [f32; 2],
}

/// Compares the folders. Every file is read twice, so that memory is needed for a few cases only.
pub fn compare(folders: &Folders) -> Result<Compared> {
    if let Some(r) = folders.range.filter(|r| !(*r > 0.0 && r.is_finite())) {
        return Err(Error::usage(format!("--range {r}: the data range must be a positive number")));
    }
    if folders.range.is_some() && folders.compare == Compare::Labels {
        return Err(Error::usage("--range is the data range of intensities; leave it out with --as labels"));
    }
    let Pairing { cases, mut notes, json: matching } =
        pairing::pair(folders.predictions, folders.references, folders.masks)?;
    let cases: Vec<Files> = cases
        .into_iter()
        .map(|c| Files { name: fsio::text(&c.name), output: c.output, truth: c.truth, mask: c.mask })
        .collect();
    let read = Notes::default();
    let looks: Vec<Look> = cases.par_iter().map(|c| look(c, &read)).collect::<Result<_>>()?;
    notes.extend(read.lines());
    let (labels, why) = labels(folders, &looks, &cases)?;
    notes.extend(why);
    let count = cases.len();
    let (scores, headline, mut json) = match labels {
        Some(labels) => {
            let (scores, empty) = label_scores(&cases, &labels)?;
            if !empty.is_empty() {
                notes.push(format!(
                    "labels that are in neither image of a case have Dice 1 and HD95 0 there: {}",
                    pairing::list(&empty)
                ));
            }
            let named = labels.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let headline = format!(
                "{count} cases, label maps with the labels {named} (0 is the background); HD95 in mm"
            );
            (scores, headline, json!({ "kind": "labels", "labels": labels }))
        }
        None => {
            let range = folders.range.map_or_else(|| range_of(&looks), Ok)?;
            let ssim = Ssim::new(Window::Gaussian, range)?;
            let score = |c: &Files| {
                let v = c.read(&Notes::default())?;
                let mask = v.mask.as_deref();
                CaseScores::synthesis(c.name.as_str(), &v.output, &v.truth, v.grid.dims, mask, &ssim)
            };
            let scores = cases.par_iter().map(score).collect::<Result<Vec<_>>>()?;
            let headline = format!("{count} cases, data range {range}");
            (scores, headline, json!({ "kind": "images", "range": range }))
        }
    };
    let summary = Summary::of(scores)?;
    json["predictions"] = serde_json::to_value(&summary).expect("plain data");
    json["notes"] = json!(notes);
    json["files"] = matching;
    Ok(Compared { notes, headline, summary, json })
}

fn look(case: &Files, notes: &Notes) -> Result<Look> {
    let v = case.read(notes)?;
    let labels = [labels_of(&v.output), labels_of(&v.truth)];
    Ok(Look { labels, range: v.range })
}

fn range_of(looks: &[Look]) -> Result<f64> {
    let all = looks.iter().map(|l| l.range);
    let [low, high] = all.fold([f32::INFINITY, f32::NEG_INFINITY], |a, r| [a[0].min(r[0]), a[1].max(r[1])]);
    let range = f64::from(high - low);
    if range > 0.0 && range.is_finite() {
        return Ok(range);
    }
    Err(Error::input("all references are constant; give the data range with --range"))
}

/// The labels to score, if the images are compared as label maps; and what must be said of the choice.
fn labels(folders: &Folders, looks: &[Look], cases: &[Files]) -> Result<(Option<Vec<u32>>, Vec<String>)> {
    let all_of = |side: usize| {
        let mut all = BTreeSet::new();
        for look in looks {
            all.extend(look.labels[side].as_ref()?);
        }
        Some(all)
    };
    let no_map = |side: usize| {
        let first = looks.iter().zip(cases).find(|(l, _)| l.labels[side].is_none());
        first.map_or(String::new(), |(_, c)| [&c.output, &c.truth][side].display().to_string())
    };
    match (folders.compare, all_of(0), all_of(1)) {
        (Compare::Images, ..) => Ok((None, Vec::new())),
        (compare, Some(predicted), Some(truth)) => {
            let all: BTreeSet<u32> = predicted.union(&truth).copied().collect();
            let few = all.len() > 1 && all.len() <= MOST_LABELS;
            if compare == Compare::Auto && (!few || folders.range.is_some()) {
                let note = few.then(|| {
                    "all images hold few whole numbers and may be label maps; --range compares them as images (--as labels gives Dice)".to_string()
                });
                return Ok((None, note.into_iter().collect()));
            }
            let mut notes = Vec::new();
            if compare == Compare::Auto {
                notes.push("all images hold few and only whole numbers: compared as label maps (--as images compares intensities)".into());
            }
            let unknown: Vec<String> = predicted.difference(&truth).map(u32::to_string).collect();
            if !unknown.is_empty() {
                notes.push(format!("no reference has the predicted label {}", pairing::list(&unknown)));
            }
            let scored: Vec<u32> = all.into_iter().filter(|l| *l != 0).collect();
            if scored.is_empty() {
                return Err(Error::input(
                    "no image holds a label but 0, so there is nothing to score; check the folders",
                ));
            }
            Ok((Some(scored), notes))
        }
        (Compare::Labels, predicted, _) => {
            let side = usize::from(predicted.is_some());
            Err(Error::input(format!(
                "{} is no label map: it holds fractions, negative numbers or whole numbers beyond 2^24; make it one, or leave out --as labels",
                no_map(side)
            )))
        }
        (Compare::Auto, None, Some(truth)) if truth.len() > 1 && truth.len() <= MOST_LABELS => {
            let note = format!(
                "the references hold few and only whole numbers, as label maps do, but {} does not: compared as images (write predicted labels for Dice)",
                no_map(0)
            );
            Ok((None, vec![note]))
        }
        (Compare::Auto, ..) => Ok((None, Vec::new())),
    }
}

/// The different values of a label map; `None` if a value is no whole number from 0, or beyond what float32 tells apart.
fn labels_of(voxels: &[f32]) -> Option<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let mut last = f32::NAN;
    for &v in voxels {
        // Neighbours are mostly equal.
        if v != last {
            if !(0.0..=(1u32 << 24) as f32).contains(&v) || v.fract() != 0.0 {
                return None;
            }
            found.insert(v as u32);
            last = v;
        }
    }
    Some(found)
}

/// Scores of all cases, and which labels are in neither image of which case.
fn label_scores(cases: &[Files], labels: &[u32]) -> Result<(Vec<CaseScores>, Vec<String>)> {
    let names: Vec<String> = labels.iter().map(|l| format!("label{l}")).collect();
    let score = |c: &Files| {
        let v = c.read(&Notes::default())?;
        let of = |voxels: &[f32], l: u32| voxels.iter().map(|x| *x == l as f32).collect::<Vec<bool>>();
        let both = |i: usize| (of(&v.output, labels[i]), of(&v.truth, labels[i]));
        let scores = masks::score(c.name.as_str(), &names, both, v.mask.as_deref(), Some(v.grid))?;
        let there: BTreeSet<u32> =
            [&v.output, &v.truth].into_iter().filter_map(|x| labels_of(x)).flatten().collect();
        let empty = labels.iter().filter(|l| !there.contains(l));
        Ok((scores, empty.map(|l| format!("{l} in {}", c.name)).collect::<Vec<_>>()))
    };
    let all = cases.par_iter().map(score).collect::<Result<Vec<_>>>()?;
    let (scores, empty): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    Ok((scores, empty.into_iter().flatten().collect()))
}

impl Files {
    /// Reads a case. What is not finite outside of the mask becomes 0 in both images.
    fn read(&self, notes: &Notes) -> Result<Voxels> {
        let options = LoadOptions { nan: NanPolicy::Keep, ..Default::default() };
        let (mut output, mut truth) =
            (Volume::load_with(&self.output, options)?, Volume::load_with(&self.truth, options)?);
        let mut mask = self.mask.as_ref().map(|m| Volume::load_with(m, options)).transpose()?;
        let mut others = vec![&mut truth];
        others.extend(mask.as_mut());
        if others.iter().any(|o| !same_grid(&output, o)) {
            // Another order of the same voxels is the same image.
            for volume in others.iter_mut().map(|o| &mut **o).chain([&mut output]) {
                canonical(volume)?;
            }
        }
        self.check_grid(&output, &truth)?;
        if let Some(mask) = &mask {
            self.check_grid(&output, mask)?;
        }
        if let Some(mask) = mask.as_ref().filter(|m| m.voxels.iter().any(|v| v.is_nan())) {
            notes.about("NaN in a mask is outside of it", mask.path.display().to_string());
        }
        let inside = mask.as_ref().map(|m| m.voxels.iter().map(|v| *v > 0.0).collect::<Vec<bool>>());
        let (low, high) = truth
            .voxels
            .iter()
            .filter(|v| v.is_finite())
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
        let counts = |i: usize| inside.as_ref().is_none_or(|m| m[i]);
        for volume in [&output, &truth] {
            let bad = (0..volume.voxels.len()).filter(|i| counts(*i) && !volume.voxels[*i].is_finite());
            let (bad, p) = (bad.count(), volume.path.display());
            if bad > 0 {
                return Err(Error::input(match inside {
                    Some(_) => format!(
                        "{p} holds {bad} voxels inside of the mask that are NaN or infinite; clean the file, or take them out of the mask"
                    ),
                    None => format!(
                        "{p} holds {bad} voxels that are NaN or infinite; clean the file, or leave them out with --mask"
                    ),
                }));
            }
        }
        let mut filled = false;
        for (a, b) in output.voxels.iter_mut().zip(&mut truth.voxels) {
            if !(a.is_finite() && b.is_finite()) {
                (*a, *b) = (0.0, 0.0);
                filled = true;
            }
        }
        if filled {
            notes.about(
                "NaN and infinite voxels outside of the mask are read as 0 in both images",
                &self.name,
            );
        }
        let ([x, y, z], [sx, sy, sz]) = (output.dims, output.spacing());
        for volume in [Some(&output), Some(&truth), mask.as_ref()].into_iter().flatten() {
            volume.notes.iter().for_each(|text| notes.about(text, volume.path.display().to_string()));
        }
        Ok(Voxels {
            output: output.voxels,
            truth: truth.voxels,
            mask: inside,
            grid: Grid { dims: [z, y, x], spacing: [sz, sy, sx] },
            range: [low, high],
        })
    }

    fn check_grid(&self, a: &Volume, b: &Volume) -> Result<()> {
        if same_grid(a, b) {
            return Ok(());
        }
        let why = if a.dims != b.dims {
            format!("{} and {} have {:?} and {:?} voxels", a.path.display(), b.path.display(), a.dims, b.dims)
        } else {
            format!(
                "{} and {} have the same extents but different affines, so their voxels are not the same places",
                a.path.display(),
                b.path.display()
            )
        };
        Err(Error::input(format!("{}: {why}; resample one onto the other's grid first", self.name)))
    }
}

fn same_grid(a: &Volume, b: &Volume) -> bool {
    a.dims == b.dims && a.affine().distance(&b.affine(), a.dims) <= TOLERANCE_MM
}

/// Brings a volume to RAS.
fn canonical(volume: &mut Volume) -> Result<()> {
    let o = Orientation::new(&volume.affine(), volume.dims);
    let affine = o.canonical_affine(&volume.affine());
    let ras = Volume::new(o.canonical_dims(), affine, o.to_canonical(&volume.voxels))?;
    (volume.voxels, volume.dims, volume.header) = (ras.voxels, ras.dims, ras.header);
    Ok(())
}
