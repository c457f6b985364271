//! What is timed: whole steps and single layers, beside PyTorch and beside the least time that the device allows.

use crate::Outcome;
use crate::layers::{Layer, PASSES};
use crate::program::{Program, finish};
use crate::record::Record;
use crate::timed::{TIMED, Timed, same_work};
use gan::device::cuda::device::CudaDevice;
use gan::device::launch::{GpuTraits, Math, Tailored};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Precisions, and which kernels are left out: the last ones without the convolutions of sm_90a, and without those for few
/// channels, for comparison; the fourth is the third again on other devices.
const WAYS: [(&str, Option<&str>); 5] = [
    ("f32", None),
    ("tf32", None),
    ("bf16", None),
    ("bf16", Some("GAN_HOPPER")),
    ("bf16", Some("GAN_WINDOW")),
];

impl Program {
    /// Compiles for an architecture what [`Program::bench`] times.
    pub fn compile(&self, architecture: &str) -> Outcome {
        let mut compiled = 0;
        for (file, set, _, size, batch) in TIMED {
            let path = self.recipes.join(file).display().to_string();
            let (size, batch) = (size.to_string(), format!("train.batch={batch}"));
            for (precision, off) in WAYS {
                let mut args = vec!["kernels", "build", &path, "--arch", architecture, "--size", &size];
                args.extend(["--precision", precision, "--set", &batch]);
                set.iter().for_each(|s| args.extend(["--set", s]));
                let mut command = self.command(&args);
                for variable in ["GAN_HOPPER", "GAN_WINDOW"] {
                    command.env(variable, if off == Some(variable) { "off" } else { "auto" });
                }
                println!("{}", finish(command, &args.join(" "))?.lines().next().unwrap_or_default());
                compiled += 1;
            }
        }
        Ok(format!("everything for {compiled} timed steps"))
    }

    /// `gan bench step` of the recipes that PyTorch's peer knows as well, and of what the floor is, where PyTorch is at hand
    /// to measure the device's peaks.
    pub fn bench(&self, record: &mut Record) -> Outcome {
        let peaks = python().and_then(|python| Peaks::measure(&python));
        if let Ok(peaks) = &peaks {
            record.row("peaks", peaks.row());
        }
        let mut failed = Vec::new();
        for timed in TIMED {
            for (precision, off) in WAYS {
                match self.bench_one(timed, precision, off, peaks.as_ref().ok()) {
                    Ok(row) => record.row("steps", row),
                    Err(e) => failed.push(e),
                }
            }
        }
        if failed.is_empty() {
            Ok(format!("{} steps timed", WAYS.len() * TIMED.len()))
        } else {
            Err(failed.join("\n"))
        }
    }

    fn bench_one(
        &self,
        (file, set, peer, size, batch): Timed,
        precision: &str,
        off: Option<&str>,
        peaks: Option<&Peaks>,
    ) -> Result<Value, String> {
        let path = self.recipes.join(file).display().to_string();
        let (size_text, batch_set) = (size.to_string(), format!("train.batch={batch}"));
        let json_path = self.work.path().join("bench.json").display().to_string();
        let mut args =
            vec!["bench", "step", &path, "--size", &size_text, "--device", "cuda", "--steps", "20"];
        args.extend(["--precision", precision, "--json", &json_path, "--set", &batch_set]);
        set.iter().for_each(|s| args.extend(["--set", s]));
        let mut command = self.command(&args);
        for variable in ["GAN_HOPPER", "GAN_WINDOW"] {
            command.env(variable, if off == Some(variable) { "off" } else { "auto" });
        }
        finish(command, &args.join(" "))?;
        let mode = off.map_or("recorded".to_string(), |variable| format!("recorded, {variable}=off"));
        let result = json_of(Path::new(&json_path))?;
        let (ms, flop) = (number(&result["ms_median"])?, number(&result["flop_per_step"])?);
        let floor = peaks.map(|p| p.floor_ms(precision, &result["flops_and_bytes"])).transpose()?;
        Ok(
            json!({"program": "gan", "recipe": peer, "size": size, "batch": batch, "dtype": result["dtype"], "mode": mode,
                  "ms": ms, "TFLOP/s": flop / ms / 1e9, "floor ms": floor, "of floor": floor.map(|f| ms / f)}),
        )
    }

