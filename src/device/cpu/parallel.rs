//! Splitting work over threads so that the result does not depend on their number: pieces have a fixed size, and
//! partial results are combined in order.

use rayon::prelude::*;

/// Elements per piece of a pointwise pass: small enough for the second-level cache, large enough to amortise a task.
pub const CHUNK: usize = 16 * 1024;

/// Calls `f(start, piece)` for consecutive pieces of `out`, in parallel when there is more than one.
pub fn for_chunks<T: Send, F: Fn(usize, &mut [T]) + Sync>(out: &mut [T], chunk: usize, f: F) {
    if out.len() <= chunk {
        f(0, out);
    } else {
        out.par_chunks_mut(chunk).enumerate().for_each(|(i, piece)| f(i * chunk, piece));
    }
}

/// Cuts the rows of `data [rows, n]`, `ROWS` at most, into equal stretches and calls `f(start, stretch of each row)`, in
/// parallel when there is more than one stretch. Rows that are not there are empty.
pub fn for_rows<T: Send, const ROWS: usize, F: Fn(usize, [&mut [T]; ROWS]) + Sync>(
    data: &mut [T],
    n: usize,
    chunk: usize,
    f: F,
) {
    if n == 0 {
        return;
    }
    assert!(data.len() <= ROWS * n, "more rows than {ROWS}");
    let mut pieces: Vec<[&mut [T]; ROWS]> =
        (0..n.div_ceil(chunk)).map(|_| std::array::from_fn(|_| &mut [] as &mut [T])).collect();
    for (row, line) in data.chunks_mut(n).enumerate() {
        line.chunks_mut(chunk).zip(&mut pieces).for_each(|(stretch, piece)| piece[row] = stretch);
    }
    if pieces.len() == 1 {
        pieces.into_iter().for_each(|piece| f(0, piece));
    } else {
        pieces.into_par_iter().enumerate().for_each(|(i, piece)| f(i * chunk, piece));
    }
}

/// Calls `f(i)` for `0..n`, in parallel when there is more than one.
pub fn for_each<F: Fn(usize) + Sync + Send>(n: usize, f: F) {
    if n <= 1 {
        (0..n).for_each(f);
    } else {
        (0..n).into_par_iter().for_each(f);
    }
}

/// Maps fixed pieces of `0..n` and returns the results in order, for the caller to fold from first to last.
pub fn map_chunks<R: Send, F: Fn(std::ops::Range<usize>) -> R + Sync>(
    n: usize,
    chunk: usize,
    f: F,
) -> Vec<R> {
    let pieces = n.div_ceil(chunk.max(1));
    let piece = |i: usize| f(i * chunk..((i + 1) * chunk).min(n));
    if pieces <= 1 {
        (0..pieces).map(piece).collect()
    } else {
        (0..pieces).into_par_iter().map(piece).collect()
    }
}
