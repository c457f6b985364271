//! The page itself.

use super::Story;
use super::cases::Measured;
use super::chart::{COLOURS, chart};
use super::html::{facts, image, number, picture, text};
use crate::error::{Error, Result};
use crate::evaluate::evaluation::caveats;
use crate::metrics::case::{Summary, short};
use crate::recipe::Recipe;
use crate::run::folder;
use crate::run::tuning;
use crate::watch::csvlog::{bytes, count, duration};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Sample pictures that are shown: the first, the last, and some between.
const SAMPLES: usize = 6;

/// Groups of curves, with what is said about them.
const GROUPS: [(&str, &str); 5] = [
    ("val/", "Validation"),
    ("loss/", "Losses"),
    (
        "health/",
        "Health: how often discriminators are right; diversity of what is generated (1: as real images)",
    ),
    ("grad_norm/", "Norms of the gradients"),
    ("lr/", "Learning rate"),
];

/// The whole page.
pub fn page(stories: &[Story]) -> Result<String> {
    let title = match stories {
        [one] => format!("{}: report of a run", one.recipe.name),
        many => format!("{} runs compared", many.len()),
    };
    let mut body = format!("<header><h1>{}</h1>", text(&title));
    if let [one] = stories
        && !one.recipe.about.is_empty()
    {
        let _ = write!(body, "<p class=\"about\">{}</p>", text(&one.recipe.about));
    }
    body += "</header>";
    body += &overview(stories);
    if stories.len() > 1 {
        body += &settings_that_differ(stories);
        body += &paired(stories);
    }
    body += &curves(stories);
    for (i, story) in stories.iter().enumerate() {
        body += &about_run(i, story, stories.len() > 1)?;
    }
    let _ = write!(
        body,
        "<footer>gan {}. Nothing that such a network predicts is fit for diagnosis.</footer>",
        env!("CARGO_PKG_VERSION")
    );
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><title>{}</title><style>\n{STYLE}</style></head>\n<body>\n{body}\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        text(&title)
    ))
}

fn section(title: &str, content: &str) -> String {
    format!("<section><h2>{}</h2>{content}</section>\n", text(title))
}

/// The mark of a run's colour.
fn key(i: usize) -> String {
    format!("<i class=\"key c{}\"></i>", i % COLOURS)
}

fn state(story: &Story) -> String {
    let step = story.progress.as_ref().map(|p| p.step);
    match (&story.info, step) {
        (Some(info), Some(step)) if info.finished => format!("finished, {step} steps"),
        (_, Some(step)) => format!("not finished, {step} steps so far"),
        (_, None) => "no checkpoint yet".into(),
    }
}

/// A line per run: what it is, how far, how well.
fn overview(stories: &[Story]) -> String {
    let scores: Vec<&str> = columns(stories, "val/");
    let mut head: String = ["run", "model", "state", "best checkpoint", "training time"]
        .map(|h| format!("<th>{h}</th>"))
        .concat();
    for name in &scores {
        let _ = write!(head, "<th>{}<br/>last</th>", text(name));
    }
    let mut rows = String::new();
    for (i, story) in stories.iter().enumerate() {
        let mark = if stories.len() > 1 { key(i) } else { String::new() };
        let best = story.progress.as_ref().and_then(|p| p.best).map_or("–".to_string(), |(v, step)| {
            format!("{} {} at step {step}", story.recipe.validate.metric.name(), short(v))
        });
        let _ = write!(
            rows,
            "<tr><td data-v=\"{0}\">{mark}{0}</td><td data-v=\"{1}\">{1}</td><td data-v=\"{2}\">{2}</td><td data-v=\"{3}\">{3}</td>{4}",
            text(&story.name),
            story.recipe.kind(),
            state(story),
            best,
            story.info.as_ref().filter(|i| i.seconds > 0.0).map_or_else(
                || number(None),
                |i| format!("<td class=\"n\" data-v=\"{}\">{}</td>", i.seconds, time(i.seconds))
            )
        );
        for name in &scores {
            rows += &number(story.table.series(name).last().map(|(_, v)| *v));
        }
        rows += "</tr>";
    }
    let table = format!("<table class=\"sort\"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>");
    section(if stories.len() > 1 { "Runs" } else { "Result" }, &format!("<div class=\"wide\">{table}</div>"))
}