    /// The same steps in PyTorch, in its plain and in its strongest modes.
    pub fn peers(&self, record: &mut Record) -> Outcome {
        let Some(folder) = std::env::var_os("GAN_PEERS").map(PathBuf::from) else {
            return Ok("not compared: GAN_PEERS names no folder".into());
        };
        let python = python()?;
        let mut failed = Vec::new();
        let mut timed = 0;
        for (file, set, recipe, size, batch) in TIMED {
            let own = match crate::work::of_step(&self.recipes.join(file), set, size, batch) {
                Ok(own) => own,
                Err(e) => {
                    failed.push(e);
                    continue;
                }
            };
            for dtype in ["f32", "bf16"] {
                for mode in ["eager", "channels_last", "channels_last+graph", "channels_last+compile+graph"] {
                    let out = self.work.path().join("peer.json");
                    let _ = std::fs::remove_file(&out);
                    let mut command = Command::new(&python);
                    command
                        .arg(folder.join("torch_peer.py"))
                        .args(["--recipe", recipe, "--dtype", dtype, "--mode", mode]);
                    command.args(["--size", &size.to_string(), "--batch", &batch.to_string()]);
                    command.args(["--device", "cuda", "--max-seconds", "3", "--json"]).arg(&out);
                    let what = format!("torch_peer.py {recipe} {dtype} {mode}");
                    let result = finish(command, &what).and_then(|_| json_of(&out));
                    let result = result.and_then(|r| {
                        same_work(&what, own.products as f64, number(&r["flop_per_step"])?).map(|()| r)
                    });
                    let ms = result.as_ref().ok().and_then(|r| r["median_ms"].as_f64());
                    match ms {
                        Some(ms) => {
                            timed += 1;
                            record.row(
                                "steps",
                                json!({"program": "PyTorch", "recipe": recipe, "size": size, "batch": batch, "dtype": dtype, "mode": mode,
                                       "ms": ms, "TFLOP/s": Value::Null, "floor ms": Value::Null, "of floor": Value::Null}),
                            );
                        }
                        None => failed
                            .push(result.err().unwrap_or_else(|| format!("{what}: no median in its result"))),
                    }
                }
            }
        }
        match failed.as_slice() {
            [] => Ok(format!("{timed} configurations timed")),
            _ => Err(format!("{timed} configurations timed; {}", failed.join("; "))),
        }
    }
}

impl Program {
    /// Every convolution of the recipes by itself, beside cuDNN's.
    pub fn layers(&self, record: &mut Record) -> Outcome {
        let Some(folder) = std::env::var_os("GAN_PEERS").map(PathBuf::from) else {
            return Ok("not compared: GAN_PEERS names no folder".into());
        };
        let python = python()?;
        let peaks = Peaks::measure(&python)?;
        let (mut failed, mut ratios) = (Vec::new(), Vec::new());
        for math in [Math::Bf16, Math::Fma] {
            let device = CudaDevice::open(0, math).map_err(|e| e.to_string())?;
            for (_, _, recipe, size, batch) in TIMED {
                let out = self.work.path().join("layers.json");
                let _ = std::fs::remove_file(&out);
                let mut command = Command::new(&python);
                command.arg(folder.join("torch_peer.py")).args(["--recipe", recipe, "--dtype", math.name()]);
                command.args(["--mode", "channels_last", "--op", "conv,convT", "--device", "cuda"]);
                command
                    .args(["--size", &size.to_string(), "--batch", &batch.to_string(), "--json"])
                    .arg(&out);
                let what = format!("torch_peer.py --op {recipe} {}", math.name());
                let rows = finish(command, &what).and_then(|_| json_of(&out));
                let rows =
                    rows.and_then(|r| r["op"]["rows"].as_array().cloned().ok_or(format!("{what}: no rows")));
                let rows = match rows {
                    Ok(rows) => rows,
                    Err(e) => {
                        failed.push(e);
                        continue;
                    }
                };
                for row in rows.iter().filter(|r| r["op"] != "optim") {
                    let layer = Layer::parse(row)?;
                    for (i, (pass, _)) in PASSES.iter().enumerate() {
                        let own = gan::device::backend::Backend::traits(&device);
                        let timed = layer.time(i, &device, &own, 20.0).and_then(|ms| {
                            // Beside it without those for few channels, and the general ones alone.
                            let without = GpuTraits { window: Tailored::Off, ..own };
                            let plain = GpuTraits { hopper: Tailored::Off, ..without };
                            let others = [without, plain].map(|gpu| {
                                (gpu != own).then(|| layer.time(i, &device, &gpu, 20.0)).transpose()
                            });
                            let [without, plain] = others;
                            Ok((ms, without?, plain?))
                        });
                        let (ms, without, plain) = match timed {
                            Ok(times) => times,
                            Err(e) => {
                                failed.push(format!("{} {pass}: {e}", layer.name));
                                continue;
                            }
                        };
                        let floor = peaks.ms(math.name(), layer.flops(), layer.bytes(i, math))?;
                        ratios.push(layer.peer_ms[i] / ms);
                        record.row(
                            "layers",
                            json!({"recipe": recipe, "size": size, "batch": batch, "dtype": math.name(), "layer": layer.name,
                                   "pass": pass, "calls": layer.count, "ms": ms, "GAN_WINDOW=off ms": without, "plain ms": plain, "cuDNN ms": layer.peer_ms[i],
                                   "speed": layer.peer_ms[i] / ms, "of floor": ms / floor}),
                        );
                    }
                }
            }
        }
        ratios.sort_by(f64::total_cmp);
        let Some(least) = ratios.first() else { return Err(failed.join("\n")) };
        let text = format!(
            "{} passes; cuDNN's time by ours: least {least:.2}, median {:.2}",
            ratios.len(),
            ratios[ratios.len() / 2]
        );
        if failed.is_empty() { Ok(text) } else { Err(format!("{text}; {}", failed.join("\n"))) }
    }
}

