//! Traces a case, differentiates it as often as its fixture does, and runs it.

use crate::Results;
use crate::fixture::{Case, Layout, Tensor};
use gan::dispatch_real;
use gan::dtype::{DType, Real};
use gan::exec::{Program, States};
use gan::graph::{Graph, Var};
use gan::ops::gradient::vjp;
use gan::shape::Shape;
use std::cell::RefCell;

/// A declared input.
struct Given {
    name: String,
    layout: Layout,
    var: Var,
}

/// An output of a case.
pub struct Out {
    name: &'static str,
    layout: Layout,
    var: Var,
    differentiable: bool,
}

impl Out {
    /// An output that the fixture differentiates.
    pub fn new(name: &'static str, layout: Layout, var: &Var) -> Self {
        Out { name, layout, var: var.clone(), differentiable: true }
    }

    /// An output that is only looked at.
    pub fn aside(name: &'static str, layout: Layout, var: &Var) -> Self {
        Out { differentiable: false, ..Out::new(name, layout, var) }
    }
}

/// What builds a case sees: its attributes, and its inputs as values of the graph.
pub struct Trace<'a> {
    pub case: &'a Case,
    pub graph: Graph,
    given: RefCell<Vec<Given>>,
}

impl Trace<'_> {
    /// The named input, declared when it is first asked for. Panics if the fixture lacks it.
    pub fn input(&self, name: &str, layout: Layout) -> Var {
        if let Some(known) = self.find(name) {
            return known;
        }
        let tensor = self.tensor(name);
        let var = self.graph.input(name, layout.shape(&tensor.shape));
        self.given.borrow_mut().push(Given { name: name.to_string(), layout, var: var.clone() });
        var
    }

    /// The named input if the fixture has it.
    pub fn optional(&self, name: &str, layout: Layout) -> Option<Var> {
        self.case.has(name).then(|| self.input(name, layout))
    }

    /// An image or a weight.
    pub fn image(&self, name: &str) -> Var {
        self.input(name, Layout::Image)
    }

    /// Anything whose axes keep their order.
    pub fn plain(&self, name: &str) -> Var {
        self.input(name, Layout::Plain)
    }

    /// The values of the named input.
    pub fn tensor(&self, name: &str) -> &Tensor {
        self.case.tensor(&format!("in/{name}")).unwrap_or_else(|e| panic!("{}: {e}", self.case.name))
    }

    /// A number among the attributes. Panics if it is not there.
    pub fn number(&self, key: &str) -> f64 {
        self.case.number(key).unwrap_or_else(|| panic!("{}: no attribute {key}", self.case.name))
    }

    /// Whole numbers among the attributes; one stands for `repeat`. Panics if they are not there.
    pub fn extents(&self, key: &str, repeat: usize) -> Vec<usize> {
        self.case.extents(key, repeat).unwrap_or_else(|| panic!("{}: no attribute {key}", self.case.name))
    }

    fn find(&self, name: &str) -> Option<Var> {
        self.given.borrow().iter().find(|g| g.name == name).map(|g| g.var.clone())
    }

    /// The graph's gradients of `sum <output, cotangent>` by named inputs; zeros where there is none.
    fn gradients(&self, outputs: &[(Var, Var)], names: &[String]) -> Result<Vec<Var>, String> {
        let by: Option<Vec<Var>> = names.iter().map(|n| self.find(n)).collect();
        let by = by.ok_or(format!("one of the inputs {names:?} is not used"))?;
        let zero = |v: &Var| self.graph.full(&v.shape(), 0.0);
        Ok(vjp(outputs, &by).into_iter().zip(&by).map(|(g, v)| g.unwrap_or_else(|| zero(v))).collect())
    }
}

/// Runs a case: `build` traces it and names its outputs.
pub fn run(
    case: &Case,
    dtype: DType,
    build: impl FnOnce(&Trace) -> Result<Vec<Out>, String>,
) -> Result<Results, String> {
    let trace = Trace { case, graph: Graph::new(dtype), given: RefCell::default() };
    let outputs = build(&trace)?;
    let mut wanted: Vec<(String, Layout, Var)> =
        outputs.iter().map(|o| (format!("out/{}", o.name), o.layout, o.var.clone())).collect();
    let named = |prefix: &str| -> Vec<String> {
        case.results.keys().filter_map(|k| k.strip_prefix(prefix)).map(str::to_string).collect()
    };
    let (first, second) = (named("grad/"), named("grad2/"));
    if !first.is_empty() {
        // A scalar is differentiated as it is, anything else along the cotangent that the fixture gives.
        let seeds: Vec<(Var, Var)> = outputs
            .iter()
            .filter(|o| o.differentiable)
            .map(|o| {
                let seed = trace.optional(&format!("d_{}", o.name), o.layout);
                (o.var.clone(), seed.unwrap_or_else(|| trace.graph.full(&Shape::scalar(), 1.0)))
            })
            .collect();
        let gradients = trace.gradients(&seeds, &first)?;
        let layout = |name: &str| {
            let given = trace.given.borrow();
            given.iter().find(|g| g.name == name).map_or(Layout::Plain, |g| g.layout)
        };
        for (name, g) in first.iter().zip(&gradients) {
            wanted.push((format!("grad/{name}"), layout(name), g.clone()));
        }
        if !second.is_empty() {
            // The gradient by x along dd, differentiated again.
            let x = first.iter().position(|n| n == "x").ok_or("a second derivative without x")?;
            let dd = trace.input("dd", layout("x"));
            for (name, g) in second.iter().zip(trace.gradients(&[(gradients[x].clone(), dd)], &second)?) {
                wanted.push((format!("grad2/{name}"), layout(name), g));
            }
        }
    }
    trace.graph.check().map_err(|e| e.to_string())?;
    let labelled: Vec<(&str, &Var)> = wanted.iter().map(|(n, _, v)| (n.as_str(), v)).collect();
    let mut program = Program::new(&trace.graph, &labelled).map_err(|e| e.to_string())?;
    let mut states = States::new();
    let values: Vec<(String, Vec<f64>)> = trace
        .given
        .borrow()
        .iter()
        .map(|g| (g.name.clone(), g.layout.to_ours(trace.tensor(&g.name))))
        .collect();
    dispatch_real!(dtype, T => {
        let typed: Vec<Vec<T>> = values.iter().map(|(_, v)| v.iter().map(|&x| T::of(x)).collect()).collect();
        let inputs: Vec<(&str, &[T])> =
            values.iter().map(|(n, _)| n.as_str()).zip(typed.iter().map(Vec::as_slice)).collect();
        program.run(&mut states, &inputs);
    });
    wanted
        .iter()
        .filter(|(name, ..)| case.results.contains_key(name))
        .map(|(name, layout, var)| {
            let torch = case.tensor(name)?;
            if layout.shape(&torch.shape) != var.shape() {
                return Err(format!("{name} has shape {}, PyTorch's is {:?}", var.shape(), torch.shape));
            }
            let ours = program.output_f64(&mut states, name);
            Ok((name.clone(), layout.to_torch(&torch.shape, &ours)))
        })
        .collect()
}
