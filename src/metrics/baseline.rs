//! What a network must beat: the identity, and the best function of a voxel's own intensities.
//!
//! A [`Lookup`] is fitted on the training split only, in one streaming pass, and then applied to held-out subjects. It
//! minimises the squared error among functions that are constant on its bins:
//! - one channel: 256 bins of about equal counts (merged from 65,536 cells of equal width);
//! - two channels: 64 x 64 bins of about equal marginal counts (merged from 1,024 x 1,024 cells);
//! - three to five channels: 2^(16 / channels, rounded down) cells of equal width per channel, jointly (32, 16, 8). A
//!   table over more channels would have more cells than samples.
//!
//! Joint bins with fewer than [`MIN_COUNT`] samples fall back on the least-squares linear function of all channels,
//! fitted in the same pass.

use super::Value;
use crate::error::{Error, Result};
use crate::fsio;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Samples that a joint bin needs to be trusted.
pub const MIN_COUNT: u64 = 8;

/// Most input channels of a look-up.
pub const MAX_CHANNELS: usize = 5;

/// The identity baseline: the input channel itself, as the output. Input and target must be on the same scale.
pub fn identity(input: &[f32]) -> Vec<f32> {
    input.to_vec()
}

/// Accumulates a [`Lookup`] from training images.
#[derive(Clone, Debug)]
pub struct LookupFit {
    channels: usize,
    low: f64,
    high: f64,
    /// Cells per channel before merging.
    cells: usize,
    sum: Vec<f64>,
    count: Vec<u64>,
    linear: LinearFit,
}

impl LookupFit {
    /// For inputs of 1 to 5 channels on the intensity scale `[low, high]`; intensities beyond count as its ends.
    /// Fails on another number of channels or an empty scale.
    pub fn new(channels: usize, low: f64, high: f64) -> Result<Self> {
        let cells: usize = match channels {
            1 => 65_536,
            2 => 1_024,
            3..=MAX_CHANNELS => 1 << (16 / channels),
            _ => {
                return Err(Error::input(format!(
                    "the look-up baseline takes 1 to {MAX_CHANNELS} input channels, not {channels}; leave some out"
                )));
            }
        };
        if !(low < high && (high - low).is_finite()) {
            return Err(Error::input(format!(
                "the look-up baseline's intensity scale is {low} to {high}; give the scale of the normalised inputs, such as -1 to 1"
            )));
        }
        let size = cells.pow(channels as u32);
        let linear = LinearFit::new(channels);
        Ok(LookupFit { channels, low, high, cells, sum: vec![0.0; size], count: vec![0; size], linear })
    }

    /// Adds the voxels of a training image, one slice per channel, that the mask selects. Voxels that are not finite
    /// in any image are left out. Fails when the channels, the target and the mask do not match.
    pub fn add<X: Value, Y: Value>(
        &mut self,
        inputs: &[&[X]],
        target: &[Y],
        mask: Option<&[bool]>,
    ) -> Result<()> {
        check_channels(inputs, self.channels)?;
        if inputs[0].len() != target.len() || mask.is_some_and(|m| m.len() != target.len()) {
            return Err(Error::input(format!(
                "the look-up baseline got {} input and {} target voxels (mask: {}); resample them onto one grid",
                inputs[0].len(),
                target.len(),
                mask.map_or("none".into(), |m| m.len().to_string())
            )));
        }
        let mut x = [0.0; MAX_CHANNELS];
        for i in (0..target.len()).filter(|&i| mask.is_none_or(|m| m[i])) {
            let y: f64 = target[i].into();
            inputs.iter().zip(&mut x).for_each(|(input, x)| *x = input[i].into());
            let x = &x[..self.channels];
            if !y.is_finite() || x.iter().any(|v| !v.is_finite()) {
                continue;
            }
            let cell =
                x.iter().fold(0, |at, &v| at * self.cells + cell_of(v, self.low, self.high, self.cells));
            self.sum[cell] += y;
            self.count[cell] += 1;
            self.linear.add(x, y);
        }
        Ok(())
    }

