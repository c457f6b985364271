//! Losses between predicted and true labels of every voxel.

use super::adversarial::bce_map;
use crate::graph::Var;
use crate::ops::sample::{Array, Domain, Sample, array, composite};
use crate::shape::Shape;

/// What [`cross_entropy`] counts and how much.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    /// A label whose voxels do not count.
    pub ignore: Option<i64>,
    /// A weight per class; all 1 if not given.
    pub weights: Option<Vec<f64>>,
    /// Share of the target that is spread evenly over all classes (Szegedy et al., CVPR 2016).
    pub smoothing: f64,
}

/// Cross entropy of logits `[.., classes]` against class numbers `[..]` (whole, stored as floats), by softmax over the
/// last axis. The mean is weighted by the weight of each voxel's true class, as PyTorch's is; if no voxel counts the
/// loss is 0.
#[track_caller]
pub fn cross_entropy(logits: &Var, labels: &Var, options: &CrossEntropy) -> Var {
    let graph = logits.graph();
    let classes = logits.channels();
    let axis = logits.rank().saturating_sub(1);
    let log_p = logits.log_softmax(axis);
    let mut target = labels.one_hot(classes);
    if let Some(c) = options.ignore.and_then(|i| usize::try_from(i).ok()).filter(|&c| c < classes) {
        let keep = (0..classes).map(|k| f64::from(u8::from(k != c))).collect();
        target = target.mul(&graph.constant([classes], keep));
    }
    let weights = options.weights.as_ref().map(|w| graph.constant([classes], w.clone()));
    let weighted = |v: &Var| weights.as_ref().map_or(v.clone(), |w| v.mul(w));
    let counted = weighted(&target);
    let total = counted.sum_all();
    // 0 / 0 where nothing counts is to be 0.
    let divisor = total.add(&total.sign().rsub_scalar(1.0));
    let mut loss = counted.mul(&log_p).sum_all().mul_scalar(options.smoothing - 1.0);
    if options.smoothing != 0.0 {
        let every = weighted(&target.sum(&[axis]).mul(&log_p)).sum_all();
        loss = loss.sub(&every.mul_scalar(options.smoothing / classes as f64));
    }
    loss.div(&divisor)
}

/// Dice loss of probabilities against targets, both `[n, spatial.., c]`: 1 minus the mean over images and channels of
/// `(2 sum(p t) + smooth) / (sum p + sum t + smooth)` (Milletari et al., 3DV 2016, without squares).
#[track_caller]
pub fn dice(p: &Var, target: &Var, smooth: f64) -> Var {
    let space: Vec<usize> = (1..p.rank().saturating_sub(1)).collect();
    let overlap = p.mul(target).sum(&space).mul_scalar(2.0).add_scalar(smooth);
    let sizes = p.sum(&space).add(&target.sum(&space)).add_scalar(smooth);
    overlap.div(&sizes).mean_all().rsub_scalar(1.0)
}

/// [`dice`] of the sigmoid of logits against masks of the same shape.
#[track_caller]
pub fn dice_sigmoid(logits: &Var, masks: &Var, smooth: f64) -> Var {
    dice(&logits.sigmoid(), masks, smooth)
}

/// [`dice`] of the softmax of logits `[n, spatial.., classes]` against class numbers `[n, spatial..]`, the background's
/// class included.
#[track_caller]
pub fn dice_softmax(logits: &Var, labels: &Var, smooth: f64) -> Var {
    dice(&logits.softmax(logits.rank().saturating_sub(1)), &labels.one_hot(logits.channels()), smooth)
}

/// Focal loss of logits against masks of zeros and ones (Lin et al., ICCV 2017): mean of `(1 - p_t)^gamma bce`, times
/// `alpha` on ones and `1 - alpha` on zeros if given.
///
/// `1 - p_t` is `e^-b`, b being the cross entropy against the opposite mask: no power of a vanishing number is taken.
#[track_caller]
pub fn focal_sigmoid(logits: &Var, masks: &Var, gamma: f64, alpha: Option<f64>) -> Var {
    let wrong = bce_map(logits, &masks.rsub_scalar(1.0), None).mul_scalar(-gamma).exp();
    let mut each = wrong.mul(&bce_map(logits, masks, None));
    if let Some(alpha) = alpha {
        each = each.mul(&masks.mul_scalar(2.0 * alpha - 1.0).add_scalar(1.0 - alpha));
    }
    each.mean_all()
}

