//! Distance between the surfaces of two binary masks, in millimetres.
//!
//! A surface voxel is a voxel of the mask with a face neighbour outside it (outside the image counts as outside).
//! Distances to a surface come from an exact Euclidean distance transform (Felzenszwalb, Huttenlocher, "Distance
//! transforms of sampled functions", Theory of Computing 2012) on the anisotropic grid.

use super::{check_dims, check_pair};
use crate::error::{Error, Result};

/// Maximum of the two directed 95th-percentile surface distances in mm, as in MONAI's
/// `compute_hausdorff_distance(percentile=95)`. See [`hausdorff`].
pub fn hd95(prediction: &[bool], truth: &[bool], dims: [usize; 3], spacing: [f64; 3]) -> Result<f64> {
    hausdorff(prediction, truth, dims, spacing, 95.0)
}

/// Maximum of the two directed percentile surface distances. `dims` are `[depth, height, width]` (depth 1: a 2D
/// image), `spacing` the voxel's extents along the same axes in mm; `percentile` 100 is the Hausdorff distance itself.
/// Percentiles interpolate linearly. Both masks empty: 0; one empty: the image's diagonal ([`diagonal`]). Fails when
/// sizes differ, a spacing is not positive, or the percentile lies outside 0 to 100.
pub fn hausdorff(
    prediction: &[bool],
    truth: &[bool],
    dims: [usize; 3],
    spacing: [f64; 3],
    percentile: f64,
) -> Result<f64> {
    check_pair(prediction.len(), truth.len(), None)?;
    check_dims(dims, truth.len())?;
    check_spacing(spacing)?;
    if !(0.0..=100.0).contains(&percentile) {
        return Err(Error::input(format!("the percentile is {percentile}; give a number from 0 to 100")));
    }
    match (prediction.contains(&true), truth.contains(&true)) {
        (false, false) => return Ok(0.0),
        (true, true) => {}
        _ => return Ok(diagonal(dims, spacing)),
    }
    let (a, b) = (surface(prediction, dims), surface(truth, dims));
    let there = percentile_of(distances(&a, &b, dims, spacing), percentile);
    let back = percentile_of(distances(&b, &a, dims, spacing), percentile);
    Ok(there.max(back))
}

/// The diagonal of the image's box in mm: what a missed or invented structure costs (373.13 for BraTS). A 2D image's
/// depth does not count.
pub fn diagonal(dims: [usize; 3], spacing: [f64; 3]) -> f64 {
    let first = if dims[0] == 1 { 1 } else { 0 };
    (first..3).map(|a| (dims[a] as f64 * spacing[a]).powi(2)).sum::<f64>().sqrt()
}

fn check_spacing(spacing: [f64; 3]) -> Result<()> {
    if spacing.iter().all(|s| s.is_finite() && *s > 0.0) {
        return Ok(());
    }
    Err(Error::input(format!(
        "the voxel spacing is {spacing:?} mm; every axis needs a positive one, so check the file's header"
    )))
}

/// The voxels of a mask with a face neighbour outside it.
fn surface(mask: &[bool], dims: [usize; 3]) -> Vec<bool> {
    let [depth, height, width] = dims;
    let inside = |z: usize, y: usize, x: usize| {
        z < depth && y < height && x < width && mask[(z * height + y) * width + x]
    };
    // An index before the first wraps to a huge one, which is outside.
    let before = |i: usize| i.wrapping_sub(1);
    let mut out = vec![false; mask.len()];
    for z in 0..depth {
        for y in 0..height {
            for x in 0..width {
                let i = (z * height + y) * width + x;
                let flat = dims[0] == 1 || (inside(before(z), y, x) && inside(z + 1, y, x));
                out[i] = mask[i]
                    && !(flat
                        && inside(z, before(y), x)
                        && inside(z, y + 1, x)
                        && inside(z, y, before(x))
                        && inside(z, y, x + 1));
            }
        }
    }
    out
}

/// From every voxel of `from`, the distance in mm to the nearest voxel of `to` (which has at least one).
fn distances(from: &[bool], to: &[bool], dims: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
    let squared = squared_distance_transform(to, dims, spacing);
    from.iter().zip(squared).filter(|(f, _)| **f).map(|(_, d)| d.sqrt()).collect()
}

/// Squared distance in mm^2 from every voxel to the nearest voxel of the set; infinite when the set is empty.
fn squared_distance_transform(set: &[bool], dims: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
    let mut field: Vec<f64> = set.iter().map(|&s| if s { 0.0 } else { f64::INFINITY }).collect();
    for axis in (0..3).rev().filter(|&a| dims[a] > 1) {
        let (n, stride) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
        let mut line = vec![0.0; n];
        let mut envelope = Envelope::default();
        for start in (0..field.len()).filter(|i| i / stride % n == 0) {
            (0..n).for_each(|i| line[i] = field[start + i * stride]);
            envelope.of(&line, spacing[axis] * spacing[axis]);
            envelope.read(&line, |i, v| field[start + i * stride] = v);
        }
    }
    field
}

