//! Parameters: declared by the layers that use them, kept in one flat buffer per network.
//!
//! A network is traced twice. The first trace ([`NetSpec::describe`]) only listens which parameters its layers ask
//! for. The second reads them as views of the flat buffer, so that the optimiser updates a whole network in one
//! operation.

use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::exec::States;
use crate::graph::{Graph, StateId, Var};
use crate::ops::concat::pack;
use crate::ops::dropout::Dropout;
use crate::ops::random::{Distribution, Random};
use crate::rng::Philox;
use crate::shape::Shape;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Display;
use std::rc::Rc;

/// How a tensor's axes are ordered in PyTorch's state dicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As here.
    Plain,
    /// Here `[a, spatial.., b]`, there `[a, b, spatial..]`: weights of convolutions, transposed ones too.
    ChannelsSecond,
}

/// What a tensor begins with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// The same number everywhere.
    Constant(f64),
    /// Normal with a mean and a standard deviation.
    Normal(f64, f64),
    /// Uniform within plus and minus a bound (PyTorch's default for a convolution: 1 / sqrt(fan in)).
    Uniform(f64),
}

/// How a network's weights begin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Scheme {
    /// The GAN literature's: weights N(0, 0.02), scales of norms N(1, 0.02), all else 0 (Radford et al., ICLR 2016).
    #[default]
    Gan,
    /// Weights N(0, 2 / fan in), which keeps the variance through ReLUs (He et al., ICCV 2015).
    He,
    /// Weights and biases uniform within plus and minus 1 / sqrt(fan in): what PyTorch's layers begin with.
    Torch,
    /// Weights normal with this standard deviation.
    Normal(f64),
    /// Weights N(0, gain^2 / fan in).
    Gain(f64),
}

impl Scheme {
    /// Of a weight with so many inputs per output.
    pub fn weight(self, fan_in: usize) -> Init {
        match self {
            Scheme::Gan => Init::Normal(0.0, 0.02),
            Scheme::He => Init::Normal(0.0, (2.0 / fan_in as f64).sqrt()),
            Scheme::Torch => Init::Uniform(1.0 / (fan_in as f64).sqrt()),
            Scheme::Normal(sd) => Init::Normal(0.0, sd),
            Scheme::Gain(gain) => Init::Normal(0.0, gain / (fan_in as f64).sqrt()),
        }
    }

    /// Of a bias beside such a weight.
    pub fn bias(self, fan_in: usize) -> Init {
        match self {
            Scheme::Torch => self.weight(fan_in),
            _ => Init::Constant(0.0),
        }
    }

    /// Of a norm's scale.
    pub fn scale(self) -> Init {
        match self {
            Scheme::Gan => Init::Normal(1.0, 0.02),
            _ => Init::Constant(1.0),
        }
    }

    /// Of a norm's shift.
    pub fn shift() -> Init {
        Init::Constant(0.0)
    }
}

/// A parameter, or a buffer that is no parameter (running statistics).
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// PyTorch's key.
    pub key: String,
    /// Extents here.
    pub shape: Shape,
    /// Order of axes there.
    pub layout: Layout,
    /// What it begins with.
    pub init: Init,
    /// First element in the flat buffer.
    pub offset: usize,
}

impl TensorSpec {
    /// Extents in PyTorch's order.
    pub fn torch_shape(&self) -> Vec<usize> {
        match self.layout {
            Layout::Plain => self.shape.to_vec(),
            Layout::ChannelsSecond => {
                let d = &self.shape[..];
                [&[d[0], d[d.len() - 1]], &d[1..d.len() - 1]].concat()
            }
        }
    }

    /// Elements reordered to PyTorch's order.
    pub fn to_torch<T: Copy>(&self, own: &[T]) -> Vec<T> {
        self.reorder(own, |a, b, s, nb, ns| ((a * ns + s) * nb + b, (a * nb + b) * ns + s))
    }

