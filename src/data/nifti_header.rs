//! The header of a NIfTI file, version 1 or 2, either byte order.
//!
//! NIfTI-1 headers are parsed by the `nifti` crate. The rest is ours, because the crate (0.18) does not read NIfTI-2,
//! keeps no raw bytes, replaces scaling and geometry when it writes, and derives output names from stems
//! (`case.01.nii` becomes `case.nii`). We keep the raw header and patch only what a new image changes, so qform,
//! sform, units and all else survive to the byte.
//! Source: nifti1.h and nifti2.h (nifti.nimh.nih.gov), and nibabel's rules where those are silent.

use super::affine::Affine;
use super::nifti_fault::failed;
use crate::error::{Error, Result};
use nifti::{NiftiHeader, NiftiType};
use num_traits::FromPrimitive;
use std::io::Read;
use std::path::Path;

/// Length of a NIfTI-1 header in bytes.
const V1: usize = 348;
/// Length of a NIfTI-2 header in bytes.
const V2: usize = 540;

/// Byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Endian {
    /// "little" or "big".
    pub fn name(self) -> &'static str {
        match self {
            Endian::Little => "little",
            Endian::Big => "big",
        }
    }

    fn read<const N: usize>(self, bytes: &[u8], at: usize) -> [u8; N] {
        let mut b = [0u8; N];
        b.copy_from_slice(&bytes[at..at + N]);
        if self == Endian::Big {
            b.reverse();
        }
        b
    }

    fn write<const N: usize>(self, bytes: &mut [u8], at: usize, mut little: [u8; N]) {
        if self == Endian::Big {
            little.reverse();
        }
        bytes[at..at + N].copy_from_slice(&little);
    }
}

/// The unit of a file's lengths (`xyzt_units`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Not given, or no unit of length: read as mm.
    Unknown,
    /// Metres.
    Metre,
    /// Millimetres.
    Millimetre,
    /// Thousandths of a millimetre.
    Micron,
}

impl Unit {
    /// The code's lowest three bits are the unit of length.
    fn of(xyzt_units: i32) -> Unit {
        match xyzt_units & 7 {
            1 => Unit::Metre,
            2 => Unit::Millimetre,
            3 => Unit::Micron,
            _ => Unit::Unknown,
        }
    }

    /// How many mm it has.
    fn mm(self) -> f64 {
        match self {
            Unit::Metre => 1e3,
            Unit::Millimetre | Unit::Unknown => 1.0,
            Unit::Micron => 1e-3,
        }
    }
}

/// What a header says, with the raw bytes it was read from. Lengths are in mm, whatever the file's unit.

#[derive(Clone, Debug)]
pub struct Header {
    /// The 348 (NIfTI-1) or 540 (NIfTI-2) bytes as stored.
    raw: Vec<u8>,
    /// Byte order.
    pub endian: Endian,
    /// Extents of all stored dimensions (1 to 7 of them), fastest first.
    pub shape: Vec<usize>,
    /// Grid steps of the stored dimensions (mm; the fourth in the file's time unit).
    pub pixdim: Vec<f64>,
    /// Stored number type.
    pub stored: NiftiType,
    /// Factor from stored to real values; 1 where the file asks for no scaling.
    pub slope: f64,
    /// Offset from stored to real values; 0 where the file asks for no scaling.
    pub inter: f64,
    /// NIfTI code of the qform (0: absent).
    pub qform_code: i32,
    /// NIfTI code of the sform (0: absent).
    pub sform_code: i32,
    /// Voxel index to mm by NIfTI's rules: sform, else qform, else the spacing alone as nibabel does it.
    pub affine: Affine,
    /// The unit in which the file has them.
    pub unit: Unit,
    /// The file gives no thickness to an axis along which it has one voxel (a 2-D image): taken as 1 mm.
    pub thickness_assumed: bool,
    /// Where the voxels begin, in bytes.
    pub(super) offset: u64,
    /// Header and voxels are in two files (`.hdr`, `.img`).
    pub(super) pair: bool,
}

