//! Terms that look into networks, at running means, or at random numbers: their values in a step against formulas that are
//! evaluated here in double precision, from the weights that the step begins with. And networks that learn nothing.

use gan::dtype::DType;
use gan::exec::{Program, States};
use gan::graph::Var;
use gan::methods::keys::Keys;
use gan::methods::step::{StepBuilder, Update};
use gan::methods::{Given, Method, Run, Shapes, Source, Spec};
use gan::models::{AnyNetwork, Limits, Network, Signature, Wanted};
use gan::nn::{Ctx, NetSpec};
use gan::ops::optimiser::Rule;
use gan::rng::Philox;
use serde::Serialize;
use std::collections::HashMap;
use toml::{Table, Value};

/// A method written in full, on images of so many channels: of the input, of the target, and of what is predicted.
fn spec(text: &str) -> Spec {
    let mut table: Table = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut part = |name: &str| match table.remove(name) {
        Some(Value::Table(t)) => t,
        _ => Table::new(),
    };
    let (method, networks, mut train) = (part("method"), part("networks"), part("train"));
    let Some(Value::Array(updates)) = train.remove("update") else { panic!("no updates in {text}") };
    Spec::read(method, networks, updates, &Keys::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn sgd() -> Rule {
    Rule::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
}

fn numbers(n: usize, name: &str) -> Vec<f32> {
    let mut rng = Philox::named(5, name);
    (0..n).map(|_| rng.range(-1.0, 1.0) as f32).collect()
}

/// All programs of a step of a method, one after the other in a graph.
struct Trainer {
    method: Method,
    specs: Vec<NetSpec>,
    program: Program,
    states: States,
}

impl Trainer {
    /// On `n` images of `size`; `given` names further inputs in the place of random numbers.
    fn new(
        method: Method,
        n: usize,
        size: &[usize],
        rule: Rule,
        given: impl FnOnce(&StepBuilder) -> Given,
    ) -> Self {
        let specs = method.networks(size).unwrap_or_else(|e| panic!("{e}"));
        let mut step = StepBuilder::new(DType::F32, 7);
        let slots = |s: &NetSpec| method.slots(&s.name, rule.slots());
        let nets: Vec<_> = specs.iter().map(|s| step.bind(s, slots(s))).collect();
        let [inputs, targets] = if method.noise().is_some() { [1, 0] } else { [1, 1] };
        let shapes = Shapes { batch: n, size: size.to_vec(), inputs, targets, vector: false };
        let update = Update { rule, clip_norm: None, ema: None };
        let given = given(&step);
        for part in 0..method.parts() {
            method.trace(part, &mut step, &nets, &shapes, [&update, &update], &given);
        }
        let program = Program::new(step.graph(), &step.outputs()).unwrap_or_else(|e| panic!("{e}"));
        let mut states = States::new();
        specs.iter().for_each(|s| s.initialise::<f32>(&mut states, 1, slots(s)));
        for (name, shape) in method.memories() {
            states.set(&name, &vec![0f32; shape.numel()]);
        }
        Trainer { method, specs, program, states }
    }

    fn step(&mut self, step: u64, lr: f64, given: &[(&str, &[f32])]) {
        let run = self.method.runs(step)[0];
        let scalars = self.method.scalars(&self.specs, run, [lr; 2]);
        let mut inputs: Vec<(&str, &[f32])> =
            scalars.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
        inputs.extend(given);
        self.program.run(&mut self.states, &inputs);
    }

    fn loss(&mut self, name: &str) -> f64 {
        self.program.scalar(&mut self.states, &format!("loss/{name}"))
    }

    fn output(&mut self, name: &str) -> Vec<f64> {
        self.program.output_f64(&mut self.states, name)
    }

    fn spec_of(&self, net: &str) -> NetSpec {
        self.specs.iter().find(|s| s.name == net).expect("a network").clone()
    }

    /// A tensor of a network, in PyTorch's order.
    fn tensor(&self, net: &str, key: &str) -> Vec<f64> {
        let all = self.spec_of(net).export::<f32>(&self.states);
        let found = all.into_iter().find(|t| t.0 == key).unwrap_or_else(|| panic!("no {key}"));
        found.2.into_iter().map(f64::from).collect()
    }

    fn params(&self, net: &str) -> Vec<f32> {
        let spec = self.spec_of(net);
        self.states.get::<f32>(&spec.store_name())[..spec.param_count()].to_vec()
    }

    /// A fully connected network: the weights `[out, in]` and the biases of its layers.
    fn layers(&self, net: &str) -> Vec<[Vec<f64>; 2]> {
        let keys: Vec<String> = self.spec_of(net).params.iter().map(|p| p.key.clone()).collect();
        let bases = keys.iter().filter_map(|k| k.strip_suffix(".weight"));
        bases.map(|b| ["weight", "bias"].map(|p| self.tensor(net, &format!("{b}.{p}")))).collect()
    }
}

#[track_caller]
fn near(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() <= 2e-5 * want.abs().max(0.05), "{what}: {got}, expected {want}");
}

/// What fully connected layers with leaky ReLUs between them make of a vector.
fn dense(layers: &[[Vec<f64>; 2]], x: &[f64]) -> Vec<f64> {
    let mut h = x.to_vec();
    for (i, [w, b]) in layers.iter().enumerate() {
        let row = |o: usize| b[o] + h.iter().enumerate().map(|(k, v)| w[o * h.len() + k] * v).sum::<f64>();
        let y: Vec<f64> = (0..b.len()).map(row).collect();
        let last = i + 1 == layers.len();
        h = y.into_iter().map(|v| if last || v > 0.0 { v } else { 0.2 * v }).collect();
    }
    h
}

/// The derivative of a function of a vector by each number, by differences.
fn slope(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let moved = |i: usize, by: f64| {
        let mut x = x.to_vec();
        x[i] += by;
        f(&x)
    };
    (0..x.len()).map(|i| (moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

const LOOKS: &str = r#"
[method]
predict = "G(input)"
[networks.G]
role = "network"
kind = "srcnn"
widths = [3, 2]
kernels = [3, 1, 3]
[networks.F]
role = "frozen"
kind = "patch"
layers = 2
ndf = 2
norm = "NORM"
[[train.update]]
network = "G"
terms = [TERMS]
"#;

fn looks(norm: &str, terms: &str) -> Method {
    Method::of_channels(&spec(&LOOKS.replace("NORM", norm).replace("TERMS", terms)), 1, 1, 1)
}

const SIZE: usize = 16;

/// The first layer of the frozen network, as it stands in its paper: 4 x 4 kernels, stride 2, padding 1, leaky ReLU. Position
/// by position, two channels each.
fn first_layer(weight: &[f64], bias: &[f64], image: &[f64]) -> Vec<f64> {
    let half = SIZE / 2;
    let mut out = Vec::new();
    for (y, x) in (0..half).flat_map(|y| (0..half).map(move |x| (y, x))) {
        for o in 0..2 {
            let mut sum = bias[o];
            for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))) {
                let (r, c) = ((2 * y + i).wrapping_sub(1), (2 * x + j).wrapping_sub(1));
                if r < SIZE && c < SIZE {
                    sum += weight[o * 16 + i * 4 + j] * image[r * SIZE + c];
                }
            }
            out.push(if sum > 0.0 { sum } else { 0.2 * sum });
        }
    }
    out
}

#[test]
fn perceptual_and_style_losses_are_those_of_their_papers() {
    let terms = r#"
        { perceptual = { by = "F", layers = ["model.0"], weight = 3.0 }, of = "G(input)", to = "target", log = "one" },
        { perceptual = { by = "F", layers = ["model.0"], distance = "l2" }, weight = 2.0, of = "G(input)", to = "target", log = "two" },
        { style = { by = "F", layers = ["model.0"], weight = 100.0 }, of = "G(input)", to = "target", log = "style" },
        { perceptual = { by = "F" }, of = "G(input)", to = "target", log = "all" },
        { perceptual = { by = "F", layers = ["model.2"] }, of = "G(input)", to = "target", log = "second" },
        { perceptual = { by = "F", layers = ["model.4"] }, of = "G(input)", to = "target", log = "third" },
    "#;
    let mut t = Trainer::new(looks("none", terms), 2, &[SIZE; 2], sgd(), |_| Given::default());
    // Large weights: what the network begins with makes all features nearly alike.
    let store = t.spec_of("F").store_name();
    t.states.get_mut::<f32>(&store).iter_mut().for_each(|w| *w *= 20.0);
    let (input, target) = (numbers(2 * SIZE * SIZE, "input"), numbers(2 * SIZE * SIZE, "target"));
    t.step(0, 1e-3, &[("input", &input), ("target", &target)]);
    let (made, weight, bias) =
        (t.output("G(input)"), t.tensor("F", "model.0.weight"), t.tensor("F", "model.0.bias"));
    let features = |images: &[f64]| -> Vec<Vec<f64>> {
        images.chunks(SIZE * SIZE).map(|i| first_layer(&weight, &bias, i)).collect()
    };
    let (of, to) = (features(&made), features(&wide(&target)));
    let differences: Vec<f64> = of.iter().flatten().zip(to.iter().flatten()).map(|(a, b)| a - b).collect();
    near(t.loss("one"), 3.0 * mean(&differences.iter().map(|d| d.abs()).collect::<Vec<_>>()), "L1");
    near(t.loss("two"), 2.0 * mean(&differences.iter().map(|d| d * d).collect::<Vec<_>>()), "L2");
    let gram = |f: &[f64], a: usize, b: usize| f.chunks(2).map(|v| v[a] * v[b]).sum::<f64>() / f.len() as f64;
    let mut squares = 0.0;
    for (x, y) in of.iter().zip(&to) {
        for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            squares += (gram(x, a, b) - gram(y, a, b)).powi(2);
        }
    }
    near(t.loss("style"), 100.0 * squares / 2.0, "Gram matrices");
    let each = t.loss("one") / 3.0 + t.loss("second") + t.loss("third");
    near(t.loss("all"), each, "the sum over layers");
}

