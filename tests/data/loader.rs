//! The loader: batches are a function of data, seed and step alone.

use crate::message;
use gan::data::affine::Affine;
use gan::data::normalise::{Method, Normalisation, Scope};
use gan::data::{Augment, Batch, DataConfig, Dataset, Loader, LoaderConfig, OpenOptions, Split, Volume};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

/// Two subjects of seven slices of 4 x 4; the target is the input plus 1000.
fn dataset() -> Arc<Dataset> {
    let tmp = tempfile::tempdir().unwrap();
    let dims = [4, 4, 7];
    for (s, id) in ["a", "b"].into_iter().enumerate() {
        let voxels: Vec<f32> = (0..112).map(|i| (500 * s + i) as f32).collect();
        let plus: Vec<f32> = voxels.iter().map(|v| v + 1000.0).collect();
        for (name, v) in [("t1", voxels), ("pet", plus)] {
            let volume = Volume::new(dims, Affine::centred(dims, [1.0; 3]), v).unwrap();
            volume.save(tmp.path().join(format!("{id}_{name}.nii"))).unwrap();
        }
    }
    let csv = tmp.path().join("m.csv");
    fs::write(&csv, "subject,split,t1,pet\na,train,a_t1.nii,a_pet.nii\nb,train,b_t1.nii,b_pet.nii\n")
        .unwrap();
    let none = Normalisation { method: Method::None, scope: Scope::Dataset };
    let config = DataConfig {
        manifest: Some(csv),
        min_foreground: 0.0,
        normalise_input: none,
        normalise_target: none,
        ..Default::default()
    };
    let set = Dataset::open(&config, Split::Train, None, OpenOptions::default()).unwrap();
    assert_eq!(set.len(), 14);
    Arc::new(set)
}

fn take(set: &Arc<Dataset>, config: LoaderConfig, first: u64, n: usize) -> Vec<Batch> {
    let mut loader = Loader::new(set.clone(), config, first).unwrap();
    (0..n).map(|_| loader.next().unwrap()).collect()
}

const ALL: Augment = Augment { flip: 0.5, shift: 1.0, rotate: 10.0, zoom: 0.1, gain: 0.2, noise: 0.1 };

#[test]
fn workers_and_resuming_change_nothing() {
    let set = dataset();
    let config = |workers| LoaderConfig { batch: 3, seed: 9, workers, augment: ALL, ..Default::default() };
    let want = take(&set, config(0), 0, 30);
    for workers in [1, 2, 5] {
        assert_eq!(take(&set, config(workers), 0, 30), want, "{workers} workers");
        for first in [1, 4, 17] {
            assert_eq!(take(&set, config(workers), first, 30 - first as usize), want[first as usize..]);
        }
    }
    assert_ne!(take(&set, LoaderConfig { seed: 10, ..config(0) }, 0, 4), want[..4]);
    assert_eq!(want[7].step, 7);
}

#[test]
fn an_epoch_shows_every_slice_once_and_each_epoch_differs() {
    let set = dataset();
    let config =
        LoaderConfig { batch: 4, workers: 2, augment: Augment::NONE, drop_last: false, ..Default::default() };
    let loader = Loader::new(set.clone(), config, 0).unwrap();
    assert_eq!(loader.steps_per_epoch(), 4);
    drop(loader);
    let batches = take(&set, config, 0, 8);
    let epoch = |b: &[Batch]| b.iter().flat_map(|b| b.ids.clone()).collect::<Vec<_>>();
    let (first, second) = (epoch(&batches[..4]), epoch(&batches[4..]));
    assert_ne!(first, second);
    assert_eq!(batches[3].input_shape, [2, 4, 4, 1]);
    for e in [first, second] {
        assert_eq!(e.iter().collect::<BTreeSet<_>>().len(), 14);
    }
    // Without shuffling: the order of the data.
    let ordered = take(&set, LoaderConfig { shuffle: false, ..config }, 0, 1);
    assert_eq!(ordered[0].ids, ["a:0", "a:1", "a:2", "a:3"]);
    let dropped = LoaderConfig { drop_last: true, ..config };
    assert_eq!(Loader::new(set, dropped, 0).unwrap().steps_per_epoch(), 3);
}

#[test]
fn pairs_stay_pairs_under_augmentation_and_unpaired_do_not() {
    let set = dataset();
    // Geometry alone, with nearest-pixel targets (method `none`): flips keep pairs exact.
    let flip = Augment { flip: 0.5, ..Augment::NONE };
    let config = LoaderConfig { batch: 7, workers: 1, augment: flip, ..Default::default() };
    let batches = take(&set, config, 0, 4);
    let mirrored = |b: &Batch| b.input.chunks(16).filter(|s| s[0] < s[1]).count();
    let flips: usize = batches.iter().map(mirrored).sum();
    assert!((5..24).contains(&flips), "{flips} of 28 mirrored");
    for b in &batches {
        assert!(b.input.iter().zip(&b.target).all(|(x, y)| x + 1000.0 == *y));
    }
    let unpaired = take(&set, LoaderConfig { unpaired: true, ..config }, 0, 4);
    let paired = |b: &Batch| b.input.iter().zip(&b.target).filter(|(x, y)| **x + 1000.0 == **y).count();
    assert!(unpaired.iter().map(paired).sum::<usize>() < 28 * 16 / 2);
}

#[test]
fn dropping_a_loader_ends_its_threads() {
    let set = dataset();
    for taken in [0, 1, 5] {
        let mut loader =
            Loader::new(set.clone(), LoaderConfig { workers: 3, ..Default::default() }, 0).unwrap();
        (0..taken).for_each(|_| drop(loader.next().unwrap()));
        drop(loader);
        // Joined: nobody else holds the data set.
        assert_eq!(Arc::strong_count(&set), 1);
    }
}

#[test]
fn batches_that_cannot_be_are_refused() {
    let set = dataset();
    let with = |batch| Loader::new(set.clone(), LoaderConfig { batch, ..Default::default() }, 0).map(|_| ());
    let m = message(with(15));
    assert!(m.contains("15") && m.contains("14 slices"), "{m}");
    assert!(message(with(0)).contains("batch size is 0"));
}
