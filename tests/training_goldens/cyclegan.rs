//! CycleGAN: two residual generators and two PatchGANs with instance norm; no pool.

use crate::emulated::Emulator;
use crate::harness::{Cpu, Device, Fixture, Judge, Play, agree, agree_in_single};
use gan::dtype::Real;
use gan::models::{ImageDiscriminator, ImageGenerator, PatchGan, ResnetGenerator};
use gan::nn::Norm;
use gan::train::cyclegan::{CycleGan, CycleGanLoss, CycleGanModel, LOSSES};
use gan::train::step::StepBuilder;

fn rename(_: &Fixture, _: &str, key: &str) -> String {
    key.replace(".conv_block.", ".body.")
}

fn play<D: Device>(fixture: &Fixture) -> Judge<'_> {
    let first = fixture.shape("G_A.model.1.weight");
    let (ngf, channels_a) = (first[0], first[1]);
    let channels_b = fixture.shape("G_B.model.1.weight")[1];
    let blocks = (10..).take_while(|i| fixture.has(&format!("G_A.model.{i}.body.1.weight"))).count();
    let ndf = fixture.shape("D_A.model.0.weight")[0];
    let convs =
        (0..).step_by(3).skip(1).take_while(|i| fixture.has(&format!("D_A.model.{}.weight", i - 1))).count();
    let method = CycleGan {
        model: CycleGanModel {
            generator: ImageGenerator::Resnet(ResnetGenerator { blocks, ngf, ..Default::default() }),
            discriminator: ImageDiscriminator::Patch(PatchGan {
                layers: convs - 1,
                ndf,
                norm: Norm::Instance,
            }),
        },
        loss: CycleGanLoss { pool: 0, ..Default::default() },
        channels_a,
        channels_b,
    };
    let shape = fixture.input_shape("a");
    let specs = method.describe(&shape[1..3]).expect("valid sizes");
    let update = fixture.update();
    let mut step = StepBuilder::new(D::Element::DTYPE, 0);
    let a = step.graph().input("a", shape);
    let b = step.graph().input("b", fixture.input_shape("b"));
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, update.rule.slots())).collect();
    method.trace_step(&mut step, &nets, &a, &b, [&update, &update]);
    Play {
        fixture,
        step,
        specs,
        rename,
        inputs: ["a", "b"].map(|n| (n.to_string(), n.to_string())).to_vec(),
        updates: |_, _| 1,
        losses: LOSSES.iter().map(|l| (l.to_string(), l.replace("loss/", ""))).collect(),
        outputs: vec![("fake_B", "fake_b"), ("fake_A", "fake_a")],
    }
    .run::<D>()
}

#[test]
fn cyclegan_steps_agree_with_pytorch() {
    agree("step.cyclegan", play::<Cpu<f64>>, play::<Cpu<f32>>);
}

#[test]
fn cyclegan_steps_agree_on_the_emulator() {
    agree_in_single("step.cyclegan", play::<Emulator<0>>);
}
