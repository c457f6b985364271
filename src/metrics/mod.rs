//! Measures of images, masks and runs of cases. Everything is computed in f64, whatever the input holds.
//!
//! Volumes are slices of numbers in row-major order with extents `[depth, height, width]` (width runs fastest); a
//! depth of 1 is a 2D image. Masks have one `bool` per voxel. Nothing here takes its data range from the image: a
//! maximum taken per image would make scores of different cases incomparable.
//!
//! Numbers that are not finite are never dropped: they pass through to the score, and [`case::Summary`] counts them.

pub mod baseline;
pub mod case;
pub mod classification;
pub mod distribution;
pub mod diversity;
pub mod features;
pub mod filters;
pub mod image;
pub mod linear;
pub mod masks;
pub mod overlap;
pub mod regression;
pub mod ssim;
pub mod stats;
pub mod surface;
pub mod thresholds;

use crate::error::{Error, Result};

/// A voxel's number: `f32`, `f64`, or an integer that f64 holds exactly.
pub trait Value: Copy + Into<f64> + Sync {}

impl<T: Copy + Into<f64> + Sync> Value for T {}

/// That an output, its target and a mask have one value per voxel of the same grid, at least one of them selected.
fn check_pair(output: usize, target: usize, mask: Option<&[bool]>) -> Result<()> {
    if output != target {
        return Err(Error::input(format!(
            "the output has {output} voxels and the target {target}; resample one onto the other's grid first"
        )));
    }
    if output == 0 {
        return Err(Error::input("the image to score has no voxels; check the case's file"));
    }
    if let Some(mask) = mask {
        if mask.len() != output {
            return Err(Error::input(format!(
                "the mask has {} voxels and the image {output}; resample the mask onto the image's grid first",
                mask.len()
            )));
        }
        if !mask.contains(&true) {
            return Err(Error::input(
                "the mask selects no voxel, so there is nothing to score; check the mask",
            ));
        }
    }
    Ok(())
}

/// That `dims` describes `len` voxels.
fn check_dims(dims: [usize; 3], len: usize) -> Result<()> {
    let wanted = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if wanted != Some(len) || len == 0 {
        let [d, h, w] = dims;
        return Err(Error::input(format!(
            "the extents {d} x {h} x {w} do not describe the image's {len} voxels; check the shape"
        )));
    }
    Ok(())
}

/// That a data range can be divided by.
fn check_range(range: f64) -> Result<()> {
    if range.is_finite() && range > 0.0 {
        return Ok(());
    }
    Err(Error::input(format!(
        "the data range is {range}; give the fixed, positive width of the intensity scale (1 for images in [0, 1], 2 for [-1, 1])"
    )))
}
