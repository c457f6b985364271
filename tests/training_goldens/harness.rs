//! Fixtures, how they are played through a traced step, and how near the results must come.

use gan::dtype::{DType, Real};
use gan::exec::{Program, States};
use gan::methods::step::{StepBuilder, Update};
use gan::nn::NetSpec;
use gan::ops::optimiser::Rule;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::PathBuf;

fn folder() -> PathBuf {
    std::env::var_os("GAN_GOLDENS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens"))
}

/// One fixture: its manifest entry and its tensors in double precision, by name without the case's prefix.
pub struct Fixture {
    pub entry: Value,
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

pub fn fixtures(prefix: &str) -> Vec<Fixture> {
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
pub fn channels_last(shape: &[usize], data: &[f64]) -> (Vec<usize>, Vec<f64>) {
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

impl Fixture {
    /// Extents of an initial weight, in PyTorch's order.
    pub fn shape(&self, key: &str) -> &[usize] {
        &self.tensors[&format!("init/{key}")].0
    }

    /// Whether there is such an initial weight.
    pub fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(&format!("init/{key}"))
    }

    /// Extents of an input, channels last.
    pub fn input_shape(&self, name: &str) -> Vec<usize> {
        let (shape, data) = &self.tensors[&format!("step0/{name}")];
        channels_last(shape, data).0
    }

    /// The optimiser.
    pub fn update(&self) -> Update {
        let betas = self.entry["optimizer"]["betas"].as_array().expect("betas");
        let beta = |i: usize| betas[i].as_f64().expect("a number");
        Update { rule: Rule::adam(beta(0), beta(1)), clip_norm: None, ema: None }
    }
}

/// What steps run on.
pub trait Device: Sized {
    type Element: Real;

    /// Makes a step ready.
    fn new(step: &StepBuilder, states: &States) -> Self;

    /// Runs it once; afterwards `states` holds the new values.
    fn run(&mut self, states: &mut States, inputs: &[(&str, &[Self::Element])]);

    /// An output of the last run.
    fn output(&mut self, states: &mut States, name: &str) -> Vec<f64>;
}

/// The CPU, in a given precision.
pub struct Cpu<T> {
    program: Program,
    element: PhantomData<T>,
}

impl<T: Real> Device for Cpu<T> {
    type Element = T;

    fn new(step: &StepBuilder, _: &States) -> Self {
        let program = Program::new(step.graph(), &step.outputs()).expect("a valid step");
        Cpu { program, element: PhantomData }
    }

    fn run(&mut self, states: &mut States, inputs: &[(&str, &[T])]) {
        self.program.run(states, inputs);
    }

    fn output(&mut self, states: &mut States, name: &str) -> Vec<f64> {
        self.program.output_f64(states, name)
    }
}

/// A traced step, and how its names correspond to the fixture's.
pub struct Play<'a> {
    pub fixture: &'a Fixture,
    pub step: StepBuilder,
    /// The networks, named as in the fixture, all trained by the fixture's optimiser.
    pub specs: Vec<NetSpec>,
    /// The fixture's name of a tensor (without the network's) for ours.
    pub rename: fn(&Fixture, &str, &str) -> String,
    /// Inputs: ours, theirs.
    pub inputs: Vec<(String, String)>,
    /// How often a step updates a network.
    pub updates: fn(&Fixture, &str) -> usize,
    /// Scalars: ours, theirs.
    pub losses: Vec<(String, String)>,
    /// Images: ours, theirs.
    pub outputs: Vec<(&'static str, &'static str)>,
}

/// The same name.
pub fn same(_: &Fixture, _: &str, key: &str) -> String {
    key.to_string()
}

impl<'a> Play<'a> {
    /// Runs five steps and compares.
    pub fn run<D: Device>(self) -> Judge<'a> {
        let fixture = self.fixture;
        let slots = fixture.update().rule.slots();
        let lr = [D::Element::of(fixture.entry["optimizer"]["lr"].as_f64().expect("lr"))];
        let mut states = States::new();
        for spec in &self.specs {
            spec.initialise::<D::Element>(&mut states, 0, slots);
            spec.import::<D::Element>(&mut states, "the fixture", |key| {
                let name = format!("init/{}.{}", spec.name, (self.rename)(fixture, &spec.name, key));
                let (shape, data) = fixture.tensors.get(&name)?;
                Some((shape.clone(), data.iter().map(|v| D::Element::of(*v)).collect()))
            })
            .expect("the fixture's weights fit");
        }
        let mut program = D::new(&self.step, &states);
        let mut judge = Judge::new(fixture, D::Element::DTYPE);
        for s in 0..5 {
            let mut given: Vec<(String, Vec<D::Element>)> =
                vec![("step".into(), vec![D::Element::of(s as f64), D::Element::of(0.0)])];
            for (ours, theirs) in &self.inputs {
                let (shape, data) = &fixture.tensors[&format!("step{s}/{theirs}")];
                given.push((
                    ours.clone(),
                    channels_last(shape, data).1.into_iter().map(D::Element::of).collect(),
                ));
            }
            for spec in &self.specs {
                let first = s * (self.updates)(fixture, &spec.name) + 1;
                given.push((format!("lr.{}", spec.name), lr.to_vec()));
                given.push((format!("t.{}", spec.name), vec![D::Element::of(first as f64)]));
            }
            let inputs: Vec<(&str, &[D::Element])> =
                given.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            program.run(&mut states, &inputs);
            for (ours, theirs) in &self.losses {
                let value = program.output(&mut states, ours)[0];
                judge.loss(s, theirs, value);
            }
            if s != 0 && s != 4 {
                continue;
            }
            for (ours, theirs) in &self.outputs {
                let image = program.output(&mut states, ours);
                judge.tensor(&format!("out{}/{theirs}", s + 1), &image);
            }
            for spec in &self.specs {
                for (key, _, values) in spec.export::<D::Element>(&states) {
                    let values: Vec<f64> = values.into_iter().map(Real::f64).collect();
                    let name = (self.rename)(fixture, &spec.name, &key);
                    judge.tensor(&format!("after{}/{}.{name}", s + 1, spec.name), &values);
                }
            }
        }
        judge
    }
}

