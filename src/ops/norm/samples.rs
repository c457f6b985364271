//! Samples of the norms, with an oracle that collects each set's elements.

use super::{NormGradSums, NormGradX, NormKind, Normalize};
use crate::ops::sample::{self, Array, Domain, Sample};

/// Which set an element belongs to, from the definitions.
fn set_of(kind: NormKind, index: &[usize], c: usize) -> (usize, usize) {
    let (n, channel) = (index[0], index[index.len() - 1]);
    match kind {
        NormKind::Batch => (0, channel),
        NormKind::Instance => (n, channel),
        NormKind::Group(g) => (n, channel / (c / g)),
    }
}

/// Mean and biased variance of every set, in the order of the statistics tensor.
fn stats(x: &Array, kind: NormKind) -> Array {
    let sets = kind.sets(&x.shape).expect("samples fit");
    let mut members = vec![Vec::new(); sets.count()];
    sample::fill(x.shape.clone(), |i| {
        let (o, g) = set_of(kind, i, x.shape.channels());
        members[o * sets.groups + g].push(x.at(i));
        0.0
    });
    let mean = |m: &Vec<f64>| m.iter().sum::<f64>() / m.len() as f64;
    let means: Vec<f64> = members.iter().map(mean).collect();
    let vars = members.iter().map(|m| m.iter().map(|v| (v - mean(m)).powi(2)).sum::<f64>() / m.len() as f64);
    sample::array([2, sets.count()], means.iter().copied().chain(vars).collect())
}

fn standardised(x: &Array, s: &Array, kind: NormKind, eps: f64) -> Array {
    let sets = kind.sets(&x.shape).expect("samples fit");
    sample::fill(x.shape.clone(), |i| {
        let (o, g) = set_of(kind, i, x.shape.channels());
        let at = o * sets.groups + g;
        (x.at(i) - s.data[at]) / (s.data[sets.count() + at] + eps).sqrt()
    })
}

