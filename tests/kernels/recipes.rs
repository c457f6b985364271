//! Everything that the shipped recipes launch, compiled for real devices as `tests/kernels/compile.rs` does.

use crate::compile::{cache, compile_all, nvrtc};
use gan::device::cuda::compiler::Compiler;
use gan::device::cuda::usage::{self, Usage};
use gan::device::launch::{GpuTraits, Math, Specialisation, Tailored};
use gan::exec::cost::{Bandwidth, Peaks};
use gan::graph::Cost;
use gan::recipe::Recipe;
use gan::train::kernels::{Extents, programs, specialisations};
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

/// A device as programs are planned for it: with all kernels that it takes by itself.
pub struct Gpu {
    pub name: &'static str,
    pub architecture: &'static str,
    pub multiprocessors: usize,
    pub hopper: Tailored,
}

impl Gpu {
    pub fn all() -> [Gpu; 3] {
        let of =
            |name, architecture, multiprocessors, hopper| Gpu { name, architecture, multiprocessors, hopper };
        [
            of("H100", "sm_90a", 132, Tailored::Auto),
            of("A100", "sm_80", 108, Tailored::Off),
            of("B200", "sm_100", 148, Tailored::Off),
        ]
    }

    pub fn traits(&self, math: Math) -> GpuTraits {
        GpuTraits {
            multiprocessors: self.multiprocessors,
            math,
            fixed_shapes: true,
            fused: true,
            choices: None,
            hopper: self.hopper,
            window: Tailored::Auto,
        }
    }
}

/// An H100 or H200 that is kept from sm_90a's own kernels: what is compiled for every architecture.
fn general(math: Math) -> GpuTraits {
    GpuTraits { hopper: Tailored::Off, ..Gpu::all()[0].traits(math) }
}

/// What training and predicting with a recipe launches, by kernel file, each once.
fn launched(name: &str, math: Math) -> Kernels {
    let (recipe, extents) = recipe(name);
    let all = specialisations(&recipe, &extents, &general(math)).unwrap_or_else(|e| panic!("{name}: {e}"));
    all.into_iter().map(|what| ((what.file, what.constants.clone()), what)).collect()
}

/// Kernels of one training step of the main recipe on an H100. What is left with fusion are convolutions, half of all, and
/// norms; mixed precision adds a copy of each network's weights, and of the images that are given in fp32 and multiplied; and
/// the convolutions of sm_90a leave statistics and sums to launches of their own.
#[test]
fn a_step_launches_no_more_than_it_did() {
    let (mut recipe, extents) = recipe("mr2pet");
    let count = |recipe: &Recipe, gpu: GpuTraits| {
        programs(recipe, &extents, &gpu).expect("a valid step")[0].launches().count()
    };
    let [single, mixed] = [Math::Fma, Math::Bf16].map(|math| Gpu::all()[0].traits(math));
    let watched = count(&recipe, single);
    recipe.health.watch = false;
    let [plain, fused, general, own] =
        [GpuTraits { fused: false, ..single }, single, general(Math::Bf16), mixed]
            .map(|gpu| count(&recipe, gpu));
    println!(
        "a step launches {plain} kernels, {fused} fused, {general} fused in mixed precision, {own} with sm_90a's own; watching adds {}",
        watched - fused
    );
    assert!(plain > 200 && fused <= 111 && general <= 116 && own <= 160, "{plain} {fused} {general} {own}");
    // Sums over two gradients and two discriminators' outputs.
    assert!(watched - fused <= 10, "{watched} {fused}");
}

/// What the step of a recipe computes, and what it launches and moves, as its plan tells; the least time that it can take on
/// an H200 with the rates that its documents and measurements name: 790 TFLOP/s in bf16 and 4.3 TB/s.
struct Account {
    launches: usize,
    work: Cost,
    megabytes: f64,
    floor_us: f64,
}

/// A step like most: a Wasserstein critic is updated more often in the first ones.
const LATER: u64 = 1001;

fn account(recipe: &Recipe, extents: &Extents, gpu: &GpuTraits) -> Account {
    let method = recipe.method().expect("a method");
    let programs = programs(recipe, extents, gpu).expect("a valid step");
    let mut all = Account { launches: 0, work: Cost::default(), megabytes: 0.0, floor_us: 0.0 };
    let peaks =
        Peaks { flops_per_s: 790e12, bandwidth: vec![Bandwidth { bytes: 1 << 30, bytes_per_s: 4.3e12 }] };
    for run in method.runs(LATER) {
        let program = &programs[run.part];
        let cost = program.plan().cost();
        all.launches += program.launches().count();
        all.work = [all.work, program.plan().work].into_iter().sum();
        all.megabytes += cost.bytes as f64 / 1e6;
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
        let [h100, a100, b200] = Gpu::all();
        let single = account(&recipe, &extents, &h100.traits(Math::Fma));
        let [mixed, others @ ..] =
            [h100, a100, b200].map(|gpu| account(&recipe, &extents, &gpu.traits(Math::Bf16)));
        // The work of a step is no matter of the device.
        assert!(others.iter().chain([&single]).all(|a| a.work == mixed.work), "{name}");
        rows.push(format!(
            "| {name} | {:.1} | {:.1} | {} | {} | {} | {} | {:.1} | {:.1} | {:.0} |",
            mixed.work.flops as f64 / 1e9,
            mixed.work.bytes as f64 / 1e6,
            single.launches,
            mixed.launches,
            others[0].launches,
            others[1].launches,
            single.megabytes,
            mixed.megabytes,
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
    let by_kernel = |gpu: &GpuTraits| {
        let mut by: BTreeMap<&str, usize> = BTreeMap::new();
        programs(&recipe, &extents, gpu).expect("a valid step")[0]
            .launches()
            .for_each(|l| *by.entry(l.kernel).or_default() += 1);
        by
    };
    for gpu in Gpu::all() {
        println!("{} in bf16: {:?}", gpu.name, by_kernel(&gpu.traits(Math::Bf16)));
    }
    let by = by_kernel(&Gpu::all()[0].traits(Math::Fma));
    println!("in f32: {by:?}");
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
    compile_all(compiler, all.iter().copied());
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
