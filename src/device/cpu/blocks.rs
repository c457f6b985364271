//! Rectangular blocks of a row-major matrix, given out so that no two overlap: what lets several tasks write one
//! output whose pieces are not contiguous.

#![allow(unsafe_code)]

use super::parallel;
use std::marker::PhantomData;

/// A mutable block of a row-major matrix: `rows` x `cols` elements, the rows `stride` apart.
pub struct BlockMut<'a, T> {
    start: *mut T,
    rows: usize,
    cols: usize,
    stride: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a block is an exclusive borrow of its elements, like `&mut [T]`, which is `Send` when `T` is.
unsafe impl<T: Send> Send for BlockMut<'_, T> {}

impl<'a, T> BlockMut<'a, T> {
    /// The matrix that fills `data`, with `cols` columns.
    pub fn new(data: &'a mut [T], cols: usize) -> Self {
        let rows = data.len().checked_div(cols).unwrap_or(0);
        BlockMut { start: data.as_mut_ptr(), rows, cols, stride: cols, owner: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// One row.
    pub fn row(&mut self, r: usize) -> &mut [T] {
        assert!(r < self.rows, "row {r} of a block of {} rows", self.rows);
        // SAFETY: row `r` lies inside the block, which is borrowed exclusively for as long as the result lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(r * self.stride), self.cols) }
    }

    /// A block of this block.
    pub fn part(&mut self, row: usize, rows: usize, col: usize, cols: usize) -> BlockMut<'_, T> {
        assert!(row + rows <= self.rows && col + cols <= self.cols, "a part must lie inside its block");
        // SAFETY: the assertion keeps the part inside this block, so its start is inside the allocation too.
        let start = unsafe { self.start.add(row * self.stride + col) };
        BlockMut { start, rows, cols, stride: self.stride, owner: PhantomData }
    }

    /// First element, and elements between rows: for the kernels of this module's siblings.
    pub(super) fn raw(&mut self) -> (*mut T, usize) {
        (self.start, self.stride)
    }
}

/// How one side of a matrix is cut: `parts` equal parts (a convolution's groups), each in chunks of `chunk`; a chunk
/// never spans two parts.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Number of equal parts.
    pub parts: usize,
    /// Length of a part.
    pub part: usize,
    /// Length of a chunk; the last one of a part may be shorter.
    pub chunk: usize,
}

impl Cut {
    /// A side of one part.
    pub fn whole(len: usize, chunk: usize) -> Self {
        Cut { parts: 1, part: len, chunk }
    }

    /// Number of chunks.
    pub fn count(&self) -> usize {
        self.parts * self.part.div_ceil(self.chunk.max(1))
    }

    fn len(&self) -> usize {
        self.parts * self.part
    }

    /// Start and length of chunk `i`.
    fn chunk(&self, i: usize) -> (usize, usize) {
        let per_part = self.part.div_ceil(self.chunk);
        let at = (i % per_part) * self.chunk;
        ((i / per_part) * self.part + at, self.chunk.min(self.part - at))
    }
}

/// Calls `f(first row, first column, block)` for every block of the matrix `out`, in parallel. The blocks depend on
/// the cuts alone, not on the number of threads.
pub fn for_grid<T: Send>(
    out: &mut [T],
    rows: Cut,
    cols: Cut,
    f: impl Fn(usize, usize, BlockMut<T>) + Sync + Send,
) {
    struct Shared<T>(*mut T);
    // SAFETY: only used below, to form blocks that do not overlap.
    unsafe impl<T: Send> Sync for Shared<T> {}

    assert_eq!(out.len(), rows.len() * cols.len(), "the cuts must describe the whole matrix");
    if out.is_empty() {
        return;
    }
    let stride = cols.len();
    let across = cols.count();
    let shared = Shared(out.as_mut_ptr());
    let shared = &shared;
    parallel::for_each(rows.count() * across, |i| {
        let ((row, height), (col, width)) = (rows.chunk(i / across), cols.chunk(i % across));
        // SAFETY: distinct indices give distinct (row chunk, column chunk) pairs; chunks of one side are disjoint and
        // end inside it (so inside `out`, by the assertion); and `out` stays borrowed until all calls have returned.
        let start = unsafe { shared.0.add(row * stride + col) };
        f(row, col, BlockMut { start, rows: height, cols: width, stride, owner: PhantomData });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_covers_every_element_once() {
        let mut out = vec![0u32; 12 * 10];
        let (rows, cols) = (Cut { parts: 2, part: 6, chunk: 4 }, Cut { parts: 2, part: 5, chunk: 2 });
        for_grid(&mut out, rows, cols, |row, col, mut block| {
            assert!(row / 6 == (row + block.rows() - 1) / 6 && col / 5 == (col + block.cols() - 1) / 5);
            for r in 0..block.rows() {
                for (c, v) in block.row(r).iter_mut().enumerate() {
                    *v += 1 + ((row + r) * 10 + col + c) as u32;
                }
            }
        });
        assert!(out.iter().enumerate().all(|(i, &v)| v == i as u32 + 1));
    }

    #[test]
    fn a_part_reaches_its_own_elements_only() {
        let mut data: Vec<usize> = (0..12).collect();
        let mut block = BlockMut::new(&mut data, 4);
        let mut part = block.part(1, 2, 1, 2);
        assert_eq!((part.row(0).to_vec(), part.row(1).to_vec()), (vec![5, 6], vec![9, 10]));
    }
}
