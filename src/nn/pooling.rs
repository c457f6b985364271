//! Pooling to given extents, whatever the image's are.

use crate::graph::Var;
use crate::ops::max_pool::Window;

/// Mean values of `out` parts along each spatial axis of `x [n, spatial.., c]`: PyTorch's `AdaptiveAvgPool`. Part `i` of an
/// axis reaches from `floor(i extent / out)` to `ceil((i + 1) extent / out)`, so that parts overlap where they don't divide
/// it, and repeat elements where there are fewer.
#[track_caller]
pub fn adaptive_avg_pool(x: &Var, out: usize) -> Var {
    let shape = x.shape();
    let spatial = &shape[1..shape.rank().saturating_sub(1)];
    if spatial.iter().all(|extent| *extent == out) {
        return x.clone();
    }
    if spatial.iter().all(|extent| extent.is_multiple_of(out)) {
        let kernel: Vec<usize> = spatial.iter().map(|extent| extent / out).collect();
        let window = Window { stride: kernel.clone(), kernel, ..Window::new(spatial.len(), 1, 1) };
        return x.avg_pool(&window, true);
    }
    (1..=spatial.len()).fold(x.clone(), |x, axis| along(&x, axis, out))
}

/// One axis, as a product with the matrix of the parts' shares.
fn along(x: &Var, axis: usize, out: usize) -> Var {
    let (extent, last) = (x.shape()[axis], x.rank().saturating_sub(1));
    let mut shares = vec![0.0; out * extent];
    for (i, row) in shares.chunks_mut(extent).enumerate() {
        let (from, to) = (i * extent / out, ((i + 1) * extent).div_ceil(out));
        row[from..to].fill(1.0 / (to - from) as f64);
    }
    let shares = x.graph().constant([out, extent], shares);
    let mut order: Vec<usize> = (0..=last).collect();
    order.swap(axis, last);
    x.permute(&order).linear(&shares, None).permute(&order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::exec::{Program, States};
    use crate::graph::Graph;

    /// `torch.nn.functional.adaptive_avg_pool1d(torch.arange(5.), 3)` and `(torch.arange(2.), 3)`, along rows, then columns.
    #[test]
    fn parts_are_those_of_pytorch() {
        for (extents, out, want) in [
            ([5, 1], 3, vec![0.5, 0.5, 0.5, 2.0, 2.0, 2.0, 3.5, 3.5, 3.5]),
            ([2, 6], 3, vec![0.5, 2.5, 4.5, 3.5, 5.5, 7.5, 6.5, 8.5, 10.5]),
            ([4, 4], 2, vec![2.5, 4.5, 10.5, 12.5]),
            ([3, 3], 3, (0..9).map(f64::from).collect()),
        ] {
            let graph = Graph::new(DType::F64);
            let n = extents[0] * extents[1];
            let x = graph.input("x", [1, extents[0], extents[1], 1]);
            let y = adaptive_avg_pool(&x, out);
            let mut states = States::new();
            let mut program = Program::new(&graph, &[("y", &y)]).expect("it plans");
            let values: Vec<f64> = (0..n).map(|i| i as f64).collect();
            program.run(&mut states, &[("x", values.as_slice())]);
            let made: Vec<f64> = program.output(&mut states, "y");
            assert_eq!(made.len(), want.len());
            assert!(made.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12), "{extents:?}: {made:?}");
        }
    }
}
