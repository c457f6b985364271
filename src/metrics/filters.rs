//! Classical filters of slices `[h][w]`, the baselines of denoising: Gaussian, median, non-local means. Borders are
//! continued by their last pixel.

/// Gaussian smoothing with a standard deviation in pixels.
pub fn gaussian(image: &[f32], [h, w]: [usize; 2], sigma: f64) -> Vec<f32> {
    let reach = (3.0 * sigma).ceil().max(1.0) as isize;
    let weights: Vec<f64> = (-reach..=reach).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let pass = |source: &[f32], along_rows: bool| -> Vec<f32> {
        (0..h * w)
            .map(|i| {
                let taps = weights.iter().zip(-reach..=reach).map(|(weight, d)| {
                    let (y, x) = if along_rows { (0, d) } else { (d, 0) };
                    weight * f64::from(source[near(i, [h, w], y, x)])
                });
                (taps.sum::<f64>() / total) as f32
            })
            .collect()
    };
    pass(&pass(image, true), false)
}

/// Median over squares of `2 reach + 1` pixels a side.
pub fn median(image: &[f32], size: [usize; 2], reach: usize) -> Vec<f32> {
    let r = reach as isize;
    let mut values = Vec::new();
    (0..image.len())
        .map(|i| {
            values.clear();
            values.extend(
                (-r..=r).flat_map(|y| (-r..=r).map(move |x| (y, x))).map(|(y, x)| image[near(i, size, y, x)]),
            );
            let middle = values.len() / 2;
            *values.select_nth_unstable_by(middle, f32::total_cmp).1
        })
        .collect()
}

/// Non-local means (Buades et al., CVPR 2005): the mean over a window of 11 x 11 pixels, weighted by how alike the
/// surroundings of 3 x 3 are. `strength` is h, in the image's units.
pub fn non_local_means(image: &[f32], size: [usize; 2], strength: f64) -> Vec<f32> {
    let (mut sum, mut weight) = (vec![0.0f64; image.len()], vec![0.0f64; image.len()]);
    let every = |r: isize| (-r..=r).flat_map(move |y| (-r..=r).map(move |x| (y, x)));
    for (dy, dx) in every(5) {
        let shifted: Vec<f32> = (0..image.len()).map(|i| image[near(i, size, dy, dx)]).collect();
        let squares: Vec<f32> = image.iter().zip(&shifted).map(|(a, b)| (a - b) * (a - b)).collect();
        for i in 0..image.len() {
            let apart = every(1).map(|(y, x)| f64::from(squares[near(i, size, y, x)])).sum::<f64>() / 9.0;
            let w = (-apart / (strength * strength)).exp();
            sum[i] += w * f64::from(shifted[i]);
            weight[i] += w;
        }
    }
    sum.iter().zip(&weight).map(|(s, w)| (s / w) as f32).collect()
}

/// The pixel `(dy, dx)` away from pixel `i`, or the nearest there is.
fn near(i: usize, [h, w]: [usize; 2], dy: isize, dx: isize) -> usize {
    let y = ((i / w) as isize + dy).clamp(0, h as isize - 1) as usize;
    let x = ((i % w) as isize + dx).clamp(0, w as isize - 1) as usize;
    y * w + x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Philox;

    /// Two flat halves with noise: every filter brings each half nearer to its level.
    #[test]
    fn all_take_noise_off_and_two_keep_the_edge() {
        let size = [24, 24];
        let clean: Vec<f32> = (0..576).map(|i| if i % 24 < 12 { 0.0 } else { 1.0 }).collect();
        let mut rng = Philox::new(1, 1);
        let noisy: Vec<f32> = clean.iter().map(|v| v + 0.1 * rng.normal() as f32).collect();
        let error =
            |v: &[f32]| -> f32 { v.iter().zip(&clean).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / 576.0 };
        let before = error(&noisy);
        let (g, m, n) =
            (gaussian(&noisy, size, 0.6), median(&noisy, size, 1), non_local_means(&noisy, size, 0.15));
        assert!(error(&g) < 0.9 * before && error(&m) < 0.4 * before && error(&n) < 0.2 * before);
        // A constant stays.
        for v in [
            gaussian(&[2.0; 36], [6, 6], 1.0),
            median(&[2.0; 36], [6, 6], 1),
            non_local_means(&[2.0; 36], [6, 6], 0.1),
        ] {
            assert!(v.iter().all(|x| (x - 2.0).abs() < 1e-6));
        }
    }

    #[test]
    fn a_median_removes_a_single_outlier() {
        let mut v = vec![1.0; 25];
        v[12] = 9.0;
        assert_eq!(median(&v, [5, 5], 1), vec![1.0; 25]);
    }
}
