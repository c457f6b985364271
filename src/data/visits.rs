//! Which names are visits of one patient: `sub-01_ses-1` and `sub-01_ses-2`, `BraTS-GLI-00005-000` and
//! `BraTS-GLI-00005-001`. Dealt one by one, a patient would be trained on and tested on.

use super::manifest::{Entry, Manifest};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Words that are followed by the number of a visit.
const WORDS: [&str; 9] = ["ses", "session", "visit", "timepoint", "time", "tp", "week", "month", "followup"];

/// The patient in the name of a visit; none if the name is not known to be one.
pub fn patient(name: &str) -> Option<&str> {
    // BIDS: whatever follows the subject is a session, a run, an acquisition of it.
    if name.get(..4).is_some_and(|s| s.eq_ignore_ascii_case("sub-"))
        && let Some((subject, _)) = name.split_once('_')
    {
        return Some(subject);
    }
    by_word(name).or_else(|| by_time_point(name))
}

/// `P01_visit2`, `100001_time1`, `PatientID_0003_Timepoint_1`, `Patient-001_week-000`, `sub01-ses-a`.
fn by_word(name: &str) -> Option<&str> {
    let lower = name.to_ascii_lowercase();
    let starts = lower.match_indices(['_', '-']).map(|(i, _)| i).filter(|i| *i > 0);
    for at in starts {
        let rest = &lower[at + 1..];
        for word in WORDS {
            let Some(number) = rest.strip_prefix(word) else { continue };
            let bare = number.trim_start_matches(['_', '-']);
            let session = word == "ses" && number.starts_with('-') && !bare.is_empty();
            if session || bare.starts_with(|c: char| c.is_ascii_digit()) {
                return name.get(..at);
            }
        }
        // OASIS: OAS1_0001_MR1.
        if lower.starts_with("oas")
            && rest
                .strip_prefix("mr")
                .is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit() || c == '_'))
        {
            return name.get(..at);
        }
    }
    None
}

/// A case number and a time point of three digits: `BraTS-GLI-00005-000`.
fn by_time_point(name: &str) -> Option<&str> {
    let (case, point) = name.rsplit_once('-')?;
    let digits = case.len() - case.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let three = point.len() == 3 && point.bytes().all(|b| b.is_ascii_digit());
    (three && digits >= 3).then_some(case)
}

/// Two numbers of which the last may be a visit, or the patient of a hospital: `training01_02`.
fn ambiguous(name: &str) -> Option<&str> {
    let (stem, last) = name.rsplit_once(['_', '-'])?;
    let numbered = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    (numbered && stem.ends_with(|c: char| c.is_ascii_digit())).then_some(stem)
}

/// Gives the visits of a patient the same subject, where their names say it, and says so.
pub fn group(manifest: &mut Manifest) {
    let named = |e: &Entry| patient(&e.subject).unwrap_or(&e.subject).to_string();
    let mut patients: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut unsure: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for e in &manifest.entries {
        let list = patients.entry(named(e)).or_default();
        if !list.contains(&e.subject) {
            list.push(e.subject.clone());
        }
        if let (None, Some(stem)) = (patient(&e.subject), ambiguous(&e.subject)) {
            let list = unsure.entry(stem.to_string()).or_default();
            if !list.contains(&e.subject) {
                list.push(e.subject.clone());
            }
        }
    }
    let several = |(_, list): &(&String, &Vec<String>)| list.len() > 1;
    for (patient, list) in patients.iter().filter(several) {
        manifest.notes.about(
            "by their names these are visits of one patient and stay in one split (data.visits_in_names = false if they are different people)",
            format!("{patient} ({})", list.join(", ")),
        );
    }
    for (_, list) in unsure.iter().filter(several) {
        manifest.notes.about(
            "counted as different patients, though their names could be visits of one (if they are, list them in a manifest with the columns subject and session)",
            list.join(" and "),
        );
    }
    for e in &mut manifest.entries {
        let patient = named(e);
        if patients.get(&patient).is_some_and(|list| list.len() > 1) {
            e.subject = patient;
        }
    }
}

/// Refuses a patient of whom one visit is in one split and one in another.
pub fn check(manifest: &Manifest) -> Result<()> {
    let mut first: BTreeMap<&str, &Entry> = BTreeMap::new();
    for e in &manifest.entries {
        let other = *first.entry(&e.subject).or_insert(e);
        if other.split != e.split {
            return Err(Error::input(format!(
                "{}: by their names {} (in {}) and {} (in {}) are visits of one patient, {}; put them into one split, or set `data.visits_in_names = false` if they are different people",
                manifest.source,
                other.id,
                other.split.name(),
                e.id,
                e.split.name(),
                e.subject
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_are_told_from_patients() {
        for (name, of) in [
            ("sub-01_ses-1", "sub-01"),
            ("sub-01_run-2", "sub-01"),
            ("BraTS-GLI-00005-000", "BraTS-GLI-00005"),
            ("BraTS-MET-00005-001", "BraTS-MET-00005"),
            ("MS-0012-101", "MS-0012"),
            ("P01_ses-baseline", "P01"),
            ("P01_visit2", "P01"),
            ("100001_time1", "100001"),
            ("PatientID_0003_Timepoint_1", "PatientID_0003"),
            ("Patient-001_week-000", "Patient-001"),
            ("OAS1_0001_MR2", "OAS1_0001"),
        ] {
            assert_eq!(patient(name), Some(of), "{name}");
        }
        // Channel suffixes, case numbers, sites and modalities are no visits.
        for name in [
            "sub-01",
            "case_0001",
            "case_0001_0000",
            "BraTS20_Training_001",
            "IXI002-Guys-0828",
            "s000",
            "site-01-001",
            "TCGA-02-0006",
            "liver_12",
            "p_timothy",
            "assessed-1",
            "amos_0004",
            "é-1",
            "",
        ] {
            assert_eq!(patient(name), None, "{name}");
        }
    }
}
