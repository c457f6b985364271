//! Memory of the CPU device: one arena for a program's temporaries and one buffer per state.

#![allow(unsafe_code)]

use super::io::{Io, View};
use crate::dtype::{DType, Real};
use crate::shape::Shape;

/// 64-byte aligned (a cache line, an AVX-512 register) zero-initialised memory.
pub struct Buffer {
    lines: Vec<Line>,
    bytes: usize,
}

/// A cache line, so that what is made of them starts on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

// SAFETY: 64 bytes without padding, of which every pattern is a value.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Line {}

impl Buffer {
    /// `bytes` zero bytes.
    pub fn zeroed(bytes: usize) -> Self {
        Buffer { lines: vec![Line([0; 64]); bytes.div_ceil(64)], bytes }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Everything as elements of type `T`.
    pub fn slice<T: Real>(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.bytes / size_of::<T>()]
    }

    /// Everything as mutable elements of type `T`.
    pub fn slice_mut<T: Real>(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.bytes / size_of::<T>()]
    }

    fn ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }
}

/// Bytes of memory that are free for use, where the system says so (Linux: what is available without swapping, within the
/// limit of the container).
pub fn available() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let free = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024);
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|t| t.trim().parse().ok());
    Some(free.min(limit.unwrap_or(u64::MAX)))
}

/// Where a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// At a byte offset of the arena.
    Arena(usize),
    /// At a byte offset of a state's buffer.
    State(usize, usize),
}

/// The place, type and extents of a value.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Where.
    pub place: Place,
    /// Of what type.
    pub dtype: DType,
    /// How many.
    pub shape: Shape,
}

impl Slot {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.numel() * self.dtype.size()
    }

    /// Whether the two share memory.
    pub fn overlaps(&self, other: &Slot) -> bool {
        let meet = |a: usize, b: usize| a < b + other.bytes() && b < a + self.bytes();
        match (self.place, other.place) {
            (Place::Arena(a), Place::Arena(b)) => meet(a, b),
            (Place::State(s, a), Place::State(t, b)) => s == t && meet(a, b),
            _ => false,
        }
    }
}

/// The memory that a run works in.
pub struct Memory<'a> {
    /// Temporaries.
    pub arena: &'a mut Buffer,
    /// State buffers, by number.
    pub states: Vec<&'a mut Buffer>,
}

impl Memory<'_> {
    fn view(&mut self, slot: &Slot) -> View {
        let (buffer, offset) = match slot.place {
            Place::Arena(o) => (&mut *self.arena, o),
            Place::State(s, o) => (&mut *self.states[s], o),
        };
        assert!(
            offset + slot.bytes() <= buffer.len() && offset % slot.dtype.size() == 0,
            "a slot is out of bounds"
        );
        // SAFETY: the offset was just checked to lie inside the buffer.
        let ptr = unsafe { buffer.ptr().add(offset) };
        View { ptr, dtype: slot.dtype, shape: slot.shape.clone() }
    }

    /// The view of one operation: panics if the output overlaps an input other than `reused`.
    pub fn io(&mut self, inputs: &[&Slot], output: &Slot, reused: Option<usize>) -> Io<'_> {
        for (i, slot) in inputs.iter().enumerate() {
            let same = slot.place == output.place && reused == Some(i);
            assert!(same || !slot.overlaps(output), "the plan lets an output overwrite input {i}");
        }
        let views = inputs.iter().map(|s| self.view(s)).collect();
        let output = self.view(output);
        // SAFETY: `view` checked bounds and alignment, the loop above that the output overlaps no readable input, and
        // the result borrows this memory mutably for as long as it lives.
        unsafe { Io::new(views, output, reused) }
    }

    /// The elements of a slot.
    pub fn read<T: Real>(&mut self, slot: &Slot) -> &[T] {
        self.elements(slot)
    }

    /// The elements of a slot, to be overwritten.
    pub fn elements<T: Real>(&mut self, slot: &Slot) -> &mut [T] {
        assert!(slot.dtype == T::DTYPE, "a slot has another element type");
        let v = self.view(slot);
        // SAFETY: `view` checked bounds and alignment; the result borrows this memory mutably.
        unsafe { std::slice::from_raw_parts_mut(v.ptr.cast(), v.shape.numel()) }
    }
}
