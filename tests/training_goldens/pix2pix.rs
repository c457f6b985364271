//! pix2pix: a U-Net generator and a PatchGAN with batch norm.

use crate::emulated::Emulator;
use crate::harness::{Cpu, Device, Fixture, Judge, Play, agree, agree_in_single, fixtures, follow_in_bf16};
use crate::methods::method;
use gan::dtype::Real;
use gan::methods::step::StepBuilder;
use gan::methods::{Given, Shapes};

fn downs(fixture: &Fixture) -> usize {
    (0..).take_while(|i| fixture.has(&format!("G.down.{i}.weight"))).count()
}

/// The fixture's names of the generator's tensors, for ours: `model.model.0.weight` is `down.0.weight`, and so on.
fn unet_name(key: &str, downs: usize) -> String {
    let (path, tensor) = key.rsplit_once('.').expect("a tensor's name");
    let depth = path.matches(".3.").count() + usize::from(path.starts_with("model.model.1."));
    let last: usize = path.rsplit_once('.').expect("a module").1.parse().expect("its number");
    let module = match (depth, last) {
        (0, 0) => "down.0".to_string(),
        (0, _) => "up.0".to_string(),
        (k, 1) => format!("down.{k}"),
        (k, 3) if k == downs - 1 => format!("up.{k}"),
        (k, 4) if k == downs - 1 => format!("up_norm.{k}"),
        (k, 2) => format!("down_norm.{k}"),
        (k, 5) => format!("up.{k}"),
        (k, _) => format!("up_norm.{k}"),
    };
    format!("{module}.{tensor}")
}

fn rename(fixture: &Fixture, net: &str, key: &str) -> String {
    if net == "G" { unet_name(key, downs(fixture)) } else { key.to_string() }
}

fn play<D: Device>(fixture: &Fixture) -> Judge<'_> {
    let (ngf, inputs) = (fixture.shape("G.down.0.weight")[0], fixture.shape("G.down.0.weight")[1]);
    let targets = fixture.shape("G.up.0.weight")[1];
    let ndf = fixture.shape("D.model.0.weight")[0];
    let convs =
        (0..).step_by(3).skip(1).take_while(|i| fixture.has(&format!("D.model.{}.weight", i - 1))).count();
    let model = format!(
        "kind = \"pix2pix\"
         generator = {{ kind = \"unet\", downs = {}, ngf = {ngf}, norm = \"batch\", dropout = 0.0 }}
         discriminator = {{ kind = \"patch\", layers = {}, ndf = {ndf}, norm = \"batch\" }}",
        downs(fixture),
        convs - 1
    );
    let method = method(&model, "lambda_l1 = 100.0", [inputs, targets, targets]);
    let shape = fixture.input_shape("a");
    let specs = method.networks(&shape[1..3]).expect("valid sizes");
    let update = fixture.update();
    let mut step = StepBuilder::new(D::Element::DTYPE, 0);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, update.rule.slots())).collect();
    let shapes = Shapes { batch: shape[0], size: shape[1..3].to_vec(), inputs, targets, vector: false };
    method.trace(0, &mut step, &nets, &shapes, [&update, &update], &Given::default());
    let same = |name: &str| (format!("loss/{name}"), name.to_string());
    Play {
        fixture,
        step,
        specs,
        rename,
        inputs: vec![("input".into(), "a".into()), ("target".into(), "b".into())],
        updates: |_, _| 1,
        losses: ["D_fake", "D_real", "G_GAN", "G_L1"].map(same).to_vec(),
        outputs: vec![("G(input)", "fake")],
    }
    .run::<D>()
}

#[test]
fn pix2pix_steps_agree_with_pytorch() {
    agree("step.pix2pix", play::<Cpu<f64>>, play::<Cpu<f32>>);
}

#[test]
fn pix2pix_steps_agree_on_the_emulator() {
    agree_in_single("step.pix2pix", play::<Emulator<0>>);
}

#[test]
fn pix2pix_steps_in_mixed_precision_follow() {
    follow_in_bf16("step.pix2pix", play::<Emulator<0, true>>);
}

/// The same bits whatever the order of threads and blocks and the time at which copies land.
#[test]
fn pix2pix_steps_do_not_depend_on_the_order_of_threads() {
    for fixture in &fixtures("step.pix2pix") {
        let forward = play::<Emulator<0>>(fixture).bits;
        assert!(forward == play::<Emulator<4>>(fixture).bits, "in reverse, with early copies");
        assert!(forward == play::<Emulator<8>>(fixture).bits, "at random");
    }
}
