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
    #[error("cannot {action} {}: {source}{}", path.display(), hint(source, path))]
    Io {
        /// What was tried: "read", "write", "create the folder".
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was planned does not fit into memory.
    #[error("{}", out_of_memory(of, *needed, *free, *fits))]
    Memory {
        /// Whose memory: "memory", "the device's memory".
        of: &'static str,
        /// Bytes that the plan needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// The largest batch that would fit, where it is known.
        fits: Option<usize>,
    },
    /// The device failed in the middle of the work.
    #[error("{0}; the device is lost to this process (nvidia-smi and the system's log may say why)")]
    Device(String),
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

    /// That a file or folder is not there, or that it is a link to one that is not.
    pub fn missing(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let way_out = dangling(path).unwrap_or_else(|| "; check the path".into());
        Error::Input(format!("{} does not exist{way_out}", path.display()))
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

fn out_of_memory(of: &str, needed: u64, free: u64, fits: Option<usize>) -> String {
    // Two numbers that are told to differ must look different.
    let unit = if needed < 10 << 30 { (1u64 << 20, "MiB") } else { (1 << 30, "GiB") };
    let amount = |bytes: u64| format!("{:.1} {}", bytes as f64 / unit.0 as f64, unit.1);
    let way_out = match fits {
        None => "lower `train.batch`, `data.canvas` or the networks' sizes".to_string(),
        Some(0) => {
            "not even one image at a time would fit: lower `data.canvas` or the networks' sizes".into()
        }
        Some(n) => format!("`train.batch = {n}` would fit; or lower `data.canvas` or the networks' sizes"),
    };
    format!("this needs {} of {of}, but {} are free; {way_out}", amount(needed), amount(free))
}

/// The way out, for the refusals that have an obvious one.
fn hint(e: &std::io::Error, path: &Path) -> String {
    use std::io::ErrorKind::*;
    let text = match e.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            "; free some space there (then --resume continues a run), or choose another folder with --out"
        }
        PermissionDenied | ReadOnlyFilesystem => {
            "; choose a folder that you may write to, or change its permissions"
        }
        NotFound | NotADirectory => match dangling(path) {
            Some(link) => return link,
            None if path.is_relative() => {
                "; check the path (it starts at the folder that the command is run in)"
            }
            None => "; check the path",
        },
        InvalidData => "; it is no text file, or damaged",
        _ => "",
    };
    text.into()
}

/// What to say of a link that leads nowhere, as those of git-annex and DataLad do until the data are fetched.
fn dangling(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok().filter(|_| !path.exists())?;
    Some(format!(
        "; it is a link to {}, which is not there: fetch the data (datalad get, git annex get) or correct the link",
        target.display()
    ))
}
