//! File names of images: NIfTI's and other formats' extensions in any case, the two files of a pair, and what other systems leave in folders.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What an image file's extension says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `.nii`: header and voxels.
    Nii,
    /// `.hdr`: the header of a pair.
    Hdr,
    /// `.img`: the voxels of a pair.
    Img,
    /// An image of another format ([`super::formats`]).
    Other,
}

/// A file name that ends as those of NIfTI images do, in any case, with `.gz` or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The name without the extension. Not necessarily UTF-8.
    pub stem: OsString,
    /// Which file it is.
    pub kind: Kind,
    /// Whether `.gz` follows.
    pub gz: bool,
}

/// Extensions of images that are no NIfTI.
const OTHERS: [&str; 9] = ["png", "jpg", "jpeg", "tif", "tiff", "nrrd", "nhdr", "mha", "mhd"];

/// Takes a file name apart; `None` if it is no image's.
pub fn image(path: &Path) -> Option<ImageName> {
    let is = |p: &Path, e: &str| p.extension().is_some_and(|x| x.eq_ignore_ascii_case(e));
    let name = Path::new(path.file_name()?);
    let gz = is(name, "gz");
    let inner = if gz { Path::new(name.file_stem()?) } else { name };
    let kinds = [("nii", Kind::Nii), ("hdr", Kind::Hdr), ("img", Kind::Img)];
    let other = || OTHERS.iter().any(|e| is(inner, e)).then_some(Kind::Other).filter(|_| !gz);
    let kind = kinds.iter().find(|(e, _)| is(inner, e)).map(|(_, kind)| *kind).or_else(other)?;
    Some(ImageName { stem: inner.file_stem()?.to_os_string(), kind, gz })
}

/// Whether a file is not a user's: hidden (`.DS_Store`, the `._x.nii.gz` that macOS puts beside `x.nii.gz`, our own
/// temporary files), or Windows' `Thumbs.db` and `desktop.ini`.
pub fn foreign(name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().first() == Some(&b'.');
    hidden || ["thumbs.db", "desktop.ini"].iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// The other file of a `.hdr`/`.img` pair: the one that is there, whatever the case of its extension; else the name that
/// it should have. `None` if the name is not a pair's.
pub fn other_half(path: &Path) -> Option<PathBuf> {
    let name = image(path)?;
    let (wanted, lower, upper) = match name.kind {
        Kind::Nii | Kind::Other => return None,
        Kind::Hdr => (Kind::Img, "img", "IMG"),
        Kind::Img => (Kind::Hdr, "hdr", "HDR"),
    };
    let own = path.file_name()?;
    let shouts = own.as_encoded_bytes().iter().rev().find(|b| b.is_ascii_alphabetic())?.is_ascii_uppercase();
    let with = |extension: &str| {
        let mut file = name.stem.clone();
        file.push(".");
        file.push(extension);
        path.with_file_name(file)
    };
    let tail = |e: &str, gz: &str| if name.gz { format!("{e}.{gz}") } else { e.to_string() };
    let likely = if shouts { with(&tail(upper, "GZ")) } else { with(&tail(lower, "gz")) };
    if likely.is_file() {
        return Some(likely);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fits = |other: &ImageName, exact: bool| {
        let same = if exact { other.stem == name.stem } else { other.stem.eq_ignore_ascii_case(&name.stem) };
        other.kind == wanted && other.gz == name.gz && same
    };
    let mut files: Vec<OsString> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    files.sort();
    let find =
        |exact: bool| files.iter().find(|f| image(Path::new(f)).is_some_and(|other| fits(&other, exact)));
    let found = find(true).or_else(|| find(false)).map(|f| path.with_file_name(f));
    Some(found.filter(|f| f.is_file()).unwrap_or(likely))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_count_in_any_case() {
        let parts = |n: &str| image(Path::new(n)).map(|i| (i.stem.into_string().unwrap(), i.kind, i.gz));
        assert_eq!(parts("x/case.01.NII.GZ"), Some(("case.01".into(), Kind::Nii, true)));
        assert_eq!(parts("B.Nii"), Some(("B".into(), Kind::Nii, false)));
        assert_eq!(parts("a.hdr.gz"), Some(("a".into(), Kind::Hdr, true)));
        assert_eq!(parts("a.IMG"), Some(("a".into(), Kind::Img, false)));
        assert_eq!(
            (parts("a.gz"), parts("nii.gz"), parts("a.nii.txt"), parts(".nii")),
            (None, None, None, None)
        );
    }

    #[test]
    fn what_other_systems_leave_behind_is_no_image() {
        for name in [".DS_Store", "._sub-01.nii.gz", "Thumbs.db", "desktop.ini", ".12.tmp.a.nii"] {
            assert!(foreign(OsStr::new(name)), "{name}");
        }
        assert!(!foreign(OsStr::new("a.nii")));
    }

    #[test]
    fn the_other_half_is_found_however_it_is_spelled() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        for name in ["a.hdr", "A2.HDR", "b.hdr", "B.IMG", "c.hdr.gz", "c.IMG.gz"] {
            std::fs::write(at(name), "").unwrap();
        }
        assert_eq!(other_half(&at("b.hdr")), Some(at("B.IMG")));
        assert_eq!(other_half(&at("c.hdr.gz")), Some(at("c.IMG.gz")));
        assert_eq!(other_half(&at("c.IMG.gz")), Some(at("c.hdr.gz")));
        // What is not there gets the name that it should have.
        assert_eq!(other_half(&at("a.hdr")), Some(at("a.img")));
        assert_eq!(other_half(&at("A2.HDR")), Some(at("A2.IMG")));
        assert_eq!(other_half(&at("a.nii")), None);
    }
}
