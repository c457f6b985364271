//! How far two sets of images are from each other as distributions: the kernel distance (KID, Binkowski et al.,
//! "Demystifying MMD GANs", ICLR 2018) and the sliced Wasserstein distance (Rabin et al., SSVM 2011; for images Karras et
//! al., ICLR 2018). Both work on descriptions, one row per image: see [`super::features`].
//!
//! Either is positive for two samples of the same distribution too, by chance or by a lack of images. So a value means
//! something only beside the real-vs-real floor, which is that of equally many real images of other subjects.

use crate::error::{Error, Result};
use crate::rng::Philox;

/// Rows of `dimension` numbers each.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f64],
    pub(super) dimension: usize,
}

impl<'a> Rows<'a> {
    /// From all rows, one after the other; at least two.
    pub fn new(values: &'a [f64], dimension: usize) -> Result<Self> {
        if dimension == 0 || !values.len().is_multiple_of(dimension) {
            return Err(Error::input(format!(
                "{} values are not rows of {dimension} numbers; check the shape",
                values.len()
            )));
        }
        if values.len() < 2 * dimension {
            return Err(Error::input("a distribution is compared by at least two images; give more of them"));
        }
        Ok(Rows { values, dimension })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.dimension
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub(super) fn row(&self, i: usize) -> &'a [f64] {
        &self.values[i * self.dimension..(i + 1) * self.dimension]
    }

    pub(super) fn all(&self) -> std::slice::ChunksExact<'a, f64> {
        self.values.chunks_exact(self.dimension)
    }
}

