//! Settings of a data set, as they stand in a recipe.

use super::answers::Answers;
use super::degrade::Degrade;
use super::fit::DataFit;
use super::folder;
use super::folds::{self, Fold};
use super::labels::Labels;
use super::manifest::{Manifest, check_fractions};
use super::nifti_io::{Frame, LoadOptions, NanPolicy};
use super::normalise::{self, Method, Normalisation, Scope};
use super::orient::Plane;
use super::phantom::{self, PhantomConfig};
use super::{duplicates, visits};
use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Most pixels along an axis of a slice.
const LARGEST_CANVAS: usize = 8192;

/// The `[data]` table. Exactly one of `folder`, `manifest`, `pattern` and `phantom` says where the images are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A folder of a layout that is known: BIDS, nnU-Net raw, Medical Segmentation Decathlon, BraTS, SynthRAD, paired folders `A`
    /// and `B`, `trainA` and `trainB`, or class folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// CSV file with the columns subject, split and one per modality.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Folder at which the manifest's relative paths start (default: the manifest's own).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Or a pattern of file names: `data/{subject}/{subject}_{modality}.nii.gz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Or made-up patients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phantom: Option<PhantomConfig>,
    /// Modalities that the network sees, one channel each (default `["t1"]`).
    pub input: Vec<String>,
    /// Modalities that it is to produce (default `["pet"]`); empty for models from noise.
    pub target: Vec<String>,
    /// Inputs and targets are two sets of images of which no two belong together: a subject may have either, grids may differ
    /// (default false). For CycleGAN.
    pub unpaired: bool,
    /// The one target is a label map, of which these are the meanings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// The one target is a column of the manifest in which the class of the images stands, one of these. Of two the second is
    /// the positive one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// The target says which of these are there, any number of them: one column with a list (separated by `|` or `;`), or a
    /// column of zeros and ones each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// The targets are columns of numbers, such as an age (default false).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub numbers: bool,
    /// Training draws images of every class equally often: those of rare ones repeatedly (default false). For `classes`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub balance: bool,
    /// What is done to the inputs before a network sees them, to be undone by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degrade: Option<Degrade>,
    /// Plane of the slices: axial (default), coronal or sagittal.
    pub plane: Plane,
    /// Height and width of a slice after centred padding and cropping. Default: the largest slice of the training
    /// subjects, rounded up to what the network divides by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canvas: Option<[usize; 2]>,
    /// Where in a slice the canvas lies: "centre" (default), "brightest" or "target".
    pub window: Window,
    /// Slices, height and width of volumes that are cut out at random in training (3D networks). Default: slices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<[usize; 3]>,
    /// Part of the slices that is used for training, as shares of the extent (default 0 to 1: all).
    pub slice_range: [f64; 2],
    /// Slices with a smaller share of foreground are skipped in training (default 0.02). Foreground is what lies
    /// in the first input above a tenth of the way from its 1st to its 99th percentile. 0 keeps all.
    pub min_foreground: f64,
    /// Training skips slices in which no region or class but the first has a pixel (default false).
    pub only_labelled: bool,
    /// Intensities of the inputs (default: percentiles 0.5 and 99.5 of each volume).
    #[serde(deserialize_with = "normalise::for_input")]
    pub normalise_input: Normalisation,
    /// Intensities of the targets (default: minimum and percentile 99.9 of the training split).
    #[serde(deserialize_with = "normalise::for_target")]
    pub normalise_target: Normalisation,
    /// Shares of the subjects in train, val, test where no `split` column says it (default 0.7, 0.1, 0.2).
    pub split: [f64; 3],
    /// Every subject serves training, validation and test (default false). For a smoke test with a subject or two: the
    /// scores then say nothing about other people.
    pub share_subjects: bool,
    /// Seed of that split (default 1).
    pub split_seed: u64,
    /// Cross-validation: which of the folds (from 0) is the validation split. Default: no cross-validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<usize>,
    /// Into how many folds the subjects that are not for testing are dealt with `split_seed` (default 5).
    pub folds: usize,
    /// Or the folds, in nnU-Net's `splits_final.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub splits: Option<PathBuf>,
    /// Whether visits of one patient are told by their names (`sub-01_ses-1`, `BraTS-GLI-00005-000`) and stay in one split
    /// (default true).
    #[serde(skip_serializing_if = "Clone::clone")]
    pub visits_in_names: bool,
    /// NaN and infinities in a file: "error" (default) or "zero".
    pub nan: NanPolicy,
    /// Frame of 4-D files, from 0. Default: such files are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<usize>,
    /// Random changes of the training slices.
    pub augment: Augment,
    /// Memory for decoded volumes, in MiB (default 4096); beyond it volumes are read again.
    pub cache_mb: usize,
}

