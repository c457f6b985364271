//! Every kernel, specialised as the recipes need it, compiled for real devices: registers, spills, and tensor-core
//! instructions in the machine code. Needs NVRTC but neither a driver nor a GPU; without it the tests say so and pass,
//! but not where `CI` is set.

use gan::device::cuda::cache::Cache;
use gan::device::cuda::compiler::{Compiler, Specialisation};
use gan::device::cuda::nvrtc::Nvrtc;
use gan::device::cuda::usage::{self, Usage};
use gan::device::cuda::workers;
use gan::device::launch::{GpuTraits, Tailored};
use gan::exec::probe::{parts, specialisations};
use gan::ops::conv::cuda::launch::{Math, Pass, choose, plan};
use gan::ops::conv::geometry::ConvGeometry;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The run-time compiler, also where `pip install --user` or the system's Python has put it.
pub fn nvrtc() -> Option<Nvrtc> {
    let error = match Nvrtc::find() {
        Ok(found) => return Some(found),
        Err(e) => e,
    };
    let script = "import site, sys; print('\\n'.join(site.getsitepackages() + [site.getusersitepackages()]))";
    let python = Command::new("python3").args(["-c", script]).output();
    for site in python
        .iter()
        .flat_map(|o| String::from_utf8_lossy(&o.stdout).lines().map(PathBuf::from).collect::<Vec<_>>())
    {
        for package in std::fs::read_dir(site.join("nvidia")).into_iter().flatten().flatten() {
            if let Ok(found) = Nvrtc::in_folder(&package.path().join("lib")) {
                return Some(found);
            }
        }
    }
    assert!(std::env::var_os("CI").is_none(), "{error}");
    println!("skipped: {error}");
    None
}

