//! Runs the program on a stand-in for the driver, and reads the log of what it asked of it.

use crate::common::{self, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Folders with the stand-ins as libraries: a driver (and NVTX beside it), one from before memory pools, a run-time
/// compiler, CUPTI.
pub struct Libraries {
    pub driver: PathBuf,
    pub old_driver: PathBuf,
    pub compiler: PathBuf,
    pub cupti: PathBuf,
}

/// Builds them once; `None` where there is no C compiler (an error in CI).
pub fn libraries() -> Option<&'static Libraries> {
    static BUILT: OnceLock<Option<Libraries>> = OnceLock::new();
    BUILT.get_or_init(build).as_ref()
}

fn build() -> Option<Libraries> {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("standin-{}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda");
    let library = |folder: &str, file: &str, names: &[&str], more: &[&str]| -> Option<PathBuf> {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let out = Command::new("cc")
            .args(["-std=gnu11", "-O1", "-shared", "-fPIC"])
            .args(more)
            .arg(source.join(file))
            .arg("-o")
            .arg(folder.join(names[0]))
            .output();
        match out {
            Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr)),
            Err(e) => {
                common::not_checked(&format!("no C compiler ({e})"));
                return None;
            }
        }
        // One library by all of its names: loaded once, by whichever it is asked for.
        for name in &names[1..] {
            std::os::unix::fs::symlink(names[0], folder.join(name)).expect("a link");
        }
        Some(folder)
    };
    library("driver", "nvtx.c", &["libnvtx3interop.so.1"], &[])?;
    // By both names under which a driver is asked for: the first one wins over a real driver's.
    let names = ["libcuda.so", "libcuda.so.1"];
    Some(Libraries {
        driver: library("driver", "driver.c", &names, &[])?,
        old_driver: library("old", "driver.c", &names, &["-DOLD"])?,
        compiler: library("compiler", "nvrtc.c", &["libnvrtc.so.13"], &[])?,
        cupti: library("cupti", "cupti.c", &["libcupti.so.13"], &["-ldl"])?,
    })
}

/// A program of its own, built from a source beside these; `None` where there is no C compiler.
pub fn program(file: &str) -> Option<PathBuf> {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("standin-{}", std::process::id()))
        .join(format!("{file}-{number}"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda").join(file);
    let built =
        Command::new("cc").args(["-std=gnu11", "-O1"]).arg(source).arg("-o").arg(&out).output().ok()?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(out)
}

/// A working directory with the tiny recipe, and how the stand-ins behave there.
pub struct Bench {
    pub dir: tempfile::TempDir,
    libraries: &'static Libraries,
    settings: Vec<(&'static str, String)>,
}

impl Bench {
    /// A device like any other; `None` where it can't be built.
    pub fn new() -> Option<Self> {
        let libraries = libraries()?;
        let settings = vec![
            ("LD_LIBRARY_PATH", libraries.driver.display().to_string()),
            ("GAN_NVRTC", libraries.compiler.display().to_string()),
        ];
        Some(Bench { dir: common::workshop(), libraries, settings })
    }

    pub fn libraries(&self) -> &'static Libraries {
        self.libraries
    }

    /// Sets a variable for all that follows.
    pub fn set(&mut self, name: &'static str, value: impl ToString) -> &mut Self {
        self.settings.retain(|(n, _)| *n != name);
        self.settings.push((name, value.to_string()));
        self
    }

    /// Runs the program; its log begins anew.
    pub fn run(&self, args: &[&str]) -> Outcome {
        let _ = std::fs::remove_file(self.log_path());
        let mut command = common::command(self.dir.path(), args);
        for name in ["VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES"] {
            command.env_remove(name);
        }
        command.env("STANDIN_LOG", self.log_path()).env("GAN_CACHE_DIR", self.dir.path().join("cache"));
        command.envs(self.settings.iter().map(|(n, v)| (n, v)));
        common::finish(command)
    }

    /// Trains the tiny recipe on the device.
    pub fn train(&self, more: &[&str]) -> Outcome {
        self.train_in("run", more)
    }

    /// Trains it in a folder of another name.
    pub fn train_in(&self, out: &str, more: &[&str]) -> Outcome {
        let mut args = vec!["train", "r.toml", "--out", out, "--device", "cuda"];
        args.extend(more);
        self.run(&args)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("calls.log")
    }

    /// What was asked of the driver.
    pub fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        text.lines().map(str::to_string).collect()
    }
}
