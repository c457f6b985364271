//! Voxels as NRRD and MetaImage store them: numbers of a type in an order of bytes, compressed or not, in the file of their header
//! or in one beside it.

use super::{Decoded, count, damaged};
use crate::data::nifti_header::Endian;
use crate::data::nifti_values::{self, Stored};
use crate::error::{Error, Result};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// A type of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

impl Type {
    pub fn bytes(self) -> usize {
        match self {
            Type::I8 | Type::U8 => 1,
            Type::I16 | Type::U16 => 2,
            Type::I32 | Type::U32 | Type::F32 => 4,
            Type::I64 | Type::U64 | Type::F64 => 8,
        }
    }

    /// As in NumPy.
    pub fn name(self) -> &'static str {
        match self {
            Type::I8 => "int8",
            Type::U8 => "uint8",
            Type::I16 => "int16",
            Type::U16 => "uint16",
            Type::I32 => "int32",
            Type::U32 => "uint32",
            Type::I64 => "int64",
            Type::U64 => "uint64",
            Type::F32 => "float32",
            Type::F64 => "float64",
        }
    }

    fn decode(self, bytes: &[u8], big: bool) -> Vec<f32> {
        macro_rules! each {
            ($t:ty) => {
                bytes
                    .chunks_exact(size_of::<$t>())
                    .map(|b| {
                        let b = b.try_into().expect("a whole number");
                        (if big { <$t>::from_be_bytes(b) } else { <$t>::from_le_bytes(b) }) as f32
                    })
                    .collect()
            };
        }
        match self {
            Type::I8 => each!(i8),
            Type::U8 => each!(u8),
            Type::I16 => each!(i16),
            Type::U16 => each!(u16),
            Type::I32 => each!(i32),
            Type::U32 => each!(u32),
            Type::I64 => each!(i64),
            Type::U64 => each!(u64),
            Type::F32 => each!(f32),
            Type::F64 => each!(f64),
        }
    }
}

/// How bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Raw,
    Gzip,
    Zlib,
    /// Numbers in words.
    Text,
}

/// Where a file's voxels are, and what they are.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// The file that holds them.
    pub file: &'a Path,
    /// Bytes before them; `None`: as many as the file has too many.
    pub offset: Option<u64>,
    pub kind: Type,
    pub big: bool,
    pub packing: Packing,
}

/// The voxels as they are written: uint8 for label maps, else float32, little-endian.
pub fn encode(image: &Decoded, labels: bool) -> Vec<u8> {
    let stored = if labels { Stored::Uint8 } else { Stored::Float32 };
    nifti_values::encode(&image.voxels, stored, Endian::Little)
}

/// Reads that many voxels; the buffer grows with what is there, not with what a header promises.
pub fn read(layout: Layout, extents: &[usize]) -> Result<Vec<f32>> {
    let Layout { file: path, offset, kind, big, packing } = layout;
    let n = count(path, extents)?;
    let wanted = n.checked_mul(kind.bytes()).ok_or_else(|| damaged(path, "an impossible size"))?;
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let offset = match offset {
        Some(offset) => offset,
        None => length.checked_sub(wanted as u64).ok_or_else(|| damaged(path, "it is too short"))?,
    };
    file.seek(SeekFrom::Start(offset)).map_err(Error::io("read", path))?;
    let file = BufReader::new(file);
    let failed = |e: std::io::Error| damaged(path, e);
    if packing == Packing::Text {
        let mut text = String::new();
        file.take(length).read_to_string(&mut text).map_err(failed)?;
        let numbers: Option<Vec<f32>> = text.split_whitespace().take(n).map(|w| w.parse().ok()).collect();
        return numbers.filter(|v| v.len() == n).ok_or_else(|| damaged(path, "its numbers can't be read"));
    }
    let mut bytes = Vec::with_capacity(wanted.min(1 << 26));
    let most = wanted as u64;
    match packing {
        Packing::Gzip => MultiGzDecoder::new(file).take(most).read_to_end(&mut bytes),
        Packing::Zlib => ZlibDecoder::new(file).take(most).read_to_end(&mut bytes),
        _ => file.take(most).read_to_end(&mut bytes),
    }
    .map_err(failed)?;
    if bytes.len() < wanted {
        return Err(damaged(path, format!("it ends after {} of {wanted} bytes of voxels", bytes.len())));
    }
    Ok(kind.decode(&bytes, big))
}
