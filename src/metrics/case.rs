//! Scores per case and their summary over cases: a table for the terminal and JSON for the next program.

use super::image::Errors;
use super::ssim::Ssim;
use super::stats::{self, Interval, Paired};
use super::{Value, check_dims};
use crate::error::{Error, Result};
use crate::fsio;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::Write as _;
use std::path::Path;

/// The confidence of every interval in a [`Summary`].
pub const LEVEL: f64 = 0.95;

/// One case's scores, in the order in which they are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseScores {
    /// The case's name, such as `sub-01`.
    pub case: String,
    /// Metric names and values.
    pub scores: Vec<(String, f64)>,
}

impl CaseScores {
    /// No scores yet.
    pub fn new(case: impl Into<String>) -> Self {
        CaseScores { case: case.into(), scores: Vec::new() }
    }

    /// Adds a score, or replaces the one of that name.
    pub fn set(&mut self, metric: impl Into<String>, value: f64) -> &mut Self {
        let metric = metric.into();
        match self.scores.iter_mut().find(|(name, _)| *name == metric) {
            Some((_, old)) => *old = value,
            None => self.scores.push((metric, value)),
        }
        self
    }

    /// The score of that name.
    pub fn get(&self, metric: &str) -> Option<f64> {
        self.scores.iter().find(|(name, _)| name == metric).map(|(_, v)| *v)
    }

    /// What is reported of a synthesised image `[depth, height, width]`: `mae`, `nmse`, `psnr` (dB) and `ssim` within
    /// the mask, for the fixed data range L. Fails like [`Errors::between`] and [`Ssim::score`], naming the case.
    pub fn synthesis<X: Value, Y: Value>(
        case: impl Into<String>,
        output: &[X],
        target: &[Y],
        dims: [usize; 3],
        mask: Option<&[bool]>,
        ssim: &Ssim,
    ) -> Result<Self> {
        let mut scores = CaseScores::new(case);
        let named = |e: Error| Error::input(format!("case '{}': {e}", scores.case));
        let errors = Errors::between(output, target, mask).map_err(named)?;
        check_dims(dims, output.len()).map_err(named)?;
        let psnr = errors.psnr(ssim.range()).map_err(named)?;
        let similarity = ssim.score(output, target, dims, mask).map_err(named)?;
        scores.set("mae", errors.mae).set("nmse", errors.nmse).set("psnr", psnr).set("ssim", similarity);
        Ok(scores)
    }
}

/// One metric over all cases that have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    /// The metric's name.
    pub metric: String,
    /// Number of cases with this metric.
    pub cases: usize,
    /// How many of them are not finite (then the mean is not finite either: nothing is dropped).
    pub not_finite: usize,
    /// Mean and 95 % interval (Student's t).
    pub mean: Interval,
    /// Sample standard deviation.
    #[serde(with = "number")]
    pub sd: f64,
    /// Median.
    #[serde(with = "number")]
    pub median: f64,
    /// Smallest.
    #[serde(with = "number")]
    pub min: f64,
    /// Largest.
    #[serde(with = "number")]
    pub max: f64,
}

/// Scores of several cases with their means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// One entry per metric, in the order of first appearance.
    pub metrics: Vec<MetricSummary>,
    /// The cases behind it.
    pub cases: Vec<CaseScores>,
}

