//! Detection at every threshold: how precision, recall and Dice depend on where a probability becomes a yes.

/// Thresholds: 0, 0.01, ..., 1. A voxel is positive when its probability is at least the threshold.
pub const THRESHOLDS: usize = 101;

/// Probabilities and truths of many voxels, counted by threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// How many true voxels have a probability from this threshold up to the next.
    positives: Vec<u64>,
    /// The same of all other voxels.
    negatives: Vec<u64>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds { positives: vec![0; THRESHOLDS], negatives: vec![0; THRESHOLDS] }
    }
}

/// What one threshold gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// True voxels found.
    pub true_positives: u64,
    /// Other voxels taken for true ones.
    pub false_positives: u64,
    /// Other voxels left alone.
    pub true_negatives: u64,
    /// True voxels missed.
    pub false_negatives: u64,
}

impl Counts {
    /// TP / (TP + FP); 1 where nothing is positive: nothing of it is wrong.
    pub fn precision(&self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_positives)
    }

    /// TP / (TP + FN); 1 where there is nothing to find.
    pub fn recall(&self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// FP / (FP + TN); 0 where there is nothing that could be taken for true.
    pub fn false_positive_rate(&self) -> f64 {
        1.0 - ratio(self.true_negatives, self.true_negatives + self.false_positives)
    }

    /// 2 TP / (2 TP + FP + FN); 1 where nothing is positive and there is nothing to find.
    pub fn dice(&self) -> f64 {
        ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

impl Thresholds {
    /// Counts a voxel.
    pub fn add(&mut self, probability: f32, truth: bool) {
        let steps = (THRESHOLDS - 1) as f64;
        // Of 0.29f32 the product is 28.99..., yet it is at least 0.29: compare with the threshold itself, as an f32.
        let guess = (f64::from(probability) * steps).round().clamp(0.0, steps);
        let bin =
            if f64::from(probability) < f64::from((guess / steps) as f32) { guess - 1.0 } else { guess };
        let list = if truth { &mut self.positives } else { &mut self.negatives };
        list[bin.max(0.0) as usize] += 1;
    }

    /// What each threshold gives.
    pub fn counts(&self) -> Vec<Counts> {
        let above = |list: &[u64]| {
            let mut sums: Vec<u64> = list.to_vec();
            for i in (0..sums.len() - 1).rev() {
                sums[i] += sums[i + 1];
            }
            sums
        };
        let (found, mistaken) = (above(&self.positives), above(&self.negatives));
        let pairs = found.iter().zip(&mistaken);
        pairs
            .map(|(&tp, &fp)| Counts {
                true_positives: tp,
                false_positives: fp,
                true_negatives: mistaken[0] - fp,
                false_negatives: found[0] - tp,
            })
            .collect()
    }

    /// Receiver operating characteristic: pairs of false-positive and true-positive rate from threshold 0 upward, and (0, 0)
    /// for one that nothing reaches.
    pub fn roc(&self) -> Vec<(f64, f64)> {
        let rates = |c: &Counts| (c.false_positive_rate(), c.recall());
        self.counts().iter().map(rates).chain([(0.0, 0.0)]).collect()
    }

    /// The area under [`Thresholds::roc`], by trapezoids; `None` where there is nothing to find, or nothing else.
    pub fn area(&self) -> Option<f64> {
        let any = |list: &[u64]| list.iter().any(|n| *n > 0);
        let trapezoid = |w: &[(f64, f64)]| (w[0].0 - w[1].0) * (w[0].1 + w[1].1) / 2.0;
        (any(&self.positives) && any(&self.negatives)).then(|| self.roc().windows(2).map(trapezoid).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_threshold_agrees_with_counting() {
        let voxel = |i: u32| ((i * 37 % 101) as f32 / 100.0, i.is_multiple_of(3));
        let mut t = Thresholds::default();
        (0..500).map(voxel).for_each(|(p, truth)| t.add(p, truth));
        for (i, c) in t.counts().iter().enumerate() {
            let threshold = (i as f64 / 100.0) as f32;
            let count = |yes: bool, truth: bool| {
                (0..500).map(voxel).filter(|(p, t)| (*p >= threshold) == yes && *t == truth).count() as u64
            };
            let wanted = Counts {
                true_positives: count(true, true),
                false_positives: count(true, false),
                true_negatives: count(false, false),
                false_negatives: count(false, true),
            };
            assert_eq!(*c, wanted, "at {threshold}");
        }
    }

    /// The area is the chance that a true voxel has a higher probability than another one, ties counted by half (Hanley and
    /// McNeil, Radiology 1982).
    #[test]
    fn the_area_is_the_chance_of_the_right_order() {
        let voxel = |i: u32| ((i * 37 % 101) as f32 / 100.0, (i * 7 % 11) < 3 + i * 37 % 101 / 20);
        let voxels: Vec<(f32, bool)> = (0..300).map(voxel).collect();
        let mut t = Thresholds::default();
        voxels.iter().for_each(|&(p, truth)| t.add(p, truth));
        let of = |wanted: bool| voxels.iter().filter(move |v| v.1 == wanted).map(|v| v.0);
        let score = |a: f32, b: f32| {
            if a > b {
                1.0
            } else if a == b {
                0.5
            } else {
                0.0
            }
        };
        let sum: f64 = of(true).map(|a| of(false).map(|b| score(a, b)).sum::<f64>()).sum();
        let wanted = sum / (of(true).count() * of(false).count()) as f64;
        let area = t.area().expect("voxels of both kinds");
        assert!((area - wanted).abs() < 1e-12 && area > 0.55, "{area} {wanted}");
        assert_eq!(Thresholds::default().area(), None);
    }

    #[test]
    fn nothing_found_is_precise_and_nothing_to_find_is_recalled() {
        let mut t = Thresholds::default();
        t.add(0.25, false);
        let counts = t.counts();
        assert_eq!((counts[0].precision(), counts[0].recall()), (0.0, 1.0));
        assert_eq!(counts[26].precision(), 1.0);
        // What is no number is no detection.
        t.add(f32::NAN, true);
        assert_eq!(t.counts()[1].false_negatives, 1);
    }
}
