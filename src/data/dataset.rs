//! A data set: the slices of one split, ready for a network.

mod told;
mod unpaired;

use super::answers::Answers;
use super::case::{self, Case, CaseData};
use super::config::DataConfig;
use super::fit::DataFit;
use super::manifest::{Entry, Manifest, Split};
use super::notes::Notes;
use super::window::View;
use crate::error::{Error, Result};
use crate::rng::Philox;
use rayon::prelude::*;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Share of patches that are laid around a label.
const LABELLED: f64 = 1.0 / 3.0;

/// What [`Dataset::open`] needs to know from the network.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Height and width of slices must divide by this (default 1).
    pub multiple: usize,
    /// Targets must be there (default true); false to predict.
    pub need_target: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { multiple: 1, need_target: true }
    }
}

/// One training slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Index of the case.
    pub case: usize,
    /// Index of the slice in its canonical volume.
    pub slice: usize,
}

/// The cases and slices of a split.
#[derive(Debug)]
pub struct Dataset {
    config: DataConfig,
    split: Split,
    manifest: Manifest,
    entries: Vec<Entry>,
    samples: Vec<Sample>,
    slices_in_all: usize,
    fit: DataFit,
    need_target: bool,
    /// The targets, where they belong to nobody (`data.unpaired`).
    others: Option<Box<Dataset>>,
    cache: Cache,
}

impl Dataset {
    /// Opens a split. `fit` is what a training split found ([`Dataset::fit`]), or what a run stored; without it
    /// it is found on the training split first. All images are read once, in parallel, and checked.
    pub fn open(
        config: &DataConfig,
        split: Split,
        fit: Option<&DataFit>,
        options: OpenOptions,
    ) -> Result<Dataset> {
        Self::open_from(config, &config.manifest()?, split, fit, options)
    }

    /// [`Dataset::open`] of cases that are known: those of a run, say.
    pub fn open_from(
        config: &DataConfig,
        manifest: &Manifest,
        split: Split,
        fit: Option<&DataFit>,
        options: OpenOptions,
    ) -> Result<Dataset> {
        if config.unpaired {
            return Self::open_sets(config, manifest, split, fit, options);
        }
        Self::open_in(config, manifest.clone(), split, fit, options)
    }

    fn open_in(
        config: &DataConfig,
        manifest: Manifest,
        split: Split,
        fit: Option<&DataFit>,
        options: OpenOptions,
    ) -> Result<Dataset> {
        let fit = match fit {
            Some(f) => f.clone(),
            None if split == Split::Train => {
                DataFit { canvas: [0, 0], input: Vec::new(), target: Vec::new() }
            }
            None => {
                let train = OpenOptions { need_target: true, ..options };
                Dataset::open_from(config, &manifest, Split::Train, None, train)?.fit
            }
        };
        let entries: Vec<Entry> = manifest.part(split)?.into_iter().cloned().collect();
        let mut set = Dataset {
            config: config.clone(),
            split,
            manifest,
            samples: Vec::new(),
            slices_in_all: 0,
            fit,
            need_target: options.need_target,
            others: None,
            cache: Cache::new(config.cache_mb.saturating_mul(1 << 20)),
            entries,
        };
        let look = |c: Arc<CaseData>| {
            let mut shares = c.foreground(config.plane);
            if config.only_labelled {
                // Below every threshold.
                let labelled = c.labelled(config.plane);
                shares.iter_mut().zip(labelled).filter(|(_, l)| !l).for_each(|(s, _)| *s = -1.0);
            }
            (c.dims, shares)
        };
        let foreground: Vec<([usize; 3], Vec<f64>)> = (0..set.entries.len())
            .into_par_iter()
            .map(|i| set.case_data(i).map(look))
            .collect::<Result<_>>()?;
        set.choose_slices(&foreground)?;
        if set.fit.canvas == [0, 0] {
            let largest = foreground.iter().map(|(d, _)| config.plane.slice_shape(*d));
            let largest = largest.fold([1, 1], |a, s| [a[0].max(s[0]), a[1].max(s[1])]);
            let canvas =
                config.canvas.unwrap_or(largest.map(|n| n.next_multiple_of(options.multiple.max(1))));
            let canvas = config.patch.map_or(canvas, |[_, h, w]| [canvas[0].max(h), canvas[1].max(w)]);
            let cases: Vec<_> =
                (0..set.entries.len()).into_par_iter().map(|i| set.case_data(i)).collect::<Result<_>>()?;
            set.fit = case::fit(&cases, config, canvas);
        }
        if let Some([depth, ..]) = config.patch
            && let Some((i, (dims, _))) =
                foreground.iter().enumerate().find(|(_, (dims, _))| config.plane.slices(*dims) < depth)
        {
            return Err(Error::input(format!(
                "data: `patch` is {depth} slices deep, but {} has {} only; make it smaller",
                set.entries[i].id,
                config.plane.slices(*dims)
            )));
        }
        let m = options.multiple.max(1);
        if set.fit.canvas.iter().any(|n| n % m != 0) {
            let fitting = set.fit.canvas.map(|n| n.next_multiple_of(m));
            return Err(Error::input(format!(
                "data: `canvas = {:?}` does not divide by {m}, which the network needs; use {fitting:?}",
                set.fit.canvas
            )));
        }
        let dims: Vec<[usize; 3]> = foreground.iter().map(|(dims, _)| *dims).collect();
        set.tell(&dims);
        Ok(set)
    }

