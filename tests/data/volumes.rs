//! Orientation, slices and whole cases on real files and on small made-up ones.

use crate::test_data;
use gan::data::affine::Affine;
use gan::data::normalise::{Method, Normalisation, Scope};
use gan::data::orient::{Orientation, Plane};
use gan::data::{Case, DataConfig, Dataset, OpenOptions, Split, Volume};
use std::fs;
use std::path::Path;

#[test]
fn the_six_orientations_are_one_image() {
    let Some(folder) = test_data() else { return };
    let load =
        |n: &str| Volume::load(folder.join(format!("loader-cases/niivue-orientations/{n}.nii.gz"))).unwrap();
    let want = load("RAS");
    for name in ["AIL", "LAS", "LPS", "PIR", "RAS", "SPR"] {
        let v = load(name);
        let o = Orientation::new(&v.affine(), v.dims);
        let canonical = o.to_canonical(&v.voxels);
        assert_eq!(o.canonical_dims(), want.dims, "{name}");
        assert!(canonical == want.voxels, "{name}");
        let apart = o.canonical_affine(&v.affine()).distance(&want.affine(), want.dims);
        assert!(apart < 1e-3, "{name} lies {apart} mm off");
        assert!(o.to_stored(&canonical) == v.voxels, "{name}");
    }
}

/// Writes a volume whose value says where a voxel is: 10000 x + 100 y + z in canonical coordinates.
fn write(path: &Path, affine: Affine, stored: [usize; 3], scale: f32) {
    let o = Orientation::new(&affine, stored);
    let [nx, ny, nz] = o.canonical_dims();
    let canonical: Vec<f32> = (0..nx * ny * nz)
        .map(|i| scale * (10_000 * (i % nx) + 100 * (i / nx % ny) + i / (nx * ny)) as f32)
        .collect();
    Volume::new(stored, affine, o.to_stored(&canonical)).unwrap().save(path).unwrap();
}

/// Two subjects in different orientations, with a target of twice the input.
fn two_subjects(folder: &Path) -> DataConfig {
    let las = Affine([[-2.0, 0.0, 0.0, 9.0], [0.0, 2.0, 0.0, -7.0], [0.0, 0.0, 3.0, 1.0]]);
    let pir = Affine([[0.0, 0.0, 2.0, -9.0], [-2.0, 0.0, 0.0, 7.0], [0.0, -3.0, 0.0, 8.0]]);
    for (id, affine, dims) in [("a", las, [5, 6, 4]), ("b", pir, [6, 4, 5])] {
        write(&folder.join(format!("{id}_t1.nii.gz")), affine, dims, 1.0);
        write(&folder.join(format!("{id}_pet.nii.gz")), affine, dims, 2.0);
    }
    fs::write(
        folder.join("manifest.csv"),
        "subject,split,t1,pet\na,train,a_t1.nii.gz,a_pet.nii.gz\nb,test,b_t1.nii.gz,b_pet.nii.gz\n",
    )
    .unwrap();
    let none = Normalisation { method: Method::None, scope: Scope::Dataset };
    DataConfig {
        manifest: Some(folder.join("manifest.csv")),
        min_foreground: 0.0,
        normalise_input: none,
        normalise_target: none,
        ..Default::default()
    }
}

#[test]
fn slices_come_in_display_order_on_a_padded_canvas() {
    let tmp = tempfile::tempdir().unwrap();
    let config = two_subjects(tmp.path());
    let set =
        Dataset::open(&config, Split::Train, None, OpenOptions { multiple: 4, need_target: true }).unwrap();
    // 5 x 6 x 4 voxels: axial slices of 6 rows and 5 columns, padded to 8 x 8.
    assert_eq!((set.len(), set.input_shape(), set.cases()), (4, [8, 8, 1], 1));
    let (mut x, mut y) = (vec![0.0; 64], vec![0.0; 64]);
    set.read(2, &mut x, &mut y).unwrap();
    // Rows front to back, columns right to left; one pixel of padding above and left.
    assert_eq!(x[8 + 1], 40_502.0);
    assert_eq!(x[8 + 2], 30_502.0);
    assert_eq!(x[2 * 8 + 1], 40_402.0);
    // Padding holds the volume's least value.
    assert_eq!((x[0], x[8 * 7], x[8 + 6]), (0.0, 0.0, 0.0));
    assert!(x.iter().zip(&y).all(|(a, b)| 2.0 * a == *b));
    assert_eq!(set.sample_name(2), "a:2");
    assert!(set.stats().contains("1 subjects, 4 of 4 Axial slices, 8 x 8, t1 -> pet"), "{}", set.stats());
}