#[test]
fn a_frozen_network_stays_as_it_is_while_others_learn_from_it() {
    let terms = r#"{ perceptual = { by = "F" }, of = "G(input)", to = "target" }"#;
    let adam = Rule::adam(0.5, 0.999);
    let mut t = Trainer::new(looks("batch", terms), 2, &[SIZE; 2], adam, |_| Given::default());
    let frozen = t.spec_of("F");
    assert_eq!(t.states.get::<f32>(&frozen.store_name()).len(), frozen.param_count(), "it has no moments");
    let buffers = frozen.buffers_name();
    // Not what batches would have given.
    t.states.get_mut::<f32>(&buffers).iter_mut().enumerate().for_each(|(i, v)| *v += 0.1 * i as f32);
    let before = (t.params("F"), t.states.get::<f32>(&buffers).to_vec(), t.params("G"));
    let (input, target) = (numbers(2 * SIZE * SIZE, "input"), numbers(2 * SIZE * SIZE, "target"));
    let mut losses = Vec::new();
    for s in 0..20 {
        t.step(s, 1e-2, &[("input", &input), ("target", &target)]);
        losses.push(t.loss("G_perceptual"));
    }
    assert_eq!((t.params("F"), t.states.get::<f32>(&buffers).to_vec()), (before.0, before.1));
    assert_ne!(t.params("G"), before.2);
    assert!(losses[19] < 0.9 * losses[0], "{losses:?}");
    // In evaluation an image's features do not depend on the others in its batch.
    let twice = [&input[..SIZE * SIZE], &input[..SIZE * SIZE]].concat();
    let twice_target = [&target[..SIZE * SIZE], &target[..SIZE * SIZE]].concat();
    t.step(20, 0.0, &[("input", &input), ("target", &target)]);
    let both = t.loss("G_perceptual");
    t.step(20, 0.0, &[("input", &twice), ("target", &twice_target)]);
    let first = t.loss("G_perceptual");
    let other = [&input[SIZE * SIZE..], &input[SIZE * SIZE..]].concat();
    let other_target = [&target[SIZE * SIZE..], &target[SIZE * SIZE..]].concat();
    t.step(20, 0.0, &[("input", &other), ("target", &other_target)]);
    near(both, 0.5 * (first + t.loss("G_perceptual")), "image by image");
}