    /// The fitted look-up. Fails when no voxel was added.
    pub fn finish(&self) -> Result<Lookup> {
        if self.linear.count == 0.0 {
            return Err(Error::input(
                "the look-up baseline saw no training voxel; check the training split and mask",
            ));
        }
        let starts: Vec<Vec<usize>> = match self.channels {
            1 => vec![equal_counts(&self.count, 256)],
            2 => (0..2).map(|axis| equal_counts(&self.marginal(axis), 64)).collect(),
            _ => vec![(0..self.cells).collect(); self.channels],
        };
        let size = starts.iter().map(Vec::len).product();
        let (mut sum, mut count) = (vec![0.0; size], vec![0u64; size]);
        for (cell, (&s, &n)) in self.sum.iter().zip(&self.count).enumerate().filter(|(_, (_, n))| **n > 0) {
            let coordinate =
                |axis: usize| cell / self.cells.pow((self.channels - 1 - axis) as u32) % self.cells;
            let bin =
                starts.iter().enumerate().fold(0, |at, (axis, s)| at * s.len() + bin_of(s, coordinate(axis)));
            sum[bin] += s;
            count[bin] += n;
        }
        let needed = if self.channels == 1 { 1 } else { MIN_COUNT };
        let values =
            sum.iter().zip(&count).map(|(&s, &n)| (n >= needed).then(|| (s / n as f64) as f32)).collect();
        let linear = self.linear.solve().into_iter().map(|v| v as f32).collect();
        Ok(Lookup {
            low: self.low,
            high: self.high,
            cells: self.cells,
            starts,
            values,
            linear,
            samples: self.linear.count as u64,
        })
    }

    fn marginal(&self, axis: usize) -> Vec<u64> {
        let mut out = vec![0; self.cells];
        for (cell, n) in self.count.iter().enumerate() {
            out[if axis == 0 { cell / self.cells } else { cell % self.cells }] += n;
        }
        out
    }
}

/// A fitted function of a voxel's intensities; see the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    low: f64,
    high: f64,
    /// Cells of equal width per channel.
    cells: usize,
    /// Per channel, the cell at which each bin starts.
    starts: Vec<Vec<usize>>,
    /// Mean target per joint bin (last channel fastest); none where too few samples fell.
    values: Vec<Option<f32>>,
    /// Intercept, then one slope per channel.
    linear: Vec<f32>,
    samples: u64,
}

impl Lookup {
    /// Number of input channels.
    pub fn channels(&self) -> usize {
        self.starts.len()
    }

    /// Number of training voxels behind it.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The output for an image given as one slice per channel; NaN where an input is NaN. Fails when the number of
    /// channels differs from the fit's.
    pub fn apply<X: Value>(&self, inputs: &[&[X]]) -> Result<Vec<f32>> {
        check_channels(inputs, self.channels())?;
        let mut x = vec![0.0; self.channels()];
        let one = |i: usize| {
            inputs.iter().zip(&mut x).for_each(|(input, x)| *x = input[i].into());
            self.at(&x)
        };
        Ok((0..inputs[0].len()).map(one).collect())
    }

    /// Writes it as JSON, atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).expect("a look-up is plain data");
        fsio::write_bytes(path, &text)
    }

    /// Reads what [`Self::save`] wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(Error::io("read", path))?;
        let broken = |why: String| {
            Error::input(format!("{} is not a look-up baseline ({why}); fit it again", path.display()))
        };
        let lookup: Lookup = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        match lookup.is_consistent() {
            true => Ok(lookup),
            false => Err(broken("its tables do not fit together".into())),
        }
    }

    fn at(&self, x: &[f64]) -> f32 {
        if x.iter().any(|v| v.is_nan()) {
            return f32::NAN;
        }
        let bin = x.iter().zip(&self.starts).fold(0, |at, (&v, starts)| {
            at * starts.len() + bin_of(starts, cell_of(v, self.low, self.high, self.cells))
        });
        self.values[bin].unwrap_or_else(|| {
            let clamped = x.iter().map(|v| v.clamp(self.low, self.high) as f32);
            self.linear[0] + clamped.zip(&self.linear[1..]).map(|(v, slope)| v * slope).sum::<f32>()
        })
    }

    fn is_consistent(&self) -> bool {
        let bins: Option<usize> = self.starts.iter().try_fold(1usize, |n, s| n.checked_mul(s.len()));
        (1..=MAX_CHANNELS).contains(&self.channels())
            && self.low < self.high
            && self.cells > 0
            && self.starts.iter().all(|s| s.first() == Some(&0) && s.is_sorted())
            && bins == Some(self.values.len())
            && self.linear.len() == 1 + self.channels()
    }
}

/// The bin that holds a cell, given the cells at which bins start (the first is 0).
fn bin_of(starts: &[usize], cell: usize) -> usize {
    starts.partition_point(|&s| s <= cell) - 1
}

fn check_channels<X>(inputs: &[&[X]], channels: usize) -> Result<()> {
    if inputs.len() == channels && inputs.iter().all(|i| i.len() == inputs[0].len()) {
        return Ok(());
    }
    Err(Error::input(format!(
        "the look-up baseline is for {channels} channels of equal size, but got {}; give it the channels of its fit",
        inputs.len()
    )))
}

fn cell_of(v: f64, low: f64, high: f64, cells: usize) -> usize {
    // A float-to-integer cast saturates, so what lies below ends in the first cell.
    (((v - low) / (high - low) * cells as f64) as usize).min(cells - 1)
}

