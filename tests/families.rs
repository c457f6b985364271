//! What the families' steps do beyond what PyTorch's fixtures show: clipping, pools, noise drawn inside the step,
//! supervision of classes, of images and of lower resolutions.

use gan::dtype::DType;
use gan::exec::{Program, States};
use gan::models::{
    DcganDiscriminator, DcganGenerator, Denoiser, DenseNetwork, ImageDiscriminator, ImageGenerator,
    MlpDiscriminator, MlpGenerator, MultiScaleGan, NoiseDiscriminator, NoiseGenerator, NoiseModel, PatchGan,
    ResidualCritic, ResidualGenerator, ResnetGenerator, SegmentationUnet, Srcnn, Vdsr,
};
use gan::nn::{NetSpec, Norm};
use gan::ops::optimiser::Rule;
use gan::rng::{Philox, step_input};
use gan::train::adversarial::{Adversarial, AdversarialLoss};
use gan::train::cyclegan::{CycleGan, CycleGanLoss, CycleGanModel, POOLS};
use gan::train::method::{Run, scalars};
use gan::train::step::{StepBuilder, Update};
use gan::train::supervised::{Distance, Supervised, SupervisedLoss};
use gan::train::wgan::{Wgan, WganLoss};

fn plain(rule: Rule) -> Update {
    Update { rule, clip_norm: None, ema: None }
}

fn noise(n: usize, name: &str) -> Vec<f32> {
    let mut rng = Philox::named(3, name);
    (0..n).map(|_| rng.range(-1.0, 1.0) as f32).collect()
}

fn initialised(specs: &[NetSpec], slots: usize) -> States {
    let mut states = States::new();
    specs.iter().for_each(|s| s.initialise::<f32>(&mut states, 1, slots));
    states
}

fn params<'a>(states: &'a States, spec: &NetSpec) -> &'a [f32] {
    &states.get::<f32>(&spec.store_name())[..spec.param_count()]
}

/// Runs one step with the learning rate `lr` for every network.
fn run(program: &mut Program, states: &mut States, step: usize, lr: f32, given: &[(&str, &[f32])]) {
    let scalars: Vec<(String, Vec<f32>)> = ["U", "G", "D", "G_A", "G_B", "D_A", "D_B"]
        .iter()
        .flat_map(|n| [(format!("lr.{n}"), vec![lr]), (format!("t.{n}"), vec![step as f32 + 1.0])])
        .chain([("step".to_string(), step_input(step as u64).to_vec())])
        .collect();
    let mut inputs: Vec<(&str, &[f32])> = scalars.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    inputs.extend(given);
    program.run(states, &inputs);
}

fn dcgan(norm: Norm) -> NoiseModel {
    NoiseModel {
        nz: 6,
        generator: NoiseGenerator::Dcgan(DcganGenerator { ngf: 4, norm: Norm::Batch }),
        discriminator: NoiseDiscriminator::Dcgan(DcganDiscriminator { ndf: 4, norm }),
    }
}

#[test]
fn a_clipped_critic_keeps_within_its_limit_and_learns() {
    let loss = WganLoss::default();
    let (rule, _) = loss.usual_rule();
    let method = Wgan { model: dcgan(Norm::Batch), loss, size: 16, channels: 1 };
    let specs = method.describe().expect("valid sizes");
    let mut step = StepBuilder::new(DType::F32, 7);
    let real = step.graph().input("real", [8, 16, 16, 1]);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    let inputs = method.draw(&step, &real);
    let losses = method.trace_critic(&mut step, &nets, &inputs, &plain(rule));
    let mut program =
        Program::new(step.graph(), &[("w", &losses.w), ("z", &inputs.z), ("gp", &losses.penalty)])
            .expect("valid");
    let mut states = initialised(&specs, rule.slots());
    let largest = |states: &States| params(states, &specs[1]).iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest(&states) > 0.5, "the norms' scales begin at 1");
    let generator = params(&states, &specs[0]).to_vec();
    let images = vec![0.8f32; 8 * 256];
    let mut distances = Vec::new();
    let mut noises = Vec::new();
    for s in 0..30 {
        run(&mut program, &mut states, s, 1e-3, &[("real", &images)]);
        assert!(largest(&states) <= 0.01, "step {s}: {}", largest(&states));
        distances.push(program.scalar(&mut states, "w"));
        noises.push(program.output_f64(&mut states, "z"));
    }
    assert!(distances[29] < -1e-4 && distances[29] < distances[2], "{distances:?}");
    assert_eq!(program.scalar(&mut states, "gp"), 0.0);
    assert_eq!(params(&states, &specs[0]), generator, "the critic's update leaves the generator alone");
    assert_ne!(noises[0], noises[1], "every step draws anew");
    run(&mut program, &mut states, 4, 1e-3, &[("real", &images)]);
    assert_eq!(program.output_f64(&mut states, "z"), noises[4], "and the same again when it is repeated");
}