const NOISE: &str = r#"
[method]
predict = "G(noise)"
target = "nothing"
noise = 3
[networks.G]
role = "generator"
kind = "mlp"
widths = [5]
norm = "none"
takes = ["noise"]
gives = "input"
[networks.D]
role = "discriminator"
kind = "mlp"
widths = [6]
takes = ["input"]
[[train.update]]
network = "D"
terms = [{ adversarial = "vanilla", real = "input", fake = "G(noise)", log = "D" }, CRITIC]
[[train.update]]
network = "G"
terms = [{ adversarial = "vanilla", by = "D", fake = "G(noise)", log = "G" }, MAKER]
"#;

fn from_noise(critic: &str, maker: &str) -> Method {
    Method::of_channels(&spec(&NOISE.replace("CRITIC", critic).replace("MAKER", maker)), 1, 0, 0)
}

#[test]
fn dragan_penalises_slopes_around_real_images() {
    let method = from_noise(r#"{ dragan = 10.0, real = "input", log = "P" }"#, "");
    let mut t = Trainer::new(method, 3, &[4, 4], sgd(), |step| Given {
        alpha: Some(step.graph().input("alpha", [3, 1, 1, 1])),
        perturbation: Some(step.graph().input("uniform", [3, 4, 4, 1])),
        ..Given::default()
    });
    let unit = |n, name| numbers(n, name).iter().map(|v| 0.5 + 0.5 * v).collect::<Vec<f32>>();
    let (real, alpha, uniform) = (numbers(48, "real"), unit(3, "alpha"), unit(48, "uniform"));
    let layers = t.layers("D");
    t.step(0, 1e-3, &[("input", &real), ("alpha", &alpha), ("uniform", &uniform)]);
    let (x, a, u) = (wide(&real), wide(&alpha), wide(&uniform));
    let centre = mean(&x);
    let deviation = mean(&x.iter().map(|v| (v - centre).powi(2)).collect::<Vec<_>>()).sqrt();
    let moved: Vec<f64> = (0..48).map(|i| x[i] + a[i / 16] * 0.5 * deviation * u[i]).collect();
    let each: Vec<f64> = moved
        .chunks(16)
        .map(|image| {
            let gradient = slope(image, |v| dense(&layers, v)[0]);
            (gradient.iter().map(|g| g * g).sum::<f64>().sqrt() - 1.0).powi(2)
        })
        .collect();
    near(t.loss("P"), 10.0 * mean(&each), "the penalty");
}

#[test]
fn lecam_keeps_running_means_of_logits() {
    let method =
        from_noise(r#"{ lecam = 0.3, decay = 0.9, real = "input", fake = "G(noise)", log = "L" }"#, "");
    assert_eq!(method.memories().len(), 1);
    let mut t = Trainer::new(method, 3, &[4, 4], sgd(), |_| Given::default());
    let (mut real_means, mut fake_means) = (Vec::new(), Vec::new());
    for s in 0..4 {
        let layers = t.layers("D");
        let real = numbers(48, &format!("real {s}"));
        t.step(s, 0.5, &[("input", &real)]);
        let logits =
            |images: &[f64]| -> Vec<f64> { images.chunks(16).map(|i| dense(&layers, i)[0]).collect() };
        let (r, f) = (logits(&wide(&real)), logits(&t.output("G(noise)")));
        real_means.push(mean(&r));
        fake_means.push(mean(&f));
        // The newest has the weight 1, each older one 0.9 of the next.
        let running = |means: &[f64]| {
            let weights: Vec<f64> = (0..means.len()).rev().map(|age| 0.9f64.powi(age as i32)).collect();
            let sum: f64 = means.iter().zip(&weights).map(|(m, w)| m * w).sum();
            sum / weights.iter().sum::<f64>()
        };
        let (of_real, of_fake) = (running(&real_means), running(&fake_means));
        let above = mean(&r.iter().map(|r| (r - of_fake).max(0.0).powi(2)).collect::<Vec<_>>());
        let below = mean(&f.iter().map(|f| (of_real - f).max(0.0).powi(2)).collect::<Vec<_>>());
        near(t.loss("L"), 0.3 * (above + below), &format!("step {s}"));
    }
}

/// The value over two steps, and the derivative by the generator's weights: it goes through a derivative by the noise.
#[test]
fn path_lengths_come_near_their_running_mean() {
    let maker = r#"{ path_length = 2.0, of = "G(noise)", log = "P" }"#;
    let text = NOISE.replace("CRITIC", "").replace("MAKER", maker);
    // By this term alone.
    let text =
        text.replace("{ adversarial = \"vanilla\", by = \"D\", fake = \"G(noise)\", log = \"G\" }, ", "");
    let method = Method::of_channels(&spec(&text), 1, 0, 0);
    let mut t = Trainer::new(method, 2, &[4, 4], sgd(), |step| Given {
        sources: HashMap::from([(Source::Noise, step.graph().input("z", [2, 3]))]),
        direction: Some(step.graph().input("y", [2, 4, 4, 1])),
        ..Given::default()
    });
    let (real, z, y) = (numbers(32, "real"), numbers(6, "z"), numbers(32, "y"));
    let lengths = |layers: &[[Vec<f64>; 2]]| -> Vec<f64> {
        let of = |(z, y): (&[f64], &[f64])| {
            let product = |z: &[f64]| {
                let images = dense(layers, z);
                images.iter().zip(y).map(|(v, y)| v.tanh() * y).sum::<f64>() / 16f64.sqrt()
            };
            slope(z, product).iter().map(|g| g * g).sum::<f64>().sqrt()
        };
        wide(&z).chunks(3).zip(wide(&y).chunks(16)).map(of).collect()
    };
    let loss = |layers: &[[Vec<f64>; 2]], centre: f64| {
        2.0 * mean(&lengths(layers).iter().map(|l| (l - centre).powi(2)).collect::<Vec<_>>())
    };
    let mut running = 0.0;
    for s in 0..2 {
        let layers = t.layers("G");
        running += 0.01 * (mean(&lengths(&layers)) - running);
        t.step(s, 0.1, &[("input", &real), ("z", &z), ("y", &y)]);
        near(t.loss("P"), loss(&layers, running), &format!("step {s}"));
        let after = t.layers("G");
        for (layer, index) in [(0, 4), (0, 7), (1, 11), (1, 38)] {
            let moved = |by: f64| {
                let mut other = layers.clone();
                other[layer][0][index] += by;
                loss(&other, running)
            };
            let by_difference = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            let taken = (layers[layer][0][index] - after[layer][0][index]) / 0.1;
            assert!(
                (taken - by_difference).abs() < 1e-3 * by_difference.abs().max(0.02),
                "{taken} {by_difference}"
            );
        }
    }
}

/// A network that gives as many numbers as it is asked for.
#[derive(Debug, Serialize)]
struct Encoder {}

impl Network for Encoder {
    fn signature(&self) -> Signature {
        Signature::Vector
    }

    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, _: &Limits) -> gan::error::Result<()> {
        Ok(())
    }

    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let n = x.shape()[0];
        vec![cx.linear("out", &x.reshape(&[n, x.shape().numel() / n]), wanted.channels, true)]
    }
}

