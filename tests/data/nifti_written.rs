//! Writing: what other readers and our own see in our files.

use crate::{message, test_data};
use gan::data::affine::Affine;
use gan::data::nifti_io::{Frame, LoadOptions, NanPolicy, Stored, Volume, inspect};
use nifti::{InMemNiftiObject, IntoNdArray, NiftiHeader, NiftiObject, ReaderOptions};
use std::fs;

fn ramp(dims: [usize; 3]) -> Vec<f32> {
    (0..dims.iter().product()).map(|i| i as f32 * 0.37 - 5.0).collect()
}

#[test]
fn another_reader_sees_the_same_voxels_and_geometry() {
    let tmp = tempfile::tempdir().unwrap();
    let dims = [3, 4, 5];
    let v = Volume::new(dims, Affine::centred(dims, [1.0, 2.0, 3.0]), ramp(dims)).unwrap();
    for name in ["a.nii", "a.nii.gz"] {
        let path = tmp.path().join(name);
        v.save(&path).unwrap();
        let object: InMemNiftiObject = ReaderOptions::new().read_file(&path).unwrap();
        let h = object.header().clone();
        assert_eq!((h.datatype, h.bitpix, h.scl_slope, h.scl_inter), (16, 32, 1.0, 0.0));
        assert_eq!((h.qform_code, h.sform_code, h.xyzt_units), (1, 1, 2));
        assert_eq!((h.srow_y, h.quatern_y, h.pixdim[0]), ([0.0, 2.0, 0.0, -3.0], -3.0, 1.0));
        let array = object.into_volume().into_ndarray::<f32>().unwrap();
        for (at, want) in v.voxels.iter().enumerate() {
            assert_eq!(array[[at % 3, at / 3 % 4, at / 12]], *want);
        }
    }
}

#[test]
fn the_reference_header_survives_to_the_byte() {
    let Some(folder) = test_data() else { return };
    let tmp = tempfile::tempdir().unwrap();
    for name in [
        "spine/sct-testing/mt0.nii.gz",
        "loader-cases/nibabel/anatomical.nii",
        "loader-cases/niivue-orientations/AIL.nii.gz",
        "loader-cases/nifti-rs/minimal.hdr",
        "brain-tumour/pyradiomics-brain1/brain1_seg.nii.gz",
        "loader-cases/nibabel/example_nifti2.nii.gz",
    ] {
        let input = folder.join(name);
        let one = LoadOptions { frame: Frame::Index(0), ..Default::default() };
        let reference = Volume::load_with(&input, one).unwrap();
        let out = tmp.path().join("case.01.nii");
        let voxels = ramp(reference.dims);
        Volume::like(&reference, voxels.clone()).save(&out).unwrap();
        let back = Volume::load(&out).unwrap();
        assert_eq!(back.voxels, voxels, "{name}");
        let (a, b) = (&reference.header, &back.header);
        assert_eq!((b.stored_name(), b.slope, b.inter), ("float32", 1.0, 0.0), "{name}");
        assert_eq!((a.affine, a.qform_code, a.sform_code), (b.affine, b.qform_code, b.sform_code), "{name}");
        assert_eq!(
            (a.endian, a.version(), &a.pixdim[..3]),
            (b.endian, b.version(), &b.pixdim[..3]),
            "{name}"
        );
        // pixdim (qfac first) up to vox_offset, and qform_code up to the end of sform: unchanged bytes.
        if a.version() == 1 && !name.ends_with(".gz") {
            let (x, y) = (fs::read(&input).unwrap(), fs::read(&out).unwrap());
            for range in [76..108, 123..124, 148..328] {
                assert_eq!(x[range.clone()], y[range], "{name}");
            }
        }
        if a.version() == 1 {
            // The nifti crate agrees that this is a valid header.
            assert_eq!(
                NiftiHeader::from_file(&out).unwrap().dim().unwrap(),
                reference.dims.map(|d| d as u16)
            );
        }
    }
    // Names with several dots stay as they are.
    let left: Vec<_> = fs::read_dir(tmp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["case.01.nii"]);
}

