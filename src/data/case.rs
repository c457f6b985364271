//! One case: its volumes in canonical order, cut into slices, and predicted slices put back into a volume.

use super::affine::Affine;
use super::answers::Answers;
use super::config::{DataConfig, Window};
use super::duplicates::{self, Print, Role};
use super::fit::DataFit;
use super::manifest::{Entry, Manifest};
use super::nifti_io::{LoadOptions, Volume};
use super::normalise::{Fitted, Normalisation, Scope, percentile};
use super::notes::Notes;
use super::orient::{Orientation, Plane};
use super::window::{Place, View, around, brightest};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest difference between the affines of paired images, mm.
const TOLERANCE_MM: f64 = 1e-3;
/// At most so many voxels are looked at for a percentile over a data set.
const MOST_SAMPLED: usize = 1 << 24;

/// The volumes of one case.
#[derive(Debug)]
pub(super) struct CaseData {
    pub id: String,
    /// The first input, without its voxels: the geometry of outputs.
    reference: Volume,
    orientation: Orientation,
    /// Canonical extents.
    pub dims: [usize; 3],
    /// Canonical voxels per input channel, in the images' units.
    input: Vec<Channel>,
    /// The same for the targets; empty if they are unknown or no images.
    target: Vec<Channel>,
    /// The target's numbers, where it is no image; `None` if they are unknown.
    answers: Option<Vec<f32>>,
    /// What was done to them on the way.
    notes: Notes,
    /// To tell whether an image stands twice.
    pub prints: Vec<Print>,
}

#[derive(Debug)]
struct Channel {
    voxels: Vec<f32>,
    /// Smallest value: what padding is filled with.
    least: f32,
    /// Fit to this volume, where the scope asks for it.
    own: Option<Fitted>,
}

impl Channel {
    fn new(voxels: Vec<f32>, normalisation: &Normalisation) -> Self {
        let least = voxels.iter().copied().fold(f32::INFINITY, f32::min);
        let own =
            (normalisation.scope == Scope::Volume).then(|| Fitted::fit(normalisation.method, &[&voxels]));
        Channel { voxels, least, own }
    }

    fn fitted(&self, shared: Option<Fitted>) -> Fitted {
        self.own.or(shared).unwrap_or(Fitted::IDENTITY)
    }
}

impl CaseData {
    /// Reads the images of a manifest's entry. Without `need_target` a missing target is no error.
    pub fn load(
        manifest: &Manifest,
        entry: &Entry,
        config: &DataConfig,
        need_target: bool,
    ) -> Result<CaseData> {
        let paths = |list: &[String]| -> Result<Vec<PathBuf>> {
            list.iter().map(|m| manifest.file(entry, m).map(Path::to_path_buf)).collect()
        };
        let input = paths(&config.input)?;
        let target = match paths(config.target_images()) {
            Ok(t) => t,
            Err(_) if !need_target => Vec::new(),
            Err(e) => return Err(e),
        };
        let answers = match config.answers().map(|a| a.read(manifest, entry, &config.target)) {
            Some(Err(e)) if need_target => return Err(e),
            other => other.and_then(Result::ok),
        };
        let options = config.load_options();
        let mut data = Self::load_files(entry.id.clone(), &input, &target, config, options, &manifest.notes)?;
        data.answers = answers;
        manifest.seen.check(manifest, entry, &data.prints, config.degrade.is_some())?;
        if let Some(degrade) = &config.degrade {
            for (i, channel) in data.input.iter_mut().enumerate() {
                let name = format!("{}/{}", data.id, config.input[i]);
                degrade.apply(&mut channel.voxels, data.dims, config.plane, &name);
                *channel = Channel::new(std::mem::take(&mut channel.voxels), &config.normalise_input);
            }
        }
        Ok(data)
    }

