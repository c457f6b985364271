//! MetaImage (`.mha`, `.mhd`), the format of ITK: <https://itk.org/Wiki/ITK/MetaIO/Documentation>. Its space is LPS.

use super::raw::{self, Layout, Packing, Type};
use super::{Decoded, damaged};
use crate::data::affine::Affine;
use crate::error::{Error, Result};
use crate::fsio;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

/// Most bytes of a header.
const MOST_HEADER: u64 = 1 << 20;
/// What a header may begin with.
const FIRST: [&str; 5] = ["ObjectType", "NDims", "Comment", "BinaryData", "DimSize"];

/// Whether a file begins like a MetaImage.
pub fn begins(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let key = text.split_once('=').map_or("", |(key, _)| key.trim());
    FIRST.contains(&key)
}

/// The fields of a header, and where it ends: `ElementDataFile` is the last.
fn fields(path: &Path) -> Result<(BTreeMap<String, String>, u64)> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut lines = BufReader::new(file.take(MOST_HEADER));
    let (mut fields, mut at) = (BTreeMap::new(), 0u64);
    loop {
        let mut line = Vec::new();
        let n = lines.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
        at += n as u64;
        if n == 0 {
            return Err(damaged(path, "its header has no `ElementDataFile`"));
        }
        let text = String::from_utf8_lossy(&line);
        if let Some((key, value)) = text.split_once('=') {
            let (key, value) = (key.trim().to_string(), value.trim().to_string());
            let last = key == "ElementDataFile";
            fields.insert(key, value);
            if last {
                return Ok((fields, at));
            }
        }
    }
}

fn kind(text: &str) -> Option<Type> {
    Some(match text {
        "MET_CHAR" => Type::I8,
        "MET_UCHAR" => Type::U8,
        "MET_SHORT" => Type::I16,
        "MET_USHORT" => Type::U16,
        "MET_INT" => Type::I32,
        "MET_UINT" => Type::U32,
        "MET_LONG_LONG" => Type::I64,
        "MET_ULONG_LONG" => Type::U64,
        "MET_FLOAT" => Type::F32,
        "MET_DOUBLE" => Type::F64,
        _ => return None,
    })
}