impl Header {
    /// Reads a header from the start of a stream. `path` is only for messages.
    pub fn read(path: &Path, stream: &mut impl Read) -> Result<Header> {
        let p = path.display();
        let mut raw = vec![0u8; V1];
        fill(path, stream, &mut raw)?;
        let (version, endian) = match (Endian::Little.read(&raw, 0), Endian::Big.read(&raw, 0)) {
            (a, _) if i32::from_le_bytes(a) == V1 as i32 => (1, Endian::Little),
            (_, b) if i32::from_le_bytes(b) == V1 as i32 => (1, Endian::Big),
            (a, _) if i32::from_le_bytes(a) == V2 as i32 => (2, Endian::Little),
            (_, b) if i32::from_le_bytes(b) == V2 as i32 => (2, Endian::Big),
            _ => {
                return Err(Error::input(format!(
                    "{p} is not a NIfTI file (its first number is neither 348 nor 540); convert the image to .nii or .nii.gz"
                )));
            }
        };
        let fields = if version == 1 {
            Fields::one(&raw, endian).ok_or_else(|| {
                Error::input(format!(
                    "{p} has no NIfTI-1 signature (an Analyze 7.5 file has no orientation); convert it to .nii"
                ))
            })?
        } else {
            raw.resize(V2, 0);
            fill(path, stream, &mut raw[V1..])?;
            Fields::two(&raw, endian).ok_or_else(|| {
                Error::input(format!(
                    "{p} has no valid NIfTI-2 signature; convert it again with a current tool"
                ))
            })?
        };
        Header::from_fields(path, raw, endian, fields)
    }

    /// A NIfTI-1 header for float32 voxels on a new grid: `sform` 1 (scanner), `qform` too where the axes are the
    /// world's, units mm.
    pub fn new(dims: [usize; 3], affine: Affine) -> Result<Header> {
        let mut raw = vec![0u8; V1];
        let e = Endian::Little;
        e.write(&mut raw, 0, (V1 as i32).to_le_bytes());
        raw[38] = b'r';
        raw[123] = 2; // mm
        let straight =
            (0..3).all(|r| (0..3).all(|c| r == c || affine.0[r][c] == 0.0) && affine.0[r][r] > 0.0);
        e.write(&mut raw, 76, 1f32.to_le_bytes());
        for (a, s) in affine.spacing().iter().enumerate() {
            e.write(&mut raw, 80 + 4 * a, (*s as f32).to_le_bytes());
        }
        e.write(&mut raw, 252, i16::from(straight).to_le_bytes());
        e.write(&mut raw, 254, 1i16.to_le_bytes());
        for (r, row) in affine.0.iter().enumerate() {
            if straight {
                e.write(&mut raw, 268 + 4 * r, (row[3] as f32).to_le_bytes());
            }
            for (c, v) in row.iter().enumerate() {
                e.write(&mut raw, 280 + 16 * r + 4 * c, (*v as f32).to_le_bytes());
            }
        }
        let raw = patch(raw, e, dims, 3, 1, NiftiType::Float32, 1.0, 0.0)?;
        Header::read(Path::new("a new volume"), &mut raw.as_slice())
    }

    /// 1 or 2: the NIfTI version.
    pub fn version(&self) -> u8 {
        if self.raw.len() == V1 { 1 } else { 2 }
    }

