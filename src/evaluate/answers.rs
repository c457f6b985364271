//! Targets that are no images, over subjects: what is predicted, how good it is beside baselines, and how it is shown.

use crate::data::{Answers, Case, DataConfig, Dataset};
use crate::error::{Error, Result};
use crate::metrics::case::{CaseScores, short};
use crate::metrics::classification::{Decisions, Row, Score, brier};
use crate::metrics::linear::{Linear, Link};
use crate::metrics::regression;
use crate::metrics::stats::quantile;
use crate::metrics::thresholds::Thresholds;
use crate::watch::panels::{Display, Image, grid};
use serde_json::{Map, Value, json};

/// What is watched in training.
pub fn watched(answers: Answers) -> Vec<String> {
    let names: &[&str] = match answers {
        Answers::Numbers(_) => &regression::NAMES,
        _ => &["accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1", "auroc", "log_loss"],
    };
    names.iter().map(ToString::to_string).collect()
}

/// What is known and predicted of subjects.
pub enum Found {
    /// Classes or findings.
    Decided(Decisions),
    /// Numbers: the columns' names, the cases, and truth and prediction column by column.
    Numbers {
        /// The columns.
        names: Vec<String>,
        /// The cases.
        cases: Vec<String>,
        /// Truth and prediction of each case, by column.
        pairs: Vec<Vec<regression::Pair>>,
    },
}

impl Found {
    /// Puts the cases' true answers and what was predicted (probabilities, or numbers in their units) together.
    pub fn of(answers: Answers, cases: &[(String, Vec<f32>)], predicted: &[Vec<f64>]) -> Result<Self> {
        let names = answers.names();
        let pairs = || cases.iter().zip(predicted);
        match answers {
            Answers::Numbers(_) => Ok(Found::Numbers {
                names: names.to_vec(),
                cases: cases.iter().map(|(id, _)| id.clone()).collect(),
                pairs: (0..names.len())
                    .map(|i| pairs().map(|((_, t), p)| (f64::from(t[i]), p[i])).collect())
                    .collect(),
            }),
            _ => {
                let exclusive = matches!(answers, Answers::Class(_));
                let truth = |t: &[f32]| -> Vec<bool> {
                    let yes = |k: usize| if exclusive { t[0] == k as f32 } else { t[k] > 0.5 };
                    (0..names.len()).map(yes).collect()
                };
                let row = |((id, t), p): (&(String, Vec<f32>), &Vec<f64>)| Row {
                    case: id.clone(),
                    truth: truth(t),
                    p: p.clone(),
                };
                Ok(Found::Decided(Decisions::new(names, exclusive, pairs().map(row).collect())?))
            }
        }
    }

    /// Scores over all cases, without intervals; of several numbers the means over them.
    pub fn quick(&self) -> Vec<(String, f64)> {
        match self {
            Found::Decided(decisions) => decisions.quick(),
            Found::Numbers { pairs, .. } => {
                let each: Vec<[f64; 4]> =
                    pairs.iter().map(|p| regression::values(&p.iter().collect::<Vec<_>>())).collect();
                let mean = |i: usize| each.iter().map(|v| v[i]).sum::<f64>() / each.len() as f64;
                regression::NAMES.iter().enumerate().map(|(i, n)| (n.to_string(), mean(i))).collect()
            }
        }
    }

    /// Scores with intervals: of everything, or of one column of numbers after the other.
    pub fn overall(&self) -> Vec<Score> {
        match self {
            Found::Decided(decisions) => decisions.overall(),
            Found::Numbers { names, pairs, .. } => {
                let one = names.len() == 1;
                let named = |(name, pairs): (&String, &Vec<_>)| {
                    let scores = regression::scores(pairs).into_iter();
                    scores
                        .map(|(metric, v)| (if one { metric } else { format!("{metric}_{name}") }, v))
                        .collect::<Vec<Score>>()
                };
                names.iter().zip(pairs).flat_map(named).collect()
            }
        }
    }

