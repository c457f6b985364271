//! Curves over thresholds as pictures, for which TensorBoard has no tab of its own: ROC, and Dice by threshold.

use crate::error::Result;
use crate::metrics::thresholds::Thresholds;
use crate::watch::panels::Image;

/// Pixels from 0 to 1 on either axis.
const UNIT: usize = 300;
const PAPER: [u8; 3] = [255, 255, 255];
/// Lines at every quarter, and the diagonal of guessing.
const GRID: [u8; 3] = [208, 208, 208];
const CURVE: [u8; 3] = [31, 78, 160];

/// True-positive rate (up) by false-positive rate (right), from the lowest threshold (top right) to above the highest (bottom
/// left).
pub fn roc(curve: &Thresholds) -> Result<Image> {
    let mut picture = Picture::new();
    picture.line((0.0, 0.0), (1.0, 1.0), GRID);
    picture.curve(&curve.roc());
    picture.finish()
}

/// Dice (up) by threshold (right).
pub fn dice(curve: &Thresholds) -> Result<Image> {
    let counts = curve.counts();
    let last = (counts.len() - 1) as f64;
    let points: Vec<_> = counts.iter().enumerate().map(|(i, c)| (i as f64 / last, c.dice())).collect();
    let mut picture = Picture::new();
    picture.curve(&points);
    picture.finish()
}

/// A square of paper from (0, 0) at the bottom left to (1, 1).
struct Picture(Vec<[u8; 3]>);

impl Picture {
    fn new() -> Self {
        let mut own = Picture(vec![PAPER; (UNIT + 1) * (UNIT + 1)]);
        for quarter in 0..=4 {
            let at = f64::from(quarter) / 4.0;
            own.line((at, 0.0), (at, 1.0), GRID);
            own.line((0.0, at), (1.0, at), GRID);
        }
        own
    }

    fn curve(&mut self, points: &[(f64, f64)]) {
        points.windows(2).for_each(|w| self.line(w[0], w[1], CURVE));
    }

    /// A line without gaps: a pixel for every step along its longer side.
    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: [u8; 3]) {
        let unit = UNIT as f64;
        let steps = (unit * f64::max((to.0 - from.0).abs(), (to.1 - from.1).abs())).ceil().max(1.0);
        for step in 0..=steps as usize {
            let share = step as f64 / steps;
            let pixel = |a: f64, b: f64| (unit * (a + share * (b - a)).clamp(0.0, 1.0)).round() as usize;
            let (x, y) = (pixel(from.0, to.0), UNIT - pixel(from.1, to.1));
            self.0[y * (UNIT + 1) + x] = colour;
        }
    }

    fn finish(self) -> Result<Image> {
        Image::new(UNIT + 1, UNIT + 1, 3, self.0.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_mask_goes_by_the_corner_and_its_dice_is_one_up_to_its_probability() {
        let mut t = Thresholds::default();
        (0..10).for_each(|i| t.add(if i < 5 { 0.75 } else { 0.0 }, i < 5));
        let at = |image: &Image, x: usize, y: usize| {
            let pixel = 3 * (y * (UNIT + 1) + x);
            <[u8; 3]>::try_from(&image.pixels()[pixel..pixel + 3]).expect("a pixel")
        };
        let roc = roc(&t).expect("a picture");
        assert_eq!([at(&roc, 0, 0), at(&roc, 0, 150), at(&roc, 150, 0)], [CURVE; 3]);
        assert_eq!([at(&roc, 100, 200), at(&roc, 100, 190)], [GRID, PAPER], "the diagonal");
        let dice = dice(&t).expect("a picture");
        assert_eq!([at(&dice, 3, 0), at(&dice, 225, 0), at(&dice, 231, 300)], [CURVE; 3]);
        assert_eq!(at(&dice, 0, 100), CURVE, "at threshold 0 everything is positive: 2/3");
        assert_eq!(at(&dice, 40, 40), PAPER);
    }
}
