//! Images that are no NIfTI, as Pillow and SimpleITK see them, and broken ones.

use crate::common::{not_checked, python};
use crate::message;
use gan::data::Volume;
use gan::data::nifti_io::{Stored, inspect};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(serde::Serialize, serde::Deserialize)]
struct Image {
    dims: [usize; 3],
    affine: [[f64; 4]; 3],
    values: Vec<f32>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/formats.py")
}

/// A Python that has what the script needs.
fn able() -> Option<String> {
    let python = python()?;
    let has = Command::new(&python).args(["-c", "import SimpleITK, PIL"]).output();
    if !has.is_ok_and(|o| o.status.success()) {
        not_checked(&format!("{python} has no SimpleITK or Pillow; install them"));
        return None;
    }
    Some(python)
}

#[test]
fn every_format_reads_as_others_read_it() {
    let Some(python) = able() else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new(python).arg(script()).arg("write").arg(dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = fs::read_to_string(dir.path().join("expected.json")).unwrap();
    let expected: BTreeMap<String, Image> = serde_json::from_str(&text).unwrap();
    assert!(expected.len() > 60, "{}", expected.len());
    for (name, want) in &expected {
        let path = dir.path().join(name);
        let made = Volume::load(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(made.dims, want.dims, "{name}");
        // JPEG decoders may differ by rounding; luminance is a sum of rounded products.
        let luminance = ["rgb.png", "rgba.png", "deflate.tif"].contains(&name.as_str());
        let bound = if name.ends_with(".jpg") { 1.0 } else { f32::from(u8::from(luminance)) * 1e-4 };
        for (i, (m, w)) in made.voxels.iter().zip(&want.values).enumerate() {
            assert!((m - w).abs() <= bound, "{name}, {i}: {m}, not {w}");
        }
        let apart = made.affine().distance(&gan::data::affine::Affine(want.affine), made.dims);
        assert!(apart < 1e-4, "{name}: {} lies {apart} mm apart", made.affine());
        assert_eq!(inspect(&path).unwrap().dims(), want.dims, "{name}");
        let said = |words: &str| made.notes.iter().any(|n| n.contains(words));
        assert_eq!(
            said("luminance"),
            ["rgb.png", "rgba.png", "deflate.tif"].contains(&name.as_str()),
            "{name}"
        );
        assert_eq!(said("transparency"), name == "rgba.png", "{name}");
        assert_eq!(said("indices"), name == "indexed.png", "{name}");
    }
}

#[test]
fn what_is_written_reads_as_it_was() {
    let Some(python) = able() else { return };
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let affine = [[-1.5, 0.0, 0.2, 10.0], [0.0, 0.7, 0.0, -20.0], [0.3, 0.0, 2.0, 5.5]];
    // At right angles: MetaImage and NRRD can hold others, SimpleITK does not read them.
    let straight = [[0.0, 0.0, 3.0, 10.0], [-1.5, 0.0, 0.0, -20.0], [0.0, 0.7, 0.0, 5.5]];
    let write = |names: &[&str], dims: [usize; 3], affine, stored| {
        let volume = Volume::new(dims, gan::data::affine::Affine(affine), values.clone()).unwrap();
        let want = Image { dims, affine, values: values.clone() };
        let json = dir.path().join("want.json");
        fs::write(&json, serde_json::to_string(&want).unwrap()).unwrap();
        let mut command = Command::new(&python);
        command.arg(script()).arg("check").arg(&json);
        for name in names {
            let path = dir.path().join(name);
            volume.save_as(&path, stored).unwrap();
            let again = Volume::load(&path).unwrap();
            assert_eq!((again.dims, &again.voxels), (dims, &values), "{name}");
            command.arg(path);
        }
        command
    };
    for (names, dims, stored) in [
        (&["a.mha", "a.nrrd"][..], [2, 3, 4], Stored::Float32),
        (&["l.mha", "l.nrrd"], [4, 3, 2], Stored::Uint8),
        (&["p.png"], [6, 4, 1], Stored::Float32),
    ] {
        let out = write(names, dims, straight, stored).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let oblique = Volume::new([2, 3, 4], gan::data::affine::Affine(affine), values.clone()).unwrap();
    for name in ["o.mha", "o.nrrd"] {
        oblique.save(dir.path().join(name)).unwrap();
        let again = Volume::load(dir.path().join(name)).unwrap();
        assert!(again.affine().distance(&oblique.affine(), [2, 3, 4]) < 1e-5, "{name}: {}", again.affine());
    }
}

/// A picture holds one slice, and 8 or 16 bits of it.
#[test]
fn pictures_are_rounded_and_of_one_slice() {
    let dir = tempfile::tempdir().unwrap();
    let affine = gan::data::affine::Affine::centred([2, 2, 1], [1.0; 3]);
    let of = |values: Vec<f32>| Volume::new([2, 2, 1], affine, values).unwrap();
    let path = dir.path().join("a.png");
    of(vec![-3.0, 0.4, 0.6, 255.2]).save(&path).unwrap();
    assert_eq!(Volume::load(&path).unwrap().voxels, [0.0, 0.0, 1.0, 255.0]);
    of(vec![-3.0, 300.0, 0.6, 70000.0]).save(&path).unwrap();
    assert_eq!(Volume::load(&path).unwrap().voxels, [0.0, 300.0, 1.0, 65535.0]);
    let deep = Volume::new([2, 1, 2], affine, vec![0.0; 4]).unwrap();
    assert!(message(deep.save(&path)).contains("2 slices"));
}

#[test]
fn broken_files_are_named_and_hold_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let nrrd = |sizes: &str| {
        format!("NRRD0004\ntype: float\ndimension: 3\nsizes: {sizes}\nendian: little\nencoding: raw\n\n")
    };
    let meta = |sizes: &str| {
        format!(
            "ObjectType = Image\nNDims = 3\nDimSize = {sizes}\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
        )
    };
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 40, 40);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[7; 1600]).unwrap();
    writer.finish().unwrap();
    let cut = png[..png.len() - 20].to_vec();
    for (name, bytes, words) in [
        ("huge.nrrd", nrrd("1000000 1000000 1").into_bytes(), "impossible size"),
        ("short.nrrd", nrrd("10 10 10").into_bytes(), "ends after 0 of 4000 bytes"),
        ("many.nrrd", nrrd("3 10 10 10").into_bytes(), "4 axes"),
        ("type.nrrd", nrrd("1 1 1").replace("float", "block").into_bytes(), "type `block`"),
        ("endless.nrrd", b"NRRD0004\ntype: float".to_vec(), "no `sizes`"),
        ("huge.mha", meta("100000 100000 100000").into_bytes(), "impossible size"),
        ("short.mha", meta("2 2 2").into_bytes(), "ends after 0 of 32 bytes"),
        ("words.mha", meta("2 x 2").into_bytes(), "`DimSize` can't be read"),
        ("nofile.mha", b"ObjectType = Image\nNDims = 3\n".to_vec(), "no `ElementDataFile`"),
        ("gone.mhd", meta("2 2 2").replace("LOCAL", "gone.raw").into_bytes(), "gone.raw"),
        ("list.mhd", meta("2 2 2").replace("LOCAL", "LIST").into_bytes(), "several files"),
        ("cut.png", cut, "truncated or damaged"),
        ("a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec(), "truncated or damaged"),
        ("a.tif", b"II*\0\x08\0\0\0".to_vec(), "truncated or damaged"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let m = message(Volume::load(&path));
        assert!(m.contains(words) && (m.contains(name) || m.contains("gone.raw")), "{name}: {m}");
    }
}
