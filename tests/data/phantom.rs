//! The phantom: physics, determinism, files, and that its PET is worth learning.

use crate::message;
use gan::data::manifest::{Manifest, Split};
use gan::data::phantom::{MODALITIES, PhantomConfig, Subject, ensure, simulate};
use gan::data::{DataConfig, Dataset, OpenOptions, Volume};
use gan::evaluate::score::{apply_lookup, fit_lookup};
use std::fs;
use std::path::Path;

/// Coarse, so that it is quick.
fn small(dir: &Path) -> PhantomConfig {
    PhantomConfig {
        dir: dir.to_path_buf(),
        subjects: 8,
        size: [40, 48, 40],
        spacing: 4.5,
        ..Default::default()
    }
}

fn image<'a>(s: &'a Subject, name: &str) -> &'a [f32] {
    &s.images[MODALITIES.iter().position(|(n, _)| *n == name).unwrap()]
}

/// Mean of an image where a tissue fills the neighbourhood.
fn mean_in(s: &Subject, name: &str, tissue: f32, size: [usize; 3]) -> f64 {
    let (labels, values) = (image(s, "tissue"), image(s, name));
    let stride = [1, size[0], size[0] * size[1]];
    let pure = |at: usize| {
        stride.iter().all(|d| {
            at >= *d && at + d < labels.len() && labels[at - d] == tissue && labels[at + d] == tissue
        })
    };
    let all: Vec<f64> =
        (0..labels.len()).filter(|&i| labels[i] == tissue && pure(i)).map(|i| f64::from(values[i])).collect();
    assert!(all.len() >= 5, "tissue {tissue} fills {} voxels", all.len());
    all.iter().sum::<f64>() / all.len() as f64
}

#[test]
fn noise_free_images_have_the_contrasts_of_their_tissues() {
    let config = PhantomConfig {
        mr_noise: 0.0,
        bias: 0.0,
        tumours: 1.0,
        size: [64, 76, 64],
        spacing: 3.0,
        ..PhantomConfig::default()
    };
    let s = simulate(&config, 0);
    let ratio =
        |name: &str, a: f32, b: f32| mean_in(&s, name, a, config.size) / mean_in(&s, name, b, config.size);
    let (white, edema, enhancing) = (3.0, 10.0, 11.0);
    for (got, want) in [
        (ratio("t1ce", enhancing, white), 1.39),
        (ratio("flair", edema, white), 1.66),
        (ratio("flair", 1.0, white), 0.0),
    ] {
        assert!((got - want).abs() < 0.12, "{got} is not {want}");
    }
    assert!(ratio("mprage_7t", white, 4.0) > 1.5 && ratio("t2", 1.0, white) > 2.5);
    assert!((mean_in(&s, "t1", white, config.size) - mean_in(&s, "t2", white, config.size)).abs() < 30.0);
}

#[test]
fn a_subject_depends_on_seed_and_index_alone() {
    let config = small(Path::new(""));
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let one = pool(1).install(|| simulate(&config, 2));
    let four = pool(4).install(|| simulate(&config, 2));
    assert_eq!(one.images, four.images);
    // More subjects do not change the earlier ones.
    let more = simulate(&PhantomConfig { subjects: 30, ..config.clone() }, 2);
    assert_eq!(one.images, more.images);
    let differ = |other: &Subject| MODALITIES[..8].iter().all(|(n, _)| image(&one, n) != image(other, n));
    assert!(differ(&simulate(&config, 3)) && differ(&simulate(&PhantomConfig { seed: 2, ..config }, 2)));
}

#[test]
fn subjects_have_what_the_settings_ask_for() {
    let base = small(Path::new(""));
    let config = PhantomConfig { tumours: 0.5, hypometabolism: 0.25, ..base.clone() };
    let all: Vec<Subject> = (0..8).map(|i| simulate(&config, i)).collect();
    let with = |f: &dyn Fn(&Subject) -> bool| all.iter().filter(|s| f(s)).count();
    assert_eq!(with(&|s| s.tumour), 4);
    assert_eq!(with(&|s| s.hypometabolism), 2);
    for s in &all {
        let labels = image(s, "tumour");
        assert!(labels.iter().all(|v| [0.0, 1.0, 2.0, 4.0].contains(v)));
        let n = |l: f32| labels.iter().filter(|v| **v == l).count();
        assert_eq!(n(2.0) > 0 && n(4.0) > 0, s.tumour, "{}", s.id);
        // Every tissue of a head, in plausible amounts.
        let tissue = image(s, "tissue");
        let share = |t: f32| tissue.iter().filter(|v| **v == t).count() as f64 / tissue.len() as f64;
        for (t, low, high) in [(0.0, 0.3, 0.75), (1.0, 0.01, 0.15), (2.0, 0.05, 0.25), (3.0, 0.05, 0.25)] {
            assert!((low..high).contains(&share(t)), "{}: {} of tissue {t}", s.id, share(t));
        }
        // SUVR of grey matter about one; what is hidden makes the ceiling lower.
        assert!(image(s, "pet").iter().all(|v| (0.0..4.0).contains(v)));
    }
    let ceiling = |hidden: bool| {
        let e: Vec<f64> =
            all.iter().filter(|s| s.hypometabolism == hidden).map(|s| s.oracle_rmse[1]).collect();
        e.iter().sum::<f64>() / e.len() as f64
    };
    assert!(ceiling(true) > 1.05 * ceiling(false), "{} {}", ceiling(true), ceiling(false));
    // Without counting noise only hidden factors are left.
    let clean = simulate(&PhantomConfig { pet_counts: 0.0, ..config.clone() }, 0);
    assert!(clean.oracle_rmse[1] < 0.7 * all[0].oracle_rmse[1] && clean.oracle_rmse[1] > 0.0);
}