/// Merges neighbouring cells into at most `bins` bins of about equal counts: the cell at which each bin starts. A cell
/// that alone holds more than its share (an image's background) becomes a bin, and the others share what is left.
fn equal_counts(count: &[u64], bins: usize) -> Vec<usize> {
    let mut left: u64 = count.iter().sum();
    let mut share = left.div_ceil(bins as u64);
    let (mut filled, mut last) = (0u64, 0);
    let mut starts = vec![0];
    for (cell, &n) in count.iter().enumerate().filter(|(_, n)| **n > 0) {
        // A bin closes when it is full, or when the next cell would overfill it by more than it now lacks. Empty cells
        // between two bins go to the nearer one.
        let full = filled >= share || filled + n > share && filled + n - share > share - filled;
        if filled > 0 && full && starts.len() < bins {
            left -= filled;
            filled = 0;
            share = left.div_ceil((bins - starts.len()) as u64);
            starts.push(last + (cell - last).div_ceil(2));
        }
        filled += n;
        last = cell;
    }
    starts
}

/// Least squares of a linear function with intercept, from streamed sums.
#[derive(Clone, Debug)]
struct LinearFit {
    /// Sums of products of (1, x0, x1, ...), row by row.
    gram: Vec<Vec<f64>>,
    /// Sums of products with the target.
    right: Vec<f64>,
    count: f64,
}

impl LinearFit {
    fn new(channels: usize) -> Self {
        let n = channels + 1;
        LinearFit { gram: vec![vec![0.0; n]; n], right: vec![0.0; n], count: 0.0 }
    }

