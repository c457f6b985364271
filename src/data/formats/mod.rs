//! Images that are no NIfTI: PNG, JPEG, TIFF, NRRD and MetaImage (`.mha`, `.mhd`). Recognised by content, not by name.
//!
//! A picture has no place in a patient: its rows are taken to run from the front to the back, its columns from the patient's right
//! to the left, a pixel for 1 mm, so that its slice is shown as the picture is.

mod meta;
mod nrrd;
mod picture;
mod raw;

use super::affine::Affine;
use super::nifti_header::Header;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Portable Network Graphics, 1 to 16 bits.
    Png,
    /// JPEG, baseline and progressive.
    Jpeg,
    /// TIFF, grey or colour, 8 to 32 bits, uncompressed, LZW, deflate or PackBits; its first page.
    Tiff,
    /// NRRD, with its data in the file or beside it.
    Nrrd,
    /// MetaImage, with its data in the file or beside it.
    Meta,
}

impl Format {
    /// As in messages.
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "PNG",
            Format::Jpeg => "JPEG",
            Format::Tiff => "TIFF",
            Format::Nrrd => "NRRD",
            Format::Meta => "MetaImage",
        }
    }

    /// What a prediction in this format is called; pictures become PNG.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Png | Format::Jpeg | Format::Tiff => "png",
            Format::Nrrd => "nrrd",
            Format::Meta => "mha",
        }
    }
}

/// An image as it was read.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Extents along i, j, k.
    pub dims: [usize; 3],
    /// Voxel index to mm, in the patient's right, front and upper direction.
    pub affine: Affine,
    /// Values; `i` runs fastest.
    pub voxels: Vec<f32>,
    /// How values are stored: `uint8`.
    pub stored: String,
    /// What was guessed or left out, without the file's name.
    pub notes: Vec<String>,
}

impl Decoded {
    /// A header of the same geometry.
    pub fn header(&self) -> Result<Header> {
        Header::new(self.dims, self.affine)
    }
}

/// Which of these formats a file has; `None` for all others, and for files that can't be read.
pub fn recognise(path: &Path) -> Option<Format> {
    let mut start = [0; 512];
    let mut file = File::open(path).ok()?;
    let mut n = 0;
    while n < start.len() {
        match file.read(&mut start[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    of_bytes(&start[..n])
}

fn of_bytes(start: &[u8]) -> Option<Format> {
    let is = |magic: &[u8]| start.starts_with(magic);
    match start {
        _ if is(b"\x89PNG\r\n\x1a\n") => Some(Format::Png),
        _ if is(b"\xff\xd8\xff") => Some(Format::Jpeg),
        _ if is(b"II*\0") || is(b"MM\0*") => Some(Format::Tiff),
        _ if is(b"NRRD000") => Some(Format::Nrrd),
        _ if meta::begins(start) => Some(Format::Meta),
        _ => None,
    }
}

/// Reads a file of such a format.
pub fn read(path: &Path, format: Format) -> Result<Decoded> {
    match format {
        Format::Png => picture::png(path),
        Format::Jpeg => picture::jpeg(path),
        Format::Tiff => picture::tiff(path),
        Format::Nrrd => nrrd::read(path),
        Format::Meta => meta::read(path),
    }
}

/// Writes voxels on a grid as float32 (label maps: uint8), in the format of the input that they were made of.
pub fn write(path: &Path, format: Format, image: &Decoded, labels: bool) -> Result<()> {
    match format {
        Format::Png | Format::Jpeg | Format::Tiff => picture::write_png(path, image),
        Format::Nrrd => nrrd::write(path, image, labels),
        Format::Meta => meta::write(path, image, labels),
    }
}

/// Most voxels that a header may claim: 16 GiB of float32.
const MOST: usize = 1 << 32;

/// The product of extents, if it is one that memory could hold.
fn count(path: &Path, extents: &[usize]) -> Result<usize> {
    let n = extents.iter().try_fold(1usize, |n, e| n.checked_mul(*e)).filter(|n| (1..=MOST).contains(n));
    n.ok_or_else(|| {
        Error::input(format!(
            "{} claims an impossible size, {extents:?}; the file is damaged, fetch it again",
            path.display()
        ))
    })
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::input(format!("{} is truncated or damaged ({why}); fetch it again", path.display()))
}
