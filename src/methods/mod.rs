//! What is trained, and by which losses: networks with roles, and updates by terms. Everything around it (sessions,
//! checkpoints, predictions, scores) knows methods by [`Method`] alone, and no published method by name: those are presets.

mod check;
pub mod flow;
mod kept;
pub mod keys;
pub mod preset;
mod read;
mod read_term;
mod regularise;
pub mod spec;
pub mod step;
pub mod text;
pub mod times;
mod trace;
pub mod value;

pub use flow::Given;
pub use spec::{Role, Spec, Target};
pub use value::Source;

use crate::data::DataConfig;
use crate::error::{Error, Result};
use crate::graph::Var;
use crate::models::{Limits, Network, Signature};
use crate::nn::{Net, NetSpec};
use crate::rng::step_input;
use crate::shape::Shape;
use spec::{NetworkSpec, Term, TermKind, UpdateSpec};
use step::StepBuilder;
use value::Expr;

/// What a trained network does, and so how it is measured and what its predictions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Makes an image from an image.
    Translate,
    /// Makes a label map from an image.
    Segment,
    /// Makes images from noise.
    Generate,
    /// Says which class an image is of, or what it shows.
    Classify,
    /// Gives numbers for an image.
    Regress,
}

/// Extents of what a step sees.
#[derive(Clone, Debug)]
pub struct Shapes {
    /// Images at once.
    pub batch: usize,
    /// Two or three spatial extents.
    pub size: Vec<usize>,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the target, or its numbers where it is no image.
    pub targets: usize,
    /// Whether the target is no image: a vector.
    pub vector: bool,
}

impl Shapes {
    /// Of batches of images of these extents.
    pub fn new(data: &DataConfig, batch: usize, size: Vec<usize>) -> Self {
        let (inputs, targets, vector) = (data.input.len(), data.target_channels(), data.answers().is_some());
        Shapes { batch, size, inputs, targets, vector }
    }

    /// Of a batch of inputs.
    pub fn input(&self) -> Shape {
        self.with(self.inputs)
    }

    /// Of a batch of targets.
    pub fn target(&self) -> Shape {
        if self.vector { Shape::from([self.batch, self.targets]) } else { self.with(self.targets) }
    }

    fn with(&self, channels: usize) -> Shape {
        Shape::from([&[self.batch], self.size.as_slice(), &[channels]].concat())
    }
}

/// One run of one program within a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which program.
    pub part: usize,
    /// How often it ran before, over all steps: its random numbers and its optimisers' counters come from this.
    pub number: u64,
    /// Whether it sees a new batch.
    pub takes_batch: bool,
    /// In which training step, from 0.
    pub step: u64,
}

/// A method on data of known channels.
#[derive(Clone, Debug)]
pub struct Method {
    spec: Spec,
    /// Channels of the input, of the target as it is read, and of what predicts it.
    inputs: usize,
    targets: usize,
    outputs: usize,
    /// The updates of each program of a step.
    programs: Vec<Vec<usize>>,
    /// Whether each of them sees images, which are then a new batch.
    batches: Vec<bool>,
}

impl Method {
    /// The method of a recipe: makes sure that it makes sense and that the data give what it learns from.
    pub fn new(spec: &Spec, data: &DataConfig) -> Result<Method> {
        let method = Self::of_channels(spec, data.input.len(), data.target_channels(), data.outputs());
        method.check_data(data)?;
        method.check()?;
        Ok(method)
    }

    /// A method on images of so many channels: of the input, of the target, and of what is predicted (as many as the target's,
    /// or one for each region or class).
    pub fn of_channels(spec: &Spec, inputs: usize, targets: usize, outputs: usize) -> Method {
        let mut programs: Vec<Vec<usize>> = Vec::new();
        let mut open = false;
        for (i, update) in spec.updates.iter().enumerate() {
            match programs.last_mut().filter(|_| open && !update.apart) {
                Some(program) => program.push(i),
                None => programs.push(vec![i]),
            }
            open = !update.apart;
        }
        let batches =
            programs.iter().map(|p| p.iter().any(|&u| sees_images(spec, &spec.updates[u]))).collect();
        Method { spec: spec.clone(), inputs, targets, outputs, programs, batches }
    }

    /// The method as data.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What the trained network does.
    pub fn task(&self) -> Task {
        match self.spec.target {
            Target::Image => Task::Translate,
            Target::Regions | Target::Classes => Task::Segment,
            Target::Nothing => Task::Generate,
            Target::Class | Target::Findings => Task::Classify,
            Target::Numbers => Task::Regress,
        }
    }

    /// Whether inputs and targets do not belong together.
    pub fn unpaired(&self) -> bool {
        self.spec.unpaired
    }

    /// The spatial extents must divide by this.
    pub fn multiple(&self) -> usize {
        let generating = self.spec.networks.iter().filter(|n| n.role != Role::Discriminator);
        generating.map(|n| n.network.multiple()).max().unwrap_or(1)
    }

    /// Whether images may have three spatial extents.
    pub fn takes_volumes(&self) -> bool {
        self.spec.networks.iter().all(|n| n.network.takes_volumes())
    }