    /// Case by case, for paired comparisons: whether it is right, its loss and squared error; of numbers the absolute error.
    pub fn cases(&self) -> Vec<CaseScores> {
        match self {
            Found::Decided(decisions) => {
                let one = |row: &Row| {
                    let mut scores = CaseScores::new(row.case.clone());
                    let right = decisions.decided(row) == row.truth;
                    scores.set("accuracy", f64::from(u8::from(right)));
                    scores.set("log_loss", decisions.log_loss(row)).set("brier", brier(row));
                    scores
                };
                decisions.rows.iter().map(one).collect()
            }
            Found::Numbers { names, cases, pairs } => {
                let one = |(i, case): (usize, &String)| {
                    let mut scores = CaseScores::new(case.clone());
                    for (name, pairs) in names.iter().zip(pairs) {
                        let metric = if names.len() == 1 { "mae".into() } else { format!("mae_{name}") };
                        scores.set(metric, (pairs[i].0 - pairs[i].1).abs());
                    }
                    scores
                };
                cases.iter().enumerate().map(one).collect()
            }
        }
    }

    /// How well each class or finding is told from the rest at every threshold.
    pub fn curves(&self) -> Vec<(String, Thresholds)> {
        let Found::Decided(decisions) = self else { return Vec::new() };
        let skipped = usize::from(decisions.exclusive && decisions.names.len() == 2);
        let curve = |k: usize| {
            let mut curve = Thresholds::default();
            decisions.rows.iter().for_each(|r| curve.add(r.p[k] as f32, r.truth[k]));
            (decisions.names[k].clone(), curve)
        };
        (skipped..decisions.names.len()).map(curve).collect()
    }

    /// The confusion matrix in Markdown; nothing where there is none.
    pub fn confusion(&self) -> Option<String> {
        let Found::Decided(decisions) = self else { return None };
        let matrix = decisions.confusion();
        if matrix.is_empty() {
            return None;
        }
        let mut text = format!("| true \\ predicted | {} |\n|---|", decisions.names.join(" | "));
        text += &"---:|".repeat(decisions.names.len());
        for (name, row) in decisions.names.iter().zip(&matrix) {
            let row: Vec<String> = row.iter().map(ToString::to_string).collect();
            text += &format!("\n| {name} | {} |", row.join(" | "));
        }
        Some(text)
    }

