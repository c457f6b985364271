//! What the families' steps do beyond what PyTorch's fixtures show: clipping, pools, noise drawn inside the step,
//! supervision of classes, of images and of lower resolutions.

#[path = "common/methods.rs"]
mod methods;

use gan::dtype::DType;
use gan::exec::{Program, States};
use gan::graph::Var;
use gan::methods::step::{StepBuilder, Update};
use gan::methods::{Given, Method, Run, Shapes, Source};
use gan::nn::{ConvLayer, NetSpec};
use gan::ops::optimiser::Rule;
use gan::rng::{Philox, step_input};
use methods::method;
use std::collections::HashMap;

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

/// A method that makes square grey images from noise.
fn from_noise(kind: &str, nz: usize, networks: [&str; 2], loss: &str) -> Method {
    let [g, d] = networks;
    method(&format!("kind = \"{kind}\"\nnz = {nz}\ngenerator = {g}\ndiscriminator = {d}"), loss, [1, 0, 0])
}

const DCGAN: &str = "{ kind = \"dcgan\", ngf = 4 }";
const PLAIN: &str = "{ kind = \"dcgan\", ndf = 4, norm = \"none\" }";
const BATCH: &str = "{ kind = \"dcgan\", ndf = 4 }";

/// A step of a method on `n` real images of `size` x `size`: `critics` runs of its first program and one of each other.
fn traced(method: &Method, n: usize, size: usize, critics: usize, rule: Rule) -> (StepBuilder, Vec<NetSpec>) {
    let specs = method.networks(&[size; 2]).expect("valid sizes");
    let mut step = StepBuilder::new(DType::F32, 7);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    let shapes = Shapes { batch: n, size: vec![size; 2], inputs: 1, targets: 0, vector: false };
    for part in std::iter::repeat_n(0, critics).chain(1..method.parts()) {
        method.trace(part, &mut step, &nets, &shapes, [&plain(rule), &plain(rule)], &Given::default());
    }
    (step, specs)
}

fn rms_prop() -> Rule {
    Rule::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false, weight_decay: 0.0 }
}

#[test]
fn a_clipped_critic_keeps_within_its_limit_and_learns() {
    let method = from_noise("wgan", 6, [DCGAN, BATCH], "");
    let rule = rms_prop();
    let specs = method.networks(&[16, 16]).expect("valid sizes");
    let mut step = StepBuilder::new(DType::F32, 7);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    let z = step.normal([8, 6]);
    let given = Given { sources: HashMap::from([(Source::Noise, z.clone())]), ..Given::default() };
    let shapes = Shapes { batch: 8, size: vec![16, 16], inputs: 1, targets: 0, vector: false };
    method.trace(0, &mut step, &nets, &shapes, [&plain(rule), &plain(rule)], &given);
    step.output("z", &z);
    let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
    let mut states = initialised(&specs, rule.slots());
    let largest = |states: &States| params(states, &specs[1]).iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(largest(&states) > 0.5, "the norms' scales begin at 1");
    let generator = params(&states, &specs[0]).to_vec();
    let images = vec![0.8f32; 8 * 256];
    let mut distances = Vec::new();
    let mut noises = Vec::new();
    for s in 0..30 {
        run(&mut program, &mut states, s, 1e-3, &[("input", &images)]);
        assert!(largest(&states) <= 0.01, "step {s}: {}", largest(&states));
        distances.push(program.scalar(&mut states, "loss/W"));
        noises.push(program.output_f64(&mut states, "z"));
    }
    assert!(distances[29] < -1e-4 && distances[29] < distances[2], "{distances:?}");
    assert_eq!(params(&states, &specs[0]), generator, "the critic's update leaves the generator alone");
    assert_ne!(noises[0], noises[1], "every step draws anew");
    run(&mut program, &mut states, 4, 1e-3, &[("input", &images)]);
    assert_eq!(program.output_f64(&mut states, "z"), noises[4], "and the same again when it is repeated");
}

