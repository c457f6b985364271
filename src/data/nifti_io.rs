//! Volumes: NIfTI files in, NIfTI files out.
//!
//! Reading undoes slope and intercept in f64 and keeps f32. Writing keeps the geometry of a reference header to the
//! byte ([`super::nifti_header`] says why we do not use the `nifti` crate's reader and writer for voxels; besides, its
//! reader trusts the extents of a damaged header with an allocation, and a NaN slope makes a volume of NaN).

use super::affine::Affine;
use super::nifti_header::{Endian, Header};
use crate::error::{Error, Result};
use crate::fsio;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use nifti::NiftiType;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// A 3-D image (or several frames of one) with its geometry.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Values after slope and intercept; `i` runs fastest, then `j`, `k`, frame (Fortran order, as in the file).
    pub voxels: Vec<f32>,
    /// Extents along i, j, k.
    pub dims: [usize; 3],
    /// Number of frames; 1 for an ordinary volume.
    pub frames: usize,
    /// The header it was read with, or was made like.
    pub header: Header,
    /// The file it came from; empty for a computed volume.
    pub path: PathBuf,
    /// What was guessed or replaced in reading it: sentences for [`super::notes::Notes`], without the file's name.
    pub notes: Vec<String>,
}

/// What to do with NaN and infinities in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NanPolicy {
    /// Refuse the file (the default): a silent hole in the data is worse.
    #[default]
    Error,
    /// Replace them by zero.
    Zero,
}

/// Which frames of a 4-D file to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frame {
    /// The file must hold one (the default).
    #[default]
    Only,
    /// This one, counted from 0.
    Index(usize),
    /// All.
    All,
}

/// How to read a volume.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// NaN and infinities.
    pub nan: NanPolicy,
    /// Frames of a 4-D file.
    pub frame: Frame,
}

/// How [`Volume::save_as`] stores the numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stored {
    /// 32-bit floats, slope 1, intercept 0.
    Float32,
    /// Whole numbers 0 to 255 (labels); other values are rounded and clamped.
    Uint8,
    /// Value = stored * slope; rounded and clamped to 16 bits.
    Int16 {
        /// Size of a step.
        slope: f32,
    },
}

impl Volume {
    /// Reads a `.nii`, `.nii.gz` or `.hdr`/`.img` file that holds one frame of finite real numbers.
    pub fn load(path: impl AsRef<Path>) -> Result<Volume> {
        Self::load_with(path, LoadOptions::default())
    }