fn time(seconds: f64) -> String {
    duration(Duration::from_secs_f64(seconds.clamp(0.0, 1e12)))
}

/// The keys in which recipes differ, a column for each run.
fn settings_that_differ(stories: &[Story]) -> String {
    let tables: Vec<_> = stories.iter().map(|s| folder::settings(&s.recipe)).collect();
    let keys: BTreeSet<&String> = tables.iter().flat_map(|t| t.keys()).collect();
    let mut rows = String::new();
    for name in keys {
        let values: Vec<Option<&String>> = tables.iter().map(|t| t.get(name)).collect();
        if values.windows(2).all(|w| w[0] == w[1]) {
            continue;
        }
        let cells: String = values
            .iter()
            .map(|v| format!("<td><code>{}</code></td>", v.map_or("–".into(), |v| text(v))))
            .collect();
        let _ = write!(rows, "<tr><th>{}</th>{cells}</tr>", text(name));
    }
    if rows.is_empty() {
        return section("Settings that differ", "<p>None: the runs have the same settings.</p>");
    }
    let head: String =
        stories.iter().enumerate().map(|(i, s)| format!("<th>{}{}</th>", key(i), text(&s.name))).collect();
    section(
        "Settings that differ",
        &format!(
            "<div class=\"wide\"><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        ),
    )
}

/// Differences of each run from the first one, case by case.
fn paired(stories: &[Story]) -> String {
    let network = |s: &Story| -> Option<Summary> { Some(s.measured.as_ref()?.summaries.first()?.1.clone()) };
    let Some(first) = network(&stories[0]) else { return String::new() };
    let mut rows = String::new();
    for (i, story) in stories.iter().enumerate().skip(1) {
        let Some(differences) = network(story).and_then(|s| s.versus(&first).ok()) else { continue };
        for (metric, d) in differences {
            let p = if d.p_value < 1e-4 { "&lt; 0.0001".to_string() } else { format!("{:.4}", d.p_value) };
            let _ = write!(
                rows,
                "<tr><td>{}{}</td><td>{}</td><td class=\"n\">{} ± {}</td><td class=\"n\">{p}</td></tr>",
                key(i),
                text(&story.name),
                text(&metric),
                short(d.difference.mean),
                short(d.difference.half_width())
            );
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let table = format!(
        "<table><thead><tr><th>run</th><th>metric</th><th>difference ± 95 %</th><th>p</th></tr></thead><tbody>{rows}</tbody></table>"
    );
    section(
        &format!("Difference from {}", stories[0].name),
        &format!("<p>Over the cases that both have, in pairs (Student's t).</p>{table}"),
    )
}

/// The columns of a group that any run has, in the order of their first appearance.
fn columns<'a>(stories: &'a [Story], group: &str) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    for c in stories.iter().flat_map(|s| &s.table.columns).filter(|c| c.starts_with(group)) {
        if !all.contains(&c.as_str()) {
            all.push(c);
        }
    }
    all
}

fn curves(stories: &[Story]) -> String {
    let mut all = String::new();
    for (group, title) in GROUPS {
        let mut charts = String::new();
        for name in columns(stories, group) {
            let series: Vec<Vec<(u64, f64)>> = stories.iter().map(|s| s.table.series(name)).collect();
            let drawn: Vec<(usize, &[(u64, f64)])> = series
                .iter()
                .enumerate()
                .filter(|(_, s)| !s.is_empty())
                .map(|(i, s)| (i, s.as_slice()))
                .collect();
            charts += &chart(name, &drawn).unwrap_or_default();
        }
        if !charts.is_empty() {
            let _ = write!(all, "<h3>{title}</h3><div class=\"charts\">{charts}</div>");
        }
    }
    if all.is_empty() {
        all = "<p>Nothing was logged yet.</p>".into();
    } else {
        let legend = stories.iter().enumerate().map(|(i, s)| format!("{}{} ", key(i), text(&s.name)));
        let legend = if stories.len() > 1 { legend.collect() } else { String::new() };
        all = format!("<p>{legend}Over steps; the number behind a name is the last value.</p>{all}");
    }
    section("Curves", &all)
}

fn about_run(i: usize, story: &Story, several: bool) -> Result<String> {
    let mut parts = String::new();
    if several {
        let _ = write!(parts, "<h2 class=\"run\">{}{}</h2>", key(i), text(&story.name));
    }
    if !story.missing.is_empty() {
        let items: String = story.missing.iter().map(|m| format!("<li>{}</li>", text(m))).collect();
        parts += &section("What is missing", &format!("<ul class=\"missing\">{items}</ul>"));
    }
    if let Some(measured) = &story.measured {
        parts += &scores(&story.recipe, measured)?;
    }
    parts += &evolution(story)?;
    parts += &section("Trained with", &made_with(story));
    if let Some(info) = story.info.as_ref().filter(|i| !i.incidents.is_empty()) {
        let items: String = info.incidents.iter().map(|m| format!("<li>{}</li>", text(m))).collect();
        parts += &section("Incidents", &format!("<ul>{items}</ul>"));
    }
    parts += &section("Do it again", &again(story));
    let recipe = format!(
        "<details><summary>The recipe, with all defaults written out</summary><pre>{}</pre></details>",
        text(&story.recipe.to_toml())
    );
    parts += &section("Recipe", &recipe);
    Ok(parts)
}

/// A sentence's beginning in a capital letter.
fn capital(sentence: &str) -> String {
    let mut all = sentence.chars();
    all.next().map_or_else(String::new, |c| c.to_uppercase().chain(all).collect())
}

/// Scores per case, their means beside the baselines', and the best and the worst case.
fn scores(recipe: &Recipe, measured: &Measured) -> Result<String> {
    let caveat = format!(
        "<p>Split <code>{}</code>, checkpoint <code>{}</code>.{}</p>",
        measured.split.name(),
        text(&measured.which),
        caveats(&recipe.data)
            .into_iter()
            .chain(measured.notes.iter().map(String::as_str))
            .chain(measured.verdicts.iter().map(String::as_str))
            .map(|c| format!("<br/>{}.", text(&capital(c))))
            .collect::<String>()
    );
    let Some((_, network)) = measured.summaries.first() else {
        return Ok(section("Scores", &format!("{caveat}<pre>{}</pre>", text(&measured.text))));
    };
    let metrics: Vec<&str> = network.metrics.iter().map(|m| m.metric.as_str()).collect();
    let head = |first: &str| -> String {
        [first].iter().chain(&metrics).map(|h| format!("<th>{}</th>", text(h))).collect()
    };
    let mut means = String::new();
    for (name, summary) in &measured.summaries {
        let _ = write!(means, "<tr><td>{}</td>", text(name));
        for metric in &metrics {
            means += &summary.get(metric).map_or_else(
                || number(None),
                |m| {
                    let interval = if m.cases > 1 {
                        format!(" ± {}", short(m.mean.half_width()))
                    } else {
                        String::new()
                    };
                    format!(
                        "<td class=\"n\" data-v=\"{}\">{}{interval}</td>",
                        m.mean.mean,
                        short(m.mean.mean)
                    )
                },
            );
        }
        means += "</tr>";
    }
    let mut rows = String::new();
    for case in &network.cases {
        let _ = write!(rows, "<tr><td data-v=\"{0}\">{0}</td>", text(&case.case));
        rows.extend(metrics.iter().map(|m| number(case.get(m))));
        rows += "</tr>";
    }
    let mut content = format!(
        "{caveat}<h3>Means ± 95 %</h3><div class=\"wide\"><table class=\"means\"><thead><tr>{}</tr></thead><tbody>{means}</tbody></table></div><h3>Cases</h3><p class=\"screen\">Click on a column to sort by it.</p><div class=\"wide\"><table class=\"sort cases\"><thead><tr>{}</tr></thead><tbody>{rows}</tbody></table></div>",
        head(""),
        head("case")
    );
    if recipe.data.answers().is_some() {
        // What no mean over cases tells: areas under curves, the confusion matrix.
        let _ = write!(content, "<h3>Over all cases</h3><pre>{}</pre>", text(&measured.text));
    }
    for (what, name, value, drawn) in &measured.extremes {
        let alt = format!("{name}: input, target, output, error");
        let _ = write!(
            content,
            "<figure class=\"panel\"><figcaption>The {what} case by {}: <b>{}</b> ({}). Input | target | output | absolute error, brightest at a quarter of the range.</figcaption>{}</figure>",
            text(&measured.metric.0),
            text(name),
            short(*value),
            image(drawn, &alt)?
        );
    }
    Ok(section("Scores", &content))
}

/// How the same validation slices looked as training went on.
fn evolution(story: &Story) -> Result<String> {
    let n = story.samples.len();
    let chosen: BTreeSet<usize> =
        (0..n.min(SAMPLES)).map(|i| i * (n - 1) / (n.min(SAMPLES) - 1).max(1)).collect();
    let mut figures = String::new();
    for i in chosen {
        let (step, path) = &story.samples[i];
        let png = std::fs::read(path).map_err(Error::io("read", path))?;
        let _ = write!(
            figures,
            "<figure class=\"panel\"><figcaption>step {step}</figcaption>{}</figure>",
            picture(&png, &format!("samples of step {step}"))
        );
    }
    if figures.is_empty() {
        return Ok(String::new());
    }
    let what = match story.recipe.data.target.is_empty() {
        true => "Real images on the left, generated ones on the right; the same noise every time.",
        false => "The same validation slices every time: input | target | output | error.",
    };
    Ok(section("Samples", &format!("<p>{what}</p><div class=\"panels\">{figures}</div>")))
}

fn made_with(story: &Story) -> String {
    let Some(info) = &story.info else {
        return "<p>There is no run.json that says it.</p>".into();
    };
    let mut parameters: Vec<String> =
        info.parameters.iter().map(|(n, c)| format!("{n} {}", count(*c as u64))).collect();
    parameters.sort();
    let or = |s: &str| if s.is_empty() { "not noted".to_string() } else { s.to_string() };
    let data = &story.recipe.data;
    let source = match (&data.phantom, &data.manifest, &data.pattern) {
        (Some(p), _, _) => {
            format!("a phantom of {} subjects (seed {}): made-up patients, no real ones", p.subjects, p.seed)
        }
        (_, Some(m), _) => format!("the manifest {}", m.display()),
        (_, _, Some(p)) => format!("files {p}"),
        _ => "not noted".into(),
    };
    facts(&[
        ("program", format!("gan {}", info.version)),
        ("commit", info.commit.clone().unwrap_or_else(|| "not noted".into())),
        ("device", format!("{}, {} threads", info.device, info.threads)),
        ("hardware", or(&info.hardware)),
        ("begun, last seen (UTC)", format!("{}, {}", or(&info.started), or(&info.updated))),
        ("training time", time(info.seconds)),
        ("parameters", parameters.join(", ")),
        (
            "memory of a step",
            format!(
                "{} of temporaries, {} of parameters and moments",
                bytes(info.memory_bytes[0] as u64),
                bytes(info.memory_bytes[1] as u64)
            ),
        ),
        ("work of a step", format!("{:.2} GFLOP", info.flops_per_step as f64 / 1e9)),
        ("images", source),
    ])
}

/// The exact commands.
fn again(story: &Story) -> String {
    let own = format!("gan train {0}/recipe.toml --out {0}-again", story.name);
    let device = story.info.as_ref().map_or("cpu", |i| i.device.split(' ').next().unwrap_or("cpu"));
    let precision = story.info.as_ref().and_then(|i| i.device.split_once(" in ")).map_or("", |(_, p)| p);
    let device = if device == "cpu" { String::new() } else { format!(" --device {device}") };
    let precision = if precision.is_empty() { String::new() } else { format!(" --precision {precision}") };
    let choices = match &story.info {
        Some(info) if info.choices.is_some() => format!(" --choices {}/{}", story.name, tuning::FILE),
        Some(info) if info.device != "cpu" => " --choices none".into(),
        _ => String::new(),
    };
    let mut all = format!(
        "<p>From the recipe below, with all defaults and overrides written out:</p><pre>{}</pre>",
        text(&format!("{own}{device}{precision}{choices}"))
    );
    if let Some(info) = &story.info {
        let _ = write!(
            all,
            "<p>What was typed the last time it was started:</p><pre>{}</pre>",
            text(&info.command)
        );
    }
    all
}
