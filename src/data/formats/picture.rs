//! Pictures: PNG, JPEG and TIFF. Colours become luminance.

use super::{Decoded, count, damaged};
use crate::data::affine::Affine;
use crate::error::{Error, Result};
use crate::fsio;
use png::{ColorType, Transformations};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// ITU-R BT.601: what Pillow's mode "L" has, too.
const LUMINANCE: [f32; 3] = [0.299, 0.587, 0.114];

/// An image of a picture's values, `channels` side by side for each pixel.
fn grey(
    path: &Path,
    [w, h]: [usize; 2],
    values: &[f32],
    channels: usize,
    stored: &str,
    mut notes: Vec<String>,
) -> Result<Decoded> {
    let n = count(path, &[w, h])?;
    if channels == 0 || values.len() < n * channels {
        return Err(damaged(path, "it has fewer pixels than it says"));
    }
    let pixel = |p: &[f32]| match p {
        [r, g, b, ..] if r == g && g == b => *r,
        [r, g, b, ..] => LUMINANCE[0] * r + LUMINANCE[1] * g + LUMINANCE[2] * b,
        _ => p[0],
    };
    let pixels = values.chunks_exact(channels).take(n);
    if channels >= 3 && pixels.clone().any(|p| p[0] != p[1] || p[1] != p[2]) {
        notes.push("colours are read as luminance (0.299 red, 0.587 green, 0.114 blue)".into());
    }
    if channels == 2 || channels == 4 {
        notes.push("transparency is left out".into());
    }
    // Upright in an axial slice.
    let affine = Affine([[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);
    Ok(Decoded { dims: [w, h, 1], affine, voxels: pixels.map(pixel).collect(), stored: stored.into(), notes })
}

/// Reads a PNG. Fewer than 8 bits of grey are brought to 0..255; a palette of greys is read as these, any other as its indices,
/// which is what label maps mean.
pub fn png(path: &Path) -> Result<Decoded> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let broken = |e: png::DecodingError| damaged(path, e);
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(broken)?;
    let info = reader.info();
    let (w, h) = (info.width as usize, info.height as usize);
    let (colour, depth) = (info.color_type, info.bit_depth as usize);
    let palette = info.palette.as_ref().map(|p| p.to_vec());
    let animated = info.animation_control.is_some();
    count(path, &[w, h])?;
    // No deflated byte unpacks to more than 1032: a header that claims more is not believed.
    holds(path, w * h * colour.samples() * depth / 8, 1032)?;
    let size = reader.output_buffer_size().ok_or_else(|| damaged(path, "it is too large"))?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).map_err(broken)?;
    let channels = colour.samples();
    let mut notes = Vec::new();
    if animated {
        notes.push("only the first picture of an animation is read".to_string());
    }
    let mut values = Vec::with_capacity(w * h * channels);
    for line in bytes.chunks(frame.line_size.max(1)).take(h) {
        match depth {
            16 => values.extend(line.chunks_exact(2).map(|b| f32::from(u16::from_be_bytes([b[0], b[1]])))),
            8 => values.extend(line.iter().map(|b| f32::from(*b))),
            _ => {
                let per_byte = 8 / depth;
                let sample =
                    |i: usize| line[i / per_byte] >> (8 - depth * (i % per_byte + 1)) & ((1 << depth) - 1);
                values.extend((0..w * channels).map(|i| f32::from(sample(i))));
            }
        }
    }
    if let (ColorType::Indexed, Some(palette)) = (colour, palette) {
        let entry = |v: &f32| palette.get(3 * *v as usize..3 * *v as usize + 3);
        let greys = values.iter().all(|v| entry(v).is_some_and(|p| p[0] == p[1] && p[1] == p[2]));
        if greys {
            values = values.iter().map(|v| entry(v).map_or(0.0, |p| f32::from(p[0]))).collect();
        } else {
            notes.push("its palette has colours, so its indices are read".into());
        }
    } else if depth < 8 {
        let scale = 255.0 / ((1 << depth) - 1) as f32;
        values.iter_mut().for_each(|v| *v *= scale);
        notes.push(format!("grey of {depth} bits is brought to 0..255"));
    }
    let stored = if depth == 16 { "uint16" } else { "uint8" };
    grey(path, [w, h], &values, channels, stored, notes)
}

/// Refuses a file that is too short for the bytes that its header claims, before memory is taken for them.
fn holds(path: &Path, bytes: usize, most_each: u64) -> Result<()> {
    let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if bytes as u64 > length.saturating_mul(most_each) {
        return Err(damaged(path, "it is too short for the size that it claims"));
    }
    Ok(())
}