    /// The stored type's name as numpy has it: "int16", "float32", ...
    pub fn stored_name(&self) -> &'static str {
        type_name(self.stored)
    }

    /// The three spatial extents; missing ones are 1.
    pub fn dims(&self) -> [usize; 3] {
        [0, 1, 2].map(|a| self.shape.get(a).copied().unwrap_or(1))
    }

    /// Number of 3-D frames (the product of all dimensions past the third).
    pub fn frames(&self) -> usize {
        // A damaged header may claim more than can be counted.
        self.shape.iter().skip(3).try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX)
    }

    /// What of its geometry was guessed or converted: sentences for [`super::notes::Notes`].
    pub fn notes(&self) -> Vec<String> {
        let unit = match self.unit {
            Unit::Millimetre => None,
            Unit::Unknown => Some("lengths without a unit (xyzt_units) are read as mm"),
            Unit::Metre => Some("lengths in metres (xyzt_units) are converted to mm"),
            Unit::Micron => Some("lengths in microns (xyzt_units) are converted to mm"),
        };
        let thickness = "the thickness of a single slice, which the file does not give, is taken as 1 mm";
        unit.into_iter().chain(self.thickness_assumed.then_some(thickness)).map(String::from).collect()
    }

    /// Header bytes of a single-file image on the same grid with other voxels: everything is kept (2-D
    /// images stay 2-D) but the number of frames, the number type, the scaling, the display range, the intent and the voxel offset.
    pub(super) fn patched(
        &self,
        frames: usize,
        stored: NiftiType,
        slope: f64,
        inter: f64,
    ) -> Result<Vec<u8>> {
        patch(self.raw.clone(), self.endian, self.dims(), self.shape.len(), frames, stored, slope, inter)
    }

    /// Bytes a stored voxel takes.
    pub(super) fn voxel_bytes(&self) -> usize {
        self.stored.size_of()
    }

    fn from_fields(path: &Path, raw: Vec<u8>, endian: Endian, f: Fields) -> Result<Header> {
        let p = path.display();
        let rank = f.dim[0];
        if !(1..=7).contains(&rank) {
            return Err(Error::input(format!(
                "{p} claims {rank} dimensions (1 to 7 are possible); the file is damaged, fetch or convert it again"
            )));
        }
        let mut shape = Vec::new();
        for (a, &d) in f.dim[1..=rank as usize].iter().enumerate() {
            let d = usize::try_from(d).ok().filter(|d| (1..=i32::MAX as usize).contains(d)).ok_or_else(|| {
                Error::input(format!(
                    "{p} claims the extent {d} along dimension {}; the file is damaged, fetch or convert it again",
                    a + 1
                ))
            })?;
            shape.push(d);
        }
        let stored = NiftiType::from_i16(f.datatype).ok_or_else(|| {
            Error::input(format!(
                "{p} has the unknown number type code {}; the file is damaged or needs converting to float32",
                f.datatype
            ))
        })?;
        // nibabel: a slope of zero or a non-finite one means "no scaling".
        let (slope, inter) =
            if f.slope == 0.0 || !f.slope.is_finite() { (1.0, 0.0) } else { (f.slope, f.inter) };
        if !inter.is_finite() {
            return Err(Error::input(format!(
                "{p} has a valid scl_slope {slope} with the invalid scl_inter {inter}; set scl_inter to 0 in the header"
            )));
        }
        if !(f.vox_offset.is_finite() && (0.0..1e12).contains(&f.vox_offset)) {
            return Err(Error::input(format!(
                "{p} places its voxels at byte {}; the file is damaged, fetch or convert it again",
                f.vox_offset
            )));
        }
        let least = if f.pair { 0 } else { raw.len() as u64 + 4 };
        let unit = Unit::of(f.xyzt_units);
        let (affine, thickness_assumed) = affine_of(path, &f, &shape, unit)?;
        let step = |a: usize| if a <= 3 { f.pixdim[a] * unit.mm() } else { f.pixdim[a] };
        Ok(Header {
            raw,
            endian,
            pixdim: (1..=rank as usize).map(step).collect(),
            shape,
            stored,
            slope,
            inter,
            qform_code: f.qform_code,
            sform_code: f.sform_code,
            affine,
            unit,
            thickness_assumed,
            offset: (f.vox_offset as u64).max(least),
            pair: f.pair,
        })
    }
}

/// numpy's name of a stored type.
pub(super) fn type_name(t: NiftiType) -> &'static str {
    match t {
        NiftiType::Uint8 => "uint8",
        NiftiType::Int16 => "int16",
        NiftiType::Int32 => "int32",
        NiftiType::Float32 => "float32",
        NiftiType::Complex64 => "complex64",
        NiftiType::Float64 => "float64",
        NiftiType::Rgb24 => "rgb24",
        NiftiType::Int8 => "int8",
        NiftiType::Uint16 => "uint16",
        NiftiType::Uint32 => "uint32",
        NiftiType::Int64 => "int64",
        NiftiType::Uint64 => "uint64",
        NiftiType::Float128 => "float128",
        NiftiType::Complex128 => "complex128",
        NiftiType::Complex256 => "complex256",
        NiftiType::Rgba32 => "rgba32",
    }
}

