//! Measuring a trained run on a split, beside what it must beat.

use super::answers::{self, Baselines, Found};
use super::baselines::Fitted;
use crate::data::config::Window;
use crate::data::manifest::Manifest;
use crate::data::{DataConfig, Dataset, Notes, OpenOptions, Sample, Split};
use crate::error::{Error, Result};
use crate::evaluate::generation::{MOST, RealImages, Unpaired};
use crate::evaluate::score;
use crate::evaluate::segmentation;
use crate::evaluate::validation::SSIM_SIDE;
use crate::methods::Task;
use crate::metrics::case::{CaseScores, Summary};
use crate::metrics::distribution::{Rows, kid};
use crate::metrics::features::{DIMENSION, SMALLEST, describe};
use crate::recipe::baseline::Baseline;
use crate::run::predictor::Predictor;
use serde_json::{Map, Value, json};

/// What was measured.
pub struct Evaluation {
    /// Subjects, or slices where sets of images are compared.
    pub subjects: usize,
    /// Means over the subjects: the network's by the metrics' names, a baseline's as `BASELINE METRIC`.
    pub scores: Vec<(String, f64)>,
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Map<String, Value>,
    /// Case by case: of the network first, then of each baseline. None where sets of images are compared.
    pub summaries: Vec<(String, Summary)>,
    /// How the network compares with each baseline, in words.
    pub verdicts: Vec<String>,
    /// The cases of the run.
    pub cases: Manifest,
    /// What must be known of the data: what is new, gone or changed since the run began, and what was done to them.
    pub notes: Vec<String>,
}

/// Measures a run on a split.
pub fn evaluate(predictor: &mut Predictor, split: Split) -> Result<Evaluation> {
    match predictor.method().task() {
        Task::Translate if predictor.recipe().data.unpaired => unpaired(predictor, split),
        Task::Translate => translation(predictor, split),
        Task::Segment => segments(predictor, split),
        Task::Generate => images(predictor, split),
        Task::Classify | Task::Regress => said(predictor, split),
    }
}

/// What must be said beside scores on such data.
pub fn caveats(data: &DataConfig) -> Vec<&'static str> {
    let all = [
        (
            data.phantom.is_some(),
            "made-up patients (phantom): good for comparing methods, no statement about real ones",
        ),
        (
            data.share_subjects,
            "the network has seen these subjects (data.share_subjects): no statement about other people",
        ),
        (
            data.window == Window::Target,
            "the true label map says where the network looks (data.window): an upper bound, no result",
        ),
    ];
    all.into_iter().filter(|(true_here, _)| *true_here).map(|(_, text)| text).collect()
}

/// Opens a split of a run's cases as the run saw it.
pub fn open(predictor: &Predictor, cases: &Manifest, split: Split) -> Result<Dataset> {
    let open = OpenOptions { multiple: predictor.multiple(), ..Default::default() };
    Dataset::open_from(&predictor.recipe().data, cases, split, Some(predictor.fit()), open)
}

/// The training subjects, which baselines are fitted to. What was done to their images was said when they were trained on.
fn training(predictor: &Predictor, cases: &Manifest) -> Result<Dataset> {
    open(predictor, &Manifest { notes: Notes::default(), ..cases.clone() }, Split::Train)
}

fn means(summary: &Summary, prefix: &str) -> Vec<(String, f64)> {
    summary.metrics.iter().map(|m| (format!("{prefix}{}", m.metric), m.mean.mean)).collect()
}

fn value(summary: &Summary) -> Value {
    serde_json::to_value(summary).expect("plain data")
}

