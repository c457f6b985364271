//! Linear models of a few numbers: logistic and ridge regression, what a network that says something of an image must beat.

use crate::error::{Error, Result};

/// How a linear model's sums become predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Probabilities of classes that exclude each other: multinomial logistic regression.
    Softmax,
    /// A probability each: a logistic regression for every finding.
    Sigmoid,
    /// The sums themselves: ridge regression.
    Identity,
}

impl Link {
    fn apply(self, sums: &mut [f64]) {
        match self {
            Link::Identity => {}
            Link::Sigmoid => sums.iter_mut().for_each(|s| *s = 1.0 / (1.0 + (-*s).exp())),
            Link::Softmax => {
                let most = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                sums.iter_mut().for_each(|s| *s = (*s - most).exp());
                let all: f64 = sums.iter().sum();
                sums.iter_mut().for_each(|s| *s /= all);
            }
        }
    }

    /// A bound of the loss's curvature by the sums.
    fn curvature(self) -> f64 {
        match self {
            Link::Softmax => 0.5,
            Link::Sigmoid => 0.25,
            Link::Identity => 1.0,
        }
    }
}

/// A fitted model. Features are standardised by the training cases'.
#[derive(Clone, Debug)]
pub struct Linear {
    link: Link,
    /// Mean and inverse deviation of each feature.
    scale: Vec<[f64; 2]>,
    /// `[outputs][1 + features]`, the intercept first.
    weights: Vec<Vec<f64>>,
}

/// The gradient is smaller than this everywhere, relative to the number of cases.
const TOLERANCE: f64 = 1e-7;
/// Most steps.
const STEPS: usize = 20_000;

impl Linear {
    /// Fits to `features` of cases and what is `wanted` of each (zeros and ones, or numbers), with half the squared norm of the
    /// weights but the intercepts added to the sum of losses: scikit-learn's `LogisticRegression(C=1.0)` and
    /// `Ridge(alpha=1.0)` on standardised features. Fails without cases, and where they differ in length.
    pub fn fit(link: Link, features: &[Vec<f64>], wanted: &[Vec<f64>]) -> Result<Self> {
        let Some((first, target)) = features.first().zip(wanted.first()) else {
            return Err(Error::input(
                "a baseline needs training cases; check that the split `train` has subjects",
            ));
        };
        let (count, outputs, n) = (first.len(), target.len(), features.len() as f64);
        if features.len() != wanted.len() || features.iter().any(|f| f.len() != count) {
            return Err(Error::input("a baseline needs the same features and one target of every case"));
        }
        let mean = |i: usize| features.iter().map(|f| f[i]).sum::<f64>() / n;
        let scale: Vec<[f64; 2]> = (0..count)
            .map(|i| {
                let m = mean(i);
                let deviation = (features.iter().map(|f| (f[i] - m).powi(2)).sum::<f64>() / n).sqrt();
                [m, if deviation > 0.0 { 1.0 / deviation } else { 0.0 }]
            })
            .collect();
        let mut model = Linear { link, scale, weights: vec![vec![0.0; count + 1]; outputs] };
        let rows: Vec<Vec<f64>> = features.iter().map(|f| model.standardised(f)).collect();
        // The trace bounds the largest eigenvalue of the rows' products.
        let trace: f64 = rows.iter().flatten().map(|v| v * v).sum();
        let step = 1.0 / (link.curvature() * trace + 1.0);
        // Nesterov's accelerated gradient, begun anew where it goes uphill (O'Donoghue and Candes 2015).
        let (mut ahead, mut momentum) = (model.weights.clone(), 1.0f64);
        for _ in 0..STEPS {
            let gradient = gradient(link, &ahead, &rows, wanted);
            let most = gradient.iter().flatten().fold(0.0f64, |m, g| m.max(g.abs()));
            if most <= TOLERANCE * n {
                break;
            }
            let next: Vec<Vec<f64>> = ahead
                .iter()
                .zip(&gradient)
                .map(|(w, g)| w.iter().zip(g).map(|(w, g)| w - step * g).collect())
                .collect();
            let moved = |a: &[Vec<f64>], b: &[Vec<f64>]| -> Vec<f64> {
                a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| a - b).collect()
            };
            let uphill: f64 =
                gradient.iter().flatten().zip(moved(&next, &model.weights)).map(|(g, d)| g * d).sum();
            let new = if uphill > 0.0 { 1.0 } else { 0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt()) };
            let share = if uphill > 0.0 { 0.0 } else { (momentum - 1.0) / new };
            ahead = next
                .iter()
                .zip(&model.weights)
                .map(|(n, o)| n.iter().zip(o).map(|(n, o)| n + share * (n - o)).collect())
                .collect();
            (model.weights, momentum) = (next, new);
        }
        Ok(model)
    }

    fn standardised(&self, features: &[f64]) -> Vec<f64> {
        let scaled = features.iter().zip(&self.scale).map(|(f, [mean, inverse])| (f - mean) * inverse);
        [1.0].into_iter().chain(scaled).collect()
    }

    /// The prediction for a case.
    pub fn predict(&self, features: &[f64]) -> Vec<f64> {
        predict(self.link, &self.weights, &self.standardised(features))
    }
}

