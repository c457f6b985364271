//! Whole training steps against PyTorch: losses of five steps, weights and running statistics after one and five.
//!
//! The fixtures are written by `tests/goldens/generate.py` (or any program in that format); the folder is
//! `GAN_GOLDENS`, else `tests/goldens`. Weights carry the fixture's own names, which are mapped to ours by position.

use gan::dtype::{DType, Real};
use gan::exec::{Program, States};
use gan::models::{PatchGan, UnetGenerator};
use gan::nn::{NetSpec, Norm};
use gan::objectives::GanMode;
use gan::ops::optimiser::Rule;
use gan::train::pix2pix::Pix2pix;
use gan::train::recipe::{Discriminator, Generator, Loss, Pix2pixModel};
use gan::train::step::{StepBuilder, Update};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn folder() -> PathBuf {
    std::env::var_os("GAN_GOLDENS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens"))
}

/// One fixture: its manifest entry and its tensors in double precision, by name without the case's prefix.
struct Fixture {
    entry: Value,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

fn fixtures(prefix: &str) -> Vec<Fixture> {
    let manifest = std::fs::read_to_string(folder().join("manifest.json")).expect("the fixtures' manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("valid JSON");
    let cases = manifest["cases"].as_array().expect("a list of cases");
    cases
        .iter()
        .filter(|c| c["op"] == "training_step" && c["name"].as_str().is_some_and(|n| n.starts_with(prefix)))
        .map(|entry| {
            let name = entry["name"].as_str().expect("a name");
            let bytes =
                std::fs::read(folder().join(entry["file"].as_str().expect("a file"))).expect("the fixture");
            let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
            let tensors = file
                .iter()
                .filter_map(|(key, view)| {
                    let key = key.strip_prefix(&format!("{name}/"))?;
                    let data = match view.dtype() {
                        safetensors::Dtype::F32 => view
                            .data()
                            .chunks_exact(4)
                            .map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes"))))
                            .collect(),
                        safetensors::Dtype::F64 => view
                            .data()
                            .chunks_exact(8)
                            .map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes")))
                            .collect(),
                        other => panic!("{key}: element type {other:?}"),
                    };
                    Some((key.to_string(), (view.shape().to_vec(), data)))
                })
                .collect();
            Fixture { entry: entry.clone(), tensors }
        })
        .collect()
}

/// `[n, c, spatial..]` to `[n, spatial.., c]`.
fn channels_last(shape: &[usize], data: &[f64]) -> (Vec<usize>, Vec<f64>) {
    let (n, c, s) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
    let mut out = vec![0.0; data.len()];
    for i in 0..n {
        for k in 0..c {
            for p in 0..s {
                out[(i * s + p) * c + k] = data[(i * c + k) * s + p];
            }
        }
    }
    ([&[n], &shape[2..], &[c]].concat(), out)
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

fn load<T: Real>(
    spec: &NetSpec,
    fixture: &Fixture,
    states: &mut States,
    slots: usize,
    name: impl Fn(&str) -> String,
) {
    spec.initialise::<T>(states, 0, slots);
    spec.import::<T>(states, "the fixture", |key| {
        let (shape, data) = fixture.tensors.get(&format!("init/{}", name(key)))?;
        Some((shape.clone(), data.iter().map(|v| T::of(*v)).collect()))
    })
    .expect("the fixture's weights fit");
}

/// Compares by the acceptance rule of the fixtures; collects what fails.
struct Judge<'a> {
    fixture: &'a Fixture,
    f64: bool,
    failures: Vec<String>,
    compared: usize,
    worst: f64,
}

impl Judge<'_> {
    fn tensor(&mut self, key: &str, got: &[f64]) {
        let null = self.fixture.entry["null_gradient"].as_array().expect("a list");
        let weight = key.split_once('/').map_or("", |k| k.1);
        if !self.f64 && null.iter().any(|n| n == weight) {
            return; // Adam divides rounding noise by itself there
        }
        let result = &self.fixture.entry["results"][key];
        let (max, f32_err) =
            (result["max"].as_f64().expect("max"), result["f32_err"].as_f64().expect("f32_err"));
        let tolerance = if self.f64 { 2e-7 * max + 1e-12 } else { 4.0 * f32_err + 2e-6 * max + 1e-7 };
        let want = &self.fixture.tensors[key].1;
        assert_eq!(got.len(), want.len(), "{key}");
        let error = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
        self.compared += 1;
        self.worst = self.worst.max(error / tolerance);
        if error > tolerance || error.is_nan() {
            self.failures.push(format!("{key}: error {error:.3e}, allowed {tolerance:.3e}"));
        }
    }

    fn loss(&mut self, step: usize, name: &str, got: f64) {
        let of = |list: &str| self.fixture.entry[list][step][name].as_f64().expect("a loss");
        let (want, torch) = (of("losses_f64"), of("losses_torch_f32"));
        let tolerance = if self.f64 {
            1e-12 * want.abs() + 1e-12
        } else {
            4.0 * (want - torch).abs() + 2e-6 * want.abs() + 1e-7
        };
        self.compared += 1;
        self.worst = self.worst.max((got - want).abs() / tolerance);
        if (got - want).abs() > tolerance || got.is_nan() {
            self.failures
                .push(format!("step {step} {name}: {got}, expected {want}, allowed {tolerance:.3e}"));
        }
    }
}

fn pix2pix<T: Real>(fixture: &Fixture) -> Judge<'_> {
    // Sizes are read off the fixture's own weights, so that others of the same kind work too.
    let shape = |key: &str| fixture.tensors[&format!("init/{key}")].0.clone();
    let downs =
        (0..).take_while(|i| fixture.tensors.contains_key(&format!("init/G.down.{i}.weight"))).count();
    let (ngf, inputs) = (shape("G.down.0.weight")[0], shape("G.down.0.weight")[1]);
    let targets = shape("G.up.0.weight")[1];
    let ndf = shape("D.model.0.weight")[0];
    let convs = (0..)
        .step_by(3)
        .skip(1)
        .take_while(|i| fixture.tensors.contains_key(&format!("init/D.model.{}.weight", i - 1)))
        .count();
    let optimiser = &fixture.entry["optimizer"];
    let betas: Vec<f64> =
        optimiser["betas"].as_array().expect("betas").iter().map(|b| b.as_f64().expect("a number")).collect();
    let lr = optimiser["lr"].as_f64().expect("lr");

