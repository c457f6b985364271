//! Batches, prepared ahead by worker threads.
//!
//! The batch of step `s` is a pure function of (data set, settings, s): the order of epoch `e` is a shuffle by the stream
//! (seed, e), the changes of sample `i` come from the stream (seed, s, i). So neither the number of workers nor the
//! step at which a run was resumed matters.

use super::augment::{Drawn, Interpolation};
use super::config::Augment;
use super::dataset::Dataset;
use super::normalise::Method;
use crate::error::{Error, Result};
use crate::rng::{Philox, stream_id};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Settings of a [`Loader`].
#[derive(Clone, Copy, Debug)]
pub struct LoaderConfig {
    /// Slices per batch.
    pub batch: usize,
    /// Seed of order and changes.
    pub seed: u64,
    /// Threads that prepare batches; 0 prepares each when it is asked for.
    pub workers: usize,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Random changes; [`Augment::NONE`] for none.
    pub augment: Augment,
    /// Whether an epoch's last, incomplete batch is left out. Otherwise it is shorter.
    pub drop_last: bool,
    /// Whether samples of every class are drawn equally often ([`Dataset::classes`]).
    pub balance: bool,
    /// Draws the target from another sample than the input (CycleGAN); it is one of [`Dataset::others`] if there are any.
    pub unpaired: bool,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        LoaderConfig {
            batch: 1,
            seed: 1,
            workers: 2,
            shuffle: true,
            augment: Augment::default(),
            drop_last: true,
            balance: false,
            unpaired: false,
        }
    }
}

/// Some slices for one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step it belongs to.
    pub step: u64,
    /// `[n][h][w][c]`.
    pub input: Vec<f32>,
    /// `[n][h][w][c]`.
    pub target: Vec<f32>,
    /// n, h, w, c of the input; of patches h is the height of all slices together.
    pub input_shape: [usize; 4],
    /// n, h, w, c of the target.
    pub target_shape: [usize; 4],
    /// Where each input comes from: "sub-0001:57".
    pub ids: Vec<String>,
}

/// An endless sequence of batches.
pub struct Loader {
    maker: Maker,
    next_step: u64,
    /// Worker `i` makes the steps `first + i`, `first + i + workers`, ...
    lanes: Vec<Receiver<Result<Batch>>>,
    threads: Vec<JoinHandle<()>>,
    turn: usize,
}

impl Loader {
    /// Starts at step `first_step` (0 for a new run).
    pub fn new(dataset: Arc<Dataset>, config: LoaderConfig, first_step: u64) -> Result<Loader> {
        let n = dataset.len();
        if config.batch == 0 {
            return Err(Error::input("the batch size is 0; set it to 1 or more"));
        }
        if config.drop_last && config.batch > n {
            return Err(Error::input(format!(
                "the batch size {} is larger than the {n} slices of the split `{}`; lower it, or keep incomplete batches",
                config.batch,
                dataset.split().name()
            )));
        }
        let classes = if config.balance { dataset.classes()? } else { None };
        let maker = Maker { dataset, config, classes: classes.map(Arc::new), order: [None, None] };
        let (mut lanes, mut threads) = (Vec::new(), Vec::new());
        for i in 0..config.workers {
            let (sender, receiver) = sync_channel(1);
            let mut maker = maker.clone();
            let step = first_step + i as u64;
            let body = move || maker.work(step, config.workers as u64, &sender);
            let thread = std::thread::Builder::new().name(format!("loader-{i}")).spawn(body);
            threads.push(thread.map_err(|e| {
                Error::input(format!("cannot start a loader thread ({e}); lower the number of workers"))
            })?);
            lanes.push(receiver);
        }
        Ok(Loader { maker, next_step: first_step, lanes, threads, turn: 0 })
    }

    /// Steps in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.maker.steps_per_epoch()
    }

    /// The step that the next batch belongs to.
    pub fn next_step(&self) -> u64 {
        self.next_step
    }

    /// The next batch. Not an [`Iterator`]: there is always one more, and reading may fail.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Batch> {
        let batch = if self.lanes.is_empty() {
            self.maker.batch(self.next_step)?
        } else {
            let lane = &self.lanes[self.turn];
            self.turn = (self.turn + 1) % self.lanes.len();
            lane.recv().map_err(|_| {
                Error::input(
                    "a loader thread stopped after an earlier error; correct that one and start again",
                )
            })??
        };
        self.next_step += 1;
        Ok(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // With the receivers gone every worker's next send fails, and it returns.
        self.lanes.clear();
        for t in self.threads.drain(..) {
            // A worker's panic has been printed; there is nobody left to tell.
            let _ = t.join();
        }
    }
}

/// Makes the batch of any step.
#[derive(Clone)]
struct Maker {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    /// The class of each sample, where they are balanced.
    classes: Option<Arc<Vec<usize>>>,
    /// The last epoch's order, of inputs and of unpaired targets.
    order: [Option<(u64, Vec<u32>)>; 2],
}

impl Maker {
    fn work(&mut self, mut step: u64, stride: u64, sender: &SyncSender<Result<Batch>>) {
        loop {
            let batch = self.batch(step);
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
            step += stride;
        }
    }

    fn steps_per_epoch(&self) -> u64 {
        let (n, b) = (self.dataset.len(), self.config.batch);
        (if self.config.drop_last { n / b } else { n.div_ceil(b) }) as u64
    }