    /// Reads a file; see [`LoadOptions`]. Compression is recognised by content, not by name.
    pub fn load_with(path: impl AsRef<Path>, options: LoadOptions) -> Result<Volume> {
        let path = path.as_ref();
        let (header, mut stream, voxel_file) = open(path)?;
        let p = path.display();
        refuse_types(path, header.stored)?;
        let frames = header.frames();
        let (first, count) = match options.frame {
            Frame::All => (0, frames),
            Frame::Only if frames == 1 => (0, 1),
            Frame::Only => {
                return Err(Error::input(format!(
                    "{p} holds {frames} frames where one volume is needed; choose one with `data.frame = 0` to `data.frame = {}` in the recipe, or split or average the file",
                    frames - 1
                )));
            }
            Frame::Index(k) if k < frames => (k, 1),
            Frame::Index(k) => {
                return Err(Error::input(format!(
                    "{p} has no frame {k}: it holds {frames}, counted from 0; choose another with `data.frame`"
                )));
            }
        };
        let damaged =
            || Error::input(format!("{p} claims an impossible size; the file is damaged, fetch it again"));
        let dims = header.dims();
        let per_frame = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(damaged)?;
        let size = header.voxel_bytes();
        let frame_bytes = per_frame.checked_mul(size).ok_or_else(damaged)?;
        let skip = (first as u64).checked_mul(frame_bytes as u64).ok_or_else(damaged)?;
        let wanted = frame_bytes.checked_mul(count).ok_or_else(damaged)?;

        let reading = |e: io::Error| match e.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Error::input(format!(
                    "{} is truncated or damaged ({e}); fetch or compress it again",
                    voxel_file.display()
                ))
            }
            _ => Error::io("read", &voxel_file)(e),
        };
        io::copy(&mut (&mut stream).take(skip), &mut io::sink()).map_err(reading)?;
        // The buffer grows with what is there, not with what the header promises.
        let mut bytes = Vec::with_capacity(wanted.min(1 << 26));
        (&mut stream).take(wanted as u64).read_to_end(&mut bytes).map_err(reading)?;
        if bytes.len() < wanted {
            return Err(Error::input(format!(
                "{} ends after {} of {wanted} bytes of voxels; the copy is incomplete, fetch it again",
                voxel_file.display(),
                bytes.len()
            )));
        }
        // To the end, so that a compressed file's checksum is verified.
        io::copy(&mut stream, &mut io::sink()).map_err(reading)?;

        let mut voxels = decode(&bytes, &header);
        let bad = voxels.iter().filter(|v| !v.is_finite()).count();
        if bad > 0 {
            match options.nan {
                NanPolicy::Zero => voxels.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = 0.0),
                NanPolicy::Error => {
                    return Err(Error::input(format!(
                        "{p} holds {bad} voxels that are NaN or infinite; clean the file, or set `data.nan = \"zero\"` in the recipe to read them as 0"
                    )));
                }
            }
        }
        Ok(Volume { voxels, dims, frames: count, header, path: path.to_path_buf(), notes: Vec::new() })
    }

    /// A new volume on a grid of its own.
    pub fn new(dims: [usize; 3], affine: Affine, voxels: Vec<f32>) -> Result<Volume> {
        let header = Header::new(dims, affine)?;
        assert_eq!(voxels.len(), dims.iter().product::<usize>(), "one value per voxel");
        Ok(Volume { voxels, dims, frames: 1, header, path: PathBuf::new(), notes: Vec::new() })
    }

    /// A volume with other values on the grid of `reference` (one frame): its affine, qform, sform, units, version
    /// and byte order.
    pub fn like(reference: &Volume, voxels: Vec<f32>) -> Volume {
        assert_eq!(voxels.len(), reference.dims.iter().product::<usize>(), "one value per voxel");
        Volume {
            voxels,
            dims: reference.dims,
            frames: 1,
            header: reference.header.clone(),
            path: PathBuf::new(),
            notes: Vec::new(),
        }
    }

    /// Voxel index to mm.
    pub fn affine(&self) -> Affine {
        self.header.affine
    }

    /// Voxel edge lengths in mm.
    pub fn spacing(&self) -> [f64; 3] {
        self.header.affine.spacing()
    }

    /// "RAS", "LPS", ...
    pub fn axis_codes(&self) -> String {
        self.header.affine.axis_codes()
    }

    /// Writes float32 with slope 1 and intercept 0, atomically; `.nii.gz` compresses, `.nii` does not.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_as(path, Stored::Float32)
    }

    /// Writes with a chosen number type, atomically. Header extensions of the original are left out.
    pub fn save_as(&self, path: impl AsRef<Path>, stored: Stored) -> Result<()> {
        let path = path.as_ref();
        let name = path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let gz = name.ends_with(".nii.gz");
        if !gz && !name.ends_with(".nii") {
            return Err(Error::input(format!(
                "cannot write {}: a volume's name must end in .nii or .nii.gz; rename the output",
                path.display()
            )));
        }
        let (kind, slope) = match stored {
            Stored::Float32 => (NiftiType::Float32, 1.0),
            Stored::Uint8 => (NiftiType::Uint8, 1.0),
            Stored::Int16 { slope } => (NiftiType::Int16, slope),
        };
        let head = self.header.patched(self.frames, kind, f64::from(slope), 0.0)?;
        let body = encode(&self.voxels, stored, self.header.endian);
        fsio::write_atomic(path, |out| {
            if gz {
                // Level 1: noisy images hardly shrink further, and level 6 takes six times as long.
                let mut z = GzEncoder::new(out, Compression::fast());
                z.write_all(&head)?;
                z.write_all(&[0; 4])?;
                z.write_all(&body)?;
                z.finish()?.flush()
            } else {
                out.write_all(&head)?;
                out.write_all(&[0; 4])?;
                out.write_all(&body)
            }
        })
    }
}

/// Reads the header alone (of a `.hdr` too, whether or not its `.img` is there).
pub fn inspect(path: impl AsRef<Path>) -> Result<Header> {
    let path = path.as_ref();
    Header::read(path, &mut decompressed(path)?)
}

