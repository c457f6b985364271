//! Stored bytes to values and back, and what a file's values are like.

use super::nifti_header::{Endian, Header};
use crate::error::{Error, Result};
use nifti::NiftiType;
use std::path::Path;

/// How [`super::Volume::save_as`] stores the numbers.
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

/// Whole numbers up to this are exact in float32.
const EXACT: f64 = (1u32 << 24) as f64;

/// A power of two by which the largest numbers become small enough to be added.
const SCALE: f64 = 1.0 / (1u64 << 40) as f64;

/// What has no single intensity per voxel is refused, with the way out.
pub(super) fn refuse_types(path: &Path, stored: NiftiType) -> Result<()> {
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

/// Calls `see` with every value, scaled in f64. The type has passed [`refuse_types`].
fn each(bytes: &[u8], header: &Header, mut see: impl FnMut(f64)) {
    let (slope, inter) = (header.slope, header.inter);
    macro_rules! all {
        ($t:ty) => {{
            const N: usize = size_of::<$t>();
            let whole = bytes.chunks_exact(N).map(|c| std::array::from_fn::<u8, N, _>(|i| c[i]));
            match header.endian {
                Endian::Little => whole.for_each(|c| see(<$t>::from_le_bytes(c) as f64 * slope + inter)),
                Endian::Big => whole.for_each(|c| see(<$t>::from_be_bytes(c) as f64 * slope + inter)),
            }
        }};
    }
    match header.stored {
        NiftiType::Uint8 => all!(u8),
        NiftiType::Int8 => all!(i8),
        NiftiType::Int16 => all!(i16),
        NiftiType::Uint16 => all!(u16),
        NiftiType::Int32 => all!(i32),
        NiftiType::Uint32 => all!(u32),
        NiftiType::Int64 => all!(i64),
        NiftiType::Uint64 => all!(u64),
        NiftiType::Float32 => all!(f32),
        NiftiType::Float64 => all!(f64),
        other => unreachable!("{other:?} was refused"),
    }
}

/// Values as float32, and how many whole numbers lost digits on the way.
pub(super) struct Decoded {
    pub voxels: Vec<f32>,
    pub rounded: usize,
}

/// Stored bytes to float32. Values beyond its range are refused: they would become infinities, or all zero.
pub(super) fn decode(path: &Path, bytes: &[u8], header: &Header) -> Result<Decoded> {
    let whole_numbers = !matches!(header.stored, NiftiType::Float32 | NiftiType::Float64);
    let unscaled = header.slope == 1.0 && header.inter == 0.0;
    let (mut beyond, mut most, mut rounded) = (0usize, 0f64, 0usize);
    let mut voxels = Vec::with_capacity(bytes.len() / header.voxel_bytes());
    each(bytes, header, |v| {
        let short = v as f32;
        if v.is_finite() {
            most = most.max(v.abs());
            beyond += usize::from(!short.is_finite());
            rounded += usize::from(whole_numbers && unscaled && v.abs() > EXACT && f64::from(short) != v);
        }
        voxels.push(short);
    });
    let p = path.display();
    if beyond > 0 {
        return Err(Error::input(format!(
            "{p} holds {beyond} voxels beyond float32, in which everything is computed (values up to {most:e}, the limit is {:e}); correct or rescale the image, and save it as float32",
            f32::MAX
        )));
    }
    if most > 0.0 && most < f64::from(f32::MIN_POSITIVE) {
        return Err(Error::input(format!(
            "{p} holds no value larger than {most:e}, too small for float32, in which everything is computed; rescale the image, and save it as float32"
        )));
    }
    Ok(Decoded { voxels, rounded })
}

/// What a file's values are like, all frames together, in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Voxels in all.
    pub voxels: usize,
    /// How many are NaN.
    pub nan: usize,
    /// How many are infinite.
    pub infinite: usize,
    /// How many are finite, but beyond float32.
    pub beyond_f32: usize,
    /// Smallest and largest finite value; `None` if there is none.
    pub range: Option<[f64; 2]>,
    /// Mean of the finite values; NaN if there is none.
    pub mean: f64,
    /// Bytes of the file behind the last voxel.
    pub behind: u64,
}

pub(super) fn statistics(bytes: &[u8], header: &Header, behind: u64) -> Statistics {
    let (mut voxels, mut nan, mut infinite, mut beyond_f32) = (0usize, 0usize, 0usize, 0usize);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    // Neumaier's sum: what each addition rounds away is kept aside.
    let [mut sum, mut lost] = [0f64; 2];
    each(bytes, header, |v| {
        voxels += 1;
        if v.is_finite() {
            (low, high) = (low.min(v), high.max(v));
            // The sum of values near f64's limit would be beyond it.
            let small = v * SCALE;
            let next = sum + small;
            lost += if sum.abs() >= small.abs() { (sum - next) + small } else { (small - next) + sum };
            sum = next;
            beyond_f32 += usize::from(!(v as f32).is_finite());
        } else if v.is_nan() {
            nan += 1;
        } else {
            infinite += 1;
        }
    });
    let finite = (voxels - nan - infinite) as f64;
    let mean = (sum + lost) / finite / SCALE;
    let range = (finite > 0.0).then_some([low, high]);
    Statistics { voxels, nan, infinite, beyond_f32, range, mean, behind }
}

pub(super) fn encode(voxels: &[f32], stored: Stored, endian: Endian) -> Vec<u8> {
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
