//! Spectral normalisation (Miyato et al., ICLR 2018): a weight divided by its largest singular value, which power
//! iteration follows from step to step.

use super::params::{Ctx, Init, Layout};
use crate::graph::Var;
use crate::ops::concat::pack;

/// PyTorch's bound of the norms that vectors are divided by.
const EPS: f64 = 1e-12;

impl Ctx {
    /// The weight `[out, kernel.., in]` of this module, divided by its largest singular value. Keys as in PyTorch's
    /// `spectral_norm`: the parameter `weight_orig`, the vectors `weight_u` and `weight_v`, which training improves in every pass.
    pub(super) fn spectral_weight(&self, shape: &[usize], layout: Layout, init: Init) -> Var {
        let w = self.param("weight_orig", shape, layout, init);
        let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
        let unit = |n: usize| Init::Normal(0.0, 1.0 / (n as f64).sqrt());
        let first = self.buffer("weight_u", rows, unit(rows));
        self.buffer("weight_v", columns, unit(columns));
        let Some((buffers, state)) = self.buffers() else { return w };
        // The right vector's elements stand in the order of the reference's weight, whose channels come before the kernel.
        let last = shape.len() - 1;
        let theirs = [&shape[last..], &shape[1..last]].concat();
        let to_ours: Vec<usize> = (1..last).chain([0]).collect();
        let to_theirs: Vec<usize> = [last - 1].into_iter().chain(0..last - 1).collect();
        let v = buffers.stretch(first + rows, &theirs).permute(&to_ours).reshape(&[columns]);
        let normal =
            spectral_norm(&w, 0, &buffers.stretch(first, &[rows]), &v, usize::from(self.train()), EPS);
        if self.train() {
            let v = normal.v.reshape(&shape[1..]).permute(&to_theirs).reshape(&[columns]);
            let (before, behind) = (first, first + rows + columns);
            let rest = buffers.shape().numel() - behind;
            let parts = [
                (before > 0).then(|| buffers.stretch(0, &[before])),
                Some(normal.u.clone()),
                Some(v),
                (rest > 0).then(|| buffers.stretch(behind, &[rest])),
            ];
            self.graph().write(state, &pack(&parts.iter().flatten().collect::<Vec<_>>()));
        }
        normal.weight
    }
}

/// A normalised weight, and the estimates that the next step goes on from.
#[derive(Clone, Debug)]
pub struct SpectralNorm {
    /// The weight divided by `sigma`.
    pub weight: Var,
    /// The largest singular value, a scalar.
    pub sigma: Var,
    /// The left singular vector `[rows]`; constant for differentiation.
    pub u: Var,
    /// The right singular vector `[columns]`; constant for differentiation.
    pub v: Var,
}

/// Normalises `w`, seen as a matrix with a row for every index along `axis` (0 for convolutions and linear layers, the
/// last for transposed convolutions) and the other axes flattened in order. `u [rows]` and `v [columns]` are the last
/// step's; `iterations` is 1 in training and 0 in evaluation. `eps` bounds the norms that vectors are divided by.
///
/// As in PyTorch the vectors count as constants: `sigma = u^T W v`.
#[track_caller]
pub fn spectral_norm(w: &Var, axis: usize, u: &Var, v: &Var, iterations: usize, eps: f64) -> SpectralNorm {
    let shape = w.shape();
    let order: Vec<usize> = [axis].into_iter().chain((0..shape.rank()).filter(|&a| a != axis)).collect();
    let rows = shape.get(axis).copied().unwrap_or(1);
    let columns = shape.numel() / rows.max(1);
    let matrix = w.permute(&order).reshape(&[rows, columns]);
    let frozen = matrix.detach();
    let unit = |x: Var| x.div(&x.square().sum_all().sqrt().clamp(eps, f64::INFINITY));
    let (mut u, mut v) = (u.reshape(&[rows, 1]).detach(), v.reshape(&[columns, 1]).detach());
    // Mixed precision would follow the singular value of another matrix.
    let sigma = w.graph().exact(|| {
        for _ in 0..iterations {
            v = unit(frozen.matmul(&u, true, false));
            u = unit(frozen.matmul(&v, false, false));
        }
        u.mul(&matrix.matmul(&v, false, false)).sum_all()
    });
    SpectralNorm { weight: w.div(&sigma), sigma, u: u.reshape(&[rows]), v: v.reshape(&[columns]) }
}

#[cfg(test)]
mod tests {
    use crate::dtype::DType;
    use crate::exec::{Program, States};
    use crate::graph::{Graph, Var};
    use crate::nn::params::DropoutSource;
    use crate::nn::{ConvLayer, Ctx, Net, NetSpec, Norm};
    use std::cell::Cell;
    use std::rc::Rc;

    fn forward(cx: &Ctx, x: &Var) -> Var {
        let h = cx.norm("norm", &cx.conv("first", x, ConvLayer::new(2, [1, 3]).spectral()), Norm::Batch);
        cx.spectral_linear("second", &h.reshape(&[2, 4]), 2)
    }

    /// Training finds the largest singular values of both layers, and leaves the running statistics between them alone.
    #[test]
    fn training_follows_the_singular_values() {
        let spec = NetSpec::describe("net", |cx, graph| {
            forward(cx, &graph.input("x", [2, 1, 4, 3]));
        })
        .expect("the shapes fit");
        let graph = Graph::new(DType::F64);
        let net = Net::bind(&graph, &spec, 1);
        let x = graph.input("x", [2, 1, 4, 3]);
        let source = Rc::new(DropoutSource { seed: 0, step: None, streams: Cell::new(0) });
        let y = forward(&net.ctx(true, &source), &x);
        let mut program = Program::new(&graph, &[("y", &y)]).expect("it is planned");
        let mut states = States::new();
        spec.initialise::<f64>(&mut states, 1, 1);
        let ones = vec![1.0; 24];
        (0..200).for_each(|_| program.run(&mut states, &[("x", &ones)]));
        let all = spec.export::<f64>(&states);
        let find = |key: &str| all.iter().find(|(k, ..)| k == key).expect("declared").2.clone();
        for layer in ["first", "second"] {
            let [w, u, v] = ["orig", "u", "v"].map(|end| find(&format!("{layer}.weight_{end}")));
            let [a, b] = [0, 1].map(|row| &w[row * v.len()..(row + 1) * v.len()]);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            // The largest eigenvalue of the 2x2 matrix of the rows' products.
            let (aa, bb, ab) = (dot(a, a), dot(b, b), dot(a, b));
            let largest = ((aa + bb) / 2.0 + (((aa - bb) / 2.0).powi(2) + ab * ab).sqrt()).sqrt();
            let sigma = u[0] * dot(a, &v) + u[1] * dot(b, &v);
            assert!((sigma - largest).abs() < 1e-9 * largest, "{layer}: {sigma} against {largest}");
        }
        assert_eq!(find("norm.running_var").len(), 2);
        // The images are constant, so the variance that is kept goes to 0.
        assert!(find("norm.running_var").iter().all(|v| v.abs() < 1e-6));
    }
}
