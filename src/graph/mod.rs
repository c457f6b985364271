//! The traced graph: what a training step computes, before anyone decides how.
//!
//! Model code reads define-by-run (`conv(x).norm().leaky_relu(0.2)`), but calling it only records nodes. A step is
//! static, so it is traced once, differentiated graph to graph ([`crate::ops::gradient`]), planned
//! ([`crate::compile::plan`]) and replayed.
//!
//! A wrong shape does not panic: the handle is poisoned, whatever is built on it is poisoned too, and
//! [`Graph::check`] reports the first cause once, with its layer path and source line.

mod op;
mod var;

pub use op::{Cost, GradArgs, Memory, Op, Storage};
pub use var::Var;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

/// Index of a node in its graph; nodes are numbered in the order in which they were traced, and run in that order.
pub type NodeId = usize;

/// Index of a state: a tensor that lives from step to step (parameters with their moments, running statistics).
pub type StateId = usize;

/// Where a node's value comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Given by the caller at every run.
    Input(String),
    /// The state's value at the beginning of the run.
    State(StateId),
    /// Computed.
    Op {
        /// How.
        op: Arc<dyn Op>,
        /// From what.
        inputs: Vec<NodeId>,
    },
}

/// One value of the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it comes from.
    pub source: Source,
    /// Its extents.
    pub shape: Shape,
    /// Its element type.
    pub dtype: DType,
    /// The layer that traced it, for example `G/model.1/conv`.
    pub path: Arc<str>,
    /// The part of the step: "D real", "G", "optimiser"...
    pub phase: Arc<str>,
    /// Whether it was made by differentiation.
    pub backward: bool,
    /// Whether mixed precision must leave it alone.
    pub exact: bool,
    /// Whether its FLOPs are none of the step's: it repeats another node, or is of constants alone
    /// ([`crate::compile::work`]).
    pub uncounted: bool,
    /// The source line that asked for it.
    pub location: &'static Location<'static>,
}

/// A declared state.
#[derive(Clone, Debug)]
pub struct State {
    /// Unique within the graph, for example `G.params`.
    pub name: String,
    /// Its extents.
    pub shape: Shape,
    /// The node that holds its value when the run ends.
    pub current: NodeId,
}

#[derive(Default)]
struct Inner {
    nodes: Vec<Node>,
    states: Vec<State>,
    /// Operations by what they are, their inputs, and whether they must stay exact.
    known: HashMap<(String, Vec<NodeId>, bool), NodeId>,
    path: Vec<Arc<str>>,
    phase: Vec<Arc<str>>,
    backward: usize,
    exact: usize,
    error: Option<String>,
}

/// A graph under construction. Cloning gives another handle on the same graph.
#[derive(Clone)]
pub struct Graph {
    inner: Rc<RefCell<Inner>>,
    dtype: DType,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Graph({} nodes, {})", self.inner.borrow().nodes.len(), self.dtype.name())
    }
}

impl Graph {
    /// An empty graph whose values are of the given type.
    pub fn new(dtype: DType) -> Self {
        Graph { inner: Rc::default(), dtype }
    }

    /// The type of this graph's values.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Declares a value that the caller gives at every run.
    #[track_caller]
    pub fn input(&self, name: &str, shape: impl Into<Shape>) -> Var {
        self.push(Source::Input(name.to_string()), shape.into(), Location::caller())
    }

    /// Declares a state and returns its number.
    #[track_caller]
    pub fn state(&self, name: &str, shape: impl Into<Shape>) -> StateId {
        let shape = shape.into();
        let id = self.inner.borrow().states.len();
        let leaf = self.push(Source::State(id), shape.clone(), Location::caller());
        let current = leaf.id().expect("a leaf is never poisoned");
        self.inner.borrow_mut().states.push(State { name: name.to_string(), shape, current });
        id
    }

    /// The state's value as of now: what was written last, or what the run began with.
    pub fn read(&self, state: StateId) -> Var {
        Var::new(self.clone(), Some(self.inner.borrow().states[state].current))
    }

    /// From here on, [`Graph::read`] gives `value`; the last one written is what the state holds after the run.
    pub fn write(&self, state: StateId, value: &Var) {
        if let Some(id) = value.id() {
            let fits = self.inner.borrow().nodes[id].shape == self.inner.borrow().states[state].shape;
            assert!(fits, "a state keeps its shape");
            self.inner.borrow_mut().states[state].current = id;
        }
    }

    /// Records an operation. Equal operations on equal inputs are recorded once.
    #[track_caller]
    pub fn apply(&self, op: impl Op + 'static, inputs: &[&Var]) -> Var {
        self.apply_at(Arc::new(op), inputs, Location::caller())
    }

