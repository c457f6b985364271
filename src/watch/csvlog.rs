//! The run's `metrics.csv`, and the short forms of numbers that a terminal shows.

use crate::error::{Error, Result};
use crate::fsio;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A table that grows by one row per logged step. Its first column is `step`; the others are fixed when it is created.
/// A cell is empty where a row has no value. Every row is with the operating system when [`Self::append`] returns.
pub struct MetricsLog {
    path: PathBuf,
    columns: Vec<String>,
    file: File,
}

impl MetricsLog {
    /// Starts a table with these columns after `step`. Fails when the file exists: a log is never overwritten.
    pub fn create(path: &Path, columns: &[&str]) -> Result<Self> {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        let file =
            OpenOptions::new().append(true).create_new(true).open(path).map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => Error::input(format!(
                    "{} exists already; resume that run, or choose another folder for this one",
                    path.display()
                )),
                _ => Error::io("create", path)(e),
            })?;
        let mut log = MetricsLog { path: path.to_path_buf(), columns, file };
        let header = line(std::iter::once("step").chain(log.columns.iter().map(String::as_str)));
        log.write(&header)?;
        Ok(log)
    }

    /// Continues a table from a checkpoint: rows beyond `step`, and a last row that a crash cut off, are removed
    /// (the file is rewritten atomically), so that the resumed run writes no step twice. Creates the table when there
    /// is none. Fails when its columns are not these, or a row has no step.
    pub fn resume(path: &Path, columns: &[&str], step: u64) -> Result<Self> {
        if !path.exists() {
            return Self::create(path, columns);
        }
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let header = line(std::iter::once("step").chain(columns.iter().copied()));
        // A crash may have cut off even the header.
        let cut = header.starts_with(&text).then_some("");
        let Some(rows) = text.strip_prefix(&header).or(cut) else {
            return Err(Error::input(format!(
                "{} has other columns than this run's '{}'; move it away to start a new table",
                path.display(),
                header.trim_end()
            )));
        };
        let mut kept = header.clone();
        for (number, row) in rows.split_inclusive('\n').enumerate() {
            if !row.ends_with('\n') {
                break;
            }
            let at: u64 =
                row.split(',').next().and_then(|cell| cell.trim().parse().ok()).ok_or_else(|| {
                    let number = number + 2;
                    Error::input(format!(
                        "{}, line {number} does not start with a step; mend or remove the line",
                        path.display()
                    ))
                })?;
            if at <= step {
                kept.push_str(row);
            }
        }
        if kept != text {
            fsio::write_bytes(path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(Error::io("open", path))?;
        Ok(MetricsLog {
            path: path.to_path_buf(),
            columns: columns.iter().map(ToString::to_string).collect(),
            file,
        })
    }

    /// Adds a row; columns without a value stay empty. Fails on a name that is no column.
    pub fn append(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut cells = vec![String::new(); self.columns.len()];
        for (name, value) in values {
            let Some(column) = self.columns.iter().position(|c| c == name) else {
                return Err(Error::input(format!(
                    "{} has no column '{name}'; its columns are: {}",
                    self.path.display(),
                    self.columns.join(", ")
                )));
            };
            cells[column] = cell(*value);
        }
        let step = step.to_string();
        let row = line(std::iter::once(step.as_str()).chain(cells.iter().map(String::as_str)));
        self.write(&row)
    }

    /// One write per row, so that a reader sees whole rows and nothing waits in memory.
    fn write(&mut self, row: &str) -> Result<()> {
        self.file.write_all(row.as_bytes()).map_err(Error::io("write", &self.path))
    }
}

/// A line of CSV (RFC 4180 quoting), with its newline.
fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = cells
        .map(|c| match c.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", c.replace('"', "\"\"")),
            false => c.to_string(),
        })
        .collect();
    quoted.join(",") + "\n"
}

/// The shortest form that reads back as the same number.
fn cell(v: f64) -> String {
    match v {
        v if v.is_nan() => "nan".to_string(),
        v if v != 0.0 && v.is_finite() && !(1e-5..1e16).contains(&v.abs()) => format!("{v:e}"),
        v => v.to_string(),
    }
}

/// A curve in one line of at most `width` characters: each the mean of its share of the series, from the lowest (▁) to
/// the highest (█); · where no value is finite. Empty for an empty series.
pub fn sparkline(series: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = width.min(series.len());
    let share = |i: usize| {
        let finite =
            series[i * series.len() / width..(i + 1) * series.len() / width].iter().filter(|v| v.is_finite());
        let (sum, n) = finite.fold((0.0, 0), |(s, n), v| (s + v, n + 1));
        (n > 0).then(|| sum / f64::from(n))
    };
    let means: Vec<Option<f64>> = (0..width).map(share).collect();
    let (low, high) =
        means.iter().flatten().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let bar =
        |v: f64| if high > low { BARS[((v - low) / (high - low) * 7.0).round() as usize] } else { BARS[0] };
    means.into_iter().map(|m| m.map_or('·', bar)).collect()
}