/// The method of a text, with [`Encoder`] in the place of the network E.
fn encoding(text: &str) -> Method {
    let mut spec = spec(text);
    let e = spec.networks.iter_mut().find(|n| n.name == "E").expect("an encoder");
    e.network = AnyNetwork::new("encoder", Encoder {});
    Method::of_channels(&spec, 1, 0, 0)
}

const VECTORS: &str = r#"
[method]
predict = "G(noise)"
target = "nothing"
noise = 3
[networks.G]
role = "generator"
kind = "mlp"
widths = [5]
norm = "none"
takes = ["noise"]
gives = "input"
[networks.E]
role = "network"
kind = "mlp-discriminator"
takes = ["input"]
gives = "noise"
OUTPUTS
[[train.update]]
network = ["E", "G"]
terms = [TERMS]
"#;

/// `l1` between noise and what an encoder recovers of it from the images (InfoGAN, BiGAN's kin, BicycleGAN).
#[test]
fn an_encoder_learns_to_recover_the_noise() {
    let terms = r#"{ l1 = 2.0, of = "E(G(noise))", to = "noise", log = "latent" }"#;
    let text = VECTORS.replace("OUTPUTS", "").replace("TERMS", terms);
    let mut t = Trainer::new(encoding(&text), 4, &[4, 4], Rule::adam(0.9, 0.999), |step| Given {
        sources: HashMap::from([(Source::Noise, step.graph().input("z", [4, 3]))]),
        ..Given::default()
    });
    let mut losses = Vec::new();
    for s in 0..60 {
        let z = numbers(12, &format!("z {s}"));
        let [w, b] = t.layers("E").remove(0);
        t.step(s, 1e-2, &[("z", &z)]);
        let images = t.output("G(noise)");
        let recovered = images.chunks(16).flat_map(|i| dense(&[[w.clone(), b.clone()]], i));
        let each: Vec<f64> = recovered.zip(wide(&z)).map(|(a, b)| (a - b).abs()).collect();
        losses.push(t.loss("latent"));
        near(losses[s as usize], 2.0 * mean(&each), "the distance");
    }
    assert!(mean(&losses[50..]) < 0.6 * mean(&losses[..5]), "{losses:?}");
}