/// A cache that outlives the test, so that only what has changed is compiled again.
pub fn cache() -> Cache {
    Cache::at(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels")).unwrap()
}

/// Compiles what the cache lacks of these specialisations, each for an architecture, in as many processes as there are cores.
/// One test at a time, so that none compiles what another one is about to.
pub fn compile_all<'a>(compiler: &Compiler, all: impl IntoIterator<Item = (&'a Specialisation, &'a str)>) {
    static ONE: Mutex<()> = Mutex::new(());
    let mut by: BTreeMap<&str, Vec<&Specialisation>> = BTreeMap::new();
    all.into_iter().for_each(|(what, architecture)| by.entry(architecture).or_default().push(what));
    workers::enable(env!("CARGO_BIN_EXE_gan").into());
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    for (architecture, all) in by {
        compiler.compile_all(all, architecture, None).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// A specialisation with what it may use: registers of a thread, and whether it must use tensor cores.
struct Item {
    what: Specialisation,
    registers: u32,
    tensor_cores: bool,
    /// Whether it must also compile for the oldest devices.
    anywhere: bool,
}

impl Item {
    fn architectures(&self) -> impl Iterator<Item = &'static str> + use<> {
        let oldest = self.anywhere.then_some("sm_75");
        oldest.into_iter().chain(["sm_80", "sm_90", "sm_100"])
    }
}

fn layer(c: usize, k: usize, size: usize, kernel: usize, stride: usize, padding: usize) -> ConvGeometry {
    let output = (size + 2 * padding - kernel) / stride + 1;
    ConvGeometry {
        n: 1,
        c,
        k,
        groups: 1,
        input: [1, size, size],
        output: [1, output, output],
        kernel: [1, kernel, kernel],
        stride: [1, stride, stride],
        padding: [0, padding, padding],
        dilation: [1; 3],
    }
}

fn layer_3d(c: usize, k: usize, size: usize, kernel: usize, stride: usize, padding: usize) -> ConvGeometry {
    let output = (size + 2 * padding - kernel) / stride + 1;
    let flat = layer(c, k, size, kernel, stride, padding);
    ConvGeometry {
        input: [size; 3],
        output: [output; 3],
        kernel: [kernel; 3],
        stride: [stride; 3],
        padding: [padding; 3],
        ..flat
    }
}

/// The layers of the recipes' networks: pix2pix and its PatchGAN at 256, CycleGAN's ResNet, U-Nets, WGAN-GP's critic.
fn layers() -> Vec<ConvGeometry> {
    vec![
        layer(1, 64, 256, 4, 2, 1),
        layer(64, 128, 128, 4, 2, 1),
        layer(512, 512, 2, 4, 2, 1),
        layer(512, 1, 31, 4, 1, 1),
        layer(1, 64, 262, 7, 1, 0),
        layer(256, 256, 66, 3, 1, 0),
        layer(64, 64, 256, 3, 1, 1),
        layer(64, 128, 128, 2, 2, 0),
        layer(64, 3, 256, 1, 1, 0),
        layer_3d(32, 64, 32, 3, 1, 1),
        layer_3d(64, 128, 16, 2, 2, 0),
    ]
}

fn items() -> Vec<Item> {
    let mut all = Vec::new();
    let mut add = |what: Specialisation, registers: u32, tensor_cores: bool, anywhere: bool| {
        all.push(Item { what, registers, tensor_cores, anywhere });
    };
    for (i, g) in layers().iter().enumerate() {
        for pass in [Pass::Forward, Pass::GradX, Pass::GradW] {
            // bf16 is what training uses; the others are compiled for two typical layers, with the shape as an argument.
            for math in [Math::Bf16, Math::Tf32, Math::Fma] {
                if math != Math::Bf16 && ![0, 2].contains(&i) {
                    continue;
                }
                let (tiles, slices) = choose(g, pass, math, 132);
                let pitches = if pass == Pass::GradX { [g.k, g.c] } else { [g.c, g.k] };
                let out = if math == Math::Bf16 && pass != Pass::GradW { "OUT=bf16" } else { "OUT=float" };
                let constants: &[&str] = match pass {
                    Pass::Forward if i % 2 == 0 => &[out, "BIAS=1", "ACTIVATION(v)=leaky_relu(v, 0.2f)"],
                    Pass::Forward => &[out, "STATS=1"],
                    Pass::GradX => &[out, "STATS=2", "NORMED=bf16"],
                    Pass::GradW => &[out, "EXTRA=1", "ACTIVATION(v)=(v + x)"],
                };
                let p = plan(g, pass, math, tiles, slices, pitches, [true; 2], constants, math == Math::Bf16);
                let registers = if p.specialisation.constants.iter().any(|c| c == "MIN_BLOCKS=2") {
                    65536 / p.threads / 2
                } else {
                    255
                };
                add(p.specialisation, registers.min(255), math != Math::Fma, math == Math::Fma);
            }
        }
    }
    for (a, b) in
        [("ALONG_K", "ALONG_K"), ("ALONG_K", "ACROSS_K"), ("ACROSS_K", "ALONG_K"), ("ACROSS_K", "ACROSS_K")]
    {
        for (math, vec) in [("BF16", 8), ("TF32", 4), ("FMA", 4)] {
            let stored = [
                format!("A_STORED={a}"),
                format!("B_STORED={b}"),
                format!("MATH=MATH_{math}"),
                format!("VEC_A={vec}"),
                format!("VEC_B={vec}"),
            ];
            let shape = ["BM=128", "BN=128", "BK=32", "WARPS_M=4", "WARPS_N=2", "STAGES=2", "OUT=float"]
                .map(String::from);
            add(
                Specialisation::new("matmul.cu", stored.into_iter().chain(shape)),
                255,
                math != "FMA",
                math == "FMA",
            );
        }
    }
    // Four blocks of 256 threads a multiprocessor.
    let mut plain = |file: &'static str, constants: &[&str]| {
        // Double precision for the normal numbers, many inputs: two blocks.
        let two = constants == ["NORMAL=1"] || constants.contains(&"INPUTS=4");
        // Places of eight taps in many channels: three.
        let three = constants.contains(&"KERNEL_D=2");
        let registers = if two {
            128
        } else if three {
            80
        } else {
            64
        };
        add(Specialisation::new(file, constants.iter().copied()), registers, false, true);
    };
    for kind in ["float", "bf16"] {
        let (element, input, output) = (format!("TYPE={kind}"), format!("IN={kind}"), format!("OUT={kind}"));
        let a = format!("IN_A={kind}");
        plain("sum_slices.cu", &[&output, "BIAS=1", "ACTIVATION(v)=tanhf(v)"]);
        plain("pointwise.cu", &[&output, &a, "RANK=1", "INPUTS=1", "EXPRESSION=tanhf(a)"]);
        plain(
            "pointwise.cu",
            &[&output, &a, "RANK=4", "INPUTS=4", "EXPRESSION=select(a > 0, b, b * s[0]) + c * d"],
        );
        plain("pointwise.cu", &[&output, &a, "RANK=5", "INPUTS=1", "EXPRESSION=a"]);
        let dropout = ["RANK=2", "WIDTH=4", "DROPOUT=1", "INPUTS=2", "EXPRESSION=relu(dropped(a, numbers))"];
        plain("pointwise.cu", &[&[&output[..], &a], &dropout[..]].concat());
        let pair = ["RANK=3", "WIDTH=4", "INPUTS=4", "FIRST_INPUTS=1", "EXPRESSION=relu(a)"];
        let second = ["DROPOUT=2", "SECOND=relu(dropped((b - c) * d, numbers))"];
        plain("pointwise_pair.cu", &[&[&output[..], &a], &pair[..], &second[..]].concat());
        plain(
            "reduce.cu",
            &[
                "OUT=float",
                &a,
                "KEPT_RANK=1",
                "REDUCED_RANK=2",
                "MAXIMUM=0",
                "LANES=32",
                "INPUTS=1",
                "EXPRESSION=a",
            ],
        );
        plain(
            "reduce.cu",
            &[
                "OUT=float",
                &a,
                "KEPT_RANK=1",
                "REDUCED_RANK=1",
                "MAXIMUM=0",
                "LANES=1",
                "INPUTS=2",
                "EXPRESSION=fabsf(a - b)",
            ],
        );
        plain(
            "reduce.cu",
            &[
                "OUT=float",
                &a,
                "KEPT_RANK=1",
                "REDUCED_RANK=1",
                "MAXIMUM=1",
                "LANES=4",
                "INPUTS=1",
                "EXPRESSION=softplus(-a)",
            ],
        );
        plain("norm.cu", &[&input, &output, "LANES=32", "ACTIVATION(v)=leaky_relu(v, 0.2f)"]);
        plain("pool.cu", &[&element]);
        let width = if element.ends_with("bf16") { "WIDTH=8" } else { "WIDTH=4" };
        for depth in ["KERNEL_D=1", "KERNEL_D=2"] {
            plain("pool_tiles.cu", &[&element, width, depth, "KERNEL_H=2", "KERNEL_W=2"]);
        }
        plain("resample.cu", &[&input, &output]);
        for lanes in ["LANES=4", "LANES=32"] {
            plain("softmax.cu", &[&element, "LOG=1", lanes]);
            plain("softmax.cu", &[&element, "LOG=0", lanes]);
        }
        plain("image_pool.cu", &[&element]);
    }
    plain("blend.cu", &[]);
    plain("random.cu", &["NORMAL=0"]);
    plain("random.cu", &["NORMAL=1"]);
    for (rule, momentum) in [("SGD", 1), ("RMSPROP", 0), ("ADAM", 0), ("ADAMW", 0), ("ADAGRAD", 0)] {
        let (rule, momentum) = (format!("RULE={rule}"), format!("MOMENTUM={momentum}"));
        let switches = ["AMSGRAD=0", "CENTERED=0", "NESTEROV=0", "SHADOW=1", "ZERO_GRADIENT=1"];
        plain("optim.cu", &[&[rule.as_str(), momentum.as_str()][..], &switches[..]].concat());
    }
    all
}

