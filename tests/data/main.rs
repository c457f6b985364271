//! Tests of `gan::data` against real and made-up files.

#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod formats;
mod loader;
mod manifest;
mod nifti_files;
mod nifti_said;
mod nifti_written;
mod phantom;
mod volumes;

use std::path::PathBuf;

/// The folder of test images: `GAN_TEST_DATA`, which must then hold them, or `../shared/data` beside the crate. Where
/// there is none the caller's test passes with a notice.
pub fn test_data() -> Option<PathBuf> {
    let named = std::env::var_os("GAN_TEST_DATA").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folder = named.clone().unwrap_or_else(beside);
    if folder.join("expected.tsv").is_file() {
        return Some(folder);
    }
    assert!(named.is_none(), "no test data in {}; correct GAN_TEST_DATA", folder.display());
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
