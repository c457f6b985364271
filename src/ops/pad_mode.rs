//! Padding of images in every mode that convolutions use.

use crate::graph::Var;
use crate::ops::resample::AxisMap;
use crate::ops::sample::{self, Domain, Sample};
use serde::{Deserialize, Serialize};

/// What lies outside of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PadMode {
    /// Zeros.
    #[default]
    Zero,
    /// A number.
    Constant(f64),
    /// The image mirrored, the border element not repeated.
    Reflect,
    /// The border element.
    Replicate,
    /// The other end of the image.
    Circular,
}

impl Var {
    /// Pads each spatial axis of `[n, spatial.., c]` by (before, behind) elements.
    #[track_caller]
    pub fn pad_spatial(&self, amounts: &[(usize, usize)], mode: PadMode) -> Var {
        let maps = |f: fn(usize, usize) -> AxisMap| {
            self.resample(&amounts.iter().map(|&(a, b)| f(a, b)).collect::<Vec<_>>())
        };
        match mode {
            PadMode::Zero => self.pad_zero_spatial(amounts),
            PadMode::Constant(v) => {
                let inside = self.graph().full(&self.shape(), -v);
                self.pad_zero_spatial(amounts).add(&inside.pad_zero_spatial(amounts).add_scalar(v))
            }
            PadMode::Reflect => maps(|before, behind| AxisMap::Reflect { before, behind }),
            PadMode::Replicate => maps(|before, behind| AxisMap::Replicate { before, behind }),
            PadMode::Circular => maps(|before, behind| AxisMap::Circular { before, behind }),
        }
    }

    #[track_caller]
    fn pad_zero_spatial(&self, amounts: &[(usize, usize)]) -> Var {
        let own = amounts.iter().map(|&(a, b)| (a as i64, b as i64));
        self.pad_zero(&[(0, 0)].into_iter().chain(own).chain([(0, 0)]).collect::<Vec<_>>())
    }
}

/// Each mode, with amounts that differ from side to side.
pub fn samples() -> Vec<Sample> {
    let modes =
        [PadMode::Zero, PadMode::Constant(0.7), PadMode::Reflect, PadMode::Replicate, PadMode::Circular];
    modes
        .into_iter()
        .map(|mode| {
            let amounts = [(2, 1), (0, 3)];
            let build = move |x: &[Var]| x[0].pad_spatial(&amounts, mode);
            let oracle = move |x: &[sample::Array]| {
                sample::fill([2, 6, 7, 2], |i| {
                    let (h, w) = (i[1] as i64 - 2, i[2] as i64);
                    let inside = (0..3).contains(&h) && w < 4;
                    let at = |h: i64, w: i64| x[0].at(&[i[0], h as usize, w as usize, i[3]]);
                    let mirror = |p: i64, n: i64| if p < 0 { -p } else { (n - 1) - (n - 1 - p).abs() };
                    match mode {
                        PadMode::Zero if !inside => 0.0,
                        PadMode::Constant(v) if !inside => v,
                        PadMode::Zero | PadMode::Constant(_) => at(h, w),
                        PadMode::Reflect => at(mirror(h, 3), mirror(w, 4)),
                        PadMode::Replicate => at(h.clamp(0, 2), w.clamp(0, 3)),
                        PadMode::Circular => at((h + 3) % 3, w % 4),
                    }
                })
            };
            sample::composite("pad_spatial", &[(&[2, 3, 4, 2], Domain::Normal)], build, oracle)
                .noted(&format!("{mode:?}"))
        })
        .collect()
}
