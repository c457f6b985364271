//! The cases of a split: measured, and the best and the worst of them drawn.

use super::Options;
use crate::data::Split;
use crate::error::Result;
use crate::evaluate::evaluation;
use crate::evaluate::validation::draw;
use crate::metrics::case::Summary;
use crate::run::folder::RunDir;
use crate::run::predictor::Predictor;
use crate::watch::panels::Image;

/// Slices of a case that are drawn.
const ROWS: usize = 3;

/// What was measured of a run.
pub struct Measured {
    /// Of the cases.
    pub split: Split,
    /// The checkpoint.
    pub which: String,
    /// The metric that ranks cases, and whether more of it is better.
    pub metric: (String, bool),
    /// The network's scores, then those of each baseline.
    pub summaries: Vec<(String, Summary)>,
    /// What `gan evaluate` prints, where there are no cases but sets of images.
    pub text: String,
    /// How the network compares with each baseline.
    pub verdicts: Vec<String>,
    /// What must be known of the data.
    pub notes: Vec<String>,
    /// Name, score and picture of the best and the worst case.
    pub extremes: Vec<(&'static str, String, f64, Image)>,
}

impl Measured {
    /// Measures a split as `gan evaluate` does.
    pub fn of(run: &RunDir, split: Split, options: &Options) -> Result<Self> {
        let mut predictor = Predictor::open(run, options.checkpoint, &options.device)?;
        let found = evaluation::evaluate(&mut predictor, split)?;
        let rank = predictor.recipe().validate.metric;
        let metric = (rank.name().to_string(), rank.maximise());
        let mut extremes = Vec::new();
        let images = predictor.recipe().data.answers().is_none();
        if let Some((_, network)) = found.summaries.first().filter(|_| images) {
            let mut order: Vec<(f64, usize)> = network
                .cases
                .iter()
                .enumerate()
                .filter_map(|(i, c)| Some((c.get(&metric.0)?, i)).filter(|(v, _)| v.is_finite()))
                .collect();
            order.sort_by(|a, b| if metric.1 { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
            let set = evaluation::open(&predictor, &found.cases, split)?;
            let ends = [("best", order.first()), ("worst", order.last().filter(|_| order.len() > 1))];
            for (what, (value, i)) in ends.into_iter().filter_map(|(w, e)| Some((w, *e?))) {
                let case = set.case(i)?;
                let output = predictor.slices(&case)?;
                let labels = predictor.recipe().data.labels.clone();
                let name = case.id.clone();
                let (picture, _) = draw(&[case], &[output], ROWS, labels.as_ref())?;
                extremes.push((what, name, value, picture));
            }
        }
        let (which, text) = (predictor.which(), found.text);
        Ok(Measured {
            split,
            which,
            metric,
            summaries: found.summaries,
            verdicts: found.verdicts,
            notes: found.notes,
            text,
            extremes,
        })
    }
}
