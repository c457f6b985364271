//! How good predicted classes and findings are: accuracy, balanced accuracy, sensitivity, specificity, precision, F1, AUROC,
//! the confusion matrix and calibration, with 95 % intervals over cases.
//!
//! Of two classes the second is the positive one. Of more, and of findings, sensitivity, specificity, precision, F1 and AUROC
//! are those of each against the rest, and their means over those that occur (macro averages).

use super::stats::{Interval, quantile};
use crate::error::{Error, Result};
use crate::rng::Philox;

/// Samples of cases behind an interval, and the seed of all of them.
const RESAMPLES: usize = 1000;
const SEED: u64 = 1;
/// Bins of the calibration error (Guo et al., ICML 2017, have 15; small cohorts need fewer).
const BINS: usize = 10;
/// The quantile of the normal distribution behind a 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// The prediction for one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The case.
    pub case: String,
    /// Which of the names are true.
    pub truth: Vec<bool>,
    /// Their probabilities.
    pub p: Vec<f64>,
}

/// Predictions for cases.
#[derive(Clone, Debug, PartialEq)]
pub struct Decisions {
    /// The classes or findings.
    pub names: Vec<String>,
    /// Whether exactly one of them is true of a case: classes. Findings may be any number.
    pub exclusive: bool,
    /// Case by case.
    pub rows: Vec<Row>,
}

/// A score with its interval.
pub type Score = (String, Interval);

/// How often something is found and mistaken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    tp: usize,
    fp: usize,
    tn: usize,
    r#fn: usize,
}

