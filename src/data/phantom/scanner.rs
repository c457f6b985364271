//! From noise-free images to scans: coil bias, Rician noise, truncated k-space; point spread and counting noise.

use crate::rng::{Philox, philox4x32, stream_id, unit_f32};
use rayon::prelude::*;

/// Full width at half maximum of a Gaussian over its standard deviation.
const FWHM_PER_SIGMA: f64 = 2.354_820_045;

/// Fills a slice with independent standard normal numbers; element `i` is a pure function of (seed, name, i).
pub fn normals(seed: u64, name: &str, out: &mut [f32]) {
    let (key, stream) = ([seed as u32, (seed >> 32) as u32], stream_id(name));
    for (block, four) in out.chunks_mut(4).enumerate() {
        let w = philox4x32([block as u32, (block >> 32) as u32, stream as u32, (stream >> 32) as u32], key);
        let pair = |u: u32, v: u32| {
            let r = (-2.0 * (1.0 - unit_f32(u)).ln()).sqrt();
            let (s, c) = (std::f32::consts::TAU * unit_f32(v)).sin_cos();
            [r * c, r * s]
        };
        let ([a, b], [c, d]) = (pair(w[0], w[1]), pair(w[2], w[3]));
        four.iter_mut().zip([a, b, c, d]).for_each(|(o, v)| *o = v);
    }
}

/// Multiplies by a smooth coil sensitivity that varies by `depth` in all (0.2: from 0.9 to 1.1).
/// Each of its few terms is a product over the axes, so a voxel costs a few multiplications.
pub fn bias(image: &mut [f32], dims: [usize; 3], spacing: [f64; 3], depth: f64, rng: &mut Philox) {
    const TERMS: usize = 4;
    let tables: Vec<[Vec<f32>; 3]> = (0..TERMS)
        .map(|_| {
            [0, 1, 2].map(|a| {
                let (k, phase) =
                    (std::f64::consts::TAU / rng.range(200.0, 500.0), rng.range(0.0, std::f64::consts::TAU));
                (0..dims[a]).map(|i| (k * i as f64 * spacing[a] + phase).cos() as f32).collect()
            })
        })
        .collect();
    // The sum of four products of cosines stays within about +-1.7 and mostly within +-1.
    let gain = (0.5 * depth) as f32 / 1.5;
    for (row, line) in image.chunks_mut(dims[0]).enumerate() {
        let (y, z) = (row % dims[1], row / dims[1]);
        let weight: [f32; TERMS] = std::array::from_fn(|t| gain * tables[t][1][y] * tables[t][2][z]);
        for (x, v) in line.iter_mut().enumerate() {
            *v *= 1.0 + (0..TERMS).map(|t| weight[t] * tables[t][0][x]).sum::<f32>();
        }
    }
}

/// Magnitude of the signal plus complex Gaussian noise of standard deviation `sigma` per channel.
pub fn rician(image: &mut [f32], sigma: f32, seed: u64, name: &str) {
    let mut noise = vec![0.0; 2 * image.len()];
    normals(seed, name, &mut noise);
    for (v, n) in image.iter_mut().zip(noise.chunks_exact(2)) {
        *v = (*v + sigma * n[0]).hypot(sigma * n[1]);
    }
}

/// One row of a banded square matrix: the first column, and the weights from there on.
type Row = (usize, Vec<f32>);

/// Applies a matrix (one per axis, given by its rows) along each of the three axes.
fn along_axes(image: &mut Vec<f32>, dims: [usize; 3], matrix: impl Fn(usize) -> Vec<Row>) {
    for a in 0..3 {
        let (rows, n, inner) = (matrix(a), dims[a], dims[..a].iter().product::<usize>());
        let source = std::mem::replace(image, vec![0.0; image.len()]);
        let blocks = image.par_chunks_mut(n * inner).zip(source.par_chunks(n * inner));
        if inner == 1 {
            blocks.with_min_len(64).for_each(|(out, line)| {
                for (o, (first, weights)) in out.iter_mut().zip(&rows) {
                    *o = product(weights, &line[*first..]);
                }
            });
            continue;
        }
        blocks.for_each(|(out, block)| {
            for (line, (first, weights)) in out.chunks_mut(inner).zip(&rows) {
                for (w, from) in weights.iter().zip(block[first * inner..].chunks(inner)) {
                    line.iter_mut().zip(from).for_each(|(o, v)| *o += w * v);
                }
            }
        });
    }
}