    let method = Pix2pix {
        model: Pix2pixModel {
            generator: Generator::Unet(UnetGenerator { downs, ngf, norm: Norm::Batch, dropout: 0.0 }),
            discriminator: Discriminator::Patch(PatchGan { layers: convs - 1, ndf, norm: Norm::Batch }),
        },
        loss: Loss { gan: GanMode::Bce, lambda_l1: 100.0, lambda_gan: 1.0, pool: 0 },
        inputs,
        targets,
    };
    let (a_shape, _) = channels_last(&fixture.tensors["step0/a"].0, &fixture.tensors["step0/a"].1);
    let [g_spec, d_spec] = method.describe(a_shape[1], a_shape[2]).expect("valid sizes");
    let rule = Rule::adam(betas[0], betas[1]);
    let mut states = States::new();
    load::<T>(&g_spec, fixture, &mut states, rule.slots(), |k| format!("G.{}", unet_name(k, downs)));
    load::<T>(&d_spec, fixture, &mut states, rule.slots(), |k| format!("D.{k}"));

    let mut step = StepBuilder::new(T::DTYPE, 0);
    let a = step.graph().input("input", a_shape.clone());
    let b = step.graph().input("target", [&a_shape[..3], &[targets]].concat());
    let (g, d) = (step.bind(&g_spec, rule.slots()), step.bind(&d_spec, rule.slots()));
    let update = Update { rule, clip_norm: None, ema: None };
    method.trace_step(&mut step, &g, &d, &a, &b, [&update, &update]);
    let mut program = Program::new(step.graph(), &step.outputs()).expect("a valid step");

    let mut judge =
        Judge { fixture, f64: T::DTYPE == DType::F64, failures: Vec::new(), compared: 0, worst: 0.0 };
    for s in 0..5 {
        let image = |name: &str| -> Vec<T> {
            let (shape, data) = &fixture.tensors[&format!("step{s}/{name}")];
            channels_last(shape, data).1.into_iter().map(T::of).collect()
        };
        let (input, target) = (image("a"), image("b"));
        let (rate, t, number) = ([T::of(lr)], [T::of(s as f64 + 1.0)], [T::of(s as f64)]);
        let inputs: [(&str, &[T]); 7] = [
            ("input", &input),
            ("target", &target),
            ("step", &number),
            ("lr.G", &rate),
            ("lr.D", &rate),
            ("t.G", &t),
            ("t.D", &t),
        ];
        program.run(&mut states, &inputs);
        for name in ["D_fake", "D_real", "G_GAN", "G_L1"] {
            let value = program.scalar(&mut states, &format!("loss/{name}"));
            judge.loss(s, name, value);
        }
        if s == 0 || s == 4 {
            let fake = program.output_f64(&mut states, "fake_B");
            let expected = &fixture.tensors[&format!("out{}/fake", s + 1)].0;
            assert_eq!(expected[1], 1, "one channel: the two layouts agree");
            judge.tensor(&format!("out{}/fake", s + 1), &fake);
            for (spec, net) in [(&g_spec, "G"), (&d_spec, "D")] {
                for (key, _, values) in spec.export::<T>(&states) {
                    let name = if net == "G" { unet_name(&key, downs) } else { key };
                    let values: Vec<f64> = values.into_iter().map(Real::f64).collect();
                    judge.tensor(&format!("after{}/{net}.{name}", s + 1), &values);
                }
            }
        }
    }
    judge
}

fn report(precision: &str, judge: &Judge) {
    let name = &judge.fixture.entry["name"];
    println!(
        "{name} in {precision}: {} values compared, worst {:.2} of what is allowed",
        judge.compared, judge.worst
    );
    let all = judge.fixture.entry["results"].as_object().expect("results").len();
    assert!(judge.compared >= all, "{} of {all} results compared", judge.compared);
    assert!(judge.failures.is_empty(), "{name} in {precision}:\n{}", judge.failures.join("\n"));
}

#[test]
fn pix2pix_steps_agree_with_pytorch() {
    let all = fixtures("step.pix2pix");
    assert!(!all.is_empty() || std::env::var_os("GAN_GOLDENS").is_some(), "no pix2pix fixture");
    for fixture in &all {
        report("f64", &pix2pix::<f64>(fixture));
        report("f32", &pix2pix::<f32>(fixture));
    }
}
