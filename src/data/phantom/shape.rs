//! Small geometry for the head model: ellipsoids, capsules, waves, soft edges. Lengths in mm, f32.

use crate::rng::Philox;

/// A point or a vector, mm.
pub type P3 = [f32; 3];

/// `a - b`
pub fn sub(a: P3, b: P3) -> P3 {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// Scalar product.
pub fn dot(a: P3, b: P3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Euclidean length.
pub fn norm(a: P3) -> f32 {
    dot(a, a).sqrt()
}

/// Smooth step from 0 at `low` to 1 at `high`.
pub fn step(low: f32, high: f32, v: f32) -> f32 {
    let t = ((v - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// An ellipsoid with axes along the world's.
#[derive(Clone, Copy, Debug)]
pub struct Ellipsoid {
    /// Centre.
    pub centre: P3,
    /// Semi-axes.
    pub semi: P3,
}

impl Ellipsoid {
    /// From centre and semi-axes.
    pub const fn new(centre: P3, semi: P3) -> Self {
        Ellipsoid { centre, semi }
    }

    /// 1 on the surface, less inside, growing linearly along rays.
    pub fn level(&self, p: P3) -> f32 {
        let d = sub(p, self.centre);
        norm([d[0] / self.semi[0], d[1] / self.semi[1], d[2] / self.semi[2]])
    }

    /// Approximate signed distance (negative inside): first order in the distance, exact on the surface.
    pub fn distance(&self, p: P3) -> f32 {
        let d = sub(p, self.centre);
        let s = self.semi;
        let k0 = norm([d[0] / s[0], d[1] / s[1], d[2] / s[2]]);
        let k1 = norm([d[0] / (s[0] * s[0]), d[1] / (s[1] * s[1]), d[2] / (s[2] * s[2])]);
        if k1 < 1e-6 { -s[0].min(s[1]).min(s[2]) } else { k0 * (k0 - 1.0) / k1 }
    }

    /// The mirror image in the mid-sagittal plane.
    pub fn mirrored(&self) -> Self {
        Ellipsoid { centre: [-self.centre[0], self.centre[1], self.centre[2]], semi: self.semi }
    }

    /// All semi-axes times a factor.
    pub fn scaled(&self, by: f32) -> Self {
        Ellipsoid { centre: self.centre, semi: self.semi.map(|s| s * by) }
    }
}

/// Signed distance to a capsule between two points.
pub fn capsule(p: P3, a: P3, b: P3, radius: f32) -> f32 {
    let (pa, ba) = (sub(p, a), sub(b, a));
    let t = (dot(pa, ba) / dot(ba, ba)).clamp(0.0, 1.0);
    norm([pa[0] - t * ba[0], pa[1] - t * ba[1], pa[2] - t * ba[2]]) - radius
}

/// A random smooth scalar field: a sum of plane waves in random directions, variance 1.
#[derive(Clone, Debug)]
pub struct Waves(Vec<(P3, f32)>);

impl Waves {
    /// `count` waves with lengths between `short` and `long` mm.
    pub fn new(rng: &mut Philox, count: usize, short: f64, long: f64) -> Self {
        let wave = |rng: &mut Philox| {
            let v = [rng.normal(), rng.normal(), rng.normal()];
            let n = v.iter().map(|c| c * c).sum::<f64>().sqrt().max(1e-9);
            let k = std::f64::consts::TAU / rng.range(short, long);
            (v.map(|c| (c / n * k) as f32), rng.range(0.0, std::f64::consts::TAU) as f32)
        };
        Waves((0..count).map(|_| wave(rng)).collect())
    }

    /// The field at a point.
    pub fn at(&self, p: P3) -> f32 {
        self.0.iter().map(|(k, phase)| (dot(*k, p) + phase).sin()).sum::<f32>() * self.amplitude()
    }

    /// The field and the length of its gradient (per mm).
    pub fn with_slope(&self, p: P3) -> (f32, f32) {
        let (mut value, mut grad) = (0.0, [0.0f32; 3]);
        for (k, phase) in &self.0 {
            let (s, c) = (dot(*k, p) + phase).sin_cos();
            value += s;
            for a in 0..3 {
                grad[a] += k[a] * c;
            }
        }
        (value * self.amplitude(), norm(grad) * self.amplitude())
    }

    fn amplitude(&self) -> f32 {
        (2.0 / self.0.len() as f32).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_near_the_surface_are_in_mm() {
        let e = Ellipsoid::new([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]);
        for (p, want) in [([12.0, 2.0, 3.0], 1.0), ([1.0, 21.0, 3.0], -1.0), ([1.0, 2.0, 32.0], -1.0)] {
            assert!((e.distance(p) - want).abs() < 0.12, "{}", e.distance(p));
        }
        assert!((capsule([0.0, 3.0, 5.0], [0.0; 3], [0.0, 0.0, 10.0], 1.0) - 2.0).abs() < 1e-6);
    }

    #[test]
    fn waves_have_unit_variance_and_the_right_slope() {
        let w = Waves::new(&mut Philox::new(1, 2), 12, 20.0, 30.0);
        let at = |i: usize| [(i % 50) as f32 * 7.3, (i / 50) as f32 * 11.1, i as f32 * 0.37];
        let var = (0..2500).map(|i| w.at(at(i)).powi(2)).sum::<f32>() / 2500.0;
        assert!((var - 1.0).abs() < 0.15, "{var}");
        let (v, slope) = w.with_slope([3.0, 4.0, 5.0]);
        let h = 0.01;
        let d = [[h, 0.0, 0.0], [0.0, h, 0.0], [0.0, 0.0, h]]
            .map(|d| (w.at([3.0 + d[0], 4.0 + d[1], 5.0 + d[2]]) - v) / h);
        assert!((norm(d) - slope).abs() < 0.02 * slope, "{} {slope}", norm(d));
    }
}