#[test]
fn a_case_put_together_again_is_the_file() {
    let tmp = tempfile::tempdir().unwrap();
    let base = two_subjects(tmp.path());
    for plane in [Plane::Axial, Plane::Coronal, Plane::Sagittal] {
        for method in [Method::None, Method::Minmax, Method::Zscore] {
            let normalise_target = Normalisation { method, scope: Scope::Dataset };
            let config = DataConfig { plane, normalise_target, ..base.clone() };
            let options = OpenOptions { multiple: 4, need_target: true };
            let train = Dataset::open(&config, Split::Train, None, options).unwrap();
            let test = Dataset::open(&config, Split::Test, Some(train.fit()), options).unwrap();
            let case = test.case(0).unwrap();
            let out = case.assemble(case.target.as_ref().unwrap()).unwrap().remove(0);
            let file = Volume::load(tmp.path().join("b_pet.nii.gz")).unwrap();
            assert_eq!(out.header.affine, file.header.affine);
            assert_eq!(out.axis_codes(), "PIR");
            let worst = out.voxels.iter().zip(&file.voxels).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 0.02, "{plane:?} {method:?}: {worst}");
            assert_eq!(case.target_volume(0).unwrap().voxels, file.voxels);
        }
    }
}

#[test]
fn prediction_needs_no_target_and_yields_target_units() {
    let tmp = tempfile::tempdir().unwrap();
    let normalise_target =
        Normalisation { method: Method::Fixed { low: 0.0, high: 200.0 }, scope: Scope::Dataset };
    let config = DataConfig { normalise_target, ..two_subjects(tmp.path()) };
    let train = Dataset::open(&config, Split::Train, None, OpenOptions::default()).unwrap();
    fs::remove_file(tmp.path().join("b_pet.nii.gz")).unwrap();
    let m = crate::message(Dataset::open(&config, Split::Test, Some(train.fit()), OpenOptions::default()));
    assert!(m.contains("b_pet.nii.gz") && m.contains("subject b"), "{m}");
    let options = OpenOptions { need_target: false, ..Default::default() };
    let test = Dataset::open(&config, Split::Test, Some(train.fit()), options).unwrap();
    let from_set = test.case(0).unwrap();
    let from_file = Case::open(&[tmp.path().join("b_t1.nii.gz")], &config, train.fit()).unwrap();
    assert!(from_set.target.is_none() && from_set.input == from_file.input);
    let zeros = vec![0.0; from_file.target_shape.iter().product()];
    let out = from_file.assemble(&zeros).unwrap().remove(0);
    assert!(out.voxels.iter().all(|v| *v == 100.0));
    assert!(crate::message(from_file.assemble(&zeros[1..])).contains("output"));
    assert!(crate::message(Case::open(&[], &config, train.fit())).contains("t1"));
}

#[test]
fn a_small_canvas_crops_the_middle_and_keeps_the_geometry() {
    let tmp = tempfile::tempdir().unwrap();
    let config = DataConfig { canvas: Some([4, 3]), ..two_subjects(tmp.path()) };
    let set = Dataset::open(&config, Split::Train, None, OpenOptions::default()).unwrap();
    let case = set.case(0).unwrap();
    let out = case.assemble(case.target.as_ref().unwrap()).unwrap().remove(0);
    let file = Volume::load(tmp.path().join("a_pet.nii.gz")).unwrap();
    let kept = out.voxels.iter().zip(&file.voxels).filter(|(a, b)| a == b).count();
    assert_eq!(kept, 4 * 3 * 4);
    assert!(out.voxels.iter().zip(&file.voxels).all(|(a, b)| a == b || *a == -1.0));
    // To predict, the canvas grows.
    assert!(case.is_cropped());
    let whole = case.uncropped(4);
    assert_eq!((whole.is_cropped(), whole.input_shape), (false, [4, 8, 8, 1]));
    let out = whole.assemble(whole.target.as_ref().unwrap()).unwrap().remove(0);
    assert_eq!(out.voxels, file.voxels);
    assert_eq!(whole.uncropped(16).input_shape, [4, 8, 8, 1]);
}

