//! The handle that model code holds.

use super::{Graph, NodeId, Op};
use crate::shape::Shape;
use std::panic::Location;
use std::sync::Arc;

/// A value of a [`Graph`]. Cheap to clone. The operations are methods; they are defined beside each operation in
/// [`crate::ops`].
#[derive(Clone, Debug)]
pub struct Var {
    graph: Graph,
    id: Option<NodeId>,
}

impl Var {
    pub(super) fn new(graph: Graph, id: Option<NodeId>) -> Self {
        Var { graph, id }
    }

    /// The node, or `None` if this handle is poisoned by a shape error.
    pub fn id(&self) -> Option<NodeId> {
        self.id
    }

    /// The graph that it belongs to.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The extents. A poisoned handle answers with six ones, so that model code can go on to its end and the error is
    /// reported once.
    pub fn shape(&self) -> Shape {
        match self.id {
            Some(id) => self.graph.inner.borrow().nodes[id].shape.clone(),
            None => Shape::from([1; 6]),
        }
    }

    /// The innermost extent.
    pub fn channels(&self) -> usize {
        self.shape().channels()
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape().rank()
    }

    /// Records an operation on this and other values.
    #[track_caller]
    pub fn apply(&self, op: impl Op + 'static, others: &[&Var]) -> Var {
        let mut inputs = vec![self];
        inputs.extend_from_slice(others);
        self.graph.apply_at(Arc::new(op), &inputs, Location::caller())
    }
}
