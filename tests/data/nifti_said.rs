//! What files say: units, values that are none, padding behind gzip, pairs in any spelling, two dimensions, frames.

use crate::{common, message};
use flate2::Compression;
use flate2::write::GzEncoder;
use gan::data::nifti_io::{Frame, LoadOptions, NanPolicy, Stored, Volume, inspect, statistics};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut z = GzEncoder::new(Vec::new(), Compression::fast());
    z.write_all(bytes).unwrap();
    z.finish().unwrap()
}

/// A file of 4 x 3 x 2 voxels 0, 1, 2, ... of 2 mm.
fn plain() -> Vec<u8> {
    common::nifti(&[4, 3, 2], 5.0, |i| i as f32)
}

fn patched(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// A file whose voxels are float64.
fn doubles(dims: &[u16], value: impl Fn(usize) -> f64) -> Vec<u8> {
    let mut file = common::nifti(dims, 0.0, |_| 0.0)[..352].to_vec();
    file[70..72].copy_from_slice(&64i16.to_le_bytes());
    file[72..74].copy_from_slice(&64i16.to_le_bytes());
    let count = dims.iter().map(|d| usize::from(*d)).product();
    file.extend((0..count).flat_map(|i| value(i).to_le_bytes()));
    file
}

#[test]
fn lengths_are_read_in_the_units_of_the_file() {
    let dir = Folder::new();
    let of = |code: u8| dir.write(&format!("{code}.nii"), &patched(plain(), 123, &[code]));
    // Code 10 is mm with seconds, 0 is none, 5 is none that there is.
    for (code, mm, note) in [
        (2, 1.0, None),
        (10, 1.0, None),
        (1, 1e3, Some("metres")),
        (3, 1e-3, Some("microns")),
        (0, 1.0, Some("without a unit")),
        (5, 1.0, Some("without a unit")),
    ] {
        let v = Volume::load(of(code)).unwrap();
        assert_eq!(v.spacing(), [2.0 * mm; 3], "{code}");
        assert_eq!((v.affine().0[0][3], v.header.pixdim.clone()), (5.0 * mm, vec![2.0 * mm; 3]), "{code}");
        assert_eq!(
            v.notes.iter().any(|n| note.is_some_and(|w| n.contains(w))),
            note.is_some(),
            "{:?}",
            v.notes
        );
        assert_eq!(v.notes.len(), usize::from(note.is_some()), "{:?}", v.notes);
        // What is written has the file's own numbers and unit.
        let out = dir.0.path().join("out.nii");
        Volume::like(&v, v.voxels.clone()).save(&out).unwrap();
        let bytes = fs::read(&out).unwrap();
        assert_eq!((bytes[123], &bytes[280..296]), (code, &plain()[280..296]), "{code}");
        assert_eq!(inspect(&out).unwrap().affine, v.affine(), "{code}");
    }
    // NIfTI-2 has them elsewhere; and a qform is converted as an sform is.
    let qform =
        patched(patched(patched(plain(), 123, &[1]), 252, &1i16.to_le_bytes()), 254, &0i16.to_le_bytes());
    assert_eq!(Volume::load(dir.write("q.nii", &qform)).unwrap().spacing(), [2000.0; 3]);
    // Neither form: the spacing alone.
    let none = patched(patched(plain(), 123, &[3]), 254, &0i16.to_le_bytes());
    let v = Volume::load(dir.write("n.nii", &none)).unwrap();
    assert_eq!((v.spacing(), v.affine().0[1][3]), ([0.002; 3], -0.002));
}

#[test]
fn values_that_are_none_are_counted_and_no_part_of_range_and_mean() {
    let dir = Folder::new();
    let holes = dir.write(
        "holes.nii",
        &common::nifti(&[8, 8, 8], 0.0, |i| match i {
            0..8 => f32::NAN,
            511 => f32::INFINITY,
            _ if i % 8 < 4 => 120.0,
            _ => 150.0,
        }),
    );
    let s = statistics(&holes).unwrap();
    assert_eq!((s.voxels, s.nan, s.infinite, s.range), (512, 8, 1, Some([120.0, 150.0])));
    // 252 of 120 and 251 of 150.
    assert_eq!(s.mean, (252.0 * 120.0 + 251.0 * 150.0) / 503.0);
    assert!(message(Volume::load(&holes)).contains("9 voxels that are NaN or infinite"));
    let zero = LoadOptions { nan: NanPolicy::Zero, ..Default::default() };
    let v = Volume::load_with(&holes, zero).unwrap();
    assert!(
        v.voxels[0] == 0.0 && v.notes.iter().any(|n| n.contains("read as 0 (`data.nan`)")),
        "{:?}",
        v.notes
    );
    let none = statistics(dir.write("none.nii", &common::nifti(&[2, 2, 2], 0.0, |_| f32::NAN))).unwrap();
    assert!(none.range.is_none() && none.mean.is_nan() && none.nan == 8);
}

#[test]
fn what_float32_cannot_hold_is_refused() {
    let dir = Folder::new();
    let huge = dir.write("huge.nii", &doubles(&[4, 4, 4], |_| 1e300));
    let zero = LoadOptions { nan: NanPolicy::Zero, ..Default::default() };
    let m = message(Volume::load_with(&huge, zero));
    assert!(m.contains("huge.nii") && m.contains("64 voxels beyond float32") && m.contains("1e300"), "{m}");
    let s = statistics(&huge).unwrap();
    assert_eq!((s.range, s.mean, s.beyond_f32), (Some([1e300; 2]), 1e300, 64));
    // The sum of these is beyond float64, their mean is not.
    let s = statistics(dir.write("huger.nii", &doubles(&[4, 4, 4], |_| 1e308))).unwrap();
    assert!((s.mean / 1e308 - 1.0).abs() < 1e-12, "{}", s.mean);
    let m = message(Volume::load(dir.write("tiny.nii", &doubles(&[4, 4, 4], |i| i as f64 * 1e-60))));
    assert!(m.contains("too small for float32"), "{m}");
    // A little noise that vanishes is none.
    Volume::load(dir.write("noise.nii", &doubles(&[4, 4, 4], |i| if i == 0 { 1e-60 } else { 1.0 }))).unwrap();
    // A scaling that goes beyond.
    let scaled = patched(common::nifti(&[2, 2, 2], 0.0, |_| 3e38), 112, &100f32.to_le_bytes());
    assert!(message(Volume::load(dir.write("scaled.nii", &scaled))).contains("beyond float32"));
    // Whole numbers that float32 rounds: labels of atlases.
    let mut labels = common::nifti(&[1, 1, 2], 0.0, |_| 0.0);
    labels[70..72].copy_from_slice(&8i16.to_le_bytes());
    labels[352..356].copy_from_slice(&614_454_277i32.to_le_bytes());
    let v = Volume::load(dir.write("atlas.nii", &labels)).unwrap();
    assert!(v.notes.iter().any(|n| n.contains("rounded to float32")), "{:?}", v.notes);
}

#[test]
fn gzip_is_read_as_gzip_reads_it() {
    let dir = Folder::new();
    let (file, whole) = (plain(), Volume::load(dir.write("a.nii", &plain())).unwrap().voxels);
    let load = |name: &str, bytes: &[u8]| Volume::load(dir.write(name, bytes));
    let padded = [gz(&file), vec![0; 700]].concat();
    assert_eq!(load("padded.nii.gz", &padded).unwrap().voxels, whole);
    // More zeros than a buffer holds, and members that begin and end anywhere.
    assert_eq!(load("long.nii.gz", &[gz(&file), vec![0; 200_000]].concat()).unwrap().voxels, whole);
    for cut in [0, 1, 100, 348, 352, 360, file.len() - 1, file.len()] {
        let members = [gz(&file[..cut]), gz(&file[cut..])].concat();
        assert_eq!(load("members.nii.gz", &members).unwrap().voxels, whole, "{cut}");
        let apart = [gz(&file[..cut]), vec![0; 512], gz(&file[cut..]), vec![0; 3]].concat();
        assert_eq!(load("apart.nii.gz", &apart).unwrap().voxels, whole, "{cut}");
    }
    let garbage: [&[u8]; 4] =
        [b"\r\n--boundary--\r\n", b"\x1f", b"\x1f\x1f\x1f\x1f\x1f\x1f\x1f\x1f\x1f\x1f\x1f", b"\0\0x"];
    for behind in garbage {
        let m = message(load("garbage.nii.gz", &[gz(&file), behind.to_vec()].concat()));
        let cut_member = behind == b"\x1f";
        assert!(m.contains("garbage.nii.gz"), "{m}");
        assert!(cut_member || m.contains("behind the compressed data") && !m.contains("truncated"), "{m}");
    }
    // A second member that is cut is a cut file.
    let half = [gz(&file[..200]), gz(&file[200..])].concat();
    let m = message(load("half.nii.gz", &half[..half.len() - 5]));
    assert!(m.contains("truncated"), "{m}");
    // A whole file behind the first is left out, and that is said.
    let v = load("twice.nii.gz", &[gz(&file), gz(&file)].concat()).unwrap();
    assert!(
        v.voxels == whole && v.notes.iter().any(|n| n.contains("behind the last voxel")),
        "{:?}",
        v.notes
    );
}

#[test]
fn what_only_stands_in_the_place_of_an_image_is_named() {
    let dir = Folder::new();
    for (bytes, word) in [
        (&b"PK\x03\x04xxxxxxxx"[..], "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xfd7zXZ\0\0", "xz"),
    ] {
        let m = message(Volume::load(dir.write("x.nii.gz", bytes)));
        assert!(m.contains(word) && m.contains("x.nii.gz"), "{m}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_called_that() {
    let dir = Folder::new();
    let link = dir.0.path().join("x.nii.gz");
    std::os::unix::fs::symlink(".git/annex/objects/XY/x", &link).unwrap();
    let m = message(Volume::load(&link));
    assert!(m.contains("link to .git/annex/objects/XY/x") && m.contains("datalad get"), "{m}");
}

#[test]
fn pairs_open_by_either_name_in_any_case() {
    let dir = Folder::new();
    let file = plain();
    let head = patched(file[..352].to_vec(), 344, b"ni1\0");
    let head = patched(head, 108, &0f32.to_le_bytes());
    let body = &file[352..];
    for (hdr, img) in [("a.hdr", "a.img"), ("B.HDR", "B.IMG"), ("c.hdr", "c.IMG"), ("D.Hdr", "D.Img")] {
        dir.write(hdr, &head);
        dir.write(img, body);
        for name in [hdr, img] {
            let path = dir.0.path().join(name);
            let v = Volume::load(&path).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(v.voxels, (0..24).map(|i| i as f32).collect::<Vec<_>>(), "{name}");
            assert_eq!(inspect(&path).unwrap().shape, [4, 3, 2], "{name}");
        }
    }
    // Both compressed.
    dir.write("e.hdr.gz", &gz(&head));
    assert_eq!(Volume::load(dir.write("e.IMG.gz", &gz(body))).unwrap().voxels.len(), 24);
    let m = message(Volume::load(dir.write("alone.img", body)));
    assert!(m.contains("alone.img holds voxels alone") && m.contains("alone.hdr"), "{m}");
    // A single file that is named so.
    assert_eq!(Volume::load(dir.write("single.img", &file)).unwrap().voxels.len(), 24);
}

/// A 2-D file: pixdim[3] of `thick`, qform or no form at all.
fn flat(qform: bool, thick: f32) -> Vec<u8> {
    let mut file = common::nifti(&[4, 3], 0.0, |i| i as f32);
    file[254..256].copy_from_slice(&0i16.to_le_bytes());
    file[252..254].copy_from_slice(&i16::from(qform).to_le_bytes());
    file[88..92].copy_from_slice(&thick.to_le_bytes());
    file[123] = 2;
    file
}

#[test]
fn two_dimensional_files_keep_their_geometry() {
    let dir = Folder::new();
    // As nibabel has the third column: with a qform pixdim[3], which may be nothing; else 1.
    for (name, qform, thick, third, assumed) in [
        ("q0", true, 0.0, 1.0, true),
        ("q4", true, 4.0, 4.0, false),
        ("n0", false, 0.0, 1.0, false),
        ("n4", false, 4.0, 1.0, false),
    ] {
        let v = Volume::load(dir.write(&format!("{name}.nii"), &flat(qform, thick))).unwrap();
        assert_eq!(
            (v.dims, v.spacing()[2], v.header.thickness_assumed),
            ([4, 3, 1], third, assumed),
            "{name}"
        );
        let out = dir.0.path().join("out.nii.gz");
        Volume::like(&v, v.voxels.clone()).save_as(&out, Stored::Float32).unwrap();
        let again = Volume::load(&out).unwrap();
        assert_eq!((again.affine(), again.header.shape.clone()), (v.affine(), vec![4, 3]), "{name}");
        let plain = dir.0.path().join("out.nii");
        Volume::like(&v, v.voxels.clone()).save(&plain).unwrap();
        let (a, b) = (flat(qform, thick), fs::read(&plain).unwrap());
        assert_eq!(
            (&a[40..56], &a[76..108], &a[252..328]),
            (&b[40..56], &b[76..108], &b[252..328]),
            "{name}"
        );
    }
    // An sform whose third column is nothing.
    let mut sform = common::nifti(&[4, 3, 1], 0.0, |i| i as f32);
    sform[280 + 32 + 8..280 + 32 + 12].copy_from_slice(&0f32.to_le_bytes());
    let v = Volume::load(dir.write("s.nii", &sform)).unwrap();
    assert_eq!((v.spacing(), v.axis_codes()), ([2.0, 2.0, 1.0], "RAS".to_string()));
    // Of a volume that is an error as before.
    let mut volume = common::nifti(&[4, 3, 2], 0.0, |i| i as f32);
    volume[280 + 32 + 8..280 + 32 + 12].copy_from_slice(&0f32.to_le_bytes());
    assert!(message(Volume::load(dir.write("v.nii", &volume))).contains("affine that is not usable"));
}

#[test]
fn a_frame_is_for_files_that_have_frames() {
    let dir = Folder::new();
    let many = dir.write("many.nii", &common::nifti(&[2, 2, 2, 3], 0.0, |i| i as f32));
    let one = dir.write("one.nii", &common::nifti(&[2, 2, 2], 0.0, |i| i as f32));
    let load = |path: &PathBuf, k: usize| {
        Volume::load_with(path, LoadOptions { frame: Frame::Index(k), recipe: true, ..Default::default() })
    };
    assert_eq!(load(&many, 2).unwrap().voxels[0], 16.0);
    let labels = load(&one, 2).unwrap();
    assert!(
        labels.voxels[7] == 7.0 && labels.notes.iter().any(|n| n.contains("one frame only")),
        "{:?}",
        labels.notes
    );
    assert!(message(load(&many, 3)).contains("no frame 3"));
    // Without a recipe its keys are no way out.
    let m = message(Volume::load(&many));
    assert!(m.contains("3 frames") && !m.contains("data.frame") && m.contains("split"), "{m}");
}
