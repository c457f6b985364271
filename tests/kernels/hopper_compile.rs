//! The kernels of sm_90a compiled for everything that the recipes launch there: instructions, registers, the compiler's
//! advisories.

use crate::compile::{cache, compile_all, disassemble, disassembler, nvrtc};
use crate::hopper::{PASSES, device, list};
use crate::recipes::{names, recipe};
use gan::device::cuda::compiler::{Compiler, Specialisation};
use gan::device::cuda::usage;
use gan::device::launch::{Launch, Tailored};
use gan::dtype::DType;
use gan::ops::conv::cuda::launch::Epilogue;
use gan::train::kernels::programs;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The compiler's advisories in a log that mean lost speed, by their codes: registers not handed over (C7508), products one
/// after the other (C7510), waits and fences put in, and whatever else ptxas says of wgmma. All of these codes begin alike, so
/// that one that we have not met fails, too.
fn advisories(log: &str) -> Vec<&str> {
    let codes = log.match_indices("(C75").filter_map(|(at, _)| log.get(at + 1..at + 6));
    codes.filter(|code| code[1..].bytes().all(|b| b.is_ascii_digit())).collect()
}

#[test]
fn products_one_after_the_other_are_a_fault() {
    let log = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to \
               insufficient register resources for the wgmma pipeline in the function 'conv_hopper'\n\
               ptxas info    : Compiling entry function 'conv_hopper' for 'sm_90a' (C75, C7)\n";
    assert_eq!(advisories(log), ["C7510"]);
}

/// Registers of 384 threads that one multiprocessor holds.
const REGISTERS: u32 = 168;

/// A block may have so much dynamic shared memory.
const SHARED: usize = 227 << 10;

fn is_own(file: &str) -> bool {
    file.starts_with("conv_hopper")
}

/// What training with every recipe launches of these kernels, each once, at the recipe's own sizes and channels.
fn launched() -> BTreeMap<Vec<String>, Launch> {
    let gpu = device(132, Tailored::Auto, true);
    let mut all = BTreeMap::new();
    for name in names() {
        let (recipe, extents) = recipe(&name);
        let programs = programs(&recipe, &extents, &gpu).unwrap_or_else(|e| panic!("{name}: {e}"));
        let own: Vec<&Launch> =
            programs.iter().flat_map(|p| p.launches()).filter(|l| is_own(l.specialisation.file)).collect();
        println!("{name}: {} of sm_90a's convolutions", own.len());
        let key =
            |l: &Launch| [&[l.specialisation.file.to_string()], &l.specialisation.constants[..]].concat();
        all.extend(own.into_iter().map(|l| (key(l), l.clone())));
    }
    all
}

/// The primitives, and a layer for each width of a tile and pass, in two axes and three.
fn typical() -> Vec<Specialisation> {
    use crate::geometry::{cube, row, square};
    let mut all = Vec::new();
    for g in [
        row(square(1, 64, 128, 128, 4, 2, 1, 1, 1)),
        row(square(16, 256, 64, 256, 3, 1, 1, 1, 1)),
        row(cube(2, 32, 128, 64, 3, 1, 1, 1, 1)),
    ] {
        for pass in PASSES {
            let (gpu, plain) = (device(132, Tailored::Auto, true), Epilogue::default());
            let list = list(&g, pass, &gpu, DType::Bf16, &plain).expect("suited");
            all.push(list.launches[0].specialisation.clone());
        }
    }
    for columns in [64, 128, 256] {
        let shape = [format!("COLUMNS={columns}"), "A_ACROSS=1".into(), "B_ACROSS=1".into()];
        all.push(Specialisation::new("primitives_hopper.cu", shape));
    }
    all
}

#[test]
fn everything_compiles_to_the_instructions_of_sm_90a() {
    let launched = launched();
    assert!(launched.len() > 20, "only {} specialisations", launched.len());
    for launch in launched.values() {
        assert!(launch.shared <= SHARED && launch.threads == 384, "{launch:?}");
    }
    let Some(nvrtc) = nvrtc() else { return };
    let tool = disassembler(&nvrtc);
    let compiler = Compiler::with(nvrtc, cache());
    let mut all = typical();
    all.extend(launched.into_values().map(|l| l.specialisation));
    compile_all(&compiler, all.iter().map(|what| (what, "sm_90a")));
    let faults: Vec<String> = all
        .par_iter()
        .flat_map(|what| {
            let image = compiler.image(what, "sm_90a").unwrap_or_else(|e| panic!("{e}"));
            let mut faults = Vec::new();
            faults.extend(advisories(&image.log).into_iter().map(|a| format!("the compiler's advisory {a}")));
            let kernels = usage::parse(&image.log);
            for k in &kernels {
                let most = if is_own(what.file) { REGISTERS } else { 255 };
                if k.spills > 0 || k.stack > 0 || k.registers > most {
                    faults.push(format!("{k:?}"));
                }
            }
            if let Some(tool) = &tool {
                let code = disassemble(tool, &image.bytes);
                let mut wanted = vec!["HGMMA", "UTMALDG", "USETMAXREG", "SYNCS"];
                wanted.extend(is_own(what.file).then_some(".IM2COL"));
                faults.extend(wanted.iter().filter(|w| !code.contains(**w)).map(|w| format!("no {w}")));
                let local = ["LDL", "STL"].iter().filter(|w| code.contains(**w));
                faults.extend(local.map(ToString::to_string));
            }
            faults
                .iter()
                .map(|f| format!("{f}: {} {}", what.file, what.constants.join(" ")))
                .collect::<Vec<_>>()
        })
        .collect();
    println!("{} specialisations", all.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