fn translation(predictor: &mut Predictor, split: Split) -> Result<Evaluation> {
    let cases = predictor.cases(&[split, Split::Train])?;
    let set = open(predictor, &cases, split)?;
    let train = training(predictor, &cases)?;
    let list = predictor.recipe().validate.baselines.clone();
    let baselines = list.iter().map(|b| Ok((*b, Fitted::fit(*b, &train)?))).collect::<Result<Vec<_>>>()?;
    let mut scores: Vec<Vec<CaseScores>> = vec![Vec::new(); 1 + baselines.len()];
    let mut looks = Looks::new(&set, 1 + baselines.len());
    for i in 0..set.cases() {
        let case = set.case(i)?;
        if case.target_shape[0] < SSIM_SIDE {
            cases.notes.about(
                format!("SSIM is that of slices, as these volumes have fewer than {SSIM_SIDE} of them"),
                &case.id,
            );
        }
        let mut made = vec![predictor.slices(&case)?];
        for (_, baseline) in &baselines {
            made.push(baseline.apply(&case)?);
        }
        for (list, made) in scores.iter_mut().zip(&made) {
            list.push(score::score(&case, made, true)?);
        }
        looks.add(i, case.target.as_deref().unwrap_or_default(), &made);
    }
    let kids = looks.kids()?;
    let names = ["network"].into_iter().chain(list.iter().map(|b| b.name()));
    let all: Vec<(&str, Summary)> =
        names.zip(scores).map(|(name, s)| Ok((name, Summary::of(s)?))).collect::<Result<_>>()?;
    let mut text = all[0].1.case_table();
    let mut json = Map::new();
    for (name, summary) in &all {
        text += &format!("\n{name}\n{}", summary.table());
        json.insert(name.replace('-', ""), value(summary));
    }
    let mean = |s: &Summary, m: &str| s.get(m).map_or(f64::NAN, |m| m.mean.mean);
    let mut verdicts = Vec::new();
    for (baseline, (_, summary)) in list.iter().zip(&all[1..]) {
        let by = |m: &str| mean(&all[0].1, m) - mean(summary, m);
        verdicts.push(verdict(*baseline, by("psnr"), by("ssim")));
    }
    verdicts.iter().for_each(|v| text += &format!("\n{v}"));
    json.insert("verdicts".into(), json!(verdicts));
    let mut scores = means(&all[0].1, "");
    for (name, summary) in &all[1..] {
        scores.extend(means(summary, &format!("{name} ")));
    }
    if !kids.is_empty() {
        text += &format!(
            "\n\nhow much {} slices look like the true ones (KID on random features, lower is better):",
            looks.len()
        );
        let mut of = Map::new();
        for ((name, _), kid) in all.iter().zip(&kids) {
            text += &format!("\n{name:<12}{kid:>12.5}");
            of.insert(name.replace('-', ""), json!(kid));
            scores.push((if *name == "network" { "kid".into() } else { format!("{name} kid") }, *kid));
        }
        json.insert("kid".into(), of.into());
    }
    let summaries = all.into_iter().map(|(name, summary)| (name.to_string(), summary)).collect();
    Ok(Evaluation {
        subjects: set.cases(),
        scores,
        text,
        json,
        summaries,
        verdicts,
        notes: cases.notes.lines(),
        cases,
    })
}

/// How a network compares with a baseline, in words: a sign is easily overlooked.
fn verdict(baseline: Baseline, psnr: f64, ssim: f64) -> String {
    let what = match baseline {
        Baseline::LookUp => "the voxel-wise baseline".to_string(),
        other => format!("the baseline `{}`", other.name()),
    };
    // As it is printed: a difference that rounds to zero is none.
    let word = |d: f64, smallest: f64| match d {
        d if d.is_nan() => "not comparable with",
        d if d >= smallest => "better than",
        d if d <= -smallest => "worse than",
        _ => "as good as",
    };
    let by = |word: &str, d: f64, digits: usize| match word {
        "better than" | "worse than" => format!(" by {:.digits$}", d.abs()),
        _ => String::new(),
    };
    let (a, b) = (word(psnr, 0.005), word(ssim, 0.00005));
    let (psnr, ssim) = (by(a, psnr, 2), by(b, ssim, 4));
    match (a == b, a) {
        (true, "better than" | "worse than") => {
            format!("the network is {a} {what}{psnr} dB PSNR and{ssim} SSIM")
        }
        (true, _) => format!("the network is {a} {what} in PSNR and SSIM"),
        (false, _) => {
            let part = |by: &str, unit: &str, name: &str| match by {
                "" => format!(" in {name}"),
                by => format!("{by}{unit} {name}"),
            };
            let (p, s) = (part(&psnr, " dB", "PSNR"), part(&ssim, "", "SSIM"));
            format!("the network is {a} {what}{p}, but {b} it{s}")
        }
    }
}

/// Without pairs there is nothing to compare an image with: as sets, beside the inputs as they are.
fn unpaired(predictor: &mut Predictor, split: Split) -> Result<Evaluation> {
    let cases = predictor.cases(&[split, Split::Train])?;
    let set = open(predictor, &cases, split)?;
    let subjects = Unpaired::of(&set)?;
    let train = training(predictor, &cases)?;
    let floor = subjects.real.floor(train.others().expect("two sets"))?;
    let network = subjects.real.distances(&subjects.made(|case| predictor.slices(case))?)?;
    let identity = subjects.real.distances(&subjects.made(|case| Ok(score::apply_identity(case)))?)?;
    let mut text = format!(
        "slices made of {} subjects against {} real slices of others (lower is better)\n\n",
        subjects.cases(),
        subjects.real.len()
    );
    text += &format!("{:<14}{:>24}{:>22}\n", "", "KID (random features)", "sliced Wasserstein");
    let mut scores = Vec::new();
    let mut json = Map::new();
    for (name, d) in [("network", network), ("identity", identity), ("real vs real", floor)] {
        text += &format!("{name:<14}{:>24.5}{:>22.5}\n", d.kid, d.swd);
        let own = if name == "network" { String::new() } else { format!("{name} ") };
        scores.extend([(format!("{own}kid"), d.kid), (format!("{own}swd"), d.swd)]);
        json.insert(name.replace(' ', "_"), json!({ "kid": d.kid, "swd": d.swd }));
    }
    text += "\nreal vs real: as many slices of training subjects in the place of those made; no network can be expected to come nearer. Whether an image shows the anatomy of its input, no such number tells: look at the pictures";
    Ok(Evaluation {
        subjects: set.cases(),
        scores,
        text,
        json,
        summaries: Vec::new(),
        verdicts: Vec::new(),
        notes: cases.notes.lines(),
        cases,
    })
}

