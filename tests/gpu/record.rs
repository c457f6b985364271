//! The record of a run: one JSON file and one table for people.

use crate::Outcome;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

pub struct Record {
    device: String,
    stages: Vec<(String, bool, String, f64)>,
    /// Numbers worth keeping, by section.
    sections: Vec<(String, Vec<Value>)>,
}

impl Record {
    pub fn new(device: &str) -> Self {
        Record { device: device.into(), stages: Vec::new(), sections: Vec::new() }
    }

    /// Adds how a stage ended.
    pub fn stage(&mut self, name: &str, outcome: &Outcome, took: Duration) {
        let (ok, text) = match outcome {
            Ok(text) => (true, text.clone()),
            Err(text) => (false, text.clone()),
        };
        println!("{name}: {} ({:.1} s) {text}", if ok { "ok" } else { "FAILED" }, took.as_secs_f64());
        self.stages.push((name.into(), ok, text, took.as_secs_f64()));
    }

    /// Adds a row of numbers to a section.
    pub fn row(&mut self, section: &str, row: Value) {
        match self.sections.iter_mut().find(|(s, _)| s == section) {
            Some((_, rows)) => rows.push(row),
            None => self.sections.push((section.into(), vec![row])),
        }
    }

    pub fn failed(&self) -> bool {
        self.stages.iter().any(|(_, ok, ..)| !ok)
    }

    /// Where the record goes.
    pub fn folder() -> PathBuf {
        std::env::var_os("GAN_GPU_RECORD").map_or_else(|| PathBuf::from("target/gpu-record"), PathBuf::from)
    }

    /// Writes `record.json` and `record.md`.
    pub fn write(&self) -> Result<PathBuf, String> {
        let folder = Self::folder();
        let stages: Vec<Value> = self
            .stages
            .iter()
            .map(|(name, ok, text, s)| json!({"stage": name, "passed": ok, "text": text, "seconds": s}))
            .collect();
        let sections: serde_json::Map<String, Value> =
            self.sections.iter().map(|(n, rows)| (n.clone(), json!(rows))).collect();
        let all = json!({"device": self.device, "version": env!("CARGO_PKG_VERSION"), "stages": stages, "measured": sections});
        let mut text =
            format!("# GPU tests\n\n{}\n\n| stage | | seconds | |\n|---|---|---|---|\n", self.device);
        for (name, ok, note, seconds) in &self.stages {
            let note = note.lines().next().unwrap_or_default().replace('|', "/");
            text +=
                &format!("| {name} | {} | {seconds:.1} | {note} |\n", if *ok { "passed" } else { "FAILED" });
        }
        for (name, rows) in &self.sections {
            text += &format!("\n## {name}\n\n{}", table(rows));
        }
        let write = |name: &str, bytes: String| {
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(name), bytes)).map_err(
                |e| format!("cannot write the record into {}: {e}; set GAN_GPU_RECORD", folder.display()),
            )
        };
        write("record.json", format!("{all:#}\n"))?;
        write("record.md", text)?;
        Ok(folder.clone())
    }
}

/// Rows of one kind as a table.
fn table(rows: &[Value]) -> String {
    let Some(first) = rows.first().and_then(Value::as_object) else { return String::new() };
    let names: Vec<&String> = first.keys().collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let cell = |v: &Value| match v {
        Value::String(s) => s.clone(),
        Value::Number(n) if n.is_f64() => format!("{:.4}", n.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    };
    let mut text = line(names.iter().map(ToString::to_string).collect());
    text += &line(names.iter().map(|_| "---".into()).collect());
    for row in rows {
        text += &line(names.iter().map(|n| cell(&row[n.as_str()])).collect());
    }
    text
}
