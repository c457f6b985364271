//! Orientation: stored order to canonical RAS and back, and slices in display order.
//!
//! Only axes are permuted and reversed; nothing is resampled, so the way back is exact.
//!
//! Canonical space has x to the patient's right, y to the front (anterior), z up (superior). Slices are row-major
//! `[h][w]` images in radiological display order (the patient's right on the image's left):
//!
//! | plane | slice axis | rows, top down | columns, left to right |
//! |---|---|---|---|
//! | axial | z, upward | anterior to posterior | right to left |
//! | coronal | y, forward | superior to inferior | right to left |
//! | sagittal | x, to the right | superior to inferior | anterior to posterior |

use super::affine::Affine;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How stored axes map to canonical ones: canonical axis `a` is stored axis `from[a]`, reversed where `flip[a]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation {
    from: [usize; 3],
    flip: [bool; 3],
    stored: [usize; 3],
}

impl Orientation {
    /// The reorientation that brings a grid closest to RAS. `dims` are the stored extents.
    pub fn new(affine: &Affine, dims: [usize; 3]) -> Self {
        let (mut from, mut flip) = ([0; 3], [false; 3]);
        for (voxel, (world, reversed)) in affine.closest_axes().into_iter().enumerate() {
            from[world] = voxel;
            flip[world] = reversed;
        }
        Orientation { from, flip, stored: dims }
    }

    /// Extents in canonical space.
    pub fn canonical_dims(&self) -> [usize; 3] {
        self.from.map(|a| self.stored[a])
    }

    /// The affine of the canonical grid.
    pub fn canonical_affine(&self, stored: &Affine) -> Affine {
        stored.permuted(self.from, self.flip, self.stored)
    }

    /// Stored voxels (one frame) in canonical order.
    pub fn to_canonical(&self, stored: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(stored.len());
        self.each(|at| out.push(stored[at]));
        out
    }

    /// Canonical voxels in stored order: the exact inverse of [`Self::to_canonical`].
    pub fn to_stored(&self, canonical: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; canonical.len()];
        let mut next = canonical.iter();
        self.each(|at| {
            if let Some(v) = next.next() {
                out[at] = *v;
            }
        });
        out
    }

    /// Calls `visit` with the stored index of every canonical voxel, x fastest.
    fn each(&self, mut visit: impl FnMut(usize)) {
        let stride = [1, self.stored[0], self.stored[0] * self.stored[1]];
        let [nx, ny, nz] = self.canonical_dims();
        let at = |a: usize, i: usize| {
            let n = self.stored[self.from[a]];
            stride[self.from[a]] * if self.flip[a] { n - 1 - i } else { i }
        };
        for z in 0..nz {
            for y in 0..ny {
                let base = at(2, z) + at(1, y);
                for x in 0..nx {
                    visit(base + at(0, x));
                }
            }
        }
    }
}

/// The plane in which a volume is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Horizontal (the default).
    #[default]
    Axial,
    /// Facing the front.
    Coronal,
    /// Facing the side.
    Sagittal,
}

impl Plane {
    /// Canonical axes of (slice, row, column).
    fn axes(self) -> [usize; 3] {
        match self {
            Plane::Axial => [2, 1, 0],
            Plane::Coronal => [1, 2, 0],
            Plane::Sagittal => [0, 2, 1],
        }
    }

    /// Number of slices of a canonical volume.
    pub fn slices(self, dims: [usize; 3]) -> usize {
        dims[self.axes()[0]]
    }

    /// `[h, w]` of a slice.
    pub fn slice_shape(self, dims: [usize; 3]) -> [usize; 2] {
        let [_, r, c] = self.axes();
        [dims[r], dims[c]]
    }

    /// Copies slice `index` of a canonical volume to `out`, `[h][w]`.
    pub fn extract(self, canonical: &[f32], dims: [usize; 3], index: usize, out: &mut [f32]) {
        for (o, at) in out.iter_mut().zip(self.indices(dims, index)) {
            *o = canonical[at];
        }
    }

    /// Puts a slice back: the exact inverse of [`Self::extract`].
    pub fn insert(self, canonical: &mut [f32], dims: [usize; 3], index: usize, slice: &[f32]) {
        for (v, at) in slice.iter().zip(self.indices(dims, index)) {
            canonical[at] = *v;
        }
    }

    /// The canonical indices of a slice's pixels, row by row. Rows and columns both run against their axes.
    fn indices(self, dims: [usize; 3], index: usize) -> impl Iterator<Item = usize> {
        let stride = [1, dims[0], dims[0] * dims[1]];
        let [s, r, c] = self.axes();
        let (base, h, w) = (index * stride[s], dims[r], dims[c]);
        (0..h).rev().flat_map(move |y| (0..w).rev().map(move |x| base + y * stride[r] + x * stride[c]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_exact_for_all_48_orientations() {
        let dims = [3, 4, 5];
        let voxels: Vec<f32> = (0..60).map(|v| v as f32).collect();
        let mut seen = std::collections::HashSet::new();
        for p in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            for signs in 0..8 {
                let mut m = [[0.0; 4]; 3];
                for voxel in 0..3 {
                    m[p[voxel]][voxel] = if signs >> voxel & 1 == 1 { -2.0 } else { 2.0 };
                }
                let a = Affine(m);
                let o = Orientation::new(&a, dims);
                let c = o.to_canonical(&voxels);
                assert_eq!(o.canonical_affine(&a).axis_codes(), "RAS");
                assert_eq!(o.to_stored(&c), voxels);
                // The world position of a voxel is the same on both grids.
                let n = o.canonical_dims();
                let at = c.iter().position(|&v| v == 23.0).unwrap();
                let there = [at % n[0], at / n[0] % n[1], at / (n[0] * n[1])].map(|v| v as f64);
                let here = [23 % 3, 23 / 3 % 4, 23 / 12].map(|v| v as f64);
                assert_eq!(o.canonical_affine(&a).apply(there), a.apply(here));
                seen.insert(a.axis_codes());
            }
        }
        assert_eq!(seen.len(), 48);
    }

    #[test]
    fn slices_show_the_front_on_top_and_the_right_on_the_left() {
        let dims = [2, 3, 4];
        // Value = 100 x + 10 y + z.
        let v: Vec<f32> = (0..24).map(|i| (100 * (i % 2) + 10 * (i / 2 % 3) + i / 6) as f32).collect();
        let cut = |plane: Plane, k| {
            let [h, w] = plane.slice_shape(dims);
            let mut s = vec![0.0; h * w];
            plane.extract(&v, dims, k, &mut s);
            s
        };
        assert_eq!(cut(Plane::Axial, 3), [123.0, 23.0, 113.0, 13.0, 103.0, 3.0]);
        assert_eq!(cut(Plane::Coronal, 2), [123.0, 23.0, 122.0, 22.0, 121.0, 21.0, 120.0, 20.0]);
        assert_eq!(cut(Plane::Sagittal, 1)[..6], [123.0, 113.0, 103.0, 122.0, 112.0, 102.0]);
        for plane in [Plane::Axial, Plane::Coronal, Plane::Sagittal] {
            let mut back = vec![-1.0; 24];
            (0..plane.slices(dims)).for_each(|k| plane.insert(&mut back, dims, k, &cut(plane, k)));
            assert_eq!(back, v);
        }
    }
}
