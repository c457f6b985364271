//! Means over cases with their uncertainty: Student's t and the bootstrap, single and paired.

use crate::error::{Error, Result};
use crate::rng::Philox;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean and the interval that holds the true one with the stated confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The sample mean.
    #[serde(with = "super::case::number")]
    pub mean: f64,
    /// Lower end; minus infinity for a single case.
    #[serde(with = "super::case::number")]
    pub low: f64,
    /// Upper end; plus infinity for a single case.
    #[serde(with = "super::case::number")]
    pub high: f64,
}

impl Interval {
    /// Half the interval's width: the number behind "±" (exact for Student's t, which is symmetric).
    pub fn half_width(&self) -> f64 {
        0.5 * (self.high - self.low)
    }
}

/// A paired comparison of two methods on the same cases.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Mean of the differences a - b, with its interval.
    pub difference: Interval,
    /// Two-sided p value of Student's paired t test; 1 when every difference is 0, NaN for a single case.
    #[serde(with = "super::case::number")]
    pub p_value: f64,
}

/// Arithmetic mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample standard deviation (divided by n - 1); NaN for fewer than two values.
pub fn standard_deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::NAN;
    }
    let m = mean(values);
    (values.iter().map(|v| (v - m).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

/// The median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The quantile `q` in [0, 1], interpolated linearly between order statistics; NaN of nothing.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let rank = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    if low == high { low } else { low + (rank - rank.floor()) * (high - low) }
}

/// The mean with Student's t interval at `level` (0.95 for 95 %). Fails on no values or a level outside (0, 1).
pub fn mean_interval(values: &[f64], level: f64) -> Result<Interval> {
    check(values, level)?;
    let m = mean(values);
    if values.len() == 1 {
        return Ok(Interval { mean: m, low: f64::NEG_INFINITY, high: f64::INFINITY });
    }
    let n = values.len() as f64;
    let half = student_t_quantile(0.5 + 0.5 * level, n - 1.0) * standard_deviation(values) / n.sqrt();
    Ok(Interval { mean: m, low: m - half, high: m + half })
}

/// The mean with a percentile bootstrap interval (Efron 1979): the quantiles of the means of `resamples` samples
/// drawn with replacement. For skewed scores; the same seed gives the same interval. Fails like [`mean_interval`],
/// and without resamples.
pub fn bootstrap_interval(values: &[f64], level: f64, resamples: usize, seed: u64) -> Result<Interval> {
    check(values, level)?;
    if resamples == 0 {
        return Err(Error::input("the bootstrap needs at least one resample; 10000 is a good number"));
    }
    let mut random = Philox::named(seed, "bootstrap");
    let mut one = || (0..values.len()).map(|_| values[random.below(values.len())]).sum::<f64>();
    let means: Vec<f64> = (0..resamples).map(|_| one() / values.len() as f64).collect();
    let tail = 0.5 * (1.0 - level);
    Ok(Interval { mean: mean(values), low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) })
}

/// The mean difference a - b over the same cases in the same order, with its t interval at `level` and the paired t
/// test. Fails when the lengths differ, and like [`mean_interval`].
pub fn paired(a: &[f64], b: &[f64], level: f64) -> Result<Paired> {
    if a.len() != b.len() {
        return Err(Error::input(format!(
            "a paired comparison needs the same cases on both sides, but there are {} and {}; score the missing ones",
            a.len(),
            b.len()
        )));
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let difference = mean_interval(&differences, level)?;
    let n = differences.len() as f64;
    let p_value = if differences.iter().all(|&d| d == 0.0) {
        1.0
    } else {
        let t = difference.mean / (standard_deviation(&differences) / n.sqrt());
        2.0 * student_t_upper_tail(t.abs(), n - 1.0)
    };
    Ok(Paired { difference, p_value })
}

fn check(values: &[f64], level: f64) -> Result<()> {
    if values.is_empty() {
        return Err(Error::input("there is no case to average; check that the split has subjects"));
    }
    if !(level > 0.0 && level < 1.0) {
        return Err(Error::input(format!(
            "the confidence level is {level}; give one between 0 and 1, such as 0.95"
        )));
    }
    Ok(())
}

/// Student's t distribution. `freedom` is the number of values less one, and there is more than one where it is asked for.
fn student_t(freedom: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, freedom).expect("positive degrees of freedom")
}