#[test]
fn integers_are_stored_with_their_scale() {
    let tmp = tempfile::tempdir().unwrap();
    let dims = [2, 2, 2];
    let values = vec![0.0, 0.5, 1.0, 1.5, -0.5, 4.0, 255.0, 300.0];
    let v = Volume::new(dims, Affine::centred(dims, [1.0; 3]), values.clone()).unwrap();
    let path = tmp.path().join("i.nii.gz");
    v.save_as(&path, Stored::Int16 { slope: 0.5 }).unwrap();
    assert_eq!(Volume::load(&path).unwrap().voxels, values);
    assert_eq!(inspect(&path).unwrap().stored_name(), "int16");
    v.save_as(&path, Stored::Uint8).unwrap();
    assert_eq!(Volume::load(&path).unwrap().voxels, [0.0, 1.0, 1.0, 2.0, 0.0, 4.0, 255.0, 255.0]);
}

#[test]
fn holes_in_the_data_are_counted_and_can_be_filled() {
    let tmp = tempfile::tempdir().unwrap();
    let dims = [2, 2, 2];
    let mut values = vec![1.0; 8];
    values[3] = f32::NAN;
    values[5] = f32::INFINITY;
    let path = tmp.path().join("holes.nii");
    Volume::new(dims, Affine::centred(dims, [1.0; 3]), values).unwrap().save(&path).unwrap();
    let m = message(Volume::load_with(&path, LoadOptions { recipe: true, ..Default::default() }));
    assert!(m.contains("holes.nii") && m.contains("2 voxels") && m.contains("nan = \"zero\""), "{m}");
    let v = Volume::load_with(&path, LoadOptions { nan: NanPolicy::Zero, ..Default::default() }).unwrap();
    assert_eq!(v.voxels, [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
}

/// A NaN slope means "no scaling"; a sound slope with a NaN intercept is refused.
#[test]
fn a_slope_that_is_no_number_scales_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let dims = [2, 1, 1];
    let path = tmp.path().join("slope.nii");
    Volume::new(dims, Affine::centred(dims, [1.0; 3]), vec![3.0, 4.0]).unwrap().save(&path).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[112..116].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert_eq!(Volume::load(&path).unwrap().voxels, [3.0, 4.0]);
    bytes[112..116].copy_from_slice(&2f32.to_le_bytes());
    bytes[116..120].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert!(message(Volume::load(&path)).contains("scl_inter"));
}

#[test]
fn names_that_are_no_volume_are_refused() {
    let dims = [2, 2, 2];
    let v = Volume::new(dims, Affine::centred(dims, [1.0; 3]), ramp(dims)).unwrap();
    let m = message(v.save("out.png"));
    assert!(m.contains("out.png") && m.contains(".nii.gz"), "{m}");
    assert!(message(v.save("/no/such/folder/out.nii")).contains("/no/such/folder/out.nii"));
}

/// nibabel sees the geometry of the reference in what we write. Needs a Python with nibabel, named by GAN_PYTHON.
#[test]
fn nibabel_agrees() {
    let Some(folder) = test_data() else { return };
    let Some(python) = std::env::var_os("GAN_PYTHON") else {
        eprintln!("skipped: set GAN_PYTHON to a Python that has nibabel");
        return;
    };
    let tmp = tempfile::tempdir().unwrap();
    let mut arguments = Vec::new();
    for (i, name) in [
        "spine/sct-testing/mt0.nii.gz",
        "loader-cases/nibabel/anatomical.nii",
        "loader-cases/nibabel/standard.nii.gz",
        "loader-cases/niivue-orientations/SPR.nii.gz",
        "loader-cases/nifti-rs/minimal.hdr",
        "brain-tumour/tcga-fg-6692/tcga-fg-6692_t1.nii.gz",
        "loader-cases/nibabel/example_nifti2.nii.gz",
        "loader-cases/nibabel/example4d.nii.gz",
    ]
    .iter()
    .enumerate()
    {
        let frame = LoadOptions { frame: Frame::Index(0), ..Default::default() };
        let reference = Volume::load_with(folder.join(name), frame).unwrap();
        let out = tmp.path().join(if i % 2 == 0 { format!("{i}.nii.gz") } else { format!("{i}.nii") });
        Volume::like(&reference, ramp(reference.dims)).save(&out).unwrap();
        arguments.extend([folder.join(name), out]);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/check_nifti.py");
    let run =
        |a: &[std::path::PathBuf]| std::process::Command::new(&python).arg(script).args(a).output().unwrap();
    let done = run(&arguments);
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}");
    // The check itself can fail.
    assert!(!run(&[arguments[0].clone(), arguments[3].clone()]).status.success());
}