    /// For people: every score with its 95 % interval, of each class or finding, and the confusion matrix.
    pub fn text(&self) -> String {
        let line = |(name, i): &Score| {
            format!("  {name:<18}{:>9}   {} to {}\n", short(i.mean), short(i.low), short(i.high))
        };
        let mut text: String = self.overall().iter().map(line).collect();
        if let Found::Decided(decisions) = self {
            if decisions.names.len() > 2 || !decisions.exclusive {
                for (name, cases, scores) in decisions.each() {
                    text += &format!("  {name} ({cases} of {} cases)\n", decisions.rows.len());
                    scores.iter().for_each(|s| text += &format!("  {}", line(s)));
                }
            }
            let matrix = decisions.confusion();
            if !matrix.is_empty() {
                let width = decisions.names.iter().map(|n| n.chars().count()).max().unwrap_or(0).max(6) + 2;
                let cells = |list: &[String]| list.iter().map(|c| format!("{c:>width$}")).collect::<String>();
                text += &format!("  {:<width$}{}\n", "true", cells(&decisions.names));
                for (name, row) in decisions.names.iter().zip(&matrix) {
                    let row: Vec<String> = row.iter().map(ToString::to_string).collect();
                    text += &format!("  {name:<width$}{}\n", cells(&row));
                }
            }
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let scores = |list: &[Score]| -> Map<String, Value> {
            let of = |(n, i): &Score| (n.clone(), serde_json::to_value(i).expect("plain data"));
            list.iter().map(of).collect()
        };
        let mut all = json!({ "scores": scores(&self.overall()) });
        if let Found::Decided(decisions) = self {
            let each = decisions.each().into_iter();
            let each: Map<String, Value> =
                each.map(|(name, n, s)| (name, json!({ "cases": n, "scores": scores(&s) }))).collect();
            all["classes"] = Value::Object(each);
            all["confusion"] =
                json!({ "names": decisions.names, "rows_true_columns_predicted": decisions.confusion() });
        }
        all
    }

    /// Whether each case is right, where that can be said.
    fn right(&self) -> Option<Vec<bool>> {
        let Found::Decided(decisions) = self else { return None };
        Some(decisions.rows.iter().map(|r| decisions.decided(r) == r.truth).collect())
    }
}

/// Pixels of the frame around a picture, and its colours where a prediction is right and wrong.
const FRAME: usize = 4;
const RIGHT: [u8; 3] = [46, 160, 67];
const WRONG: [u8; 3] = [207, 34, 46];
/// Least pixels of a picture's side.
const SIDE: usize = 128;

/// A picture of subjects' middle slices, evenly chosen, framed green where the prediction is right and red where it is wrong.
pub fn picture(found: &Found, middles: &[(Vec<f32>, [usize; 2])], rows: usize) -> Result<Image> {
    let count = (rows * rows.max(4)).min(middles.len());
    let right = found.right();
    let tile = |i: usize| {
        let at = i * middles.len() / count;
        let (pixels, [h, w]) = &middles[at];
        let image = Display::grey(-1.0, 1.0).draw(pixels, *h, *w)?.enlarge((SIDE / h.max(w)).max(1));
        match right.as_ref().map(|r| r[at]) {
            Some(true) => framed(&image, RIGHT),
            Some(false) => framed(&image, WRONG),
            None => Ok(image),
        }
    };
    let tiles = (0..count).map(tile).collect::<Result<Vec<Image>>>()?;
    let columns = (count as f64).sqrt().ceil().max(1.0) as usize;
    grid(&tiles.chunks(columns).map(<[Image]>::to_vec).collect::<Vec<_>>(), 2)
}

fn framed(image: &Image, colour: [u8; 3]) -> Result<Image> {
    let image = image.to_rgb();
    let (w, h) = (image.width() + 2 * FRAME, image.height() + 2 * FRAME);
    let mut pixels = colour.repeat(w * h);
    for y in 0..image.height() {
        let from = 3 * y * image.width();
        let to = 3 * ((y + FRAME) * w + FRAME);
        pixels[to..to + 3 * image.width()].copy_from_slice(&image.pixels()[from..from + 3 * image.width()]);
    }
    Image::new(w, h, 3, pixels)
}

/// The middle one of the slices that are shown, first channel: pixels, height and width.
pub fn middle(case: &Case, data: &DataConfig) -> (Vec<f32>, [usize; 2]) {
    let [_, h, w, c] = case.input_shape;
    let shown = case.shown(data);
    let k = shown[shown.len() / 2];
    (case.input[k * h * w * c..(k + 1) * h * w * c].iter().step_by(c).copied().collect(), [h, w])
}

/// What a network must beat, fitted on the training split: the same for every case (the classes' shares, or the numbers'
/// means), and a linear model of each image's intensities.
pub struct Baselines {
    constant: Vec<f64>,
    linear: Linear,
}

/// Their names, as of the task.
pub fn baseline_names(answers: Answers) -> [&'static str; 2] {
    match answers {
        Answers::Class(_) => ["majority class", "logistic regression"],
        Answers::Findings(_) => ["prevalence", "logistic regression"],
        Answers::Numbers(_) => ["mean", "ridge regression"],
    }
}

impl Baselines {
    /// Fits both.
    pub fn fit(train: &Dataset) -> Result<Self> {
        let data = train.config();
        let answers = data.answers().ok_or_else(|| Error::input("this target is an image"))?;
        let mut features = Vec::new();
        let mut wanted: Vec<Vec<f64>> = Vec::new();
        for i in 0..train.cases() {
            let case = train.case(i)?;
            let truth = known(&case)?;
            features.push(intensities(&case, data));
            wanted.push(match answers {
                Answers::Class(names) => {
                    (0..names.len()).map(|k| f64::from(u8::from(truth[0] == k as f32))).collect()
                }
                _ => truth.iter().map(|v| f64::from(*v)).collect(),
            });
        }
        let link = match answers {
            Answers::Class(_) => Link::Softmax,
            Answers::Findings(_) => Link::Sigmoid,
            Answers::Numbers(_) => Link::Identity,
        };
        let n = wanted.len() as f64;
        let constant = (0..answers.outputs()).map(|k| wanted.iter().map(|w| w[k]).sum::<f64>() / n).collect();
        Ok(Baselines { constant, linear: Linear::fit(link, &features, &wanted)? })
    }

