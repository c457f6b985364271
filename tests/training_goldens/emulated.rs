//! Steps on the emulator of the GPU: the same launches as a device gets, in single precision.

use crate::device::{self, Emulated};
use crate::harness::Device;
use gan::device::launch::Math;
use gan::exec::States;
use gan::methods::step::StepBuilder;
use gan_emu::Mode;

/// The emulator in one of its nine modes, in mixed precision if `MIXED`.
pub struct Emulator<const MODE: usize, const MIXED: bool = false>(Emulated);

impl<const MODE: usize, const MIXED: bool> Device for Emulator<MODE, MIXED> {
    type Element = f32;

    fn new(step: &StepBuilder, states: &States) -> Self {
        let emulator = device::Emulator::new(Mode::all()[MODE], if MIXED { Math::Bf16 } else { Math::Fma });
        let emulated = Emulated::new(&emulator, step.graph(), &step.outputs(), states);
        Emulator(emulated.unwrap_or_else(|e| panic!("{e}")))
    }

    fn run(&mut self, states: &mut States, inputs: &[(&str, &[f32])]) {
        self.0.run(inputs).unwrap_or_else(|e| panic!("{e}"));
        self.0.states.download(states).expect("states come back");
    }

    fn output(&mut self, _: &mut States, name: &str) -> Vec<f64> {
        self.0.output(name).into_iter().map(f64::from).collect()
    }
}
