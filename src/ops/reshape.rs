//! Views: the same elements under another shape, or a stretch of them. Nothing is computed.

use crate::device::cpu::Io;
use crate::graph::{GradArgs, Memory, Op, Var};
use crate::ops::sample::{self, Domain, Sample};
use crate::shape::Shape;

/// `offset..` of `x`'s elements under another shape. The plan makes it a view; it costs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reshape {
    /// First element.
    pub offset: usize,
    /// The new extents.
    pub shape: Shape,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (n, m) = (inputs[0].numel(), self.shape.numel());
        if self.offset + m > n {
            return Err(format!(
                "{} elements from {} on of shape {} with {n} elements",
                m, self.offset, inputs[0]
            ));
        }
        Ok(self.shape.clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let own = a.inputs[0].shape();
        let (n, m) = (own.numel(), self.shape.numel());
        let flat = a.dy.reshape(&[m]);
        let padded =
            if m == n { flat } else { flat.pad_zero(&[(self.offset as i64, (n - m - self.offset) as i64)]) };
        vec![Some(padded.reshape(&own))]
    }

    fn memory(&self) -> Memory {
        Memory::View(self.offset)
    }

    fn cpu(&self, _: &mut Io) {
        unreachable!("a view is never run")
    }
}

/// Stops differentiation: the value goes on, the gradient does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detach;

impl Op for Detach {
    fn name(&self) -> &'static str {
        "detach"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        vec![None]
    }

    fn memory(&self) -> Memory {
        Memory::View(0)
    }

    fn cpu(&self, _: &mut Io) {
        unreachable!("a view is never run")
    }
}

impl Var {
    /// The same elements under another shape.
    #[track_caller]
    pub fn reshape(&self, shape: &[usize]) -> Var {
        if self.shape()[..] == *shape {
            return self.clone();
        }
        if self.id().is_some() && self.shape().numel() != shape.iter().product::<usize>() {
            let why = format!(
                "reshape: shape {} does not hold as many elements as {}",
                self.shape(),
                Shape::from(shape)
            );
            return self.graph().poison(&why, std::panic::Location::caller());
        }
        self.apply(Reshape { offset: 0, shape: shape.into() }, &[])
    }

    /// A stretch of the elements, beginning at `offset`, under a shape of its own.
    #[track_caller]
    pub fn stretch(&self, offset: usize, shape: &[usize]) -> Var {
        self.apply(Reshape { offset, shape: shape.into() }, &[])
    }

    /// This value as a constant for differentiation.
    #[track_caller]
    pub fn detach(&self) -> Var {
        self.apply(Detach, &[])
    }
}

/// Whole and partial views.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], usize, &[usize]); 4] =
        [(&[2, 3, 4], 0, &[4, 6]), (&[6], 0, &[1, 2, 3]), (&[10], 3, &[2, 3]), (&[4, 5], 19, &[])];
    cases
        .into_iter()
        .map(|(from, offset, to)| {
            sample::op("reshape", Reshape { offset, shape: to.into() }, &[(from, Domain::Normal)], move |x| {
                sample::array(to, x[0].data[offset..offset + to.iter().product::<usize>()].to_vec())
            })
        })
        .collect()
}
