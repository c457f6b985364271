//! Segmentation: U-Nets in 2D (batch norm, ReLU) and 3D (affine instance norm, leaky ReLU), BCE and soft Dice.

use crate::emulated::Emulator;
use crate::harness::{Cpu, Device, Fixture, Judge, Play, agree, agree_in_single, follow_in_bf16, same};
use gan::dtype::Real;
use gan::models::{DenseNetwork, SegmentationUnet};
use gan::nn::{Activation, Norm};
use gan::train::step::StepBuilder;
use gan::train::supervised::{Supervised, SupervisedLoss};

fn play<D: Device>(fixture: &Fixture) -> Judge<'_> {
    let first = fixture.shape("U.enc.0.0.weight");
    let (norm, activation) = if fixture.has("U.enc.0.1.running_mean") {
        (Norm::Batch, Activation::Relu)
    } else {
        (Norm::InstanceAffine, Activation::LeakyRelu(0.01))
    };
    let network = SegmentationUnet {
        base: first[0],
        downs: (0..).take_while(|i| fixture.has(&format!("U.upc.{i}.weight"))).count(),
        norm,
        activation,
        ..Default::default()
    };
    let method = Supervised {
        network: DenseNetwork::Unet(network),
        residual: false,
        loss: SupervisedLoss::Regions { bce: 1.0, dice: 1.0, smooth: 1.0 },
        inputs: first[1],
        outputs: fixture.shape("U.head.weight")[0],
    };
    let shape = fixture.input_shape("a");
    let specs = method.describe(&shape[1..shape.len() - 1]).expect("valid sizes");
    let update = fixture.update();
    let mut step = StepBuilder::new(D::Element::DTYPE, 0);
    let x = step.graph().input("a", shape);
    let target = step.graph().input("t", fixture.input_shape("t"));
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, update.rule.slots())).collect();
    method.trace_step(&mut step, &nets, &x, &target, &update);
    Play {
        fixture,
        step,
        specs,
        rename: same,
        inputs: ["a", "t"].map(|n| (n.to_string(), n.to_string())).to_vec(),
        updates: |_, _| 1,
        losses: ["bce", "dice"].map(|n| (format!("loss/{n}"), n.to_string())).to_vec(),
        outputs: vec![("output", "logits")],
    }
    .run::<D>()
}

#[test]
fn unet_2d_steps_agree_with_pytorch() {
    agree("step.unet2d", play::<Cpu<f64>>, play::<Cpu<f32>>);
}

#[test]
fn unet_2d_steps_agree_on_the_emulator() {
    agree_in_single("step.unet2d", play::<Emulator<0>>);
}

#[test]
fn unet_2d_steps_in_mixed_precision_follow() {
    follow_in_bf16("step.unet2d", play::<Emulator<0, true>>);
}

#[test]
fn unet_3d_steps_agree_with_pytorch() {
    agree("step.unet3d", play::<Cpu<f64>>, play::<Cpu<f32>>);
}

#[test]
fn unet_3d_steps_agree_on_the_emulator() {
    agree_in_single("step.unet3d", play::<Emulator<0>>);
}