/// Reads a JPEG.
pub fn jpeg(path: &Path) -> Result<Decoded> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let broken = |e: zune_jpeg::errors::DecodeErrors| damaged(path, format!("{e:?}"));
    let options = DecoderOptions::default().set_max_width(1 << 16).set_max_height(1 << 16);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let (w, h) = decoder.dimensions().ok_or_else(|| damaged(path, "it has no size"))?;
    count(path, &[w, h])?;
    let colour =
        if decoder.input_colorspace() == Some(ColorSpace::Luma) { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(colour));
    let pixels = decoder.decode().map_err(broken)?;
    let channels = pixels.len() / (w * h);
    let values: Vec<f32> = pixels.iter().map(|b| f32::from(*b)).collect();
    let notes = vec!["JPEG is lossy: intensities are not those that were measured".to_string()];
    grey(path, [w, h], &values, channels, "uint8", notes)
}

/// Reads the first page of a TIFF.
pub fn tiff(path: &Path) -> Result<Decoded> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let broken = |e: tiff::TiffError| match e {
        tiff::TiffError::UnsupportedError(what) => Error::input(format!(
            "{} is a TIFF that can't be read here ({what}); save it uncompressed, with LZW or deflate, in 8, 16 or 32 bits",
            path.display()
        )),
        other => damaged(path, other),
    };
    let mut decoder = Decoder::new(BufReader::new(file)).map_err(broken)?.with_limits(Limits::default());
    let (w, h) = decoder.dimensions().map_err(broken)?;
    let (w, h) = (w as usize, h as usize);
    count(path, &[w, h])?;
    let colour = decoder.colortype().map_err(broken)?;
    let inverted =
        matches!(decoder.find_tag_unsigned::<u16>(tiff::tags::Tag::PhotometricInterpretation), Ok(Some(0)));
    let image = decoder.read_image().map_err(broken)?;
    let mut notes = Vec::new();
    if decoder.more_images() {
        notes.push("only its first page is read".to_string());
    }
    if inverted {
        notes.push(
            "white is zero in it: the values are read as the decoder turned them, black being zero".into(),
        );
    }
    let (values, stored): (Vec<f32>, &str) = match image {
        DecodingResult::U8(v) => (v.into_iter().map(f32::from).collect(), "uint8"),
        DecodingResult::U16(v) => (v.into_iter().map(f32::from).collect(), "uint16"),
        DecodingResult::U32(v) => (v.into_iter().map(|v| v as f32).collect(), "uint32"),
        DecodingResult::I8(v) => (v.into_iter().map(f32::from).collect(), "int8"),
        DecodingResult::I16(v) => (v.into_iter().map(f32::from).collect(), "int16"),
        DecodingResult::I32(v) => (v.into_iter().map(|v| v as f32).collect(), "int32"),
        DecodingResult::F32(v) => (v, "float32"),
        DecodingResult::F64(v) => (v.into_iter().map(|v| v as f32).collect(), "float64"),
        _ => {
            return Err(Error::input(format!(
                "{}: numbers of such a type are not read; save it in 8, 16 or 32 bits",
                path.display()
            )));
        }
    };
    if matches!(colour, tiff::ColorType::CMYK(_) | tiff::ColorType::Palette(_)) {
        return Err(Error::input(format!("{} has colours by {colour:?}; save it in grey", path.display())));
    }
    let channels = values.len() / (w * h).max(1);
    grey(path, [w, h], &values, channels, stored, notes)
}

/// Writes a slice as a grey PNG: of 8 bits where all values round to 0..255, else of 16. Values beyond are cut off.
pub fn write_png(path: &Path, image: &Decoded) -> Result<()> {
    let [w, h, depth] = image.dims;
    if depth != 1 {
        return Err(Error::input(format!(
            "{} would be a picture of {depth} slices; choose a name that ends in .nii.gz",
            path.display()
        )));
    }
    let wide = image.voxels.iter().any(|v| v.round() > 255.0);
    let most = if wide { 65535.0 } else { 255.0 };
    let value = |v: &f32| v.round().clamp(0.0, most) as u16;
    let bytes: Vec<u8> = match wide {
        true => image.voxels.iter().flat_map(|v| value(v).to_be_bytes()).collect(),
        false => image.voxels.iter().map(|v| value(v) as u8).collect(),
    };
    fsio::write_atomic(path, |out| {
        let mut encoder = png::Encoder::new(BufWriter::new(&mut *out), w as u32, h as u32);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(if wide { png::BitDepth::Sixteen } else { png::BitDepth::Eight });
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&bytes)?;
        writer.finish()?;
        out.flush()
    })
}