    /// Elements reordered from PyTorch's order.
    pub fn from_torch<T: Copy>(&self, torch: &[T]) -> Vec<T> {
        self.reorder(torch, |a, b, s, nb, ns| ((a * nb + b) * ns + s, (a * ns + s) * nb + b))
    }

    fn reorder<T: Copy>(
        &self,
        x: &[T],
        at: impl Fn(usize, usize, usize, usize, usize) -> (usize, usize),
    ) -> Vec<T> {
        let mut out = x.to_vec();
        if self.layout == Layout::ChannelsSecond {
            let d = &self.shape[..];
            let (na, nb) = (d[0], d[d.len() - 1]);
            let ns: usize = d[1..d.len() - 1].iter().product();
            for a in 0..na {
                for b in 0..nb {
                    for s in 0..ns {
                        let (from, to) = at(a, b, s, nb, ns);
                        out[to] = x[from];
                    }
                }
            }
        }
        out
    }
}

/// Elements to whose multiples parameters are aligned in the flat buffer, where their sizes allow it: 32 bytes in bf16.
pub const ALIGNED: usize = 16;

/// The largest power of two, up to [`ALIGNED`], that divides a size.
fn evenness(numel: usize) -> usize {
    1 << numel.trailing_zeros().min(ALIGNED.trailing_zeros())
}

/// Everything that a network keeps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetSpec {
    /// "G", "D"...
    pub name: String,
    /// What the optimiser trains.
    pub params: Vec<TensorSpec>,
    /// What it does not.
    pub buffers: Vec<TensorSpec>,
}

impl NetSpec {
    /// Listens which tensors `trace` asks for. A wrong shape is reported here, before anything is planned.
    pub fn describe(name: &str, trace: impl FnOnce(&Ctx, &Graph)) -> Result<Self> {
        let graph = Graph::new(DType::F32);
        let spec = Rc::new(RefCell::new(NetSpec { name: name.to_string(), ..Default::default() }));
        let step = graph.input("step", [2]);
        let ctx = Ctx {
            graph: graph.clone(),
            tensors: Tensors::Listening(spec.clone()),
            prefix: "".into(),
            features: Rc::default(),
            train: true,
            dropout: Rc::new(DropoutSource { seed: 0, step: Some(step), streams: Cell::new(0) }),
            scheme: Scheme::default(),
            eps: EPS,
        };
        graph.scope(name, || trace(&ctx, &graph));
        graph.check()?;
        let mut spec = spec.borrow().clone();
        spec.place();
        Ok(spec)
    }

    /// Gives every parameter its place in the flat buffer: first those whose sizes divide by [`ALIGNED`], then those whose sizes
    /// divide by half of that, and so on. So a tensor begins at a multiple of the largest power of two that its size has, up to
    /// [`ALIGNED`], without gaps: kernels that copy as many channels at once as their number allows find every tensor so, and
    /// a bias of one channel moves none that follows it.
    fn place(&mut self) {
        let mut order: Vec<&mut TensorSpec> = self.params.iter_mut().collect();
        order.sort_by_key(|t| std::cmp::Reverse(evenness(t.shape.numel())));
        let mut next = 0;
        for t in order {
            t.offset = next;
            next += t.shape.numel();
        }
    }

    /// The parameters in the order of their places.
    fn placed(&self) -> Vec<&TensorSpec> {
        let mut all: Vec<&TensorSpec> = self.params.iter().collect();
        all.sort_by_key(|t| t.offset);
        all
    }

    /// Values of all parameters (one slot or several) in the order in which the layers ask for them, which is theirs in state
    /// files, whatever the places in memory.
    pub fn to_declared<T: Copy>(&self, flat: &[T]) -> Vec<T> {
        let slots = flat.chunks(self.param_count().max(1));
        slots
            .flat_map(|slot| {
                self.params.iter().flat_map(move |t| &slot[t.offset..t.offset + t.shape.numel()])
            })
            .copied()
            .collect()
    }

