//! Worse images out of good ones: what super-resolution and denoising learn to undo.

use super::normalise::percentile;
use super::orient::Plane;
use super::phantom::scanner;
use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done to the inputs of a data set. Images that are given to a trained network are left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Degrade {
    /// Slices lose resolution by this factor along both axes (means of so many pixels) and are enlarged again by cubic
    /// interpolation; 1 leaves them (default 1).
    pub downsample: usize,
    /// Standard deviation of Rician noise, as a share of a volume's percentile 99.5 (default 0).
    pub noise: f64,
    /// Seed of the noise (default 1).
    pub seed: u64,
}

impl Default for Degrade {
    fn default() -> Self {
        Degrade { downsample: 1, noise: 0.0, seed: 1 }
    }
}

impl Degrade {
    /// Checks ranges; messages name the key.
    pub fn check(&self) -> Result<()> {
        if !(1..=16).contains(&self.downsample) {
            return Err(Error::input("data: `degrade.downsample` must lie between 1 and 16; 2 is usual"));
        }
        if !(0.0..=10.0).contains(&self.noise) {
            return Err(Error::input("data: `degrade.noise` must lie between 0 and 10; 0.1 is strong"));
        }
        Ok(())
    }

    /// Changes a volume in canonical order; `name` tells volumes' noise apart.
    pub fn apply(&self, voxels: &mut [f32], dims: [usize; 3], plane: Plane, name: &str) {
        if self.noise > 0.0 {
            let mut sample: Vec<f32> = voxels.iter().step_by((voxels.len() >> 18).max(1)).copied().collect();
            let sigma = self.noise * percentile(&mut sample, 99.5);
            scanner::rician(voxels, sigma as f32, self.seed, &format!("degrade/{name}"));
        }
        if self.downsample > 1 {
            let [h, w] = plane.slice_shape(dims);
            let mut slice = vec![0.0; h * w];
            for k in 0..plane.slices(dims) {
                plane.extract(voxels, dims, k, &mut slice);
                let blurred = along_rows(&slice, h, w, self.downsample);
                let blurred =
                    transposed(&along_rows(&transposed(&blurred, h, w), w, h, self.downsample), w, h);
                plane.insert(voxels, dims, k, &blurred);
            }
        }
    }
}

/// Each of `h` rows of `w`: means of `factor` neighbours, enlarged by cubic interpolation.
fn along_rows(image: &[f32], h: usize, w: usize, factor: usize) -> Vec<f32> {
    let small = w.div_ceil(factor);
    let mut out = Vec::with_capacity(h * w);
    for row in image.chunks_exact(w) {
        let means: Vec<f32> =
            row.chunks(factor).map(|part| part.iter().sum::<f32>() / part.len() as f32).collect();
        for x in 0..w {
            // Centres of pixels lie half a pixel inside.
            let at = (x as f32 + 0.5) / factor as f32 - 0.5;
            let first = at.floor();
            let t = at - first;
            let tap = |i: isize| means[(first as isize + i).clamp(0, small as isize - 1) as usize];
            out.push((-1..=2).map(|i| cubic(t - i as f32) * tap(i)).sum());
        }
    }
    out
}

/// Keys' cubic convolution kernel with a = -1/2 (IEEE Transactions on ASSP, 1981): exact for parabolas.
fn cubic(t: f32) -> f32 {
    let t = t.abs();
    if t <= 1.0 {
        1.5 * t * t * t - 2.5 * t * t + 1.0
    } else if t < 2.0 {
        -0.5 * t * t * t + 2.5 * t * t - 4.0 * t + 2.0
    } else {
        0.0
    }
}

/// `h` rows of `w` as `w` rows of `h`.
fn transposed(image: &[f32], h: usize, w: usize) -> Vec<f32> {
    (0..w * h).map(|i| image[(i % h) * w + i / h]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn straight_lines_survive_and_fine_stripes_do_not() {
        let dims = [32, 32, 1];
        let half = Degrade { downsample: 2, ..Default::default() };
        let ramp: Vec<f32> = (0..1024).map(|i| (i % 32) as f32 + 3.0 * (i / 32) as f32).collect();
        let mut v = ramp.clone();
        half.apply(&mut v, dims, Plane::Axial, "x");
        // Away from the border, where the last pixel repeats.
        for y in 4..28 {
            for x in 4..28 {
                assert!((v[y * 32 + x] - ramp[y * 32 + x]).abs() < 1e-3);
            }
        }
        let mut stripes: Vec<f32> = (0..1024).map(|i| (i % 2) as f32).collect();
        half.apply(&mut stripes, dims, Plane::Axial, "x");
        assert!(stripes.iter().all(|v| (v - 0.5).abs() < 1e-6));
    }

    #[test]
    fn noise_is_the_same_every_time_and_other_for_another_name() {
        let dims = [8, 8, 8];
        let noisy = Degrade { noise: 0.1, ..Default::default() };
        let made = |name: &str| {
            let mut v = vec![1.0; 512];
            noisy.apply(&mut v, dims, Plane::Axial, name);
            v
        };
        assert_eq!(made("a"), made("a"));
        assert_ne!(made("a"), made("b"));
        let spread = made("a").iter().map(|v| (v - 1.0).powi(2)).sum::<f32>() / 512.0;
        assert!((spread.sqrt() - 0.1).abs() < 0.02, "{spread}");
    }
}
