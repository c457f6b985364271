//! Gradient clipping by the norm over all parameters together (Pascanu et al., ICML 2013).

use crate::graph::Var;

/// Shortens a flat gradient `[n]` to a 2-norm of at most `max_norm`: `grad * min(1, max_norm / (norm + 1e-6))`, as
/// PyTorch's `clip_grad_norm_`. Returns the gradient and the norm (a scalar) that it had.
#[track_caller]
pub fn clip_by_norm(grad: &Var, max_norm: f64) -> (Var, Var) {
    let norm = grad.square().sum_all().sqrt();
    let scale = norm.add_scalar(1e-6).recip().mul_scalar(max_norm).clamp(f64::NEG_INFINITY, 1.0);
    (grad.mul(&scale), norm)
}
