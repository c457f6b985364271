//! Reading: every file of the test data against what an independent reader saw, and files that are broken.

use crate::{message, test_data};
use gan::data::nifti_io::{Frame, LoadOptions, NanPolicy, Volume, inspect};
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Rows of expected.tsv as column name to cell.
fn expected(folder: &Path) -> Vec<HashMap<String, String>> {
    let text = fs::read_to_string(folder.join("expected.tsv")).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let row = |l: &str| names.iter().map(|n| n.to_string()).zip(l.split('\t').map(str::to_string)).collect();
    lines.map(row).collect()
}

fn close(got: f64, want: &str, what: &str) {
    let want: f64 = want.parse().unwrap_or_else(|_| panic!("{what}: {want}"));
    // Six significant digits are printed.
    let tolerance = 1e-5 * want.abs() + 1e-6;
    assert!((got - want).abs() <= tolerance, "{what}: {got}, not {want}");
}

#[test]
fn every_file_reads_as_the_reference_reader_saw_it() {
    let Some(folder) = test_data() else { return };
    let (mut read, mut refused) = (0, 0);
    for row in expected(&folder) {
        let file = row["file"].as_str();
        let path = folder.join(file);
        if row["kind"] == "DICOM" {
            continue;
        }
        if row["kind"].is_empty() {
            let m = message(Volume::load(&path));
            assert!(m.contains(path.file_name().unwrap().to_str().unwrap()), "{m}");
            refused += 1;
            continue;
        }
        let h = inspect(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
        let joined = |v: Vec<String>, by: &str| v.join(by);
        assert_eq!(joined(h.shape.iter().map(ToString::to_string).collect(), "x"), row["shape"], "{file}");
        for (got, want) in h.pixdim.iter().zip(row["spacing"].split(' ')) {
            close(*got, want, file);
        }
        assert_eq!(h.pixdim.len(), row["spacing"].split(' ').count(), "{file}");
        assert_eq!(h.stored_name(), row["dtype"], "{file}");
        assert_eq!(h.endian.name(), row["endian"], "{file}");
        assert_eq!(h.affine.axis_codes(), row["axcodes"], "{file}");
        assert_eq!(format!("{}/{}", h.qform_code, h.sform_code), row["qform/sform"], "{file}");
        assert_eq!(h.version(), if row["kind"] == "Nifti2Image" { 2 } else { 1 }, "{file}");
        close(h.slope, &row["slope"], file);
        close(h.inter, &row["inter"], file);
        let note = row["affine_or_note"].split(" (").next().unwrap();
        let want: Vec<&str> = note.split([',', ';']).collect();
        for (got, want) in h.affine.0.iter().flatten().zip(want) {
            close(*got, want, file);
        }
        let loaded = Volume::load_with(&path, LoadOptions { frame: Frame::All, ..Default::default() });
        if ["complex64", "complex128", "rgb24", "rgba32"].contains(&row["dtype"].as_str()) {
            let m = message(loaded);
            assert!(m.contains("complex") || m.contains("RGB"), "{m}");
            refused += 1;
            continue;
        }
        let v = loaded.unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(v.voxels.len(), h.shape.iter().product::<usize>(), "{file}");
        let all = || v.voxels.iter().map(|&x| f64::from(x));
        close(all().fold(f64::INFINITY, f64::min), &row["min"], file);
        close(all().fold(f64::NEG_INFINITY, f64::max), &row["max"], file);
        close(all().sum::<f64>() / v.voxels.len() as f64, &row["mean"], file);
        read += 1;
    }
    assert!(read >= 40 && refused >= 10, "{read} read, {refused} refused");
}

#[test]
fn four_dimensional_files_need_a_choice() {
    let Some(folder) = test_data() else { return };
    let path = folder.join("loader-cases/nibabel/functional.nii");
    let with = |frame| Volume::load_with(&path, LoadOptions { frame, recipe: true, ..Default::default() });
    let m = message(with(Frame::Only));
    assert!(m.contains("20 frames") && m.contains("frame = 19"), "{m}");
    let all = with(Frame::All).unwrap();
    let third = with(Frame::Index(3)).unwrap();
    let n = third.voxels.len();
    assert_eq!((third.frames, all.frames), (1, 20));
    assert_eq!(third.voxels, all.voxels[3 * n..4 * n]);
    assert!(message(with(Frame::Index(20))).contains("no frame 20"));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let Some(folder) = test_data() else { return };
    let tmp = tempfile::tempdir().unwrap();
    for name in [
        "loader-cases/nibabel/standard.nii.gz",
        "loader-cases/nibabel/anatomical.nii",
        "loader-cases/nibabel/example_nifti2.nii.gz",
        "loader-cases/niivue/low_res.nii.gz",
    ] {
        let whole = fs::read(folder.join(name)).unwrap();
        let cut = tmp.path().join(Path::new(name).file_name().unwrap());
        let step = (whole.len() / 150).max(1);
        for n in (0..whole.len()).step_by(step).chain(whole.len().saturating_sub(9)..whole.len()) {
            fs::write(&cut, &whole[..n]).unwrap();
            let r = Volume::load_with(&cut, LoadOptions { frame: Frame::All, ..Default::default() });
            let m = message(r);
            assert!(m.contains(cut.to_str().unwrap()), "{name} cut to {n}: {m}");
        }
        fs::write(&cut, &whole).unwrap();
        Volume::load_with(&cut, LoadOptions { frame: Frame::All, ..Default::default() }).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_compressed_voxels_is_found() {
    let Some(folder) = test_data() else { return };
    let tmp = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(folder.join("loader-cases/niivue-orientations/RAS.nii.gz")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let path = tmp.path().join("flipped.nii.gz");
    fs::write(&path, bytes).unwrap();
    assert!(message(Volume::load(&path)).contains("flipped.nii.gz"));
}

/// A header whose bytes are replaced at random must never panic, hang or take much memory.
#[test]
fn damaged_headers_never_crash() {
    let Some(folder) = test_data() else { return };
    let tmp = tempfile::tempdir().unwrap();
    let mut rng = gan::rng::Philox::new(5, 5);
    for name in ["loader-cases/nifti-rs/27/int16.nii", "loader-cases/nibabel/example_nifti2.nii.gz"] {
        let mut whole = Vec::new();
        let file = fs::File::open(folder.join(name)).unwrap();
        if name.ends_with(".gz") {
            flate2::read::GzDecoder::new(file).read_to_end(&mut whole).unwrap();
        } else {
            fs::File::read_to_end(&mut { file }, &mut whole).unwrap();
        }
        let header = if name.contains("nifti2") { 540 } else { 348 };
        let path = tmp.path().join("damaged.nii");
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + rng.below(4) {
                // The first four bytes decide whether it is NIfTI at all; leave them alone mostly.
                let at = if rng.below(20) == 0 { rng.below(4) } else { 4 + rng.below(header - 4) };
                bytes[at] = [0, 0xff, 0x80, 0x7f, rng.below(256) as u8][rng.below(5)];
            }
            fs::write(&path, &bytes).unwrap();
            let _ = inspect(&path);
            let _ = Volume::load_with(
                &path,
                LoadOptions { frame: Frame::All, nan: NanPolicy::Zero, ..Default::default() },
            );
        }
    }
}

#[test]
fn missing_foreign_and_lonely_files_are_named() {
    let tmp = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let p = tmp.path().join(name);
        fs::File::create(&p).unwrap().write_all(bytes).unwrap();
        p
    };
    let m = message(Volume::load(tmp.path().join("absent.nii.gz")));
    assert!(m.contains("absent.nii.gz") && m.contains("check the path"), "{m}");
    let m = message(Volume::load(write("picture.nii", &[0x89; 5000])));
    assert!(m.contains("not a NIfTI file") && m.contains("convert"), "{m}");
    let m = message(Volume::load(write("empty.nii", b"")));
    assert!(m.contains("ends inside its header"), "{m}");
    assert!(message(Volume::load(tmp.path())).contains("folder"));
    let Some(folder) = test_data() else { return };
    let m = message(Volume::load(folder.join("loader-cases/nibabel/nifti1.hdr")));
    assert!(m.contains("header alone") && m.contains("nifti1.img"), "{m}");
}

#[test]
fn a_pair_opens_by_either_name() {
    let Some(folder) = test_data() else { return };
    let at = |n: &str| Volume::load(folder.join("loader-cases/nifti-rs").join(n)).unwrap().voxels;
    for name in ["minimal.img", "minimal.hdr.gz", "minimal.img.gz", "minimal.nii"] {
        assert_eq!(at(name), at("minimal.hdr"), "{name}");
    }
}
