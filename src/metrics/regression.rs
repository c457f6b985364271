//! How good predicted numbers are: mean absolute error, root mean squared error, coefficient of determination and correlation,
//! with 95 % intervals over cases (percentiles of the bootstrap).

use super::classification::{Score, bootstrap};

/// Truth and prediction of one case.
pub type Pair = (f64, f64);

/// `mae`, `rmse` (both in the number's units), `r2` (1 less the squared errors over those of the mean) and `pearson`. The last
/// two are NaN where the truth is the same everywhere.
pub fn scores(pairs: &[Pair]) -> Vec<Score> {
    let all: Vec<&Pair> = pairs.iter().collect();
    let intervals = bootstrap(&all, |pairs| values(pairs).to_vec());
    NAMES.into_iter().map(String::from).zip(intervals).collect()
}

/// The names of the scores.
pub const NAMES: [&str; 4] = ["mae", "rmse", "r2", "pearson"];

/// The scores without intervals.
pub fn values(pairs: &[&Pair]) -> [f64; 4] {
    let n = pairs.len() as f64;
    let mean = |of: &dyn Fn(&Pair) -> f64| pairs.iter().map(|p| of(p)).sum::<f64>() / n;
    let (t, p) = (mean(&|p| p.0), mean(&|p| p.1));
    let squares = mean(&|(a, b)| (a - b).powi(2));
    let (var_t, var_p) = (mean(&|x| (x.0 - t).powi(2)), mean(&|x| (x.1 - p).powi(2)));
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { f64::NAN };
    [
        mean(&|(a, b)| (a - b).abs()),
        squares.sqrt(),
        1.0 - ratio(squares, var_t),
        ratio(mean(&|x| (x.0 - t) * (x.1 - p)), (var_t * var_p).sqrt()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NumPy: `np.corrcoef([1, 2, 4, 7], [1.5, 2, 3, 8])[0, 1]` is 0.960988; the rest by hand.
    #[test]
    fn numbers_are_scored() {
        let pairs = [(1.0, 1.5), (2.0, 2.0), (4.0, 3.0), (7.0, 8.0)];
        let [mae, rmse, r2, pearson] = values(&pairs.iter().collect::<Vec<_>>());
        assert!((mae - 0.625).abs() < 1e-12 && (rmse - 0.75).abs() < 1e-12);
        assert!((r2 - (1.0 - 2.25 / 21.0)).abs() < 1e-12);
        assert!((pearson - 0.960_988).abs() < 1e-5, "{pearson}");
        let same = values(&[&(1.0, 1.0), &(1.0, 2.0)]);
        assert!(same[2].is_nan() && same[3].is_nan() && same[0] == 0.5);
        assert!(scores(&pairs).iter().all(|(_, i)| i.low <= i.mean && i.mean <= i.high));
    }
}