    /// The inverse of [`NetSpec::to_declared`].
    pub fn from_declared<T: Copy>(&self, declared: &[T]) -> Vec<T> {
        let mut flat = declared.to_vec();
        let n = self.param_count().max(1);
        for (slot, from) in flat.chunks_mut(n).zip(declared.chunks(n)) {
            let mut at = 0;
            for t in &self.params {
                slot[t.offset..t.offset + t.shape.numel()].copy_from_slice(&from[at..at + t.shape.numel()]);
                at += t.shape.numel();
            }
        }
        flat
    }

    /// Number of parameters.
    pub fn param_count(&self) -> usize {
        self.params.iter().map(|p| p.shape.numel()).sum()
    }

    /// Number of elements of buffers.
    pub fn buffer_count(&self) -> usize {
        self.buffers.iter().map(|p| p.shape.numel()).sum()
    }

    /// The name of the state that holds the parameters and the optimiser's moments: `[slots, n]`.
    pub fn store_name(&self) -> String {
        format!("{}.params", self.name)
    }

    /// The name of the state that holds the buffers.
    pub fn buffers_name(&self) -> String {
        format!("{}.buffers", self.name)
    }

    /// The name of the state that holds the running mean of the parameters, if one is kept: `[n]`.
    pub fn ema_name(&self) -> String {
        format!("{}.ema", self.name)
    }

    /// Initial values: every tensor from a random stream of its own, named by its key, so that a change to one layer
    /// leaves the others as they were.
    pub fn initialise<T: Real>(&self, states: &mut States, seed: u64, slots: usize) {
        let fill = |list: &[TensorSpec], out: &mut [T]| {
            for t in list {
                let mut rng = Philox::named(seed, &format!("{}.{}", self.name, t.key));
                let own = &mut out[t.offset..t.offset + t.shape.numel()];
                match t.init {
                    Init::Constant(v) => own.fill(T::of(v)),
                    Init::Normal(mean, sd) => {
                        own.iter_mut().for_each(|v| *v = T::of(mean + sd * rng.normal()))
                    }
                    Init::Uniform(b) => own.iter_mut().for_each(|v| *v = T::of(rng.range(-b, b))),
                }
            }
        };
        let mut store = vec![T::zero(); slots * self.param_count()];
        fill(&self.params, &mut store);
        states.set(&self.store_name(), &store);
        let mut buffers = vec![T::zero(); self.buffer_count().max(1)];
        fill(&self.buffers, &mut buffers);
        states.set(&self.buffers_name(), &buffers);
    }

    /// All tensors in PyTorch's order of axes: key, extents, elements.
    pub fn export<T: Real>(&self, states: &States) -> Vec<(String, Vec<usize>, Vec<T>)> {
        let (store, buffers) = (states.get::<T>(&self.store_name()), states.get::<T>(&self.buffers_name()));
        let take = |t: &TensorSpec, from: &[T]| {
            (t.key.clone(), t.torch_shape(), t.to_torch(&from[t.offset..t.offset + t.shape.numel()]))
        };
        self.params
            .iter()
            .map(|t| take(t, store))
            .chain(self.buffers.iter().map(|t| take(t, buffers)))
            .collect()
    }

    /// Reads all tensors in PyTorch's order of axes. `find` gives extents and elements of a key.
    pub fn import<T: Real>(
        &self,
        states: &mut States,
        source: &str,
        find: impl Fn(&str) -> Option<(Vec<usize>, Vec<T>)>,
    ) -> Result<()> {
        let mut values = Vec::new();
        for t in self.params.iter().chain(&self.buffers) {
            let (shape, data) = find(&t.key).ok_or_else(|| {
                Error::input(format!(
                    "{source} has no tensor {}; it holds weights of another architecture",
                    t.key
                ))
            })?;
            if shape != t.torch_shape() {
                return Err(Error::input(format!(
                    "{source}: tensor {} has shape {} where this architecture expects {}; use the recipe that it was trained with",
                    t.key,
                    Shape::from(shape),
                    Shape::from(t.torch_shape())
                )));
            }
            values.push(t.from_torch(&data));
        }
        for (i, (t, v)) in self.params.iter().chain(&self.buffers).zip(values).enumerate() {
            let name = if i < self.params.len() { self.store_name() } else { self.buffers_name() };
            states.get_mut::<T>(&name)[t.offset..t.offset + v.len()].copy_from_slice(&v);
        }
        Ok(())
    }
}