/// The fields that both versions share, widened.
struct Fields {
    dim: [i64; 8],
    datatype: i16,
    pixdim: [f64; 8],
    vox_offset: f64,
    slope: f64,
    inter: f64,
    qform_code: i32,
    sform_code: i32,
    quatern: [f64; 3],
    qoffset: [f64; 3],
    srow: [[f64; 4]; 3],
    xyzt_units: i32,
    pair: bool,
}

impl Fields {
    fn one(raw: &[u8], endian: Endian) -> Option<Fields> {
        let h = NiftiHeader::from_reader(raw).ok()?;
        // The crate guesses the byte order from dim[0]; a file in which that contradicts sizeof_hdr is damaged.
        if h.sizeof_hdr != V1 as i32
            || (h.endianness == nifti::Endianness::Little) != (endian == Endian::Little)
        {
            return None;
        }
        let wide = |v: [f32; 4]| v.map(f64::from);
        Some(Fields {
            // The crate has these unsigned; the format has them signed.
            dim: h.dim.map(|d| i64::from(d as i16)),
            datatype: h.datatype,
            pixdim: h.pixdim.map(f64::from),
            vox_offset: f64::from(h.vox_offset),
            slope: f64::from(h.scl_slope),
            inter: f64::from(h.scl_inter),
            qform_code: i32::from(h.qform_code),
            sform_code: i32::from(h.sform_code),
            quatern: [h.quatern_b, h.quatern_c, h.quatern_d].map(f64::from),
            qoffset: [h.quatern_x, h.quatern_y, h.quatern_z].map(f64::from),
            srow: [wide(h.srow_x), wide(h.srow_y), wide(h.srow_z)],
            xyzt_units: i32::from(raw[123]),
            pair: &h.magic == b"ni1\0",
        })
    }

    fn two(raw: &[u8], e: Endian) -> Option<Fields> {
        let pair = match &raw[4..8] {
            b"n+2\0" => false,
            b"ni2\0" => true,
            _ => return None,
        };
        let int = |at| i64::from_le_bytes(e.read(raw, at));
        let code = |at| i32::from_le_bytes(e.read(raw, at));
        let real = |at| f64::from_le_bytes(e.read(raw, at));
        Some(Fields {
            dim: std::array::from_fn(|a| int(16 + 8 * a)),
            datatype: i16::from_le_bytes(e.read(raw, 12)),
            pixdim: std::array::from_fn(|a| real(104 + 8 * a)),
            vox_offset: int(168) as f64,
            slope: real(176),
            inter: real(184),
            qform_code: code(344),
            sform_code: code(348),
            quatern: std::array::from_fn(|a| real(352 + 8 * a)),
            qoffset: std::array::from_fn(|a| real(376 + 8 * a)),
            srow: std::array::from_fn(|r| std::array::from_fn(|c| real(400 + 32 * r + 8 * c))),
            xyzt_units: code(500),
            pair,
        })
    }
}