/// The Python that has PyTorch.
fn python() -> Result<OsString, String> {
    Ok(std::env::var_os("GAN_PYTHON").unwrap_or_else(|| "python3".into()))
}

/// What the device does at best: FLOP/s of a large matrix product in each precision, bytes/s of a large copy, both by the
/// vendor's own libraries.
struct Peaks(Value);

const PEAKS: &str = r#"
import json, statistics, torch
def seconds(fn):
    times = []
    for i in range(8):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(); fn(); b.record(); torch.cuda.synchronize()
        times.append(a.elapsed_time(b) / 1e3)
    return statistics.median(times[3:])
n, out = 8192, {}
for name, dtype, tf32 in (("f32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False)):
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
    out[name] = 2 * n ** 3 / seconds(lambda: torch.mm(a, b))
x = torch.empty(1 << 29, device="cuda")
y = torch.empty_like(x)
out["bytes"] = 2 * 4 * x.numel() / seconds(lambda: y.copy_(x))
print(json.dumps(out))
"#;

impl Peaks {
    fn measure(python: &OsString) -> Result<Self, String> {
        let mut command = Command::new(python);
        command.args(["-c", PEAKS]);
        let out = finish(command, "measuring the device's peaks with PyTorch")?;
        let peaks: Value = serde_json::from_str(&out).map_err(|e| format!("{out}: {e}"))?;
        Ok(Peaks(peaks))
    }

    fn row(&self) -> Value {
        let Value::Object(map) = &self.0 else { return Value::Null };
        let unit = |key: &str| if key == "bytes" { format!("{key}/s") } else { format!("{key} FLOP/s") };
        map.iter().map(|(key, v)| (unit(key), v.clone())).collect::<serde_json::Map<_, _>>().into()
    }

    /// The least time for so many FLOPs and bytes.
    fn ms(&self, precision: &str, flops: f64, bytes: f64) -> Result<f64, String> {
        Ok(1e3 * (flops / number(&self.0[precision])?).max(bytes / number(&self.0["bytes"])?))
    }

    /// The least time for operations one after the other.
    fn floor_ms(&self, precision: &str, costs: &Value) -> Result<f64, String> {
        let costs = costs.as_array().ok_or("the bench tells no costs")?;
        costs.iter().map(|c| self.ms(precision, number(&c[0])?, number(&c[1])?)).sum()
    }
}

pub fn json_of(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

pub fn number(v: &Value) -> Result<f64, String> {
    v.as_f64().ok_or_else(|| format!("{v} is no number"))
}