#[test]
fn the_residual_pair_trains_by_gradient_penalty() {
    let model = NoiseModel {
        nz: 5,
        generator: NoiseGenerator::Residual(ResidualGenerator { dim: 2 }),
        discriminator: NoiseDiscriminator::Residual(ResidualCritic { dim: 2, norm: Norm::Layer }),
    };
    let loss = WganLoss::gradient_penalty();
    let (rule, _) = loss.usual_rule();
    let method = Wgan { model, loss, size: 16, channels: 1 };
    let specs = method.describe().expect("valid sizes");
    let mut step = StepBuilder::new(DType::F32, 7);
    let real = step.graph().input("real", [4, 16, 16, 1]);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    let inputs = [method.draw(&step, &real), method.draw(&step, &real)];
    let z = step.normal([4, 5]);
    method.trace_step(&mut step, &nets, &inputs, &z, [&plain(rule), &plain(rule)]);
    let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
    let mut states = initialised(&specs, rule.slots());
    let before: Vec<Vec<f32>> = specs.iter().map(|s| params(&states, s).to_vec()).collect();
    let images = noise(4 * 256, "real");
    let mut penalties = Vec::new();
    for s in 0..20 {
        run(&mut program, &mut states, s, 2e-3, &[("real", &images)]);
        penalties.push(program.scalar(&mut states, "loss/GP"));
    }
    assert!(penalties.iter().all(|p| p.is_finite() && *p >= 0.0));
    assert!(penalties[19] < penalties[0], "the critic's slope comes nearer to one: {penalties:?}");
    for (spec, before) in specs.iter().zip(&before) {
        assert!(
            params(&states, spec).iter().zip(before).any(|(a, b)| a != b),
            "{} was not trained",
            spec.name
        );
    }
}

/// How far losses move within 20 steps when each first weight is replaced by one of its neighbours in f32, the farthest of
/// eight such trainings, relative to the largest loss.
fn spread(rule: Rule) -> f64 {
    let method = Wgan { model: dcgan(Norm::None), loss: WganLoss::gradient_penalty(), size: 16, channels: 1 };
    let specs = method.describe().expect("valid sizes");
    let mut step = StepBuilder::new(DType::F32, 7);
    let real = step.graph().input("real", [4, 16, 16, 1]);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    let inputs = [method.draw(&step, &real), method.draw(&step, &real)];
    let z = step.normal([4, 6]);
    method.trace_step(&mut step, &nets, &inputs, &z, [&plain(rule), &plain(rule)]);
    let images = noise(4 * 256, "real");
    let train = |nudged: Option<u64>| -> Vec<f64> {
        let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
        let mut states = initialised(&specs, rule.slots());
        if let Some(seed) = nudged {
            let mut rng = Philox::new(seed, 0);
            for spec in &specs {
                let own = &mut states.get_mut::<f32>(&spec.store_name())[..spec.param_count()];
                own.iter_mut().filter(|v| **v != 0.0).for_each(|v| {
                    *v = if rng.below(2) == 0 { v.next_up() } else { v.next_down() };
                });
            }
        }
        let losses = |s: usize| {
            run(&mut program, &mut states, s, 4e-4, &[("real", &images)]);
            ["loss/W", "loss/GP", "loss/G"].map(|n| program.scalar(&mut states, n))
        };
        (0..20).flat_map(losses).collect()
    };
    let plain = train(None);
    let largest = plain.iter().fold(0f64, |m, v| m.max(v.abs()));
    let far =
        |seed| plain.iter().zip(train(Some(seed))).fold(0f64, |m, (a, b)| m.max((a - b).abs() / largest));
    (0..8).map(far).fold(0.0, f64::max)
}

