//! Predictions as files: what an independent reader sees, and images of any orientation.

#![allow(missing_docs)]

mod common;

use common::{gan, python, test_data, workshop};
use gan::data::Volume;
use gan::data::orient::Orientation;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Checks pairs of (input, prediction) with nibabel.
#[track_caller]
fn nibabel_agrees(pairs: &[(PathBuf, PathBuf)]) {
    let Some(python) = python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/check_nifti.py");
    let files = pairs.iter().flat_map(|(a, b)| [a, b]);
    let out = Command::new(python).arg(script).args(files).output().expect("Python runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(text.matches("agrees with").count(), pairs.len(), "{text}");
}

#[test]
fn phantom_predictions_have_the_geometry_of_their_inputs() {
    let dir = workshop();
    let dir = dir.path();
    gan(dir, &["train", "r.toml", "--out", "run", "--steps", "6", "--quiet"]).ok();
    let ids = ["sub-0005", "sub-0006"];
    let inputs = ids.map(|id| format!("ph/{id}/anat/{id}_T1w.nii.gz"));
    let out = gan(dir, &["predict", "run", &inputs[0], &inputs[1], "--out", "predicted"]).ok();
    let outputs = ids.map(|id| format!("predicted/{id}_desc-synth_pet.nii.gz"));
    assert_eq!(out.stdout.lines().collect::<Vec<_>>(), outputs);
    for (input, output) in inputs.iter().zip(&outputs) {
        let (a, b) = (Volume::load(dir.join(input)).unwrap(), Volume::load(dir.join(output)).unwrap());
        assert_eq!((a.dims, a.affine()), (b.dims, b.affine()));
        assert_eq!((a.header.qform_code, a.header.sform_code), (b.header.qform_code, b.header.sform_code));
        assert_eq!(b.header.stored_name(), "float32");
    }
    nibabel_agrees(&[0, 1].map(|i| (dir.join(&inputs[i]), dir.join(&outputs[i]))));
    gan(dir, &["evaluate", "run"]).ok();
}

/// The same brain, stored in six orientations, is predicted to be the same: bit for bit, place by place.
#[test]
fn orientation_does_not_matter() {
    let Some(data) = test_data() else { return };
    let dir = workshop();
    let dir = dir.path();
    gan(dir, &["train", "r.toml", "--out", "run", "--steps", "6", "--quiet"]).ok();
    let names = ["RAS", "AIL", "LAS", "LPS", "PIR", "SPR"];
    let input = |n: &str| data.join(format!("loader-cases/niivue-orientations/{n}.nii.gz"));
    let inputs = names.map(|n| input(n).to_string_lossy().into_owned());
    let mut args = vec!["predict", "run", "--out", "predicted"];
    args.extend(inputs.iter().map(String::as_str));
    gan(dir, &args).ok();
    let output = |n: &str| dir.join(format!("predicted/{n}_desc-synth_pet.nii.gz"));
    let canonical = |n: &str| {
        let v = Volume::load(output(n)).unwrap();
        assert_eq!(v.axis_codes(), n);
        let o = Orientation::new(&v.affine(), v.dims);
        (o.to_canonical(&v.voxels), o.canonical_affine(&v.affine()), o.canonical_dims())
    };
    let (want, affine, dims) = canonical("RAS");
    let (low, high) = want.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    assert!(high > low, "the prediction is constant and proves nothing");
    for name in &names[1..] {
        let (voxels, there, extents) = canonical(name);
        assert!(extents == dims && there.distance(&affine, dims) < 1e-3, "{name} lies elsewhere");
        assert!(voxels == want, "{name} is predicted otherwise than RAS");
    }
    nibabel_agrees(&names.map(|n| (input(n), output(n))));
}

/// The recipe on real images that is shipped: twenty steps of it.
#[test]
fn real_images_from_end_to_end() {
    let Some(data) = test_data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let images = data.join("t1-t2-flair");
    let root = format!("data.root={}", images.display());
    let run = dir.path().join("run");
    let run = run.to_str().unwrap();
    let small = ["--set", "model.generator.ngf=4", "--set", "model.discriminator.ndf=4"];
    let mut args = vec!["train", "recipes/t1-to-t2.toml", "--set", &root, "--out", run, "--steps", "20"];
    args.extend(small);
    args.extend(["--set", "validate.every_epochs=0"]);
    let out = gan(crate_root, &args).ok();
    assert!(out.stderr.contains("the same subjects serve training, validation and test"), "{}", out.stderr);
    let t1 = images.join("cstar-stroke/T1.nii.gz");
    let predicted = dir.path().join("predicted");
    let args = ["predict", run, t1.to_str().unwrap(), "--out", predicted.to_str().unwrap()];
    gan(crate_root, &args).ok();
    let output = predicted.join("T1_desc-synth_t2.nii.gz");
    let (a, b) = (Volume::load(&t1).unwrap(), Volume::load(&output).unwrap());
    assert_eq!((a.dims, a.affine(), a.axis_codes()), (b.dims, b.affine(), b.axis_codes()));
    nibabel_agrees(&[(t1, output)]);
}

/// Two inputs and two targets: one file for each target.
#[test]
fn several_modalities_on_both_sides() {
    let dir = workshop();
    let dir = dir.path();
    let set = ["--set", "data.input=[\"t1\", \"flair\"]", "--set", "data.target=[\"pet\", \"t2\"]"];
    let mut args = vec!["train", "r.toml", "--out", "run", "--steps", "4", "--quiet"];
    args.extend(set);
    gan(dir, &args).ok();
    let files = ["ph/sub-0006/anat/sub-0006_T1w.nii.gz", "ph/sub-0006/anat/sub-0006_FLAIR.nii.gz"];
    let out = gan(dir, &["predict", "run", files[0], files[1], "--out", "p"]).ok();
    let made = ["p/sub-0006_desc-synth_pet.nii.gz", "p/sub-0006_desc-synth_t2.nii.gz"];
    assert_eq!(out.stdout.lines().collect::<Vec<_>>(), made);
    nibabel_agrees(&made.map(|m| (dir.join(files[0]), dir.join(m))));
}