/// The value below which Student's t with `freedom` degrees lies with probability `p` in (0, 1): to 12 digits, but for
/// levels whose tails are below 1e-8.
pub fn student_t_quantile(p: f64, freedom: f64) -> f64 {
    student_t(freedom).inverse_cdf(p)
}

/// P(T > t) for t >= 0.
fn student_t_upper_tail(t: f64, freedom: f64) -> f64 {
    if t.is_nan() { f64::NAN } else { student_t(freedom).sf(t) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known values, computed with 30 digits.
    #[test]
    fn t_quantiles_are_those_of_the_tables() {
        for (p, df, t) in [
            (0.975, 1.0, 12.706204736174705),
            (0.975, 2.0, 4.302652729749464),
            (0.975, 9.0, 2.2621571627982055),
            (0.975, 30.0, 2.042_272_456_301_238),
            (0.995, 5.0, 4.032142983555228),
            (0.975, 1000.0, 1.9623390808264085),
            (0.025, 9.0, -2.2621571627982055),
        ] {
            let got = student_t_quantile(p, df);
            assert!((got - t).abs() < 1e-11 * t.abs(), "p {p}, df {df}: {got} instead of {t}");
        }
        assert!(student_t_quantile(0.5, 4.0).abs() < 1e-12);
    }

    #[test]
    fn intervals_of_a_small_sample() {
        let v = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!((mean(&v), median(&v)), (5.0, 4.5));
        let sd = standard_deviation(&v);
        assert!((sd - (32.0f64 / 7.0).sqrt()).abs() < 1e-15);
        let i = mean_interval(&v, 0.95).unwrap();
        assert!((i.half_width() - 2.364624251592785 * sd / 8f64.sqrt()).abs() < 1e-11);
        let b = bootstrap_interval(&v, 0.95, 5000, 1).unwrap();
        assert_eq!(b, bootstrap_interval(&v, 0.95, 5000, 1).unwrap());
        assert!(b.low > 3.4 && b.low < 4.2 && b.high > 5.9 && b.high < 6.8, "{b:?}");
        let one = mean_interval(&[3.0], 0.95).unwrap();
        assert_eq!((one.mean, one.low, one.high), (3.0, f64::NEG_INFINITY, f64::INFINITY));
        assert!(mean_interval(&[], 0.95).is_err() && mean_interval(&v, 1.0).is_err());
        assert_eq!(quantile(&[f64::INFINITY, f64::INFINITY], 0.5), f64::INFINITY);
    }

    /// A 95 % interval holds the true mean in 95 % of samples.
    #[test]
    fn coverage_is_as_stated() {
        let mut r = Philox::new(11, 0);
        let trials = 4000;
        let mut hits = 0;
        for _ in 0..trials {
            let sample: Vec<f64> = (0..5).map(|_| 3.0 + 2.0 * r.normal()).collect();
            let i = mean_interval(&sample, 0.95).unwrap();
            hits += usize::from(i.low <= 3.0 && 3.0 <= i.high);
        }
        let share = hits as f64 / trials as f64;
        // Four standard errors of a proportion of 0.95 over 4000 trials.
        assert!((share - 0.95).abs() < 4.0 * (0.95f64 * 0.05 / trials as f64).sqrt(), "{share}");
    }

    /// The p value was computed with 30 digits.
    #[test]
    fn paired_test_uses_the_differences() {
        let a = [30.1, 28.4, 31.0, 29.9, 27.5];
        let b = [29.0, 27.9, 30.1, 29.5, 27.6];
        let p = paired(&a, &b, 0.95).unwrap();
        assert!((p.difference.mean - 0.56).abs() < 1e-12);
        assert!((p.p_value - 0.05511887980272172).abs() < 1e-12, "{}", p.p_value);
        assert_eq!(paired(&a, &a, 0.95).unwrap().p_value, 1.0);
        assert!(paired(&a, &b[..4], 0.95).unwrap_err().to_string().contains("same cases"));
    }
}
