//! CycleGAN: two residual generators and two PatchGANs with instance norm; no pool.

use crate::emulated::Emulator;
use crate::harness::{Cpu, Device, Fixture, Judge, Play, agree, agree_in_single};
use crate::methods::method;
use gan::dtype::Real;
use gan::methods::step::StepBuilder;
use gan::methods::{Given, Shapes};

const LOSSES: [&str; 8] = ["G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B", "D_A", "D_B"];

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
    let model = format!(
        "kind = \"cyclegan\"
         generator = {{ kind = \"resnet\", blocks = {blocks}, ngf = {ngf} }}
         discriminator = {{ kind = \"patch\", layers = {}, ndf = {ndf}, norm = \"instance\" }}",
        convs - 1
    );
    let method = method(&model, "pool = 0", [channels_a, channels_b, channels_b]);
    let shape = fixture.input_shape("a");
    let specs = method.networks(&shape[1..3]).expect("valid sizes");
    let update = fixture.update();
    let mut step = StepBuilder::new(D::Element::DTYPE, 0);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, update.rule.slots())).collect();
    let shapes = Shapes {
        batch: shape[0],
        size: shape[1..3].to_vec(),
        inputs: channels_a,
        targets: channels_b,
        vector: false,
    };
    method.trace(0, &mut step, &nets, &shapes, [&update, &update], &Given::default());
    Play {
        fixture,
        step,
        specs,
        rename,
        inputs: vec![("input".into(), "a".into()), ("target".into(), "b".into())],
        updates: |_, _| 1,
        losses: LOSSES.map(|l| (format!("loss/{l}"), l.to_string())).to_vec(),
        outputs: vec![("G_A(input)", "fake_b"), ("G_B(target)", "fake_a")],
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
