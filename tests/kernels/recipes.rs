//! Everything that the shipped recipes launch, compiled for real devices as `tests/kernels/compile.rs` does.

use crate::compile::{cache, nvrtc};
use gan::device::cuda::compiler::Compiler;
use gan::device::cuda::usage::{self, Usage};
use gan::device::launch::{GpuTraits, Math, Specialisation, Tailored};
use gan::exec::cost::{Bandwidth, Peaks};
use gan::train::kernels::{Extents, programs, specialisations};
use gan::train::recipe::Recipe;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Slices of the phantoms where a recipe says no other extents, padded to what five halvings divide.
const CANVAS: [usize; 2] = [96, 128];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")
}

pub fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).expect("the recipes").map(|f| f.expect("a file").path());
    let mut names: Vec<String> = files
        .filter(|f| f.extension().is_some_and(|e| e == "toml"))
        .map(|f| f.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

type Kernels = BTreeMap<(&'static str, Vec<String>), Specialisation>;

pub fn recipe(name: &str) -> (Recipe, Extents) {
    let recipe = Recipe::load(&folder().join(format!("{name}.toml")), &[]).expect("a recipe");
    let size = recipe.data.patch.map_or(recipe.data.canvas.unwrap_or(CANVAS).to_vec(), |p| p.to_vec());
    (recipe, Extents::given(size))
}

/// An H200.
fn gpu(math: Math, fused: bool) -> GpuTraits {
    GpuTraits {
        multiprocessors: 132,
        math,
        fixed_shapes: true,
        fused,
        choices: None,
        hopper: Tailored::Off,
        window: Tailored::Suited,
    }
}

/// What training and predicting with a recipe launches, by kernel file, each once.
fn launched(name: &str, math: Math) -> Kernels {
    let (recipe, extents) = recipe(name);
    let all = specialisations(&recipe, &extents, &gpu(math, true)).unwrap_or_else(|e| panic!("{name}: {e}"));
    all.into_iter().map(|what| ((what.file, what.constants.clone()), what)).collect()
}

/// Kernels of one training step of the main recipe. What is left with fusion are convolutions, half of all, and norms; mixed
/// precision adds a copy of each network's weights, and of the images that are given in fp32 and multiplied.
#[test]
fn a_step_launches_no_more_than_it_did() {
    let (mut recipe, extents) = recipe("mr2pet");
    let count = |recipe: &Recipe, math: Math, fused: bool| {
        programs(recipe, &extents, &gpu(math, fused)).expect("a valid step")[0].launches().count()
    };
    let watched = count(&recipe, Math::Fma, true);
    recipe.health.watch = false;
    let [plain, fused, mixed] =
        [(Math::Fma, false), (Math::Fma, true), (Math::Bf16, true)].map(|(m, f)| count(&recipe, m, f));
    println!(
        "a step launches {plain} kernels, {fused} fused, {mixed} fused in mixed precision; watching adds {}",
        watched - fused
    );
    assert!(plain > 200 && fused <= 111 && mixed <= 116, "{plain} {fused} {mixed}");
    // Sums over two gradients and two discriminators' outputs.
    assert!(watched - fused <= 10, "{watched} {fused}");
}

/// What the step of a recipe launches and moves, as its plan tells, and the least time that it can take on an H200 with the
/// rates that its documents and measurements name: 790 TFLOP/s in bf16 and 4.3 TB/s.
struct Account {
    launches: usize,
    megabytes: f64,
    gigaflops: f64,
    floor_us: f64,
}

/// A step like most: a Wasserstein critic is updated more often in the first ones.
const LATER: u64 = 1001;

fn account(recipe: &Recipe, extents: &Extents, math: Math) -> Account {
    let method = gan::train::method::build(recipe).expect("a method");
    let programs = programs(recipe, extents, &gpu(math, true)).expect("a valid step");
    let mut all = Account { launches: 0, megabytes: 0.0, gigaflops: 0.0, floor_us: 0.0 };
    let peaks =
        Peaks { flops_per_s: 790e12, bandwidth: vec![Bandwidth { bytes: 1 << 30, bytes_per_s: 4.3e12 }] };
    for run in method.runs(LATER) {
        let program = &programs[run.part];
        let cost = program.plan().cost();
        all.launches += program.launches().count();
        all.megabytes += cost.bytes as f64 / 1e6;
        all.gigaflops += cost.flops as f64 / 1e9;
        all.floor_us += 1e6 * peaks.floor(&cost);
    }
    all
}

/// The table in docs/performance.md is what the plans say.
#[test]
fn the_documents_tell_what_a_step_costs() {
    let mut rows = Vec::new();
    for name in names() {
        let (mut recipe, extents) = recipe(&name);
        recipe.health.watch = false;
        let [single, mixed] = [Math::Fma, Math::Bf16].map(|math| account(&recipe, &extents, math));
        rows.push(format!(
            "| {name} | {} | {} | {:.1} | {:.1} | {:.1} | {:.0} |",
            single.launches,
            mixed.launches,
            single.megabytes,
            mixed.megabytes,
            mixed.gigaflops,
            mixed.floor_us
        ));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let text = std::fs::read_to_string(path).expect("docs/performance.md");
    let missing: Vec<&String> = rows.iter().filter(|row| !text.lines().any(|line| line == **row)).collect();
    assert!(missing.is_empty(), "docs/performance.md should say:\n{}", rows.join("\n"));
}

/// Launches of a step by kernel.
#[test]
fn what_a_step_launches() {
    let (mut recipe, extents) = recipe("mr2pet");
    recipe.health.watch = false;
    let programs = programs(&recipe, &extents, &gpu(Math::Fma, true)).expect("a valid step");
    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    programs[0].launches().for_each(|l| *by.entry(l.kernel).or_default() += 1);
    println!("{by:?}");
    // Nothing but products, norms' gradients and maps, losses, updates, and sums for biases and losses.
    assert_eq!(by.get("norm_stats"), None, "taken where the convolutions are computed");
    assert_eq!(by["conv"] + by["conv_grad_w"], 59);
}

/// What spills registers or takes a stack, of everything compiled.
fn faults<'a>(
    compiler: &Compiler,
    all: impl Iterator<Item = &'a Specialisation>,
    architectures: &[&str],
) -> Vec<String> {
    let faults = |(what, architecture): (&Specialisation, &str)| {
        let image = compiler.image(what, architecture).unwrap_or_else(|e| panic!("{e}"));
        let bad = |k: &&Usage| k.spills > 0 || k.stack > 0;
        let tell = |k: &Usage| format!("{architecture} {k:?}: {}", what.constants.join(" "));
        usage::parse(&image.log).iter().filter(bad).map(tell).collect::<Vec<_>>()
    };
    let all: Vec<(&Specialisation, &str)> =
        all.flat_map(|what| architectures.iter().map(move |a| (what, *a))).collect();
    all.into_par_iter().flat_map(faults).collect()
}

#[test]
fn the_main_recipe_compiles_without_spills_in_mixed_precision() {
    let Some(nvrtc) = nvrtc() else { return };
    let compiler = Compiler::with(nvrtc, cache());
    let all = launched("mr2pet", Math::Bf16);
    assert!(
        all.keys().any(|k| k.0 == "conv_grad_w.cu") && all.len() > 40,
        "only {} specialisations",
        all.len()
    );
    let faults = faults(&compiler, all.values(), &["sm_80", "sm_90", "sm_100"]);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// In single precision, which is the default.
#[test]
fn every_recipe_compiles_without_spills() {
    let names = names();
    assert!(names.len() > 10 && names.iter().any(|n| n == "wgan-gp-mr"), "{names:?}");
    let all: Vec<_> = names.iter().map(|name| (name, launched(name, Math::Fma))).collect();
    for (name, launched) in &all {
        println!("{name}: {} specialisations", launched.len());
        assert!(launched.len() > 10, "{name}: only {} specialisations", launched.len());
    }
    let Some(nvrtc) = nvrtc() else { return };
    let compiler = Compiler::with(nvrtc, cache());
    let all: BTreeMap<_, _> = all.into_iter().flat_map(|(_, launched)| launched).collect();
    println!("together {}", all.len());
    let faults = faults(&compiler, all.values(), &["sm_80", "sm_90", "sm_100"]);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
