//! One case: its volumes in canonical order, cut into slices, and predicted slices put back into a volume.

use super::config::DataConfig;
use super::manifest::{Entry, Manifest};
use super::nifti_io::Volume;
use super::normalise::{Fitted, Normalisation, Scope, percentile};
use super::orient::{Orientation, Plane};
use crate::error::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest difference between the affines of paired images, mm.
const TOLERANCE_MM: f64 = 1e-3;
/// At most so many voxels are looked at for a percentile over a data set.
const MOST_SAMPLED: usize = 1 << 24;

/// What is fitted on the training split and must be stored with the network: a prediction needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFit {
    /// Height and width of the slices.
    pub canvas: [usize; 2],
    /// Per input channel: the data set's normalisation, or none if each volume has its own.
    pub input: Vec<Option<Fitted>>,
    /// Per target channel: the data set's normalisation. With `scope = "volume"` it serves only where the target is unknown.
    pub target: Vec<Fitted>,
}

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
    /// The same for the targets; empty if they are unknown.
    target: Vec<Channel>,
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
        let target = match paths(&config.target) {
            Ok(t) => t,
            Err(_) if !need_target => Vec::new(),
            Err(e) => return Err(e),
        };
        Self::load_files(entry.id.clone(), &input, &target, config)
    }

    /// Reads input and target files (no targets: unknown) and checks that they share one grid.
    pub fn load_files(
        id: String,
        input: &[PathBuf],
        target: &[PathBuf],
        config: &DataConfig,
    ) -> Result<CaseData> {
        let files: Vec<&PathBuf> = input.iter().chain(target).collect();
        let mut volumes: Vec<Volume> =
            files.par_iter().map(|f| Volume::load_with(f, config.load_options())).collect::<Result<_>>()?;
        if volumes.is_empty() {
            return Err(Error::input("no input image is given; name at least one"));
        }
        for v in &volumes[1..] {
            same_grid(&volumes[0], v)?;
        }
        let orientation = Orientation::new(&volumes[0].affine(), volumes[0].dims);
        let dims = orientation.canonical_dims();
        let reference = Volume { voxels: Vec::new(), ..volumes[0].clone() };
        let channel = |v: Volume, n: &Normalisation| Channel::new(orientation.to_canonical(&v.voxels), n);
        let target = volumes.split_off(input.len());
        Ok(CaseData {
            id,
            reference,
            orientation,
            dims,
            input: volumes.into_par_iter().map(|v| channel(v, &config.normalise_input)).collect(),
            target: target.into_par_iter().map(|v| channel(v, &config.normalise_target)).collect(),
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

    /// Writes slice `k` to `[h][w][c]` canvases, normalised. `target` may be empty.
    pub fn slice(&self, plane: Plane, k: usize, fit: &DataFit, input: &mut [f32], target: &mut [f32]) {
        let shared_input = |c: usize| fit.input.get(c).copied().flatten();
        let shared_target = |c: usize| fit.target.get(c).copied();
        self.put(plane, k, fit.canvas, &self.input, shared_input, input);
        if !target.is_empty() {
            self.put(plane, k, fit.canvas, &self.target, shared_target, target);
        }
    }

    fn put(
        &self,
        plane: Plane,
        k: usize,
        canvas: [usize; 2],
        channels: &[Channel],
        shared: impl Fn(usize) -> Option<Fitted>,
        out: &mut [f32],
    ) {
        let size = plane.slice_shape(self.dims);
        let mut slice = vec![0.0; size[0] * size[1]];
        for (c, channel) in channels.iter().enumerate() {
            let fitted = channel.fitted(shared(c));
            plane.extract(&channel.voxels, self.dims, k, &mut slice);
            let pad = fitted.apply(channel.least);
            out.iter_mut().skip(c).step_by(channels.len()).for_each(|v| *v = pad);
            overlap(size, canvas, |s, p| out[p * channels.len() + c] = fitted.apply(slice[s]));
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
        target: (0..config.target.len())
            .map(|i| over(&config.normalise_target, &|c: &CaseData| &c.target[i].voxels))
            .collect(),
    }
}

/// Checks that two images lie on one grid.
fn same_grid(a: &Volume, b: &Volume) -> Result<()> {
    let (pa, pb) = (a.path.display(), b.path.display());
    if a.dims != b.dims {
        return Err(Error::input(format!(
            "{pa} has {:?} voxels and {pb} has {:?}, but a pair must share one grid; resample one on the other",
            a.dims, b.dims
        )));
    }
    let apart = a.affine().distance(&b.affine(), a.dims);
    if apart > TOLERANCE_MM {
        return Err(Error::input(format!(
            "{pa} and {pb} lie {apart:.3} mm apart (more than {TOLERANCE_MM} mm), with the affines [{}] and [{}]; resample one on the other",
            a.affine(),
            b.affine()
        )));
    }
    Ok(())
}

/// Visits the pixels that a centred slice and its canvas share: (index in the slice, index in the canvas).
fn overlap(slice: [usize; 2], canvas: [usize; 2], mut visit: impl FnMut(usize, usize)) {
    // First shared index on either side, and how many.
    let along = |s: usize, c: usize| {
        let n = s.min(c);
        ((s - n) / 2, (c - n) / 2, n)
    };
    let ((sy, cy, ny), (sx, cx, nx)) = (along(slice[0], canvas[0]), along(slice[1], canvas[1]));
    for y in 0..ny {
        for x in 0..nx {
            visit((sy + y) * slice[1] + sx + x, (cy + y) * canvas[1] + cx + x);
        }
    }
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
    plane: Plane,
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
        let id = files.first().and_then(|f| f.file_name()).map(|n| n.to_string_lossy().into_owned());
        let data = CaseData::load_files(id.unwrap_or_default(), files, &[], config)?;
        Ok(Case::cut(Arc::new(data), config.plane, fit))
    }

    pub(super) fn cut(data: Arc<CaseData>, plane: Plane, fit: &DataFit) -> Case {
        let (n, [h, w]) = (plane.slices(data.dims), fit.canvas);
        let (ci, co) = (data.input.len(), fit.target.len());
        let mut input = vec![0.0; n * h * w * ci];
        let mut target = vec![0.0; if data.target.is_empty() { 0 } else { n * h * w * co }];
        let per = target.len() / n;
        for (k, x) in input.chunks_mut(h * w * ci).enumerate() {
            data.slice(plane, k, fit, x, &mut target[k * per..(k + 1) * per]);
        }
        Case {
            id: data.id.clone(),
            input,
            target: (per > 0).then_some(target),
            input_shape: [n, h, w, ci],
            target_shape: [n, h, w, co],
            data,
            plane,
            fit: fit.clone(),
        }
    }

    /// Whether the canvas is smaller than the slices, so that a margin of the image is not seen.
    pub fn is_cropped(&self) -> bool {
        let size = self.plane.slice_shape(self.data.dims);
        (0..2).any(|a| size[a] > self.fit.canvas[a])
    }

    /// The same case on a canvas that holds whole slices, `multiple` dividing its height and width; the case itself if
    /// nothing is cropped. To predict from images that are larger than those of the training.
    pub fn uncropped(self, multiple: usize) -> Case {
        if !self.is_cropped() {
            return self;
        }
        let size = self.plane.slice_shape(self.data.dims);
        let canvas = [0, 1].map(|a| self.fit.canvas[a].max(size[a]).next_multiple_of(multiple.max(1)));
        Case::cut(self.data, self.plane, &DataFit { canvas, ..self.fit })
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
        let dims = self.data.dims;
        let size = self.plane.slice_shape(dims);
        let reference = self.reference();
        (0..channels)
            .map(|c| {
                let fitted = self.target_fit(c);
                let mut canonical = vec![fitted.invert(-1.0); dims.iter().product()];
                let mut slice = vec![fitted.invert(-1.0); size[0] * size[1]];
                for (k, image) in predicted.chunks_exact(h * w * channels).enumerate() {
                    overlap(size, [h, w], |s, p| slice[s] = fitted.invert(image[p * channels + c]));
                    self.plane.insert(&mut canonical, dims, k, &slice);
                }
                Ok(Volume::like(&reference, self.data.orientation.to_stored(&canonical)))
            })
            .collect()
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