/// What bounds a GPU's distance from the CPU (`tests/gpu`, docs/reproducibility.md): a critic's losses are as steady as their
/// arithmetic, until Adam without a memory (`beta1 = 0`) makes whole steps of gradients that are nothing but rounding.
#[test]
fn rounding_spreads_by_the_optimiser_and_not_by_the_arithmetic() {
    let (sgd, adam) = (
        spread(Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }),
        spread(Rule::adam(0.0, 0.9)),
    );
    println!("SGD {sgd:.1e}, Adam {adam:.1e}");
    assert!(sgd < 1e-5, "{sgd:e}");
    assert!(adam > sgd, "Adam {adam:e}, SGD {sgd:e}");
}

/// A penalty that outweighs everything else makes the discriminator flatter at real images; its other losses begin as
/// they would without it.
#[test]
fn r1_flattens_the_discriminator_at_real_images() {
    let real = noise(4 * 256, "real");
    let penalties = |r1: f64, lr: f32| -> (f64, Vec<f64>) {
        let loss = AdversarialLoss { r1, ..Default::default() };
        let method = Adversarial { model: dcgan(Norm::None), loss, size: 16, channels: 1 };
        let rule = Rule::adam(0.5, 0.999);
        let specs = method.describe().expect("valid sizes");
        let mut step = StepBuilder::new(DType::F32, 7);
        let x = step.graph().input("input", [4, 16, 16, 1]);
        let z = step.normal([4, 6]);
        let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
        method.trace_step(&mut step, &nets, &x, &z, [&plain(rule), &plain(rule)]);
        let outputs = step.outputs();
        let mut program = Program::new(step.graph(), &outputs).expect("plans");
        let mut states = initialised(&specs, rule.slots());
        let mut first = 0.0;
        let seen = (0..20).map(|i| {
            run(&mut program, &mut states, i, lr, &[("input", &real)]);
            if i == 0 {
                first = program.scalar(&mut states, "loss/D_real");
            }
            if r1 > 0.0 { program.scalar(&mut states, "loss/R1") / r1 } else { 0.0 }
        });
        let seen = seen.collect();
        (first, seen)
    };
    let (without, _) = penalties(0.0, 1e-3);
    let (with, strong) = penalties(1e4, 1e-3);
    let (_, weak) = penalties(1e-4, 1e-3);
    assert_eq!(with, without);
    assert!((strong[0] / weak[0] - 1.0).abs() < 1e-5, "gamma is a factor: {strong:?} {weak:?}");
    assert!(strong[19] < 0.5 * strong[0] && strong[19] < 0.5 * weak[19], "{strong:?} {weak:?}");
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let penalised =
        Wgan { model: dcgan(Norm::Batch), loss: WganLoss::gradient_penalty(), size: 16, channels: 1 };
    assert!(penalised.describe().expect_err("batch norm").to_string().contains("model.discriminator.norm"));
    let odd = Adversarial { model: dcgan(Norm::Batch), loss: Default::default(), size: 24, channels: 1 };
    assert!(odd.describe().expect_err("24 is no power of two").to_string().contains("power of two"));
    let mixed = CycleGan { channels_a: 1, channels_b: 2, ..cyclegan(0, 0.5) };
    assert!(mixed.describe(&[16, 16]).expect_err("identity").to_string().contains("lambda_identity"));
    let one = Supervised { loss: classes(), ..unet(1, false) };
    assert!(one.describe(&[16, 16]).is_err());
    let vdsr = Supervised {
        network: DenseNetwork::Vdsr(Vdsr::default()),
        residual: false,
        inputs: 2,
        ..unet(1, false)
    };
    assert!(vdsr.describe(&[16, 16]).expect_err("channels").to_string().contains("data.input"));
}

