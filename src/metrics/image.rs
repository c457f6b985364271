//! Voxel-wise errors: MAE, MSE, NMSE, PSNR and bias, over all voxels or those of a mask.

use super::{Value, check_pair, check_range};
use crate::error::Result;

/// Voxel-wise differences between an output x and its target y.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// Number of voxels compared.
    pub voxels: usize,
    /// mean |x - y|, in the image's units.
    pub mae: f64,
    /// mean (x - y)^2, in the image's units squared.
    pub mse: f64,
    /// ||x - y||^2 / ||y||^2, without unit. 0 when both are zero everywhere, infinite when only the target is.
    pub nmse: f64,
    /// mean (x - y), in the image's units.
    pub bias: f64,
    /// (mean x - mean y) / mean y: with a region's mask, PET's regional SUVR bias. NaN when mean y is 0.
    pub relative_bias: f64,
}

impl Errors {
    /// Compares two images of one grid in one pass. Fails when their sizes differ or the mask selects nothing.
    pub fn between<X: Value, Y: Value>(output: &[X], target: &[Y], mask: Option<&[bool]>) -> Result<Self> {
        check_pair(output.len(), target.len(), mask)?;
        let mut n = 0usize;
        let [mut absolute, mut squared, mut difference, mut power, mut level] = [0.0f64; 5];
        for i in (0..output.len()).filter(|&i| mask.is_none_or(|m| m[i])) {
            let (x, y): (f64, f64) = (output[i].into(), target[i].into());
            let d = x - y;
            n += 1;
            absolute += d.abs();
            squared += d * d;
            difference += d;
            power += y * y;
            level += y;
        }
        let count = n as f64;
        Ok(Errors {
            voxels: n,
            mae: absolute / count,
            mse: squared / count,
            nmse: if squared == 0.0 && power == 0.0 { 0.0 } else { squared / power },
            bias: difference / count,
            relative_bias: if level == 0.0 { f64::NAN } else { difference / level },
        })
    }

    /// 10 log10(L^2 / MSE) in dB; infinite when the images are equal. `range` is L, the fixed width of the intensity
    /// scale. Fails when it is not positive.
    pub fn psnr(&self, range: f64) -> Result<f64> {
        check_range(range)?;
        Ok(10.0 * (range * range / self.mse).log10())
    }
}

/// Mean absolute error; see [`Errors::between`].
pub fn mae<X: Value, Y: Value>(output: &[X], target: &[Y], mask: Option<&[bool]>) -> Result<f64> {
    Ok(Errors::between(output, target, mask)?.mae)
}

/// Mean squared error; see [`Errors::between`].
pub fn mse<X: Value, Y: Value>(output: &[X], target: &[Y], mask: Option<&[bool]>) -> Result<f64> {
    Ok(Errors::between(output, target, mask)?.mse)
}

/// Normalised squared error ||x - y||^2 / ||y||^2; see [`Errors`].
pub fn nmse<X: Value, Y: Value>(output: &[X], target: &[Y], mask: Option<&[bool]>) -> Result<f64> {
    Ok(Errors::between(output, target, mask)?.nmse)
}

/// Peak signal-to-noise ratio in dB for a fixed data range L; see [`Errors::psnr`].
pub fn psnr<X: Value, Y: Value>(
    output: &[X],
    target: &[Y],
    mask: Option<&[bool]>,
    range: f64,
) -> Result<f64> {
    Errors::between(output, target, mask)?.psnr(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_computed() {
        let e = Errors::between(&[1.0f32, 2.0, 5.0], &[1.0f64, 4.0, 1.0], None).unwrap();
        assert_eq!((e.voxels, e.mae, e.mse, e.nmse), (3, 2.0, 20.0 / 3.0, 20.0 / 18.0));
        assert_eq!((e.bias, e.relative_bias), (2.0 / 3.0, 2.0 / 6.0));
        let masked =
            Errors::between(&[1.0f32, 2.0, 5.0], &[1.0f32, 4.0, 1.0], Some(&[true, true, false])).unwrap();
        assert_eq!((masked.voxels, masked.mae, masked.mse), (2, 1.0, 2.0));
        assert!((masked.psnr(10.0).unwrap() - 10.0 * 50f64.log10()).abs() < 1e-12);
    }

    #[test]
    fn degenerate_images_have_defined_scores() {
        let e = Errors::between(&[0.5f32; 4], &[0.5f32; 4], None).unwrap();
        assert_eq!((e.mae, e.nmse, e.psnr(1.0).unwrap()), (0.0, 0.0, f64::INFINITY));
        assert_eq!(nmse(&[0.0f32; 4], &[0.0f32; 4], None).unwrap(), 0.0);
        assert_eq!(nmse(&[1.0f32; 4], &[0.0f32; 4], None).unwrap(), f64::INFINITY);
        assert!(psnr(&[f32::NAN], &[0.0f32], None, 1.0).unwrap().is_nan());
    }

    #[test]
    fn misuse_is_an_error_that_says_the_way_out() {
        let message = |r: Result<f64>| r.unwrap_err().to_string();
        assert!(message(mae(&[1.0f32], &[1.0f32, 2.0], None)).contains("resample"));
        assert!(message(mae::<f32, f32>(&[], &[], None)).contains("no voxels"));
        assert!(message(mae(&[1.0f32], &[1.0f32], Some(&[false]))).contains("selects no voxel"));
        assert!(message(psnr(&[1.0f32], &[1.0f32], None, 0.0)).contains("data range"));
        assert!(message(psnr(&[1.0f32], &[1.0f32], None, f64::NAN)).contains("data range"));
    }
}