/// Slices that are compared as sets, whatever belongs to whom: blurred images have small errors, but do not look like real
/// ones.
struct Looks {
    /// Of which case and which slice.
    chosen: Vec<Sample>,
    /// Extents of a slice.
    shape: [usize; 3],
    truth: Vec<f32>,
    /// By every method.
    made: Vec<Vec<f32>>,
}

impl Looks {
    /// Evenly spaced slices among those that training would use.
    fn new(set: &Dataset, methods: usize) -> Self {
        let (all, n) = (set.samples(), set.len().min(MOST));
        let chosen = (0..n).map(|i| all[i * all.len() / n]).collect();
        Looks { chosen, shape: set.target_shape(), truth: Vec::new(), made: vec![Vec::new(); methods] }
    }

    fn len(&self) -> usize {
        self.chosen.len()
    }

    fn add(&mut self, case: usize, target: &[f32], made: &[Vec<f32>]) {
        let each: usize = self.shape.iter().product();
        for sample in self.chosen.iter().filter(|s| s.case == case) {
            let slice = sample.slice * each..(sample.slice + 1) * each;
            self.truth.extend(&target[slice.clone()]);
            self.made.iter_mut().zip(made).for_each(|(to, from)| to.extend(&from[slice.clone()]));
        }
    }

    /// Each method's distance from the truth; empty where slices are too few or too small to be described.
    fn kids(&self) -> Result<Vec<f64>> {
        let [h, w, c] = self.shape;
        if h.min(w) < SMALLEST || self.len() < 2 {
            return Ok(Vec::new());
        }
        let describe = |pixels: &[f32]| describe(pixels, [self.len(), h, w, c]);
        let truth = describe(&self.truth)?;
        let of =
            |made: &Vec<f32>| kid(Rows::new(&describe(made)?, DIMENSION)?, Rows::new(&truth, DIMENSION)?);
        self.made.iter().map(of).collect()
    }
}

fn segments(predictor: &mut Predictor, split: Split) -> Result<Evaluation> {
    let cases = predictor.cases(&[split])?;
    let set = open(predictor, &cases, split)?;
    let data = predictor.recipe().data.clone();
    let mut scores = Vec::new();
    for i in 0..set.cases() {
        let case = set.case(i)?;
        scores.push(segmentation::score(&case, &predictor.slices(&case)?, &data, true)?);
    }
    let summary = Summary::of(scores)?;
    let text = format!(
        "{}\nnetwork (over whole volumes; HD95 in mm; a mask that is empty on one side only has Dice 0 and the image's diagonal as HD95, on both sides Dice 1 and HD95 0)\n{}",
        summary.case_table(),
        summary.table().trim_end()
    );
    let json = [("network".to_string(), value(&summary))].into_iter().collect();
    let scores = means(&summary, "");
    let summaries = vec![("network".to_string(), summary)];
    Ok(Evaluation {
        subjects: set.cases(),
        scores,
        text,
        json,
        summaries,
        verdicts: Vec::new(),
        notes: cases.notes.lines(),
        cases,
    })
}