fn predict(link: Link, weights: &[Vec<f64>], row: &[f64]) -> Vec<f64> {
    let mut sums: Vec<f64> =
        weights.iter().map(|w| w.iter().zip(row).map(|(w, x)| w * x).sum::<f64>()).collect();
    link.apply(&mut sums);
    sums
}

/// Of the sum of losses and half the squared norm. For all three links the loss's gradient by the sums is prediction less
/// truth.
fn gradient(link: Link, weights: &[Vec<f64>], rows: &[Vec<f64>], wanted: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut gradient: Vec<Vec<f64>> = weights.to_vec();
    // Intercepts are free.
    gradient.iter_mut().for_each(|g| g[0] = 0.0);
    for (row, want) in rows.iter().zip(wanted) {
        let made = predict(link, weights, row);
        for ((g, p), t) in gradient.iter_mut().zip(&made).zip(want) {
            g.iter_mut().zip(row).for_each(|(g, x)| *g += (p - t) * x);
        }
    }
    gradient
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One standardised feature, symmetric: ridge is sum(x y) / (sum(x^2) + 1).
    #[test]
    fn ridge_is_the_closed_form() {
        let x: Vec<Vec<f64>> = [1.0, 3.0, 5.0, 7.0].iter().map(|v| vec![*v]).collect();
        let y: Vec<Vec<f64>> = [2.0, 3.0, 5.0, 6.0].iter().map(|v| vec![*v]).collect();
        let model = Linear::fit(Link::Identity, &x, &y).unwrap();
        let z: Vec<f64> = [1.0f64, 3.0, 5.0, 7.0].iter().map(|v| (v - 4.0) / 5f64.sqrt()).collect();
        let slope = z.iter().zip(&y).map(|(z, y)| z * y[0]).sum::<f64>() / 5.0;
        for (z, x) in z.iter().zip(&x) {
            let want = 4.0 + slope * z;
            assert!((model.predict(x)[0] - want).abs() < 1e-5, "{} {want}", model.predict(x)[0]);
        }
    }

    /// At the optimum the gradient vanishes: checked by itself, with numbers that the fit has never seen.
    #[test]
    fn logistic_regression_is_at_its_optimum() {
        let x: Vec<Vec<f64>> = (0..40).map(|i| vec![f64::from(i % 7), f64::from(i * i % 11)]).collect();
        let class = |i: usize| usize::from(x[i][0] + 0.3 * x[i][1] > 4.0) + usize::from(i.is_multiple_of(9));
        let y: Vec<Vec<f64>> =
            (0..40).map(|i| (0..3).map(|k| f64::from(u8::from(class(i) == k))).collect()).collect();
        for link in [Link::Softmax, Link::Sigmoid] {
            let model = Linear::fit(link, &x, &y).unwrap();
            let loss = |weights: &[Vec<f64>]| -> f64 {
                let one = |(x, y): (&Vec<f64>, &Vec<f64>)| -> f64 {
                    let p = predict(link, weights, &model.standardised(x));
                    let each = p.iter().zip(y).map(|(p, y)| match link {
                        Link::Softmax => -y * p.ln(),
                        _ => -(y * p.ln() + (1.0 - y) * (1.0 - p).ln()),
                    });
                    each.sum()
                };
                let norm: f64 = weights.iter().map(|w| w[1..].iter().map(|v| v * v).sum::<f64>()).sum();
                x.iter().zip(&y).map(one).sum::<f64>() + 0.5 * norm
            };
            let best = loss(&model.weights);
            for (k, i) in [(0, 0), (0, 1), (1, 2), (2, 0), (2, 2)] {
                for change in [1e-3, -1e-3] {
                    let mut other = model.weights.clone();
                    other[k][i] += change;
                    assert!(loss(&other) >= best - 1e-9, "{link:?} {k} {i}");
                }
            }
            let right = (0..40).filter(|&i| {
                let p = model.predict(&x[i]);
                crate::metrics::classification::likeliest(&p) == class(i)
            });
            assert!(right.count() >= 30, "{link:?}");
        }
    }
}
