//! GANs from noise: DCGAN, and WGAN-GP with DCGAN's networks.

use crate::emulated::Emulator;
use crate::harness::{Cpu, Device, Fixture, Judge, Play, agree, agree_in_single, follow_in_bf16};
use crate::methods::method;
use gan::dtype::Real;
use gan::methods::step::StepBuilder;
use gan::methods::{Given, Shapes, Source};
use std::collections::HashMap;

/// The networks of a fixture, and the numbers of noise.
fn model(fixture: &Fixture, kind: &str, size: usize) -> (String, usize) {
    let levels = size.ilog2() as usize - 2;
    let ngf = fixture.shape(&format!("G.model.{}.weight", 3 * levels))[0];
    let ndf = fixture.shape("D.model.0.weight")[0];
    let norm = if fixture.has("D.model.3.running_mean") { "batch" } else { "none" };
    let nz = fixture.shape("G.model.0.weight")[0];
    let text = format!(
        "kind = \"{kind}\"\nnz = {nz}
         generator = {{ kind = \"dcgan\", ngf = {ngf} }}
         discriminator = {{ kind = \"dcgan\", ndf = {ndf}, norm = \"{norm}\" }}"
    );
    (text, nz)
}

fn rename(_: &Fixture, _: &str, key: &str) -> String {
    key.replace("main.", "model.")
}

fn dcgan<D: Device>(fixture: &Fixture) -> Judge<'_> {
    let shape = fixture.input_shape("a");
    let (n, size) = (shape[0], shape[1]);
    let (model, nz) = model(fixture, "gan", size);
    let method = method(&model, "", [shape[3], 0, 0]);
    let specs = method.networks(&[size; 2]).expect("valid sizes");
    let update = fixture.update();
    let mut step = StepBuilder::new(D::Element::DTYPE, 0);
    let z = step.graph().input("z", [n, nz]);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, update.rule.slots())).collect();
    let shapes = Shapes { batch: n, size: vec![size; 2], inputs: shape[3], targets: 0, vector: false };
    let given = Given { sources: HashMap::from([(Source::Noise, z)]), ..Given::default() };
    method.trace(0, &mut step, &nets, &shapes, [&update, &update], &given);
    Play {
        fixture,
        step,
        specs,
        rename,
        inputs: [("input", "a"), ("z", "z")].map(|(a, b)| (a.to_string(), b.to_string())).to_vec(),
        updates: |_, _| 1,
        losses: ["D_real", "D_fake", "G"].map(|l| (format!("loss/{l}"), l.to_string())).to_vec(),
        outputs: vec![("G(noise)", "fake")],
    }
    .run::<D>()
}

/// How many critic updates a step of the fixture has.
fn critics(fixture: &Fixture) -> usize {
    (0..).take_while(|i| fixture.tensors.contains_key(&format!("step0/alpha{i}"))).count()
}

fn wgan_gp<D: Device>(fixture: &Fixture) -> Judge<'_> {
    let shape = fixture.input_shape("a");
    let (n, size) = (shape[0], shape[1]);
    let critics = critics(fixture);
    let (model, nz) = model(fixture, "wgan", size);
    let method = method(&model, "lipschitz = { penalty = 10.0 }", [shape[3], 0, 0]);
    let specs = method.networks(&[size; 2]).expect("valid sizes");
    let update = fixture.update();
    let mut step = StepBuilder::new(D::Element::DTYPE, 0);
    let graph = step.graph().clone();
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, update.rule.slots())).collect();
    let shapes = Shapes { batch: n, size: vec![size; 2], inputs: shape[3], targets: 0, vector: false };
    let real = graph.input("a", shape);
    let mut names = vec![("loss/G".to_string(), "G".to_string())];
    // Every update of the critic sees the same real images; the last noise is the generator's.
    for i in 0..=critics {
        let z = graph.input(&format!("z{i}"), [n, nz]);
        let sources = HashMap::from([(Source::Input, real.clone()), (Source::Noise, z)]);
        let alpha = (i < critics).then(|| graph.input(&format!("alpha{i}"), [n, 1, 1, 1]));
        let part = usize::from(i == critics);
        method.trace(
            part,
            &mut step,
            &nets,
            &shapes,
            [&update, &update],
            &Given { sources, alpha, ..Given::default() },
        );
        for name in ["W", "GP"].into_iter().filter(|_| i < critics) {
            let value =
                step.outputs().iter().find(|(n, _)| *n == format!("loss/{name}")).expect("a loss").1.clone();
            step.output(&format!("{name}{i}"), &value);
            names.push((format!("{name}{i}"), format!("{name}{i}")));
        }
    }
    let same = |n: String| (n.clone(), n);
    let noise = (0..=critics).map(|i| same(format!("z{i}")));
    let alphas = (0..critics).map(|i| same(format!("alpha{i}")));
    Play {
        fixture,
        step,
        specs,
        rename,
        inputs: noise.chain(alphas).chain([same("a".to_string())]).collect(),
        updates: |fixture, net| if net == "D" { crate::noise::critics(fixture) } else { 1 },
        losses: names,
        outputs: vec![("G(noise)", "fake")],
    }
    .run::<D>()
}

#[test]
fn dcgan_steps_agree_with_pytorch() {
    agree("step.dcgan", dcgan::<Cpu<f64>>, dcgan::<Cpu<f32>>);
}

#[test]
fn dcgan_steps_agree_on_the_emulator() {
    agree_in_single("step.dcgan", dcgan::<Emulator<0>>);
}

#[test]
fn wgan_gp_steps_agree_with_pytorch() {
    agree("step.wgan-gp", wgan_gp::<Cpu<f64>>, wgan_gp::<Cpu<f32>>);
}

#[test]
fn wgan_gp_steps_agree_on_the_emulator() {
    agree_in_single("step.wgan-gp", wgan_gp::<Emulator<0>>);
}

#[test]
fn wgan_gp_steps_in_mixed_precision_follow() {
    follow_in_bf16("step.wgan-gp", wgan_gp::<Emulator<0, true>>);
}