    /// Only what tells whether its images stand twice.
    pub fn prints_of(manifest: &Manifest, entry: &Entry, config: &DataConfig) -> Result<Vec<Print>> {
        let paths = |list: &[String]| -> Result<Vec<PathBuf>> {
            list.iter().map(|m| manifest.file(entry, m).map(Path::to_path_buf)).collect()
        };
        let (input, target) = (paths(&config.input)?, paths(config.target_images())?);
        let options = config.load_options();
        Ok(Self::load_files(entry.id.clone(), &input, &target, config, options, &manifest.notes)?.prints)
    }

    /// Reads input and target files (no targets: unknown) and checks that they share one grid.
    pub fn load_files(
        id: String,
        input: &[PathBuf],
        target: &[PathBuf],
        config: &DataConfig,
        options: LoadOptions,
        notes: &Notes,
    ) -> Result<CaseData> {
        let files: Vec<&PathBuf> = input.iter().chain(target).collect();
        let mut volumes: Vec<Volume> =
            files.par_iter().map(|f| Volume::load_with(f, options)).collect::<Result<_>>()?;
        if volumes.is_empty() {
            return Err(Error::input("no input image is given; name at least one"));
        }
        for v in &volumes {
            v.notes.iter().for_each(|text| notes.about(text, v.path.display().to_string()));
        }
        let reference = Volume { voxels: Vec::new(), ..volumes[0].clone() };
        let (orientation, dims, _) = canonical_grid(&reference);
        let prints = volumes
            .par_iter_mut()
            .enumerate()
            .map(|(i, v)| {
                let own = same_grid(&reference, v)?;
                if own != orientation {
                    notes.about(
                        "stored in another order of axes than the first input, on the same grid: brought into one order",
                        v.path.display().to_string(),
                    );
                }
                v.voxels = own.to_canonical(&v.voxels);
                let role = if i < input.len() { Role::Input } else { Role::Target };
                // Label maps may well be alike.
                let compared = role == Role::Input || config.labels.is_none();
                let digest = if compared { duplicates::digest(&v.voxels, dims) } else { None };
                Ok(Print { path: v.path.clone(), role, digest })
            })
            .collect::<Result<_>>()?;
        let channel = |v: Volume, n: &Normalisation| Channel::new(v.voxels, n);
        let target = volumes.split_off(input.len());
        let target = match &config.labels {
            None => target,
            Some(labels) => {
                let mut masks = Vec::new();
                for map in target {
                    let channels = labels.channels(&map.voxels, &map.path)?;
                    masks.extend(channels.into_iter().map(|voxels| Volume { voxels, ..map.clone() }));
                }
                masks
            }
        };
        let target_normalisation = config.target_normalisation();
        Ok(CaseData {
            id,
            reference,
            orientation,
            dims,
            notes: notes.clone(),
            prints,
            input: volumes.into_par_iter().map(|v| channel(v, &config.normalise_input)).collect(),
            target: target.into_par_iter().map(|v| channel(v, &target_normalisation)).collect(),
            answers: None,
        })
    }

    /// Memory taken by the voxels.
    pub fn bytes(&self) -> usize {
        self.input.iter().chain(&self.target).map(|c| 4 * c.voxels.len()).sum()
    }

    /// Share of foreground in each slice; see [`DataConfig::min_foreground`].
    pub fn foreground(&self, plane: Plane) -> Vec<f64> {
        let voxels = &self.input[0].voxels;
        let mut sample: Vec<f32> = voxels.iter().step_by((voxels.len() >> 18).max(1)).copied().collect();
        let (low, high) = (percentile(&mut sample, 1.0), percentile(&mut sample, 99.0));
        let threshold = (low + 0.1 * (high - low)) as f32;
        let [h, w] = plane.slice_shape(self.dims);
        let mut slice = vec![0.0; h * w];
        (0..plane.slices(self.dims))
            .map(|k| {
                plane.extract(voxels, self.dims, k, &mut slice);
                slice.iter().filter(|v| **v > threshold).count() as f64 / slice.len() as f64
            })
            .collect()
    }

