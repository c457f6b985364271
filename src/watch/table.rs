//! A run's `metrics.csv` read back, for summaries and reports.

use crate::error::{Error, Result};
use crate::metrics::case::short;
use crate::watch::csvlog::sparkline;
use std::path::Path;

/// What was logged, column by column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names of the columns after `step`.
    pub columns: Vec<String>,
    /// The step of each row.
    pub steps: Vec<u64>,
    cells: Vec<Vec<Option<f64>>>,
}

impl Table {
    /// Reads a table. A last row that a crash cut off is left out.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&text).ok_or_else(|| {
            Error::input(format!(
                "{} is no table of logged numbers, or damaged; restore it from a copy",
                path.display()
            ))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let whole = &text[..text.rfind('\n').map_or(0, |i| i + 1)];
        let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(whole.as_bytes());
        let header = reader.headers().ok()?.clone();
        if header.get(0) != Some("step") {
            return None;
        }
        let mut table = Table {
            columns: header.iter().skip(1).map(String::from).collect(),
            steps: Vec::new(),
            cells: vec![Vec::new(); header.len() - 1],
        };
        for row in reader.records() {
            let row = row.ok()?;
            table.steps.push(row.get(0)?.parse().ok()?);
            for (column, cell) in table.cells.iter_mut().zip(row.iter().skip(1)) {
                column.push(if cell.is_empty() { None } else { Some(cell.parse().ok()?) });
            }
        }
        Some(table)
    }

    /// The points of a column; none if there is no such column.
    pub fn series(&self, column: &str) -> Vec<(u64, f64)> {
        let Some(i) = self.columns.iter().position(|c| c == column) else { return Vec::new() };
        self.steps.iter().zip(&self.cells[i]).filter_map(|(s, v)| Some((*s, (*v)?))).collect()
    }

    /// A line per column: its first, last, lowest and highest value, and its course. Empty without rows.
    pub fn summary(&self) -> String {
        let width = self.columns.iter().map(String::len).max().unwrap_or(0);
        let head = ["first", "last", "lowest", "highest"].map(|h| format!("{h:>11}")).concat();
        let mut text = format!("{:width$}{head}   course", "");
        let mut rows = 0;
        for column in &self.columns {
            let values: Vec<f64> = self.series(column).into_iter().map(|(_, v)| v).collect();
            let (Some(first), Some(last)) = (values.first(), values.last()) else { continue };
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let numbers = [*first, *last, low, high].map(|v| format!("{:>11}", short(v))).concat();
            text += &format!("\n{column:width$}{numbers}   {}", sparkline(&values, 40));
            rows += 1;
        }
        if rows == 0 { String::new() } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_read_back_and_a_cut_row_is_left_out() {
        let text = "step,loss/G,val/psnr\n1,0.5,\n2,0.25,20.5\n3,nan,\n4,0.1";
        let table = Table::parse(text).expect("a table");
        assert_eq!(table.steps, [1, 2, 3]);
        assert_eq!(table.series("val/psnr"), [(2, 20.5)]);
        let loss = table.series("loss/G");
        assert_eq!(loss[..2], [(1, 0.5), (2, 0.25)]);
        assert!(loss[2].1.is_nan());
        assert!(table.series("other").is_empty());
        assert!(Table::parse("a,b\n1,2\n").is_none() && Table::parse("step,b\n1,x\n").is_none());
    }

    #[test]
    fn a_summary_has_a_line_per_column_with_values() {
        let table = Table::parse("step,loss/G,val/psnr\n1,4,\n2,2,\n3,1,\n").expect("a table");
        let text = table.summary();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words, ["loss/G", "4.000", "1.000", "1.000", "4.000", "█▃▁"]);
        assert!(Table::parse("step,a\n").expect("a table").summary().is_empty());
    }
}
