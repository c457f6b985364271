//! Whether generated images differ from each other as much as real ones do: a generator that has collapsed makes the same
//! few images over and over. Both measures compare descriptions, one row per image ([`super::features`]), of generated
//! images with those of as many real ones. 1 is as diverse as real images, 0 is one image again and again.

use super::distribution::{Rows, same_dimension};
use crate::error::Result;

/// How diverse a set of images is, as a share of what real ones are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Diversity {
    /// The spread: root of the summed variances of all features.
    pub spread: f64,
    /// The median distance from an image to the nearest other one. It also falls when the images are of several kinds,
    /// but each kind is one image repeated; those have a large spread.
    pub nearest: f64,
}

impl Diversity {
    /// The lower of the two: the one that a collapse shows in.
    pub fn least(&self) -> f64 {
        self.spread.min(self.nearest)
    }
}

/// The diversity of `made` as a share of that of `real`. Where the real images do not differ at all there is nothing to
/// compare with, and the shares are NaN or infinite. Fails when the descriptions have different lengths.
pub fn diversity(made: Rows, real: Rows) -> Result<Diversity> {
    same_dimension(made, real)?;
    // Of n images the nearest is the farther away the fewer they are: compare equally many.
    let n = made.len().min(real.len());
    Ok(Diversity { spread: spread(made) / spread(real), nearest: nearest(made, n) / nearest(real, n) })
}

fn spread(x: Rows) -> f64 {
    let n = x.len() as f64;
    let variance = |k: usize| {
        let mean = x.all().map(|r| r[k]).sum::<f64>() / n;
        x.all().map(|r| (r[k] - mean).powi(2)).sum::<f64>() / (n - 1.0)
    };
    (0..x.dimension).map(variance).sum::<f64>().sqrt()
}

/// Of `n` rows, evenly spaced.
fn nearest(x: Rows, n: usize) -> f64 {
    let rows: Vec<&[f64]> = (0..n).map(|i| x.row(i * x.len() / n)).collect();
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt();
    let mut all: Vec<f64> = (0..n)
        .map(|i| {
            let others = (0..n).filter(|j| *j != i);
            others.map(|j| distance(rows[i], rows[j])).fold(f64::INFINITY, f64::min)
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[n / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Philox;

    const D: usize = 8;

    fn cloud(n: usize, name: &str) -> Vec<f64> {
        let mut rng = Philox::named(3, name);
        (0..n * D).map(|_| rng.normal()).collect()
    }

    fn of(made: &[f64], real: &[f64]) -> Diversity {
        diversity(Rows::new(made, D).expect("rows"), Rows::new(real, D).expect("rows")).expect("alike")
    }

    #[test]
    fn equal_distributions_have_a_share_of_one() {
        let d = of(&cloud(200, "a"), &cloud(200, "b"));
        // The spread's relative standard error is 1 / sqrt(2 * 200 * 8) = 0.018; the median's is of that order.
        assert!((d.spread - 1.0).abs() < 0.07 && (d.nearest - 1.0).abs() < 0.15, "{d:?}");
    }

    #[test]
    fn one_image_again_and_again_has_none() {
        let row = cloud(1, "one");
        let d = of(&row.repeat(50), &cloud(50, "b"));
        assert!(d.spread < 1e-9 && d.nearest == 0.0, "{d:?}");
    }

    /// Four images, each repeated: as spread as real ones, and yet collapsed.
    #[test]
    fn a_few_images_repeated_show_in_the_nearest() {
        let d = of(&cloud(4, "four").repeat(20), &cloud(80, "b"));
        assert!(d.spread > 0.6 && d.least() == 0.0, "{d:?}");
    }
}
