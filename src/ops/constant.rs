//! Constants: a repeated number, or a small table (a smoothing window, say).

use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::device::pointwise::{Strided, pointwise};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Graph, Op, Var};
use crate::shape::Shape;
use std::sync::Arc;

/// A tensor of constants: the values repeat until the shape is filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Its extents.
    pub shape: Shape,
    /// At least one value.
    pub values: Arc<Vec<f64>>,
}

impl Op for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn infer(&self, _: &[&Shape]) -> Result<Shape, String> {
        if self.values.is_empty() { Err("no value".into()) } else { Ok(self.shape.clone()) }
    }

    fn grad(&self, _: &GradArgs) -> Vec<Option<Var>> {
        Vec::new()
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => {
            let out = io.output::<T>();
            if let [v] = self.values[..] {
                out.fill(T::of(v));
            } else {
                out.iter_mut().zip(self.values.iter().cycle()).for_each(|(o, &v)| *o = T::of(v));
            }
        });
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let out = Strided::output(io);
        if let [value] = self.values[..] {
            return Ok(LaunchList::of(pointwise(gpu, "p", [value, 0.0], io.out(), out, &[])));
        }
        let mut list = LaunchList::default();
        let values = self.values.iter().copied().cycle().take(io.out().numel());
        let table = Strided::dense(list.floats(values), io.out(), true);
        list.push(pointwise(gpu, "a", [0.0; 2], io.out(), out, &[table]));
        Ok(list)
    }
}

impl Graph {
    /// The same number everywhere.
    #[track_caller]
    pub fn full(&self, shape: &Shape, value: f64) -> Var {
        self.constant(shape.clone(), vec![value])
    }

    /// A table of numbers, repeated until the shape is filled.
    #[track_caller]
    pub fn constant(&self, shape: impl Into<Shape>, values: Vec<f64>) -> Var {
        self.apply(Constant { shape: shape.into(), values: Arc::new(values) }, &[])
    }
}
