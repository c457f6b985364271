use super::say;
use crate::data::formats;
use crate::data::nifti_io::{inspect, statistics};
use crate::error::{Error, Result};
use crate::fsio;
use crate::run::checkpoint::Tensors;
use crate::run::folder::{RunDir, progress};
use crate::run::info::RunInfo;
use crate::watch::csvlog::{bytes, count, duration};
use crate::weights::StateDict;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Say what a file or a run is
///
/// A NIfTI file: shape, spacing, stored type, axes, affine, range of its finite values. A checkpoint: its tensors and
/// architecture; a .pth file or checkpoint of PyTorch's: the tensors of each state dict in it. A run folder: what was trained,
/// how far, how well.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  gan info sub-01_T1w.nii.gz
  gan info runs/mr2pet --json")]
pub struct Args {
    /// A NIfTI file, a .safetensors, .pth or .ckpt file, or a run folder
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let path = &args.path;
    if !path.exists() {
        return Err(Error::missing(path));
    }
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let facts = if path.is_dir() {
        about_run(path)?
    } else if name.ends_with(".safetensors") {
        about_checkpoint(path)?
    } else if [".pth", ".pt", ".ckpt"].iter().any(|e| name.ends_with(e)) {
        about_weights(path)?
    } else {
        about_image(path)?
    };
    if args.json {
        say(format!("{facts:#}"));
    } else {
        print(&facts);
    }
    Ok(())
}

/// Key, colon, value; nested objects indented by their keys.
fn print(facts: &Value) {
    let Some(map) = facts.as_object() else { return };
    let width = map.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in map {
        let text = match value {
            Value::String(s) => s.clone(),
            Value::Array(rows) if rows.iter().any(|r| r.is_array() || r.is_string()) => {
                let lines: Vec<String> =
                    rows.iter().map(|r| r.as_str().map_or_else(|| row(r), String::from)).collect();
                lines.join(&format!("\n{:width$}  ", ""))
            }
            Value::Array(_) => row(value),
            other => other.to_string(),
        };
        say(format!("{key:width$}  {text}"));
    }
}

fn rounded(affine: &[[f64; 4]; 3]) -> Vec<Vec<f64>> {
    affine.iter().map(|r| r.iter().map(|v| (v * 1e6).round() / 1e6 + 0.0).collect()).collect()
}

fn row(v: &Value) -> String {
    let parts = v.as_array().map(|a| a.iter().map(ToString::to_string).collect::<Vec<_>>());
    parts.map_or(v.to_string(), |p| p.join(" "))
}

fn about_image(path: &Path) -> Result<Value> {
    if let Some(format) = formats::recognise(path) {
        let image = formats::read(path, format)?;
        let finite = || image.voxels.iter().copied().filter(|v| v.is_finite());
        let n = finite().count();
        let range = finite().fold([f32::INFINITY, f32::NEG_INFINITY], |[l, h], v| [l.min(v), h.max(v)]);
        return Ok(json!({
            "file": fsio::text(path), "format": format.name(), "shape": image.dims, "spacing": image.affine.spacing(),
            "type": image.stored, "axes": image.affine.axis_codes(), "affine": rounded(&image.affine.0),
            "range": if n > 0 { json!(range) } else { json!("no voxel is finite") },
            "mean": finite().map(f64::from).sum::<f64>() / n as f64,
            "NaN": image.voxels.iter().filter(|v| v.is_nan()).count(),
            "infinite": image.voxels.iter().filter(|v| v.is_infinite()).count(), "notes": image.notes,
        }));
    }
    let header = inspect(path)?;
    let rows = rounded(&header.affine.0);
    let mut facts = json!({
        "file": fsio::text(path), "format": format!("NIfTI-{}", header.version()), "shape": header.shape, "spacing": header.pixdim,
        "type": header.stored_name(), "byte order": format!("{:?}", header.endian).to_lowercase(),
        "axes": header.affine.axis_codes(), "qform code": header.qform_code, "sform code": header.sform_code,
        "affine": rows, "slope": header.slope, "intercept": header.inter,
    });
    let mut notes = header.notes();
    // What has no single intensity per voxel (colours, complex numbers) has no range: say why instead.
    match statistics(path) {
        Ok(s) => {
            facts["range"] = s.range.map_or_else(|| json!("no voxel is finite"), |r| json!(r));
            facts["mean"] = if s.range.is_some() { json!(s.mean) } else { Value::Null };
            facts["NaN"] = json!(s.nan);
            facts["infinite"] = json!(s.infinite);
            if s.nan + s.infinite > 0 {
                notes.push("NaN and infinite voxels are no part of range and mean; training refuses them unless `data.nan` is \"zero\"".into());
            }
            if s.beyond_f32 > 0 {
                notes.push(format!(
                    "{} voxels are beyond float32: training and prediction refuse the file; rescale it",
                    s.beyond_f32
                ));
            }
            if s.behind > 0 {
                notes.push(format!("{} bytes behind the last voxel: left out", s.behind));
            }
        }
        Err(e) => facts["range"] = json!(e.to_string()),
    }
    if !notes.is_empty() {
        facts["notes"] = json!(notes);
    }
    Ok(facts)
}

