//! Samples of operations: what the registry's tests, benchmarks and device comparisons run.
//!
//! A sample says how to trace something (one operation or a composite), on inputs of which shapes and kinds of values,
//! and what the result must be by an independent double-precision oracle.

use crate::graph::{Op, Var};
use crate::rng::Philox;
use crate::shape::Shape;
use std::sync::Arc;

/// What kind of values an input takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Standard normal.
    Normal,
    /// Normal with standard deviation 3.
    Wide,
    /// Normal around 100 with standard deviation 1/2: where a one-pass variance fails.
    Offset,
    /// In [0.3, 2.3).
    Positive,
    /// In [0, 1).
    Unit,
    /// A permutation of evenly spaced values around zero, none at zero: for functions with kinks.
    Distinct,
    /// 0 or 1.
    Binary,
    /// Whole numbers 0, 1, ..., n-1. No gradient is taken by such an input.
    Label(usize),
}

/// A double-precision tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its extents.
    pub shape: Shape,
    /// Its elements, row-major.
    pub data: Vec<f64>,
}

impl Array {
    /// The element at an index.
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[index.iter().zip(&self.shape.strides()).map(|(i, s)| i * s).sum::<usize>()]
    }
}

/// An [`Array`] from its parts.
pub fn array(shape: impl Into<Shape>, data: Vec<f64>) -> Array {
    let shape = shape.into();
    assert_eq!(shape.numel(), data.len(), "an array's data fits its shape");
    Array { shape, data }
}

/// An [`Array`] filled by a function of the index.
pub fn fill(shape: impl Into<Shape>, mut f: impl FnMut(&[usize]) -> f64) -> Array {
    let shape = shape.into();
    let mut index = vec![0; shape.rank()];
    let data = (0..shape.numel())
        .map(|_| {
            let v = f(&index);
            for i in (0..index.len()).rev() {
                index[i] += 1;
                if index[i] < shape[i] {
                    break;
                }
                index[i] = 0;
            }
            v
        })
        .collect();
    Array { shape, data }
}

type Build = Arc<dyn Fn(&[Var]) -> Var + Send + Sync>;
type Oracle = Arc<dyn Fn(&[Array]) -> Array + Send + Sync>;

/// One sample.
#[derive(Clone)]
pub struct Sample {
    /// The operation's name, and what is special about this sample.
    pub name: String,
    /// Shapes and values of the inputs.
    pub inputs: Vec<(Shape, Domain)>,
    /// Traces it.
    pub build: Build,
    /// Computes it another way.
    pub oracle: Oracle,
    /// Inputs that no gradient is taken by (labels, hints).
    pub fixed: Vec<usize>,
}

/// A sample of a single operation.
pub fn op<O: Op + Clone + 'static>(
    name: &str,
    op: O,
    inputs: &[(&[usize], Domain)],
    oracle: impl Fn(&[Array]) -> Array + Send + Sync + 'static,
) -> Sample {
    let apply = move |x: &[Var]| x[0].apply(op.clone(), &x[1..].iter().collect::<Vec<_>>());
    composite(name, inputs, apply, oracle)
}

/// A sample of several operations together.
pub fn composite(
    name: &str,
    inputs: &[(&[usize], Domain)],
    build: impl Fn(&[Var]) -> Var + Send + Sync + 'static,
    oracle: impl Fn(&[Array]) -> Array + Send + Sync + 'static,
) -> Sample {
    let inputs: Vec<(Shape, Domain)> = inputs.iter().map(|(s, d)| (Shape::from(*s), *d)).collect();
    let fixed =
        (0..inputs.len()).filter(|&i| matches!(inputs[i].1, Domain::Label(_) | Domain::Binary)).collect();
    Sample { name: name.to_string(), inputs, build: Arc::new(build), oracle: Arc::new(oracle), fixed }
}

impl Sample {
    /// The same with a note behind the name.
    pub fn noted(mut self, note: &str) -> Self {
        self.name = format!("{} {note}", self.name);
        self
    }

    /// The same, taking no gradient by input `i`.
    pub fn fixing(mut self, i: usize) -> Self {
        self.fixed.push(i);
        self
    }

    /// Inputs of this sample: a function of its name, the same on every machine. All are exact in f32.
    pub fn draw(&self) -> Vec<Array> {
        let mut rng = Philox::named(20_240_229, &self.name);
        self.inputs.iter().map(|(shape, domain)| draw(&mut rng, shape, *domain)).collect()
    }
}

/// Values of a domain, rounded to f32.
pub fn draw(rng: &mut Philox, shape: &Shape, domain: Domain) -> Array {
    let n = shape.numel();
    let data: Vec<f64> = match domain {
        Domain::Normal => (0..n).map(|_| rng.normal()).collect(),
        Domain::Wide => (0..n).map(|_| 3.0 * rng.normal()).collect(),
        Domain::Offset => (0..n).map(|_| 100.0 + 0.5 * rng.normal()).collect(),
        Domain::Positive => (0..n).map(|_| rng.range(0.3, 2.3)).collect(),
        Domain::Unit => (0..n).map(|_| rng.uniform()).collect(),
        Domain::Binary => (0..n).map(|_| f64::from(u8::from(rng.uniform() > 0.6))).collect(),
        Domain::Label(k) => (0..n).map(|_| rng.below(k) as f64).collect(),
        Domain::Distinct => {
            let mut order: Vec<usize> = (0..n).collect();
            rng.shuffle(&mut order);
            // An offset that differs from tensor to tensor: two of them never tie.
            let offset = 0.3 + 0.4 * rng.uniform();
            order.into_iter().map(|i| (i as f64 + offset) / n as f64 * 4.0 - 2.0).collect()
        }
    };
    Array { shape: shape.clone(), data: data.into_iter().map(|v| f64::from(v as f32)).collect() }
}
