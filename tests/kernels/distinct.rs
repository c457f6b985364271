//! How many kernels a recipe has compiled: each costs a part of a second before the first step.

use crate::recipes::{names, recipe};
use gan::device::cuda::target;
use gan::device::launch::{Launch, Math};
use gan::exec::gpu::Prepared;
use gan::recipe::Recipe;
use gan::train::kernels::{Extents, programs};
use std::collections::BTreeSet;
use std::path::Path;

/// pix2pix as in the paper.
const PAPER: [&str; 5] = [
    "model.generator.downs=8",
    "model.generator.ngf=64",
    "model.discriminator.layers=3",
    "model.discriminator.ndf=64",
    "train.batch=1",
];

fn count<'a>(launches: impl Iterator<Item = &'a Launch>) -> usize {
    let one = |l: &'a Launch| (l.specialisation.file, &l.specialisation.constants);
    launches.map(one).collect::<BTreeSet<_>>().len()
}

fn all(recipe: &Recipe, extents: &Extents, math: Math) -> Vec<Prepared> {
    let gpu = target::traits("sm_90a", None, math).expect("settings");
    programs(recipe, extents, &gpu).expect("a valid step")
}

/// Layers that differ in what does not matter share their kernels: 105 of them were compiled for the paper's step in bf16 with
/// its predictions, 100 in f32.
#[test]
fn the_step_of_the_paper_takes_few_kernels() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/mr2pet.toml");
    let recipe = Recipe::load(&path, &PAPER.map(String::from)).expect("a recipe");
    let extents = Extents::given(vec![256, 256]);
    for (math, step, with_predictions) in STEPS {
        let programs = all(&recipe, &extents, math);
        let counts = [count(programs[0].launches()), count(programs.iter().flat_map(Prepared::launches))];
        println!("{}: {} kernels in a step, {} with predictions", math.name(), counts[0], counts[1]);
        assert!(counts[0] <= step && counts[1] <= with_predictions, "{} {counts:?}", math.name());
    }
}

/// Of a step, and with predictions in batches of eight.
const STEPS: [(Math, usize, usize); 3] = [(Math::Bf16, 66, 72), (Math::Tf32, 80, 80), (Math::Fma, 80, 80)];

/// For whoever wants to know.
#[test]
fn what_recipes_compile() {
    for name in names() {
        let (recipe, extents) = recipe(&name);
        let of = |math| count(all(&recipe, &extents, math).iter().flat_map(Prepared::launches));
        println!("{name}: {} kernels in f32, {} in bf16", of(Math::Fma), of(Math::Bf16));
    }
}