/// A described network bound to a graph.
#[derive(Clone)]
pub struct Net {
    spec: Rc<NetSpec>,
    graph: Graph,
    store: StateId,
    buffers: StateId,
    index: Rc<HashMap<String, usize>>,
}

impl Net {
    /// Declares the network's states in `graph`; `slots` is what its optimiser needs.
    pub fn bind(graph: &Graph, spec: &NetSpec, slots: usize) -> Self {
        let index = spec.params.iter().enumerate().map(|(i, p)| (p.key.clone(), i)).collect();
        Net {
            store: graph.state(&spec.store_name(), [slots, spec.param_count()]),
            buffers: graph.state(&spec.buffers_name(), [spec.buffer_count().max(1)]),
            spec: Rc::new(spec.clone()),
            graph: graph.clone(),
            index: Rc::new(index),
        }
    }

    /// What it keeps.
    pub fn spec(&self) -> &NetSpec {
        &self.spec
    }

    /// The state of parameters and moments.
    pub fn store(&self) -> StateId {
        self.store
    }

    /// Gradients by [`Net::params`] as one flat tensor that lies like the parameters.
    pub fn pack(&self, gradients: &[Var]) -> Var {
        let placed = self.spec.placed();
        let of = |t: &TensorSpec| &gradients[self.index[&t.key]];
        pack(&placed.into_iter().map(of).collect::<Vec<_>>())
    }

    /// The current values of all parameters, as views.
    pub fn params(&self) -> Vec<Var> {
        let store = self.graph.read(self.store);
        self.spec.params.iter().map(|p| store.stretch(p.offset, &p.shape)).collect()
    }

    /// A context to trace a forward pass in: training (batch statistics, dropout) or evaluation.
    pub fn ctx(&self, train: bool, dropout: &Rc<DropoutSource>) -> Ctx {
        Ctx {
            graph: self.graph.clone(),
            tensors: Tensors::Bound(self.clone()),
            prefix: "".into(),
            features: Rc::default(),
            train,
            dropout: dropout.clone(),
            scheme: Scheme::default(),
            eps: EPS,
        }
    }
}

/// Where the dropout layers of a step get their random numbers.
#[derive(Debug)]
pub struct DropoutSource {
    /// The run's seed.
    pub seed: u64,
    /// The step number in two parts ([`crate::rng::step_input`]), if there is one (evaluation has none).
    pub step: Option<Var>,
    /// How many streams were given out: every layer of every pass has one of its own.
    pub streams: Cell<u32>,
}

#[derive(Clone)]
enum Tensors {
    Listening(Rc<RefCell<NetSpec>>),
    Bound(Net),
}

/// What layers are traced in.
#[derive(Clone)]
pub struct Ctx {
    graph: Graph,
    tensors: Tensors,
    /// Stands before the keys of all tensors, without the dot.
    prefix: Rc<str>,
    features: Rc<RefCell<Vec<(String, Var)>>>,
    train: bool,
    dropout: Rc<DropoutSource>,
    scheme: Scheme,
    /// What norms add to variances.
    eps: f64,
}

/// PyTorch's default.
const EPS: f64 = 1e-5;

impl Ctx {
    /// The same context for layers whose norms add another number than 1e-5 to variances.
    pub fn with_eps(&self, eps: f64) -> Ctx {
        Ctx { eps, ..self.clone() }
    }

    /// What norms add to variances.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// The same context for layers whose weights begin another way.
    pub fn with_scheme(&self, scheme: Scheme) -> Ctx {
        Ctx { scheme, ..self.clone() }
    }

    /// The same context for the modules within the module `key`: their keys begin with it, as in PyTorch's state dicts.
    pub fn at(&self, key: impl Display) -> Ctx {
        Ctx { prefix: self.key(key).into(), ..self.clone() }
    }