impl Summary {
    /// Summarises the cases. Fails when there is none.
    pub fn of(cases: Vec<CaseScores>) -> Result<Self> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in cases.iter().flat_map(|c| &c.scores) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Err(Error::input("there is no case to summarise; check that the split has subjects"));
        }
        let metrics = names
            .iter()
            .map(|&name| summarise(name, &cases.iter().filter_map(|c| c.get(name)).collect::<Vec<_>>()))
            .collect::<Result<_>>()?;
        Ok(Summary { metrics, cases })
    }

    /// The summary of one metric.
    pub fn get(&self, metric: &str) -> Option<&MetricSummary> {
        self.metrics.iter().find(|m| m.metric == metric)
    }

    /// Paired differences this - other per metric that both have, over the cases that both have. Fails when they
    /// share no case with a common metric.
    pub fn versus(&self, other: &Summary) -> Result<Vec<(String, Paired)>> {
        let mut out = Vec::new();
        for m in &self.metrics {
            let both = self.cases.iter().filter_map(|c| {
                let twin = other.cases.iter().find(|o| o.case == c.case)?;
                Some((c.get(&m.metric)?, twin.get(&m.metric)?))
            });
            let (a, b): (Vec<f64>, Vec<f64>) = both.unzip();
            if !a.is_empty() {
                out.push((m.metric.clone(), stats::paired(&a, &b, LEVEL)?));
            }
        }
        if out.is_empty() {
            return Err(Error::input(
                "the two summaries share no case and metric; compare runs over the same split",
            ));
        }
        Ok(out)
    }

    /// The table of means: one line per metric. Ends with a newline.
    pub fn table(&self) -> String {
        let mut rows =
            vec![["metric", "mean ± 95 %", "sd", "median", "min", "max", "cases"].map(String::from)];
        for m in &self.metrics {
            rows.push([
                m.metric.clone(),
                format!("{} ± {}", short(m.mean.mean), short(m.mean.half_width())),
                short(m.sd),
                short(m.median),
                short(m.min),
                short(m.max),
                if m.not_finite == 0 {
                    m.cases.to_string()
                } else {
                    format!("{} ({} not finite)", m.cases, m.not_finite)
                },
            ]);
        }
        aligned(&rows.iter().map(|r| r.to_vec()).collect::<Vec<_>>())
    }

    /// The table of cases: one line per case, one column per metric. Ends with a newline.
    pub fn case_table(&self) -> String {
        let header = std::iter::once("case".to_string()).chain(self.metrics.iter().map(|m| m.metric.clone()));
        let mut rows = vec![header.collect::<Vec<_>>()];
        for c in &self.cases {
            let values = self.metrics.iter().map(|m| c.get(&m.metric).map_or("-".to_string(), short));
            rows.push(std::iter::once(c.case.clone()).chain(values).collect());
        }
        aligned(&rows)
    }

    /// Indented JSON; numbers that are not finite are the strings `inf`, `-inf` and `nan`.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a summary is plain data")
    }

    /// Writes [`Self::to_json`] atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        fsio::write_bytes(path, format!("{}\n", self.to_json()).as_bytes())
    }

    /// Reads what [`Self::save`] wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        serde_json::from_str(&text).map_err(|e| {
            Error::input(format!(
                "{} is not a summary of scores ({e}); evaluate the run again",
                path.display()
            ))
        })
    }
}

/// The table of [`Summary::versus`]: per metric the mean difference, its interval and the p value. Ends with a newline.
pub fn paired_table(differences: &[(String, Paired)]) -> String {
    let mut rows = vec![["metric", "difference ± 95 %", "p"].map(String::from).to_vec()];
    for (metric, paired) in differences {
        let d = &paired.difference;
        let p = if paired.p_value < 1e-4 { "< 0.0001".to_string() } else { format!("{:.4}", paired.p_value) };
        rows.push(vec![metric.clone(), format!("{} ± {}", short(d.mean), short(d.half_width())), p]);
    }
    aligned(&rows)
}

fn summarise(metric: &str, values: &[f64]) -> Result<MetricSummary> {
    Ok(MetricSummary {
        metric: metric.to_string(),
        cases: values.len(),
        not_finite: values.iter().filter(|v| !v.is_finite()).count(),
        mean: stats::mean_interval(values, LEVEL)?,
        sd: stats::standard_deviation(values),
        median: stats::median(values),
        min: stats::quantile(values, 0.0),
        max: stats::quantile(values, 1.0),
    })
}

/// Four significant digits, without an exponent where that stays readable.
pub fn short(v: f64) -> String {
    match v.abs() {
        _ if v.is_nan() => "-".to_string(),
        a if a.is_infinite() => if v > 0.0 { "inf" } else { "-inf" }.to_string(),
        a if a == 0.0 || (1e-3..1e5).contains(&a) => {
            let digits = if a == 0.0 { 4 } else { (3 - a.log10().floor() as i32).clamp(0, 6) };
            format!("{v:.*}", digits as usize)
        }
        _ => format!("{v:.3e}"),
    }
}

/// Columns padded to equal width: the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (c, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            let _ = if c == 0 { write!(out, "{cell}{pad}") } else { write!(out, "  {pad}{cell}") };
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        if i == 0 {
            out.push_str(&"─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
            out.push('\n');
        }
    }
    out
}

impl Serialize for CaseScores {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = s.serialize_map(Some(1 + self.scores.len()))?;
        map.serialize_entry("case", &self.case)?;
        for (name, value) in &self.scores {
            map.serialize_entry(name, &number::Number(*value))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for CaseScores {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut map = serde_json::Map::<String, serde_json::Value>::deserialize(d)?;
        let case = match map.shift_remove("case") {
            Some(serde_json::Value::String(case)) => case,
            _ => return Err(D::Error::custom("a case has no name under the key 'case'")),
        };
        let parse = |(name, value): (String, serde_json::Value)| {
            let number: number::Number = serde_json::from_value(value).map_err(D::Error::custom)?;
            Ok((name, number.0))
        };
        Ok(CaseScores { case, scores: map.into_iter().map(parse).collect::<Result<_, _>>()? })
    }
}

/// JSON has no infinity and no NaN: they become the strings `inf`, `-inf` and `nan`.
pub(super) mod number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// A number with this representation, for use inside maps.
    pub struct Number(pub f64);

