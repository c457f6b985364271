//! A scale and a shift.

use crate::graph::Var;
use crate::ops::sample::{self, Domain, Sample};

impl Var {
    /// `x s + t`; each of the two broadcasts (per channel, per pixel, per image).
    #[track_caller]
    pub fn mul_add(&self, s: &Var, t: &Var) -> Var {
        self.mul(s).add(t)
    }
}

/// A scale per channel and a shift per row.
pub fn samples() -> Vec<Sample> {
    vec![sample::composite(
        "mul_add",
        &[(&[2, 4, 5, 3], Domain::Normal), (&[3], Domain::Normal), (&[5, 1], Domain::Normal)],
        |x| x[0].mul_add(&x[1], &x[2]),
        |x| sample::fill([2, 4, 5, 3], |i| x[0].at(i) * x[1].data[i[3]] + x[2].data[i[2]]),
    )]
}
