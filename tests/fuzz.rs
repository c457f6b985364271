//! Damaged files of every kind are errors, never a panic.

#![allow(missing_docs)]

mod common;

use base64::Engine;
use gan::data::nifti_io::{Frame, LoadOptions, NanPolicy, inspect};
use gan::data::orient::{Orientation, Plane};
use gan::data::{DataConfig, DataFit, Volume};
use gan::recipe::Recipe;
use gan::run::checkpoint::Tensors;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

const CASES: u32 = 400;

/// Overwrites, inserts and cuts.
#[derive(Clone, Debug)]
enum Change {
    Byte(prop::sample::Index, u8),
    Field(prop::sample::Index, u32),
    Insert(prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<prop::sample::Index>;
    let interesting = prop_oneof![
        any::<u32>(),
        prop::sample::select(vec![0, 1, 0x7fff, 0xffff, 0x7f80_0000, 0x7fc0_0000, 0xff80_0000, u32::MAX]),
    ];
    let change = prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(i, b)| Change::Byte(i, b)),
        4 => (at(), interesting).prop_map(|(i, v)| Change::Field(i, v)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(i, b)| Change::Insert(i, b)),
        1 => at().prop_map(Change::Cut),
    ];
    prop::collection::vec(change, 1..6)
}

/// Applies changes within the first `most` bytes.
fn change(bytes: &[u8], most: usize, changes: &[Change]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for c in changes {
        let n = out.len().min(most);
        if n == 0 {
            break;
        }
        match c {
            Change::Byte(i, b) => out[i.index(n)] = *b,
            Change::Field(i, v) => {
                // Header fields are aligned.
                let at = i.index(n) & !3;
                let end = (at + 4).min(out.len());
                out[at..end].copy_from_slice(&v.to_le_bytes()[..end - at]);
            }
            Change::Insert(i, b) => {
                let at = i.index(n);
                out.splice(at..at, b.iter().copied());
            }
            Change::Cut(i) => out.truncate(i.index(n)),
        }
    }
    out
}

/// A JPEG of 16 x 16, as Pillow writes it.
const JPEG: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6j\
    q62rZ4C8ybqmx5moq6T/wAALCAAQABABAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUF\
    BAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVW\
    V1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi\
    4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/AMiK39qtxW/tVqK39quRW/tX/9k=";

/// A good file of each format that is no NIfTI.
fn other_format(which: usize) -> (&'static str, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let saved = |name: &str| {
        let affine = gan::data::affine::Affine::centred([6, 5, 4], [1.0, 2.0, 3.0]);
        let path = dir.path().join(name);
        Volume::new([6, 5, 4], affine, (0..120).map(|i| i as f32).collect()).unwrap().save(&path).unwrap();
        fs::read(path).unwrap()
    };
    let picture = |colour, depth, bytes: &[u8]| {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, 9, 4);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == png::ColorType::Indexed {
            encoder.set_palette(vec![0, 0, 0, 255, 0, 0, 0, 255, 0]);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(bytes).unwrap();
        writer.finish().unwrap();
        out
    };
    match which {
        0 => ("x.nrrd", saved("x.nrrd")),
        1 => ("x.mha", saved("x.mha")),
        2 => ("x.png", picture(png::ColorType::Rgba, png::BitDepth::Sixteen, &[7; 9 * 4 * 8])),
        3 => ("x.png", picture(png::ColorType::Indexed, png::BitDepth::Two, &[0b0110_0001; 3 * 4])),
        4 => {
            let mut out = std::io::Cursor::new(Vec::new());
            let mut encoder = tiff::encoder::TiffEncoder::new(&mut out).unwrap();
            encoder.write_image::<tiff::encoder::colortype::Gray16>(9, 4, &[300; 36]).unwrap();
            ("x.tif", out.into_inner())
        }
        _ => ("x.jpg", base64::prelude::BASE64_STANDARD.decode(JPEG).unwrap()),
    }
}

/// Everything that reads an image.
fn read(path: &Path) {
    let _ = inspect(path);
    let _ = Volume::load(path);
    let options = LoadOptions { nan: NanPolicy::Zero, frame: Frame::All, ..Default::default() };
    if let Ok(v) = Volume::load_with(path, options) {
        assert_eq!(v.voxels.len(), v.dims.iter().product::<usize>() * v.frames);
        let o = Orientation::new(&v.affine(), v.dims);
        if v.frames == 1 {
            assert_eq!(o.to_stored(&o.to_canonical(&v.voxels)).len(), v.voxels.len());
        }
        let _ = (v.axis_codes(), v.spacing());
    }
    // As a case that something is to be predicted from.
    let fit =
        DataFit { canvas: [8, 8], input: vec![None], target: vec![gan::data::normalise::Fitted::IDENTITY] };
    let config = DataConfig { nan: NanPolicy::Zero, plane: Plane::Coronal, ..Default::default() };
    if let Ok(case) = gan::data::Case::open(&[path.to_path_buf()], &config, &fit) {
        let zeros = vec![0.0; case.target_shape.iter().product()];
        let volumes = case.assemble(&zeros).expect("it fits");
        let _ = volumes[0].save(path.with_file_name("out.nii"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn images(changes in changes()) {
        let dir = tempfile::tempdir().unwrap();
        let good = common::nifti(&[6, 5, 4], 0.0, |i| i as f32);
        let path = dir.path().join("x.nii");
        fs::write(&path, change(&good, 352, &changes)).unwrap();
        read(&path);
    }

    #[test]
    fn images_of_other_formats(which in 0usize..6, changes in changes()) {
        let dir = tempfile::tempdir().unwrap();
        let (name, good) = other_format(which);
        let path = dir.path().join(name);
        fs::write(&path, &good).unwrap();
        prop_assert!(Volume::load(&path).is_ok(), "{}", name);
        fs::write(&path, change(&good, usize::MAX, &changes)).unwrap();
        read(&path);
    }

    #[test]
    fn recipes(changes in changes()) {
        let text = change(common::RECIPE.as_bytes(), usize::MAX, &changes);
        let text = String::from_utf8_lossy(&text);
        if let Err(e) = Recipe::parse(&text, "r.toml", &[]) {
            prop_assert!(e.to_string().contains("r.toml"), "{}", e);
            prop_assert_eq!(e.to_string().lines().count(), 1, "{}", e);
        }
    }

    #[test]
    fn overrides(key in "[a-z_.]{0,24}", value in "\\PC{0,12}") {
        let _ = Recipe::parse(common::RECIPE, "r.toml", &[format!("{key}={value}")]);
    }

    #[test]
    fn checkpoints(changes in changes()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let mut states = gan::exec::States::new();
        states.set("a", &[1f32, 2.0, 3.0]);
        states.set("b", &[4f32; 16]);
        let progress = Default::default();
        gan::run::checkpoint::save_state(&path, &[], &states, &progress, "hash").unwrap();
        let good = fs::read(&path).unwrap();
        fs::write(&path, change(&good, usize::MAX, &changes)).unwrap();
        if let Ok(file) = Tensors::read(&path) {
            for (name, shape, _) in file.list() {
                if let Some((extents, values)) = file.get(&name) {
                    prop_assert_eq!(&extents, &shape);
                    prop_assert_eq!(values.len(), extents.iter().product::<usize>());
                }
            }
        }
        let _ = gan::run::checkpoint::load_state(&path, &[], &mut states, "hash");
    }
}
