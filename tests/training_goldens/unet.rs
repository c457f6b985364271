//! Segmentation: U-Nets in 2D (batch norm, ReLU) and 3D (affine instance norm, leaky ReLU), BCE and soft Dice.

use crate::emulated::Emulator;
use crate::harness::{Cpu, Device, Fixture, Judge, Play, agree, agree_in_single, follow_in_bf16, same};
use crate::methods::method;
use gan::dtype::Real;
use gan::methods::step::StepBuilder;
use gan::methods::{Given, Shapes};

fn play<D: Device>(fixture: &Fixture) -> Judge<'_> {
    let first = fixture.shape("U.enc.0.0.weight");
    let layers = if fixture.has("U.enc.0.1.running_mean") {
        "norm = \"batch\", activation = \"relu\""
    } else {
        "norm = \"instance-affine\", activation = { leaky-relu = 0.01 }"
    };
    let downs = (0..).take_while(|i| fixture.has(&format!("U.upc.{i}.weight"))).count();
    let model = format!(
        "kind = \"supervised\"\nnetwork = {{ kind = \"unet\", base = {}, downs = {downs}, {layers} }}",
        first[0]
    );
    let (inputs, outputs) = (first[1], fixture.shape("U.head.weight")[0]);
    let method = method(&model, "kind = \"regions\"", [inputs, outputs, outputs]);
    let shape = fixture.input_shape("a");
    let size = shape[1..shape.len() - 1].to_vec();
    let specs = method.networks(&size).expect("valid sizes");
    let update = fixture.update();
    let mut step = StepBuilder::new(D::Element::DTYPE, 0);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, update.rule.slots())).collect();
    let shapes = Shapes { batch: shape[0], size, inputs, targets: outputs, vector: false };
    method.trace(0, &mut step, &nets, &shapes, [&update, &update], &Given::default());
    Play {
        fixture,
        step,
        specs,
        rename: same,
        inputs: vec![("input".into(), "a".into()), ("target".into(), "t".into())],
        updates: |_, _| 1,
        losses: ["bce", "dice"].map(|n| (format!("loss/{n}"), n.to_string())).to_vec(),
        outputs: vec![("U(input)", "logits")],
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
