//! Structural similarity (Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
//! structural similarity", IEEE TIP 2004) in 2D and 3D, and its multi-scale form (Wang, Simoncelli, Bovik,
//! "Multiscale structural similarity for image quality assessment", Asilomar 2003).
//!
//! A score means nothing without its window, so the window has a name:
//! - `gaussian-11`: 11 voxels a side, sigma 1.5, population covariance, as in MONAI's `SSIMMetric`;
//! - `uniform-7`: 7 voxels a side, sample covariance, as in scikit-image's `structural_similarity` by default.
//!
//! Both average the map over the voxels whose whole window lies inside the image. Windows are separable: one 1D
//! filter per axis.

use super::{Value, check_dims, check_pair, check_range};
use crate::error::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Weights of the five scales of MS-SSIM, finest first (Wang et al. 2003).
pub const MS_SSIM_WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// The neighbourhood over which local means and covariances are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Window {
    /// 11 voxels a side, Gaussian weights of sigma 1.5, population covariance (MONAI).
    #[serde(rename = "gaussian-11")]
    Gaussian,
    /// 7 voxels a side, equal weights, sample covariance (scikit-image).
    #[serde(rename = "uniform-7")]
    Uniform,
}

impl Window {
    /// Voxels per side.
    pub fn side(self) -> usize {
        match self {
            Window::Gaussian => 11,
            Window::Uniform => 7,
        }
    }

    /// Weights along one axis; they sum to 1.
    fn weights(self) -> Vec<f64> {
        let side = self.side();
        let raw: Vec<f64> = match self {
            Window::Uniform => vec![1.0; side],
            Window::Gaussian => {
                let from_centre = |i: usize| (i as f64 - (side / 2) as f64) / 1.5;
                (0..side).map(|i| (-0.5 * from_centre(i).powi(2)).exp()).collect()
            }
        };
        let total: f64 = raw.iter().sum();
        raw.into_iter().map(|w| w / total).collect()
    }

    /// What a weighted covariance is multiplied by: n / (n - 1) for a sample covariance over n voxels.
    fn covariance_factor(self, axes: usize) -> f64 {
        match self {
            Window::Gaussian => 1.0,
            Window::Uniform => {
                let n = self.side().pow(axes as u32) as f64;
                n / (n - 1.0)
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Window::Gaussian => "gaussian-11",
            Window::Uniform => "uniform-7",
        })
    }
}

/// The SSIM of one window and one fixed data range, with K1 = 0.01 and K2 = 0.03.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ssim {
    window: Window,
    range: f64,
}

impl Ssim {
    /// `range` is L, the fixed width of the intensity scale. Fails when it is not positive.
    pub fn new(window: Window, range: f64) -> Result<Self> {
        check_range(range)?;
        Ok(Ssim { window, range })
    }

    /// The window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The fixed width of the intensity scale.
    pub fn range(&self) -> f64 {
        self.range
    }

    /// Mean SSIM of a volume `[depth, height, width]`, or of a 2D image (depth 1), over the voxels whose window lies
    /// inside the image and that the mask selects. 1 when the images are equal. Fails when the image is smaller than
    /// the window, or no selected voxel has a whole window.
    pub fn score<X: Value, Y: Value>(
        &self,
        output: &[X],
        target: &[Y],
        dims: [usize; 3],
        mask: Option<&[bool]>,
    ) -> Result<f64> {
        let maps = self.maps(output, target, dims, mask)?;
        let total = maps.fold((0.0, 0usize), |(sum, n), (l, cs)| (sum + l * cs, n + 1));
        mean_of(total)
    }

    /// Mean over the slices of a volume of each slice's 2D SSIM; slices in which the mask selects nothing are left
    /// out. For anisotropic volumes, and for those thinner than the window.
    pub fn score_slices<X: Value, Y: Value>(
        &self,
        output: &[X],
        target: &[Y],
        dims: [usize; 3],
        mask: Option<&[bool]>,
    ) -> Result<f64> {
        check_pair(output.len(), target.len(), mask)?;
        check_dims(dims, output.len())?;
        let [depth, height, width] = dims;
        let plane = height * width;
        let mut total = (0.0, 0usize);
        for z in 0..depth {
            let range = z * plane..(z + 1) * plane;
            let slice_mask = mask.map(|m| &m[range.clone()]);
            if slice_mask.is_some_and(|m| !self.selects_a_window(m, height, width)) {
                continue;
            }
            total.0 += self.score(&output[range.clone()], &target[range], [1, height, width], slice_mask)?;
            total.1 += 1;
        }
        mean_of(total)
    }