/// Scalar product in eight running sums, which vectorises; stops at the shorter slice.
fn product(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (a[..n].chunks_exact(8), b[..n].chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0f32; 8];
    for (x, y) in a.zip(b) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Gaussian point spread of the given full width at half maximum (mm).
pub fn blur(image: &mut Vec<f32>, dims: [usize; 3], spacing: [f64; 3], fwhm_mm: f64) {
    if fwhm_mm <= 0.0 {
        return;
    }
    along_axes(image, dims, |a| {
        let sigma = fwhm_mm / FWHM_PER_SIGMA / spacing[a];
        let reach = (4.0 * sigma).ceil() as isize;
        let weight = |d: isize| (-0.5 * (d as f64 / sigma).powi(2)).exp();
        let total: f64 = (-reach..=reach).map(weight).sum();
        let n = dims[a] as isize;
        (0..n)
            .map(|i| {
                let (first, last) = ((i - reach).max(0), (i + reach).min(n - 1));
                (first as usize, (first..=last).map(|j| (weight(j - i) / total) as f32).collect())
            })
            .collect()
    });
}

/// Keeps the central part of k-space, `keep` (0 to 1) along each axis, on the same grid: the scan that a
/// scanner of lower resolution makes, ringing included.
pub fn crop_k_space(image: &mut Vec<f32>, dims: [usize; 3], keep: f64) {
    along_axes(image, dims, |a| {
        let n = dims[a];
        let highest = ((keep * n as f64) as usize).saturating_sub(1) / 2;
        // The Dirichlet kernel: the inverse transform of a box of 2 highest + 1 frequencies.
        let kernel: Vec<f32> = (0..n)
            .map(|d| {
                let t = std::f64::consts::TAU * d as f64 / n as f64;
                let sum: f64 = (1..=highest).map(|k| (k as f64 * t).cos()).sum();
                ((1.0 + 2.0 * sum) / n as f64) as f32
            })
            .collect();
        (0..n).map(|i| (0, (0..n).map(|j| kernel[i.abs_diff(j)]).collect())).collect()
    });
}

/// Counting noise: Poisson(counts * value) / counts. Above a mean of 30 the normal approximation is used.
pub fn poisson(image: &mut [f32], counts: f64, rng: &mut Philox) {
    if counts <= 0.0 {
        return;
    }
    for v in image.iter_mut() {
        let mean = f64::from(v.max(0.0)) * counts;
        let drawn = if mean < 1e-3 {
            0.0
        } else if mean < 30.0 {
            let limit = (-mean).exp();
            let (mut k, mut product) = (0u32, rng.uniform());
            while product > limit {
                k += 1;
                product *= rng.uniform();
            }
            f64::from(k)
        } else {
            (mean + mean.sqrt() * rng.normal()).round().max(0.0)
        };
        *v = (drawn / counts) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(v: &[f32]) -> (f64, f64) {
        let n = v.len() as f64;
        let mean = v.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        (mean, v.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n)
    }

    #[test]
    fn counting_noise_has_the_variance_of_a_poisson_count() {
        for value in [0.02f32, 0.5] {
            let mut v = vec![value; 40_000];
            poisson(&mut v, 200.0, &mut Philox::new(1, 1));
            let (mean, var) = moments(&v);
            assert!((mean - f64::from(value)).abs() < 0.02 * f64::from(value), "{mean}");
            assert!((var / (f64::from(value) / 200.0) - 1.0).abs() < 0.05, "{var}");
        }
    }

    #[test]
    fn rician_background_has_the_rayleigh_mean() {
        let mut v = vec![0.0; 40_000];
        rician(&mut v, 2.0, 3, "x");
        assert!((moments(&v).0 - 2.0 * (std::f64::consts::PI / 2.0).sqrt()).abs() < 0.03);
    }

    #[test]
    fn blur_keeps_the_sum_and_has_the_width() {
        let dims = [31, 31, 31];
        let mut v = vec![0.0; 31 * 31 * 31];
        let centre = 15 * 31 * 31 + 15 * 31 + 15;
        v[centre] = 1.0;
        blur(&mut v, dims, [1.0; 3], 6.0);
        assert!((v.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        // Half the maximum at half the full width.
        assert!((v[centre + 3] / v[centre] - 0.5).abs() < 1e-3);
        assert!((v[centre + 3 * 31 * 31] / v[centre] - 0.5).abs() < 1e-3);
    }

    #[test]
    fn k_space_crop_keeps_low_and_removes_high_frequencies() {
        let dims = [40, 40, 40];
        let wave = |k: f64| -> Vec<f32> {
            (0..64_000).map(|i| (std::f64::consts::TAU * k * (i % 40) as f64 / 40.0).cos() as f32).collect()
        };
        for (k, kept) in [(0.0, 1.0), (5.0, 1.0), (14.0, 0.0)] {
            let mut v = wave(k);
            crop_k_space(&mut v, dims, 0.6);
            for (a, b) in v.iter().zip(wave(k)) {
                assert!((a - kept * b).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn bias_spans_about_its_depth() {
        let mut v = vec![1.0; 50 * 50 * 50];
        bias(&mut v, [50; 3], [4.0; 3], 0.4, &mut Philox::new(2, 9));
        let (low, high) = v.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
        assert!((0.15..0.55).contains(&(high - low)) && low > 0.6, "{low} {high}");
    }
}
