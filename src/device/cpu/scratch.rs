//! Working memory of the calling thread: buffers that grow once and are then used again by every later call.

use super::memory::Line;
use crate::dtype::Real;
use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;

thread_local! {
    /// Buffers not in use. A task that is stolen while another one waits takes the next one: a buffer is out of the
    /// list while it is used.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` numbers of unspecified value.
pub fn numbers<T: Real, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    with(len, f)
}

/// Calls `f` with `len` indices of unspecified value.
pub fn indices<R>(len: usize, f: impl FnOnce(&mut [usize]) -> R) -> R {
    with(len, f)
}

/// Calls `f` with `len` quadruples of unspecified value.
pub fn points<R>(len: usize, f: impl FnOnce(&mut [[i32; 4]]) -> R) -> R {
    with(len, f)
}

fn with<T: Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut lines = FREE.with(|free| free.borrow_mut().pop()).unwrap_or_default();
    let need = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if lines.len() < need {
        lines.resize(need, Line::zeroed());
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut lines[..need])[..len]);
    FREE.with(|free| free.borrow_mut().push(lines));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_buffers_are_distinct_aligned_and_used_again() {
        let address = |outer: usize, inner: usize| {
            numbers(outer, |a: &mut [f32]| {
                numbers(inner, |b: &mut [f64]| {
                    a.fill(1.0);
                    b.fill(2.0);
                    assert!(a.iter().all(|&v| v == 1.0));
                    assert_eq!((a.as_ptr() as usize % 64, b.as_ptr() as usize % 64), (0, 0));
                    (a.as_ptr() as usize, b.as_ptr() as usize)
                })
            })
        };
        let first = address(100, 50);
        assert_eq!(first, address(90, 50));
    }
}