/// The affine in mm, and whether an axis of one voxel had no thickness, which 1 mm took the place of.
fn affine_of(path: &Path, f: &Fields, shape: &[usize], unit: Unit) -> Result<(Affine, bool)> {
    let p = path.display();
    let dims = [0, 1, 2].map(|a| shape.get(a).copied().unwrap_or(1));
    let mm = unit.mm();
    // The step along an axis that the file does not have is anything or nothing.
    let mut assumed = false;
    let mut step = |a: usize, given: f64| {
        let given = given.abs() * mm;
        let nothing = dims[a] == 1 && (given == 0.0 || !given.is_finite());
        assumed |= nothing;
        if nothing { 1.0 } else { given }
    };
    let affine = if f.sform_code > 0 {
        let mut affine = Affine(f.srow.map(|r| r.map(|v| v * mm)));
        for a in (0..3).filter(|a| dims[*a] == 1) {
            if affine.spacing()[a] == 0.0 {
                affine.set_normal(a);
                assumed = true;
            }
        }
        affine
    } else if f.qform_code > 0 {
        let qfac = if f.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
        let spacing = [0, 1, 2].map(|a| step(a, f.pixdim[a + 1]));
        let offset = f.qoffset.map(|v| v * mm);
        Affine::from_qform(f.quatern, offset, spacing, qfac).ok_or_else(|| {
            Error::input(format!("{p} has a qform that is no rotation; set the sform or repair the qform"))
        })?
    } else {
        // nibabel's fallback: centred, the first axis running to the left; an axis that the file lacks has step 1.
        let spacing = [0, 1, 2].map(|a| if a < shape.len() { step(a, f.pixdim[a + 1]) } else { 1.0 });
        let mut a = Affine::centred(dims, spacing);
        a.0[0].iter_mut().for_each(|v| *v = -*v);
        a
    };
    let volume: f64 = affine.spacing().iter().product();
    if !affine.0.iter().flatten().all(|v| v.is_finite()) || volume <= 0.0 {
        return Err(Error::input(format!(
            "{p} has an affine that is not usable ({affine}); set the sform or the spacing in its header"
        )));
    }
    Ok((affine, assumed))
}

/// Reads exactly `buf.len()` bytes of a header.
fn fill(path: &Path, stream: &mut impl Read, buf: &mut [u8]) -> Result<()> {
    stream.read_exact(buf).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::input(format!(
            "{} ends inside its header; the copy is incomplete or it is no NIfTI file, fetch it again",
            path.display()
        )),
        _ => failed(path, e),
    })
}

fn patch(
    mut raw: Vec<u8>,
    e: Endian,
    dims: [usize; 3],
    rank: usize,
    frames: usize,
    stored: NiftiType,
    slope: f64,
    inter: f64,
) -> Result<Vec<u8>> {
    let mut dim = [3, dims[0], dims[1], dims[2], frames, 1, 1, 1];
    // A 2-D image stays one: with a third axis, the step along it, which may be nothing, would begin to count.
    dim[0] = if frames > 1 { 4 } else { rank.min(3) };
    let bits = (8 * stored.size_of()) as i16;
    if raw.len() == V1 {
        for (a, d) in dim.iter().enumerate() {
            let d = i16::try_from(*d).map_err(|_| {
                Error::input(format!(
                    "an extent of {d} does not fit NIfTI-1 (32767 at most); crop the volume"
                ))
            })?;
            e.write(&mut raw, 40 + 2 * a, d.to_le_bytes());
        }
        e.write(&mut raw, 68, 0i16.to_le_bytes()); // intent_code
        e.write(&mut raw, 70, (stored as i16).to_le_bytes());
        e.write(&mut raw, 72, bits.to_le_bytes());
        e.write(&mut raw, 108, ((V1 + 4) as f32).to_le_bytes());
        e.write(&mut raw, 112, (slope as f32).to_le_bytes());
        e.write(&mut raw, 116, (inter as f32).to_le_bytes());
        raw[124..132].fill(0); // cal_max, cal_min
        raw[328..344].fill(0); // intent_name
        raw[344..348].copy_from_slice(b"n+1\0");
    } else {
        raw[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n");
        e.write(&mut raw, 12, (stored as i16).to_le_bytes());
        e.write(&mut raw, 14, bits.to_le_bytes());
        for (a, d) in dim.iter().enumerate() {
            e.write(&mut raw, 16 + 8 * a, (*d as i64).to_le_bytes());
        }
        e.write(&mut raw, 168, ((V2 + 4) as i64).to_le_bytes());
        e.write(&mut raw, 176, slope.to_le_bytes());
        e.write(&mut raw, 184, inter.to_le_bytes());
        raw[192..208].fill(0); // cal_max, cal_min
        e.write(&mut raw, 504, 0i32.to_le_bytes()); // intent_code
        raw[508..524].fill(0); // intent_name
    }
    Ok(raw)
}
