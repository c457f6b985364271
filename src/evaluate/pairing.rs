//! Which files of two folders belong together: by their names, and by the names that `gan predict` makes.

use crate::data::names::{self, Kind};
use crate::error::{Error, Result};
use crate::fsio;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What `gan predict` puts between an input's name and the target's.
const MADE: &str = "_desc-synth_";
/// How masks and label maps are named beside their images.
const SEGMENTED: [&str; 10] =
    ["seg", "segmentation", "dseg", "mask", "label", "labels", "lesion", "roi", "gt", "truth"];
/// Formats that are not read, but could be meant.
const OTHER_FORMATS: [&str; 8] = ["mgz", "mgh", "mnc", "dcm", "bz2", "xz", "zst", "zip"];

/// One case's files.
pub(super) struct Case {
    /// The prediction's name without the extension.
    pub name: OsString,
    pub output: PathBuf,
    pub truth: PathBuf,
    pub mask: Option<PathBuf>,
}

/// Cases, and what must be said of what was matched otherwise or not at all.
pub(super) struct Pairing {
    pub cases: Vec<Case>,
    pub notes: Vec<String>,
    pub json: Value,
}

/// The images of a folder by name without extension.
type Images = BTreeMap<OsString, PathBuf>;

/// Finds each prediction's reference and mask.
pub(super) fn pair(predictions: &Path, references: &Path, masks: Option<&Path>) -> Result<Pairing> {
    let mut notes = Vec::new();
    let outputs = images(predictions, &mut notes)?;
    let truths = images(references, &mut notes)?;
    let masks = masks.map(|dir| Ok::<_, Error>((dir, images(dir, &mut notes)?))).transpose()?;
    let (mut cases, mut by_case, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    let mut taken: BTreeMap<&OsString, &OsString> = BTreeMap::new();
    for (name, output) in &outputs {
        let Some((own, truth)) = counterpart(name, &truths, references)? else {
            alone.push(fsio::text(name));
            continue;
        };
        if let Some(other) = taken.insert(own, name) {
            return Err(Error::input(format!(
                "{} holds two predictions of {}, {} and {}; keep one of them there",
                predictions.display(),
                truth.display(),
                fsio::text(other),
                fsio::text(name)
            )));
        }
        if own != name {
            by_case.push([fsio::text(name), fsio::text(own)]);
        }
        let mask = match &masks {
            None => None,
            Some((dir, masks)) => {
                let found = match masks.get(name).or_else(|| masks.get(own)) {
                    Some(mask) => Some(mask),
                    None => counterpart(name, masks, dir)?.map(|(_, mask)| mask),
                };
                Some(found.ok_or_else(|| lacking(name, dir))?.clone())
            }
        };
        cases.push(Case { name: name.clone(), output: output.clone(), truth: truth.clone(), mask });
    }
    if cases.is_empty() {
        let first = outputs.keys().next().map(OsString::as_os_str).unwrap_or_default();
        return Err(lacking(first, references));
    }
    let unused: Vec<String> = truths.keys().filter(|n| !taken.contains_key(n)).map(fsio::text).collect();
    if !by_case.is_empty() {
        let pairs: Vec<String> = by_case.iter().map(|[a, b]| format!("{a} with {b}")).collect();
        notes.push(format!("matched by case, as the names differ: {}", list(&pairs)));
    }
    for (files, what) in
        [(&alone, "predictions have no reference"), (&unused, "references have no prediction")]
    {
        if !files.is_empty() {
            notes.push(format!("{} {what} and are left out: {}", files.len(), list(files)));
        }
    }
    let json = json!({
        "matched_by_case": by_case, "predictions_without_reference": alone, "references_without_prediction": unused,
    });
    Ok(Pairing { cases, notes, json })
}

fn lacking(name: &OsStr, dir: &Path) -> Error {
    Error::input(format!(
        "{} has no counterpart in {}; give both the same file name",
        fsio::text(name),
        dir.display()
    ))
}

/// The first few of many names.
pub(super) fn list<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(S::as_ref).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Images of a folder by name, a pair of files once.
fn images(dir: &Path, notes: &mut Vec<String>) -> Result<Images> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("read the folder", dir))?;
    let (mut found, mut folders, mut others) = (Images::new(), 0, Vec::new());
    let mut paths: Vec<PathBuf> =
        entries.map(|e| Ok(e.map_err(Error::io("read the folder", dir))?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths.into_iter().filter(|p| !p.file_name().is_some_and(names::foreign)) {
        if path.is_dir() {
            folders += 1;
            continue;
        }
        let Some(name) = names::image(&path) else {
            let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            if extension.is_some_and(|e| OTHER_FORMATS.contains(&e.as_str())) {
                others.push(path.file_name().map(fsio::text).unwrap_or_default());
            }
            continue;
        };
        if name.kind == Kind::Img && names::other_half(&path).is_some_and(|hdr| hdr.is_file()) {
            continue;
        }
        if let Some(twin) = found.insert(name.stem, path.clone()) {
            let short = |p: &Path| p.file_name().map(fsio::text).unwrap_or_default();
            return Err(Error::input(format!(
                "{} holds two files of one case, {} and {}; keep one of them there",
                dir.display(),
                short(&twin),
                short(&path)
            )));
        }
    }
    if found.is_empty() {
        let deeper = if folders > 0 { " (its subfolders are not searched)" } else { "" };
        return Err(Error::input(format!(
            "{} holds no .nii, .nii.gz or .hdr file{deeper}; name a folder of images",
            dir.display()
        )));
    }
    if !others.is_empty() {
        notes.push(format!(
            "{} holds images of formats that are not read, which are left out (convert them to .nii.gz): {}",
            dir.display(),
            list(&others)
        ));
    }
    if folders > 0 {
        notes.push(format!("{} has {folders} subfolders, which are not searched", dir.display()));
    }
    Ok(found)
}

/// The file that belongs to a prediction: of the same name, or of the case that a name of `gan predict`'s tells.
fn counterpart<'a>(
    name: &OsStr,
    files: &'a Images,
    dir: &Path,
) -> Result<Option<(&'a OsString, &'a PathBuf)>> {
    if let Some(same) = files.get_key_value(name) {
        return Ok(Some(same));
    }
    let Some((input, target)) = name.to_str().and_then(|n| n.split_once(MADE)) else { return Ok(None) };
    let mut tried = vec![input.to_string(), format!("{input}_{target}")];
    let case = case_of(input);
    tried.extend(case.map(str::to_string));
    tried.extend(case.map(|c| format!("{c}_{target}")));
    if let Some(found) = tried.iter().find_map(|t| files.get_key_value(OsStr::new(t))) {
        return Ok(Some(found));
    }
    let fits: Vec<_> = files.iter().filter(|(file, _)| belongs(file, input, target)).collect();
    match fits[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(Error::input(format!(
            "{} may belong to {} of {}; give both the same file name",
            fsio::text(name),
            list(&fits.iter().map(|(f, _)| fsio::text(f)).collect::<Vec<_>>()),
            dir.display()
        ))),
    }
}