    /// Whether a network is trained against another's images, so that the two must be kept in balance.
    pub fn adversarial(&self) -> bool {
        self.spec.networks.iter().any(|n| n.role == Role::Discriminator)
    }

    /// Whether predictions lie in (-1, 1) whatever is learned.
    pub fn bounded(&self) -> bool {
        matches!(self.predicting().network.signature(), Signature::Image | Signature::Noise)
    }

    /// The loss that a person watches first.
    pub fn headline(&self) -> String {
        format!("loss/{}", self.spec.watch)
    }

    /// Numbers of noise per image, for what predicts from noise.
    pub fn noise(&self) -> Option<usize> {
        (self.spec.predict.source() == Source::Noise).then_some(self.spec.noise)
    }

    /// The network that predicts.
    pub fn predictor(&self) -> &str {
        &self.predicting().name
    }

    fn predicting(&self) -> &NetworkSpec {
        match &self.spec.predict {
            Expr::Apply(net, _) => &self.spec.networks[*net],
            _ => &self.spec.networks[0],
        }
    }

    /// Whether a network is a discriminator: it has the discriminator's learning rate and no running mean of its weights.
    pub fn discriminates(&self, net: &str) -> bool {
        self.spec.networks.iter().any(|n| n.name == net && n.role == Role::Discriminator)
    }

    fn channels(&self, source: Source) -> usize {
        match source {
            Source::Input => self.inputs,
            Source::Target => self.targets,
            Source::Noise => self.spec.noise,
        }
    }

    /// Number of classes, where the target is one of classes.
    pub(crate) fn classes(&self) -> usize {
        self.outputs
    }

    fn inputs_of(&self, net: &NetworkSpec) -> usize {
        if net.takes.is_empty() {
            return self.frozen_inputs(net);
        }
        let seen = |s: &Source| match s {
            // A discriminator sees classes as channels.
            Source::Target if net.role == Role::Discriminator => self.outputs,
            s => self.channels(*s),
        };
        net.takes.iter().map(seen).sum()
    }

    /// Channels, or elements of the vector, that a network gives.
    pub(crate) fn outputs_of(&self, net: &NetworkSpec) -> usize {
        match (net.role, net.gives) {
            (Role::Discriminator, _) => 1,
            _ if net.outputs.is_some() => net.outputs.unwrap_or(1),
            (Role::Frozen, Source::Target) => self.outputs.max(1),
            (_, Source::Target) => self.outputs,
            (_, source) => self.channels(source),
        }
    }

    /// Channels of a value, as far as networks keep to what they are said to take.
    fn channels_of(&self, value: &Expr) -> Result<usize> {
        let (net, inner) = match value {
            Expr::Source(source) => return Ok(self.channels(*source)),
            Expr::Map(value::Map::OneHot, _) => return Ok(self.classes()),
            Expr::Map(value::Map::Sample, inner) => {
                let both = self.channels_of(inner)?;
                if !both.is_multiple_of(2) {
                    return Err(Error::input(format!(
                        "`{}` has {both} channels, but means and logarithms of variances are as many of each; give the network an even number of `outputs`",
                        self.text(inner)
                    )));
                }
                return Ok(both / 2);
            }
            Expr::Map(_, inner) => return self.channels_of(inner),
            Expr::Apply(net, inner) => (&self.spec.networks[*net], inner),
        };
        let (given, takes) = (self.channels_of(inner)?, self.inputs_of(net));
        if given != takes {
            return Err(Error::input(format!(
                "`{}` has {given} channels, but {} takes {takes}",
                self.text(inner),
                net.name
            )));
        }
        Ok(self.outputs_of(net))
    }

    fn limits<'a>(&self, net: &'a NetworkSpec, size: Option<&'a [usize]>) -> Limits<'a> {
        Limits { key: &net.key, inputs: self.inputs_of(net), outputs: self.outputs_of(net), size }
    }

    /// Which tensors the networks keep, for images of `size` (two or three spatial extents). Fails when the images are too
    /// small for them.
    pub fn networks(&self, size: &[usize]) -> Result<Vec<NetSpec>> {
        self.check_windows(size)?;
        self.spec.networks.iter().map(|net| self.describe(net, size)).collect()
    }

    fn describe(&self, net: &NetworkSpec, size: &[usize]) -> Result<NetSpec> {
        net.network.check(&self.limits(net, Some(size)))?;
        let from_noise = net.takes == [Source::Noise];
        let channels = self.inputs_of(net);
        // Networks from noise see a batch of two, for batch norm.
        let shape = if from_noise { vec![2, channels] } else { [&[1], size, &[channels]].concat() };
        let (mut output, mut layers) = (Shape::scalar(), Vec::new());
        let spec = NetSpec::describe(&net.name, |cx, graph| {
            let wanted = crate::models::Wanted { channels: self.outputs_of(net), size: size.to_vec() };
            output = net.network.forward(cx, &graph.input("x", shape), &wanted)[0].shape();
            layers = cx.features().into_iter().map(|(name, _)| name).collect();
        });
        if spec.is_ok() {
            self.check_described(net, &output, &layers)?;
        }
        spec.map_err(|e| match net.role {
            Role::Discriminator => Error::input(format!(
                "images of {size:?} are too small for the discriminator {}; lower `{}.layers` or enlarge `data.canvas` ({e})",
                net.name, net.key
            )),
            Role::Frozen => Error::input(format!(
                "images of {size:?} are too small for the frozen network {}; enlarge `data.canvas` ({e})",
                net.name
            )),
            _ => e,
        })
    }

