//! Scores of segmented cases, mask by mask.

use super::case::CaseScores;
use super::overlap::Confusion;
use super::surface::hd95;
use crate::error::Result;

/// Extents `[depth, height, width]` of a case's masks, with the voxels' extents along the same axes in mm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Extents, the slowest axis first.
    pub dims: [usize; 3],
    /// Millimetres from voxel to voxel.
    pub spacing: [f64; 3],
}

/// Dice, sensitivity, specificity and PPV of each mask and, given the `grid`, HD95 in mm; their means over the masks
/// first, and each mask's under its name where there are several. `masks` makes prediction and truth of a mask; only
/// the voxels of `region` count. Policies for empty masks are those of [`super::overlap`] and [`super::surface`].
pub fn score(
    case: impl Into<String>,
    names: &[String],
    masks: impl Fn(usize) -> (Vec<bool>, Vec<bool>),
    region: Option<&[bool]>,
    grid: Option<Grid>,
) -> Result<CaseScores> {
    let mut each: Vec<Vec<(&str, f64)>> = Vec::new();
    for i in 0..names.len() {
        let (mut predicted, mut truth) = masks(i);
        let c = Confusion::between(&predicted, &truth, region)?;
        let mut scores = vec![
            ("dice", c.dice()),
            ("sensitivity", c.sensitivity()),
            ("specificity", c.specificity()),
            ("ppv", c.ppv()),
        ];
        if let Some(Grid { dims, spacing }) = grid {
            if let Some(region) = region {
                for mask in [&mut predicted, &mut truth] {
                    mask.iter_mut().zip(region).for_each(|(m, r)| *m &= r);
                }
            }
            scores.push(("hd95", hd95(&predicted, &truth, dims, spacing)?));
        }
        each.push(scores);
    }
    let mut all = CaseScores::new(case);
    for (i, (metric, _)) in each.first().into_iter().flatten().enumerate() {
        let mean = each.iter().map(|s| s[i].1).sum::<f64>() / each.len() as f64;
        all.set(*metric, mean);
    }
    if each.len() > 1 {
        for (name, scores) in names.iter().zip(&each) {
            for (metric, value) in scores {
                all.set(format!("{metric}_{name}"), *value);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_hides_what_lies_outside_it() {
        let names = ["a".to_string(), "b".to_string()];
        let masks = |i: usize| match i {
            0 => (vec![true, false, true, false], vec![true, false, false, false]),
            _ => (vec![false; 4], vec![false, true, false, false]),
        };
        let grid = Some(Grid { dims: [1, 1, 4], spacing: [1.0, 1.0, 2.0] });
        let all = score("x", &names, masks, None, grid).unwrap();
        assert_eq!((all.get("dice_a"), all.get("dice_b")), (Some(2.0 / 3.0), Some(0.0)));
        assert_eq!(all.get("dice"), Some(1.0 / 3.0));
        let inside = score("x", &names, masks, Some(&[true, false, false, true]), grid).unwrap();
        assert_eq!(
            (inside.get("dice_a"), inside.get("hd95_a"), inside.get("dice_b")),
            (Some(1.0), Some(0.0), Some(1.0))
        );
        let one = score("x", &names[..1], masks, None, None).unwrap();
        assert_eq!((one.get("dice"), one.get("dice_a"), one.get("hd95")), (Some(2.0 / 3.0), None, None));
    }
}
