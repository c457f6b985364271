//! What is shown with the program itself: whole trainings beside the CPU's, interrupted, repeated, watched.

use crate::Outcome;
use crate::record::Record;
use gan::rng::Philox;
use gan::run::checkpoint::{Tensors, write};
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

/// How far a loss may be from the CPU's within [`STEPS`] steps: so many times as far as trainings on the CPU alone are from each
/// other that differ by the last bit of their first weights, the farthest of [`OTHERS`]. Rounding spreads, and how far depends on
/// the recipe: Adam divides a gradient by its own size, so a weight whose gradient is nothing but rounding moves by a whole step
/// (docs/reproducibility.md). Those trainings round otherwise once; a GPU does in every operation of every step.
const PARITY: f64 = 10.0;

/// Trainings that tell how far rounding spreads. It does by rare events, so that one of them would say little.
const OTHERS: u64 = 12;

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
        if out.contains("agree with the CPU's") { Ok(verdict) } else { Err(out) }
    }

    /// The losses of trainings, step by step beside the CPU's.
    pub fn parity(&self, record: &mut Record) -> Outcome {
        let mut notes = Vec::new();
        for small in &SMALL {
            if self.train_args(small, "cpu", "", &[]).is_none() {
                notes.push(format!("{}: no such recipe here", small.name));
                continue;
            }
            let name = |which: &str| format!("parity-{}-{which}", small.name);
            // All begin with the same weights, but for their last bits.
            self.train(small, "cpu", &name("start"), &["--steps", "1"])?;
            let weights = self.work.path().join(name("start")).join("checkpoints");
            let train = |device: &str, which: String, weights: &Path| -> Result<Losses, String> {
                let init = init(weights)?;
                self.train(small, device, &which, &["--steps", STEPS, "--set", &init])?;
                losses(&self.work.path().join(which).join("metrics.csv"))
            };
            let (cpu, gpu) = (train("cpu", name("cpu"), &weights)?, train("cuda", name("cuda"), &weights)?);
            let other = |k: u64| -> Result<f64, String> {
                let folder = self.work.path().join(name(&format!("weights-{k}")));
                nudge(&weights, &folder, k)?;
                let own = train("cpu", name(&format!("nudged-{k}")), &folder)?;
                Ok(distance(&cpu, &own)?[1])
            };
            let others = std::thread::scope(|scope| {
                let all: Vec<_> = (0..OTHERS).map(|k| scope.spawn(move || other(k))).collect();
                all.into_iter()
                    .map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into())))
                    .collect::<Result<Vec<f64>, String>>()
            })?;
            let spread = others.into_iter().fold(0.0, f64::max);
            let [first, later] = distance(&cpu, &gpu)?;
            record.row("parity", json!({"recipe": small.name, "first step": format!("{first:.1e}"), "twenty steps": format!("{later:.1e}"), "CPU, last bits of the first weights changed": format!("{spread:.1e}")}));
            let note = format!(
                "{}: {first:.1e} in the first step, later {later:.1e} (rounding on the CPU alone {spread:.1e})",
                small.name
            );
            if first > FIRST_STEP || later > PARITY * spread {
                return Err(format!("losses differ from the CPU's: {note}"));
            }
            notes.push(note);
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

/// The losses of a training, by name.
type Losses = Vec<(String, Vec<f64>)>;

/// How far losses are from those that are wanted, in the first step and in all later ones, relative to the largest of a kind.
fn distance(want: &Losses, got: &Losses) -> Result<[f64; 2], String> {
    let mut worst = [0.0f64; 2];
    for ((name, want), (_, got)) in want.iter().zip(got) {
        if want.len() != got.len() || want.is_empty() {
            return Err(format!("{} and {} values of {name}", want.len(), got.len()));
        }
        let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        for (step, (w, g)) in want.iter().zip(got).enumerate() {
            let error = if g.is_finite() { (w - g).abs() / scale } else { f64::INFINITY };
            worst[usize::from(step > 0)] = worst[usize::from(step > 0)].max(error);
        }
    }
    Ok(worst)
}

/// The weights' files of a run's last checkpoint, by network.
fn weights(folder: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut all: Vec<(String, PathBuf)> = entries
        .filter_map(|e| {
            let path = e.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let net = name.strip_prefix("last_net_")?.strip_suffix(".safetensors")?.to_string();
            Some((net, path))
        })
        .collect();
    all.sort();
    Ok(all)
}

/// The setting that lets a training begin with them.
fn init(folder: &Path) -> Result<String, String> {
    let each: Vec<String> = weights(folder)?
        .iter()
        .map(|(net, path)| format!("{net} = {:?}", path.display().to_string()))
        .collect();
    Ok(format!("train.init={{ {} }}", each.join(", ")))
}

/// Copies weights, each of them replaced by one of its neighbours among the numbers of its type.
fn nudge(from: &Path, to: &Path, seed: u64) -> Result<(), String> {
    std::fs::create_dir_all(to).map_err(|e| e.to_string())?;
    let mut rng = Philox::new(seed, 0);
    for (net, path) in weights(from)? {
        let file = Tensors::read(&path).map_err(|e| e.to_string())?;
        let mut tensors = Vec::new();
        for (name, ..) in file.list() {
            let (shape, values) = file.get(&name).ok_or_else(|| format!("no values of {name}"))?;
            let mut next = |v: f32| match rng.below(2) {
                _ if v == 0.0 => v,
                0 => v.next_up(),
                _ => v.next_down(),
            };
            tensors.push((name, shape, values.into_iter().map(&mut next).collect()));
        }
        let metadata = [("format", "pt"), ("network", net.as_str())];
        write(&to.join(format!("last_net_{net}.safetensors")), tensors, &metadata)
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Columns `loss/..` of a run's metrics, by name.
fn losses(path: &Path) -> Result<Losses, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let rows: Vec<Vec<&str>> = lines.map(|l| l.split(',').collect()).collect();
    let column = |i: usize| rows.iter().filter_map(|r| r.get(i)?.parse::<f64>().ok()).collect();
    let all: Losses = names
        .iter()
        .enumerate()
        .filter(|(_, n)| n.starts_with("loss/"))
        .map(|(i, n)| (n.to_string(), column(i)))
        .collect();
    if all.is_empty() { Err(format!("{} has no losses", path.display())) } else { Ok(all) }
}