    /// Multi-scale SSIM: the product over the scales of the contrast-structure term, with the last scale's whole
    /// SSIM, each raised to its weight; negative means count as 0, as in MONAI. Scales are made by averaging 2 x 2
    /// (x 2) voxels. Fails when the coarsest scale is smaller than the window: five scales with `gaussian-11` need
    /// 176 voxels a side; give fewer `weights` for smaller images, and say so beside the score.
    pub fn multi_scale<X: Value, Y: Value>(
        &self,
        output: &[X],
        target: &[Y],
        dims: [usize; 3],
        weights: &[f64],
    ) -> Result<f64> {
        check_pair(output.len(), target.len(), None)?;
        check_dims(dims, output.len())?;
        self.check_scales(dims, weights.len())?;
        let mut x: Vec<f64> = output.iter().map(|&v| v.into()).collect();
        let mut y: Vec<f64> = target.iter().map(|&v| v.into()).collect();
        let mut dims = dims;
        let mut product = 1.0;
        for (scale, &weight) in weights.iter().enumerate() {
            let last = scale + 1 == weights.len();
            let maps = self.maps(&x, &y, dims, None)?;
            let total =
                maps.fold((0.0, 0usize), |(sum, n), (l, cs)| (sum + if last { l * cs } else { cs }, n + 1));
            // Not `max`, which would turn a NaN into a 0.
            let mean = mean_of(total)?;
            product *= if mean < 0.0 { 0.0 } else { mean }.powf(weight);
            if !last {
                (x, _) = halve(&x, dims);
                (y, dims) = halve(&y, dims);
            }
        }
        Ok(product)
    }

    /// The luminance and the contrast-structure term of every voxel that counts.
    fn maps<X: Value, Y: Value>(
        &self,
        output: &[X],
        target: &[Y],
        dims: [usize; 3],
        mask: Option<&[bool]>,
    ) -> Result<impl Iterator<Item = (f64, f64)>> {
        check_pair(output.len(), target.len(), mask)?;
        check_dims(dims, output.len())?;
        let axes = axes_of(dims);
        self.check_extent(dims)?;
        let weights = self.window.weights();
        let moments: Vec<(Vec<f64>, [usize; 3])> = (0..5)
            .into_par_iter()
            .map(|moment| {
                let product = |i: usize| {
                    let (x, y): (f64, f64) = (output[i].into(), target[i].into());
                    [x, y, x * x, y * y, x * y][moment]
                };
                let field: Vec<f64> = (0..output.len()).map(product).collect();
                filter_axes(field, dims, axes, &weights)
            })
            .collect();
        let inner = moments[0].1;
        let [mx, my, mxx, myy, mxy]: [Vec<f64>; 5] =
            moments.into_iter().map(|(field, _)| field).collect::<Vec<_>>().try_into().expect("five moments");
        let factor = self.window.covariance_factor(axes.len());
        let (c1, c2) = ((0.01 * self.range).powi(2), (0.03 * self.range).powi(2));
        let selected = self.selected(dims, inner, mask);
        Ok(selected.into_iter().map(move |i| {
            let (x, y) = (mx[i], my[i]);
            let variances = factor * ((mxx[i] - x * x) + (myy[i] - y * y));
            let covariance = factor * (mxy[i] - x * y);
            ((2.0 * x * y + c1) / (x * x + y * y + c1), (2.0 * covariance + c2) / (variances + c2))
        }))
    }

    /// Positions in the valid region whose centre the mask selects.
    fn selected(&self, dims: [usize; 3], inner: [usize; 3], mask: Option<&[bool]>) -> Vec<usize> {
        let Some(mask) = mask else { return (0..inner.iter().product()).collect() };
        let margin = |axis: usize| (dims[axis] - inner[axis]) / 2;
        let centre = |i: usize| {
            let (z, y, x) = (i / (inner[1] * inner[2]), i / inner[2] % inner[1], i % inner[2]);
            ((z + margin(0)) * dims[1] + y + margin(1)) * dims[2] + x + margin(2)
        };
        (0..inner.iter().product()).filter(|&i| mask[centre(i)]).collect()
    }

    fn selects_a_window(&self, mask: &[bool], height: usize, width: usize) -> bool {
        let r = self.window.side() / 2;
        (r..height.saturating_sub(r))
            .any(|y| mask[y * width..][..width].iter().skip(r).take(width.saturating_sub(2 * r)).any(|&m| m))
    }

    fn check_extent(&self, dims: [usize; 3]) -> Result<()> {
        let side = self.window.side();
        if axes_of(dims).iter().all(|&a| dims[a] >= side) {
            return Ok(());
        }
        let [d, h, w] = dims;
        let size = if d == 1 { format!("{h} x {w}") } else { format!("{d} x {h} x {w}") };
        Err(Error::input(format!(
            "SSIM with the window {} needs at least {side} voxels a side, but the image is {size}; score its slices in 2D or choose a smaller window",
            self.window
        )))
    }