    /// Number of training slices.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none (never, after a successful [`Dataset::open`]).
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The training slices, by case, then slice.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Canvas and normalisation fitted on the training split; to be stored with the run.
    pub fn fit(&self) -> &DataFit {
        &self.fit
    }

    /// The settings it was opened with.
    pub fn config(&self) -> &DataConfig {
        &self.config
    }

    /// Compares the images of another split, which nobody has opened yet, with those of this one: none may stand in both.
    pub fn compare_with(&self, split: Split) -> Result<()> {
        if let Some(others) = &self.others {
            others.compare_with(split)?;
        }
        let entries: Vec<&Entry> = self.manifest.entries.iter().filter(|e| e.split == split).collect();
        match entries[..] {
            _ if self.manifest.shared => Ok(()),
            [] => {
                self.notes().add(format!(
                    "no subject is in the split `{}`, so `gan evaluate` has nobody to measure there",
                    split.name()
                ));
                Ok(())
            }
            _ => case::look(&self.manifest, &entries, &self.config, self.notes()),
        }
    }

    /// What was dropped, guessed or replaced on the way to it.
    pub fn notes(&self) -> &Notes {
        &self.manifest.notes
    }

    /// The part of the data it holds.
    pub fn split(&self) -> Split {
        self.split
    }

    /// Extents `[h, w, c]` of an input slice.
    pub fn input_shape(&self) -> [usize; 3] {
        let [h, w] = self.fit.canvas;
        [h, w, self.config.input.len()]
    }

    /// Extents `[h, w, c]` of a target slice; `[1, 1, numbers]` where the target is no image.
    pub fn target_shape(&self) -> [usize; 3] {
        if let Some(answers) = self.config.answers() {
            return [1, 1, answers.channels()];
        }
        let [h, w] = self.fit.canvas;
        [h, w, self.others.as_ref().map_or(self.config.target_channels(), |o| o.config.input.len())]
    }

    /// The set of targets, of which they are the inputs, where they are nobody's (`data.unpaired`).
    pub fn others(&self) -> Option<&Dataset> {
        self.others.as_deref()
    }

    /// Writes sample `index` to `[h][w][c]` buffers; `target` may be empty.
    pub fn read(&self, index: usize, input: &mut [f32], target: &mut [f32]) -> Result<()> {
        let Sample { case, slice } = self.samples[index];
        self.case_data(case)?.slice(View::of(&self.config), slice, &self.fit, input, target);
        Ok(())
    }

    /// Writes a patch of the case of sample `index` to `[d][h][w][c]` buffers: at a random place, in a third of all cases
    /// one around the sample's slice where that has a label (as nnU-Net does, so that small regions are seen).
    pub fn read_patch(
        &self,
        index: usize,
        patch: [usize; 3],
        rng: &mut Philox,
        input: &mut [f32],
        target: &mut [f32],
    ) -> Result<()> {
        let Sample { case, slice } = self.samples[index];
        let data = self.case_data(case)?;
        let view = View::of(&self.config);
        let extents = [view.plane.slices(data.dims), self.fit.canvas[0], self.fit.canvas[1]];
        let spare = [0, 1, 2].map(|a| extents[a] - patch[a]);
        let drawn = [0, 1, 2].map(|a| rng.below(spare[a] + 1));
        let around = rng.uniform() < LABELLED && self.config.labels.is_some();
        let centre = around.then(|| self.labelled_place(&data, view, slice, rng)).flatten();
        let start =
            centre.map_or(drawn, |c| [0, 1, 2].map(|a| c[a].saturating_sub(patch[a] / 2).min(spare[a])));
        data.patch(view, start, patch, &self.fit, input, target);
        Ok(())
    }