    /// What each says of a case.
    pub fn predict(&self, case: &Case, data: &DataConfig) -> [Vec<f64>; 2] {
        [self.constant.clone(), self.linear.predict(&intensities(case, data))]
    }
}

/// How a network compares with a baseline by the first metric of its task, in words: a sign is easily overlooked.
pub fn verdict(
    answers: Answers,
    baseline: &str,
    network: &[(String, f64)],
    other: &[(String, f64)],
) -> String {
    let (metric, more) = match answers {
        Answers::Class(_) | Answers::Findings(_) => ("auroc", true),
        Answers::Numbers(_) => ("mae", false),
    };
    // Of several numbers the first one decides.
    let at = network.iter().position(|(n, _)| n == metric || n.starts_with(&format!("{metric}_")));
    let Some((a, b)) = at.and_then(|i| Some((network.get(i)?.1, other.get(i)?.1))) else {
        return format!("the network is not comparable with the baseline `{baseline}`");
    };
    let by = if more { a - b } else { b - a };
    let word = match by {
        d if d.is_nan() => "not comparable with",
        d if d >= 0.0005 => "better than",
        d if d <= -0.0005 => "worse than",
        _ => "as good as",
    };
    let amount = if by.abs() >= 0.0005 { format!(" by {:.3}", by.abs()) } else { String::new() };
    let name = if metric == "auroc" { "AUROC" } else { "MAE" };
    format!(
        "the network is {word} the baseline `{baseline}`{amount} in {name} ({} against {})",
        short(a),
        short(b)
    )
}

/// A case's true answers.
pub fn known(case: &Case) -> Result<Vec<f32>> {
    let unknown = || Error::input(format!("{}: the target is not known", case.id));
    case.answers().map(<[f32]>::to_vec).ok_or_else(unknown)
}

/// Of each input channel over the slices that are shown: mean, standard deviation, skewness and five percentiles.
fn intensities(case: &Case, data: &DataConfig) -> Vec<f64> {
    let [_, h, w, c] = case.input_shape;
    let shown = case.shown(data);
    let of = |channel: usize| -> Vec<f64> {
        let slice =
            |k: &usize| case.input[k * h * w * c..(k + 1) * h * w * c].iter().skip(channel).step_by(c);
        let v: Vec<f64> = shown.iter().flat_map(slice).map(|v| f64::from(*v)).collect();
        let n = v.len() as f64;
        let mean = v.iter().sum::<f64>() / n;
        let moment = |p: i32| v.iter().map(|x| (x - mean).powi(p)).sum::<f64>() / n;
        let sd = moment(2).sqrt();
        let skew = if sd > 0.0 { moment(3) / sd.powi(3) } else { 0.0 };
        let mut all = vec![mean, sd, skew];
        all.extend([0.05, 0.25, 0.5, 0.75, 0.95].map(|q| quantile(&v, q)));
        all
    };
    (0..c).flat_map(of).collect()
}