    fn key(&self, key: impl Display) -> String {
        if self.prefix.is_empty() { key.to_string() } else { format!("{}.{key}", self.prefix) }
    }

    /// What `trace` computes, as the layer `key` in the graph.
    pub(super) fn layer(&self, key: impl Display, trace: impl FnOnce(&Ctx) -> Var) -> Var {
        let cx = self.at(key);
        self.graph.scope(&cx.prefix, || trace(&cx))
    }

    /// Makes a value inside the network known by a name, for losses that compare networks' insides.
    pub fn feature(&self, name: impl Display, x: &Var) {
        self.features.borrow_mut().push((self.key(name), x.clone()));
    }

    /// What has been made known so far, in order.
    pub fn features(&self) -> Vec<(String, Var)> {
        self.features.borrow().clone()
    }

    /// How weights begin.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Whether batch statistics and dropout are on.
    pub fn train(&self) -> bool {
        self.train
    }

    /// The parameter `key` of this module.
    pub fn param(&self, key: impl Display, shape: &[usize], layout: Layout, init: Init) -> Var {
        let key = &self.key(key);
        match &self.tensors {
            Tensors::Listening(spec) => {
                let mut spec = spec.borrow_mut();
                if !spec.params.iter().any(|p| p.key == *key) {
                    let offset = spec.param_count();
                    spec.params.push(TensorSpec {
                        key: key.clone(),
                        shape: shape.into(),
                        layout,
                        init,
                        offset,
                    });
                }
                self.graph.input(key.as_str(), shape)
            }
            Tensors::Bound(net) => {
                let p = &net.spec.params[net.index[key.as_str()]];
                self.graph.read(net.store).stretch(p.offset, &p.shape)
            }
        }
    }

    /// Declares running statistics of `channels` channels of this module and returns their offset in the buffers: means, then
    /// variances.
    pub fn running(&self, channels: usize) -> usize {
        let offset = self.buffer("running_mean", channels, Init::Constant(0.0));
        self.buffer("running_var", channels, Init::Constant(1.0));
        offset
    }

    /// Declares a buffer of this module, of so many elements, and returns its offset in the buffers.
    pub fn buffer(&self, key: impl Display, elements: usize, init: Init) -> usize {
        let key = self.key(key);
        match &self.tensors {
            Tensors::Listening(spec) => {
                let mut spec = spec.borrow_mut();
                let offset = spec.buffer_count();
                if !spec.buffers.iter().any(|p| p.key == key) {
                    let (shape, layout) = ([elements].into(), Layout::Plain);
                    spec.buffers.push(TensorSpec { key, shape, layout, init, offset });
                }
                offset
            }
            Tensors::Bound(net) => {
                net.spec.buffers.iter().find(|b| b.key == key).expect("declared in the first trace").offset
            }
        }
    }

    /// The buffers' current value, if this trace has them.
    pub fn buffers(&self) -> Option<(Var, StateId)> {
        match &self.tensors {
            Tensors::Listening(_) => None,
            Tensors::Bound(net) => Some((self.graph.read(net.buffers), net.buffers)),
        }
    }

    /// Drops elements with probability `p` while training.
    pub fn dropout(&self, x: &Var, p: f64) -> Var {
        let stream = self.dropout.streams.get();
        match &self.dropout.step {
            Some(step) if self.train && p > 0.0 => {
                self.dropout.streams.set(stream + 1);
                x.apply(Dropout { p, seed: self.dropout.seed, stream }, &[step])
            }
            _ => x.clone(),
        }
    }

    /// Standard normal numbers while training, drawn anew in every step and pass; none otherwise.
    pub fn noise(&self, shape: &Shape) -> Option<Var> {
        let step = self.dropout.step.as_ref().filter(|_| self.train)?;
        let stream = self.dropout.streams.replace(self.dropout.streams.get() + 1);
        let (distribution, seed) = (Distribution::Normal, self.dropout.seed);
        Some(step.apply(Random { distribution, shape: shape.clone(), seed, stream }, &[]))
    }
}