    fn add(&mut self, x: &[f64], y: f64) {
        self.count += 1.0;
        let term = |i: usize| if i == 0 { 1.0 } else { x[i - 1] };
        for (i, (row, right)) in self.gram.iter_mut().zip(&mut self.right).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, g)| *g += term(i) * term(j));
            *right += term(i) * y;
        }
    }

    /// Gauss-Jordan with pivoting. A direction that the data do not determine (a constant channel) gets slope 0.
    fn solve(&self) -> Vec<f64> {
        let n = self.right.len();
        let mut rows: Vec<Vec<f64>> = self.gram.clone();
        rows.iter_mut().zip(&self.right).for_each(|(row, &r)| row.push(r));
        let mut solved = vec![None; n];
        let mut free: Vec<usize> = (0..n).collect();
        for column in 0..n {
            let Some((slot, &pivot)) = free
                .iter()
                .enumerate()
                .max_by(|a, b| rows[*a.1][column].abs().total_cmp(&rows[*b.1][column].abs()))
            else {
                break;
            };
            if rows[pivot][column].abs() <= 1e-10 * self.gram[column][column].abs() {
                continue;
            }
            free.remove(slot);
            let lead = rows[pivot].clone();
            for (_, row) in rows.iter_mut().enumerate().filter(|(r, _)| *r != pivot) {
                let factor = row[column] / lead[column];
                row.iter_mut().zip(&lead).for_each(|(a, b)| *a -= factor * b);
            }
            solved[column] = Some(pivot);
        }
        (0..n).map(|c| solved[c].map_or(0.0, |r: usize| rows[r][n] / rows[r][c])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::image::mse;
    use crate::rng::Philox;

    fn uniform(n: usize, seed: u64) -> Vec<f32> {
        let mut r = Philox::new(seed, 0);
        (0..n).map(|_| r.range(-1.0, 1.0) as f32).collect()
    }

    #[test]
    fn one_channel_finds_a_curve_and_the_noise_floor() {
        let x = uniform(50_000, 1);
        let mut r = Philox::new(2, 0);
        let curve = |v: f32| (3.0 * v).sin();
        let y: Vec<f32> = x.iter().map(|&v| curve(v) + 0.1 * r.normal() as f32).collect();
        let mut fit = LookupFit::new(1, -1.0, 1.0).unwrap();
        // Streaming in pieces is the same as adding at once.
        fit.add(&[&x[..20_000]], &y[..20_000], None).unwrap();
        fit.add(&[&x[20_000..]], &y[20_000..], None).unwrap();
        let lookup = fit.finish().unwrap();
        assert_eq!(lookup.samples(), 50_000);
        let held_out = uniform(10_000, 3);
        let truth: Vec<f32> = held_out.iter().map(|&v| curve(v)).collect();
        let out = lookup.apply(&[&held_out]).unwrap();
        // 195 samples a bin: a variance of 0.01 / 195 plus the step (1/128 * 3 / sqrt 12)^2.
        assert!(mse(&out, &truth, None).unwrap() < 1.5 * (0.01 / 195.0 + 4.6e-5));
    }

    #[test]
    fn it_is_optimal_among_functions_on_its_bins() {
        let x = uniform(5_000, 4);
        let y: Vec<f32> = x.iter().zip(uniform(5_000, 5)).map(|(a, b)| a * a + b).collect();
        let mut fit = LookupFit::new(1, -1.0, 1.0).unwrap();
        fit.add(&[&x], &y, None).unwrap();
        let lookup = fit.finish().unwrap();
        let best = mse(&lookup.apply(&[&x]).unwrap(), &y, None).unwrap();
        for bin in [0, 77, 255] {
            for shift in [-0.01, 0.01] {
                let mut other = lookup.clone();
                *other.values[bin].as_mut().unwrap() += shift;
                assert!(mse(&other.apply(&[&x]).unwrap(), &y, None).unwrap() > best);
            }
        }
    }

    #[test]
    fn background_takes_one_bin_and_the_rest_share() {
        let mut count = vec![0u64; 1000];
        count[0] = 100_000;
        count[100..900].fill(10);
        let starts = equal_counts(&count, 64);
        assert_eq!((starts[0], starts[1], starts.len()), (0, 50, 64));
        let mut sizes = [0; 64];
        count.iter().enumerate().for_each(|(cell, n)| sizes[bin_of(&starts, cell)] += n);
        assert!(sizes[1..].iter().all(|&s| (100..=160).contains(&s)), "{sizes:?}");
    }

    #[test]
    fn two_channels_see_what_one_cannot() {
        let (a, b) = (uniform(200_000, 6), uniform(200_000, 7));
        let y: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a * b).collect();
        let mut joint = LookupFit::new(2, -1.0, 1.0).unwrap();
        joint.add(&[&a, &b], &y, None).unwrap();
        let mut single = LookupFit::new(1, -1.0, 1.0).unwrap();
        single.add(&[&a], &y, None).unwrap();
        let error = |l: Lookup, x: &[&[f32]]| mse(&l.apply(x).unwrap(), &y, None).unwrap();
        let two = error(joint.finish().unwrap(), &[&a, &b]);
        let one = error(single.finish().unwrap(), &[&a]);
        // A cell of side 1/32: the variance of ab in it is about (1/32)^2 / 12 * (a^2 + b^2) on average.
        assert!(two < 8e-5 && one > 0.1, "{two} {one}");
    }

    #[test]
    fn rare_joint_bins_fall_back_on_the_linear_function() {
        for channels in 2..=MAX_CHANNELS {
            let images: Vec<Vec<f32>> = (0..channels).map(|c| uniform(300, 8 + c as u64)).collect();
            let inputs: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
            let value =
                |i: usize| 0.25 + images.iter().zip(1u8..).map(|(x, c)| x[i] / f32::from(c)).sum::<f32>();
            let y: Vec<f32> = (0..300).map(value).collect();
            let mut fit = LookupFit::new(channels, -1.0, 1.0).unwrap();
            fit.add(&inputs, &y, None).unwrap();
            let out = fit.finish().unwrap().apply(&inputs).unwrap();
            assert!(mse(&out, &y, None).unwrap() < 1e-9, "{channels} channels");
        }
        // A constant channel leaves the system singular; it gets slope 0.
        let (x, flat) = (uniform(100, 20), vec![0.5f32; 100]);
        let mut fit = LinearFit::new(2);
        x.iter().zip(&flat).for_each(|(&a, &b)| fit.add(&[a.into(), b.into()], 2.0 * f64::from(a) + 1.0));
        let solution = fit.solve();
        assert!((solution[1] - 2.0).abs() < 1e-9 && (solution[0] + 0.5 * solution[2] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn it_survives_a_round_trip_and_refuses_misuse() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lookup.json");
        let x = uniform(1_000, 9);
        let mut fit = LookupFit::new(1, -1.0, 1.0).unwrap();
        assert!(fit.finish().unwrap_err().to_string().contains("no training voxel"));
        fit.add(&[&x], &x, None).unwrap();
        let lookup = fit.finish().unwrap();
        lookup.save(&path).unwrap();
        assert!(Lookup::load(&path).unwrap() == lookup, "another look-up came back");
        assert!(lookup.apply(&[&x, &x]).is_err() && fit.add(&[&x], &x[1..], None).is_err());
        assert!(lookup.apply(&[&[f32::NAN][..]]).unwrap()[0].is_nan());
        assert_eq!(lookup.apply(&[&[-9.0f32][..]]).unwrap(), lookup.apply(&[&[-1.0f32][..]]).unwrap());
        let text = std::fs::read_to_string(&path).unwrap().replacen("\"values\":[", "\"values\":[1.0,", 1);
        std::fs::write(&path, text).unwrap();
        assert!(Lookup::load(&path).unwrap_err().to_string().contains("lookup.json"));
        assert!(LookupFit::new(6, 0.0, 1.0).is_err() && LookupFit::new(1, 1.0, 1.0).is_err());
        assert_eq!(identity(&x), x);
    }
}
