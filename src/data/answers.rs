//! Targets that are no images: a class, findings or numbers, which stand in columns of the manifest.

use super::manifest::{Entry, Manifest};
use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// What stands in the target's columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answers<'a> {
    /// One of these, which exclude each other (`data.classes`).
    Class(&'a [String]),
    /// Any number of these (`data.findings`).
    Findings(&'a [String]),
    /// A number in each of these columns (`data.numbers`).
    Numbers(&'a [String]),
}

/// What a list of findings says where there is none, in small letters: NIH's ChestX-ray14 writes "No Finding".
const NONE: [&str; 4] = ["no finding", "none", "normal", "-"];

impl<'a> Answers<'a> {
    /// The key of `[data]` that says so.
    pub fn key(self) -> &'static str {
        match self {
            Answers::Class(_) => "classes",
            Answers::Findings(_) => "findings",
            Answers::Numbers(_) => "numbers",
        }
    }

    /// What is told apart: the classes, the findings, the columns of numbers.
    pub fn names(self) -> &'a [String] {
        match self {
            Answers::Class(names) | Answers::Findings(names) | Answers::Numbers(names) => names,
        }
    }

    /// Numbers of a target: the class's, from 0; a zero or a one for each finding; or the numbers themselves.
    pub fn channels(self) -> usize {
        match self {
            Answers::Class(_) => 1,
            other => other.names().len(),
        }
    }

    /// Numbers that a network puts out.
    pub fn outputs(self) -> usize {
        self.names().len()
    }

    /// Whether the settings make sense, `columns` being `data.target`.
    pub fn check(self, columns: &[String]) -> Result<()> {
        let names = self.names();
        let wrong = |why: String| Err(Error::input(format!("data: `{}` {why}", self.key())));
        let unique: BTreeSet<&String> = names.iter().collect();
        if unique.len() != names.len() || names.iter().any(String::is_empty) {
            return wrong("lists a name twice or an empty one; list each once".into());
        }
        match self {
            Answers::Class(_) if names.len() < 2 => wrong("must name two classes at least".into()),
            Answers::Class(_) if columns.len() != 1 => wrong(format!(
                "says what stands in one column, but `target` lists {}; name the one",
                columns.len()
            )),
            Answers::Findings(_) if columns.len() != 1 && columns.len() != names.len() => wrong(format!(
                "lists {} findings, and `target` {} columns; name the one column that lists them, or a column of zeros and ones for each",
                names.len(),
                columns.len()
            )),
            Answers::Numbers(_) if columns.is_empty() => {
                wrong("says that columns hold numbers, but `target` lists none; name them".into())
            }
            _ => Ok(()),
        }
    }

    /// The numbers of a case, as they are learned (numbers: before they are scaled).
    pub fn read(self, manifest: &Manifest, entry: &Entry, columns: &[String]) -> Result<Vec<f32>> {
        let source = &manifest.source;
        let cell = |column: &String| manifest.cell(entry, column);
        match self {
            Answers::Class(names) => {
                let text = cell(&columns[0])?;
                let found = names.iter().position(|n| n == text).ok_or_else(|| {
                    Error::input(format!(
                        "{source}: `{}` of subject {} is `{text}`, but `data.classes` has {} only; add it there, or correct the cell",
                        columns[0],
                        entry.id,
                        listed(names)
                    ))
                })?;
                Ok(vec![found as f32])
            }
            Answers::Findings(names) if columns.len() == 1 && names.len() > 1 => {
                let text = cell(&columns[0])?;
                let parts: Vec<&str> = text.split(['|', ';']).map(str::trim).filter(|p| !p.is_empty()).collect();
                let stray = |p: &&&str| {
                    !names.iter().any(|n| n == **p) && !NONE.contains(&p.to_lowercase().as_str())
                };
                if let Some(stray) = parts.iter().find(stray) {
                    return Err(Error::input(format!(
                        "{source}: `{}` of subject {} lists `{stray}`, but `data.findings` has {} only; add it there, or correct the cell (none at all is \"No Finding\")",
                        columns[0],
                        entry.id,
                        listed(names)
                    )));
                }
                Ok(names.iter().map(|n| f32::from(u8::from(parts.contains(&n.as_str())))).collect())
            }
            Answers::Findings(_) => columns
                .iter()
                .map(|column| match cell(column)?.to_lowercase().as_str() {
                    "1" | "1.0" | "yes" | "true" => Ok(1.0),
                    "0" | "0.0" | "no" | "false" => Ok(0.0),
                    other => Err(Error::input(format!(
                        "{source}: `{column}` of subject {} is `{other}`, neither 1 nor 0; correct the cell, or leave the subject out",
                        entry.id
                    ))),
                })
                .collect(),
            Answers::Numbers(_) => columns
                .iter()
                .map(|column| {
                    let text = cell(column)?;
                    text.parse::<f32>().ok().filter(|v| v.is_finite()).ok_or_else(|| {
                        Error::input(format!(
                            "{source}: `{column}` of subject {} is `{text}`, no number (decimals follow a point); correct the cell, or leave the subject out",
                            entry.id
                        ))
                    })
                })
                .collect(),
        }
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The answers of each row of a table.
    fn read(table: &str, answers: Answers, columns: &[&str]) -> Vec<Result<Vec<f32>, String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.csv");
        fs::write(&path, table).unwrap();
        let manifest = Manifest::read(&path, &[0.7, 0.1, 0.2], 1).unwrap();
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        answers.check(&columns).unwrap();
        let of = |e| answers.read(&manifest, e, &columns).map_err(|e| e.to_string());
        manifest.entries.iter().map(of).collect()
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_class_is_its_place_in_the_list() {
        let classes = names(&["normal", "covid"]);
        let rows = "subject,t1,diagnosis\na,a.nii,covid\nb,b.nii,normal\nc,c.nii,flu\nd,d.nii,\n";
        let found = read(rows, Answers::Class(&classes), &["diagnosis"]);
        assert_eq!(found[..2], [Ok(vec![1.0]), Ok(vec![0.0])]);
        let message = found[2].as_ref().expect_err("no such class");
        assert!(
            message.contains("`flu`") && message.contains("data.classes") && message.contains("subject c")
        );
        assert!(found[3].as_ref().expect_err("empty").contains("nothing stands for subject d"));
    }

    #[test]
    fn findings_are_a_list_or_columns() {
        let findings = names(&["Effusion", "Mass"]);
        let rows = "subject,x,Finding Labels\na,a.nii,Mass|Effusion\nb,b.nii,No Finding\nc,c.nii,Mass;\nd,d.nii,Nodule\n";
        let found = read(rows, Answers::Findings(&findings), &["Finding Labels"]);
        assert_eq!(found[..3], [Ok(vec![1.0, 1.0]), Ok(vec![0.0, 0.0]), Ok(vec![0.0, 1.0])]);
        assert!(found[3].as_ref().expect_err("unknown").contains("`Nodule`"));
        let rows = "subject,x,e,m\na,a.nii,1,no\nb,b.nii,0.0,yes\nc,c.nii,-1,0\n";
        let found = read(rows, Answers::Findings(&findings), &["e", "m"]);
        assert_eq!(found[..2], [Ok(vec![1.0, 0.0]), Ok(vec![0.0, 1.0])]);
        // CheXpert's "uncertain" is for the user to decide.
        assert!(found[2].as_ref().expect_err("uncertain").contains("neither 1 nor 0"));
    }

    #[test]
    fn numbers_have_points() {
        let columns = names(&["age"]);
        let rows = "subject,x,age\na,a.nii,41.5\nb,b.nii,\"41,5\"\nc,c.nii,inf\n";
        let found = read(rows, Answers::Numbers(&columns), &["age"]);
        assert_eq!(found[0], Ok(vec![41.5]));
        assert!(found[1].as_ref().expect_err("comma").contains("follow a point"));
        assert!(found[2].is_err());
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        let (one, two) = (names(&["a"]), names(&["a", "b"]));
        assert!(Answers::Class(&one).check(&names(&["c"])).is_err());
        assert!(Answers::Class(&two).check(&names(&["c", "d"])).is_err());
        assert!(Answers::Class(&names(&["a", "a"])).check(&names(&["c"])).is_err());
        assert!(Answers::Findings(&two).check(&names(&["c", "d", "e"])).is_err());
        assert!(Answers::Findings(&one).check(&names(&["c"])).is_ok());
    }
}