/// A variational autoencoder: the code is drawn from what the encoder gives, and stays near the standard normal distribution.
#[test]
fn a_code_is_drawn_from_a_distribution_near_the_normal_one() {
    let terms = r#"
        { l2 = 1.0, of = "G(sample(E(input)))", to = "input", log = "again" },
        { kl_gaussian = 0.5, of = "E(input)", log = "KL" },
    "#;
    let text = VECTORS.replace("OUTPUTS", "outputs = 6").replace("TERMS", terms);
    let mut t = Trainer::new(encoding(&text), 4, &[4, 4], Rule::adam(0.9, 0.999), |_| Given::default());
    let images = numbers(64, "images");
    let mut again = Vec::new();
    for s in 0..80 {
        t.step(s, 1e-2, &[("input", &images)]);
        let each: Vec<f64> = t
            .output("E(input)")
            .chunks(6)
            .map(|code| {
                let of = |k: usize| 0.5 * (code[k].powi(2) + code[k + 3].exp() - code[k + 3] - 1.0);
                (0..3).map(of).sum::<f64>()
            })
            .collect();
        near(t.loss("KL"), 0.5 * mean(&each), "the divergence");
        again.push(t.loss("again"));
    }
    assert!(again[0] != again[1] && again[79] < 0.9 * again[0], "{again:?}");
}