/// An input's name without its modality: `s005` of `s005_t1`, and of nnU-Net's `s005_0000`. What may be a number of the
/// case itself is kept, and so are BIDS names, from which `gan predict` has taken the modality already.
fn case_of(input: &str) -> Option<&str> {
    let (case, last) = input.rsplit_once('_')?;
    let channel = last.len() == 4 && last.starts_with("000") && last.bytes().all(|b| b.is_ascii_digit());
    let modality = last.starts_with(|c: char| c.is_ascii_alphabetic());
    (!input.starts_with("sub-") && (channel || modality)).then_some(case)
}

/// Whether a reference is of an input's case: a BIDS name with all entities of the input's, or the case with a word for
/// label maps behind it; of the target, or a label map.
fn belongs(file: &OsStr, input: &str, target: &str) -> bool {
    let Some((entities, suffix)) = file.to_str().and_then(|f| f.rsplit_once('_')) else { return false };
    let right =
        suffix.eq_ignore_ascii_case(target) || SEGMENTED.iter().any(|s| suffix.eq_ignore_ascii_case(s));
    if input.starts_with("sub-") {
        let has = |e: &str| entities.split('_').any(|own| own == e);
        return right && input.split('_').all(has);
    }
    right && (entities == input || case_of(input) == Some(entities))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, files: &[&str]) -> Option<String> {
        let images: Images = files.iter().map(|f| (f.into(), PathBuf::from(f))).collect();
        let found = counterpart(OsStr::new(name), &images, Path::new("truth"));
        found.unwrap_or_else(|e| panic!("{e}")).map(|(n, _)| n.to_str().unwrap().to_string())
    }

    #[test]
    fn predictions_find_the_references_of_their_case() {
        for (name, files, want) in [
            ("a", &["a", "b"][..], Some("a")),
            ("sub-01_desc-synth_pet", &["sub-01_pet", "sub-02_pet"], Some("sub-01_pet")),
            (
                "sub-01_ses-2_desc-synth_pet",
                &["sub-01_ses-1_pet", "sub-01_ses-2_trc-FDG_pet"],
                Some("sub-01_ses-2_trc-FDG_pet"),
            ),
            ("sub-01_desc-synth_tumour", &["sub-01_space-T1w_dseg"], Some("sub-01_space-T1w_dseg")),
            ("s005_t1_desc-synth_tumour", &["s004_seg", "s005_seg"], Some("s005_seg")),
            ("s005_t1_desc-synth_pet", &["s005_pet", "s005_seg"], Some("s005_pet")),
            ("BRATS_001_0000_desc-synth_label", &["BRATS_001", "BRATS_002"], Some("BRATS_001")),
            ("brain_desc-synth_t2", &["brain"], Some("brain")),
            // Numbers of cases and sessions are not taken for modalities.
            ("case_01_desc-synth_pet", &["case_02", "case_02_pet", "case_pet", "case"], None),
            ("sub-01_ses-1_desc-synth_pet", &["sub-01_ses-2_pet", "sub-01"], None),
            ("sub-1_desc-synth_pet", &["sub-10_pet"], None),
            ("case_a_desc-synth_pet", &["case_b", "case_b_pet"], None),
        ] {
            assert_eq!(found(name, files), want.map(str::to_string), "{name}");
        }
    }

    #[test]
    fn what_may_belong_to_two_is_refused() {
        let images: Images =
            ["sub-01_run-1_pet", "sub-01_run-2_pet"].iter().map(|f| (f.into(), PathBuf::from(f))).collect();
        let e = counterpart(OsStr::new("sub-01_desc-synth_pet"), &images, Path::new("truth")).unwrap_err();
        assert!(e.to_string().contains("sub-01_run-1_pet, sub-01_run-2_pet of truth"), "{e}");
    }
}