fn about_checkpoint(path: &Path) -> Result<Value> {
    let file = Tensors::read(path)?;
    let list = file.list();
    let elements: usize = list.iter().map(|(_, s, _)| s.iter().product::<usize>()).sum();
    let size: usize = list.iter().map(|(_, _, b)| b).sum();
    let mut metadata: Vec<(&String, &String)> = file.all_metadata().iter().collect();
    metadata.sort();
    let mut facts = json!({
        "file": fsio::text(path), "tensors": list.len(), "elements": count(elements as u64), "size": bytes(size as u64),
    });
    for (k, v) in metadata {
        facts[k] = json!(v);
    }
    facts["contents"] = list.iter().map(|(n, s, _)| json!(format!("{n} {s:?}"))).collect();
    Ok(facts)
}

/// A file of PyTorch's: the state dicts that it holds, none of which is run.
fn about_weights(path: &Path) -> Result<Value> {
    let file = StateDict::read(path)?;
    let mut contents = Vec::new();
    for dict in std::iter::once(&file).chain(file.others()) {
        if !dict.part().is_empty() {
            contents.push(format!("{}:", dict.part()));
        }
        contents.extend(dict.keys().map(|k| format!("{k} {:?}", dict.shape(k).unwrap_or_default())));
    }
    let mut facts = json!({ "file": fsio::text(path), "contents": contents });
    let beside = file.left_out(&file);
    if !beside.is_empty() {
        facts["beside"] = json!(beside.join(", "));
    }
    Ok(facts)
}

fn about_run(path: &Path) -> Result<Value> {
    let run = RunDir::new(path);
    let recipe = run.recipe()?;
    let info: RunInfo = run.load_json("run.json")?;
    let mut nets: Vec<String> =
        info.parameters.iter().map(|(n, c)| format!("{n}: {} parameters", count(*c as u64))).collect();
    nets.sort();
    let mut facts = json!({
        "run": fsio::text(path), "recipe": recipe.name, "about": recipe.about, "model": recipe.kind(), "seed": recipe.seed,
        "input": recipe.data.input, "target": recipe.data.target, "networks": nets, "command": info.command,
        "program": info.version, "device": format!("{}, {} threads", info.device, info.threads), "finished": info.finished,
        "memory": format!("{} of temporaries, {} of parameters and moments", bytes(info.memory_bytes[0] as u64), bytes(info.memory_bytes[1] as u64)),
    });
    match progress(&run, "last") {
        Ok(p) => {
            facts["steps"] = json!(p.step);
            if let Some((value, step)) = p.best {
                facts["best"] = json!(format!("{} {value:.4} at step {step}", recipe.validate.metric.name()));
            }
        }
        Err(_) => facts["steps"] = json!("no checkpoint yet"),
    }
    if !info.started.is_empty() {
        let spent = duration(Duration::from_secs_f64(info.seconds.clamp(0.0, 1e12)));
        facts["trained"] = json!(format!("{spent}, begun {}, last seen {}", info.started, info.updated));
    }
    if !info.hardware.is_empty() {
        facts["hardware"] = json!(info.hardware);
    }
    if let Some(commit) = &info.commit {
        facts["commit"] = json!(commit);
    }
    if !info.incidents.is_empty() {
        facts["incidents"] = json!(info.incidents);
    }
    Ok(facts)
}