/// The same loss at another weight; and a weight that changes is an input.
#[test]
fn a_weight_may_change_from_step_to_step() {
    let terms = |weight: &str| {
        format!(
            r#"{{ l1 = 10.0, weight = {weight}, of = "G(input)", to = "target" }}, {{ perceptual = {{ by = "F" }}, of = "G(input)", to = "target" }}"#
        )
    };
    let (input, target) = (numbers(2 * SIZE * SIZE, "input"), numbers(2 * SIZE * SIZE, "target"));
    let run = |weight: &str, step: u64| {
        let mut t = Trainer::new(looks("none", &terms(weight)), 2, &[SIZE; 2], sgd(), |_| Given::default());
        t.step(step, 1e-2, &[("input", &input), ("target", &target)]);
        (t.loss("G_l1"), t.params("G"))
    };
    let ramp = "{ from = 1.0, to = 0.5, steps = 4 }";
    for (step, weight) in [(0, "1.0"), (2, "0.75"), (4, "0.5"), (9, "0.5")] {
        let (ramped, fixed) = (run(ramp, step), run(weight, step));
        near(ramped.0, fixed.0, weight);
        for (a, b) in ramped.1.iter().zip(&fixed.1) {
            assert!((a - b).abs() < 1e-6, "step {step}: {a} {b}");
        }
    }
    let method = looks("none", &terms(ramp));
    let run = Run { part: 0, number: 7, takes_batch: true, step: 1 };
    let scalars = method.scalars(&[], run, [0.1; 2]);
    assert_eq!(scalars.last(), Some(&("weight.G_l1".to_string(), vec![0.875])));
}

