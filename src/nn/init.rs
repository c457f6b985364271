//! What weights begin with.
//!
//! Every tensor draws from a random stream of its own, named after it: the order in which a network's tensors are made
//! does not matter, and changing one layer leaves the others as they were.

use crate::device::cpu::parallel;
use crate::rng::Philox;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// How a tensor's first values are drawn. Weights are `[out, kernel.., in]` (channels last), so that `fan in` is the
/// number of elements behind one output and `fan out` the number behind one input; for a transposed convolution
/// `[in, kernel.., out]` they change places, as they do in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Initialiser {
    /// The same number everywhere.
    Constant {
        /// The number.
        value: f64,
    },
    /// Normal. pix2pix, CycleGAN and DCGAN use mean 0 and standard deviation 0.02.
    Normal {
        /// Mean.
        #[serde(default)]
        mean: f64,
        /// Standard deviation.
        #[serde(default = "sd_of_gans")]
        sd: f64,
    },
    /// Uniform within plus and minus a bound.
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Normal with variance `2 gain^2 / (fan in + fan out)` (Glorot and Bengio, AISTATS 2010).
    XavierNormal {
        /// Factor.
        #[serde(default = "one")]
        gain: f64,
    },
    /// Uniform with that variance.
    XavierUniform {
        /// Factor.
        #[serde(default = "one")]
        gain: f64,
    },
    /// Normal with variance `2 / (1 + slope^2) / fan in`, for layers followed by a leaky ReLU (He et al., ICCV 2015).
    KaimingNormal {
        /// The leaky ReLU's slope.
        #[serde(default)]
        slope: f64,
    },
    /// Uniform with that variance. PyTorch's own default for convolutions and linear layers has slope sqrt(5), which
    /// makes the bound `1 / sqrt(fan in)`.
    KaimingUniform {
        /// The leaky ReLU's slope.
        #[serde(default)]
        slope: f64,
    },
    /// Orthonormal rows, or columns where those are fewer (Saxe et al., ICLR 2014), times a gain.
    Orthogonal {
        /// Factor.
        #[serde(default = "one")]
        gain: f64,
    },
}

fn sd_of_gans() -> f64 {
    0.02
}

fn one() -> f64 {
    1.0
}

impl Initialiser {
    /// The values of the named tensor.
    pub fn values(&self, seed: u64, name: &str, shape: &Shape) -> Vec<f64> {
        let mut rng = Philox::named(seed, name);
        let n = shape.numel();
        let rows = shape.first().copied().unwrap_or(1).max(1);
        let (fan_in, fan_out) = (n as f64 / rows as f64, n as f64 / shape.channels().max(1) as f64);
        let mut normal = |mean: f64, sd: f64| (0..n).map(|_| mean + sd * rng.normal()).collect::<Vec<_>>();
        match *self {
            Initialiser::Constant { value } => vec![value; n],
            Initialiser::Normal { mean, sd } => normal(mean, sd),
            Initialiser::XavierNormal { gain } => normal(0.0, gain * (2.0 / (fan_in + fan_out)).sqrt()),
            Initialiser::KaimingNormal { slope } => normal(0.0, kaiming(slope, fan_in)),
            Initialiser::Orthogonal { gain } => {
                let mut x = normal(0.0, 1.0);
                orthogonalise(&mut x, rows, gain);
                x
            }
            Initialiser::Uniform { bound } => uniform(&mut rng, n, bound),
            Initialiser::XavierUniform { gain } => {
                uniform(&mut rng, n, gain * (6.0 / (fan_in + fan_out)).sqrt())
            }
            Initialiser::KaimingUniform { slope } => {
                uniform(&mut rng, n, 3f64.sqrt() * kaiming(slope, fan_in))
            }
        }
    }
}

fn uniform(rng: &mut Philox, n: usize, bound: f64) -> Vec<f64> {
    (0..n).map(|_| rng.range(-bound, bound)).collect()
}

/// The standard deviation of [`Initialiser::KaimingNormal`].
fn kaiming(slope: f64, fan_in: f64) -> f64 {
    (2.0 / ((1.0 + slope * slope) * fan_in)).sqrt()
}

