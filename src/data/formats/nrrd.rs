//! NRRD, the "nearly raw raster data" of Teem and 3D Slicer: <https://teem.sourceforge.net/nrrd/format.html>.

use super::raw::{self, Layout, Packing, Type};
use super::{Decoded, damaged};
use crate::data::affine::Affine;
use crate::error::{Error, Result};
use crate::fsio;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

/// Most bytes of a header: longer ones are no headers.
const MOST_HEADER: u64 = 1 << 20;

/// The fields of a header, and where it ends.
fn fields(path: &Path) -> Result<(BTreeMap<String, String>, u64)> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut lines = BufReader::new(file.take(MOST_HEADER));
    let (mut fields, mut at) = (BTreeMap::new(), 0u64);
    loop {
        let mut line = Vec::new();
        let n = lines.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
        at += n as u64;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        // A detached header may end with its file.
        if n == 0 || text.is_empty() {
            return Ok((fields, at));
        }
        if let Some((key, value)) = text.split_once(':').filter(|_| !text.starts_with('#')) {
            // `key:=value` are comments of other programs.
            if !value.starts_with('=') {
                fields.insert(key.trim().to_lowercase(), value.trim().to_string());
            }
        }
    }
}

fn kind(text: &str) -> Option<Type> {
    Some(match text {
        "signed char" | "int8" | "int8_t" => Type::I8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => Type::U8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => Type::I16,
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Type::U16,
        "int" | "signed int" | "int32" | "int32_t" => Type::I32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => Type::U32,
        "longlong"
        | "long long"
        | "long long int"
        | "signed long long"
        | "signed long long int"
        | "int64"
        | "int64_t" => Type::I64,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => Type::U64,
        "float" => Type::F32,
        "double" => Type::F64,
        _ => return None,
    })
}

/// `(a,b,c)`.
fn vector(text: &str) -> Option<[f64; 3]> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    let numbers: Option<Vec<f64>> = inner.split(',').map(|n| n.trim().parse().ok()).collect();
    match numbers?[..] {
        [a, b, c] => Some([a, b, c]),
        [a, b] => Some([a, b, 0.0]),
        _ => None,
    }
}

/// Signs that bring a space's axes to the patient's right, front and upper direction.
fn signs(space: &str) -> Option<[f64; 3]> {
    match space.to_lowercase().as_str() {
        "left-posterior-superior" | "lps" => Some([-1.0, -1.0, 1.0]),
        "right-anterior-superior" | "ras" => Some([1.0; 3]),
        "left-anterior-superior" | "las" => Some([-1.0, 1.0, 1.0]),
        _ => None,
    }
}

/// Reads a file with one number a voxel.
pub fn read(path: &Path) -> Result<Decoded> {
    let (fields, end) = fields(path)?;
    let p = path.display();
    let field = |key: &str| {
        fields.get(key).map(String::as_str).ok_or_else(|| damaged(path, format!("its header has no `{key}`")))
    };
    let wrong = |key: &str| damaged(path, format!("its `{key}` can't be read"));
    let sizes: Option<Vec<usize>> = field("sizes")?.split_whitespace().map(|n| n.parse().ok()).collect();
    let sizes = sizes.ok_or_else(|| wrong("sizes"))?;
    let (mut dims, n) = ([1; 3], sizes.len());
    if !(2..=3).contains(&n) {
        return Err(Error::input(format!(
            "{p} has {n} axes of {sizes:?} where two or three of one number each are needed; save its components or frames one by one"
        )));
    }
    dims[..n].copy_from_slice(&sizes);
    if fields.get("kinds").is_some_and(|k| {
        k.split_whitespace().any(|k| !["domain", "space", "???", "none"].contains(&k.to_lowercase().as_str()))
    }) {
        return Err(Error::input(format!(
            "{p} has an axis that is no space (`kinds: {}`); save its components one by one",
            fields["kinds"]
        )));
    }
    let text = field("type")?;
    let kind = kind(text).ok_or_else(|| {
        Error::input(format!(
            "{p} holds numbers of the type `{text}`, which are not read; save it as short or float"
        ))
    })?;
    let big = match fields.get("endian").map(String::as_str) {
        Some("big") => true,
        Some("little") => false,
        _ if kind.bytes() == 1 => false,
        _ => return Err(damaged(path, "its header has no `endian`")),
    };
    let packing = match field("encoding")?.to_lowercase().as_str() {
        "raw" => Packing::Raw,
        "gzip" | "gz" => Packing::Gzip,
        "text" | "txt" | "ascii" => Packing::Text,
        other => {
            return Err(Error::input(format!(
                "{p} is encoded as `{other}`, which is not read; save it as gzip or raw"
            )));
        }
    };
    if ["line skip", "lineskip"].iter().any(|k| fields.get(*k).is_some_and(|v| v != "0")) {
        return Err(Error::input(format!("{p} has a `line skip`, which is not read; save it again without")));
    }
    let skip = ["byte skip", "byteskip"].iter().find_map(|k| fields.get(*k));
    let skip: i64 = skip.map_or(Ok(0), |v| v.parse()).map_err(|_| wrong("byte skip"))?;
    let beside = ["data file", "datafile"].iter().find_map(|k| fields.get(*k));
    let (file, start) = match beside {
        None => (path.to_path_buf(), end),
        Some(name) if name.contains('%') || name.to_uppercase().starts_with("LIST") => {
            return Err(Error::input(format!(
                "{p} has its voxels in several files, which is not read; save it as one"
            )));
        }
        Some(name) => (path.parent().unwrap_or(Path::new("")).join(name), 0),
    };
    if !file.is_file() {
        return Err(Error::missing(&file));
    }
    let offset = if skip < 0 { None } else { Some(start + skip as u64) };
    let voxels = raw::read(Layout { file: &file, offset, kind, big, packing }, &dims)?;
    let mut notes = Vec::new();
    let affine = geometry(path, &fields, n, &mut notes)?;
    Ok(Decoded { dims, affine, voxels, stored: kind.name().into(), notes })
}