    /// States that hold older generated images, by name; each with an input `<name>.choices`.
    pub fn pools(&self, size: &[usize]) -> Vec<(String, Shape)> {
        let terms = self.spec.updates.iter().flat_map(|u| &u.terms);
        terms
            .filter_map(|t| match &t.kind {
                TermKind::Adversarial { pool: Some(pool), by, .. } => {
                    let channels = self.inputs_of(&self.spec.networks[*by]);
                    let shape = Shape::from([&[pool.size], size, &[channels]].concat());
                    Some((pool.state.clone(), shape))
                }
                _ => None,
            })
            .collect()
    }

    /// How many programs a training step is made of.
    pub fn parts(&self) -> usize {
        self.programs.len()
    }

    pub(super) fn program(&self, part: usize) -> &[usize] {
        &self.programs[part]
    }

    /// What training step `step` (from 0) runs, in this order.
    pub fn runs(&self, step: u64) -> Vec<Run> {
        let mut runs = Vec::new();
        for (part, updates) in self.programs.iter().enumerate() {
            let times = &self.spec.updates[updates[0]].times;
            let (before, takes_batch) = (times.before(step), self.batches[part]);
            runs.extend((0..times.count(step)).map(|i| Run { part, number: before + i, takes_batch, step }));
        }
        runs
    }

    /// Batches that all steps before `step` took: where a resumed run goes on.
    pub fn batches_before(&self, step: u64) -> u64 {
        let taking = (0..self.parts()).filter(|&part| self.batches[part]);
        taking.map(|part| self.spec.updates[self.programs[part][0]].times.before(step)).sum()
    }

    /// The small inputs of a run: its number, weights of terms that change, and of every network the learning rate (`rates` of generators and of
    /// discriminators) and the number of the update. That one is an f32: a bias correction has long been 1 where it rounds.
    pub fn scalars(&self, specs: &[NetSpec], run: Run, rates: [f64; 2]) -> Vec<(String, Vec<f32>)> {
        let mut all = vec![("step".to_string(), step_input(run.number).to_vec())];
        for spec in specs {
            let lr = rates[usize::from(self.discriminates(&spec.name))] as f32;
            all.push((format!("lr.{}", spec.name), vec![lr]));
            all.push((format!("t.{}", spec.name), vec![self.update_number(&spec.name, run) as f32]));
        }
        all.extend(self.ramps(run));
        all
    }

    /// Traces a prediction from images `[n, size.., inputs]`, or from noise `[n, noise]`, in evaluation mode: an image,
    /// probabilities of regions or classes, or numbers.
    pub fn trace_predict(&self, step: &StepBuilder, net: &Net, x: &Var, size: &[usize]) -> Var {
        let Expr::Apply(index, _) = &self.spec.predict else { panic!("checked when the method was made") };
        let y = self.apply(&step.eval(net), *index, x, size).remove(0);
        step.graph().scope(&net.spec().name, || match self.spec.target {
            Target::Regions | Target::Findings => y.sigmoid(),
            Target::Classes | Target::Class => y.softmax(y.rank().saturating_sub(1)),
            Target::Image | Target::Numbers | Target::Nothing => y,
        })
    }

    /// The settings that tell a network's architecture from others; stored with its weights.
    pub fn settings(&self, name: &str) -> String {
        let Some(net) = self.spec.networks.iter().find(|n| n.name == name) else { return String::new() };
        let text = net.network.text();
        if net.takes == [Source::Noise] {
            return format!("{text} nz={}", self.spec.noise);
        }
        if net.role == Role::Network {
            let residual = if net.residual { " residual" } else { "" };
            return format!("{text} outputs={}{residual}", self.outputs_of(net));
        }
        text
    }
}

/// Whether an update looks at images, and not at noise alone.
fn sees_images(spec: &Spec, update: &UpdateSpec) -> bool {
    let sees = |e: &Expr| e.source() != Source::Noise;
    let term = |t: &Term| match &t.kind {
        // A generator's term looks at real images in relativistic forms only.
        TermKind::Adversarial { fake, form, by, .. }
            if !form.is_relativistic() && !update.networks.contains(by) =>
        {
            spec.networks[*by].takes.len() > 1 || sees(fake)
        }
        TermKind::Adversarial { by, .. } | TermKind::Features { by, .. }
            if spec.networks[*by].takes.len() > 1 =>
        {
            true
        }
        kind => kind.values().into_iter().any(sees),
    };
    update.forward.iter().any(sees) || update.terms.iter().filter(|t| t.weight > 0.0).any(term)
}