#[test]
fn the_vanilla_pair_learns_a_constant_image() {
    let model = NoiseModel {
        nz: 4,
        generator: NoiseGenerator::Mlp(MlpGenerator { widths: vec![16, 16], norm: Norm::None }),
        discriminator: NoiseDiscriminator::Mlp(MlpDiscriminator { widths: vec![16] }),
    };
    let rule = Rule::adam(0.5, 0.999);
    let method = Adversarial { model, loss: Default::default(), size: 8, channels: 1 };
    let specs = method.describe().expect("valid sizes");
    let mut step = StepBuilder::new(DType::F32, 7);
    let real = step.graph().input("real", [16, 8, 8, 1]);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    let z = step.normal([16, 4]);
    method.trace_step(&mut step, &nets, &real, &z, [&plain(rule), &plain(rule)]);
    let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
    let mut states = initialised(&specs, rule.slots());
    let images = vec![0.5f32; 16 * 64];
    let mut mean = 0.0;
    for s in 0..300 {
        run(&mut program, &mut states, s, 2e-3, &[("real", &images)]);
        mean = program.output_f64(&mut states, "fake").iter().sum::<f64>() / 1024.0;
    }
    assert!((mean - 0.5).abs() < 0.25, "{mean}");
}

fn cyclegan(pool: usize, lambda_identity: f64) -> CycleGan {
    let patch = PatchGan { layers: 1, ndf: 2, norm: Norm::Instance };
    CycleGan {
        model: CycleGanModel {
            generator: ImageGenerator::Resnet(ResnetGenerator { blocks: 1, ngf: 2, ..Default::default() }),
            discriminator: ImageDiscriminator::MultiScale(MultiScaleGan { scales: 2, patch }),
        },
        loss: CycleGanLoss { pool, lambda_identity, ..Default::default() },
        channels_a: 1,
        channels_b: 1,
    }
}

/// One step; returns the losses of D_A and `fake_B`, and the states.
fn cycle_step(method: &CycleGan, pool: Option<(&[f32], f32)>) -> (f64, Vec<f64>, States) {
    let rule = Rule::adam(0.5, 0.999);
    let specs = method.describe(&[16, 16]).expect("valid sizes");
    let mut step = StepBuilder::new(DType::F32, 7);
    let [a, b] = ["a", "b"].map(|n| step.graph().input(n, [1, 16, 16, 1]));
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    method.trace_step(&mut step, &nets, &a, &b, [&plain(rule), &plain(rule)]);
    let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
    let mut states = initialised(&specs, rule.slots());
    let (a, b) = (noise(256, "a"), noise(256, "b"));
    let mut given: Vec<(&str, &[f32])> = vec![("a", &a), ("b", &b)];
    let names = POOLS.map(|p| format!("{p}.choices"));
    let choice = [pool.map_or(-1.0, |(_, c)| c)];
    if let Some((content, _)) = pool {
        assert_eq!(method.pool_shapes(&[16, 16])[0][..], [2, 16, 16, 1]);
        POOLS.iter().for_each(|p| states.set(p, content));
        given.extend(names.iter().map(|n| (n.as_str(), choice.as_slice())));
    }
    run(&mut program, &mut states, 0, 2e-4, &given);
    let loss = program.scalar(&mut states, "loss/D_A");
    assert!(program.scalar(&mut states, "loss/cycle_A") > 0.0);
    (loss, program.output_f64(&mut states, "fake_B"), states)
}