/// Where in a slice a smaller canvas lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// In the middle.
    #[default]
    Centre,
    /// Where the first input is brightest in sum.
    Brightest,
    /// Around the middle of the true label map's regions. It takes the answer to know where: an upper bound for what
    /// finding the place could bring, no way to work.
    Target,
}

/// Random changes of a training slice; the same for input and target except where it says "input". Default: flip only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Probability of mirroring left and right (default 0.5; in a recipe whose target is a label map that is not
    /// `symmetric`, 0).
    pub flip: f64,
    /// Largest shift along each axis, in pixels (default 0).
    pub shift: f64,
    /// Largest rotation, in degrees (default 0).
    pub rotate: f64,
    /// Largest relative change of size (default 0; 0.1: 90 to 110 %).
    pub zoom: f64,
    /// Largest relative change of the input's intensity above -1 (default 0).
    pub gain: f64,
    /// Standard deviation of Gaussian noise on the input (default 0; the range is [-1, 1]).
    pub noise: f64,
}

impl Default for Augment {
    fn default() -> Self {
        Augment { flip: 0.5, ..Self::NONE }
    }
}

impl Augment {
    /// Nothing is changed.
    pub const NONE: Augment =
        Augment { flip: 0.0, shift: 0.0, rotate: 0.0, zoom: 0.0, gain: 0.0, noise: 0.0 };
}

impl Default for DataConfig {
    fn default() -> Self {
        DataConfig {
            folder: None,
            manifest: None,
            root: None,
            pattern: None,
            phantom: None,
            input: vec!["t1".into()],
            target: vec!["pet".into()],
            unpaired: false,
            labels: None,
            classes: Vec::new(),
            findings: Vec::new(),
            numbers: false,
            balance: false,
            degrade: None,
            plane: Plane::Axial,
            canvas: None,
            window: Window::Centre,
            patch: None,
            slice_range: [0.0, 1.0],
            min_foreground: 0.02,
            only_labelled: false,
            normalise_input: Normalisation::input(),
            normalise_target: Normalisation::target(),
            split: [0.7, 0.1, 0.2],
            share_subjects: false,
            split_seed: 1,
            fold: None,
            folds: 5,
            splits: None,
            visits_in_names: true,
            nan: NanPolicy::Error,
            frame: None,
            augment: Augment::default(),
            cache_mb: 4096,
        }
    }
}