#[test]
fn an_update_may_have_a_learning_rate_of_its_own() {
    let terms = r#"{ perceptual = { by = "F" }, of = "G(input)", to = "target" }"#;
    let (input, target) = (numbers(2 * SIZE * SIZE, "input"), numbers(2 * SIZE * SIZE, "target"));
    let moved = |factor: &str| {
        let text = LOOKS
            .replace("NORM", "none")
            .replace("TERMS", terms)
            .replace("network = \"G\"\n", &format!("network = \"G\"\n{factor}\n"));
        let method = Method::of_channels(&spec(&text), 1, 1, 1);
        let mut t = Trainer::new(method, 2, &[SIZE; 2], sgd(), |_| Given::default());
        let before = t.params("G");
        t.step(0, 10.0, &[("input", &input), ("target", &target)]);
        before.iter().zip(t.params("G")).map(|(a, b)| f64::from(b - a)).collect::<Vec<_>>()
    };
    let (full, quarter) = (moved(""), moved("lr = 0.25"));
    assert!(full.iter().any(|d| d.abs() > 1e-4), "{full:?}");
    full.iter().zip(&quarter).for_each(|(a, b)| assert!((0.25 * a - b).abs() < 1e-6, "{a} {b}"));
}

/// Of several updates of a step each is a program, where they come in some steps only.
#[test]
fn updates_come_in_the_steps_that_they_are_written_for() {
    let text = LOOKS.replace("NORM", "none").replace(
        "[[train.update]]\nnetwork = \"G\"\nterms = [TERMS]",
        r#"
[[train.update]]
network = "G"
until = 3
terms = [{ l1 = 1.0, of = "G(input)", to = "target", log = "first" }]
[[train.update]]
network = "G"
from = 3
every = 2
terms = [{ perceptual = { by = "F" }, of = "G(input)", to = "target", log = "then" }]
"#,
    );
    let method = Method::of_channels(&spec(&text), 1, 1, 1);
    let parts = |step: u64| method.runs(step).iter().map(|r| (r.part, r.number)).collect::<Vec<_>>();
    let all: Vec<_> = (0..7).flat_map(parts).collect();
    assert_eq!(all, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
    assert_eq!(method.batches_before(6), 5);
    // The optimiser counts the updates of a network, whichever they are.
    let specs = method.networks(&[SIZE; 2]).expect("valid");
    let counts: Vec<f32> = (0..7)
        .flat_map(|step| method.runs(step))
        .map(|run| method.scalars(&specs, run, [0.1; 2]))
        .map(|scalars| scalars.iter().find(|(n, _)| n == "t.G").expect("a count").1[0])
        .collect();
    assert_eq!(counts, [1.0, 2.0, 3.0, 4.0, 5.0]);
}

/// Of three scales for a slice of 48 pixels, and five from 176 on; equal images have the index 1.
#[test]
fn images_have_as_many_scales_as_windows_fit() {
    use gan::objectives::ssim::MsSsim;
    let scales = [[10, 99], [11, 99], [21, 22], [22, 22], [44, 48], [88, 88], [176, 176], [512, 512]];
    assert_eq!(scales.map(|s| MsSsim::scales(&s)), [1, 1, 1, 2, 3, 4, 5, 5]);
    let terms = r#"{ ms_ssim = 1.0, of = "G(input)", to = "target" }, { perceptual = { by = "F" }, of = "G(input)", to = "target" }"#;
    let method = looks("none", terms);
    let notes = method.notes(&[48, 44]);
    assert!(notes.iter().any(|n| n.contains("ms_ssim") && n.contains("first 3 of its 5")), "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("F is frozen with random weights")), "{notes:?}");
    assert_eq!(method.notes(&[256, 256]).len(), 1);
    let refused = method.networks(&[10, 40]).expect_err("too small").to_string();
    assert!(refused.contains("ms_ssim") && refused.contains("`data.canvas`"), "{refused}");
}
