//! Every launch of every recipe, training and predicting, in every precision, held against what an A100, an H100 and a B200
//! let be launched: the grid, the threads and registers of a block, its shared memory with what the compiler says is static,
//! the arguments, the maps of tensors.
//!
//! A kernel's static shared memory, its launch bound and its parameters do not depend on the numbers of a layer or on what
//! is computed at its end. So of the specialisations that differ in nothing else one is compiled, for one architecture, and only
//! where dynamic shared memory is asked for beside the static; of other kernels one of each name.

use crate::compile::{cache, compile_all, nvrtc};
use crate::cubin::{Facts, facts};
use crate::recipes::{Gpu, names, recipe};
use gan::compile::plan::Step;
use gan::device::cpu::{Place, Slot};
use gan::device::cuda::compiler::Compiler;
use gan::device::launch::{Launch, LaunchArg, Math, Tailored};
use gan::device::limits::{Compiled, LaunchLimits, argument_bytes, check_maps};
use gan::train::kernels::programs;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Constants whose values decide nothing of what a launch must fit.
const FREE: [&str; 6] = ["GEOMETRY", "ACTIVATION(", "EXPRESSION", "SECOND", "LOSS(", "GRADIENT("];

type Key = (&'static str, String, &'static str, String);

/// Architecture, file, kernel, and the constants without the values of the free ones.
fn key(architecture: &'static str, launch: &Launch) -> Key {
    let what = &launch.specialisation;
    let kept = |c: &String| {
        let free = FREE.iter().find(|f| c.starts_with(**f));
        free.map_or(c.clone(), ToString::to_string)
    };
    let constants: Vec<String> = what.constants.iter().map(kept).collect();
    (architecture, what.file.to_string(), launch.kernel, constants.join(" "))
}

/// Where an argument points to, of states, arena, workspace and tables that begin at multiples of 256.
fn address(step: &Step, arg: &LaunchArg) -> u64 {
    let slot = |s: &Slot, at: usize| {
        let (Place::Arena(from) | Place::State(_, from)) = s.place;
        (from + at * s.dtype.size()) as u64
    };
    match arg {
        LaunchArg::Input(i) => slot(&step.inputs[*i], 0),
        LaunchArg::InputAt(i, at) => slot(&step.inputs[*i], *at),
        LaunchArg::Output => slot(&step.output, 0),
        LaunchArg::OutputAt(at) => slot(&step.output, *at),
        LaunchArg::Workspace(at) => *at as u64,
        other => panic!("a map of {other:?}"),
    }
}

/// The kernels that a device is let take: as it would, none that are made for some layers, and all wherever they can.
fn settings(gpu: &Gpu, math: Math) -> Vec<(Tailored, Tailored)> {
    match (math, gpu.hopper) {
        (Math::Bf16, Tailored::Off) => {
            vec![
                (Tailored::Off, Tailored::Auto),
                (Tailored::Off, Tailored::Off),
                (Tailored::Off, Tailored::Always),
            ]
        }
        (Math::Bf16, _) => vec![
            (Tailored::Auto, Tailored::Auto),
            (Tailored::Off, Tailored::Off),
            (Tailored::Always, Tailored::Off),
            (Tailored::Auto, Tailored::Always),
        ],
        _ => vec![(gpu.hopper, Tailored::Auto)],
    }
}

/// All launches by the facts that they share; and what is wrong with them even without the compiler.
fn walk(faults: &mut Vec<String>) -> (BTreeMap<Key, Vec<Launch>>, usize) {
    let mut all: BTreeMap<Key, Vec<Launch>> = BTreeMap::new();
    let mut count = 0;
    for gpu in Gpu::all() {
        for name in names() {
            let (recipe, extents) = recipe(&name);
            for math in [Math::Fma, Math::Tf32, Math::Bf16] {
                for (hopper, window) in settings(&gpu, math) {
                    let traits = gan::device::launch::GpuTraits { hopper, window, ..gpu.traits(math) };
                    let programs =
                        programs(&recipe, &extents, &traits).unwrap_or_else(|e| panic!("{name}: {e}"));
                    for (step, list) in programs.iter().flat_map(|p| p.steps()) {
                        for launch in &list.launches {
                            count += 1;
                            if let Err(e) = check_maps(launch, |arg| address(step, arg)) {
                                faults
                                    .push(format!("{name} {} {math:?} {}: {e}", gpu.architecture, step.path));
                            }
                            let alike = all.entry(key(gpu.architecture, launch)).or_default();
                            if !alike.contains(launch) {
                                alike.push(launch.clone());
                            }
                        }
                    }
                }
            }
        }
    }
    (all, count)
}

fn limits(architecture: &str) -> LaunchLimits {
    let digits: String = architecture.chars().filter(char::is_ascii_digit).collect();
    LaunchLimits::of(digits.parse().expect("a number"), true)
}

/// What is wrong with launches of one kernel.
fn check(architecture: &str, facts: &Facts, launches: &[Launch]) -> Vec<String> {
    let one = |launch: &Launch| {
        let why = limits(architecture).check(launch, &facts.compiled).err();
        let bytes = argument_bytes(&launch.args);
        let differ = (bytes != facts.parameters).then(|| {
            format!("{}: {bytes} bytes of arguments for {} of parameters", launch.kernel, facts.parameters)
        });
        why.or(differ).map(|e| format!("{architecture} {e}: {}", launch.specialisation.constants.join(" ")))
    };
    launches.iter().filter_map(one).collect()
}