    pub fn serialize<S: Serializer>(v: &f64, s: S) -> Result<S::Ok, S::Error> {
        match v {
            v if v.is_finite() => s.serialize_f64(*v),
            v if v.is_nan() => s.serialize_str("nan"),
            v if *v > 0.0 => s.serialize_str("inf"),
            _ => s.serialize_str("-inf"),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Word(String),
        }
        match Either::deserialize(d)? {
            Either::Number(v) => Ok(v),
            Either::Word(w) if ["inf", "-inf", "nan"].contains(&w.as_str()) => {
                w.parse().map_err(serde::de::Error::custom)
            }
            Either::Word(w) => Err(serde::de::Error::custom(format!("'{w}' is not a number"))),
        }
    }

    impl Serialize for Number {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            serialize(&self.0, s)
        }
    }

    impl<'de> Deserialize<'de> for Number {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            deserialize(d).map(Number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ssim::Window;

    fn three() -> Summary {
        let case = |name: &str, psnr: f64, ssim: f64| {
            let mut c = CaseScores::new(name);
            c.set("psnr", psnr).set("ssim", ssim);
            c
        };
        Summary::of(vec![case("sub-01", 28.0, 0.9), case("sub-02", 30.0, 0.91), case("sub-03", 32.0, 0.98)])
            .unwrap()
    }

    #[test]
    fn table_shows_means_with_intervals() {
        let expected = "\
metric      mean ± 95 %       sd  median     min     max  cases
───────────────────────────────────────────────────────────────
psnr      30.00 ± 4.968    2.000   30.00   28.00   32.00      3
ssim    0.9300 ± 0.1083  0.04359  0.9100  0.9000  0.9800      3
";
        assert_eq!(three().table(), expected);
        assert!(three().case_table().contains("sub-02  30.00  0.9100\n"), "{}", three().case_table());
    }

    #[test]
    fn json_survives_a_round_trip_even_with_infinities() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.json");
        let mut cases = three().cases;
        cases[1].set("psnr", f64::INFINITY);
        let summary = Summary::of(cases).unwrap();
        let psnr = summary.get("psnr").unwrap();
        assert_eq!((psnr.cases, psnr.not_finite, psnr.mean.mean, psnr.median), (3, 1, f64::INFINITY, 32.0));
        assert!(summary.table().contains("3 (1 not finite)"));
        summary.save(&path).unwrap();
        let back = Summary::load(&path).unwrap();
        assert_eq!(back.cases, summary.cases);
        assert_eq!(back.to_json(), summary.to_json());
        std::fs::write(&path, "{}").unwrap();
        assert!(Summary::load(&path).unwrap_err().to_string().contains("scores.json"));
    }

    #[test]
    fn comparisons_are_paired_by_case() {
        let a = three();
        let mut cases = a.cases.clone();
        cases.reverse();
        for c in &mut cases {
            let psnr = c.get("psnr").unwrap();
            c.set("psnr", psnr - 2.0);
        }
        cases.push(CaseScores { case: "extra".into(), scores: vec![("psnr".into(), 0.0)] });
        let b = Summary::of(cases).unwrap();
        let difference = a.versus(&b).unwrap();
        assert_eq!(difference[0].0, "psnr");
        assert_eq!(difference[0].1.difference.mean, 2.0);
        assert!(
            paired_table(&difference).contains("2.000 ± 0.0000  < 0.0001\n"),
            "{}",
            paired_table(&difference)
        );
        assert!(Summary::of(vec![]).is_err());
    }

    #[test]
    fn synthesis_names_the_case_when_it_fails() {
        let ssim = Ssim::new(Window::Gaussian, 1.0).unwrap();
        let x = vec![0.5f32; 144];
        let c = CaseScores::synthesis("sub-01", &x, &x, [1, 12, 12], None, &ssim).unwrap();
        assert_eq!(
            c.scores.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
            ["mae", "nmse", "psnr", "ssim"]
        );
        assert_eq!((c.get("psnr"), c.get("ssim")), (Some(f64::INFINITY), Some(1.0)));
        let e = CaseScores::synthesis("sub-07", &x, &x[1..], [1, 12, 12], None, &ssim).unwrap_err();
        assert!(e.to_string().contains("sub-07"), "{e}");
    }
}
