//! Tests of `gan::data` against real and made-up files.

#![allow(missing_docs)]

mod loader;
mod manifest;
mod nifti_files;
mod nifti_written;
mod phantom;
mod volumes;

use std::path::PathBuf;

/// The folder of test images (`GAN_TEST_DATA`, or `../shared/data` beside the crate). Where there is none the caller's
/// test passes with a notice, except in CI, where it fails.
pub fn test_data() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folder = std::env::var_os("GAN_TEST_DATA").map_or(beside, PathBuf::from);
    if folder.join("expected.tsv").is_file() {
        return Some(folder);
    }
    let ci = std::env::var("CI").is_ok_and(|v| v == "true");
    assert!(!ci, "no test data in {}; set GAN_TEST_DATA", folder.display());
    eprintln!("skipped: no test data in {}; set GAN_TEST_DATA", folder.display());
    None
}

/// The message of an error; a panic if there is none.
pub fn message<T>(r: gan::error::Result<T>) -> String {
    match r {
        Ok(_) => panic!("this should have been refused"),
        Err(e) => e.to_string(),
    }
}