    /// Whether a slice has a pixel of a region or of a class but the first.
    pub fn labelled(&self, plane: Plane) -> Vec<bool> {
        let [h, w] = plane.slice_shape(self.dims);
        let mut slice = vec![0.0; h * w];
        let mut any = |c: &Channel, k: usize| {
            plane.extract(&c.voxels, self.dims, k, &mut slice);
            slice.iter().any(|v| *v > 0.0)
        };
        (0..plane.slices(self.dims)).map(|k| self.target.iter().any(|c| any(c, k))).collect()
    }

    /// Writes slice `k` to `[h][w][c]` canvases at a place, normalised; a target that is no image to its numbers. `target`
    /// may be empty.
    pub fn slice(&self, view: View, k: usize, fit: &DataFit, input: &mut [f32], target: &mut [f32]) {
        let shared_input = |c: usize| fit.input.get(c).copied().flatten();
        let shared_target = |c: usize| fit.target.get(c).copied();
        let place = self.place(view, k, fit.canvas);
        self.put(view.plane, k, place, &self.input, shared_input, input);
        if let Some(answers) = &self.answers {
            for ((to, value), fitted) in target.iter_mut().zip(answers).zip(&fit.target) {
                *to = fitted.apply(*value);
            }
        } else if !target.is_empty() {
            self.put(view.plane, k, place, &self.target, shared_target, target);
        }
    }

    /// The target's numbers, where it is no image and known.
    pub fn answers(&self) -> Option<&[f32]> {
        self.answers.as_deref()
    }

    /// Writes the patch `[slices, h, w]` that begins at `start` of the slices on their canvas.
    pub fn patch(
        &self,
        view: View,
        start: [usize; 3],
        patch: [usize; 3],
        fit: &DataFit,
        input: &mut [f32],
        target: &mut [f32],
    ) {
        let [_, canvas_width] = fit.canvas;
        let (ci, ct) = (self.input.len(), self.target.len());
        let area = fit.canvas.iter().product::<usize>();
        let (mut x, mut y) = (vec![0.0; area * ci], vec![0.0; area * ct]);
        if self.answers.is_some() {
            self.slice(view, start[0], fit, &mut x, target);
        }
        for d in 0..patch[0] {
            self.slice(view, start[0] + d, fit, &mut x, &mut y);
            for row in 0..patch[1] {
                let from = (start[1] + row) * canvas_width + start[2];
                let to = (d * patch[1] + row) * patch[2];
                let n = patch[2];
                input[to * ci..(to + n) * ci].copy_from_slice(&x[from * ci..(from + n) * ci]);
                target[to * ct..(to + n) * ct].copy_from_slice(&y[from * ct..(from + n) * ct]);
            }
        }
    }

    /// Where the canvas lies in slice `k`.
    fn place(&self, view: View, k: usize, canvas: [usize; 2]) -> Place {
        let size = view.plane.slice_shape(self.dims);
        let middle = Place::centred(size, canvas);
        let mut slice = vec![0.0; size[0] * size[1]];
        let mut read = |channel: &Channel| {
            view.plane.extract(&channel.voxels, self.dims, k, &mut slice);
            slice.clone()
        };
        match view.window {
            Window::Centre => middle,
            Window::Brightest => Place { start: brightest(&read(&self.input[0]), size, canvas), ..middle },
            Window::Target => {
                let mut inside = vec![0.0; size[0] * size[1]];
                for channel in &self.target {
                    inside
                        .iter_mut()
                        .zip(read(channel))
                        .for_each(|(i, v)| *i += f32::from(u8::from(v > 0.0)));
                }
                Place { start: around(&inside, size, canvas), ..middle }
            }
        }
    }

    fn put(
        &self,
        plane: Plane,
        k: usize,
        place: Place,
        channels: &[Channel],
        shared: impl Fn(usize) -> Option<Fitted>,
        out: &mut [f32],
    ) {
        let mut slice = vec![0.0; place.size[0] * place.size[1]];
        for (c, channel) in channels.iter().enumerate() {
            let fitted = channel.fitted(shared(c));
            plane.extract(&channel.voxels, self.dims, k, &mut slice);
            let pad = fitted.apply(channel.least);
            out.iter_mut().skip(c).step_by(channels.len()).for_each(|v| *v = pad);
            place.overlap(|s, p| out[p * channels.len() + c] = fitted.apply(slice[s]));
        }
    }
}