fn geometry(
    path: &Path,
    fields: &BTreeMap<String, String>,
    axes: usize,
    notes: &mut Vec<String>,
) -> Result<Affine> {
    let wrong = |key: &str| damaged(path, format!("its `{key}` can't be read"));
    let mut affine = [[0.0; 4]; 3];
    let signs = match fields.get("space") {
        Some(space) => signs(space).ok_or_else(|| {
            Error::input(format!("{} lies in the space `{space}`, which is not known; write left-posterior-superior or right-anterior-superior", path.display()))
        })?,
        None => {
            notes.push("its header says no space: its axes are taken as the patient's left, back and up".into());
            [-1.0, -1.0, 1.0]
        }
    };
    match fields.get("space directions") {
        Some(text) => {
            let list: Vec<&str> = text.split(')').map(str::trim).filter(|t| !t.is_empty()).collect();
            let directions: Option<Vec<[f64; 3]>> = list.iter().map(|t| vector(&format!("{t})"))).collect();
            let directions =
                directions.filter(|d| d.len() == axes).ok_or_else(|| wrong("space directions"))?;
            for (c, direction) in directions.iter().enumerate() {
                (0..3).for_each(|r| affine[r][c] = signs[r] * direction[r]);
            }
        }
        None => {
            let spacings: Vec<f64> = fields.get("spacings").map_or_else(Vec::new, |t| {
                t.split_whitespace().map(|n| n.parse().unwrap_or(f64::NAN)).collect()
            });
            for c in 0..3 {
                let step = spacings.get(c).copied().filter(|s| s.is_finite() && *s != 0.0).unwrap_or(1.0);
                affine[c][c] = signs[c] * step;
            }
        }
    }
    if axes == 2 {
        // At right angles to the picture.
        let (a, b) = ([affine[0][0], affine[1][0], affine[2][0]], [affine[0][1], affine[1][1], affine[2][1]]);
        let normal = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
        let length = normal.iter().map(|v| v * v).sum::<f64>().sqrt();
        (0..3).for_each(|r| {
            affine[r][2] = if length > 0.0 { normal[r] / length } else { f64::from(u8::from(r == 2)) }
        });
    }
    if let Some(text) = fields.get("space origin") {
        let origin = vector(text).ok_or_else(|| wrong("space origin"))?;
        (0..3).for_each(|r| affine[r][3] = signs[r] * origin[r]);
    }
    if affine.iter().flatten().any(|v| !v.is_finite()) {
        return Err(wrong("space directions"));
    }
    Ok(Affine(affine))
}

/// Writes float32, or uint8 for label maps, compressed.
pub fn write(path: &Path, image: &Decoded, labels: bool) -> Result<()> {
    let a = image.affine.0;
    let [x, y, z] = image.dims;
    let vector = |c: usize| format!("({},{},{})", -a[0][c], -a[1][c], a[2][c]);
    let kind = if labels { "uint8" } else { "float" };
    let header = format!(
        "NRRD0004\ntype: {kind}\ndimension: 3\nspace: left-posterior-superior\nsizes: {x} {y} {z}\nspace directions: {} {} {}\nkinds: domain domain domain\nendian: little\nencoding: gzip\nspace origin: {}\n\n",
        vector(0),
        vector(1),
        vector(2),
        vector(3)
    );
    let bytes = raw::encode(image, labels);
    fsio::write_atomic(path, |out| {
        out.write_all(header.as_bytes())?;
        let mut z = GzEncoder::new(out, Compression::fast());
        z.write_all(&bytes)?;
        z.finish()?.flush()
    })
}