    fn check_scales(&self, dims: [usize; 3], scales: usize) -> Result<()> {
        if scales == 0 {
            return Err(Error::input("MS-SSIM needs at least one scale; give a weight for each scale"));
        }
        let needed = u32::try_from(scales - 1)
            .ok()
            .and_then(|s| self.window.side().checked_shl(s))
            .unwrap_or(usize::MAX);
        let smallest = axes_of(dims).iter().map(|&a| dims[a]).min().unwrap_or(0);
        if smallest >= needed {
            return Ok(());
        }
        Err(Error::input(format!(
            "MS-SSIM with {scales} scales and the window {} needs at least {needed} voxels a side, but the image has {smallest}; use fewer scales",
            self.window
        )))
    }
}

/// The axes that are filtered: the last two of a 2D image, all three of a volume.
fn axes_of(dims: [usize; 3]) -> &'static [usize] {
    if dims[0] == 1 { &[1, 2] } else { &[0, 1, 2] }
}

fn mean_of((sum, n): (f64, usize)) -> Result<f64> {
    if n == 0 {
        return Err(Error::input(
            "the mask selects no voxel whose SSIM window lies inside the image; widen the mask or pad the image",
        ));
    }
    Ok(sum / n as f64)
}

/// Filters along each axis in turn, keeping the positions whose window lies inside.
fn filter_axes(
    mut field: Vec<f64>,
    mut dims: [usize; 3],
    axes: &[usize],
    weights: &[f64],
) -> (Vec<f64>, [usize; 3]) {
    for &axis in axes.iter().rev() {
        (field, dims) = filter(&field, dims, axis, weights);
    }
    (field, dims)
}

fn filter(field: &[f64], dims: [usize; 3], axis: usize, weights: &[f64]) -> (Vec<f64>, [usize; 3]) {
    let inner: usize = dims[axis + 1..].iter().product();
    let mut out_dims = dims;
    out_dims[axis] = dims[axis] + 1 - weights.len();
    let mut out = vec![0.0; out_dims.iter().product()];
    let (from, to) = (dims[axis] * inner, out_dims[axis] * inner);
    for (source, target) in field.chunks_exact(from).zip(out.chunks_exact_mut(to)) {
        // One shifted multiple per weight: every access is contiguous, whatever the axis.
        for (k, &w) in weights.iter().enumerate() {
            target.iter_mut().zip(&source[k * inner..]).for_each(|(t, &s)| *t += w * s);
        }
    }
    (out, out_dims)
}

