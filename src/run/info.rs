//! What `run.json` says of a run: with what, on what and when it was trained.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

/// What `run.json` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunInfo {
    /// Version of the program.
    pub version: String,
    /// The commit of its source, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The command line that (last) started it.
    pub command: String,
    /// The device.
    pub device: String,
    /// The processor, the memory, and the GPU where one is used.
    #[serde(default)]
    pub hardware: String,
    /// Threads of the CPU device.
    pub threads: usize,
    /// Parameters per network.
    pub parameters: HashMap<String, usize>,
    /// Bytes of memory that a step needs: temporaries, and parameters with moments.
    pub memory_bytes: [usize; 2],
    /// FLOPs of a step.
    pub flops_per_step: u64,
    /// Fingerprint of the table of kernel variants that it takes (`choices.json`), where it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<String>,
    /// When it was first started (UTC).
    #[serde(default)]
    pub started: String,
    /// When it last wrote this (UTC).
    #[serde(default)]
    pub updated: String,
    /// Seconds of training, over all starts, up to then.
    #[serde(default)]
    pub seconds: f64,
    /// Whether it reached its last step.
    pub finished: bool,
    /// What was dropped, guessed, dealt or replaced in the data ([`crate::data::notes`]), over all starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What went wrong and was survived.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incidents: Vec<String>,
}

/// The time as `2026-03-01T12:00:00Z`.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The commit that this program was built from: what `GAN_COMMIT` said when it was compiled; else, for those who work in
/// a clone of the repository, the state of that clone now, with `-dirty` where files were changed since.
pub fn commit() -> Option<String> {
    if let Some(commit) = option_env!("GAN_COMMIT") {
        return Some(commit.to_string());
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = std::env::current_exe().is_ok_and(|exe| exe.starts_with(source));
    if !ours {
        return None;
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(source).args(["describe", "--always", "--dirty", "--abbrev=12"]);
    let said = git.output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(said.stdout).ok()?;
    Some(text.trim().to_string()).filter(|t| !t.is_empty())
}

/// The processor and the memory of this computer, as far as the system tells.
pub fn processor() -> String {
    let field = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|l| l.starts_with(key))?.split_once(':')?.1.trim().to_string();
        Some(line)
    };
    let name = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_string());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field("/proc/meminfo", "MemTotal")
        .and_then(|t| t.trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(String::new(), |kib| format!(", {} GiB of memory", kib.div_ceil(1 << 20)));
    format!("{name}, {cores} threads{memory}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_and_machines_are_told() {
        let now = super::now();
        assert!(now.len() == 20 && now.ends_with('Z') && now.as_bytes()[10] == b'T', "{now}");
        assert!(super::processor().contains(" threads"));
    }
}