impl DataConfig {
    /// Checks everything that can be checked without opening a file; messages name the key.
    pub fn check(&self) -> Result<()> {
        let sources =
            [self.folder.is_some(), self.manifest.is_some(), self.pattern.is_some(), self.phantom.is_some()];
        match sources.iter().filter(|s| **s).count() {
            1 => {}
            0 => {
                return Err(Error::input(
                    "data: no source is set; set one of `folder` (BIDS, nnU-Net, BraTS, ...; or --data DIR), `manifest` (a CSV file), `pattern` (file names) or `phantom` (made-up patients)",
                ));
            }
            _ => {
                return Err(Error::input(
                    "data: `folder`, `manifest`, `pattern` and `phantom` exclude each other; keep one",
                ));
            }
        }
        if self.root.is_some() && self.manifest.is_none() {
            return Err(Error::input(
                "data: `root` is where a manifest's paths start, but no `manifest` is set; set one, or remove `root`",
            ));
        }
        if self.input.is_empty() {
            return Err(Error::input("data: `input` lists no modality; name at least one"));
        }
        self.check_labels()?;
        self.check_answers()?;
        let images = self.labels.is_none() && self.answers().is_none();
        if self.unpaired && (self.target.is_empty() || !images || self.patch.is_some()) {
            return Err(Error::input(
                "data: `unpaired` is for two sets of images of which slices are taken; name the second one in `target`, and remove `labels` and `patch`",
            ));
        }
        if let Some(degrade) = &self.degrade {
            degrade.check()?;
        }
        self.normalise_input.check("data: `normalise_input`")?;
        self.normalise_target.check("data: `normalise_target`")?;
        check_fractions("data: `split`", &self.split)?;
        if !(2..=100).contains(&self.folds) {
            return Err(Error::input("data: `folds` must lie between 2 and 100; 5 is usual"));
        }
        if self.fold.is_none() && self.splits.is_some() {
            return Err(Error::input("data: `splits` lists folds; say which one with `fold` (--fold 0)"));
        }
        if let Some(k) = self.fold.filter(|k| self.splits.is_none() && *k >= self.folds) {
            return Err(Error::input(format!(
                "data: `fold = {k}` is not there; there are {} folds, from 0",
                self.folds
            )));
        }
        let [from, to] = self.slice_range;
        if !(0.0 <= from && from < to && to <= 1.0) {
            return Err(Error::input(format!(
                "data: `slice_range = [{from}, {to}]` must satisfy 0 <= from < to <= 1; use for example [0.2, 0.9]"
            )));
        }
        if !(0.0..1.0).contains(&self.min_foreground) {
            return Err(Error::input(format!(
                "data: `min_foreground = {}` must be a share from 0 to below 1",
                self.min_foreground
            )));
        }
        if let Some(canvas) = self.canvas.filter(|c| c.iter().any(|n| !(1..=LARGEST_CANVAS).contains(n))) {
            return Err(Error::input(format!(
                "data: `canvas = {canvas:?}` must have a height and a width from 1 to {LARGEST_CANVAS}; use for example [256, 256]"
            )));
        }
        let a = self.augment;
        let limits = [
            ("flip", a.flip, 1.0),
            ("shift", a.shift, 1e4),
            ("rotate", a.rotate, 180.0),
            ("zoom", a.zoom, 0.9),
        ];
        for (key, value, most) in limits.into_iter().chain([("gain", a.gain, 1.0), ("noise", a.noise, 10.0)])
        {
            if !(0.0..=most).contains(&value) {
                return Err(Error::input(format!(
                    "data: `augment.{key} = {value}` must lie between 0 and {most}"
                )));
            }
        }
        Ok(())
    }

    /// Takes from a folder what only it can say: the classes, where its folders are these and the recipe names none.
    pub fn settle_classes(&mut self) -> Result<()> {
        let Some(path) = self.folder.as_deref().filter(|_| self.classes.is_empty()) else { return Ok(()) };
        if self.target == ["class"] && self.findings.is_empty() && !self.numbers && self.labels.is_none() {
            self.classes = folder::find(path)?.classes;
        }
        Ok(())
    }

    /// Whether it is clear what the target is, where that is no image.
    pub(crate) fn check_answers(&self) -> Result<()> {
        let kinds = [!self.classes.is_empty(), !self.findings.is_empty(), self.numbers];
        if kinds.into_iter().chain([self.labels.is_some()]).filter(|k| *k).count() > 1 {
            return Err(Error::input(
                "data: `labels`, `classes`, `findings` and `numbers` say different things of the target; keep one",
            ));
        }
        if self.balance && self.classes.is_empty() {
            return Err(Error::input(
                "data: `balance` draws every class equally often, but `classes` names none; name them, or remove it",
            ));
        }
        let Some(answers) = self.answers() else { return Ok(()) };
        if self.pattern.is_some() {
            return Err(Error::input(format!(
                "data: `{}` are read from a column of a table, which `pattern` does not have; list the images in a CSV file (`manifest`)",
                answers.key()
            )));
        }
        answers.check(&self.target)
    }