/// NVIDIA's disassembler: in GAN_NVDISASM, beside the run-time compiler as its Python package puts it, or in the path.
pub fn disassembler(nvrtc: &Nvrtc) -> Option<PathBuf> {
    let beside = Path::new(&nvrtc.origin).parent().and_then(Path::parent).map(|p| p.join("bin/nvdisasm"));
    let set = std::env::var_os("GAN_NVDISASM").map(PathBuf::from);
    let works = |p: &PathBuf| Command::new(p).arg("--version").output().is_ok_and(|o| o.status.success());
    let found = [set, beside, Some(PathBuf::from("nvdisasm"))].into_iter().flatten().find(works);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no nvdisasm: pip install nvidia-cuda-nvdisasm");
        println!("skipped the look at the machine code: no nvdisasm (pip install nvidia-cuda-nvdisasm)");
    }
    found
}

/// The machine code of a cubin, as text.
pub fn disassemble(tool: &Path, cubin: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), cubin).unwrap();
    // Where branches lead to is of no interest here, and takes a fifth of the time.
    let output = Command::new(tool).args(["-ndf", "-c"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_specialisation_compiles_without_spills_and_within_its_budget() {
    let Some(nvrtc) = nvrtc() else { return };
    let tool = disassembler(&nvrtc);
    let compiler = Compiler::with(nvrtc, cache());
    println!("NVRTC {:?} from {}", compiler.nvrtc().version, compiler.nvrtc().origin);
    println!(
        "{:<17} {:<8} {:>9} {:>7} {:>6}  constants",
        "kernel", "device", "registers", "shared", "spills"
    );
    let mut faults = Vec::new();
    let items = items();
    compile_all(&compiler, items.iter().flat_map(|i| i.architectures().map(move |a| (&i.what, a))));
    for item in items {
        for architecture in item.architectures() {
            let image = compiler.image(&item.what, architecture).unwrap_or_else(|e| panic!("{e}"));
            let kernels = usage::parse(&image.log);
            let constants = item.what.constants.join(" ");
            if kernels.is_empty() {
                faults.push(format!(
                    "{} {architecture}: the log tells of no kernel:\n{}",
                    item.what.file, image.log
                ));
            }
            for Usage { kernel, registers, shared, spills, stack } in kernels {
                println!(
                    "{kernel:<17} {architecture:<8} {registers:>9} {shared:>7} {spills:>6}  {constants}"
                );
                if spills > 0 || stack > 0 || registers > item.registers {
                    faults.push(format!("{kernel} {architecture}: {registers} registers (at most {}), {spills} bytes spilled, {stack} of stack: {constants}", item.registers));
                }
            }
            if let (Some(tool), true) = (&tool, item.tensor_cores) {
                let code = disassemble(tool, &image.bytes);
                let (has_mma, has_copies) = (code.contains("HMMA"), code.contains("LDGSTS"));
                let local = code.contains("LDL") || code.contains("STL");
                // Single elements of bf16 are too short for an asynchronous copy.
                let wide = ["VEC_A=8", "VEC_A=4", "VEC_A=2"].iter().any(|v| constants.contains(v));
                if !has_mma || (wide && !has_copies) || local {
                    faults.push(format!("{} {architecture}: HMMA {has_mma}, LDGSTS {has_copies}, local memory {local}: {constants}", item.what.file));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn ptx_is_the_way_up_for_newer_devices() {
    let Some(nvrtc) = nvrtc() else { return };
    let compiler = Compiler::with(nvrtc, cache());
    let what = Specialisation::new("resample.cu", ["IN=float", "OUT=float"]);
    let text = String::from_utf8(compiler.image(&what, "compute_90").unwrap().bytes).unwrap();
    assert!(text.contains(".target sm_90") && text.contains(".entry resample"), "{text}");
}

#[test]
fn the_second_time_comes_from_the_cache() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().unwrap();
    let compiler = Compiler::with(nvrtc, Cache::at(folder.path()).unwrap());
    let what = Specialisation::new("pool.cu", ["TYPE=float"]);
    let first = compiler.image(&what, "sm_90").unwrap();
    let entry = folder.path().join(&compiler.cache().list()[0].name);
    assert_eq!(compiler.cache().list().len(), 1);
    assert_eq!(compiler.image(&what, "sm_90").unwrap().bytes, first.bytes);
    assert_eq!(compiler.cache().list().len(), 1);
    // A damaged entry is compiled again.
    std::fs::write(&entry, b"damaged").unwrap();
    assert_eq!(compiler.image(&what, "sm_90").unwrap().bytes, first.bytes);
    // Another constant or architecture is another entry.
    compiler.image(&what, "sm_80").unwrap();
    compiler.image(&Specialisation::new("pool.cu", ["TYPE=bf16"]), "sm_90").unwrap();
    assert_eq!(compiler.cache().list().len(), 3);
}

#[test]
fn an_error_names_the_kernel_and_shows_the_whole_log() {
    let Some(nvrtc) = nvrtc() else { return };
    let compiler = Compiler::with(nvrtc, cache());
    let what = Specialisation::new("pointwise.cu", ["OUT=float", "RANK=1", "INPUTS=1", "EXPRESSION=a +* 2"]);
    let error = compiler.image(&what, "sm_90").err().unwrap().to_string();
    assert!(
        error.contains("pointwise.cu") && error.contains("error:") && error.contains("EXPRESSION"),
        "{error}"
    );
}

/// What `gan doctor` compiles when it runs for the first time, for the device that has most sets of kernels.
#[test]
fn what_the_doctor_compares_compiles() {
    let Some(nvrtc) = nvrtc() else { return };
    let gpu = GpuTraits { window: Tailored::Auto, ..crate::hopper::device(132, Tailored::Auto, true) };
    let all: Vec<_> = [Math::Fma, Math::Tf32, Math::Bf16].into_iter().flat_map(|m| parts(&gpu, m)).collect();
    let kernels = specialisations(&all).unwrap();
    let compiler = Compiler::with(nvrtc, cache());
    let began = std::time::Instant::now();
    compile_all(&compiler, kernels.iter().map(|what| (what, "sm_90a")));
    println!("{} kernels in {:.1?}, but for those that were there", kernels.len(), began.elapsed());
}