/// The memory limit changes nothing but time.
#[test]
fn a_cache_too_small_for_a_case_still_works() {
    let tmp = tempfile::tempdir().unwrap();
    let config = two_subjects(tmp.path());
    let read = |cache_mb| {
        let config = DataConfig { cache_mb, ..config.clone() };
        let set = Dataset::open(&config, Split::Train, None, OpenOptions::default()).unwrap();
        let n = set.input_shape().iter().product();
        let (mut x, mut y) = (vec![0.0; n], vec![0.0; n]);
        set.read(1, &mut x, &mut y).unwrap();
        (x, y)
    };
    assert_eq!(read(0), read(1024));
}

/// A real case, found by pattern: two sequences in, one out, stored LPS.
#[test]
fn a_real_case_goes_through_and_comes_back() {
    let Some(folder) = test_data() else { return };
    let pattern = folder.join("brain-tumour/{subject}/{subject}_{modality}.nii.gz");
    let config = DataConfig {
        pattern: Some(pattern.to_string_lossy().into_owned()),
        input: vec!["t1".into(), "t2".into()],
        target: vec!["flair".into()],
        split: [1.0, 0.0, 0.0],
        plane: Plane::Coronal,
        ..Default::default()
    };
    let set =
        Dataset::open(&config, Split::Train, None, OpenOptions { multiple: 16, need_target: true }).unwrap();
    assert_eq!((set.cases(), set.case_id(0)), (1, "tcga-fg-6692"));
    assert_eq!((set.input_shape(), set.target_shape()), ([160, 240, 2], [160, 240, 1]));
    // Empty slices at both ends are skipped, the brain's are not.
    assert!((120..220).contains(&set.len()), "{}", set.stats());
    let case = set.case(0).unwrap();
    let out = case.assemble(case.target.as_ref().unwrap()).unwrap().remove(0);
    let file = Volume::load(folder.join("brain-tumour/tcga-fg-6692/tcga-fg-6692_flair.nii.gz")).unwrap();
    let worst = out.voxels.iter().zip(&file.voxels).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "{worst}");
    assert_eq!((out.axis_codes().as_str(), out.affine()), ("LPS", file.affine()));
}

/// Two programs wrote the images of one case with their axes in different orders: the grid is one, and so is the case.
#[test]
fn a_pair_on_one_grid_may_be_stored_in_different_orders() {
    let tmp = tempfile::tempdir().unwrap();
    let config = two_subjects(tmp.path());
    let las = Affine([[-2.0, 0.0, 0.0, 9.0], [0.0, 2.0, 0.0, -7.0], [0.0, 0.0, 3.0, 1.0]]);
    let o = Orientation::new(&las, [5, 6, 4]);
    let ras = o.canonical_affine(&las);
    // The same places, from the top down, y before x.
    let (from, flip) = ([1, 0, 2], [false, false, true]);
    let other = ras.permuted(from, flip, o.canonical_dims());
    write(&tmp.path().join("a_pet.nii.gz"), other, [6, 5, 4], 2.0);
    let set = Dataset::open(&config, Split::Train, None, OpenOptions::default()).unwrap();
    let case = set.case(0).unwrap();
    let target = case.target.as_ref().unwrap();
    assert!(case.input.iter().zip(target).all(|(x, y)| 2.0 * x == *y));
    assert!(case.input.iter().any(|x| *x > 0.0));
    // What comes out has the geometry of the first input.
    let back = case.target_volume(0).unwrap();
    assert_eq!(back.dims, [5, 6, 4]);
    assert!(back.affine().distance(&las, back.dims) < 1e-9);
    let notes = set.notes().lines().join("\n");
    assert!(notes.contains("another order of axes") && notes.contains("a_pet.nii.gz"), "{notes}");
    // A grid that lies elsewhere is refused as ever.
    let mut apart = other;
    apart.0[2][3] += 3.0;
    write(&tmp.path().join("a_pet.nii.gz"), apart, [6, 5, 4], 2.0);
    let m = crate::message(Dataset::open(&config, Split::Train, None, OpenOptions::default()));
    assert!(m.contains("3.000 mm") && m.contains("a_pet.nii.gz"), "{m}");
}