#[test]
fn the_residual_pair_trains_by_gradient_penalty() {
    let networks = ["{ kind = \"residual\", dim = 2 }", "{ kind = \"residual\", dim = 2 }"];
    let method = from_noise("wgan", 5, networks, "lipschitz = { penalty = 10.0 }");
    let rule = Rule::adam(0.0, 0.9);
    let (step, specs) = traced(&method, 4, 16, 2, rule);
    let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
    let mut states = initialised(&specs, rule.slots());
    let before: Vec<Vec<f32>> = specs.iter().map(|s| params(&states, s).to_vec()).collect();
    let images = noise(4 * 256, "real");
    let mut penalties = Vec::new();
    for s in 0..20 {
        run(&mut program, &mut states, s, 2e-3, &[("input", &images)]);
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
    let method = from_noise("wgan", 6, [DCGAN, PLAIN], "lipschitz = { penalty = 10.0 }");
    let (step, specs) = traced(&method, 4, 16, 2, rule);
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
            run(&mut program, &mut states, s, 4e-4, &[("input", &images)]);
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
        let method = from_noise("gan", 6, [DCGAN, PLAIN], &format!("r1 = {r1:e}"));
        let rule = Rule::adam(0.5, 0.999);
        let (step, specs) = traced(&method, 4, 16, 1, rule);
        let mut program = Program::new(step.graph(), &step.outputs()).expect("plans");
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

/// Every form of the adversarial loss brings a generator nearer to a constant image, the relativistic ones as well.
#[test]
fn a_generator_learns_a_constant_image_by_every_form() {
    let networks =
        ["{ kind = \"mlp\", widths = [16, 16], norm = \"none\" }", "{ kind = \"mlp\", widths = [16] }"];
    for form in ["vanilla", "lsgan", "hinge", "relativistic", "relativistic-average"] {
        let method = from_noise("gan", 4, networks, &format!("gan = \"{form}\""));
        let rule = Rule::adam(0.5, 0.999);
        let (step, specs) = traced(&method, 16, 8, 1, rule);
        let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
        let mut states = initialised(&specs, rule.slots());
        let images = vec![0.5f32; 16 * 64];
        let mut mean = 0.0;
        for s in 0..300 {
            run(&mut program, &mut states, s, 2e-3, &[("input", &images)]);
            mean = program.output_f64(&mut states, "G(noise)").iter().sum::<f64>() / 1024.0;
        }
        assert!((mean - 0.5).abs() < 0.25, "{form}: {mean}");
    }
}

/// R1 and R2 together: at real images, where they are judged, and at generated ones.
#[test]
fn penalties_flatten_the_discriminator_at_both_kinds_of_images() {
    let text = |r1: f64, r2: f64| {
        let mut spec = from_noise("gan", 6, [DCGAN, PLAIN], "r1 = 1.0").spec().clone();
        let terms = &mut spec.updates[0].terms;
        let mut second = terms[1].clone();
        terms[1].weight = r1;
        second.weight = r2;
        second.log = vec!["R2".into()];
        let gan::methods::spec::TermKind::Adversarial { fake, .. } = terms[0].kind.clone() else {
            panic!("the first term is the adversarial one")
        };
        second.kind = gan::methods::spec::TermKind::Gradient { at: fake, real: false };
        terms.push(second);
        Method::of_channels(&spec, 1, 0, 0)
    };
    let real = noise(4 * 256, "real");
    let penalties = |r1: f64, r2: f64| {
        let rule = Rule::adam(0.5, 0.999);
        let (step, specs) = traced(&text(r1, r2), 4, 16, 1, rule);
        let mut program = Program::new(step.graph(), &step.outputs()).expect("plans");
        let mut states = initialised(&specs, rule.slots());
        let seen = (0..20).map(|i| {
            run(&mut program, &mut states, i, 1e-3, &[("input", &real)]);
            [("R1", r1), ("R2", r2)].map(|(n, w)| program.scalar(&mut states, &format!("loss/{n}")) / w)
        });
        seen.collect::<Vec<_>>()
    };
    let (strong, weak) = (penalties(1e4, 1e4), penalties(1e-4, 1e-4));
    for kind in 0..2 {
        assert!((strong[0][kind] / weak[0][kind] - 1.0).abs() < 1e-5, "gamma is a factor");
        assert!(strong[19][kind] < 0.5 * weak[19][kind], "{strong:?} {weak:?}");
    }
}

/// Feature matching and total variation join a generator's loss; the discriminator is asked once for each image.
#[test]
fn a_generator_learns_by_what_the_discriminator_sees_inside() {
    let mut spec = from_noise("gan", 4, [DCGAN, BATCH], "gan = \"lsgan\"").spec().clone();
    let text = "forward = []\nnetwork = \"G\"\nterms = [\n{ adversarial = \"lsgan\", by = \"D\", fake = \"G(noise)\", log = \"G\" },\n{ feature_matching = 10.0, by = \"D\", real = \"input\", fake = \"G(noise)\", log = \"FM\" },\n{ total_variation = 0.1, of = \"G(noise)\", log = \"TV\" }]";
    let parsed = |text: &str| text.parse::<toml::Table>().unwrap_or_else(|e| panic!("{e}"));
    let method = parsed("predict = \"G(noise)\"\ntarget = \"nothing\"\nnoise = 4");
    let networks = parsed(
        "G = { role = \"generator\", kind = \"dcgan\", ngf = 4, takes = [\"noise\"], gives = \"input\" }\nD = { role = \"discriminator\", kind = \"dcgan\", ndf = 4, takes = [\"input\"] }",
    );
    let d = parsed(
        "network = \"D\"\nterms = [{ adversarial = \"lsgan\", real = \"input\", fake = \"G(noise)\" }]",
    );
    let updates = vec![toml::Value::Table(d), toml::Value::Table(parsed(text))];
    let own = gan::methods::Spec::read(method, networks, updates, &Default::default())
        .unwrap_or_else(|e| panic!("{e}"));
    spec.updates[1] = own.updates[1].clone();
    let method = Method::of_channels(&spec, 1, 0, 0);
    let rule = Rule::adam(0.5, 0.999);
    let (step, specs) = traced(&method, 8, 16, 1, rule);
    let mut program = Program::new(step.graph(), &step.outputs()).expect("plans");
    let mut states = initialised(&specs, rule.slots());
    let images = vec![0.5f32; 8 * 256];
    let mut seen = Vec::new();
    for s in 0..60 {
        run(&mut program, &mut states, s, 2e-3, &[("input", &images)]);
        seen.push(["FM", "TV"].map(|n| program.scalar(&mut states, &format!("loss/{n}"))));
    }
    assert!(seen.iter().flatten().all(|v| v.is_finite() && *v >= 0.0), "{seen:?}");
    let late = seen[50..].iter().map(|v| v[0]).sum::<f64>() / 10.0;
    assert!(late < 0.7 * seen[0][0], "features come nearer: {seen:?}");
    // In a step the discriminator sees real images twice (its own loss, feature matching) and generated ones twice.
    let updates_statistics = |n: &&gan::graph::Node| matches!(&n.source, gan::graph::Source::Op { op, .. } if op.name() == "running_stats");
    let running = step.graph().nodes().iter().filter(updates_statistics).count();
    assert_eq!(running, 4 * specs[1].buffers.len() / 2 + specs[0].buffers.len() / 2, "running statistics");
}

fn cyclegan(pool: usize, lambda_identity: f64) -> Method {
    method(
        "kind = \"cyclegan\"
         generator = { kind = \"resnet\", blocks = 1, ngf = 2 }
         discriminator = { kind = \"multi-scale\", scales = 2, patch = { layers = 1, ndf = 2, norm = \"instance\" } }",
        &format!("pool = {pool}\nlambda_identity = {lambda_identity:?}"),
        [1, 1, 1],
    )
}

/// The states of the pools: of fakes of B, which D_A sees, and of A, which D_B sees.
const POOLS: [&str; 2] = ["pool.fake_B", "pool.fake_A"];

fn cycle_trace(method: &Method) -> (StepBuilder, Vec<NetSpec>, Rule) {
    let rule = Rule::adam(0.5, 0.999);
    let specs = method.networks(&[16, 16]).expect("valid sizes");
    let mut step = StepBuilder::new(DType::F32, 7);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    let shapes = Shapes { batch: 1, size: vec![16, 16], inputs: 1, targets: 1, vector: false };
    method.trace(0, &mut step, &nets, &shapes, [&plain(rule), &plain(rule)], &Given::default());
    (step, specs, rule)
}

/// One step; returns the losses of D_A and G_A(input), and the states.
fn cycle_step(method: &Method, pool: Option<(&[f32], f32)>) -> (f64, Vec<f64>, States) {
    let (step, specs, rule) = cycle_trace(method);
    let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
    let mut states = initialised(&specs, rule.slots());
    let (a, b) = (noise(256, "a"), noise(256, "b"));
    let mut given: Vec<(&str, &[f32])> = vec![("input", &a), ("target", &b)];
    let names = POOLS.map(|p| format!("{p}.choices"));
    let choice = [pool.map_or(-1.0, |(_, c)| c)];
    if let Some((content, _)) = pool {
        let pools = method.pools(&[16, 16]);
        assert_eq!((pools[0].0.as_str(), &pools[0].1[..]), (POOLS[0], &[2, 16, 16, 1][..]));
        POOLS.iter().for_each(|p| states.set(p, content));
        given.extend(names.iter().map(|n| (n.as_str(), choice.as_slice())));
    }
    run(&mut program, &mut states, 0, 2e-4, &given);
    let loss = program.scalar(&mut states, "loss/D_A");
    assert!(program.scalar(&mut states, "loss/cycle_A") > 0.0);
    (loss, program.output_f64(&mut states, "G_A(input)"), states)
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
    let (step, ..) = cycle_trace(&cyclegan(0, 0.0));
    let names: Vec<&str> = step.outputs().iter().map(|(n, _)| *n).collect();
    let all = ["G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B", "D_A", "D_B"];
    assert!(all.iter().all(|l| names.contains(&format!("loss/{l}").as_str())), "{names:?}");
}

/// A network that learns from one grey image to so many channels of the output.
struct Lesson {
    method: Method,
    targets: usize,
    losses: Vec<&'static str>,
}

fn unet(classes: bool, deep_supervision: bool) -> Lesson {
    let model = format!(
        "kind = \"supervised\"\nnetwork = {{ kind = \"unet\", base = 4, downs = 2, deep_supervision = {deep_supervision} }}"
    );
    if classes {
        let method = method(&model, "kind = \"classes\"", [1, 1, 2]);
        Lesson { method, targets: 1, losses: vec!["loss/ce", "loss/dice"] }
    } else {
        let method = method(&model, "kind = \"regions\"", [1, 1, 1]);
        Lesson { method, targets: 1, losses: vec!["loss/bce", "loss/dice"] }
    }
}

/// Trains on one batch; returns the first and the last value of each loss, and the prediction in evaluation.
fn teach(
    lesson: &Lesson,
    x: &[f32],
    target: &[f32],
    size: [usize; 2],
    steps: usize,
) -> (Vec<[f64; 2]>, Vec<f64>) {
    let (method, rule) = (&lesson.method, Rule::adam(0.9, 0.999));
    let specs = method.networks(&size).expect("valid sizes");
    let n = x.len() / (size[0] * size[1]);
    let mut step = StepBuilder::new(DType::F32, 7);
    let nets: Vec<_> = specs.iter().map(|s| step.bind(s, rule.slots())).collect();
    let shapes = Shapes { batch: n, size: size.to_vec(), inputs: 1, targets: lesson.targets, vector: false };
    method.trace(0, &mut step, &nets, &shapes, [&plain(rule), &plain(rule)], &Given::default());
    let mut program = Program::new(step.graph(), &step.outputs()).expect("valid");
    let mut states = initialised(&specs, rule.slots());
    let mut ends = vec![[0.0; 2]; lesson.losses.len()];
    for s in 0..steps {
        run(&mut program, &mut states, s, 1e-2, &[("input", x), ("target", target)]);
        for (end, name) in ends.iter_mut().zip(&lesson.losses) {
            end[usize::from(s > 0)] = program.scalar(&mut states, name);
        }
    }
    let eval = StepBuilder::new(DType::F32, 0);
    let vx = eval.graph().input("x", [n, size[0], size[1], 1]);
    let net = eval.bind(&specs[0], rule.slots());
    let y: Var = method.trace_predict(&eval, &net, &vx, &size);
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
        for classes in [false, true] {
            let method = unet(classes, deep);
            let (losses, y) = teach(&method, &image, &mask, [18, 18], 60);
            assert!(losses.iter().all(|[first, last]| *last < 0.4 * first), "{losses:?}");
            // The last channel is the probability of the disc.
            let channels = if classes { 2 } else { 1 };
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
        "{ kind = \"srcnn\", widths = [8, 4], kernels = [5, 1, 3] }",
        "{ kind = \"vdsr\", layers = 4, width = 8 }",
        "{ kind = \"denoiser\", layers = 4, width = 8 }",
        "{ kind = \"srcnn\", widths = [8, 4], kernels = [5, 1, 3] }",
    ];
    let losses = ["loss/l1", "loss/l2", "loss/charbonnier", "loss/huber"];
    for (network, name) in networks.into_iter().zip(losses) {
        let model = format!("kind = \"supervised\"\nnetwork = {network}");
        let loss = format!("kind = \"distance\"\ndistance = \"{}\"", name.trim_start_matches("loss/"));
        let lesson = Lesson { method: method(&model, &loss, [1, 1, 1]), targets: 1, losses: vec![name] };
        let (losses, y) = teach(&lesson, &noisy, &clean, [16, 16], 60);
        assert!(losses[0][1] < 0.7 * losses[0][0], "{network}: {losses:?}");
        assert_eq!(y.len(), 256);
    }
}

/// The number of a run reaches the random numbers whole: as one f32, 2^24 + 1 would be 2^24, and draw the same again.
#[test]
fn no_two_steps_draw_the_same_random_numbers() {
    let step = StepBuilder::new(DType::F32, 7);
    let noise = step.normal([64]);
    let spec = NetSpec::describe("G", |cx, graph| {
        cx.conv("a", &graph.input("x", [1, 4, 4, 1]), ConvLayer::new(1, 1));
    })
    .expect("valid");
    let ctx = step.train(&step.bind(&spec, 1));
    let dropped = ctx.dropout(&step.graph().input("ones", [64]), 0.5);
    let mut program = Program::new(step.graph(), &[("noise", &noise), ("dropped", &dropped)]).expect("valid");
    let mut draw = |number: u64| -> [Vec<f32>; 2] {
        let mut states = initialised(std::slice::from_ref(&spec), 1);
        let given = unet(false, false).method.scalars(
            &[],
            Run { part: 0, number, takes_batch: false, step: number },
            [0.0; 2],
        );
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
