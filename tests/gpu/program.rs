//! What is shown with the program itself: whole trainings beside the CPU's, interrupted, repeated, watched.

use crate::Outcome;
use crate::record::Record;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A recipe made small, so that the CPU trains it in seconds. `None` is the recipe written below.
struct Small {
    name: &'static str,
    file: Option<&'static str>,
    set: &'static [&'static str],
}

const TINY: &str = r#"
name = "tiny"
[data]
phantom = { dir = "phantom-tiny", subjects = 6, size = [48, 56, 48], spacing = 4.0 }
[model]
kind = "pix2pix"
generator = { kind = "unet", downs = 4, ngf = 16 }
discriminator = { kind = "patch", layers = 2, ndf = 16 }
[train]
batch = 4
[log]
samples = 1
"#;

const SMALL: [Small; 3] = [
    Small { name: "pix2pix", file: None, set: &[] },
    Small {
        name: "wgan-gp",
        file: Some("wgan-gp-mr.toml"),
        set: &["data.phantom.dir=\"phantom-wgan\"", "data.phantom.subjects=6", "train.batch=4"],
    },
    Small {
        name: "unet",
        file: Some("unet-tumour.toml"),
        set: &["data.phantom.dir=\"phantom-unet\"", "data.phantom.subjects=6", "train.batch=4"],
    },
];

/// Steps of a training that is compared: each loss of each of them.
const STEPS: &str = "20";

/// How far a loss may be from the CPU's within [`STEPS`] steps, relative to the largest of its kind. Rounding spreads: on
/// the CPU alone a learning rate that is larger by one part in a million moves the losses of these steps by up to 2.7e-4
/// (four seeds of the recipe below). This is some twenty times that.
const PARITY: f64 = 5e-3;

/// And in the first step, where nothing has spread yet.
const FIRST_STEP: f64 = 1e-4;

pub struct Program {
    pub(crate) gan: PathBuf,
    pub(crate) recipes: PathBuf,
    pub(crate) work: tempfile::TempDir,
}

impl Program {
    pub fn find() -> Result<Self, String> {
        let beside = || {
            let folder = std::env::current_exe().ok()?.parent()?.to_path_buf();
            [folder.join("gan"), folder.join("../gan")].into_iter().find(|p| p.is_file())
        };
        let built = PathBuf::from(env!("CARGO_BIN_EXE_gan"));
        let gan = std::env::var_os("GAN_BIN")
            .map(PathBuf::from)
            .or_else(|| built.is_file().then_some(built))
            .or_else(beside)
            .ok_or("the program `gan` is not beside this one; name it in GAN_BIN")?;
        let recipes = std::env::var_os("GAN_RECIPES").map_or_else(|| "recipes".into(), PathBuf::from);
        let absolute = |p: &Path| p.canonicalize().map_err(|e| format!("{}: {e}", p.display()));
        let work = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        std::fs::write(work.path().join("tiny.toml"), TINY).map_err(|e| e.to_string())?;
        let recipes =
            absolute(&recipes).map_err(|e| format!("{e}; name the folder of the recipes in GAN_RECIPES"))?;
        Ok(Program { gan: absolute(&gan)?, recipes, work })
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.gan);
        command.args(args).current_dir(self.work.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        finish(self.command(args), &args.join(" "))
    }

    /// Arguments that train a small recipe; `None` where the recipe is not there.
    fn train_args(&self, small: &Small, device: &str, out: &str, more: &[&str]) -> Option<Vec<String>> {
        let recipe = match small.file {
            None => self.work.path().join("tiny.toml"),
            Some(file) => self.recipes.join(file),
        };
        let mut args: Vec<String> = vec!["train".into(), recipe.display().to_string()];
        let fixed = ["validate.every_epochs=0", "log.every=1", "log.samples=0"];
        for set in fixed.iter().chain(small.set) {
            args.extend(["--set".into(), set.to_string()]);
        }
        args.extend(["--device", device, "--out", out, "--quiet"].map(String::from));
        args.extend(more.iter().map(ToString::to_string));
        recipe.is_file().then_some(args)
    }