/// Plays every fixture of a kind in both precisions. Another folder of fixtures need not have one of each kind.
pub fn agree(prefix: &str, f64: fn(&Fixture) -> Judge<'_>, f32: fn(&Fixture) -> Judge<'_>) {
    let all = fixtures(prefix);
    assert!(!all.is_empty() || std::env::var_os("GAN_GOLDENS").is_some(), "no fixture {prefix}");
    for fixture in &all {
        f64(fixture).report();
        f32(fixture).report();
    }
}

/// Plays every fixture of a kind on a device of single precision.
pub fn agree_in_single(prefix: &str, play: fn(&Fixture) -> Judge<'_>) {
    fixtures(prefix).iter().for_each(|fixture| play(fixture).report());
}

/// Plays every fixture of a kind in mixed precision: the losses follow those in double precision as far as bf16 allows,
/// and are not the same.
pub fn follow_in_bf16(prefix: &str, play: fn(&Fixture) -> Judge<'_>) {
    for fixture in &fixtures(prefix) {
        let worst = play(fixture)
            .loss_errors
            .into_iter()
            .fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m });
        println!("{} in bf16: losses off by {worst:.2e} at most", fixture.entry["name"]);
        // A rounding is 2^-9 (0.2 %); five steps of Adam on small networks make several of it.
        assert!(worst < 0.05, "{}: a loss is off by {worst:.2e}", fixture.entry["name"]);
        assert!(worst > 1e-5, "{}: nothing was rounded to bf16", fixture.entry["name"]);
    }
}