/// Every kind on images and volumes, with and without scale and shift, with large offsets, and frozen.
pub fn samples() -> Vec<Sample> {
    const EPS: f64 = 1e-5;
    let mut all = Vec::new();
    let shapes: [&'static [usize]; 4] = [&[3, 5, 7, 4], &[2, 3, 2, 3, 4], &[3, 6, 4], &[5, 4]];
    for kind in [NormKind::Batch, NormKind::Instance, NormKind::Group(2), NormKind::Group(1)] {
        for shape in shapes {
            if kind.sets(&shape.into()).expect("samples fit").size() < 3 {
                continue; // one element is always its mean; two are always +-1: the gradient is rounding noise
            }
            let c = shape[shape.len() - 1];
            for domain in [Domain::Wide, Domain::Offset] {
                let note = format!("{kind:?} {shape:?} {domain:?}");
                let x = (shape, domain);
                let per: (&[usize], Domain) = (&[4], Domain::Positive);
                let mut add = |s: Sample| all.push(s.noted(&note));
                add(sample::composite(
                    "norm_stats",
                    &[x],
                    move |v| v[0].norm_stats(kind),
                    move |v| stats(&v[0], kind),
                ));
                if domain == Domain::Offset {
                    continue;
                }
                add(sample::composite(
                    "normalize plain",
                    &[x],
                    move |v| v[0].normalize(kind, EPS, None),
                    move |v| standardised(&v[0], &stats(&v[0], kind), kind, EPS),
                ));
                add(sample::composite(
                    "normalize affine",
                    &[x, per, per],
                    move |v| v[0].normalize(kind, EPS, Some((&v[1], &v[2]))),
                    move |v| {
                        let xhat = standardised(&v[0], &stats(&v[0], kind), kind, EPS);
                        sample::fill(shape.to_vec(), |i| {
                            let channel = i[i.len() - 1];
                            xhat.at(i) * v[1].data[channel] + v[2].data[channel]
                        })
                    },
                ));
                let sets = kind.sets(&shape.into()).expect("samples fit").count();
                let frozen = Normalize { kind, eps: EPS, affine: false, frozen: true };
                add(sample::op("normalize frozen", frozen, &[x, (&[2, sets], Domain::Positive)], move |v| {
                    standardised(&v[0], &v[1], kind, EPS)
                }));
                let g = (shape, Domain::Normal);
                add(sample::composite(
                    "norm_grad_x",
                    &[x, g, per],
                    move |v| {
                        let stats = v[0].norm_stats(kind);
                        let sums = v[0].apply(NormGradSums { kind, eps: EPS, first: 0 }, &[&stats, &v[1]]);
                        let op = NormGradX { kind, eps: EPS, affine: true, first: 0, shared: 1 };
                        v[0].apply(op, &[&stats, &v[1], &sums, &v[2]])
                    },
                    move |v| grad_x(&v[0], &v[1], &v[2], kind, EPS),
                ));
                add(sample::composite(
                    "norm_grad_sums",
                    &[x, g],
                    move |v| {
                        v[0].apply(
                            NormGradSums { kind, eps: EPS, first: 0 },
                            &[&v[0].norm_stats(kind), &v[1]],
                        )
                    },
                    move |v| {
                        let xhat = standardised(&v[0], &stats(&v[0], kind), kind, EPS);
                        let outer = if kind == NormKind::Batch { 1 } else { shape[0] };
                        let image = v[0].data.len() / outer;
                        let mut out = sample::fill([2, outer, c], |_| 0.0);
                        for (i, g) in v[1].data.iter().enumerate() {
                            let place = i / image * c + i % c;
                            out.data[place] += g * xhat.data[i];
                            out.data[outer * c + place] += g;
                        }
                        out
                    },
                ));
            }
        }
    }
    for first in [1, 2] {
        let shape: &'static [usize] = &[3, 4, 6];
        let affine: &'static [usize] = &shape[first..];
        all.push(
            sample::composite(
                "layer_norm",
                &[(shape, Domain::Wide), (affine, Domain::Normal), (affine, Domain::Normal)],
                move |v| v[0].layer_norm(first, EPS, Some((&v[1], &v[2]))),
                move |v| {
                    let n: usize = affine.iter().product();
                    let line = |i: usize| &v[0].data[i / n * n..(i / n + 1) * n];
                    let data = (0..v[0].data.len()).map(|i| {
                        let mean = line(i).iter().sum::<f64>() / n as f64;
                        let var = line(i).iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
                        (v[0].data[i] - mean) / (var + EPS).sqrt() * v[1].data[i % n] + v[2].data[i % n]
                    });
                    sample::array(shape, data.collect())
                },
            )
            .noted(&format!("from axis {first}")),
        );
    }
    all
}

/// The gradient by x as a sum over the Jacobian's entries: every pair of elements of a set.
fn grad_x(x: &Array, dy: &Array, gamma: &Array, kind: NormKind, eps: f64) -> Array {
    let s = stats(x, kind);
    let xhat = standardised(x, &s, kind, eps);
    let sets = kind.sets(&x.shape).expect("samples fit");
    let c = x.shape.channels();
    let mut sets_of = vec![0; x.data.len()];
    let mut flat = 0;
    sample::fill(x.shape.clone(), |i| {
        let (o, g) = set_of(kind, i, c);
        sets_of[flat] = o * sets.groups + g;
        flat += 1;
        0.0
    });
    let n = sets.size() as f64;
    let data = (0..x.data.len())
        .map(|j| {
            let rstd = 1.0 / (s.data[sets.count() + sets_of[j]] + eps).sqrt();
            (0..x.data.len())
                .filter(|&i| sets_of[i] == sets_of[j])
                .map(|i| {
                    let jacobian = f64::from(u8::from(i == j)) - 1.0 / n - xhat.data[i] * xhat.data[j] / n;
                    dy.data[i] * gamma.data[i % c] * rstd * jacobian
                })
                .sum()
        })
        .collect();
    sample::array(x.shape.clone(), data)
}
