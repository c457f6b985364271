//! What can go wrong because of something outside the program.
//!
//! A message is one clear sentence that names the file or key and the way out. A broken invariant of our own
//! is a panic, not an [`Error`].

use std::path::{Path, PathBuf};

/// Shorthand used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that a user can cause, and mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something about the input: a file's content, a recipe's value, a shape.
    #[error("{0}")]
    Input(String),
    /// The command line itself is wrong (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried: "read", "write", "create the folder".
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The user asked to stop (Ctrl-C; exit code 130).
    #[error("stopped on request")]
    Interrupted,
}

impl Error {
    /// An [`Error::Input`] from anything printable.
    pub fn input(message: impl Into<String>) -> Self {
        Error::Input(message.into())
    }

    /// An [`Error::Usage`] from anything printable.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage(message.into())
    }

    /// Turns an [`std::io::Error`] into one that names the file: `fs::read(p).map_err(Error::io("read", p))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// The process's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Interrupted => 130,
            _ => 1,
        }
    }
}

/// The way out, for the refusals that have an obvious one.
fn hint(e: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::*;
    match e.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            "; free some space there (then --resume continues a run), or choose another folder with --out"
        }
        PermissionDenied | ReadOnlyFilesystem => {
            "; choose a folder that you may write to, or change its permissions"
        }
        NotFound | NotADirectory => "; check the path",
        InvalidData => "; it is no text file, or damaged",
        _ => "",
    }
}
