//! Volumes: NIfTI files, and those of [`super::formats`], in and out.
//!
//! Reading undoes slope and intercept in f64 and keeps f32. Writing keeps the geometry of a reference header to the
//! byte ([`super::nifti_header`] says why we do not use the `nifti` crate's reader and writer for voxels; besides, its
//! reader trusts the extents of a damaged header with an allocation, and a NaN slope makes a volume of NaN).

use super::affine::Affine;
use super::formats::{self, Format};
use super::nifti_fault;
use super::nifti_header::Header;
use super::nifti_stream;
use super::nifti_values::{self, Decoded, encode, refuse_types};
use crate::error::{Error, Result};
use crate::fsio;
use flate2::Compression;
use flate2::write::GzEncoder;
use nifti::NiftiType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub use super::nifti_values::{Statistics, Stored};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NanPolicy {
    /// Refuse the file (the default): a silent hole in the data is worse.
    #[default]
    Error,
    /// Replace them by zero.
    Zero,
    /// Keep them; not for training.
    #[serde(skip)]
    Keep,
}

/// Which frames of a 4-D file to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frame {
    /// The file must hold one (the default).
    #[default]
    Only,
    /// This one, counted from 0; of a file that holds one only, that.
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
    /// A recipe says so, and messages may name its keys.
    pub recipe: bool,
}

impl Volume {
    /// Reads a `.nii`, `.nii.gz` or `.hdr`/`.img` file, or one of [`super::formats`], that holds one frame of finite real
    /// numbers.
    pub fn load(path: impl AsRef<Path>) -> Result<Volume> {
        Self::load_with(path, LoadOptions::default())
    }

    /// Reads a file; see [`LoadOptions`]. Compression is recognised by content, not by name.
    pub fn load_with(path: impl AsRef<Path>, options: LoadOptions) -> Result<Volume> {
        let path = path.as_ref();
        if let Some(format) = formats::recognise(path) {
            let image = formats::read(path, format)?;
            let header = image.header()?;
            let volume = Volume {
                voxels: image.voxels,
                dims: image.dims,
                frames: 1,
                header,
                path: path.to_path_buf(),
                notes: image.notes,
            };
            return volume.finite(options);
        }
        let p = path.display();
        let key = |text: &str| if options.recipe { format!("{text}, or ") } else { String::new() };
        let mut notes = Vec::new();
        let read = Bytes::read(path, |header| {
            let frames = header.frames();
            match options.frame {
                Frame::All => Ok((0, frames)),
                Frame::Only if frames == 1 => Ok((0, 1)),
                Frame::Only => {
                    let last = frames - 1;
                    let way_out = key(&format!(
                        "choose one with `data.frame = 0` to `data.frame = {last}` in the recipe"
                    ));
                    Err(Error::input(format!(
                        "{p} holds {frames} frames (its shape is {:?}) where one volume is needed; {way_out}split or average the file",
                        header.shape
                    )))
                }
                // Of label maps beside 4-D images, say.
                Frame::Index(k) if frames == 1 => {
                    if k > 0 {
                        notes.push("one frame only, which is read whatever `data.frame` says".to_string());
                    }
                    Ok((0, 1))
                }
                Frame::Index(k) if k < frames => Ok((k, 1)),
                Frame::Index(k) => Err(Error::input(format!(
                    "{p} has no frame {k}: it holds {frames}, counted from 0; choose another with `data.frame`"
                ))),
            }
        })?;
        let header = read.header;
        notes.extend(header.notes());
        if read.behind > 0 {
            notes.push("bytes behind the last voxel are left out".into());
        }
        let Decoded { voxels, rounded } = nifti_values::decode(path, &read.bytes, &header)?;
        if rounded > 0 {
            notes.push("whole numbers beyond 2^24 are rounded to float32".into());
        }
        let dims = header.dims();
        let volume = Volume { voxels, dims, frames: read.frames, header, path: path.to_path_buf(), notes };
        volume.finite(options)
    }

