use super::say;
use crate::data::check::{Modality, Report, Weight, check};
use crate::data::folder;
use crate::data::manifest::Manifest;
use crate::data::nifti_io::{Frame, LoadOptions, NanPolicy, Volume};
use crate::data::normalise::percentile;
use crate::data::orient::{Orientation, Plane};
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::watch::panels::{Display, Image, grid};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Look over images before anything is trained
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Check(CheckArgs),
}

/// Say what a folder or a recipe's images are like, and what would spoil a result
///
/// Every image is read: shapes, voxel sizes, orientations, intensities, labels, NaN, geometry that differs within a case, the same
/// image twice, images of a case that hardly overlap. Each finding comes with what to do. Exit code 1 where training would be
/// refused or its result spoiled.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan data check cohort
  gan data check recipes/mr2pet.toml --picture cohort.png
  gan data check cohort --json > cohort.json")]
struct CheckArgs {
    /// A folder of a layout that is known (docs/data.md), or a recipe
    source: PathBuf,
    /// Override a key of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Also write a picture: the middle axial slices of the first cases, a row each, labels outlined
    #[arg(long, value_name = "FILE.png")]
    picture: Option<PathBuf>,
    /// Overwrite the picture if it exists
    #[arg(long, requires = "picture")]
    force: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let Command::Check(args) = &args.command;
    if let Some(path) = &args.picture {
        super::may_write(path, args.force)?;
    }
    let (manifest, wanted, frame) = of(&args.source, &args.set)?;
    let report = check(&manifest, &wanted, frame)?;
    if args.json {
        say(serde_json::to_string_pretty(&report).expect("plain data"));
    } else {
        tell(&report);
    }
    if let Some(path) = &args.picture {
        picture(&manifest, &report, frame, path)?;
        if !args.json {
            say(format!("picture: {}", path.display()));
        }
    }
    match report.has_errors() {
        false => Ok(()),
        true => {
            let n = report.findings.iter().filter(|f| f.weight == Weight::Error).count();
            Err(Error::input(format!(
                "{}: {n} findings would spoil a result or be refused in training; mend them first",
                report.source
            )))
        }
    }
}

/// The cases, the modalities and columns that count (none: all), and the frame.
fn of(source: &Path, set: &[String]) -> Result<(Manifest, Vec<String>, Frame)> {
    if source.is_dir() {
        if !set.is_empty() {
            return Err(Error::usage("--set changes a recipe, but a folder is given"));
        }
        // As a recipe deals cases that does not say otherwise.
        let defaults = crate::data::DataConfig::default();
        let manifest = folder::find(source)?.manifest(source, &defaults.split, defaults.split_seed)?;
        return Ok((manifest, Vec::new(), Frame::Only));
    }
    let recipe = Recipe::load(source, set)?;
    let manifest = recipe.data.manifest()?;
    let wanted: Vec<String> = recipe.data.input.iter().chain(&recipe.data.target).cloned().collect();
    let frame = recipe.data.frame.map_or(Frame::Only, Frame::Index);
    Ok((manifest, wanted, frame))
}

/// Cases in the picture, and pixels of its tiles' longer side at least.
const ROWS: usize = 8;
const SIDE: usize = 160;
/// Colour of outlines.
const OUTLINE: [u8; 3] = [255, 64, 64];