/// Reads a file with one number a voxel.
pub fn read(path: &Path) -> Result<Decoded> {
    let (fields, end) = fields(path)?;
    let p = path.display();
    let first = |keys: &[&str]| keys.iter().find_map(|k| fields.get(*k)).map(String::as_str);
    let field = |key: &str| first(&[key]).ok_or_else(|| damaged(path, format!("its header has no `{key}`")));
    let wrong = |key: &str| damaged(path, format!("its `{key}` can't be read"));
    let yes = |key: &str| first(&[key]).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let sizes: Option<Vec<usize>> = field("DimSize")?.split_whitespace().map(|n| n.parse().ok()).collect();
    let sizes = sizes.ok_or_else(|| wrong("DimSize"))?;
    let (mut dims, n) = ([1; 3], sizes.len());
    if !(2..=3).contains(&n) {
        return Err(Error::input(format!(
            "{p} has {n} axes of {sizes:?} where two or three are needed; save its frames one by one"
        )));
    }
    dims[..n].copy_from_slice(&sizes);
    if first(&["ElementNumberOfChannels"]).is_some_and(|c| c != "1") {
        return Err(Error::input(format!(
            "{p} has {} numbers a voxel where one is needed; save its components one by one",
            fields["ElementNumberOfChannels"]
        )));
    }
    let text = field("ElementType")?;
    let kind = kind(text).ok_or_else(|| {
        Error::input(format!(
            "{p} holds numbers of the type `{text}`, which are not read; save it as MET_SHORT or MET_FLOAT"
        ))
    })?;
    let numbers = |keys: &[&str], count: usize| -> Result<Option<Vec<f64>>> {
        let Some(text) = first(keys) else { return Ok(None) };
        let list: Option<Vec<f64>> = text.split_whitespace().map(|v| v.parse().ok()).collect();
        let list = list.filter(|l| l.len() == count && l.iter().all(|v| v.is_finite()));
        list.map(Some).ok_or_else(|| wrong(keys[0]))
    };
    let spacing = numbers(&["ElementSpacing", "ElementSize"], n)?.unwrap_or_else(|| vec![1.0; n]);
    let origin = numbers(&["Offset", "Position", "Origin"], n)?.unwrap_or_else(|| vec![0.0; n]);
    let matrix = numbers(&["TransformMatrix", "Rotation", "Orientation"], n * n)?;
    let mut affine = [[0.0; 4]; 3];
    affine[2][2] = 1.0;
    for c in 0..n {
        for (r, row) in affine.iter_mut().enumerate().take(n) {
            // The direction of an axis after the other.
            let cosine = matrix.as_ref().map_or(f64::from(u8::from(r == c)), |m| m[c * n + r]);
            row[c] = cosine * spacing[c];
        }
    }
    (0..n).for_each(|r| affine[r][3] = origin[r]);
    // From the patient's left and back to right and front.
    affine[..2].iter_mut().flatten().for_each(|v| *v = -*v);
    let name = field("ElementDataFile")?;
    if name.starts_with("LIST") || name.contains('%') {
        return Err(Error::input(format!(
            "{p} has its voxels in several files, which is not read; save it as one .mha"
        )));
    }
    let local = name.eq_ignore_ascii_case("local");
    let file = if local { path.to_path_buf() } else { path.parent().unwrap_or(Path::new("")).join(name) };
    if !file.is_file() {
        return Err(Error::missing(&file));
    }
    let skip: i64 = first(&["HeaderSize"]).map_or(Ok(0), str::parse).map_err(|_| wrong("HeaderSize"))?;
    let offset = match (local, skip) {
        (true, _) => Some(end),
        (false, -1) => None,
        (false, skip) => Some(u64::try_from(skip).map_err(|_| wrong("HeaderSize"))?),
    };
    let packing = match (
        first(&["BinaryData"]).is_none_or(|v| v.eq_ignore_ascii_case("true")),
        yes("CompressedData"),
    ) {
        (true, true) => Packing::Zlib,
        (true, false) => Packing::Raw,
        (false, _) => Packing::Text,
    };
    let big = yes("BinaryDataByteOrderMSB") || yes("ElementByteOrderMSB");
    let voxels = raw::read(Layout { file: &file, offset, kind, big, packing }, &dims)?;
    Ok(Decoded { dims, affine: Affine(affine), voxels, stored: kind.name().into(), notes: Vec::new() })
}

/// Writes float32, or uint8 for label maps, compressed.
pub fn write(path: &Path, image: &Decoded, labels: bool) -> Result<()> {
    let spacing = image.affine.spacing();
    let [x, y, z] = image.dims;
    let lps = |r: usize, v: f64| if r < 2 { -v } else { v } + 0.0;
    let a = image.affine.0;
    let axis =
        |c: usize| (0..3).map(|r| (lps(r, a[r][c]) / spacing[c]).to_string()).collect::<Vec<_>>().join(" ");
    let origin = (0..3).map(|r| lps(r, a[r][3]).to_string()).collect::<Vec<_>>().join(" ");
    let bytes = raw::encode(image, labels);
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&bytes).and_then(|()| packed.flush()).map_err(Error::io("write", path))?;
    let packed = packed.finish().map_err(Error::io("write", path))?;
    let kind = if labels { "MET_UCHAR" } else { "MET_FLOAT" };
    let header = format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = True\nCompressedDataSize = {}\nTransformMatrix = {} {} {}\nOffset = {origin}\nCenterOfRotation = 0 0 0\nElementSpacing = {} {} {}\nDimSize = {x} {y} {z}\nElementType = {kind}\nElementDataFile = LOCAL\n",
        packed.len(),
        axis(0),
        axis(1),
        axis(2),
        spacing[0],
        spacing[1],
        spacing[2]
    );
    fsio::write_atomic(path, |out| {
        out.write_all(header.as_bytes())?;
        out.write_all(&packed)?;
        out.flush()
    })
}