    /// Refuses, replaces or keeps what is no number.
    fn finite(mut self, options: LoadOptions) -> Result<Volume> {
        let bad = self.voxels.iter().filter(|v| !v.is_finite()).count();
        match options.nan {
            _ if bad == 0 => {}
            NanPolicy::Keep => {}
            NanPolicy::Zero => {
                self.voxels.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = 0.0);
                self.notes.push("NaN and infinite voxels are read as 0 (`data.nan`)".into());
            }
            NanPolicy::Error => {
                let way_out = if options.recipe {
                    ", or set `data.nan = \"zero\"` in the recipe to read them as 0"
                } else {
                    ""
                };
                return Err(Error::input(format!(
                    "{} holds {bad} voxels that are NaN or infinite; clean the file{way_out}",
                    self.path.display()
                )));
            }
        }
        Ok(self)
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

    /// Writes float32 with slope 1 and intercept 0, atomically; `.nii.gz` compresses, `.nii` does not. `.nrrd`, `.mha` and `.png`
    /// are written as these.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_as(path, Stored::Float32)
    }

    /// Writes with a chosen number type, atomically. Header extensions of the original are left out.
    pub fn save_as(&self, path: impl AsRef<Path>, stored: Stored) -> Result<()> {
        let path = path.as_ref();
        let name = path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let gz = name.ends_with(".nii.gz");
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let formats = [Format::Png, Format::Nrrd, Format::Meta];
        if let Some(format) = formats.into_iter().find(|f| extension == f.extension()) {
            let image = formats::Decoded {
                dims: self.dims,
                affine: self.affine(),
                voxels: self.voxels.clone(),
                stored: String::new(),
                notes: Vec::new(),
            };
            return formats::write(path, format, &image, matches!(stored, Stored::Uint8));
        }
        if !gz && !name.ends_with(".nii") {
            return Err(Error::input(format!(
                "cannot write {}: a volume's name must end in .nii.gz, .nii, .nrrd, .mha or .png; rename the output",
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

/// Reads the header alone (of a `.hdr` too, whether or not its `.img` is there; of an `.img` that of its `.hdr`).
pub fn inspect(path: impl AsRef<Path>) -> Result<Header> {
    let path = path.as_ref();
    match formats::recognise(path) {
        Some(format) => formats::read(path, format)?.header(),
        None => nifti_stream::header(path),
    }
}

/// What a file's values are like, all frames together, whatever they are.
pub fn statistics(path: impl AsRef<Path>) -> Result<Statistics> {
    let path = path.as_ref();
    let bytes = Bytes::read(path, |header| Ok((0, header.frames())))?;
    Ok(nifti_values::statistics(&bytes.bytes, &bytes.header, bytes.behind))
}

/// Stored bytes of some of a file's frames.
struct Bytes {
    header: Header,
    frames: usize,
    bytes: Vec<u8>,
    /// Bytes behind the last frame that the header promises.
    behind: u64,
}

impl Bytes {
    /// Reads the frames (the first, and how many) that `choose` wants of a file of this header.
    fn read(path: &Path, choose: impl FnOnce(&Header) -> Result<(usize, usize)>) -> Result<Bytes> {
        let (header, mut stream, voxel_file) = nifti_stream::open(path)?;
        refuse_types(path, header.stored)?;
        let (first, count) = choose(&header)?;
        let damaged = || {
            Error::input(format!(
                "{} claims an impossible size; the file is damaged, fetch it again",
                path.display()
            ))
        };
        let per_frame =
            header.dims().iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(damaged)?;
        let frame_bytes = per_frame.checked_mul(header.voxel_bytes()).ok_or_else(damaged)?;
        let skip = (first as u64).checked_mul(frame_bytes as u64).ok_or_else(damaged)?;
        let wanted = frame_bytes.checked_mul(count).ok_or_else(damaged)?;
        let left = (header.frames() - first - count) as u64;
        let unread = left.checked_mul(frame_bytes as u64).ok_or_else(damaged)?;

        let reading = |e| nifti_fault::failed(&voxel_file, e);
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
        let rest = io::copy(&mut stream, &mut io::sink()).map_err(reading)?;
        if rest < unread {
            return Err(Error::input(format!(
                "{} ends before its last frame; the copy is incomplete, fetch it again",
                voxel_file.display()
            )));
        }
        Ok(Bytes { header, frames: count, bytes, behind: rest - unread })
    }
}