/// A row for each of the first cases: its images' middle axial slices from the 1st to the 99th percentile; a label map is drawn
/// on the image before it, as outlines.
fn picture(manifest: &Manifest, report: &Report, frame: Frame, path: &Path) -> Result<()> {
    let options = LoadOptions { nan: NanPolicy::Zero, frame, recipe: false };
    let mut rows = Vec::new();
    for entry in manifest.entries.iter().take(ROWS) {
        let mut row: Vec<Image> = Vec::new();
        let mut before: Option<(Vec<f32>, [usize; 2], usize)> = None;
        // Images first, so that labels have something to lie on.
        let (maps, images): (Vec<_>, Vec<_>) =
            report.modalities.iter().partition(|(_, m)| !m.labels.is_empty());
        for (name, m) in images.into_iter().chain(maps) {
            let Some(file) = entry.files.get(name) else { continue };
            // What can't be read is among the findings.
            let Ok(volume) = Volume::load_with(file, options) else { continue };
            let orientation = Orientation::new(&volume.affine(), volume.dims);
            let (dims, voxels) = (orientation.canonical_dims(), orientation.to_canonical(&volume.voxels));
            let [h, w] = Plane::Axial.slice_shape(dims);
            let mut slice = vec![0.0; h * w];
            Plane::Axial.extract(&voxels, dims, Plane::Axial.slices(dims) / 2, &mut slice);
            let factor = (SIDE / h.max(w)).max(1);
            match before.as_ref().filter(|(_, size, _)| !m.labels.is_empty() && *size == [h, w]) {
                Some((under, _, _)) => row.push(outlined(under, &slice, [h, w])?.enlarge(factor)),
                None => {
                    let mut sorted = slice.clone();
                    let (low, high) =
                        (percentile(&mut sorted, 1.0) as f32, percentile(&mut sorted, 99.0) as f32);
                    let high = if high > low { high } else { low + 1.0 };
                    row.push(Display::grey(low, high).draw(&slice, h, w)?.enlarge(factor));
                    let shown = slice.iter().map(|v| (v - low) / (high - low)).collect();
                    before.get_or_insert((shown, [h, w], factor));
                }
            }
        }
        if !row.is_empty() {
            rows.push(row);
        }
    }
    grid(&rows, 2)?.save(path)
}

/// A slice in grey with the borders of labels upon it.
fn outlined(under: &[f32], labels: &[f32], [h, w]: [usize; 2]) -> Result<Image> {
    let border = |y: usize, x: usize| {
        let own = labels[y * w + x];
        let other = |y: usize, x: usize| labels[y * w + x] != own;
        own > 0.0
            && (y == 0
                || x == 0
                || y + 1 == h
                || x + 1 == w
                || other(y - 1, x)
                || other(y + 1, x)
                || other(y, x - 1)
                || other(y, x + 1))
    };
    let pixel = |at: usize| {
        let grey = (255.0 * under[at].clamp(0.0, 1.0)) as u8;
        if border(at / w, at % w) { OUTLINE } else { [grey; 3] }
    };
    Image::new(w, h, 3, (0..h * w).flat_map(pixel).collect())
}

fn tell(report: &Report) {
    let [train, val, test] = report.splits;
    say(format!(
        "{}: {} cases of {} patients; train {train}, val {val}, test {test}",
        report.source, report.cases, report.patients
    ));
    report.notes.iter().for_each(|n| say(format!("note: {n}")));
    for (name, m) in &report.modalities {
        modality(name, m);
    }
    for (column, values) in &report.columns {
        say(format!("\n{column}\n  values        {}", counts(values)));
    }
    if report.findings.is_empty() {
        say("\nnothing found that would spoil a result");
        return;
    }
    say("");
    for f in &report.findings {
        let weight = if f.weight == Weight::Error { "error" } else { "warning" };
        let more = f.count.saturating_sub(f.of.len());
        let of = f.of.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() };
        say(format!("{weight}: {}: {of}\n  {}", f.what, f.way_out));
    }
}

fn modality(name: &str, m: &Modality) {
    say(format!("\n{name}: {} images", m.images));
    say(format!("  shapes        {}", counts(&m.shapes)));
    say(format!("  voxels in mm  {}", counts(&m.spacings)));
    say(format!("  orientations  {}", counts(&m.orientations)));
    if let Some([low, high]) = m.range {
        say(format!("  values        {low} to {high}"));
    }
    if !m.labels.is_empty() {
        let all: u64 = m.labels.values().sum();
        let share = |n: &u64| format!("{:.3} %", 100.0 * *n as f64 / all as f64);
        let labels: Vec<String> = m.labels.iter().map(|(l, n)| format!("{l} ({})", share(n))).collect();
        say(format!("  labels        {}", labels.join(", ")));
    }
}

/// The most frequent first; one that all have without its count.
fn counts<K: fmt::Display + Ord>(all: &BTreeMap<K, usize>) -> String {
    let mut list: Vec<(&K, &usize)> = all.iter().collect();
    list.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    if let [(only, _)] = list[..] {
        return only.to_string();
    }
    let shown: Vec<String> = list.iter().take(8).map(|(k, n)| format!("{k} ({n})")).collect();
    let more = list.len().saturating_sub(8);
    shown.join(", ") + &if more > 0 { format!(" and {more} others") } else { String::new() }
}