    /// Inputs that an epoch takes.
    fn inputs_per_epoch(&self) -> u64 {
        let (n, b) = (self.dataset.len(), self.config.batch);
        if self.config.drop_last { (n / b * b) as u64 } else { n as u64 }
    }

    fn batch(&mut self, step: u64) -> Result<Batch> {
        let per_epoch = self.steps_per_epoch();
        let (epoch, within) = (step / per_epoch, (step % per_epoch) as usize);
        let from = within * self.config.batch;
        let n = self.config.batch.min(self.dataset.len() - from);
        let (mut si, mut st) = (self.dataset.input_shape(), self.dataset.target_shape());
        let patch = self.dataset.config().patch;
        let answers = self.dataset.config().answers().is_some();
        if let Some([d, h, w]) = patch {
            // Slices below each other: mirroring the columns is the same in both.
            si = [d * h, w, si[2]];
            if !answers {
                st = [d * h, w, st[2]];
            }
        }
        let (ni, nt) = (si.iter().product::<usize>(), st.iter().product::<usize>());
        let mut batch = Batch {
            step,
            input: vec![0.0; n * ni],
            target: vec![0.0; n * nt],
            input_shape: [n, si[0], si[1], si[2]],
            target_shape: [n, st[0], st[1], st[2]],
            ids: Vec::with_capacity(n),
        };
        let labels = self.dataset.config().target_normalisation().method == Method::None;
        let target_between = if labels { Interpolation::Nearest } else { Interpolation::Linear };
        let seed = self.config.seed ^ stream_id("loader/augment");
        for i in 0..n {
            let index = self.at(0, epoch, from + i);
            let (x, y) = (&mut batch.input[i * ni..(i + 1) * ni], &mut batch.target[i * nt..(i + 1) * nt]);
            batch.ids.push(self.dataset.sample_name(index));
            let mut rng = Philox::new(seed, step << 16 | i as u64);
            match patch {
                Some(patch) => self.dataset.read_patch(index, patch, &mut rng, x, y)?,
                None => self.dataset.read(index, x, y)?,
            }
            let drawn = Drawn::new(&self.config.augment, &mut rng);
            let mut drawn_target = drawn;
            if self.config.unpaired {
                let dataset = self.dataset.clone();
                match dataset.others() {
                    Some(others) => {
                        // Of another number: an epoch of the inputs is none of theirs.
                        let place = epoch * self.inputs_per_epoch() + (from + i) as u64;
                        let (n, turn) = (others.len(), place / others.len() as u64);
                        let other = self.place(1, turn, (place % n as u64) as usize, n);
                        others.read(other, y, &mut [])?;
                    }
                    None => {
                        let other = self.at(1, epoch, from + i);
                        let mut unused = vec![0.0; ni];
                        self.dataset.read(other, &mut unused, y)?;
                    }
                }
                drawn_target = Drawn::new(&self.config.augment, &mut rng);
            }
            drawn.geometry(x, si, Interpolation::Linear);
            if !answers {
                drawn_target.geometry(y, st, target_between);
            }
            drawn.intensity(x, &mut rng);
        }
        Ok(batch)
    }

    /// The sample at a position of an epoch's order. `which`: 0 inputs, 1 unpaired targets.
    fn at(&mut self, which: usize, epoch: u64, position: usize) -> usize {
        let n = self.dataset.len();
        self.place(which, epoch, position, n)
    }

    /// The same, among `n` samples.
    fn place(&mut self, which: usize, epoch: u64, position: usize, n: usize) -> usize {
        if !self.config.shuffle && which == 0 {
            return position;
        }
        if self.order[which].as_ref().is_none_or(|(e, _)| *e != epoch) {
            let name = ["loader/order", "loader/unpaired"][which];
            let mut rng = Philox::new(self.config.seed ^ stream_id(name), epoch);
            let mut order: Vec<u32> = match self.classes.as_ref().filter(|_| which == 0) {
                Some(classes) => balanced(classes, &mut rng),
                None => (0..n as u32).collect(),
            };
            rng.shuffle(&mut order);
            self.order[which] = Some((epoch, order));
        }
        self.order[which].as_ref().map_or(position, |(_, o)| o[position] as usize)
    }
}

/// As many samples as there are, equally many of each class that has any (but for a remainder): of large ones some, of small
/// ones all, again and again.
fn balanced(classes: &[usize], rng: &mut Philox) -> Vec<u32> {
    let count = classes.iter().max().map_or(0, |most| most + 1);
    let mut own: Vec<Vec<u32>> = vec![Vec::new(); count];
    for (i, &class) in classes.iter().enumerate() {
        own[class].push(i as u32);
    }
    own.retain(|list| !list.is_empty());
    own.iter_mut().for_each(|list| rng.shuffle(list));
    let turn = |i: usize| {
        let list = &own[i % own.len()];
        list[i / own.len() % list.len()]
    };
    (0..classes.len()).map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_classes_are_drawn_as_often_as_others() {
        let classes: Vec<usize> = (0..90).map(|i| if i % 9 == 0 { 2 } else { 0 }).collect();
        let order = balanced(&classes, &mut Philox::new(1, 0));
        assert_eq!(order.len(), 90);
        let rare = order.iter().filter(|i| classes[**i as usize] == 2).count();
        assert_eq!(rare, 45);
        // Each of the ten rare ones four or five times, of the others none twice.
        let times = |i: u32| order.iter().filter(|o| **o == i).count();
        assert!((0..90).all(|i| if i % 9 == 0 { (4..=5).contains(&times(i)) } else { times(i) <= 1 }));
    }
}
