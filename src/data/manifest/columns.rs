//! Which column of a manifest is the subject, the session and the split. A name in other letters (`Split`) or of another
//! custom (`patient_id`) is understood and said so; what could be the split under a name that is not known is refused:
//! taken for a modality, it would let the program deal the subjects anew.

use super::{Split, distance};
use crate::data::notes::Notes;
use crate::error::{Error, Result};
use csv::StringRecord;
use std::collections::BTreeSet;

/// Other names of the three columns, in small letters without separators.
const SUBJECT: [&str; 10] = [
    "subject",
    "subjects",
    "subjectid",
    "sub",
    "participant",
    "participantid",
    "patient",
    "patientid",
    "case",
    "caseid",
];
const SESSION: [&str; 7] = ["session", "sessions", "sessionid", "ses", "visit", "visitid", "timepoint"];
const SPLIT: [&str; 9] =
    ["split", "splits", "datasplit", "set", "dataset", "subset", "partition", "fold", "folds"];

/// The columns by their position.
pub(super) struct Columns {
    pub subject: usize,
    pub session: Option<usize>,
    pub split: Option<usize>,
}

impl Columns {
    /// Whether a column is none of the three.
    pub fn is_modality(&self, column: usize) -> bool {
        column != self.subject && Some(column) != self.session && Some(column) != self.split
    }
}

/// Finds the columns of the manifest `p`.
pub(super) fn find(p: &str, headers: &[String], records: &[StringRecord], notes: &Notes) -> Result<Columns> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = headers.iter().find(|h| !seen.insert(h.as_str())) {
        return Err(Error::input(format!("{p} has two columns named `{twice}`; rename one")));
    }
    let subject =
        one(p, headers, &SUBJECT, notes)?.ok_or_else(|| super::missing_column(p, "subject", headers))?;
    let session = one(p, headers, &SESSION, notes)?;
    let exact = headers.iter().position(|h| is(h, "split"));
    let split = match exact {
        Some(c) => Some(named(p, headers, c, "split", notes)),
        None => by_values(p, headers, records, notes)?,
    };
    Ok(Columns { subject, session, split })
}

/// A header without capitals, blanks and separators.
fn plain(header: &str) -> String {
    header.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn is(header: &str, name: &str) -> bool {
    plain(header) == name
}

/// Says that a column is understood, if it is not called so.
fn named(p: &str, headers: &[String], column: usize, role: &str, notes: &Notes) -> usize {
    if headers[column] != role {
        notes.add(format!("{p}: the column `{}` is read as `{role}`", headers[column]));
    }
    column
}

/// The one column with one of these names; that of the first name before the others.
fn one(p: &str, headers: &[String], names: &[&str], notes: &Notes) -> Result<Option<usize>> {
    let of = |name: &str| (0..headers.len()).filter(|c| is(&headers[*c], name)).collect::<Vec<_>>();
    let first = of(names[0]);
    let found = if first.is_empty() { names[1..].iter().flat_map(|n| of(n)).collect() } else { first };
    match found[..] {
        [] => Ok(None),
        [column] => Ok(Some(named(p, headers, column, names[0], notes))),
        [a, b, ..] => Err(Error::input(format!(
            "{p}: `{}` and `{}` could both be the column `{}`; give one of them this name and the other another one",
            headers[a], headers[b], names[0]
        ))),
    }
}

/// A column that is not called `split`, but says train, val and test.
fn by_values(p: &str, headers: &[String], records: &[StringRecord], notes: &Notes) -> Result<Option<usize>> {
    let values = |c: usize| records.iter().filter_map(move |r| r.get(c)).filter(|v| !v.is_empty());
    let says_splits =
        |c: &usize| values(*c).next().is_some() && values(*c).all(|v| Split::parse(v).is_some());
    let known = |c: &usize| SPLIT.contains(&plain(&headers[*c]).as_str());
    let all: Vec<usize> = (0..headers.len()).filter(says_splits).collect();
    match all[..] {
        [] => {}
        [c] if known(&c) => return Ok(Some(named(p, headers, c, "split", notes))),
        [c] => {
            return Err(Error::input(format!(
                "{p}: the column `{}` says train, val or test, but there is no column `split`; rename it to `split`, or delete it and let the subjects be dealt",
                headers[c]
            )));
        }
        [a, b, ..] => {
            return Err(Error::input(format!(
                "{p}: `{}` and `{}` both say train, val or test; rename one of them to `split` and delete the other",
                headers[a], headers[b]
            )));
        }
    }
    // Some cells are a split and others are not; or the folds are numbered.
    let suspect = |c: &usize| {
        let numbered =
            plain(&headers[*c]).starts_with("fold") && values(*c).any(|v| v.parse::<u32>().is_ok());
        let near = distance(&plain(&headers[*c]), "split") <= 1;
        numbered || ((known(c) || near) && values(*c).any(|v| Split::parse(v).is_some()))
    };
    if let Some(c) = (0..headers.len()).find(suspect) {
        let odd = values(c).find(|v| Split::parse(v).is_none()).unwrap_or_default();
        return Err(Error::input(format!(
            "{p}: the column `{}` could be the split, but `{odd}` in it is none of train, val and test; rename the column to `split` and write these, hand folds over as `data.splits`, or delete the column and let the subjects be dealt",
            headers[c]
        )));
    }
    Ok(None)
}
