//! Everything that the main recipe's training step launches, compiled for real devices as `tests/kernels/compile.rs` does.

use crate::compile::{cache, nvrtc};
use gan::device::cuda::compiler::Compiler;
use gan::device::cuda::usage;
use gan::device::launch::{GpuTraits, Math, Specialisation};
use gan::exec::gpu::launches;
use gan::train::method::{self, Shapes};
use gan::train::recipe::Recipe;
use gan::train::session::step_programs;
use std::collections::BTreeMap;
use std::path::Path;

/// Slices of the recipe's phantom, padded to what five halvings divide.
const CANVAS: [usize; 2] = [96, 128];

/// What the recipe's step launches, by kernel file, each once.
fn specialisations(math: Math) -> BTreeMap<(&'static str, Vec<String>), Specialisation> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/mr2pet.toml");
    let recipe = Recipe::load(&path, &[]).expect("a recipe");
    let method = method::build(&recipe).expect("a method");
    let specs = method.networks(&CANVAS).expect("valid sizes");
    let shapes = Shapes { batch: recipe.train.batch, size: CANVAS.to_vec(), inputs: 1, targets: 1 };
    let programs = step_programs(&recipe, method.as_ref(), &specs, &shapes).expect("a valid step");
    let gpu = GpuTraits { multiprocessors: 132, math, fixed_shapes: true };
    let mut found = BTreeMap::new();
    for step in programs.iter().flat_map(|p| &p.program.plan().steps) {
        for launch in launches(step, &gpu).expect("every operation has kernels").launches {
            let what = launch.specialisation;
            found.insert((what.file, what.constants.clone()), what);
        }
    }
    found
}

#[test]
fn the_main_recipe_compiles_without_spills() {
    let Some(nvrtc) = nvrtc() else { return };
    let compiler = Compiler::with(nvrtc, cache());
    let mut faults = Vec::new();
    // Exact arithmetic everywhere; tensor cores are compiled layer by layer beside this.
    let all = specialisations(Math::Fma);
    assert!(
        all.keys().any(|k| k.0 == "conv_grad_w.cu") && all.len() > 40,
        "only {} specialisations",
        all.len()
    );
    println!("{} specialisations", all.len());
    for what in all.values() {
        for architecture in ["sm_80", "sm_90", "sm_100"] {
            let image = compiler.image(what, architecture).unwrap_or_else(|e| panic!("{e}"));
            for kernel in usage::parse(&image.log).iter().filter(|k| k.spills > 0 || k.stack > 0) {
                faults.push(format!("{architecture} {kernel:?}: {}", what.constants.join(" ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
