//! Shapes: up to six dimensions, row-major; images are channels last (`[n, h, w, c]`, `[n, d, h, w, c]`).

use std::fmt;
use std::ops::Deref;

/// The extents of a tensor, outermost first. A scalar has none.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// From extents, outermost first.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Shape(dims.into())
    }

    /// The shape of a single number.
    pub fn scalar() -> Self {
        Shape(Vec::new())
    }

    /// The extents.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.0.iter().product()
    }

    /// The innermost extent: the channels of an image. 1 for a scalar.
    pub fn channels(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// Elements to skip per step along each axis (row-major).
    pub fn strides(&self) -> Vec<usize> {
        let mut s = vec![1; self.rank()];
        for i in (1..self.rank()).rev() {
            s[i - 1] = s[i] * self.0[i];
        }
        s
    }

    /// Elements to skip per step along each axis of `out`, to which this is repeated under NumPy's rule: 0 where it is.
    pub fn steps_within(&self, out: &Shape) -> Vec<usize> {
        let (lead, strides) = (out.rank() - self.rank(), self.strides());
        (0..out.rank())
            .map(|i| if i < lead || self.0[i - lead] == 1 { 0 } else { strides[i - lead] })
            .collect()
    }

    /// The same with one extent replaced.
    pub fn with(&self, axis: usize, extent: usize) -> Self {
        let mut d = self.0.clone();
        d[axis] = extent;
        Shape(d)
    }

    /// The shape that both broadcast to under NumPy's rule (aligned at the innermost axis), or `None`.
    pub fn broadcast(a: &Shape, b: &Shape) -> Option<Shape> {
        let rank = a.rank().max(b.rank());
        let at = |s: &Shape, i: usize| if i + s.rank() < rank { 1 } else { s.0[i + s.rank() - rank] };
        (0..rank)
            .map(|i| match (at(a, i), at(b, i)) {
                (x, y) if x == y => Some(x),
                (1, y) => Some(y),
                (x, 1) => Some(x),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(d: [usize; N]) -> Self {
        Shape(d.to_vec())
    }
}

impl From<&[usize]> for Shape {
    fn from(d: &[usize]) -> Self {
        Shape(d.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(d: Vec<usize>) -> Self {
        Shape(d)
    }
}

impl From<&Shape> for Shape {
    fn from(s: &Shape) -> Self {
        s.clone()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "[{}]", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_follows_numpy() {
        let s = |d: &[usize]| Shape::from(d);
        assert_eq!(Shape::broadcast(&s(&[2, 3, 4]), &s(&[3, 1])), Some(s(&[2, 3, 4])));
        assert_eq!(Shape::broadcast(&s(&[]), &s(&[5])), Some(s(&[5])));
        assert_eq!(Shape::broadcast(&s(&[2]), &s(&[3])), None);
        assert_eq!(s(&[2, 3, 4]).strides(), vec![12, 4, 1]);
    }
}