/// Compares by the acceptance rule of the fixtures; collects what fails.
pub struct Judge<'a> {
    fixture: &'a Fixture,
    f64: bool,
    failures: Vec<String>,
    compared: usize,
    skipped: usize,
    losses: usize,
    worst: (f64, String),
    /// Every number that was compared.
    pub bits: Vec<u64>,
    /// By how much each loss is off, relative to it.
    pub loss_errors: Vec<f64>,
}

impl<'a> Judge<'a> {
    fn new(fixture: &'a Fixture, dtype: DType) -> Self {
        let worst = (0.0, "nothing".into());
        Judge {
            fixture,
            f64: dtype == DType::F64,
            failures: Vec::new(),
            compared: 0,
            skipped: 0,
            losses: 0,
            worst,
            bits: Vec::new(),
            loss_errors: Vec::new(),
        }
    }

    fn tensor(&mut self, key: &str, got: &[f64]) {
        self.bits.extend(got.iter().map(|v| v.to_bits()));
        let null = self.fixture.entry["null_gradient"].as_array().expect("a list");
        let weight = key.split_once('/').map_or("", |k| k.1);
        if !self.f64 && null.iter().any(|n| n == weight) {
            self.skipped += 1;
            return; // Adam divides rounding noise by itself there
        }
        let result = &self.fixture.entry["results"][key];
        let (max, f32_err) =
            (result["max"].as_f64().expect("max"), result["f32_err"].as_f64().expect("f32_err"));
        let tolerance = if self.f64 { 2e-7 * max + 1e-12 } else { 4.0 * f32_err + 2e-6 * max + 1e-7 };
        let (shape, want) = &self.fixture.tensors[key];
        let want = if key.starts_with("out") { &channels_last(shape, want).1 } else { want };
        assert_eq!(got.len(), want.len(), "{key}");
        let error = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
        self.compared += 1;
        self.note(error / tolerance, key);
        if error > tolerance || error.is_nan() {
            self.failures.push(format!("{key}: error {error:.3e}, allowed {tolerance:.3e}"));
        }
    }

    fn loss(&mut self, step: usize, name: &str, got: f64) {
        self.bits.push(got.to_bits());
        let of = |list: &str| self.fixture.entry[list][step][name].as_f64().expect("a loss");
        let (want, torch) = (of("losses_f64"), of("losses_torch_f32"));
        let tolerance = if self.f64 {
            1e-12 * want.abs() + 1e-12
        } else {
            4.0 * (want - torch).abs() + 2e-6 * want.abs() + 1e-7
        };
        self.losses += 1;
        self.loss_errors.push((got - want).abs() / want.abs().max(0.1));
        self.note((got - want).abs() / tolerance, &format!("step {step} {name}"));
        if (got - want).abs() > tolerance || got.is_nan() {
            self.failures
                .push(format!("step {step} {name}: {got}, expected {want}, allowed {tolerance:.3e}"));
        }
    }

    fn note(&mut self, ratio: f64, what: &str) {
        if ratio > self.worst.0 {
            self.worst = (ratio, what.to_string());
        }
    }

    /// Says how near the results came. Panics if one is missing or too far off.
    pub fn report(&self) {
        let (name, precision) = (&self.fixture.entry["name"], if self.f64 { "f64" } else { "f32" });
        println!(
            "{name} in {precision}: {} tensors compared, {} without a gradient left out, worst {:.3} of what is allowed ({})",
            self.compared, self.skipped, self.worst.0, self.worst.1
        );
        assert!(self.failures.is_empty(), "{name} in {precision}:\n{}", self.failures.join("\n"));
        let all = self.fixture.entry["results"].as_object().expect("results").len();
        assert_eq!(self.compared + self.skipped, all, "{name} in {precision}: every result is compared once");
        let losses = self.fixture.entry["losses_f64"][0].as_object().expect("losses").len();
        assert_eq!(self.losses, 5 * losses, "{name} in {precision}: every loss is compared");
    }
}
