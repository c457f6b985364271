//! The affine of a volume: voxel index (i, j, k) to world millimetres (x to the right, y to the front, z up: RAS+).

use std::fmt;

/// Three rows of `[a, b, c, t]`: world = A * index + t, in mm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine(pub [[f64; 4]; 3]);

impl Affine {
    /// Axes along the world's, the volume's centre at the origin. `spacing` in mm.
    pub fn centred(dims: [usize; 3], spacing: [f64; 3]) -> Self {
        let mut m = [[0.0; 4]; 3];
        for a in 0..3 {
            m[a][a] = spacing[a];
            m[a][3] = -spacing[a] * (dims[a] as f64 - 1.0) / 2.0;
        }
        Affine(m)
    }

    /// World position (mm) of a voxel index, fractions allowed.
    pub fn apply(&self, index: [f64; 3]) -> [f64; 3] {
        self.0.map(|r| r[0] * index[0] + r[1] * index[1] + r[2] * index[2] + r[3])
    }

    /// Makes column `a` the unit normal of the other two, right-handed: the direction of an axis that a file does not have.
    pub(super) fn set_normal(&mut self, a: usize) {
        let column = |c: usize| [0, 1, 2].map(|r| self.0[r][c]);
        let (u, v) = (column((a + 1) % 3), column((a + 2) % 3));
        let cross = [0, 1, 2].map(|i: usize| {
            let (j, k) = ((i + 1) % 3, (i + 2) % 3);
            u[j] * v[k] - u[k] * v[j]
        });
        let length = cross.iter().map(|x| x * x).sum::<f64>().sqrt();
        for (row, x) in self.0.iter_mut().zip(cross) {
            row[a] = if length > 0.0 { x / length } else { 0.0 };
        }
    }

    /// Edge lengths of a voxel in mm: the lengths of the three columns.
    pub fn spacing(&self) -> [f64; 3] {
        [0, 1, 2].map(|c| self.0.iter().map(|r| r[c] * r[c]).sum::<f64>().sqrt())
    }

    /// For each voxel axis, the world axis (0 x, 1 y, 2 z) that it follows most closely and whether it runs against
    /// it. The assignment is the permutation with the largest sum of absolute cosines, so it is always one-to-one.
    pub fn closest_axes(&self) -> [(usize, bool); 3] {
        const PERMUTATIONS: [[usize; 3]; 6] =
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let spacing = self.spacing();
        let cosine = |world: usize, voxel: usize| match spacing[voxel] {
            s if s > 0.0 => self.0[world][voxel] / s,
            _ => 0.0,
        };
        let score = |p: &[usize; 3]| (0..3).map(|v| cosine(p[v], v).abs()).sum::<f64>();
        let mut best = PERMUTATIONS[0];
        for p in &PERMUTATIONS[1..] {
            // A strict lead, so that rounding never decides between equals.
            if score(p) > score(&best) + 1e-9 {
                best = *p;
            }
        }
        [0, 1, 2].map(|v| (best[v], cosine(best[v], v) < 0.0))
    }

    /// The directions in which the indices grow, as letters: "RAS", "LPS", ...
    pub fn axis_codes(&self) -> String {
        self.closest_axes()
            .iter()
            .map(|&(world, flipped)| [['R', 'L'], ['A', 'P'], ['S', 'I']][world][usize::from(flipped)])
            .collect()
    }

    /// The affine of the same grid after the indices of some axes were reversed and the axes permuted:
    /// new axis `a` is old axis `from[a]`, reversed where `flip[a]`; `dims` are the old extents.
    pub fn permuted(&self, from: [usize; 3], flip: [bool; 3], dims: [usize; 3]) -> Affine {
        let mut m = [[0.0; 4]; 3];
        for (new, old) in m.iter_mut().zip(&self.0) {
            new[3] = old[3];
            for a in 0..3 {
                let column = old[from[a]];
                new[a] = if flip[a] { -column } else { column };
                if flip[a] {
                    new[3] += column * (dims[from[a]] as f64 - 1.0);
                }
            }
        }
        Affine(m)
    }

    /// The largest distance (mm) between the world positions that two affines give the corners of one grid.
    pub fn distance(&self, other: &Affine, dims: [usize; 3]) -> f64 {
        let mut worst = 0.0f64;
        for corner in 0..8usize {
            let index = [0, 1, 2].map(|a| if corner >> a & 1 == 1 { dims[a] as f64 - 1.0 } else { 0.0 });
            let (p, q) = (self.apply(index), other.apply(index));
            worst = worst.max((0..3).map(|a| (p[a] - q[a]).powi(2)).sum::<f64>().sqrt());
        }
        worst
    }

    /// From the quaternion of the NIfTI qform (`quatern_b, c, d`), its offset, the spacing and `qfac`
    /// (+1 or -1). `None` if the quaternion is longer than a rotation's can be.
    pub fn from_qform(bcd: [f64; 3], offset: [f64; 3], spacing: [f64; 3], qfac: f64) -> Option<Affine> {
        let [b, c, d] = bcd;
        let a2 = 1.0 - (b * b + c * c + d * d);
        // Rounding in f32 may leave it slightly negative: three ulps, nibabel's limit.
        if a2 < -3.0 * f64::from(f32::EPSILON) || a2.is_nan() {
            return None;
        }
        let a = a2.max(0.0).sqrt();
        let r = [
            [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
            [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
            [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ];
        let zoom = [spacing[0], spacing[1], spacing[2] * qfac];
        Some(Affine([0, 1, 2].map(|w| [r[w][0] * zoom[0], r[w][1] * zoom[1], r[w][2] * zoom[2], offset[w]])))
    }
}

impl fmt::Display for Affine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let row = |r: &[f64; 4]| r.iter().map(|v| format!("{v:.6}")).collect::<Vec<_>>().join(",");
        write!(f, "{}", self.0.iter().map(row).collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quaternion_of_a_quarter_turn() {
        let h = 0.5f64.sqrt();
        let m = Affine::from_qform([0.0, 0.0, h], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0], -1.0).unwrap();
        let want = [[0.0, -3.0, 0.0, 1.0], [2.0, 0.0, 0.0, 2.0], [0.0, 0.0, -4.0, 3.0]];
        for (r, w) in m.0.iter().zip(&want) {
            assert!(r.iter().zip(w).all(|(a, b)| (a - b).abs() < 1e-12), "{m}");
        }
        assert_eq!(m.axis_codes(), "ALI");
        assert!(Affine::from_qform([1.0, 1.0, 0.0], [0.0; 3], [1.0; 3], 1.0).is_none());
    }

    #[test]
    fn permuting_keeps_world_positions() {
        let m = Affine([[0.1, 2.0, 0.0, -5.0], [-1.5, 0.1, 0.2, 7.0], [0.0, 0.3, -3.0, 1.0]]);
        let (from, flip, dims) = ([1, 0, 2], [false, true, true], [4, 5, 6]);
        let n = m.permuted(from, flip, dims);
        let old = [1.0, 2.0, 3.0];
        let new = [0, 1, 2].map(|a| {
            let v = old[from[a]];
            if flip[a] { dims[from[a]] as f64 - 1.0 - v } else { v }
        });
        for (p, q) in m.apply(old).iter().zip(n.apply(new)) {
            assert!((p - q).abs() < 1e-12);
        }
        assert_eq!(n.axis_codes(), "RAS");
    }
}
