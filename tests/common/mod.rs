//! What the tests of the program have in common: running it, a tiny recipe, files to feed it.

#![allow(dead_code, missing_docs)]

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A recipe that trains within a second. Its phantom lies in `ph` below the working directory.
pub const RECIPE: &str = r#"
name = "tiny"
[data]
phantom = { dir = "ph", subjects = 6, size = [24, 28, 24], spacing = 8.0 }
[model]
kind = "pix2pix"
generator = { kind = "unet", downs = 3, ngf = 4 }
discriminator = { kind = "patch", layers = 1, ndf = 4 }
[train]
batch = 2
steps = 48
[validate]
every_epochs = 1
[log]
every = 1
checkpoint_every = 3
samples = 1
"#;

/// An empty working directory with the recipe in `r.toml`.
pub fn workshop() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("r.toml"), RECIPE).expect("written");
    dir
}

/// How the program ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The program must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }
}

/// The program, to be run in `dir`. It sees no GPU, so that tests mean the CPU wherever they run, unless they say otherwise.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gan"));
    command.current_dir(dir).args(args).stdin(Stdio::null()).env("CUDA_VISIBLE_DEVICES", "");
    command
}

/// Runs a command to its end.
pub fn finish(mut command: Command) -> Outcome {
    let out = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Outcome { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
}

/// Runs the program in `dir`.
pub fn gan(dir: &Path, args: &[&str]) -> Outcome {
    finish(command(dir, args))
}

/// Starts the program in `dir`, silent.
pub fn start(dir: &Path, args: &[&str]) -> Child {
    command(dir, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

pub fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Every file and folder below `dir`, with the files' hashes.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            all.extend(tree(&path));
            all.insert(path, "folder".into());
        } else {
            let hash = sha256(&path);
            all.insert(path, hash);
        }
    }
    all
}

/// Names of temporary files below `dir`.
pub fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let temporary = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy();
        name.contains(".tmp") || name.contains(".partial")
    };
    tree(dir).into_keys().filter(temporary).collect()
}

/// SplitMix64: seeded, for moments.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// A NIfTI-1 file of float32, written without the program's own code. `shift` moves it along x, in mm.
pub fn nifti(dims: &[u16], shift: f32, value: impl Fn(usize) -> f32) -> Vec<u8> {
    let mut h = vec![0u8; 352];
    let mut put = |at: usize, bytes: &[u8]| h[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348i32.to_le_bytes());
    put(40, &(dims.len() as i16).to_le_bytes());
    for a in 0..7 {
        put(42 + 2 * a, &dims.get(a).copied().unwrap_or(1).to_le_bytes());
        put(80 + 4 * a, &2f32.to_le_bytes());
    }
    put(70, &16i16.to_le_bytes());
    put(72, &32i16.to_le_bytes());
    put(76, &1f32.to_le_bytes());
    put(108, &352f32.to_le_bytes());
    put(254, &1i16.to_le_bytes());
    for (r, origin) in [shift, 0.0, 0.0].into_iter().enumerate() {
        put(280 + 20 * r, &2f32.to_le_bytes());
        put(292 + 16 * r, &origin.to_le_bytes());
    }
    put(344, b"n+1\0");
    let count = dims.iter().map(|d| usize::from(*d)).product();
    h.extend((0..count).flat_map(|i| value(i).to_le_bytes()));
    h
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true")
}

/// Says that something can't be checked here; fails in CI.
pub fn not_checked(why: &str) {
    assert!(!in_ci(), "{why}");
    eprintln!("not checked: {why}");
}

/// The folder of test images: `GAN_TEST_DATA`, which must then hold them, or `../shared/data` beside the crate.
pub fn test_data() -> Option<PathBuf> {
    let named = std::env::var_os("GAN_TEST_DATA").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folder = named.clone().unwrap_or_else(beside);
    if !folder.join("expected.tsv").is_file() {
        assert!(named.is_none(), "no test data in {}; correct GAN_TEST_DATA", folder.display());
        eprintln!("not checked: no test data in {}; set GAN_TEST_DATA", folder.display());
        return None;
    }
    Some(folder.canonicalize().expect("there"))
}

/// A Python that has nibabel: `GAN_PYTHON`, or `python3`.
pub fn python() -> Option<String> {
    let python = std::env::var("GAN_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import nibabel, numpy"]).output();
    if !has.is_ok_and(|o| o.status.success()) {
        not_checked(&format!("{python} has no nibabel; install it or set GAN_PYTHON"));
        return None;
    }
    Some(python)
}