#[test]
fn discriminators_see_older_fakes_out_of_their_pools() {
    let (without, ..) = cycle_step(&cyclegan(0, 0.5), None);
    let old = noise(512, "old");
    let pooled = cyclegan(2, 0.5);
    // Kept in slot 1 and shown: as without a pool.
    let (kept, fake, states) = cycle_step(&pooled, Some((&old, 3.0)));
    assert_eq!(kept, without);
    let content = |states: &States| states.get::<f32>(POOLS[0]).to_vec();
    let fake: Vec<f32> = fake.iter().map(|v| *v as f32).collect();
    assert_eq!(content(&states)[256..], fake[..]);
    assert_eq!(content(&states)[..256], old[..256]);
    // Swapped with slot 0: the old image is shown.
    let (swapped, _, states) = cycle_step(&pooled, Some((&old, 0.0)));
    assert_ne!(swapped, without);
    assert_eq!(content(&states)[..256], fake[..]);
    assert_eq!(content(&states)[256..], old[256..]);
}

#[test]
fn no_identity_loss_is_a_loss_of_zero() {
    let method = cyclegan(0, 0.0);
    let rule = Rule::adam(0.5, 0.999);
    let specs = method.describe(&[16, 16]).expect("valid sizes");
    let mut step = StepBuilder::new(DType::F32, 7);
    let [a, b] = ["a", "b"].map(|n| step.graph().input(n, [1, 16, 16, 1]));
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    method.trace_step(&mut step, &nets, &a, &b, [&plain(rule), &plain(rule)]);
    let names: Vec<&str> = step.outputs().iter().map(|(n, _)| *n).collect();
    assert!(gan::train::cyclegan::LOSSES.iter().all(|l| names.contains(l)), "{names:?}");
}

fn classes() -> SupervisedLoss {
    SupervisedLoss::Classes { ce: 1.0, dice: 1.0, smooth: 1e-5, background: false }
}

fn unet(outputs: usize, deep_supervision: bool) -> Supervised {
    let network = SegmentationUnet { base: 4, downs: 2, deep_supervision, ..Default::default() };
    Supervised {
        network: DenseNetwork::Unet(network),
        residual: false,
        loss: SupervisedLoss::Regions { bce: 1.0, dice: 1.0, smooth: 1.0 },
        inputs: 1,
        outputs,
    }
}

/// Trains on one batch; returns the first and the last value of each loss, and the prediction in evaluation.
fn teach(
    method: &Supervised,
    x: &[f32],
    target: &[f32],
    size: [usize; 2],
    steps: usize,
) -> (Vec<[f64; 2]>, Vec<f64>) {
    let rule = Rule::adam(0.9, 0.999);
    let specs = method.describe(&size).expect("valid sizes");
    let n = x.len() / (size[0] * size[1] * method.inputs);
    let [shape, out] = [method.inputs, method.target_channels()].map(|c| [n, size[0], size[1], c]);
    let mut step = StepBuilder::new(DType::F32, 7);
    let (vx, vt) = (step.graph().input("x", shape), step.graph().input("target", out));
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    method.trace_step(&mut step, &nets, &vx, &vt, &plain(rule));
    let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
    let mut states = initialised(&specs, rule.slots());
    let mut ends = vec![[0.0; 2]; method.losses().len()];
    for s in 0..steps {
        run(&mut program, &mut states, s, 1e-2, &[("x", x), ("target", target)]);
        for (end, name) in ends.iter_mut().zip(method.losses()) {
            end[usize::from(s > 0)] = program.scalar(&mut states, name);
        }
    }
    let eval = StepBuilder::new(DType::F32, 0);
    let vx = eval.graph().input("x", shape);
    let net = eval.bind(&specs[0], rule.slots());
    let y = method.trace_predict(&eval, &net, &vx);
    let mut program = Program::new(eval.graph(), &[("y", &y)]).expect("valid");
    program.run(&mut states, &[("x", x), ("step", &[0.0; 2])]);
    (ends, program.output_f64(&mut states, "y"))
}

