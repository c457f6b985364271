//! Overlap of two binary masks.
//!
//! Where a ratio is 0/0, one policy holds throughout: 1 when the masks agree everywhere, 0 otherwise. For Dice this
//! is the usual "both empty: 1, one empty: 0". No case drops out of an average.

use super::check_pair;
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// How often prediction and truth say yes and no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Both yes.
    pub true_positive: u64,
    /// Only the prediction says yes.
    pub false_positive: u64,
    /// Only the truth says yes.
    pub false_negative: u64,
    /// Both no.
    pub true_negative: u64,
}

impl Confusion {
    /// Counts over all voxels, or over those of `region`. Fails when sizes differ or the region is empty.
    pub fn between(prediction: &[bool], truth: &[bool], region: Option<&[bool]>) -> Result<Self> {
        check_pair(prediction.len(), truth.len(), region)?;
        let mut c = Confusion::default();
        for i in (0..truth.len()).filter(|&i| region.is_none_or(|r| r[i])) {
            *match (prediction[i], truth[i]) {
                (true, true) => &mut c.true_positive,
                (true, false) => &mut c.false_positive,
                (false, true) => &mut c.false_negative,
                (false, false) => &mut c.true_negative,
            } += 1;
        }
        Ok(c)
    }

    /// 2 TP / (2 TP + FP + FN).
    pub fn dice(&self) -> f64 {
        self.ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)
    }

    /// The harmonic mean of [`Self::ppv`] and [`Self::sensitivity`]: for two masks the same number as Dice.
    pub fn f1(&self) -> f64 {
        self.dice()
    }

    /// TP / (TP + FP + FN), also called intersection over union.
    pub fn jaccard(&self) -> f64 {
        self.ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)
    }

    /// TP / (TP + FN), also called recall.
    pub fn sensitivity(&self) -> f64 {
        self.ratio(self.true_positive, self.true_positive + self.false_negative)
    }

    /// TN / (TN + FP).
    pub fn specificity(&self) -> f64 {
        self.ratio(self.true_negative, self.true_negative + self.false_positive)
    }

    /// TP / (TP + FP): positive predictive value, also called precision.
    pub fn ppv(&self) -> f64 {
        self.ratio(self.true_positive, self.true_positive + self.false_positive)
    }

    /// (TP + TN) / all.
    pub fn accuracy(&self) -> f64 {
        let right = self.true_positive + self.true_negative;
        self.ratio(right, right + self.false_positive + self.false_negative)
    }

    fn ratio(&self, part: u64, whole: u64) -> f64 {
        match whole {
            0 if self.false_positive + self.false_negative == 0 => 1.0,
            0 => 0.0,
            _ => part as f64 / whole as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_computed() {
        let p = [true, true, true, false, false, false, false, true];
        let t = [true, true, false, true, false, false, false, false];
        let c = Confusion::between(&p, &t, None).unwrap();
        assert_eq!((c.true_positive, c.false_positive, c.false_negative, c.true_negative), (2, 2, 1, 3));
        assert_eq!((c.dice(), c.jaccard()), (4.0 / 7.0, 2.0 / 5.0));
        assert_eq!((c.sensitivity(), c.specificity()), (2.0 / 3.0, 3.0 / 5.0));
        assert_eq!((c.ppv(), c.accuracy()), (0.5, 5.0 / 8.0));
        let harmonic = 2.0 / (1.0 / c.ppv() + 1.0 / c.sensitivity());
        assert!((c.f1() - harmonic).abs() < 1e-15);
        let region = [true, false, true, false, false, false, false, false];
        let c = Confusion::between(&p, &t, Some(&region)).unwrap();
        assert_eq!((c.true_positive, c.false_positive, c.false_negative, c.true_negative), (1, 1, 0, 0));
    }

    #[test]
    fn empty_masks_follow_the_policy() {
        let (none, all) = ([false; 4], [true; 4]);
        let both = Confusion::between(&none, &none, None).unwrap();
        assert_eq!(
            [both.dice(), both.sensitivity(), both.specificity(), both.ppv(), both.accuracy()],
            [1.0; 5]
        );
        let invented = Confusion::between(&all, &none, None).unwrap();
        assert_eq!(
            [invented.dice(), invented.sensitivity(), invented.specificity(), invented.ppv()],
            [0.0; 4]
        );
        let missed = Confusion::between(&none, &all, None).unwrap();
        assert_eq!([missed.dice(), missed.sensitivity(), missed.specificity(), missed.ppv()], [0.0; 4]);
        let full = Confusion::between(&all, &all, None).unwrap();
        assert_eq!([full.dice(), full.specificity(), full.accuracy()], [1.0; 3]);
    }

    #[test]
    fn sizes_must_agree() {
        assert!(Confusion::between(&[true], &[true, false], None).is_err());
    }
}