/// The lower envelope of the parabolas w (p - q)^2 + f(q) of one line.
#[derive(Default)]
struct Envelope {
    weight: f64,
    /// Vertices, left to right.
    vertex: Vec<usize>,
    /// Where each vertex's parabola starts to be the lowest.
    start: Vec<f64>,
}

impl Envelope {
    fn of(&mut self, line: &[f64], weight: f64) {
        self.weight = weight;
        self.vertex.clear();
        self.start.clear();
        for (q, &f) in line.iter().enumerate().filter(|(_, f)| f.is_finite()) {
            let mut begins = f64::NEG_INFINITY;
            while let (Some(&v), Some(&s)) = (self.vertex.last(), self.start.last()) {
                let (vf, qf) = (v as f64, q as f64);
                begins = ((f - line[v]) / weight + qf * qf - vf * vf) / (2.0 * (qf - vf));
                if begins > s {
                    break;
                }
                self.vertex.pop();
                self.start.pop();
                begins = f64::NEG_INFINITY;
            }
            self.vertex.push(q);
            self.start.push(begins);
        }
    }

    fn read(&self, line: &[f64], mut put: impl FnMut(usize, f64)) {
        if self.vertex.is_empty() {
            return;
        }
        let mut k = 0;
        for p in 0..line.len() {
            while k + 1 < self.start.len() && self.start[k + 1] < p as f64 {
                k += 1;
            }
            let v = self.vertex[k];
            let d = p as f64 - v as f64;
            put(p, self.weight * d * d + line[v]);
        }
    }
}

/// Percentile with linear interpolation between the two nearest order statistics (at least one value).
fn percentile_of(mut values: Vec<f64>, percentile: f64) -> f64 {
    let rank = percentile / 100.0 * (values.len() - 1) as f64;
    let below = rank.floor() as usize;
    let (_, low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let low = *low;
    let high = above.iter().copied().fold(f64::INFINITY, f64::min);
    if high.is_finite() { low + (rank - below as f64) * (high - low) } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Philox;

    #[test]
    fn distance_transform_is_exact() {
        let mut r = Philox::new(3, 0);
        for case in 0..20 {
            let dims = [1 + r.below(6), 1 + r.below(7), 1 + r.below(8)];
            let spacing = [r.range(0.3, 3.0), r.range(0.3, 3.0), r.range(0.3, 3.0)];
            let n: usize = dims.iter().product();
            let set: Vec<bool> = (0..n).map(|_| r.uniform() < 0.15).collect();
            let at = |i: usize| [i / (dims[1] * dims[2]), i / dims[2] % dims[1], i % dims[2]];
            let fast = squared_distance_transform(&set, dims, spacing);
            for (i, &got) in fast.iter().enumerate() {
                let direct = (0..n)
                    .filter(|&j| set[j])
                    .map(|j| {
                        (0..3)
                            .map(|a| ((at(i)[a] as f64 - at(j)[a] as f64) * spacing[a]).powi(2))
                            .sum::<f64>()
                    })
                    .fold(f64::INFINITY, f64::min);
                assert!(
                    got == direct || (got - direct).abs() < 1e-10 * direct,
                    "case {case}: {got} {direct}"
                );
            }
        }
    }

    #[test]
    fn two_voxels_are_their_distance_apart() {
        let dims = [4, 5, 6];
        let mut a = vec![false; 120];
        let mut b = a.clone();
        a[0] = true;
        b[(2 * 5 + 3) * 6 + 4] = true;
        let d = hd95(&a, &b, dims, [3.0, 2.0, 0.5]).unwrap();
        assert!((d - (36.0f64 + 36.0 + 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(hd95(&a, &a, dims, [1.0; 3]).unwrap(), 0.0);
    }

    #[test]
    fn empty_masks_follow_the_policy() {
        let (none, some) = (vec![false; 240], vec![true; 240]);
        assert_eq!(hd95(&none, &none, [4, 6, 10], [1.0; 3]).unwrap(), 0.0);
        let missed = hd95(&none, &some, [4, 6, 10], [2.0, 1.0, 1.0]).unwrap();
        assert_eq!(missed, (64.0f64 + 36.0 + 100.0).sqrt());
        assert_eq!(missed, hd95(&some, &none, [4, 6, 10], [2.0, 1.0, 1.0]).unwrap());
        assert!((diagonal([155, 240, 240], [1.0; 3]) - 373.13).abs() < 0.005);
    }

    #[test]
    fn bad_geometry_is_refused() {
        let m = [true; 8];
        assert!(hd95(&m, &m, [2, 2, 2], [0.0, 1.0, 1.0]).unwrap_err().to_string().contains("spacing"));
        assert!(hd95(&m, &m, [2, 2, 3], [1.0; 3]).unwrap_err().to_string().contains("extents"));
        assert!(
            hausdorff(&m, &m, [2, 2, 2], [1.0; 3], 101.0).unwrap_err().to_string().contains("percentile")
        );
    }
}