/// A fit on training cases, which hold their targets.
pub(super) fn fit(cases: &[Arc<CaseData>], config: &DataConfig, canvas: [usize; 2]) -> DataFit {
    let over = |n: &Normalisation, channel: &dyn Fn(&CaseData) -> &[f32]| {
        use super::normalise::Method;
        let each = MOST_SAMPLED / cases.len().max(1);
        // Extremes are exact; percentiles and moments come from evenly spaced voxels if there are very many.
        let sampled =
            |v: &[f32]| -> Vec<f32> { v.iter().step_by((v.len() / each.max(1)).max(1)).copied().collect() };
        let samples: Vec<Vec<f32>> = match n.method {
            Method::Minmax => cases.iter().map(|c| channel(c).to_vec()).collect(),
            _ => cases.iter().map(|c| sampled(channel(c))).collect(),
        };
        Fitted::fit(n.method, &samples.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    let shared = config.normalise_input.scope == Scope::Dataset;
    DataFit {
        canvas,
        input: (0..config.input.len())
            .map(|i| shared.then(|| over(&config.normalise_input, &|c: &CaseData| &c.input[i].voxels)))
            .collect(),
        target: (0..config.target_channels())
            .map(|i| match config.answers() {
                Some(Answers::Numbers(_)) => {
                    Fitted::deviation(cases.iter().filter_map(|c| Some(c.answers()?[i])))
                }
                Some(_) => Fitted::IDENTITY,
                None => over(&config.target_normalisation(), &|c: &CaseData| &c.target[i].voxels),
            })
            .collect(),
    }
}

/// How a volume is brought into canonical order, and its grid then.
pub(super) fn canonical_grid(v: &Volume) -> (Orientation, [usize; 3], Affine) {
    let orientation = Orientation::new(&v.affine(), v.dims);
    (orientation, orientation.canonical_dims(), orientation.canonical_affine(&v.affine()))
}

/// Checks that two images lie on one grid, in whatever order they are stored, and says how the second one is.
pub(super) fn same_grid(a: &Volume, b: &Volume) -> Result<Orientation> {
    let (pa, pb) = (a.path.display(), b.path.display());
    let ((first, dims, affine), (own, dims_b, affine_b)) = (canonical_grid(a), canonical_grid(b));
    // Stored alike. (Of an image that lies askew by 45 degrees, rounding could choose other axes.)
    if a.dims == b.dims && a.affine().distance(&b.affine(), a.dims) <= TOLERANCE_MM {
        return Ok(first);
    }
    if dims != dims_b {
        return Err(Error::input(format!(
            "{pa} has {:?} voxels and {pb} has {:?}, but a pair must share one grid; resample one on the other",
            a.dims, b.dims
        )));
    }
    let apart = affine.distance(&affine_b, dims);
    if apart > TOLERANCE_MM {
        return Err(Error::input(format!(
            "{pa} and {pb} lie {apart:.3} mm apart (more than {TOLERANCE_MM} mm), with the affines [{}] and [{}]; resample one on the other",
            a.affine(),
            b.affine()
        )));
    }
    Ok(own)
}

/// A whole case for validation and prediction: all slices of a plane, normalised, on the canvas.
#[derive(Debug)]
pub struct Case {
    /// The subject (and session).
    pub id: String,
    /// `[n][h][w][input channels]`; slice 0 is the lowest, hindmost or leftmost.
    pub input: Vec<f32>,
    /// `[n][h][w][target channels]`, if the target is known.
    pub target: Option<Vec<f32>>,
    /// n, h, w, input channels.
    pub input_shape: [usize; 4],
    /// n, h, w, target channels.
    pub target_shape: [usize; 4],
    data: Arc<CaseData>,
    view: View,
    fit: DataFit,
}

impl Case {
    /// Reads input files that are in no manifest (to predict from), in the order of the recipe's `input`.
    pub fn open(files: &[PathBuf], config: &DataConfig, fit: &DataFit) -> Result<Case> {
        if files.len() != config.input.len() {
            return Err(Error::input(format!(
                "the network takes {} input images ({}), {} given; name one file for each",
                config.input.len(),
                config.input.join(", "),
                files.len()
            )));
        }
        if config.window == Window::Target {
            return Err(Error::input(
                "this run sees a window around the true target (`data.window`), which a new image does not tell; train one with the window \"brightest\" or \"centre\" to predict from",
            ));
        }
        let id = files.first().and_then(|f| f.file_name()).map(|n| n.to_string_lossy().into_owned());
        // The recipe is a run's, and no longer open to change.
        let options = LoadOptions { recipe: false, ..config.load_options() };
        let notes = Notes::default();
        let data = CaseData::load_files(id.unwrap_or_default(), files, &[], config, options, &notes)?;
        Ok(Case::cut(Arc::new(data), View::of(config), fit))
    }

    pub(super) fn cut(data: Arc<CaseData>, view: View, fit: &DataFit) -> Case {
        let (n, [h, w]) = (view.plane.slices(data.dims), fit.canvas);
        let (ci, co) = (data.input.len(), fit.target.len());
        let mut input = vec![0.0; n * h * w * ci];
        let per = if data.target.is_empty() { 0 } else { h * w * co };
        let mut target = vec![0.0; n * per];
        for (k, x) in input.chunks_mut(h * w * ci).enumerate() {
            data.slice(view, k, fit, x, &mut target[k * per..(k + 1) * per]);
        }
        Case {
            id: data.id.clone(),
            input,
            target: (per > 0).then_some(target),
            input_shape: [n, h, w, ci],
            target_shape: [n, h, w, co],
            data,
            view,
            fit: fit.clone(),
        }
    }

    /// The known target where it is no image: a class's number, a zero or a one for each finding, or numbers in their units.
    pub fn answers(&self) -> Option<&[f32]> {
        self.data.answers()
    }

    /// The slices that training would use (`data.slice_range`, `data.min_foreground`); all where it would use none.
    pub fn shown(&self, config: &DataConfig) -> Vec<usize> {
        let chosen = config.chosen(&self.data.foreground(self.view.plane));
        if chosen.is_empty() { (0..self.input_shape[0]).collect() } else { chosen }
    }

    /// What was done to its images on the way.
    pub fn notes(&self) -> &Notes {
        &self.data.notes
    }

    /// Whether the canvas is smaller than the slices, so that a margin of the image is not seen.
    pub fn is_cropped(&self) -> bool {
        let size = self.view.plane.slice_shape(self.data.dims);
        (0..2).any(|a| size[a] > self.fit.canvas[a])
    }

    /// The same case on a canvas that holds whole slices, `multiple` dividing its height and width; the case itself if
    /// nothing is cropped. To predict from images that are larger than those of the training.
    pub fn uncropped(self, multiple: usize) -> Case {
        // A window that looks for a place of its own is meant to be smaller.
        if !self.is_cropped() || self.view.window != Window::Centre {
            return self;
        }
        let size = self.view.plane.slice_shape(self.data.dims);
        let canvas = [0, 1].map(|a| self.fit.canvas[a].max(size[a]).next_multiple_of(multiple.max(1)));
        Case::cut(self.data, self.view, &DataFit { canvas, ..self.fit })
    }

    /// The known target in its own units and the input's geometry; `None` if it is unknown.
    pub fn target_volume(&self, channel: usize) -> Option<Volume> {
        let c = self.data.target.get(channel)?;
        Some(Volume::like(&self.reference(), self.data.orientation.to_stored(&c.voxels)))
    }

    /// Predicted slices `[n][h][w][c]` to one volume per channel, in the target's units, with the geometry (grid,
    /// affine, codes, units) of the first input. What the canvas cropped away gets the value of the range's low end.
    pub fn assemble(&self, predicted: &[f32]) -> Result<Vec<Volume>> {
        let [n, h, w, channels] = self.target_shape;
        if predicted.len() != n * h * w * channels {
            return Err(Error::input(format!(
                "{}: {} predicted values where {n} slices of {h} x {w} x {channels} are needed; the network's output does not fit `target`",
                self.id,
                predicted.len()
            )));
        }
        let reference = self.reference();
        (0..channels)
            .map(|c| {
                let fitted = self.target_fit(c);
                let canonical =
                    self.put_back(predicted, channels, c, fitted.invert(-1.0), |v| fitted.invert(v));
                Ok(Volume::like(&reference, self.data.orientation.to_stored(&canonical)))
            })
            .collect()
    }

    /// Labels of slices `[n][h][w]` as a volume with the geometry of the first input; `background` beyond the canvas.
    pub fn assemble_labels(&self, labels: &[f32], background: f32) -> Volume {
        let canonical = self.put_back(labels, 1, 0, background, |v| v);
        Volume::like(&self.reference(), self.data.orientation.to_stored(&canonical))
    }

    /// A channel of slices `[n][h][w][channels]` as a canonical volume, x fastest; `outside` beyond the canvas.
    pub fn canonical(&self, slices: &[f32], channels: usize, c: usize, outside: f32) -> Vec<f32> {
        self.put_back(slices, channels, c, outside, |v| v)
    }

    /// The channels of the known target as canonical volumes, x fastest; none if it is unknown.
    pub fn target_channels(&self) -> Vec<&[f32]> {
        self.data.target.iter().map(|c| c.voxels.as_slice()).collect()
    }

    /// Extents and spacing in mm of a canonical volume, the slowest axis first.
    pub fn canonical_grid(&self) -> ([usize; 3], [f64; 3]) {
        let [x, y, z] = self.data.dims;
        let [sx, sy, sz] = self.data.orientation.canonical_affine(&self.data.reference.affine()).spacing();
        ([z, y, x], [sz, sy, sx])
    }

    fn put_back(
        &self,
        slices: &[f32],
        channels: usize,
        c: usize,
        outside: f32,
        value: impl Fn(f32) -> f32,
    ) -> Vec<f32> {
        let [_, h, w, _] = self.input_shape;
        let (dims, plane) = (self.data.dims, self.view.plane);
        let size = plane.slice_shape(dims);
        let mut canonical = vec![outside; dims.iter().product()];
        let mut slice = vec![outside; size[0] * size[1]];
        for (k, image) in slices.chunks_exact(h * w * channels).enumerate() {
            // Windows of neighbouring slices may lie elsewhere.
            slice.fill(outside);
            let place = self.data.place(self.view, k, [h, w]);
            place.overlap(|s, p| slice[s] = value(image[p * channels + c]));
            plane.insert(&mut canonical, dims, k, &slice);
        }
        canonical
    }

    /// How a target channel was normalised: the volume's own fit if it is known and has one, else the data set's.
    pub fn target_fit(&self, channel: usize) -> Fitted {
        let shared = self.fit.target.get(channel).copied();
        self.data.target.get(channel).map_or(shared.unwrap_or(Fitted::IDENTITY), |c| c.fitted(shared))
    }

    fn reference(&self) -> Volume {
        self.data.reference.clone()
    }
}

/// Looks at images without keeping them; one that can't be read is said, not refused: it is not needed yet.
pub fn look(manifest: &Manifest, entries: &[&Entry], config: &DataConfig, notes: &Notes) -> Result<()> {
    entries.par_iter().try_for_each(|entry| match CaseData::prints_of(manifest, entry, config) {
        Ok(prints) => manifest.seen.check(manifest, entry, &prints, config.degrade.is_some()),
        Err(e) => {
            notes.add(format!("`gan evaluate` will not be able to measure {}: {e}", entry.id));
            Ok(())
        }
    })
}
