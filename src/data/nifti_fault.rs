//! What reading a compressed file can meet, as sentences about the file.

use crate::error::Error;
use std::path::Path;
use std::{fmt, io};

/// An error in the middle of a stream as a sentence about its file.
pub(super) fn failed(file: &Path, e: io::Error) -> Error {
    let p = file.display();
    if let Some(Behind(bytes)) = e.get_ref().and_then(|inner| inner.downcast_ref::<Behind>()) {
        return Error::input(format!(
            "{p} has {bytes} bytes behind the compressed data that are not gzip's, so it is not the file that was written; fetch it again, or keep what unpacks: gzip -dc {p} > image.nii"
        ));
    }
    match e.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::input(format!("{p} is truncated or damaged ({e}); fetch or compress it again"))
        }
        _ => Error::io("read", file)(e),
    }
}

/// Bytes behind a file's last member that are neither zeros nor a member.
#[derive(Debug)]
pub(super) struct Behind(pub(super) u64);

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} bytes behind the compressed data", self.0)
    }
}

impl std::error::Error for Behind {}