/// Makes the rows of a matrix orthonormal, or its columns if they are fewer, and multiplies it by `gain`.
fn orthogonalise(x: &mut [f64], rows: usize, gain: f64) {
    let columns = x.len() / rows;
    if columns == 0 {
        return;
    }
    let wide = rows <= columns;
    let (count, length) = if wide { (rows, columns) } else { (columns, rows) };
    let place = |vector: usize, i: usize| if wide { vector * columns + i } else { i * columns + vector };
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    for vector in 0..count {
        let mut v: Vec<f64> = (0..length).map(|i| x[place(vector, i)]).collect();
        // Gram-Schmidt; a second pass removes what rounding left of the first.
        for _ in 0..2 {
            let shares: Vec<f64> = parallel::map_chunks(basis.len(), 16, |r| {
                basis[r].iter().map(|b| dot(b, &v)).collect::<Vec<_>>()
            })
            .concat();
            parallel::for_chunks(&mut v, 1024, |start, piece| {
                for (b, s) in basis.iter().zip(&shares) {
                    piece.iter_mut().zip(&b[start..]).for_each(|(v, b)| *v -= s * b);
                }
            });
        }
        let norm = dot(&v, &v).sqrt();
        v.iter_mut().for_each(|e| *e /= norm);
        basis.push(v);
    }
    for (vector, v) in basis.iter().enumerate() {
        v.iter().enumerate().for_each(|(i, e)| x[place(vector, i)] = gain * e);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(i: Initialiser, shape: &[usize]) -> (f64, f64, f64) {
        let x = i.values(7, "G.weight", &shape.into());
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        (mean, variance, x.iter().fold(0.0, |m, v| v.abs().max(m)))
    }

    #[test]
    fn variances_and_bounds_follow_the_fans() {
        // 40 outputs, 3 x 3 taps, 50 inputs: fan in 450, fan out 360.
        let shape = [40, 3, 3, 50];
        for (i, variance, bound) in [
            (Initialiser::Normal { mean: 0.0, sd: 0.02 }, 4e-4, None),
            (Initialiser::XavierNormal { gain: 1.0 }, 2.0 / 810.0, None),
            (Initialiser::XavierUniform { gain: 2.0 }, 8.0 / 810.0, Some(2.0 * (6.0f64 / 810.0).sqrt())),
            (Initialiser::KaimingNormal { slope: 0.2 }, 2.0 / 1.04 / 450.0, None),
            (Initialiser::KaimingUniform { slope: 5f64.sqrt() }, 1.0 / 450.0 / 3.0, Some(450f64.powf(-0.5))),
            (Initialiser::Uniform { bound: 0.3 }, 0.03, Some(0.3)),
        ] {
            let (mean, got, top) = moments(i, &shape);
            // 18000 values: the mean is within 5 standard errors, the variance within 5 %.
            assert!(mean.abs() < 5.0 * (variance / 18_000f64).sqrt(), "{i:?}: mean {mean}");
            assert!((got / variance - 1.0).abs() < 0.05, "{i:?}: variance {got}, not {variance}");
            if let Some(bound) = bound {
                assert!(top <= bound && top > 0.99 * bound, "{i:?}: largest {top}, bound {bound}");
            }
        }
        assert_eq!(Initialiser::Constant { value: 3.0 }.values(1, "b", &[2].into()), [3.0, 3.0]);
    }

    #[test]
    fn names_keep_tensors_apart_and_order_does_not_matter() {
        let i = Initialiser::Normal { mean: 0.0, sd: 1.0 };
        let of = |name: &str| i.values(3, name, &[5].into());
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        assert_ne!(i.values(4, "a", &[5].into()), of("a"));
    }

    #[test]
    fn orthogonal_matrices_are_orthogonal() {
        for (rows, inner) in [(6, 20), (20, 6), (7, 7), (1, 3)] {
            let x = Initialiser::Orthogonal { gain: 1.5 }.values(1, "w", &[rows, 1, inner].into());
            let at = |v: usize, i: usize| if rows <= inner { x[v * inner + i] } else { x[i * inner + v] };
            let (count, length) = (rows.min(inner), rows.max(inner));
            for a in 0..count {
                for b in 0..count {
                    let dot: f64 = (0..length).map(|i| at(a, i) * at(b, i)).sum();
                    let want = if a == b { 2.25 } else { 0.0 };
                    assert!((dot - want).abs() < 1e-12, "{rows} x {inner}: <{a}, {b}> = {dot}");
                }
            }
        }
    }

    #[test]
    fn recipes_name_initialisers() {
        let parse = |text: &str| serde_json::from_str::<Initialiser>(text);
        assert_eq!(
            parse(r#"{"kind":"normal"}"#).expect("a name"),
            Initialiser::Normal { mean: 0.0, sd: 0.02 }
        );
        assert_eq!(
            parse(r#"{"kind":"xavier-uniform","gain":0.02}"#).expect("a name"),
            Initialiser::XavierUniform { gain: 0.02 }
        );
        assert!(parse(r#"{"kind":"normal","std":0.02}"#).is_err());
    }
}