/// Header, stream at the first voxel, and the file that the stream reads.
fn open(path: &Path) -> Result<(Header, Box<dyn Read>, PathBuf)> {
    let head_file = sibling(path, ".img", ".hdr").unwrap_or_else(|| path.to_path_buf());
    let mut stream = decompressed(&head_file)?;
    let header = Header::read(&head_file, &mut stream)?;
    if !header.pair {
        let gap = header.offset.saturating_sub(if header.version() == 1 { 348 } else { 540 });
        let skipped = io::copy(&mut (&mut stream).take(gap), &mut io::sink());
        if skipped.as_ref().is_ok_and(|&n| n < gap) || skipped.is_err() {
            return Err(Error::input(format!(
                "{} is truncated or damaged before its first voxel; fetch it again",
                path.display()
            )));
        }
        return Ok((header, stream, head_file));
    }
    let image = sibling(&head_file, ".hdr", ".img").ok_or_else(|| {
        Error::input(format!(
            "{} says that its voxels are in a second file, but its name does not end in .hdr; rename the pair to .hdr and .img",
            head_file.display()
        ))
    })?;
    if !image.is_file() {
        return Err(Error::input(format!(
            "{} is a header alone: there is no {} beside it; put it there or use a .nii file",
            head_file.display(),
            image.display()
        )));
    }
    let mut stream = decompressed(&image)?;
    io::copy(&mut (&mut stream).take(header.offset), &mut io::sink()).map_err(Error::io("read", &image))?;
    Ok((header, stream, image))
}

/// `a.img.gz` from `a.hdr.gz`, in either direction; `None` if the name does not end in `from`.
fn sibling(path: &Path, from: &str, to: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    ["", ".gz"].iter().find_map(|gz| {
        let stem = name.strip_suffix(&format!("{from}{gz}"))?;
        Some(path.with_file_name(format!("{stem}{to}{gz}")))
    })
}

/// The file's content, unpacked where it begins with gzip's signature.
fn decompressed(path: &Path) -> Result<Box<dyn Read>> {
    if path.is_dir() {
        return Err(Error::input(format!(
            "{} is a folder, not a NIfTI file; name the file itself",
            path.display()
        )));
    }
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::io("read", path))?);
    let gz = file.fill_buf().map_err(Error::io("read", path))?.starts_with(&[0x1f, 0x8b]);
    Ok(if gz { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

fn refuse_types(path: &Path, stored: NiftiType) -> Result<()> {
    let p = path.display();
    match stored {
        NiftiType::Complex64 | NiftiType::Complex128 | NiftiType::Complex256 => Err(Error::input(format!(
            "{p} holds complex numbers, which have no single intensity; save its magnitude (or phase) as a real image first"
        ))),
        NiftiType::Rgb24 | NiftiType::Rgba32 => Err(Error::input(format!(
            "{p} holds colours (RGB), not intensities; save one channel or the grey value as a real image first"
        ))),
        NiftiType::Float128 => Err(Error::input(format!(
            "{p} holds 128-bit floats, which are not portable; save it as float32 first"
        ))),
        _ => Ok(()),
    }
}

/// Stored bytes to values, scaled in f64. The type has passed [`refuse_types`].
fn decode(bytes: &[u8], header: &Header) -> Vec<f32> {
    let (slope, inter) = (header.slope, header.inter);
    macro_rules! each {
        ($t:ty) => {{
            const N: usize = size_of::<$t>();
            let whole = bytes.chunks_exact(N);
            let scaled = |v: $t| (v as f64 * slope + inter) as f32;
            match header.endian {
                Endian::Little => {
                    whole.map(|c| scaled(<$t>::from_le_bytes(std::array::from_fn(|i| c[i])))).collect()
                }
                Endian::Big => {
                    whole.map(|c| scaled(<$t>::from_be_bytes(std::array::from_fn(|i| c[i])))).collect()
                }
            }
        }};
    }
    match header.stored {
        NiftiType::Uint8 => each!(u8),
        NiftiType::Int8 => each!(i8),
        NiftiType::Int16 => each!(i16),
        NiftiType::Uint16 => each!(u16),
        NiftiType::Int32 => each!(i32),
        NiftiType::Uint32 => each!(u32),
        NiftiType::Int64 => each!(i64),
        NiftiType::Uint64 => each!(u64),
        NiftiType::Float32 => each!(f32),
        NiftiType::Float64 => each!(f64),
        other => unreachable!("{other:?} was refused"),
    }
}

fn encode(voxels: &[f32], stored: Stored, endian: Endian) -> Vec<u8> {
    let little = endian == Endian::Little;
    match stored {
        Stored::Float32 if little => voxels.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Stored::Float32 => voxels.iter().flat_map(|v| v.to_be_bytes()).collect(),
        Stored::Uint8 => voxels.iter().map(|v| v.round() as u8).collect(),
        Stored::Int16 { slope } => voxels
            .iter()
            .map(|v| (v / slope).round() as i16)
            .flat_map(|v| if little { v.to_le_bytes() } else { v.to_be_bytes() })
            .collect(),
    }
}
