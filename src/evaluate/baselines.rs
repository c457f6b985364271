//! What a translating network must beat. Everything that a baseline has to choose is chosen on the training split.

use super::score;
use crate::data::{Case, Dataset};
use crate::error::Result;
use crate::metrics::baseline::Lookup;
use crate::metrics::filters;
use crate::recipe::baseline::Baseline;
use rayon::prelude::*;

/// Cases on which a filter's strength is chosen.
const FITTED_ON: usize = 2;
/// Points of a histogram's map.
const QUANTILES: usize = 257;

/// A baseline that is ready to predict.
pub enum Fitted {
    /// One table per target channel.
    LookUp(Vec<Lookup>),
    /// Nothing to choose.
    Identity,
    /// Quantiles of inputs and of targets.
    Histogram(Vec<f32>, Vec<f32>),
    /// A filter and its strength.
    Filter(Baseline, f64),
}

impl Fitted {
    /// Chooses everything that a baseline needs on a training split.
    pub fn fit(baseline: Baseline, train: &Dataset) -> Result<Fitted> {
        Ok(match baseline {
            Baseline::LookUp => Fitted::LookUp(score::fit_lookup(train)?),
            Baseline::Identity => Fitted::Identity,
            Baseline::Histogram => {
                let (mut inputs, mut targets) = (Vec::new(), Vec::new());
                for i in 0..train.cases() {
                    let case = train.case(i)?;
                    inputs.extend(score::apply_identity(&case));
                    targets.extend(case.target.unwrap_or_default());
                }
                Fitted::Histogram(quantiles(inputs), quantiles(targets))
            }
            Baseline::Gaussian => Self::strongest(baseline, train, &[0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3])?,
            Baseline::Median => Self::strongest(baseline, train, &[1.0, 2.0])?,
            Baseline::Nlm => Self::strongest(baseline, train, &[0.05, 0.1, 0.15, 0.2, 0.3])?,
        })
    }

    /// The strength of a filter with the smallest squared error on some training cases.
    fn strongest(filter: Baseline, train: &Dataset, strengths: &[f64]) -> Result<Fitted> {
        let cases: Vec<Case> =
            (0..train.cases().min(FITTED_ON)).map(|i| train.case(i)).collect::<Result<_>>()?;
        let mut best = (f64::INFINITY, strengths[0]);
        for &strength in strengths {
            let mut error = 0.0;
            for case in &cases {
                let made = Fitted::Filter(filter, strength).apply(case)?;
                let target = case.target.as_deref().unwrap_or_default();
                error += made.iter().zip(target).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            }
            if error < best.0 {
                best = (error, strength);
            }
        }
        Ok(Fitted::Filter(filter, best.1))
    }

    /// Predicts a case.
    pub fn apply(&self, case: &Case) -> Result<Vec<f32>> {
        Ok(match self {
            Fitted::LookUp(lookups) => score::apply_lookup(lookups, case)?,
            Fitted::Identity => score::apply_identity(case),
            Fitted::Histogram(from, to) => {
                score::apply_identity(case).into_iter().map(|v| mapped(v, from, to)).collect()
            }
            Fitted::Filter(filter, strength) => {
                let [_, h, w, c] = case.target_shape;
                let source = score::apply_identity(case);
                let slice = |image: &[f32]| {
                    let mut out = vec![0.0; image.len()];
                    for k in 0..c {
                        let plane: Vec<f32> = image.iter().skip(k).step_by(c).copied().collect();
                        let made = match filter {
                            Baseline::Median => filters::median(&plane, [h, w], *strength as usize),
                            Baseline::Nlm => filters::non_local_means(&plane, [h, w], *strength),
                            _ => filters::gaussian(&plane, [h, w], *strength),
                        };
                        out.iter_mut().skip(k).step_by(c).zip(made).for_each(|(o, v)| *o = v);
                    }
                    out
                };
                source.par_chunks(h * w * c).flat_map_iter(slice).collect()
            }
        })
    }
}

/// Evenly spaced quantiles, from the smallest value to the largest.
fn quantiles(mut values: Vec<f32>) -> Vec<f32> {
    values.sort_unstable_by(f32::total_cmp);
    let last = values.len().saturating_sub(1);
    (0..QUANTILES).map(|i| values.get(i * last / (QUANTILES - 1)).copied().unwrap_or(0.0)).collect()
}

/// The value with the same rank among `to` as `v` has among `from`.
fn mapped(v: f32, from: &[f32], to: &[f32]) -> f32 {
    let above = from.partition_point(|q| *q < v);
    if above == 0 {
        return to[0];
    }
    if above == from.len() {
        return to[to.len() - 1];
    }
    let (low, high) = (from[above - 1], from[above]);
    let t = if high > low { (v - low) / (high - low) } else { 0.0 };
    to[above - 1] + t * (to[above] - to[above - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monotone_map_is_found_by_ranks() {
        let from: Vec<f32> = (0..10_000).map(|i| i as f32 / 1e4).collect();
        let to: Vec<f32> = from.iter().map(|v| v * v).collect();
        let (a, b) = (quantiles(from.clone()), quantiles(to));
        for v in [0.1f32, 0.37, 0.8] {
            assert!((mapped(v, &a, &b) - v * v).abs() < 1e-3);
        }
        assert_eq!((mapped(-5.0, &a, &b), mapped(7.0, &a, &b)), (b[0], b[256]));
    }
}
