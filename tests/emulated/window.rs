//! Whole training steps with the convolutions for few channels, beside the same steps without them.

use crate::convolutions::{Kind, faults, small_windows};
use crate::device::{Emulated, Emulator};
use crate::hopper::step;
use crate::suite::{Named, Results};
use gan::device::launch::{Math, Tailored};
use gan::exec::States;
use gan::graph::{Graph, Var};
use gan_emu::Mode;

const MODELS: [&str; 2] = [
    "canvas = [16, 16]\n[model]\nkind = \"pix2pix\"\ngenerator = { kind = \"resnet\", blocks = 1, ngf = 8 }\ndiscriminator = { kind = \"patch\", layers = 1, ndf = 8 }",
    "input = [\"t1ce\", \"flair\"]\ntarget = [\"tumour\"]\npatch = [4, 8, 8]\n[data.labels]\nvalues = [0, 1, 2, 4]\nregions = [{ name = \"WT\", labels = [1, 2, 4] }]\n[model]\nkind = \"supervised\"\n[model.network]\nkind = \"unet\"\nbase = 8\ndowns = 1\nnorm = \"instance-affine\"\n[loss]\nkind = \"regions\"",
];

const OFF: [Tailored; 2] = [Tailored::Off, Tailored::Off];
const ALWAYS: [Tailored; 2] = [Tailored::Off, Tailored::Always];

/// The emulator in bf16 with these kernels wherever they can be taken, as the suite wants a device.
pub fn run(mode: Mode) -> impl Fn(&Graph, &Named<&Var>, &Named<&[f32]>) -> Results {
    move |graph, outputs, inputs| {
        let emulator = Emulator::like(mode, Math::Bf16, true, ALWAYS[0], ALWAYS[1]);
        let mut emulated =
            Emulated::new(&emulator, graph, outputs, &States::new()).map_err(|e| e.to_string())?;
        emulated.run(inputs).map_err(|e| e.to_string())?;
        Ok(outputs.iter().map(|(n, _)| emulated.output(n)).collect())
    }
}

#[test]
fn a_step_with_the_convolutions_for_few_channels_has_the_same_losses() {
    for (model, least) in MODELS.into_iter().zip([3, 9]) {
        let [own, other] = [ALWAYS, OFF].map(|taken| step(model, taken, Mode::all()[0]));
        let window = ["conv_window", "conv_window_grad_w"];
        let taken = window.map(|name| own.count(&[name]));
        assert!(taken[0] >= least && taken[1] >= least / 3, "{taken:?} {:?}", own.launched);
        assert_eq!(other.count(&window), 0);
        own.assert_losses_of(&other, model);
    }
}

#[test]
fn a_step_with_them_gives_the_same_bits_in_every_order() {
    let first = step(MODELS[1], ALWAYS, Mode::all()[0]);
    for mode in [Mode::all()[4], Mode::all()[8]] {
        assert!(step(MODELS[1], ALWAYS, mode).states == first.states, "{mode:?}");
    }
}

#[test]
fn convolutions_by_themselves_as_a_device_is_tested() {
    let emulator = Emulator::new(Mode::all()[8], Math::Bf16);
    let faults = faults(&*emulator, Kind::Window, &small_windows());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