#[test]
fn files_are_written_once_and_found_again() {
    let tmp = tempfile::tempdir().unwrap();
    let config = PhantomConfig { subjects: 4, ..small(&tmp.path().join("phantom")) };
    // What a killed run leaves behind.
    let leftover = tmp.path().join(".phantom.partial-999999999");
    fs::create_dir(&leftover).unwrap();
    let made = ensure(&config).unwrap();
    assert!(made.generated && !leftover.exists());
    let manifest = Manifest::read(&made.manifest, &[1.0, 0.0, 0.0], 0).unwrap();
    assert_eq!(Split::ALL.map(|s| manifest.part(s).unwrap().len()), [2, 1, 1]);
    let file = config.dir.join("sub-0001/pet/sub-0001_trc-18FFDG_pet.nii.gz");
    let pet = Volume::load(&file).unwrap();
    assert_eq!((pet.dims, pet.axis_codes().as_str(), pet.spacing()), ([40, 48, 40], "RAS", [4.5; 3]));
    let stored = simulate(&PhantomConfig { dir: "".into(), ..config.clone() }, 0);
    let off = pet.voxels.iter().zip(image(&stored, "pet")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= 0.5 / 4096.0 + 1e-6, "{off}");
    for e in &manifest.entries {
        for (name, _) in MODALITIES {
            assert!(manifest.file(e, name).is_ok());
        }
    }
    let when = |p: &Path| fs::metadata(p).unwrap().modified().unwrap();
    let before = when(&file);
    let again = ensure(&config).unwrap();
    assert!(!again.generated && when(&file) == before);
    assert_eq!(again.summary.hash, made.summary.hash);
    let m = message(ensure(&PhantomConfig { pet_fwhm: 7.0, ..config.clone() }));
    assert!(m.contains("pet_fwhm: 5.5 there, 7.0 asked") && m.contains("delete it"), "{m}");
    assert!(
        message(ensure(&PhantomConfig { dir: tmp.path().into(), ..config.clone() }))
            .contains("is not a phantom")
    );
    // A folder without its marker, as if the marker had been lost, is not trusted.
    fs::remove_file(config.dir.join("phantom.json")).unwrap();
    assert!(message(ensure(&config)).contains("is not a phantom"));
}

#[test]
fn settings_out_of_range_are_named() {
    let base = PhantomConfig::default();
    for (config, key) in [
        (PhantomConfig { subjects: 0, ..base.clone() }, "subjects"),
        (PhantomConfig { size: [96, 96, 4], ..base.clone() }, "size"),
        (PhantomConfig { spacing: 0.0, ..base.clone() }, "spacing"),
        (PhantomConfig { tumours: 1.5, ..base.clone() }, "tumours"),
        (PhantomConfig { pet_counts: f64::NAN, ..base.clone() }, "pet_counts"),
        (PhantomConfig { split: [0.5, 0.5, 0.5], ..base.clone() }, "split"),
    ] {
        let m = message(config.check());
        assert!(m.contains(&format!("`{key}")), "{m}");
    }
    base.check().unwrap();
}

/// The best table from T1 to PET leaves most of what can be known unexplained: an all-knowing predictor is better by far
/// more than the 3 dB by which a network must beat the table.
#[test]
fn pet_is_no_function_of_t1_but_can_be_known() {
    let tmp = tempfile::tempdir().unwrap();
    let phantom = PhantomConfig { size: [64, 76, 64], spacing: 3.0, ..small(&tmp.path().join("p")) };
    let made = ensure(&phantom).unwrap();
    let config = DataConfig { phantom: Some(phantom), ..Default::default() };
    let train = Dataset::open(&config, Split::Train, None, OpenOptions::default()).unwrap();
    let test = Dataset::open(&config, Split::Test, Some(train.fit()), OpenOptions::default()).unwrap();
    let table = fit_lookup(&train).unwrap();
    let (mut sum, mut n) = (0.0, 0usize);
    for i in 0..test.cases() {
        let case = test.case(i).unwrap();
        let predicted = case.assemble(&apply_lookup(&table, &case).unwrap()).unwrap().remove(0);
        let truth = case.target_volume(0).unwrap();
        sum += predicted.voxels.iter().zip(&truth.voxels).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        n += truth.voxels.len();
    }
    let gap = 20.0 * ((sum / n as f64).sqrt() / made.summary.oracle_rmse_test).log10();
    assert!((10.0..25.0).contains(&gap), "the table is {gap:.1} dB below what can be known");
}
