//! What an operation sees of memory: read-only inputs and one output.

#![allow(unsafe_code)]

use crate::dtype::{DType, Real};
use crate::shape::Shape;
use std::cell::Cell;
use std::marker::PhantomData;

/// A typed, shaped stretch of memory.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) ptr: *mut u8,
    pub(super) dtype: DType,
    /// The extents.
    pub shape: Shape,
}

/// The inputs and the output of one operation in one run.
pub struct Io<'a> {
    inputs: Vec<View>,
    output: View,
    reused: Option<usize>,
    taken: Cell<bool>,
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> Io<'a> {
    /// # Safety
    /// Every view must point to `shape.numel()` initialised, aligned elements of its type that stay valid and are
    /// not otherwise accessed during `'a`; the output may overlap an input only if it is exactly that input's memory
    /// and `reused` names it.
    pub(super) unsafe fn new(inputs: Vec<View>, output: View, reused: Option<usize>) -> Self {
        Io { inputs, output, reused, taken: Cell::new(false), memory: PhantomData }
    }

    /// Element type of the output (and of the inputs).
    pub fn dtype(&self) -> DType {
        self.output.dtype
    }

    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// The input whose memory the output took over: its old content is found in [`Io::output`], and it can't be read
    /// through [`Io::input`].
    pub fn reused(&self) -> Option<usize> {
        self.reused
    }

    /// Extents of input `i`.
    pub fn in_shape(&self, i: usize) -> &Shape {
        &self.inputs[i].shape
    }

    /// Extents of the output.
    pub fn out_shape(&self) -> &Shape {
        &self.output.shape
    }

    /// Elements of input `i`.
    pub fn input<T: Real>(&self, i: usize) -> &'a [T] {
        let v = &self.inputs[i];
        assert!(v.dtype == T::DTYPE, "input {i} has another element type");
        assert!(self.reused != Some(i), "input {i} was taken over by the output");
        // SAFETY: `new`'s contract: valid for `'a`, of this type and length, and not the output's memory.
        unsafe { std::slice::from_raw_parts(v.ptr.cast(), v.shape.numel()) }
    }

    /// A copy of input `i`, wherever it lies: to be asked for before the output is, which may be its memory.
    pub fn copied<T: Real>(&self, i: usize) -> Vec<T> {
        if self.reused != Some(i) {
            return self.input::<T>(i).to_vec();
        }
        assert!(self.output.dtype == T::DTYPE, "the output has another element type");
        assert!(!self.taken.get(), "the output is handed out already");
        // SAFETY: `new`'s contract: valid, of this type and length; nobody else holds it yet, and the borrow ends here.
        unsafe { std::slice::from_raw_parts(self.output.ptr.cast::<T>(), self.output.shape.numel()) }.to_vec()
    }

    /// The first `inputs` inputs with another output.
    pub fn into_buffer<'b, T: Real>(&'b self, inputs: usize, out: &'b mut [T], shape: &Shape) -> Io<'b> {
        assert!(out.len() == shape.numel(), "size of the other output");
        assert!(self.reused.is_none_or(|i| i >= inputs), "an input was taken over by the output");
        let output = View { ptr: out.as_mut_ptr().cast(), dtype: T::DTYPE, shape: shape.clone() };
        Io {
            inputs: self.inputs[..inputs].to_vec(),
            output,
            reused: None,
            taken: Cell::new(false),
            memory: PhantomData,
        }
    }

    /// Elements of the output; can be asked for once.
    pub fn output<T: Real>(&self) -> &'a mut [T] {
        assert!(self.output.dtype == T::DTYPE, "the output has another element type");
        assert!(!self.taken.replace(true), "the output is handed out once");
        // SAFETY: `new`'s contract: valid for `'a`, of this type and length; handed out once, so never aliased.
        unsafe { std::slice::from_raw_parts_mut(self.output.ptr.cast(), self.output.shape.numel()) }
    }
}