/// A duration as people say it: `85ms`, `9.4s`, `4m12s`, `2h05m`, `3d04h`.
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs_f64();
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 0.9995 => format!("{:.0}ms", seconds * 1e3),
        _ if seconds < 59.95 => format!("{seconds:.1}s"),
        ..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A speed with three significant digits: `12.3 img/s`, `0.42 img/s`, `1520 img/s`.
pub fn rate(per_second: f64, unit: &str) -> String {
    let digits = match per_second {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{per_second:.digits$} {unit}/s")
}

/// A count with three significant digits: `950`, `54.4M`, `2.77M`, `1.20G`.
pub fn count(n: u64) -> String {
    scaled(n as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// An amount of memory: `512 B`, `1.50 GiB`.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

fn scaled(n: f64, base: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (n, 0);
    // 999.5 would be printed as 1000.
    while value >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_a_cell_for_every_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut log = MetricsLog::create(&path, &["loss/G", "val/psnr"]).unwrap();
        log.append(1, &[("loss/G", 0.1)]).unwrap();
        log.append(2, &[("val/psnr", f64::INFINITY), ("loss/G", 1.25e-7)]).unwrap();
        log.append(3, &[("loss/G", f64::NAN), ("val/psnr", 0.0)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "step,loss/G,val/psnr\n1,0.1,\n2,1.25e-7,inf\n3,nan,0\n");
        assert!(log.append(4, &[("typo", 1.0)]).unwrap_err().to_string().contains("'typo'"));
        assert!(MetricsLog::create(&path, &[]).err().unwrap().to_string().contains("resume"));
        // The csv crate reads the same numbers back.
        let mut reader = csv::Reader::from_path(&path).unwrap();
        let values: Vec<f64> = reader.records().map(|r| r.unwrap()[1].parse().unwrap()).collect();
        assert_eq!(values[..2], [0.1, 1.25e-7]);
    }

    #[test]
    fn a_resumed_run_has_no_duplicates() {
        let folder = tempfile::tempdir().unwrap();
        let (path, whole) = (folder.path().join("a.csv"), folder.path().join("b.csv"));
        let columns = ["loss, G", "x"];
        let row = |log: &mut MetricsLog, step: u64| log.append(step, &[("x", step as f64 / 3.0)]).unwrap();
        let mut log = MetricsLog::create(&path, &columns).unwrap();
        (10..=50).step_by(10).for_each(|s| row(&mut log, s));
        log.write("60,cut o").unwrap();
        drop(log);
        let mut log = MetricsLog::resume(&path, &columns, 30).unwrap();
        (40..=70).step_by(10).for_each(|s| row(&mut log, s));
        let mut reference = MetricsLog::resume(&whole, &columns, 0).unwrap();
        (10..=70).step_by(10).for_each(|s| row(&mut reference, s));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(&whole).unwrap());
        let e = MetricsLog::resume(&path, &["other"], 30).err().unwrap().to_string();
        assert!(e.contains("a.csv") && e.contains("move it away"), "{e}");
        std::fs::write(&path, "ste").unwrap();
        MetricsLog::resume(&path, &["x"], 30).unwrap().append(31, &[("x", 1.0)]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "step,x\n31,1\n");
        std::fs::write(&path, "step,x\n1,2\nabc,3\n").unwrap();
        let e = MetricsLog::resume(&path, &["x"], 30).err().unwrap().to_string();
        assert!(e.contains("line 3"), "{e}");
    }

    #[test]
    fn sparklines() {
        assert_eq!(sparkline(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 20), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[7.0, 7.0, 0.0, 0.0], 2), "█▁");
        assert_eq!(sparkline(&[1.0, f64::NAN, 1.0, f64::INFINITY], 4), "▁·▁·");
        assert_eq!((sparkline(&[], 5), sparkline(&[1.0], 0)), (String::new(), String::new()));
        assert_eq!(sparkline(&(0..1000).map(f64::from).collect::<Vec<_>>(), 60).chars().count(), 60);
    }

    #[test]
    fn numbers_for_people() {
        let d = |s: f64| duration(Duration::from_secs_f64(s));
        assert_eq!(
            [d(0.0849), d(0.9999), d(9.44), d(59.97), d(252.0)],
            ["85ms", "1.0s", "9.4s", "1m00s", "4m12s"]
        );
        assert_eq!([d(3599.7), d(7500.0), d(86_400.0 * 3.0 + 14_400.0)], ["1h00m", "2h05m", "3d04h"]);
        assert_eq!(
            [rate(12.34, "img"), rate(0.4199, "img"), rate(1520.2, "step")],
            ["12.3 img/s", "0.42 img/s", "1520 step/s"]
        );
        assert_eq!(
            [count(950), count(54_413_955), count(2_768_705), count(999_999)],
            ["950", "54.4M", "2.77M", "1.00M"]
        );
        assert_eq!([bytes(512), bytes(1_610_612_736)], ["512 B", "1.50 GiB"]);
    }
}