    pub(crate) fn apply_at(
        &self,
        op: Arc<dyn Op>,
        inputs: &[&Var],
        location: &'static Location<'static>,
    ) -> Var {
        let Some(ids) = inputs.iter().map(|v| v.id()).collect::<Option<Vec<_>>>() else {
            return Var::new(self.clone(), None);
        };
        let pure = !matches!(op.memory(), Memory::InPlace(_));
        // A view is the same for all: differentiation knows a parameter by it.
        let exact = self.inner.borrow().exact > 0 && !matches!(op.memory(), Memory::View(_));
        let key = (format!("{op:?}"), ids.clone(), exact);
        if pure && let Some(&known) = self.inner.borrow().known.get(&key) {
            return Var::new(self.clone(), Some(known));
        }
        let shape = {
            let inner = self.inner.borrow();
            op.infer(&ids.iter().map(|&i| &inner.nodes[i].shape).collect::<Vec<_>>())
        };
        match shape {
            Ok(shape) => {
                let var = self.push(Source::Op { op, inputs: ids }, shape, location);
                if pure {
                    self.inner.borrow_mut().known.insert(key, var.id().expect("just pushed"));
                }
                var
            }
            Err(why) => self.poison(&format!("{}: {why}", op.name()), location),
        }
    }

    /// Records a fault and returns a poisoned handle. Only the first fault is kept: the others follow from it.
    pub fn poison(&self, why: &str, location: &'static Location<'static>) -> Var {
        let path = self.path();
        let place = if path.is_empty() { String::new() } else { format!("layer {path}: ") };
        let mut inner = self.inner.borrow_mut();
        inner.error.get_or_insert_with(|| format!("{place}{why} ({}:{})", location.file(), location.line()));
        drop(inner);
        Var::new(self.clone(), None)
    }

    fn push(&self, source: Source, shape: Shape, location: &'static Location<'static>) -> Var {
        let (path, phase) = (self.path(), self.phase_name());
        let mut inner = self.inner.borrow_mut();
        let view = matches!(&source, Source::Op { op, .. } if matches!(op.memory(), Memory::View(_)));
        let (backward, exact) = (inner.backward > 0, inner.exact > 0 && !view);
        let (dtype, uncounted) = (self.dtype, false);
        inner.nodes.push(Node { source, shape, dtype, path, phase, backward, exact, uncounted, location });
        let id = inner.nodes.len() - 1;
        drop(inner);
        Var::new(self.clone(), Some(id))
    }

    /// The first shape error, if there was one.
    pub fn check(&self) -> Result<()> {
        match &self.inner.borrow().error {
            Some(e) => Err(Error::input(e.clone())),
            None => Ok(()),
        }
    }

    /// Runs `f` one level deeper in the layer path: everything it traces belongs to `parent/name`.
    pub fn scope<R>(&self, name: &str, f: impl FnOnce() -> R) -> R {
        let path = self.path();
        let full = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
        self.at_path(&full.into(), f)
    }

    /// Runs `f` with the layer path set to `path`.
    pub(crate) fn at_path<R>(&self, path: &Arc<str>, f: impl FnOnce() -> R) -> R {
        self.inner.borrow_mut().path.push(path.clone());
        let out = f();
        self.inner.borrow_mut().path.pop();
        out
    }

    /// Runs `f` as part of the named phase of the step.
    pub fn phase<R>(&self, name: &str, f: impl FnOnce() -> R) -> R {
        self.inner.borrow_mut().phase.push(name.into());
        let out = f();
        self.inner.borrow_mut().phase.pop();
        out
    }

    /// Runs `f`; mixed precision leaves alone what it traces, and what is computed from it.
    pub fn exact<R>(&self, f: impl FnOnce() -> R) -> R {
        self.inner.borrow_mut().exact += 1;
        let out = f();
        self.inner.borrow_mut().exact -= 1;
        out
    }

    /// Runs `f`; what it traces counts as made by differentiation.
    pub(crate) fn backward<R>(&self, f: impl FnOnce() -> R) -> R {
        self.inner.borrow_mut().backward += 1;
        let out = f();
        self.inner.borrow_mut().backward -= 1;
        out
    }

    fn path(&self) -> Arc<str> {
        self.inner.borrow().path.last().cloned().unwrap_or_default()
    }

    fn phase_name(&self) -> Arc<str> {
        self.inner.borrow().phase.last().cloned().unwrap_or_default()
    }

    /// Number of nodes so far.
    pub fn len(&self) -> usize {
        self.inner.borrow().nodes.len()
    }

    /// Whether nothing was traced yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of one node.
    pub fn node(&self, id: NodeId) -> Node {
        self.inner.borrow().nodes[id].clone()
    }

    /// A copy of all nodes, in order.
    pub fn nodes(&self) -> Vec<Node> {
        self.inner.borrow().nodes.clone()
    }

    /// A copy of all states.
    pub fn states(&self) -> Vec<State> {
        self.inner.borrow().states.clone()
    }

    /// The handle of a node.
    pub fn var(&self, id: NodeId) -> Var {
        Var::new(self.clone(), Some(id))
    }
}
