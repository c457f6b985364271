//! The bytes of a NIfTI file: found, opened and unpacked, with what is wrong said for what it is.

use super::names::{self, Kind};
use super::nifti_fault::{Behind, failed};
use super::nifti_header::Header;
use crate::error::{Error, Result};
use flate2::bufread::GzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// What a compressed file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Header, stream at the first voxel, and the file that the stream reads.
pub(super) fn open(path: &Path) -> Result<(Header, Box<dyn Read>, PathBuf)> {
    let head_file = header_file(path)?;
    let mut stream = decompressed(&head_file)?;
    let header = Header::read(&head_file, &mut stream)?;
    if !header.pair {
        let gap = header.offset.saturating_sub(if header.version() == 1 { 348 } else { 540 });
        let skipped = io::copy(&mut (&mut stream).take(gap), &mut io::sink());
        if skipped.map_err(|e| failed(&head_file, e))? < gap {
            return Err(Error::input(format!(
                "{} is truncated or damaged before its first voxel; fetch it again",
                path.display()
            )));
        }
        return Ok((header, stream, head_file));
    }
    let image = names::other_half(&head_file).ok_or_else(|| {
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
    io::copy(&mut (&mut stream).take(header.offset), &mut io::sink()).map_err(|e| failed(&image, e))?;
    Ok((header, stream, image))
}

/// Reads the header alone (of a `.hdr` too, whether or not its `.img` is there; of an `.img` that of its `.hdr`).
pub(super) fn header(path: &Path) -> Result<Header> {
    let file = header_file(path)?;
    Header::read(&file, &mut decompressed(&file)?)
}

/// The file that holds the header: the `.hdr` of an `.img`, else the file itself.
fn header_file(path: &Path) -> Result<PathBuf> {
    let lonely = |hdr: &Path| {
        Error::input(format!(
            "{} holds voxels alone: there is no {} beside it; put it there or use a .nii file",
            path.display(),
            hdr.display()
        ))
    };
    match names::image(path).map(|n| n.kind).zip(names::other_half(path)) {
        Some((Kind::Img, hdr)) if hdr.is_file() => Ok(hdr),
        Some((Kind::Img, hdr)) if path.is_file() => {
            // Some name a single file so.
            let mut start = [0u8; 4];
            let whole = decompressed(path)?.read_exact(&mut start).is_ok();
            let size = [i32::from_le_bytes(start), i32::from_be_bytes(start)];
            if whole && size.iter().any(|n| [348, 540].contains(n)) {
                Ok(path.to_path_buf())
            } else {
                Err(lonely(&hdr))
            }
        }
        _ => Ok(path.to_path_buf()),
    }
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
    let start = file.fill_buf().map_err(Error::io("read", path))?;
    if start.starts_with(&GZIP) {
        return Ok(Box::new(Gunzip { member: Some(GzDecoder::new(file)), first: true, began: false }));
    }
    if let Some(what) = other_format(start) {
        return Err(Error::input(format!("{} is not a NIfTI file but {what}", path.display())));
    }
    Ok(Box::new(file))
}

/// What a file is that begins so, and the way out, where it is something that stands in the place of an image now and then.
fn other_format(start: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 8] = [
        (b"PK\x03\x04", "a zip archive (as PyTorch's files are: gan import); unpack it first"),
        (b"BZh", "compressed by bzip2; unpack it first (bunzip2), or compress it with gzip"),
        (b"\xfd7zXZ", "compressed by xz; unpack it first (unxz), or compress it with gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it first (unzstd), or compress it with gzip"),
        (b"version https://git-lfs", "a pointer of Git LFS; fetch the image (git lfs pull)"),
        (b"/annex/objects/", "a pointer of git-annex; fetch the image (datalad get, or git annex get)"),
        (b"<", "a page of HTML or XML, as servers send in the place of a file; fetch the image again"),
        (b"\x89HDF", "an HDF5 file (such as MINC 2); convert it to .nii.gz"),
    ];
    if start.get(128..132) == Some(b"DICM") {
        return Some("a DICOM file; convert its series to .nii.gz (dcm2niix)");
    }
    kinds.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what)
}

/// Unpacks as gzip does: all members one after another, and zeros between and behind them (tapes and block devices pad
/// so) mean nothing. flate2's own reader of several members takes the zeros for a damaged one.
struct Gunzip<R: BufRead> {
    /// The member being read; none at the end.
    member: Option<GzDecoder<R>>,
    /// It is the file's first.
    first: bool,
    /// A byte of it has been read.
    began: bool,
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let (Some(member), false) = (&mut self.member, buf.is_empty()) {
            match member.read(buf) {
                Ok(0) => {}
                Ok(n) => {
                    self.began = true;
                    return Ok(n);
                }
                // What only begins like a member is none.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput && !self.first && !self.began => {
                    let rest = self.member.take().map(GzDecoder::into_inner);
                    return Err(behind(rest.map_or(Ok(0), |mut r| io::copy(&mut r, &mut io::sink()))? + 2));
                }
                Err(e) => return Err(e),
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            match skip_zeros(&mut rest)? {
                None => {}
                Some(next) if next == GZIP[0] => {
                    (self.first, self.began) = (false, false);
                    self.member = Some(GzDecoder::new(rest));
                }
                Some(_) => return Err(behind(io::copy(&mut rest, &mut io::sink())?)),
            }
        }
        Ok(0)
    }
}

fn behind(bytes: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Behind(bytes))
}

/// The first byte that is not zero, not yet consumed; none at the end.
fn skip_zeros(stream: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let bytes = stream.fill_buf()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        let next = bytes.get(zeros).copied();
        stream.consume(zeros);
        if next.is_some() {
            return Ok(next);
        }
    }
}
