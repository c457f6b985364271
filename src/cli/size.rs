//! Extents of slices on the command line.

/// `256` or `96,128`.
pub(super) fn size(text: &str) -> Result<[usize; 2], String> {
    let numbers: Option<Vec<usize>> =
        text.split(',').map(|n| n.trim().parse().ok().filter(|n| *n > 0)).collect();
    match numbers.as_deref() {
        Some([n]) => Ok([*n; 2]),
        Some([h, w]) => Ok([*h, *w]),
        _ => Err("write one number or two, for example 256 or 96,128".into()),
    }
}