/// Averages 2 x 2 (x 2) voxels; an odd last row is left out.
fn halve(field: &[f64], dims: [usize; 3]) -> (Vec<f64>, [usize; 3]) {
    let (mut out, mut out_dims) = (field.to_vec(), dims);
    for &axis in axes_of(dims) {
        let inner: usize = out_dims[axis + 1..].iter().product();
        let mut next = out_dims;
        next[axis] /= 2;
        let mut half = Vec::with_capacity(next.iter().product());
        for source in out.chunks_exact(out_dims[axis] * inner) {
            for pair in source.chunks_exact(2 * inner) {
                half.extend((0..inner).map(|i| 0.5 * (pair[i] + pair[inner + i])));
            }
        }
        (out, out_dims) = (half, next);
    }
    (out, out_dims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Philox;

    fn noise(n: usize, seed: u64) -> Vec<f64> {
        let mut r = Philox::new(seed, 0);
        (0..n).map(|_| r.uniform()).collect()
    }

    /// The definition: a window at every position, no separability, no shortcut.
    fn direct(window: Window, x: &[f64], y: &[f64], dims: [usize; 3]) -> f64 {
        let side = window.side();
        let w = window.weights();
        let thick = if dims[0] == 1 { 1 } else { side };
        let depth_weights = if dims[0] == 1 { vec![1.0] } else { w.clone() };
        let factor = window.covariance_factor(if dims[0] == 1 { 2 } else { 3 });
        let (mut sum, mut n) = (0.0, 0.0);
        for z in 0..=dims[0] - thick {
            for r in 0..=dims[1] - side {
                for c in 0..=dims[2] - side {
                    let mut m = [0.0; 5];
                    for (i, wi) in depth_weights.iter().enumerate() {
                        for (j, wj) in w.iter().enumerate() {
                            for (k, wk) in w.iter().enumerate() {
                                let at = ((z + i) * dims[1] + r + j) * dims[2] + c + k;
                                let weight = wi * wj * wk;
                                let (a, b) = (x[at], y[at]);
                                for (m, v) in m.iter_mut().zip([a, b, a * a, b * b, a * b]) {
                                    *m += weight * v;
                                }
                            }
                        }
                    }
                    let (c1, c2) = (1e-4, 9e-4);
                    let variances = factor * (m[2] - m[0] * m[0] + m[3] - m[1] * m[1]);
                    sum += (2.0 * m[0] * m[1] + c1) / (m[0] * m[0] + m[1] * m[1] + c1)
                        * (2.0 * factor * (m[4] - m[0] * m[1]) + c2)
                        / (variances + c2);
                    n += 1.0;
                }
            }
        }
        sum / n
    }

    #[test]
    fn separable_filtering_is_the_definition() {
        for (window, dims) in [
            (Window::Gaussian, [1, 14, 17]),
            (Window::Uniform, [1, 9, 8]),
            (Window::Gaussian, [12, 13, 11]),
            (Window::Uniform, [8, 7, 10]),
        ] {
            let n = dims.iter().product();
            let (x, y) = (noise(n, 1), noise(n, 2));
            let fast = Ssim::new(window, 1.0).unwrap().score(&x, &y, dims, None).unwrap();
            assert!((fast - direct(window, &x, &y, dims)).abs() < 1e-12, "{window} {dims:?}");
        }
    }

    #[test]
    fn a_mask_selects_window_centres() {
        let dims = [1, 20, 24];
        let (x, y) = (noise(480, 3), noise(480, 4));
        let ssim = Ssim::new(Window::Gaussian, 1.0).unwrap();
        let mut mask = vec![false; 480];
        mask[8 * 24 + 10] = true;
        // A mask of one voxel sees exactly the 11 x 11 neighbourhood of that voxel.
        let crop = |v: &[f64]| (3..14).flat_map(|r| v[r * 24 + 5..r * 24 + 16].to_vec()).collect::<Vec<_>>();
        let whole = ssim.score(&crop(&x), &crop(&y), [1, 11, 11], None).unwrap();
        assert!((ssim.score(&x, &y, dims, Some(&mask)).unwrap() - whole).abs() < 1e-13);
        let everything = ssim.score(&x, &y, dims, Some(&[true; 480])).unwrap();
        assert_eq!(everything, ssim.score(&x, &y, dims, None).unwrap());
        // A mask at the border has no whole window.
        let mut border = vec![false; 480];
        border[0] = true;
        assert!(ssim.score(&x, &y, dims, Some(&border)).unwrap_err().to_string().contains("widen the mask"));
    }

    #[test]
    fn equal_images_score_one_and_slices_average() {
        let x = noise(3 * 16 * 16, 5);
        let ssim = Ssim::new(Window::Uniform, 1.0).unwrap();
        assert!((ssim.score_slices(&x, &x, [3, 16, 16], None).unwrap() - 1.0).abs() < 1e-15);
        let y = noise(3 * 16 * 16, 6);
        let each =
            |z: usize| ssim.score(&x[z * 256..][..256], &y[z * 256..][..256], [1, 16, 16], None).unwrap();
        let mean = (each(0) + each(1) + each(2)) / 3.0;
        assert!((ssim.score_slices(&x, &y, [3, 16, 16], None).unwrap() - mean).abs() < 1e-15);
        let mut mask = vec![false; 3 * 256];
        mask[256..512].fill(true);
        assert!((ssim.score_slices(&x, &y, [3, 16, 16], Some(&mask)).unwrap() - each(1)).abs() < 1e-15);
        assert!(
            (ssim.multi_scale(&x[..256], &x[..256], [1, 16, 16], &[0.5, 0.5]).unwrap() - 1.0).abs() < 1e-15
        );
    }

    #[test]
    fn too_small_images_are_refused_with_a_way_out() {
        let ssim = Ssim::new(Window::Gaussian, 1.0).unwrap();
        let x = vec![0.0f32; 10 * 64 * 64];
        assert!(ssim.score(&x, &x, [10, 64, 64], None).unwrap_err().to_string().contains("slices in 2D"));
        let e = ssim.multi_scale(&x, &x, [1, 640, 64], &MS_SSIM_WEIGHTS).unwrap_err().to_string();
        assert!(e.contains("176") && e.contains("fewer scales"), "{e}");
        assert!(ssim.score(&x, &x, [10, 64, 63], None).unwrap_err().to_string().contains("extents"));
        assert!(ssim.multi_scale(&x, &x, [1, 640, 64], &[]).is_err());
        assert!(Ssim::new(Window::Uniform, -1.0).is_err());
    }
}