pub(super) fn same_dimension(x: Rows, y: Rows) -> Result<()> {
    if x.dimension == y.dimension {
        return Ok(());
    }
    Err(Error::input(format!(
        "rows of {} and of {} numbers cannot be compared; describe both sets the same way",
        x.dimension, y.dimension
    )))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// KID: the unbiased estimate of the squared maximum mean discrepancy under the kernel `(x . y / d + 1)^3`. It is zero
/// on average for equal distributions, so single values may be negative.
pub fn kid(x: Rows, y: Rows) -> Result<f64> {
    same_dimension(x, y)?;
    let kernel = |a: &[f64], b: &[f64]| (dot(a, b) / x.dimension as f64 + 1.0).powi(3);
    // Pairs of different rows, each once: the kernel is symmetric.
    let within = |s: Rows| {
        let n = s.len();
        let pairs = (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
        let total: f64 = pairs.map(|(i, j)| kernel(s.row(i), s.row(j))).sum();
        2.0 * total / (n * (n - 1)) as f64
    };
    let across: f64 = x.all().map(|a| y.all().map(|b| kernel(a, b)).sum::<f64>()).sum();
    Ok(within(x) + within(y) - 2.0 * across / (x.len() * y.len()) as f64)
}

/// The sliced Wasserstein distance of order `p` (1 or 2): the p-th root of the mean, over `projections` random
/// directions, of `W_p^p` between the projected sets. Each is exact, also for sets of different size.
pub fn sliced_wasserstein(x: Rows, y: Rows, projections: usize, p: u32, seed: u64) -> Result<f64> {
    same_dimension(x, y)?;
    if projections == 0 || !(1..=2).contains(&p) {
        return Err(Error::input(format!(
            "{projections} projections and order {p}: at least one projection and order 1 or 2 are needed"
        )));
    }
    let mut rng = Philox::named(seed, "sliced wasserstein");
    let mut total = 0.0;
    for _ in 0..projections {
        let mut direction: Vec<f64> = (0..x.dimension).map(|_| rng.normal()).collect();
        let length = dot(&direction, &direction).sqrt();
        direction.iter_mut().for_each(|v| *v /= length);
        let project = |s: Rows| {
            let mut line: Vec<f64> = s.all().map(|r| dot(r, &direction)).collect();
            line.sort_by(f64::total_cmp);
            line
        };
        total += on_a_line(&project(x), &project(y), p);
    }
    Ok((total / projections as f64).powf(1.0 / f64::from(p)))
}

/// `W_p^p` of two sorted samples: the integral of `|F^-1 - G^-1|^p`, step by step through both quantile functions.
fn on_a_line(x: &[f64], y: &[f64], p: u32) -> f64 {
    let (n, m) = (x.len(), y.len());
    let (mut i, mut j, mut sum) = (0, 0, 0.0);
    // Positions in units of 1 / (n m), so that ties are exact.
    let mut at = 0;
    while i < n && j < m {
        let end = ((i + 1) * m).min((j + 1) * n);
        sum += (end - at) as f64 * (x[i] - y[j]).abs().powi(p as i32);
        at = end;
        i += usize::from(end == (i + 1) * m);
        j += usize::from(end == (j + 1) * n);
    }
    sum / (n * m) as f64
}

/// The real-vs-real floor of a distance from `real`: that of as many real images of other subjects, drawn from `others`;
/// the root mean square over the draws (a single one may come out at zero or below by luck).
///
/// The subjects must be others. Slices of one subject resemble each other, so two halves of the same subjects' slices are
/// nearer to each other than any new subject, and any honest generator, can come.
pub fn floor(
    real: Rows,
    others: Rows,
    draws: usize,
    seed: u64,
    distance: impl Fn(Rows, Rows) -> Result<f64>,
) -> Result<f64> {
    same_dimension(real, others)?;
    if draws == 0 {
        return Err(Error::input("the real-vs-real floor needs at least one draw"));
    }
    let mut rng = Philox::named(seed, "real-vs-real floor");
    let mut order: Vec<usize> = (0..others.len()).collect();
    let mut total = 0.0;
    for _ in 0..draws {
        rng.shuffle(&mut order);
        let drawn: Vec<f64> =
            order.iter().take(real.len()).flat_map(|&i| others.row(i).iter().copied()).collect();
        total += distance(Rows::new(&drawn, real.dimension)?, real)?.powi(2);
    }
    Ok((total / draws as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(n: usize, d: usize, shift: f64, name: &str) -> Vec<f64> {
        let mut rng = Philox::named(5, name);
        (0..n * d).map(|_| rng.normal() + shift).collect()
    }

    fn rows(v: &[f64], d: usize) -> Rows<'_> {
        Rows::new(v, d).expect("rows")
    }

    /// By hand: kernels 1 and 27 within, 1, 1, 8 and 27 across.
    #[test]
    fn kid_of_two_pairs_of_numbers() {
        let v = kid(rows(&[0.0, 1.0], 1), rows(&[1.0, 2.0], 1)).expect("rows");
        assert!((v - (1.0 + 27.0 - 2.0 * 37.0 / 4.0)).abs() < 1e-12, "{v}");
    }

    /// The estimate is unbiased: over many pairs of samples of one distribution it is zero on average, while a shift
    /// shows as what the kernel's moments say.
    #[test]
    fn kid_is_unbiased() {
        let d = 3;
        let values: Vec<f64> = (0..200)
            .map(|i| {
                let (x, y) = (cloud(8, d, 0.0, &format!("x{i}")), cloud(8, d, 0.0, &format!("y{i}")));
                kid(rows(&x, d), rows(&y, d)).expect("rows")
            })
            .collect();
        let mean = values.iter().sum::<f64>() / 200.0;
        let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 200.0).sqrt();
        assert!(mean.abs() < 3.0 * sd / 200f64.sqrt(), "{mean} +- {}", sd / 200f64.sqrt());
        assert!(values.iter().any(|v| *v < 0.0));
        let (x, y) = (cloud(100, d, 0.0, "x"), cloud(100, d, 1.0, "y"));
        assert!(kid(rows(&x, d), rows(&y, d)).expect("rows") > 1.0);
    }

    #[test]
    fn the_floor_lies_far_below_a_difference() {
        let d = 4;
        let (x, y) = (cloud(60, d, 0.0, "real"), cloud(60, d, 0.8, "fake"));
        let others = cloud(200, d, 0.0, "others");
        for distance in [kid, |a: Rows, b: Rows| sliced_wasserstein(a, b, 32, 2, 1)] {
            let floor = floor(rows(&x, d), rows(&others, d), 20, 1, distance).expect("rows");
            let value = distance(rows(&x, d), rows(&y, d)).expect("rows");
            assert!(floor > 0.0 && value > 2.0 * floor, "{value} over {floor}");
        }
        assert!(super::floor(rows(&x, d), rows(&others, d), 0, 1, kid).is_err());
    }

    /// Two subjects that differ from each other: halves of the slices of both are alike, the slices of another are not.
    #[test]
    fn the_floor_is_that_of_other_subjects() {
        let d = 4;
        let slices = |shift: f64, name: &str| cloud(30, d, shift, name);
        let real = [slices(0.5, "a"), slices(-0.5, "b")].concat();
        let same = [slices(0.5, "c"), slices(-0.5, "d")].concat();
        let others = [slices(1.0, "e"), slices(0.0, "f")].concat();
        let of = |set: &[f64]| floor(rows(&real, d), rows(set, d), 10, 1, kid).expect("rows");
        assert!(of(&others) > 3.0 * of(&same), "{} over {}", of(&others), of(&same));
    }

    #[test]
    fn wasserstein_on_a_line_is_exact() {
        assert_eq!(on_a_line(&[0.0, 1.0], &[2.0, 5.0], 1), 3.0);
        assert_eq!(on_a_line(&[0.0, 1.0], &[2.0, 5.0], 2), 10.0);
        // A sample and its repetition are the same distribution; a third of the mass moves by 3.
        assert_eq!(on_a_line(&[1.0, 2.0], &[1.0, 1.0, 2.0, 2.0], 2), 0.0);
        assert_eq!(on_a_line(&[0.0, 0.0, 3.0], &[0.0, 0.0], 1), 1.0);
        assert_eq!(on_a_line(&[0.0, 0.0], &[0.0, 0.0, 3.0], 1), 1.0);
        assert_eq!(on_a_line(&[0.0, 6.0], &[0.0, 3.0, 6.0], 1), 1.0);
    }

    /// A shift by s in d dimensions is one by s . u along u; the mean of (s . u)^2 over directions is |s|^2 / d.
    #[test]
    fn a_shift_is_seen_along_every_direction() {
        let d = 5;
        let x = cloud(40, d, 0.0, "x");
        let y: Vec<f64> = x.iter().map(|v| v + 2.0).collect();
        let value = sliced_wasserstein(rows(&x, d), rows(&y, d), 4000, 2, 3).expect("rows");
        let wanted = (4.0 * d as f64 / d as f64).sqrt();
        assert!((value - wanted).abs() < 0.05 * wanted, "{value} instead of {wanted}");
        assert_eq!(sliced_wasserstein(rows(&x, d), rows(&x, d), 10, 1, 3).expect("rows"), 0.0);
    }

    #[test]
    fn unfit_rows_are_refused() {
        assert!(Rows::new(&[1.0; 7], 3).is_err() && Rows::new(&[1.0; 3], 3).is_err());
        let (a, b) = ([1.0; 12], [1.0; 12]);
        assert!(kid(rows(&a, 3), rows(&b, 4)).is_err());
        assert!(sliced_wasserstein(rows(&a, 3), rows(&b, 3), 0, 2, 1).is_err());
        assert!(sliced_wasserstein(rows(&a, 3), rows(&b, 3), 5, 3, 1).is_err());
    }
}