    fn train(&self, small: &Small, device: &str, out: &str, more: &[&str]) -> Outcome {
        let args = self.train_args(small, device, out, more).ok_or("no such recipe")?;
        self.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn doctor(&self) -> Outcome {
        let out = self.run(&["doctor"])?;
        let verdict = out.lines().last().unwrap_or_default().to_string();
        if out.contains("agrees with the CPU") { Ok(verdict) } else { Err(out) }
    }

    /// The losses of trainings, step by step beside the CPU's.
    pub fn parity(&self, record: &mut Record) -> Outcome {
        let mut notes = Vec::new();
        for small in &SMALL {
            if self.train_args(small, "cpu", "", &[]).is_none() {
                notes.push(format!("{}: no such recipe here", small.name));
                continue;
            }
            let path = |device: &str| format!("parity-{}-{device}", small.name);
            for device in ["cpu", "cuda"] {
                self.train(small, device, &path(device), &["--steps", STEPS])?;
            }
            let losses = |device: &str| losses(&self.work.path().join(path(device)).join("metrics.csv"));
            let (cpu, gpu) = (losses("cpu")?, losses("cuda")?);
            let mut worst = [0.0f64; 2];
            for ((name, want), (_, got)) in cpu.iter().zip(&gpu) {
                if want.len() != got.len() || want.is_empty() {
                    return Err(format!("{}: {} and {} values of {name}", small.name, want.len(), got.len()));
                }
                let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
                for (step, (w, g)) in want.iter().zip(got).enumerate() {
                    let error = if g.is_finite() { (w - g).abs() / scale } else { f64::INFINITY };
                    worst[usize::from(step > 0)] = worst[usize::from(step > 0)].max(error);
                }
            }
            record.row("parity", json!({"recipe": small.name, "first step": format!("{:.1e}", worst[0]), "twenty steps": format!("{:.1e}", worst[1])}));
            if worst[0] > FIRST_STEP || worst[1] > PARITY {
                return Err(format!(
                    "{}: losses differ by {:.1e} in the first step, {:.1e} later",
                    small.name, worst[0], worst[1]
                ));
            }
            notes.push(format!("{}: {:.1e}, later {:.1e}", small.name, worst[0], worst[1]));
        }
        Ok(notes.join("; "))
    }

    fn state(&self, out: &str) -> Result<Vec<u8>, String> {
        let path = self.work.path().join(out).join("checkpoints/last_state.safetensors");
        std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn same(&self, a: &str, b: &str) -> Outcome {
        if self.state(a)? == self.state(b)? {
            Ok("the same bits".into())
        } else {
            Err(format!("{a} and {b} end differently"))
        }
    }

    /// A run that is killed and resumed ends like one that is not.
    pub fn resume(&self) -> Outcome {
        let small = &SMALL[0];
        let save = ["--steps", "24", "--set", "log.checkpoint_every=5"];
        self.train(small, "cuda", "whole", &save)?;
        let args = self.train_args(small, "cuda", "parts", &save).ok_or("no recipe")?;
        let mut child = self
            .command(&args.iter().map(String::as_str).collect::<Vec<_>>())
            .spawn()
            .map_err(|e| e.to_string())?;
        // As soon as there is a checkpoint.
        let checkpoint = self.work.path().join("parts/checkpoints/last_state.safetensors");
        while !checkpoint.exists() && child.try_wait().map_err(|e| e.to_string())?.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let _ = child.kill();
        child.wait().map_err(|e| e.to_string())?;
        self.train(small, "cuda", "parts", &[&save[..], &["--resume"]].concat())?;
        self.same("whole", "parts")
    }

    /// Two runs end with the same bits.
    pub fn determinism(&self) -> Outcome {
        let mut notes = Vec::new();
        for small in &SMALL {
            if self.train_args(small, "cuda", "", &[]).is_none() {
                continue;
            }
            let [a, b] = ["a", "b"].map(|n| format!("twice-{}-{n}", small.name));
            self.train(small, "cuda", &a, &["--steps", STEPS])?;
            self.train(small, "cuda", &b, &["--steps", STEPS])?;
            self.same(&a, &b)?;
            notes.push(small.name);
        }
        Ok(notes.join(", "))
    }

    /// compute-sanitizer's four tools over a short training.
    pub fn sanitizer(&self) -> Outcome {
        let home = std::env::var_os("CUDA_HOME").map(|h| PathBuf::from(h).join("bin/compute-sanitizer"));
        let tool = std::env::var_os("GAN_SANITIZER")
            .map(PathBuf::from)
            .or_else(|| home.filter(|p| p.is_file()))
            .unwrap_or_else(|| "compute-sanitizer".into());
        if Command::new(&tool).arg("--version").output().is_err() {
            return Err(format!(
                "{} is not there; install NVIDIA's compute-sanitizer and name it in GAN_SANITIZER",
                tool.display()
            ));
        }
        for check in ["memcheck", "racecheck", "initcheck", "synccheck"] {
            let out = format!("sanitized-{check}");
            let args = self.train_args(&SMALL[0], "cuda", &out, &["--steps", "2"]).ok_or("no recipe")?;
            let mut command = Command::new(&tool);
            command.args(["--tool", check, "--error-exitcode", "99"]).arg(&self.gan).args(args);
            command.current_dir(self.work.path());
            finish(command, &format!("compute-sanitizer --tool {check}"))?;
        }
        Ok("memcheck, racecheck, initcheck and synccheck are clean".into())
    }
}

pub(crate) fn finish(mut command: Command, what: &str) -> Outcome {
    let out = command.output().map_err(|e| format!("{what}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    if out.status.success() {
        return Ok(text(&out.stdout));
    }
    let all = [text(&out.stdout), text(&out.stderr)].join("\n");
    let end: Vec<&str> = all.lines().rev().take(30).collect();
    Err(format!("{what}: {}\n{}", out.status, end.into_iter().rev().collect::<Vec<_>>().join("\n")))
}

/// Columns `loss/..` of a run's metrics, by name.
fn losses(path: &Path) -> Result<Vec<(String, Vec<f64>)>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let rows: Vec<Vec<&str>> = lines.map(|l| l.split(',').collect()).collect();
    let column = |i: usize| rows.iter().filter_map(|r| r.get(i)?.parse::<f64>().ok()).collect();
    let all: Vec<(String, Vec<f64>)> = names
        .iter()
        .enumerate()
        .filter(|(_, n)| n.starts_with("loss/"))
        .map(|(i, n)| (n.to_string(), column(i)))
        .collect();
    if all.is_empty() { Err(format!("{} has no losses", path.display())) } else { Ok(all) }
}