/// Each loss in two and three dimensions, with ignored labels, weights and smoothing.
pub fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    let plain = CrossEntropy::default();
    let options = [
        plain.clone(),
        CrossEntropy { ignore: Some(3), ..plain.clone() },
        CrossEntropy { ignore: Some(0), smoothing: 0.1, ..plain.clone() },
        CrossEntropy { weights: Some(vec![0.2, 1.5, 0.7]), smoothing: 0.2, ignore: Some(3) },
    ];
    for (i, o) in options.into_iter().enumerate() {
        // Labels beyond the three classes only where they are ignored.
        let labels = if o.ignore == Some(3) { 4 } else { 3 };
        let shapes: [(&[usize], &[usize]); 2] = [(&[2, 4, 3, 3], &[2, 4, 3]), (&[7, 3], &[7])];
        for (x, t) in shapes {
            let (for_oracle, o) = (o.clone(), o.clone());
            let build = move |v: &[Var]| cross_entropy(&v[0], &v[1], &o);
            let oracle = move |v: &[Array]| scalar(naive_cross_entropy(&v[0], &v[1], &for_oracle));
            let inputs = [(x, Domain::Normal), (t, Domain::Label(labels))];
            all.push(composite("cross_entropy", &inputs, build, oracle).noted(&i.to_string()));
        }
    }
    let shapes: [&[usize]; 2] = [&[2, 3, 4, 2], &[2, 2, 3, 2, 1]];
    for shape in shapes {
        let inputs = [(shape, Domain::Normal), (shape, Domain::Binary)];
        let sigmoid = |v: f64| 0.5 + 0.5 * (v / 2.0).tanh();
        all.push(composite(
            "dice_sigmoid",
            &inputs,
            |v| dice_sigmoid(&v[0], &v[1], 1.0),
            move |v| {
                let p: Vec<f64> = v[0].data.iter().map(|&x| sigmoid(x)).collect();
                scalar(naive_dice(&v[0].shape, &p, &v[1].data, 1.0))
            },
        ));
        for alpha in [None, Some(0.25)] {
            let build = move |v: &[Var]| focal_sigmoid(&v[0], &v[1], 1.5, alpha);
            let oracle = move |v: &[Array]| {
                let each = v[0].data.iter().zip(&v[1].data).map(|(&x, &t)| {
                    let p = if t > 0.5 { sigmoid(x) } else { 1.0 - sigmoid(x) };
                    let weight = alpha.map_or(1.0, |a| if t > 0.5 { a } else { 1.0 - a });
                    -weight * (1.0 - p).powf(1.5) * p.ln()
                });
                scalar(each.sum::<f64>() / v[0].data.len() as f64)
            };
            all.push(composite("focal_sigmoid", &inputs, build, oracle).noted(&format!("{alpha:?}")));
        }
    }
    all.push(composite(
        "dice_softmax",
        &[(&[2, 3, 4, 3], Domain::Normal), (&[2, 3, 4], Domain::Label(3))],
        |v| dice_softmax(&v[0], &v[1], 1e-5),
        |v| {
            let p: Vec<f64> = v[0].data.chunks(3).flat_map(probabilities).collect();
            let t: Vec<f64> = v[1]
                .data
                .iter()
                .flat_map(|&l| (0..3).map(move |c| f64::from(u8::from(l == f64::from(c)))))
                .collect();
            scalar(naive_dice(&v[0].shape, &p, &t, 1e-5))
        },
    ));
    all
}

fn scalar(v: f64) -> Array {
    array(Shape::scalar(), vec![v])
}

fn probabilities(logits: &[f64]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|v| v.exp()).sum();
    logits.iter().map(|v| v.exp() / total).collect()
}

/// Voxel by voxel: the expectation of -ln p under the smoothed target distribution.
fn naive_cross_entropy(logits: &Array, labels: &Array, o: &CrossEntropy) -> f64 {
    let classes = logits.shape.channels();
    let weight = |c: usize| o.weights.as_ref().map_or(1.0, |w| w[c]);
    let (mut loss, mut total) = (0.0, 0.0);
    for (row, &label) in logits.data.chunks(classes).zip(&labels.data) {
        if o.ignore == Some(label as i64) {
            continue;
        }
        for (c, p) in probabilities(row).into_iter().enumerate() {
            let hit = f64::from(u8::from(c == label as usize));
            loss -= ((1.0 - o.smoothing) * hit + o.smoothing / classes as f64) * weight(c) * p.ln();
        }
        total += weight(label as usize);
    }
    loss / total
}

/// Image by image and channel by channel.
fn naive_dice(shape: &Shape, p: &[f64], t: &[f64], smooth: f64) -> f64 {
    let (n, c) = (shape[0], shape.channels());
    let pixels = p.len() / (n * c);
    let mut total = 0.0;
    for image in 0..n {
        for channel in 0..c {
            let at = |i: usize| (image * pixels + i) * c + channel;
            let (mut both, mut either) = (0.0, 0.0);
            for i in 0..pixels {
                both += p[at(i)] * t[at(i)];
                either += p[at(i)] + t[at(i)];
            }
            total += (2.0 * both + smooth) / (either + smooth);
        }
    }
    1.0 - total / (n * c) as f64
}
