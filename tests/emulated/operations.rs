//! Every operation of the registry on the emulator.

use crate::device::{Emulated, Emulator};
use crate::suite::{
    Named, Results, check, check_mixed, check_product, is_product, registry, stored_in_half, trace,
};
use gan::device::launch::Math;
use gan::dtype::DType;
use gan::exec::States;
use gan::graph::{Graph, Var};
use gan::ops::sample::Sample;
use gan_emu::Mode;

/// Threads from the first one on, copies as late as they may.
fn forward() -> Mode {
    Mode::all()[0]
}

fn report(checked: usize, failures: &[String]) {
    assert!(failures.is_empty(), "{} of {checked} fail:\n{}", failures.len(), failures.join("\n"));
}

/// The emulator, as the suite wants a device.
fn run(mode: Mode, math: Math, fused: bool) -> impl Fn(&Graph, &Named<&Var>, &Named<&[f32]>) -> Results {
    move |graph, outputs, inputs| {
        let emulator = Emulator::with(mode, math, fused);
        let mut emulated =
            Emulated::new(&emulator, graph, outputs, &States::new()).map_err(|e| e.to_string())?;
        emulated.run(inputs).map_err(|e| e.to_string())?;
        Ok(outputs.iter().map(|(n, _)| emulated.output(n)).collect())
    }
}

fn check_all(fused: bool) {
    let samples = registry();
    assert!(samples.len() > 200, "the registry has only {} samples", samples.len());
    let run = run(forward(), Math::Fma, fused);
    let failures: Vec<String> =
        samples.iter().filter_map(|s| check(s, &run).err().map(|e| format!("{}: {e}", s.name))).collect();
    report(samples.len(), &failures);
}

#[test]
fn every_sample_and_its_gradients() {
    check_all(false);
}

#[test]
fn every_sample_and_its_gradients_fused() {
    check_all(true);
}

/// One in three, which takes some of each operation.
#[test]
fn mixed_precision_loses_what_bf16_loses() {
    let run = run(forward(), Math::Bf16, true);
    let (mut checked, mut halves) = (0, 0);
    let mut failures = Vec::new();
    for sample in registry().iter().step_by(3) {
        halves += stored_in_half(sample);
        failures.extend(check_mixed(sample, &run).err().map(|e| format!("{}: {e}", sample.name)));
        checked += 1;
    }
    report(checked, &failures);
    assert!(halves > 2 * checked, "only {halves} values of {checked} samples were stored in bf16");
}

/// One in eight, which takes some of each operation: whatever order threads and copies come in, the same bits.
#[test]
fn the_order_of_threads_changes_nothing() {
    let samples: Vec<Sample> = registry().into_iter().step_by(8).collect();
    let mut failures = Vec::new();
    for sample in &samples {
        let (x, traced) = (sample.draw(), trace(sample, DType::F32));
        let bits = |mode: Mode| -> Result<Vec<u32>, String> {
            Ok(traced.on(&run(mode, Math::Fma, true), &x)?.concat().iter().map(|v| v.to_bits()).collect())
        };
        let first = bits(forward());
        for mode in Mode::all() {
            if first.is_err() || bits(mode) != first {
                failures.push(format!("{} {mode:?}: {:?}", sample.name, first.as_ref().err()));
                break;
            }
        }
    }
    report(samples.len(), &failures);
}

/// Tensor cores multiply what they take exactly and add in single precision: with inputs that bf16 holds, convolutions
/// and matrix products come out as exactly as without them.
#[test]
fn tensor_cores_are_exact_for_inputs_that_they_hold() {
    let mut checked = 0;
    for sample in registry().iter().filter(|s| is_product(s)) {
        for math in [Math::Tf32, Math::Bf16] {
            check_product(sample, &run(forward(), math, true))
                .unwrap_or_else(|e| panic!("{} {math:?}: {e}", sample.name));
        }
        check_product(sample, &crate::window::run(forward()))
            .unwrap_or_else(|e| panic!("{} by windows: {e}", sample.name));
        checked += 1;
    }
    assert!(checked > 20, "only {checked} samples");
}

#[test]
fn every_primitive_is_what_its_documentation_says() {
    for mode in Mode::all() {
        let faults = crate::primitives::faults(&*Emulator::new(mode, Math::Fma), true);
        assert!(faults.is_empty(), "{mode:?}: {}", faults.join("\n"));
    }
}

#[test]
fn every_primitive_of_sm_90a_is_what_its_documentation_says() {
    for mode in Mode::all() {
        let faults = crate::primitives_hopper::faults(&*Emulator::new(mode, Math::Bf16));
        assert!(faults.is_empty(), "{mode:?}: {}", faults.join("\n"));
    }
}