/// A bright disc in noise, and where it is.
fn disc(size: usize) -> (Vec<f32>, Vec<f32>) {
    let inside = |i: usize| (i / size).abs_diff(size / 2).pow(2) + (i % size).abs_diff(size / 3).pow(2) < 10;
    let mask: Vec<f32> = (0..size * size).map(|i| f32::from(u8::from(inside(i)))).collect();
    let image = noise(size * size, "disc").iter().zip(&mask).map(|(n, m)| 0.3 * n + m).collect();
    (image, mask)
}

#[test]
fn a_unet_learns_regions_and_classes_also_with_lower_levels_supervised() {
    // An extent that does not divide by four, so that padding takes part.
    let (image, mask) = disc(18);
    for deep in [false, true] {
        for method in [unet(1, deep), Supervised { loss: classes(), ..unet(2, deep) }] {
            let (losses, y) = teach(&method, &image, &mask, [18, 18], 60);
            assert!(losses.iter().all(|[first, last]| *last < 0.4 * first), "{losses:?}");
            // The last channel is the probability of the disc.
            let channels = method.outputs;
            let right =
                mask.iter().enumerate().filter(|(i, m)| (y[(i + 1) * channels - 1] > 0.5) == (**m > 0.5));
            assert!(right.count() > 300, "of 324 pixels");
            if channels == 2 {
                assert!(y.chunks(2).all(|p| (p[0] + p[1] - 1.0).abs() < 1e-5));
            }
        }
    }
}

#[test]
fn images_are_brought_nearer_to_their_targets() {
    let (noisy, clean) = disc(16);
    let networks = [
        DenseNetwork::Srcnn(Srcnn { widths: [8, 4], kernels: [5, 1, 3] }),
        DenseNetwork::Vdsr(Vdsr { layers: 4, width: 8 }),
        DenseNetwork::Denoiser(Denoiser { layers: 4, width: 8, norm: Norm::Batch }),
    ];
    for (network, distance) in networks.into_iter().zip([Distance::L1, Distance::L2, Distance::Charbonnier]) {
        let method = Supervised {
            network,
            residual: false,
            loss: SupervisedLoss::Distance { distance },
            inputs: 1,
            outputs: 1,
        };
        let (losses, y) = teach(&method, &noisy, &clean, [16, 16], 60);
        assert!(losses[0][1] < 0.7 * losses[0][0], "{:?}: {losses:?}", method.network);
        assert_eq!(y.len(), 256);
    }
}

/// The number of a run reaches the random numbers whole: as one f32, 2^24 + 1 would be 2^24, and draw the same again.
#[test]
fn no_two_steps_draw_the_same_random_numbers() {
    let step = StepBuilder::new(DType::F32, 7);
    let noise = step.normal([64]);
    let spec = NetSpec::describe("G", |cx, graph| {
        cx.conv("a", &graph.input("x", [1, 4, 4, 1]), 1, 1, 1, 0, true);
    })
    .expect("valid");
    let ctx = step.train(&step.bind(&spec, 1));
    let dropped = ctx.dropout(&step.graph().input("ones", [64]), 0.5);
    let mut program = Program::new(step.graph(), &[("noise", &noise), ("dropped", &dropped)]).expect("valid");
    let mut draw = |number: u64| -> [Vec<f32>; 2] {
        let mut states = initialised(std::slice::from_ref(&spec), 1);
        let given = scalars(&[], Run { part: 0, number, takes_batch: false }, [0.0; 2]);
        let mut inputs: Vec<(&str, &[f32])> = given.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
        inputs.push(("ones", &[1.0; 64]));
        program.run(&mut states, &inputs);
        ["noise", "dropped"].map(|n| program.output(&mut states, n))
    };
    let first = 1u64 << 24;
    let drawn: Vec<[Vec<f32>; 2]> =
        [0, first - 1, first, first + 1, first + 2, 3 * first + 1].map(&mut draw).into();
    for (i, a) in drawn.iter().enumerate() {
        for b in &drawn[..i] {
            assert!(a[0] != b[0] && a[1] != b[1], "{i}");
        }
    }
    assert_eq!(drawn[3], draw(first + 1));
}
