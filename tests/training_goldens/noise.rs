//! GANs from noise: DCGAN, and WGAN-GP with DCGAN's networks.

use crate::emulated::Emulator;
use crate::harness::{Cpu, Device, Fixture, Judge, Play, agree, agree_in_single};
use gan::dtype::Real;
use gan::models::{DcganDiscriminator, DcganGenerator, NoiseDiscriminator, NoiseGenerator, NoiseModel};
use gan::nn::Norm;
use gan::train::adversarial::{Adversarial, LOSSES};
use gan::train::step::StepBuilder;
use gan::train::wgan::{CriticInputs, Wgan, WganLoss};

/// The networks of a fixture.
fn model(fixture: &Fixture, size: usize) -> NoiseModel {
    let levels = size.ilog2() as usize - 2;
    let ngf = fixture.shape(&format!("G.model.{}.weight", 3 * levels))[0];
    let ndf = fixture.shape("D.model.0.weight")[0];
    let norm = if fixture.has("D.model.3.running_mean") { Norm::Batch } else { Norm::None };
    NoiseModel {
        nz: fixture.shape("G.model.0.weight")[0],
        generator: NoiseGenerator::Dcgan(DcganGenerator { ngf, norm: Norm::Batch }),
        discriminator: NoiseDiscriminator::Dcgan(DcganDiscriminator { ndf, norm }),
    }
}

fn rename(_: &Fixture, _: &str, key: &str) -> String {
    key.replace("main.", "model.")
}

fn dcgan<D: Device>(fixture: &Fixture) -> Judge<'_> {
    let shape = fixture.input_shape("a");
    let (n, size) = (shape[0], shape[1]);
    let model = model(fixture, size);
    let nz = model.nz;
    let method = Adversarial { model, loss: Default::default(), size, channels: shape[3] };
    let specs = method.describe().expect("valid sizes");
    let update = fixture.update();
    let mut step = StepBuilder::new(D::Element::DTYPE, 0);
    let real = step.graph().input("real", shape);
    let z = step.graph().input("z", [n, nz]);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, update.rule.slots())).collect();
    method.trace_step(&mut step, &nets, &real, &z, [&update, &update]);
    Play {
        fixture,
        step,
        specs,
        rename,
        inputs: [("real", "a"), ("z", "z")].map(|(a, b)| (a.to_string(), b.to_string())).to_vec(),
        updates: |_, _| 1,
        losses: LOSSES.iter().map(|l| (l.to_string(), l.replace("loss/", ""))).collect(),
        outputs: vec![("fake", "fake")],
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
    let (model, critics) = (model(fixture, size), critics(fixture));
    let nz = model.nz;
    let method = Wgan { model, loss: WganLoss::gradient_penalty(), size, channels: shape[3] };
    let specs = method.describe().expect("valid sizes");
    let update = fixture.update();
    let mut step = StepBuilder::new(D::Element::DTYPE, 0);
    let graph = step.graph().clone();
    let real = graph.input("a", shape);
    let z: Vec<_> = (0..=critics).map(|i| graph.input(&format!("z{i}"), [n, nz])).collect();
    // Every update of the critic sees the same real images.
    let inputs: Vec<CriticInputs> = (0..critics)
        .map(|i| CriticInputs {
            real: real.clone(),
            z: z[i].clone(),
            alpha: graph.input(&format!("alpha{i}"), [n, 1, 1, 1]),
        })
        .collect();
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, update.rule.slots())).collect();
    let losses = method.trace_step(&mut step, &nets, &inputs, &z[critics], [&update, &update]);
    let mut names = vec![("loss/G".to_string(), "G".to_string())];
    for (i, l) in losses.iter().enumerate() {
        for (name, value) in [("W", &l.w), ("GP", &l.penalty)] {
            step.output(&format!("{name}{i}"), value);
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
        outputs: vec![("fake", "fake")],
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
