//! Watching a training run: the held-out subjects are predicted, scored and drawn.

use crate::data::labels::Labels;
use crate::data::manifest::Manifest;
use crate::data::{Answers, Case, DataFit, Dataset, OpenOptions, Split};
use crate::error::{Error, Result};
use crate::evaluate::answers::{self, Found};
use crate::evaluate::generation::{RealImages, Unpaired};
use crate::evaluate::score;
use crate::evaluate::segmentation;
use crate::exec::States;
use crate::exec::device::Device;
use crate::methods::{Method, Task};
use crate::metrics::case::Summary;
use crate::metrics::distribution::Rows;
use crate::metrics::diversity::{Diversity, diversity};
use crate::metrics::features;
use crate::metrics::thresholds::Thresholds;
use crate::nn::NetSpec;
use crate::recipe::Recipe;
use crate::run::forward::{self, Forward};
use crate::run::predictor;
use crate::watch::panels::{Comparison, ComparisonStyle, Image, comparison};

/// Pixels along a side of SSIM's window ([`score`]).
pub const SSIM_SIDE: usize = 11;

/// What one look at the validation split found.
pub struct Seen {
    /// `val/<name>` and value.
    pub scores: Vec<(String, f64)>,
    /// A picture for `samples/`, and its tag.
    pub panel: Option<(&'static str, Image)>,
    /// Further pictures by tag.
    pub tiles: Vec<(&'static str, Image)>,
    /// A text in Markdown, and its tag.
    pub text: Option<(&'static str, String)>,
    /// How well each mask, class or finding is found at every threshold.
    pub curves: Vec<(String, Thresholds)>,
}

/// What is looked at.
enum Subjects {
    /// Whole subjects, to be predicted one by one.
    Cases(Vec<Case>),
    /// Real images, to which the generated ones are compared as a set.
    Images(RealImages),
    /// Subjects without targets, and the real images that theirs are to be like.
    Unpaired(Unpaired),
}

/// The validation split.
pub struct Validator {
    subjects: Subjects,
    names: Vec<String>,
    /// Whether the diversity of what is generated is watched.
    diverse: bool,
    device: Device,
    /// Once there was something to predict with.
    forward: Option<Forward>,
}

impl Validator {
    /// Opens the split.
    pub fn open(
        recipe: &Recipe,
        method: &Method,
        manifest: &Manifest,
        fit: &DataFit,
        open: OpenOptions,
        device: &Device,
    ) -> Result<Self> {
        let set = Dataset::open_from(&recipe.data, manifest, Split::Val, Some(fit), open)?;
        let (subjects, names) = match method.task() {
            Task::Translate if recipe.data.unpaired => {
                (Subjects::Unpaired(Unpaired::of(&set)?), vec!["kid".into(), "swd".into()])
            }
            Task::Generate => (Subjects::Images(RealImages::of(&set)?), vec!["kid".into(), "swd".into()]),
            Task::Translate => {
                (Subjects::Cases(cases(&set)?), ["mae", "nmse", "psnr", "ssim"].map(String::from).into())
            }
            Task::Segment => (Subjects::Cases(cases(&set)?), segmentation::watched(&recipe.data)),
            Task::Classify | Task::Regress => {
                let names = recipe.data.answers().map_or_else(Vec::new, answers::watched);
                (Subjects::Cases(cases(&set)?), names)
            }
        };
        if matches!(method.task(), Task::Translate)
            && let Subjects::Cases(_) = subjects
            && fit.canvas.iter().any(|n| *n < SSIM_SIDE)
        {
            return Err(Error::input(format!(
                "slices of {} x {} are smaller than SSIM's window of {SSIM_SIDE} x {SSIM_SIDE}, by which the validation would measure them; set a larger `data.canvas`, or `validate.every_epochs = 0` to train without validation",
                fit.canvas[0], fit.canvas[1]
            )));
        }
        let images = recipe.data.answers().is_none();
        let diverse = images && recipe.health.watch && method.adversarial() && can_be_described(&subjects);
        Ok(Validator { subjects, names, diverse, device: device.clone(), forward: None })
    }

    /// The names of its scores.
    pub fn columns(&self) -> Vec<String> {
        let scores = self.names.iter().map(|n| format!("val/{n}"));
        scores.chain(DIVERSITY.iter().filter(|_| self.diverse).map(ToString::to_string)).collect()
    }

    /// Predicts with `net`, of which `states` holds the parameters, scores and draws.
    pub fn look(&mut self, recipe: &Recipe, method: &Method, net: &NetSpec, states: States) -> Result<Seen> {
        let rows = recipe.log.samples;
        let forward = match &mut self.forward {
            Some(forward) => {
                forward.set(states)?;
                forward
            }
            none => none.insert(Forward::new(&self.device, states)?),
        };
        match &self.subjects {
            Subjects::Images(real) => {
                let nz = method.noise().unwrap_or(0);
                // The same noise every time, so that pictures show one image's way.
                let z = forward::noise(recipe.seed, real.len(), nz);
                let made = forward.images(method, net, &z, nz, &real.size())?;
                let distances = real.distances(&made)?;
                let mut scores = vec![("val/kid".into(), distances.kid), ("val/swd".into(), distances.swd)];
                if self.diverse {
                    scores.extend(named(distances.diversity));
                }
                let panel = if rows == 0 { None } else { Some(("images/fake", real.sheet(&made, rows)?)) };
                Ok(Seen { scores, panel, tiles: Vec::new(), text: None, curves: Vec::new() })
            }
            Subjects::Unpaired(unpaired) => {
                let made =
                    unpaired.made(|case| predictor::predict_case(forward, method, net, case, recipe))?;
                let distances = unpaired.real.distances(&made)?;
                let mut scores = vec![("val/kid".into(), distances.kid), ("val/swd".into(), distances.swd)];
                if self.diverse {
                    scores.extend(named(distances.diversity));
                }
                let sheet = |rows| unpaired.real.sheet(&made, rows);
                let panel = if rows == 0 { None } else { Some(("images/fake", sheet(rows)?)) };
                Ok(Seen { scores, panel, tiles: Vec::new(), text: None, curves: Vec::new() })
            }
            Subjects::Cases(cases) => {
                if let Some(kind) = recipe.data.answers() {
                    return said(cases, kind, &self.names, recipe, |case| {
                        predictor::predict_answers(forward, method, net, case, recipe)
                    });
                }
                let mut scored = Vec::new();
                let mut outputs = Vec::new();
                for case in cases {
                    let predicted = predictor::predict_case(forward, method, net, case, recipe)?;
                    scored.push(match method.task() {
                        Task::Segment => segmentation::score(case, &predicted, &recipe.data, false)?,
                        _ => score::score(case, &predicted, false)?,
                    });
                    outputs.push(predicted);
                }
                let summary = Summary::of(scored)?;
                let of = |name: &str| summary.get(name).map_or(f64::NAN, |m| m.mean.mean);
                let mut scores: Vec<(String, f64)> =
                    self.names.iter().map(|n| (format!("val/{n}"), of(n))).collect();
                if self.diverse {
                    scores.extend(named(slices_diversity(cases, &outputs)?));
                }
                let labels = recipe.data.labels.as_ref();
                let curves = labels.map_or_else(Vec::new, |l| segmentation::curves(cases, &outputs, l));
                if rows == 0 {
                    return Ok(Seen { scores, panel: None, tiles: Vec::new(), text: None, curves });
                }
                let (panel, tiles) = draw(cases, &outputs, rows, labels)?;
                let panel = Some(("images/input_target_output_error", panel));
                Ok(Seen { scores, panel, tiles, text: None, curves })
            }
        }
    }
}

/// A look at subjects whose target is no image.
fn said(
    cases: &[Case],
    kind: Answers,
    names: &[String],
    recipe: &Recipe,
    predict: impl FnMut(&Case) -> Result<Vec<f64>>,
) -> Result<Seen> {
    let predicted = cases.iter().map(predict).collect::<Result<Vec<_>>>()?;
    let known = cases.iter().map(|c| Ok((c.id.clone(), answers::known(c)?))).collect::<Result<Vec<_>>>()?;
    let found = Found::of(kind, &known, &predicted)?;
    let all = found.quick();
    let value = |n: &str| all.iter().find(|(name, _)| name == n).map_or(f64::NAN, |(_, v)| *v);
    let scores = names.iter().map(|n| (format!("val/{n}"), value(n))).collect();
    let panel = match recipe.log.samples {
        0 => None,
        rows => {
            let middles: Vec<_> = cases.iter().map(|c| answers::middle(c, &recipe.data)).collect();
            Some(("images/right_green_wrong_red", answers::picture(&found, &middles, rows)?))
        }
    };
    let text = found.confusion().map(|text| ("confusion", text));
    Ok(Seen { scores, panel, tiles: Vec::new(), text, curves: found.curves() })
}

/// The names under which diversity is logged.
const DIVERSITY: [&str; 2] = ["health/diversity", "health/nearest"];

/// Most slices whose diversity is compared.
const MOST: usize = 64;

fn named(d: Diversity) -> [(String, f64); 2] {
    [(DIVERSITY[0].into(), d.spread), (DIVERSITY[1].into(), d.nearest)]
}

/// Whether there are at least two images, large enough for the features.
fn can_be_described(subjects: &Subjects) -> bool {
    let (n, [h, w]) = match subjects {
        Subjects::Images(real) | Subjects::Unpaired(Unpaired { real, .. }) => (real.len(), real.size()),
        Subjects::Cases(cases) => {
            let of = |c: &Case| [c.target_shape[1], c.target_shape[2]];
            let n: usize = cases.iter().map(|c| middle(c).len()).sum();
            (n, cases.first().map_or([0, 0], of))
        }
    };
    n >= 2 && h >= 16 && w >= 16
}

/// The middle half of a case's slices: at its ends there is little but air.
fn middle(case: &Case) -> std::ops::Range<usize> {
    let n = case.target_shape[0];
    n / 4..n - n / 4
}

/// How diverse the outputs' slices (their first channel) are beside the targets'.
fn slices_diversity(cases: &[Case], outputs: &[Vec<f32>]) -> Result<Diversity> {
    let all: Vec<(usize, usize)> =
        cases.iter().enumerate().flat_map(|(i, c)| middle(c).map(move |k| (i, k))).collect();
    let n = all.len().min(MOST);
    let [_, h, w, _] = cases[0].target_shape;
    let (mut made, mut real) = (Vec::with_capacity(n * h * w), Vec::with_capacity(n * h * w));
    for (i, k) in (0..n).map(|j| all[j * all.len() / n]) {
        let (case, output) = (&cases[i], &outputs[i]);
        let channels = case.target_shape[3];
        let target = case.target.as_deref().unwrap_or_default();
        for (from, to) in [(output.as_slice(), &mut made), (target, &mut real)] {
            to.extend(from[k * h * w * channels..(k + 1) * h * w * channels].iter().step_by(channels));
        }
    }
    let describe = |v: &[f32]| features::describe(v, [n, h, w, 1]);
    let (made, real) = (describe(&made)?, describe(&real)?);
    diversity(Rows::new(&made, features::DIMENSION)?, Rows::new(&real, features::DIMENSION)?)
}

fn cases(set: &Dataset) -> Result<Vec<Case>> {
    (0..set.cases()).map(|i| set.case(i)).collect()
}

/// A picture of evenly spaced slices of the subjects (input | target | output | error), and the first row's images.
pub fn draw(
    cases: &[Case],
    outputs: &[Vec<f32>],
    rows: usize,
    labels: Option<&Labels>,
) -> Result<(Image, Vec<(&'static str, Image)>)> {
    let mut tiles: Vec<[Vec<f32>; 3]> = Vec::new();
    for r in 0..rows {
        let (case, output) = (&cases[r % cases.len()], &outputs[r % outputs.len()]);
        let [n, h, w, ci] = case.input_shape;
        // From a quarter to three quarters of the way: where there is something to see.
        let k = n / 4 + (2 * r + 1) * n / (4 * rows);
        let slice = |v: &[f32], c: usize| v[k * h * w * c..(k + 1) * h * w * c].to_vec();
        let target = case.target.as_deref().unwrap_or_default();
        let (ct, co) = (case.target_shape[3], output.len() / (n * h * w));
        let (target, output) = (slice(target, ct), slice(output, co));
        let input = slice(&case.input, ci).iter().step_by(ci).copied().collect();
        tiles.push(match labels {
            Some(l) => [input, segmentation::shade(&target, l), segmentation::shade(&l.decide(&output), l)],
            None => {
                let first = |v: Vec<f32>, c: usize| v.into_iter().step_by(c).collect();
                [input, first(target, ct), first(output, co)]
            }
        });
    }
    let [_, h, w, _] = cases[0].input_shape;
    let lines: Vec<Comparison> =
        tiles.iter().map(|[input, target, output]| Comparison { input, target, output }).collect();
    let style = ComparisonStyle::signed_unit();
    let panel = comparison(&lines, h, w, &style)?;
    let tags = ["images/real_A", "images/real_B", "images/fake_B"];
    let first = tags.into_iter().zip(&tiles[0]).map(|(tag, tile)| Ok((tag, style.target.draw(tile, h, w)?)));
    Ok((panel, first.collect::<Result<_>>()?))
}
