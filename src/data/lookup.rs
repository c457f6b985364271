//! The best pointwise predictor: for each input intensity the mean target intensity. A network must beat it, or it
//! has learnt nothing that a table could not say.

use super::case::Case;
use super::dataset::Dataset;
use crate::error::Result;

/// Number of input bins over [-1.5, 1.5].
const BINS: usize = 512;

/// A table from the (first) normalised input to each normalised target channel.
#[derive(Clone, Debug)]
pub struct Lookup {
    channels: usize,
    table: Vec<f32>,
}

impl Lookup {
    /// Fits the table that minimises the squared error over the training slices.
    pub fn fit(set: &Dataset) -> Result<Lookup> {
        let ([h, w, ci], co) = (set.input_shape(), set.config().target.len());
        let (mut sum, mut count) = (vec![0.0f64; BINS * co], vec![0u64; BINS]);
        let (mut x, mut y) = (vec![0.0; h * w * ci], vec![0.0; h * w * co]);
        for i in 0..set.len() {
            set.read(i, &mut x, &mut y)?;
            for (p, t) in x.chunks(ci).zip(y.chunks(co)) {
                let b = bin(p[0]);
                count[b] += 1;
                t.iter().enumerate().for_each(|(c, v)| sum[b * co + c] += f64::from(*v));
            }
        }
        // An empty bin takes its neighbour's value.
        let mut table = vec![-1.0f32; BINS * co];
        let first = count.iter().position(|&n| n > 0).unwrap_or(0);
        for b in (first..BINS).chain((0..first).rev()) {
            for c in 0..co {
                table[b * co + c] = match count[b] {
                    0 if b > first => table[(b - 1) * co + c],
                    0 => table[(b + 1).min(BINS - 1) * co + c],
                    n => (sum[b * co + c] / n as f64) as f32,
                };
            }
        }
        Ok(Lookup { channels: co, table })
    }

    /// Predicts a case's slices `[n][h][w][c]`.
    pub fn predict(&self, case: &Case) -> Vec<f32> {
        let ci = case.input_shape[3];
        let row = |p: &[f32]| {
            let b = bin(p[0]);
            self.table[b * self.channels..(b + 1) * self.channels].iter().copied()
        };
        case.input.chunks(ci).flat_map(row).collect()
    }
}

fn bin(v: f32) -> usize {
    (((v + 1.5) / 3.0 * BINS as f32).max(0.0) as usize).min(BINS - 1)
}