    /// What stands in the target's columns, where these are no images.
    pub fn answers(&self) -> Option<Answers<'_>> {
        match (self.classes.as_slice(), self.findings.as_slice()) {
            ([], []) => self.numbers.then_some(Answers::Numbers(&self.target)),
            ([], findings) => Some(Answers::Findings(findings)),
            (classes, _) => Some(Answers::Class(classes)),
        }
    }

    /// The target's modalities that are images.
    pub fn target_images(&self) -> &[String] {
        if self.answers().is_some() { &[] } else { &self.target }
    }

    fn check_labels(&self) -> Result<()> {
        if let Some(labels) = &self.labels {
            labels.check()?;
            if self.target.len() != 1 {
                return Err(Error::input(format!(
                    "data: `labels` says what one label map means, but `target` lists {} images; name one",
                    self.target.len()
                )));
            }
        } else if self.window == Window::Target || self.only_labelled {
            return Err(Error::input(
                "data: `window = \"target\"` and `only_labelled` need a label map; set `data.labels`",
            ));
        }
        let a = self.augment;
        if let Some(patch) = self.patch {
            if patch.iter().any(|n| !(4..=512).contains(n)) {
                return Err(Error::input(format!(
                    "data: `patch = {patch:?}` must have 4 to 512 voxels along each axis"
                )));
            }
            if self.window != Window::Centre || a.shift > 0.0 || a.rotate > 0.0 || a.zoom > 0.0 {
                return Err(Error::input(
                    "data: `patch` goes with the window \"centre\" and without `augment.shift`, `augment.rotate` and `augment.zoom`; patches lie at random places already",
                ));
            }
        }
        Ok(())
    }

    /// Channels of the target that a network is shown, or numbers where it is no image.
    pub fn target_channels(&self) -> usize {
        match self.answers() {
            Some(answers) => answers.channels(),
            None => self.labels.as_ref().map_or(self.target.len(), Labels::target_channels),
        }
    }

    /// Channels, or numbers, that a network puts out.
    pub fn outputs(&self) -> usize {
        match self.answers() {
            Some(answers) => answers.outputs(),
            None => self.labels.as_ref().map_or(self.target.len(), Labels::outputs),
        }
    }

    /// How targets are scaled: labels are not, numbers have mean 0 and deviation 1 in the training split.
    pub fn target_normalisation(&self) -> Normalisation {
        let of = |method| Normalisation { method, scope: Scope::Dataset };
        match (&self.labels, self.answers()) {
            (_, Some(Answers::Numbers(_))) => of(Method::Zscore),
            (Some(_), _) | (_, Some(_)) => of(Method::None),
            (None, None) => self.normalise_target,
        }
    }

    /// The spatial extents of what a network is trained on: patches, or slices on the fitted canvas.
    pub fn size(&self, fit: &DataFit) -> Vec<usize> {
        self.patch.map_or(fit.canvas.to_vec(), |p| p.to_vec())
    }

    /// The slices of a volume that training uses, of the `shares` of foreground of all.
    pub(super) fn chosen(&self, shares: &[f64]) -> Vec<usize> {
        let ([from, to], n) = (self.slice_range, shares.len() as f64);
        let used =
            |k: usize| (from..=to).contains(&((k as f64 + 0.5) / n)) && shares[k] >= self.min_foreground;
        (0..shares.len()).filter(|k| used(*k)).collect()
    }

    /// Makes relative paths start at `base` (the recipe's folder, say).
    pub fn resolve(&mut self, base: &Path) {
        if let Some(m) = &mut self.manifest {
            *m = base.join(&*m);
        }
        if let Some(f) = &mut self.folder {
            *f = base.join(&*f);
        }
        if let Some(s) = &mut self.splits {
            *s = base.join(&*s);
        }
        if let Some(p) = &mut self.pattern {
            *p = base.join(&*p).to_string_lossy().into_owned();
        }
        if let Some(p) = &mut self.phantom {
            p.dir = base.join(&p.dir);
        }
    }

    /// The list of cases; generates the phantom if that is the source and it is not there yet.
    pub fn manifest(&self) -> Result<Manifest> {
        self.check()?;
        if let Some(p) = &self.phantom {
            return self.found(Manifest::read(&phantom::ensure(p)?.manifest, &self.split, self.split_seed)?);
        }
        if let Some(f) = &self.folder {
            return self.found(folder::find(f)?.manifest(f, &self.split, self.split_seed)?);
        }
        if let Some(m) = &self.manifest {
            return self.found(Manifest::read_from(m, self.root.as_deref(), &self.split, self.split_seed)?);
        }
        let modalities: Vec<String> = self.input.iter().chain(&self.target).cloned().collect();
        let pattern = self.pattern.as_deref().unwrap_or("");
        let mut firsts = vec![self.input[0].clone()];
        firsts.extend(self.target.first().filter(|_| self.unpaired).cloned());
        self.found(Manifest::scan(pattern, &modalities, &firsts, &self.split, self.split_seed)?)
    }

    /// Where a recipe does not say how often slices are mirrored: not at all where labels may tell left from right.
    pub fn settle_mirroring(&mut self) {
        if self.labels.as_ref().is_some_and(|l| !l.symmetric) {
            self.augment.flip = 0.0;
        }
    }

    /// Whether training mirrors, for people.
    fn mirroring(&self) -> Option<String> {
        let flip = self.augment.flip;
        match &self.labels {
            Some(_) if flip == 0.0 => Some("no slice is mirrored, as labels may tell left from right; where they don't, `data.labels.symmetric = true` mirrors every second".into()),
            Some(l) if !l.symmetric => Some(format!("slices and their label maps are mirrored with probability {flip} (`data.augment.flip`): labels that tell left from right can't be learnt so")),
            _ if flip > 0.0 => Some(format!("training slices are mirrored with probability {flip} (`data.augment.flip`)")),
            _ => None,
        }
    }

    fn found(&self, manifest: Manifest) -> Result<Manifest> {
        let mut manifest = Manifest { shared: self.share_subjects, ..manifest };
        self.mirroring().into_iter().for_each(|text| manifest.notes.add(text));
        if self.visits_in_names {
            visits::group(&mut manifest);
            match manifest.dealt {
                // Anew, by patient.
                Some(_) => manifest.shuffle_into_splits(&self.split, self.split_seed)?,
                None if manifest.shared => {}
                None => visits::check(&manifest)?,
            }
        }
        if let Some(k) = self.fold {
            let folds = self.deal_folds(&manifest)?;
            folds::apply(&mut manifest, &folds, k)?;
            manifest.dealt = match (&self.splits, manifest.dealt.take()) {
                (Some(_), _) => None,
                (None, how) => Some(format!(
                    "fold {k} of {} dealt with data.split_seed = {}; {}",
                    self.folds,
                    self.split_seed,
                    how.unwrap_or_else(|| "the test split by the column `split`".into())
                )),
            };
        }
        duplicates::check_files(&manifest, &self.input, &self.target, self.degrade.is_some())?;
        self.say(&manifest);
        Ok(manifest)
    }

    /// What the manifest does not say, and what of it is not used.
    fn say(&self, manifest: &Manifest) {
        if let Some(dealt) = &manifest.dealt
            && !manifest.shared
        {
            manifest.notes.add(format!("the subjects are dealt {dealt}"));
        }
        if manifest.shared {
            manifest.notes.add(
                "the same subjects serve training, validation and test (data.share_subjects), so the scores say nothing about other people",
            );
        }
        if self.manifest.is_some() {
            let used = |m: &&String| self.input.contains(m) || self.target.contains(m);
            for column in manifest.modalities.iter().filter(|m| !used(m)) {
                manifest.notes.about("columns of the manifest that are not used", column);
            }
        }
    }

    fn deal_folds(&self, manifest: &Manifest) -> Result<Vec<Fold>> {
        match &self.splits {
            Some(path) => folds::read(path),
            None => folds::deal(manifest, self.folds, self.split_seed),
        }
    }

    /// The folds of the cross-validation, whichever is chosen.
    pub fn fold_list(&self) -> Result<Vec<Fold>> {
        let whole = DataConfig { fold: None, splits: None, ..self.clone() };
        self.deal_folds(&whole.manifest()?)
    }

    /// What the labels of the target mean; an error where the recipe does not say it.
    pub fn known_labels(&self) -> Result<&Labels> {
        self.labels
            .as_ref()
            .ok_or_else(|| Error::input("the recipe says nothing of labels; set `data.labels`"))
    }

    /// How files are read.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions { nan: self.nan, frame: self.frame.map_or(Frame::Only, Frame::Index), recipe: true }
    }
}