/// What a network says of images, beside baselines.
fn said(predictor: &mut Predictor, split: Split) -> Result<Evaluation> {
    let cases = predictor.cases(&[split, Split::Train])?;
    let set = open(predictor, &cases, split)?;
    let data = predictor.recipe().data.clone();
    let kind = data.answers().ok_or_else(|| Error::input("`data` no longer says what the target holds"))?;
    let baselines = Baselines::fit(&training(predictor, &cases)?)?;
    let (mut known, mut made) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
    for i in 0..set.cases() {
        let case = set.case(i)?;
        known.push((case.id.clone(), answers::known(&case)?));
        made[0].push(predictor.answers(&case)?);
        for (list, said) in made[1..].iter_mut().zip(baselines.predict(&case, &data)) {
            list.push(said);
        }
    }
    let names = ["network"].into_iter().chain(answers::baseline_names(kind));
    let mut evaluation = Evaluation {
        subjects: set.cases(),
        scores: Vec::new(),
        text: "scores over all subjects with 95 % intervals (shares of subjects: Wilson's; all else: bootstrap over subjects)\n".into(),
        json: Map::new(),
        summaries: Vec::new(),
        verdicts: Vec::new(),
        notes: cases.notes.lines(),
        cases,
    };
    let mut first: Vec<(String, f64)> = Vec::new();
    for (name, made) in names.zip(&made) {
        let found = Found::of(kind, &known, made)?;
        evaluation.text += &format!("\n{name}\n{}", found.text());
        evaluation.json.insert(name.replace(' ', "_"), found.json());
        let scores: Vec<(String, f64)> = found.overall().into_iter().map(|(n, i)| (n, i.mean)).collect();
        if name == "network" {
            first.clone_from(&scores);
        } else {
            evaluation.verdicts.push(answers::verdict(kind, name, &first, &scores));
        }
        let prefix = if name == "network" { String::new() } else { format!("{name} ") };
        evaluation.scores.extend(scores.into_iter().map(|(n, v)| (format!("{prefix}{n}"), v)));
        evaluation.summaries.push((name.to_string(), Summary::of(found.cases())?));
    }
    for verdict in &evaluation.verdicts {
        evaluation.text += &format!("\n{verdict}");
    }
    evaluation.json.insert("verdicts".into(), json!(evaluation.verdicts));
    Ok(evaluation)
}

fn images(predictor: &mut Predictor, split: Split) -> Result<Evaluation> {
    let cases = predictor.cases(&[split, Split::Train])?;
    let set = open(predictor, &cases, split)?;
    let real = RealImages::of(&set)?;
    let made = predictor.images(real.len(), predictor.recipe().seed)?;
    let (found, floor) = (real.distances(&made)?, real.floor(&training(predictor, &cases)?)?);
    let mut text = format!("{} generated images against {} real slices\n\n", real.len(), real.len());
    text += &format!("{:<28}{:>12}{:>14}{:>8}\n", "", "generated", "real vs real", "ratio");
    for (name, a, b) in
        [("KID (random features)", found.kid, floor.kid), ("sliced Wasserstein", found.swd, floor.swd)]
    {
        text += &format!("{name:<28}{a:>12.5}{b:>14.5}{:>8.2}\n", a / b);
    }
    text += "\nreal vs real: as many slices of training subjects in the place of the generated ones; no generator can be expected to come nearer";
    text += &format!(
        "\ndiversity of the generated images, 1 being that of the real ones: {:.2} (spread), {:.2} (distance to the nearest)",
        found.diversity.spread, found.diversity.nearest
    );
    let scores = [("kid", found.kid), ("swd", found.swd), ("floor kid", floor.kid), ("floor swd", floor.swd)];
    let scores = scores.map(|(name, v)| (name.to_string(), v)).to_vec();
    let network = json!({
        "kid": found.kid, "swd": found.swd, "diversity": found.diversity.spread, "nearest": found.diversity.nearest,
    });
    let floor = json!({ "kid": floor.kid, "swd": floor.swd });
    let json = [("network".to_string(), network), ("floor".to_string(), floor)].into_iter().collect();
    Ok(Evaluation {
        subjects: set.cases(),
        scores,
        text,
        json,
        summaries: Vec::new(),
        verdicts: Vec::new(),
        notes: cases.notes.lines(),
        cases,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_say_better_or_worse() {
        let of = |p, s| verdict(Baseline::LookUp, p, s);
        let is = "the network is";
        assert_eq!(
            of(-8.54, -0.1),
            format!("{is} worse than the voxel-wise baseline by 8.54 dB PSNR and by 0.1000 SSIM")
        );
        assert_eq!(
            of(1.2, 0.01),
            format!("{is} better than the voxel-wise baseline by 1.20 dB PSNR and by 0.0100 SSIM")
        );
        assert_eq!(
            of(1.2, -0.01),
            format!(
                "{is} better than the voxel-wise baseline by 1.20 dB PSNR, but worse than it by 0.0100 SSIM"
            )
        );
        assert_eq!(
            of(0.001, -0.01),
            format!("{is} as good as the voxel-wise baseline in PSNR, but worse than it by 0.0100 SSIM")
        );
        assert_eq!(of(0.0, 0.0), format!("{is} as good as the voxel-wise baseline in PSNR and SSIM"));
        assert_eq!(
            of(f64::NAN, f64::NAN),
            format!("{is} not comparable with the voxel-wise baseline in PSNR and SSIM")
        );
        assert_eq!(
            verdict(Baseline::Identity, -1.0, -0.5),
            format!("{is} worse than the baseline `identity` by 1.00 dB PSNR and by 0.5000 SSIM")
        );
    }
}