impl Counts {
    fn sensitivity(&self) -> f64 {
        share(self.tp, self.tp + self.r#fn)
    }

    fn specificity(&self) -> f64 {
        share(self.tn, self.tn + self.fp)
    }

    /// Of nothing that is taken for positive there is no precision.
    fn precision(&self) -> f64 {
        share(self.tp, self.tp + self.fp)
    }

    /// 2 TP / (2 TP + FP + FN); NaN where there is nothing to find and nothing found.
    fn f1(&self) -> f64 {
        share(2 * self.tp, 2 * self.tp + self.fp + self.r#fn)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

impl Decisions {
    /// Fails where there is no case, or where probabilities are no numbers: such a network's scores would look like any.
    pub fn new(names: &[String], exclusive: bool, rows: Vec<Row>) -> Result<Self> {
        if rows.is_empty() {
            return Err(Error::input("there is no case to average; check that the split has subjects"));
        }
        if let Some(row) = rows.iter().find(|r| r.p.iter().any(|p| !p.is_finite())) {
            return Err(Error::input(format!(
                "the prediction for {} is no number (NaN or infinite); train again with a lower `optimiser.lr`",
                row.case
            )));
        }
        Ok(Decisions { names: names.to_vec(), exclusive, rows })
    }

    /// What is decided for a case: the likeliest class (of equals the first), or every finding above one half.
    pub fn decided(&self, row: &Row) -> Vec<bool> {
        if !self.exclusive {
            return row.p.iter().map(|p| *p > 0.5).collect();
        }
        let best = likeliest(&row.p);
        (0..row.p.len()).map(|k| k == best).collect()
    }

    /// The names that are scored by themselves: the positive class of two, else all.
    fn scored(&self) -> Vec<usize> {
        if self.exclusive && self.names.len() == 2 { vec![1] } else { (0..self.names.len()).collect() }
    }

    /// Rows: the true class; columns: the decided one. Empty for findings.
    pub fn confusion(&self) -> Vec<Vec<u64>> {
        if !self.exclusive {
            return Vec::new();
        }
        let n = self.names.len();
        let mut matrix = vec![vec![0; n]; n];
        for row in &self.rows {
            let truth = row.truth.iter().position(|t| *t).unwrap_or(0);
            matrix[truth][likeliest(&row.p)] += 1;
        }
        matrix
    }

    /// Scores over all cases: `accuracy` (of findings: all of a case right), `balanced_accuracy` (mean over classes of their
    /// sensitivities; of findings of (sensitivity + specificity) / 2), `sensitivity`, `specificity`, `precision`, `f1`,
    /// `auroc`, `log_loss` (natural logarithm), `brier` (sum of squares over the names: of two classes twice scikit-learn's),
    /// `ece` (expected calibration error, 10 bins).
    ///
    /// Intervals of shares of cases (the accuracy, and of two classes sensitivity, specificity and precision) are Wilson's, the
    /// others percentiles of the bootstrap over cases. What no case allows
    /// (the AUROC where all are of one class) is NaN.
    pub fn overall(&self) -> Vec<Score> {
        let all: Vec<&Row> = self.rows.iter().collect();
        let right = self.rows.iter().filter(|r| self.decided(r) == r.truth).count();
        let values = self.values(&all);
        let names = values.iter().map(|(name, _)| *name);
        let intervals = bootstrap(&all, |rows| self.values(rows).into_iter().map(|(_, v)| v).collect());
        let mut scores = vec![("accuracy".to_string(), wilson(right, self.rows.len()))];
        scores.extend(names.map(String::from).zip(intervals));
        if let [k] = self.scored()[..] {
            // Shares of the one positive class.
            let c = self.counts(&all, k);
            for (name, interval) in &mut scores {
                match name.as_str() {
                    "sensitivity" => *interval = wilson(c.tp, c.tp + c.r#fn),
                    "specificity" => *interval = wilson(c.tn, c.tn + c.fp),
                    "precision" => *interval = wilson(c.tp, c.tp + c.fp),
                    _ => {}
                }
            }
        }
        scores
    }

    /// The values of [`Decisions::overall`] but the accuracy, without intervals.
    fn values(&self, rows: &[&Row]) -> Vec<(&'static str, f64)> {
        let counts: Vec<Counts> = (0..self.names.len()).map(|k| self.counts(rows, k)).collect();
        let scored = self.scored();
        let macro_mean = |of: &dyn Fn(usize) -> f64, over: &[usize]| {
            let known: Vec<f64> = over.iter().map(|&k| of(k)).filter(|v| !v.is_nan()).collect();
            known.iter().sum::<f64>() / known.len() as f64
        };
        let every: Vec<usize> = (0..self.names.len()).collect();
        let balanced = match self.exclusive {
            true => macro_mean(&|k| counts[k].sensitivity(), &every),
            false => macro_mean(&|k| 0.5 * (counts[k].sensitivity() + counts[k].specificity()), &every),
        };
        vec![
            ("balanced_accuracy", balanced),
            ("sensitivity", macro_mean(&|k| counts[k].sensitivity(), &scored)),
            ("specificity", macro_mean(&|k| counts[k].specificity(), &scored)),
            ("precision", macro_mean(&|k| counts[k].precision(), &scored)),
            ("f1", macro_mean(&|k| counts[k].f1(), &scored)),
            ("auroc", macro_mean(&|k| auroc(rows, k), &scored)),
            ("log_loss", rows.iter().map(|r| self.log_loss(r)).sum::<f64>() / rows.len() as f64),
            ("brier", rows.iter().map(|r| brier(r)).sum::<f64>() / rows.len() as f64),
            ("ece", self.calibration_error(rows)),
        ]
    }

    /// Scores without intervals, for curves over the training.
    pub fn quick(&self) -> Vec<(String, f64)> {
        let all: Vec<&Row> = self.rows.iter().collect();
        let right = self.rows.iter().filter(|r| self.decided(r) == r.truth).count();
        let values = self.values(&all).into_iter().map(|(name, v)| (name.to_string(), v));
        [("accuracy".to_string(), share(right, self.rows.len()))].into_iter().chain(values).collect()
    }

    /// Of each class or finding against the rest: its number of cases, `sensitivity`, `specificity` and `precision` with
    /// Wilson's intervals, `f1` and `auroc` with bootstrapped ones.
    pub fn each(&self) -> Vec<(String, usize, Vec<Score>)> {
        let all: Vec<&Row> = self.rows.iter().collect();
        let one = |k: usize| {
            let c = self.counts(&all, k);
            let both = bootstrap(&all, |rows| vec![self.counts(rows, k).f1(), auroc(rows, k)]);
            let scores = vec![
                ("sensitivity".to_string(), wilson(c.tp, c.tp + c.r#fn)),
                ("specificity".to_string(), wilson(c.tn, c.tn + c.fp)),
                ("precision".to_string(), wilson(c.tp, c.tp + c.fp)),
                ("f1".to_string(), both[0]),
                ("auroc".to_string(), both[1]),
            ];
            (self.names[k].clone(), c.tp + c.r#fn, scores)
        };
        (0..self.names.len()).map(one).collect()
    }

    fn counts(&self, rows: &[&Row], k: usize) -> Counts {
        let mut counts = Counts::default();
        for row in rows {
            let yes = if self.exclusive { likeliest(&row.p) == k } else { row.p[k] > 0.5 };
            match (row.truth[k], yes) {
                (true, true) => counts.tp += 1,
                (true, false) => counts.r#fn += 1,
                (false, true) => counts.fp += 1,
                (false, false) => counts.tn += 1,
            }
        }
        counts
    }

    /// Minus the logarithm of what was true, at least of 1e-15 as scikit-learn bounds it; of findings summed over them.
    pub fn log_loss(&self, row: &Row) -> f64 {
        let log = |p: f64| -p.clamp(1e-15, 1.0 - 1e-15).ln();
        let pairs = row.truth.iter().zip(&row.p);
        match self.exclusive {
            true => pairs.filter(|(t, _)| **t).map(|(_, p)| log(*p)).sum(),
            false => pairs.map(|(t, p)| log(if *t { *p } else { 1.0 - p })).sum(),
        }
    }

    /// How far confidence and frequency are apart, by bins of confidence: of the decided class, or of each finding's
    /// probability.
    fn calibration_error(&self, rows: &[&Row]) -> f64 {
        let mut bins = [(0usize, 0.0, 0usize); BINS];
        let mut add = |confidence: f64, right: bool| {
            let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
            *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + usize::from(right));
        };
        for row in rows {
            if self.exclusive {
                let best = likeliest(&row.p);
                add(row.p[best], row.truth[best]);
            } else {
                row.p.iter().zip(&row.truth).for_each(|(p, t)| add(*p, *t));
            }
        }
        let all: usize = bins.iter().map(|b| b.0).sum();
        bins.iter().map(|(_, confidence, right)| (confidence - *right as f64).abs()).sum::<f64>() / all as f64
    }
}

/// The index of the largest; of equals the first.
pub fn likeliest(p: &[f64]) -> usize {
    (0..p.len()).fold(0, |best, k| if p[k] > p[best] { k } else { best })
}

/// The sum of squares between probabilities and truth (Brier 1950).
pub fn brier(row: &Row) -> f64 {
    row.truth.iter().zip(&row.p).map(|(t, p)| (p - f64::from(u8::from(*t))).powi(2)).sum()
}

/// The area under the receiver operating characteristic: the share of pairs of a positive and a negative case in which the
/// positive one has the higher probability, ties counting half (Hanley and McNeil 1982). NaN without either.
pub fn auroc(rows: &[&Row], k: usize) -> f64 {
    let mut all: Vec<(f64, bool)> = rows.iter().map(|r| (r.p[k], r.truth[k])).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = all.iter().filter(|(_, t)| *t).count();
    let negatives = all.len() - positives;
    let (mut below, mut pairs, mut at) = (0usize, 0.0, 0);
    while at < all.len() {
        let end = at + all[at..].iter().take_while(|(p, _)| *p == all[at].0).count();
        let tied = all[at..end].iter().filter(|(_, t)| !t).count();
        pairs += (end - at - tied) as f64 * (below as f64 + 0.5 * tied as f64);
        below += tied;
        at = end;
    }
    pairs / (positives * negatives) as f64
}

/// Wilson's interval of a share (1927); NaN of nothing.
pub fn wilson(part: usize, whole: usize) -> Interval {
    let (n, p) = (whole as f64, share(part, whole));
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Interval { mean: p, low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
}

/// Statistics of all rows, with percentile intervals over samples of rows drawn with replacement (Efron 1979). Samples in
/// which a statistic is none (an AUROC of one class) do not count for it.
pub(super) fn bootstrap<T>(rows: &[&T], statistics: impl Fn(&[&T]) -> Vec<f64>) -> Vec<Interval> {
    let means = statistics(rows);
    let mut random = Philox::named(SEED, "bootstrap");
    let mut samples: Vec<Vec<f64>> = vec![Vec::with_capacity(RESAMPLES); means.len()];
    for _ in 0..RESAMPLES {
        let drawn: Vec<&T> = (0..rows.len()).map(|_| rows[random.below(rows.len())]).collect();
        let values = statistics(&drawn);
        samples.iter_mut().zip(values).filter(|(_, v)| !v.is_nan()).for_each(|(list, v)| list.push(v));
    }
    let of = |(mean, list): (&f64, &Vec<f64>)| Interval {
        mean: *mean,
        low: quantile(list, 0.025),
        high: quantile(list, 0.975),
    };
    means.iter().zip(&samples).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|k| format!("c{k}")).collect()
    }

    fn classes(rows: &[(usize, &[f64])]) -> Decisions {
        let n = rows[0].1.len();
        let row = |(i, (truth, p)): (usize, &(usize, &[f64]))| Row {
            case: format!("s{i}"),
            truth: (0..n).map(|k| k == *truth).collect(),
            p: p.to_vec(),
        };
        Decisions::new(&names(n), true, rows.iter().enumerate().map(row).collect()).unwrap()
    }

    fn value(scores: &[Score], name: &str) -> f64 {
        scores.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1.mean
    }

    /// By hand: of four ill ones three are found, of six healthy ones one is mistaken.
    #[test]
    fn two_classes_are_scored_by_the_second() {
        let ill = [0.9, 0.8, 0.7, 0.3];
        let healthy = [0.1, 0.2, 0.2, 0.3, 0.4, 0.6];
        let p: Vec<(usize, [f64; 2])> = ill
            .iter()
            .map(|p| (1, [1.0 - p, *p]))
            .chain(healthy.iter().map(|p| (0, [1.0 - p, *p])))
            .collect();
        let rows: Vec<(usize, &[f64])> = p.iter().map(|(t, p)| (*t, &p[..])).collect();
        let d = classes(&rows);
        let all = d.overall();
        let close = |name: &str, want: f64| {
            assert!((value(&all, name) - want).abs() < 1e-12, "{name}: {:?}", value(&all, name))
        };
        close("accuracy", 0.8);
        close("sensitivity", 0.75);
        close("specificity", 5.0 / 6.0);
        close("balanced_accuracy", 0.5 * (0.75 + 5.0 / 6.0));
        close("precision", 0.75);
        close("f1", 0.75);
        // Of 24 pairs: 0.9, 0.8 and 0.7 beat all six; 0.3 beats three and ties with one.
        close("auroc", (18.0 + 3.5) / 24.0);
        let squares: f64 =
            ill.iter().map(|p| (1.0 - p).powi(2)).sum::<f64>() + healthy.iter().map(|p| p * p).sum::<f64>();
        close("brier", 2.0 * squares / 10.0);
        assert_eq!(d.confusion(), [[5, 1], [1, 3]]);
        // Bins of the confidence: [0.6, 0.7): 0.4 healthy right, 0.6 mistaken; [0.7, 0.8): three right, one wrong; [0.8, 0.9):
        // three right; [0.9, 1]: two right.
        let ece = ((0.6f64 + 0.6 - 1.0).abs()
            + (0.7 + 0.7 + 0.7 - 2.0f64).abs()
            + (0.8 * 3.0 - 3.0f64).abs()
            + (1.8 - 2.0f64).abs())
            / 10.0;
        close("ece", ece);
        for (name, interval) in &all {
            assert!(interval.low <= interval.mean && interval.mean <= interval.high, "{name}: {interval:?}");
        }
    }

    #[test]
    fn several_classes_are_scored_one_against_the_rest() {
        let d = classes(&[
            (0, &[0.8, 0.1, 0.1]),
            (0, &[0.3, 0.6, 0.1]),
            (1, &[0.1, 0.8, 0.1]),
            (2, &[0.2, 0.2, 0.6]),
        ]);
        let all = d.overall();
        assert_eq!(value(&all, "accuracy"), 0.75);
        assert!((value(&all, "balanced_accuracy") - (0.5 + 1.0 + 1.0) / 3.0).abs() < 1e-12);
        // F1: 2/3, 2/3, 1.
        assert!((value(&all, "f1") - (2.0 / 3.0 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
        assert_eq!(d.each().iter().map(|e| e.1).collect::<Vec<_>>(), [2, 1, 1]);
        let log = -(0.8f64.ln() + 0.3f64.ln() + 0.8f64.ln() + 0.6f64.ln()) / 4.0;
        assert!((value(&all, "log_loss") - log).abs() < 1e-12);
    }

    #[test]
    fn findings_may_be_any_number() {
        let row =
            |truth: [bool; 2], p: [f64; 2]| Row { case: "s".into(), truth: truth.to_vec(), p: p.to_vec() };
        let rows = vec![
            row([true, true], [0.9, 0.2]),
            row([false, true], [0.6, 0.7]),
            row([false, false], [0.1, 0.1]),
            row([true, false], [0.8, 0.3]),
        ];
        let d = Decisions::new(&names(2), false, rows).unwrap();
        let all = d.overall();
        // Two of four cases are right altogether.
        assert_eq!(value(&all, "accuracy"), 0.5);
        assert!((value(&all, "sensitivity") - 0.75).abs() < 1e-12);
        assert!((value(&all, "specificity") - 0.75).abs() < 1e-12);
        assert!((value(&all, "auroc") - 0.5 * (1.0 + 0.75)).abs() < 1e-12);
        assert!(d.confusion().is_empty());
    }

    #[test]
    fn where_all_are_of_one_class_there_is_no_auroc() {
        let d = classes(&[(1, &[0.2, 0.8]), (1, &[0.6, 0.4])]);
        assert!(value(&d.overall(), "auroc").is_nan() && value(&d.overall(), "specificity").is_nan());
        let row = Row { case: "bad".into(), truth: vec![true, false], p: vec![f64::NAN, 0.5] };
        let error = Decisions::new(&names(2), true, vec![row]).expect_err("no number").to_string();
        assert!(error.contains("bad"), "{error}");
    }

    /// R's `prop.test(15, 20, correct = FALSE)`: 0.5313 to 0.8881; and of none a one-sided interval.
    #[test]
    fn wilsons_interval_is_that_of_others() {
        let i = wilson(15, 20);
        assert!((i.low - 0.5313).abs() < 5e-5 && (i.high - 0.8881).abs() < 5e-5, "{i:?}");
        assert!(wilson(0, 10).low == 0.0 && (wilson(0, 10).high - 0.2775).abs() < 5e-5);
    }
}