    /// A random pixel of a slice that has a label.
    fn labelled_place(
        &self,
        data: &CaseData,
        view: View,
        slice: usize,
        rng: &mut Philox,
    ) -> Option<[usize; 3]> {
        let ([h, w, ci], [_, _, ct]) = (self.input_shape(), self.target_shape());
        let (mut x, mut y) = (vec![0.0; h * w * ci], vec![0.0; h * w * ct]);
        data.slice(view, slice, &self.fit, &mut x, &mut y);
        let places: Vec<usize> =
            (0..h * w).filter(|p| y[p * ct..(p + 1) * ct].iter().any(|v| *v > 0.0)).collect();
        (!places.is_empty()).then(|| {
            let p = places[rng.below(places.len())];
            [slice, p / w, p % w]
        })
    }

    /// The class of each sample, where the target is one.
    pub fn classes(&self) -> Result<Option<Vec<usize>>> {
        let Some(answers @ Answers::Class(_)) = self.config.answers() else { return Ok(None) };
        let of = |e: &Entry| Ok(answers.read(&self.manifest, e, &self.config.target)?[0] as usize);
        let cases: Vec<usize> = self.entries.iter().map(of).collect::<Result<_>>()?;
        Ok(Some(self.samples.iter().map(|s| cases[s.case]).collect()))
    }

    /// "sub-0001:57": where a sample comes from.
    pub fn sample_name(&self, index: usize) -> String {
        let s = self.samples[index];
        format!("{}:{}", self.entries[s.case].id, s.slice)
    }

    /// Number of cases.
    pub fn cases(&self) -> usize {
        self.entries.len()
    }

    /// The case's subject (and session).
    pub fn case_id(&self, index: usize) -> &str {
        &self.entries[index].id
    }

    /// A whole case: all its slices, also those that training skips, on the canvas ([`Case::uncropped`] for a larger one).
    pub fn case(&self, index: usize) -> Result<Case> {
        Ok(Case::cut(self.case_data(index)?, View::of(&self.config), &self.fit))
    }

    /// One line for the log.
    pub fn stats(&self) -> String {
        self.to_string()
    }

    fn case_data(&self, index: usize) -> Result<Arc<CaseData>> {
        self.cache.get(index, || {
            CaseData::load(&self.manifest, &self.entries[index], &self.config, self.need_target)
        })
    }

    fn choose_slices(&mut self, foreground: &[([usize; 3], Vec<f64>)]) -> Result<()> {
        for (case, (_, shares)) in foreground.iter().enumerate() {
            self.slices_in_all += shares.len();
            let chosen = self.config.chosen(shares);
            self.samples.extend(chosen.into_iter().map(|slice| Sample { case, slice }));
        }
        if self.samples.is_empty() {
            return Err(Error::input(format!(
                "data: none of the {} slices of the split `{}` is left; lower `min_foreground` or widen `slice_range`",
                self.slices_in_all,
                self.split.name()
            )));
        }
        Ok(())
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [h, w] = self.fit.canvas;
        write!(
            f,
            "{}: {} subjects, {} of {} {:?} slices, {h} x {w}, {} -> {}",
            self.split.name(),
            self.entries.len(),
            self.samples.len(),
            self.slices_in_all,
            self.config.plane,
            self.config.input.join("+"),
            self.others.as_ref().map_or(&self.config.target, |o| &o.config.input).join("+")
        )?;
        match &self.others {
            Some(o) => write!(
                f,
                " (unpaired: {} subjects, {} of {} slices)",
                o.entries.len(),
                o.samples.len(),
                o.slices_in_all
            ),
            None => Ok(()),
        }
    }
}

/// Decoded cases, least recently used out first when memory is full.
#[derive(Debug)]
struct Cache {
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    cases: HashMap<usize, (Arc<CaseData>, u64)>,
    bytes: usize,
    clock: u64,
}

impl Cache {
    fn new(limit: usize) -> Self {
        Cache { limit, held: Mutex::default() }
    }

    fn get(&self, index: usize, load: impl FnOnce() -> Result<CaseData>) -> Result<Arc<CaseData>> {
        // A poisoned lock only means that another thread panicked between two consistent states.
        let lock = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut held = lock();
            held.clock += 1;
            let now = held.clock;
            if let Some((case, used)) = held.cases.get_mut(&index) {
                *used = now;
                return Ok(case.clone());
            }
        }
        // Decoding happens outside the lock.
        let case = Arc::new(load()?);
        let mut held = lock();
        let size = case.bytes();
        while held.bytes + size > self.limit {
            let Some(oldest) = held.cases.iter().min_by_key(|(_, (_, used))| *used).map(|(k, _)| *k) else {
                break;
            };
            if let Some((gone, _)) = held.cases.remove(&oldest) {
                held.bytes -= gone.bytes();
            }
        }
        if held.bytes + size <= self.limit {
            let now = held.clock;
            if held.cases.insert(index, (case.clone(), now)).is_none() {
                held.bytes += size;
            }
        }
        Ok(case)
    }
}
