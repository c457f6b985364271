//! Cross-validation: the subjects that are not for testing, dealt to folds, each of which is the validation split once.
//! The file is nnU-Net's `splits_final.json`: a list of `{"train": [...], "val": [...]}`.

use super::manifest::{Entry, Manifest, Split};
use crate::error::{Error, Result};
use crate::fsio;
use crate::rng::Philox;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// One fold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// Subjects to learn from.
    pub train: Vec<String>,
    /// Subjects to validate on.
    pub val: Vec<String>,
}

/// Deals all subjects of a manifest that are not in the test split to `count` folds of about equal size.
pub fn deal(manifest: &Manifest, count: usize, seed: u64) -> Result<Vec<Fold>> {
    let subjects: BTreeSet<String> =
        manifest.entries.iter().filter(|e| e.split != Split::Test).map(|e| e.subject.clone()).collect();
    if subjects.len() < count {
        return Err(Error::input(format!(
            "{}: {} subjects are not for testing, too few for {count} folds; lower `data.folds` or add subjects",
            manifest.source,
            subjects.len()
        )));
    }
    let mut order: Vec<String> = subjects.into_iter().collect();
    Philox::named(seed, "data/folds").shuffle(&mut order);
    let part = |k: usize, val: bool| {
        let chosen = order.iter().enumerate().filter(|(i, _)| (i % count == k) == val);
        let mut list: Vec<String> = chosen.map(|(_, s)| s.clone()).collect();
        list.sort();
        list
    };
    let fold = |k: usize| Fold { train: part(k, false), val: part(k, true) };
    Ok((0..count).map(fold).collect())
}

/// Reads `splits_final.json`.
pub fn read(path: &Path) -> Result<Vec<Fold>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let folds: Vec<Fold> = serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| {
        Error::input(format!(
            "{} is no list of splits ({e}); write [{{\"train\": [..], \"val\": [..]}}, ..]",
            path.display()
        ))
    })?;
    for (k, fold) in folds.iter().enumerate() {
        if let Some(both) = fold.train.iter().find(|s| fold.val.contains(s)) {
            return Err(Error::input(format!(
                "{}: in fold {k} subject {both} is in train and in val; leave it in one",
                path.display()
            )));
        }
        if fold.train.is_empty() || fold.val.is_empty() {
            return Err(Error::input(format!(
                "{}: fold {k} has no subject in train or in val; name some",
                path.display()
            )));
        }
    }
    Ok(folds)
}

/// Writes `splits_final.json`.
pub fn write(path: &Path, folds: &[Fold]) -> Result<()> {
    let text = serde_json::to_string_pretty(folds).expect("plain data");
    fsio::write_bytes(path, format!("{text}\n").as_bytes())
}

/// Puts a manifest's subjects where fold `k` has them. The test split stays; other subjects that the fold does not name are
/// left out.
pub fn apply(manifest: &mut Manifest, folds: &[Fold], k: usize) -> Result<()> {
    let fold = folds.get(k).ok_or_else(|| {
        Error::input(format!("data: `fold = {k}` is not there; there are {} folds, from 0", folds.len()))
    })?;
    let named = |e: &Entry, list: &[String]| list.contains(&e.subject) || list.contains(&e.id);
    for subject in fold.train.iter().chain(&fold.val) {
        match manifest.entries.iter().find(|e| e.subject == *subject || e.id == *subject) {
            None => {
                return Err(Error::input(format!(
                    "{}: there is no subject {subject}, which fold {k} names; correct the list of splits",
                    manifest.source
                )));
            }
            Some(e) if e.split == Split::Test => {
                return Err(Error::input(format!(
                    "{}: subject {subject} is in the test split and in fold {k}; take it out of one",
                    manifest.source
                )));
            }
            Some(_) => {}
        }
    }
    let kept = |e: &Entry| e.split == Split::Test || named(e, &fold.train) || named(e, &fold.val);
    for e in manifest.entries.iter().filter(|e| !kept(e)) {
        manifest.notes.about(format!("fold {k} does not name these cases, which are left out"), &e.id);
    }
    manifest.entries.retain(kept);
    for e in manifest.entries.iter_mut().filter(|e| e.split != Split::Test) {
        e.split = if named(e, &fold.val) { Split::Val } else { Split::Train };
    }
    // The list may name visits one by one.
    let of = |e: &Entry| (e.subject.clone(), e.split);
    let first: HashMap<String, Split> = manifest.entries.iter().rev().map(of).collect();
    if let Some(e) = manifest.entries.iter().find(|e| first[&e.subject] != e.split) {
        return Err(Error::input(format!(
            "{}: fold {k} has visits of the patient {} in train and in val; put all of them into one (or set `data.visits_in_names = false` if they are different people)",
            manifest.source, e.subject
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::manifest::Entry;

    fn manifest(n: usize) -> Manifest {
        let entry = |i: usize| Entry {
            id: format!("s{i}_a"),
            subject: format!("s{i}"),
            split: if i.is_multiple_of(4) { Split::Test } else { Split::Train },
            files: Default::default(),
            cells: Default::default(),
        };
        // Two sessions each.
        let again = |i: usize| Entry { id: format!("s{i}_b"), ..entry(i) };
        let entries = (0..n).flat_map(|i| [entry(i), again(i)]).collect();
        Manifest {
            source: "m.csv".into(),
            modalities: Vec::new(),
            entries,
            shared: false,
            dealt: None,
            notes: Default::default(),
            seen: Default::default(),
        }
    }

    #[test]
    fn every_subject_is_validated_on_once_and_none_is_tested() {
        let m = manifest(20);
        let folds = deal(&m, 5, 3).expect("enough subjects");
        let mut seen: Vec<&String> = folds.iter().flat_map(|f| &f.val).collect();
        seen.sort();
        seen.dedup();
        assert_eq!((seen.len(), folds.iter().map(|f| f.val.len()).sum::<usize>()), (15, 15));
        for fold in &folds {
            assert_eq!((fold.train.len(), fold.val.len()), (12, 3));
            assert!(fold.train.iter().all(|s| !fold.val.contains(s)));
        }
        assert_eq!(deal(&m, 5, 3).expect("the same"), folds);
        assert_ne!(deal(&m, 5, 4).expect("others"), folds);
        assert!(deal(&manifest(4), 5, 1).expect_err("too few").to_string().contains("5 folds"));
    }

    #[test]
    fn a_fold_moves_whole_subjects_and_is_read_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("splits_final.json");
        let folds = deal(&manifest(12), 3, 1).expect("enough");
        write(&path, &folds).expect("written");
        assert_eq!(read(&path).expect("read"), folds);
        let mut m = manifest(12);
        apply(&mut m, &folds, 1).expect("applied");
        let of = |split: Split| m.entries.iter().filter(|e| e.split == split).count();
        assert_eq!((of(Split::Train), of(Split::Val), of(Split::Test)), (12, 6, 6));
        assert!(apply(&mut m, &folds, 3).expect_err("three only").to_string().contains("3 folds"));
        std::fs::write(&path, "[{\"train\": [\"s1\"], \"val\": [\"s1\"]}]").expect("written");
        assert!(read(&path).expect_err("twice").to_string().contains("s1 is in train and in val"));
        std::fs::write(&path, "{}").expect("written");
        assert!(read(&path).expect_err("no list").to_string().contains("splits_final.json"));
    }
}
