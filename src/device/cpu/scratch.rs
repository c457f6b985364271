//! Working memory of the calling thread: buffers that grow once and are then used again by every later call.

#![allow(unsafe_code)]

use crate::dtype::Real;
use std::any::TypeId;
use std::cell::RefCell;

/// A cache line, so that every buffer starts on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    /// Buffers not in use. A task that is stolen while another one waits takes the next one: a buffer is out of the
    /// list while it is used.
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` numbers of unspecified value.
pub fn numbers<T: Real, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    assert!([TypeId::of::<f32>(), TypeId::of::<f64>()].contains(&TypeId::of::<T>()), "not a plain number");
    // SAFETY: every bit pattern of an `f32` and of an `f64` is a value.
    unsafe { with(len, f) }
}

/// Calls `f` with `len` indices of unspecified value.
pub fn indices<R>(len: usize, f: impl FnOnce(&mut [usize]) -> R) -> R {
    // SAFETY: every bit pattern of a `usize` is a value.
    unsafe { with(len, f) }
}

/// Calls `f` with `len` quadruples of unspecified value.
pub fn points<R>(len: usize, f: impl FnOnce(&mut [[i32; 4]]) -> R) -> R {
    // SAFETY: every bit pattern of an `i32` is a value, and an array has no padding.
    unsafe { with(len, f) }
}

/// # Safety
/// Every bit pattern of `T` must be a value, and its alignment at most 64.
unsafe fn with<T, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let mut lines = FREE.with(|free| free.borrow_mut().pop()).unwrap_or_default();
    let need = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if lines.len() < need {
        lines.resize(need, Line([0; 64]));
    }
    // SAFETY: the lines hold at least `len` elements, are initialised and start on a 64-byte boundary; the rest is the
    // caller's promise.
    let buffer = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<T>(), len) };
    let result = f(buffer);
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