#[test]
fn every_launch_of_every_recipe_is_one_that_a_driver_takes() {
    let mut faults = Vec::new();
    let (all, count) = walk(&mut faults);
    assert!(count > 30_000 && all.len() > 300, "only {count} launches of {} kinds", all.len());
    println!("{count} launches of {} kinds", all.len());
    let Some(nvrtc) = nvrtc() else { return };
    let compiler = Compiler::with(nvrtc, cache());
    // What is static, the launch bound and the parameters are those of the source: one architecture's compiler tells them for
    // all (registers differ, which the launch bound limits). Where nothing is asked for beside what is static, one kernel of
    // each name is enough; the others are held against the limits alone.
    let mut kinds: BTreeMap<_, Vec<(&'static str, &Launch)>> = BTreeMap::new();
    for ((architecture, file, kernel, constants), launches) in &all {
        let kind = kinds.entry((file, *kernel, constants)).or_default();
        kind.extend(launches.iter().map(|l| (*architecture, l)));
    }
    let mut names = BTreeSet::new();
    let mut named = |file: &str, kernel: &str| names.insert((file.to_string(), kernel.to_string()));
    let (told, rest): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|((file, kernel, _), launches)| {
        named(file, kernel) || launches.iter().any(|(_, l)| l.shared > 0)
    });
    println!("{} compiled, {} held against the limits alone", told.len(), rest.len());
    assert!(told.len() > 100, "only {} kinds with dynamic shared memory", told.len());
    for (architecture, launch) in rest.iter().flat_map(|(_, launches)| launches) {
        let any = Compiled { registers: 0, static_shared: 0, threads: 1024 };
        faults.extend(limits(architecture).check(launch, &any).err());
    }
    // One that is there already, if any is.
    let told: Vec<_> = told
        .into_iter()
        .map(|((_, kernel, _), launches)| {
            let known = |(architecture, l): &&(&'static str, &Launch)| {
                compiler.is_cached(&l.specialisation, architecture)
            };
            let (architecture, launch) = *launches.iter().find(known).unwrap_or(&launches[0]);
            (kernel, &launch.specialisation, architecture, launches)
        })
        .collect();
    compile_all(&compiler, told.iter().map(|(_, what, architecture, _)| (*what, *architecture)));
    let compiled = |(kernel, what, architecture, launches): (_, _, _, Vec<(&'static str, &Launch)>)| {
        let image = compiler.image(what, architecture).unwrap_or_else(|e| panic!("{e}"));
        let facts = facts(&image, kernel);
        let each = |(architecture, l): &(&'static str, &Launch)| {
            check(architecture, &facts, std::slice::from_ref(*l))
        };
        launches.iter().flat_map(each).collect::<Vec<_>>()
    };
    faults.extend(told.into_par_iter().flat_map(compiled).collect::<Vec<_>>());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Each fault, planted in a launch of a recipe, with the facts of its own cubin.
#[test]
fn planted_faults_are_found() {
    let (recipe, extents) = recipe("mr2pet");
    let gpu = Gpu::all().into_iter().find(|g| g.architecture == "sm_90a").expect("an H100");
    let programs = programs(&recipe, &extents, &gpu.traits(Math::Bf16)).expect("a valid step");
    let (step, good) = programs
        .iter()
        .flat_map(|p| p.steps())
        .flat_map(|(step, list)| list.launches.iter().map(move |l| (step, l)))
        .find(|(_, l)| l.kernel == "conv_hopper")
        .expect("a convolution of sm_90a");
    let maps = |launch: &Launch, shift: u64| check_maps(launch, |arg| address(step, arg) + shift);
    assert_eq!(maps(good, 0), Ok(()));
    assert!(maps(good, 8).expect_err("an odd place").contains("no multiple of 16"));
    let Some(nvrtc) = nvrtc() else { return };
    let compiler = Compiler::with(nvrtc, cache());
    let image = compiler.image(&good.specialisation, "sm_90a").unwrap_or_else(|e| panic!("{e}"));
    let facts = facts(&image, good.kernel);
    println!("{facts:?}, {} dynamic", good.shared);
    let broken = |change: &dyn Fn(&mut Launch), why: &str| {
        let mut launch = good.clone();
        change(&mut launch);
        let found = check("sm_90a", &facts, &[launch]);
        assert!(found.iter().any(|f| f.contains(why)), "{why}: {found:?}");
    };
    assert_eq!(check("sm_90a", &facts, std::slice::from_ref(good)), Vec::<String>::new());
    broken(&|l| l.grid[0] = 0, "without blocks");
    broken(&|l| l.grid[1] = 70_000, "along y");
    broken(&|l| l.threads += 32, "compiled for 1 to 384");
    broken(&|l| l.shared = (227 << 10) - facts.compiled.static_shared + 1, "shared memory");
    broken(&|l| l.args.push(vec![0i32; 8192][..].into()), "a launch has 32764");
    broken(&|l| l.args.push(LaunchArg::Null), "of parameters");
    // What fits an H100 need not fit an A100.
    let a100 = check("sm_80", &facts, std::slice::from_ref(good));
    assert!(good.shared + facts.compiled.static_shared > 163 << 10 && a100.len() == 1, "{a100:?}");
}
