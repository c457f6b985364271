//! Class numbers as indicator vectors.

use crate::graph::Var;
use crate::ops::sample::{self, Domain, Sample};

impl Var {
    /// `[..]` of class numbers (whole, stored as floats) to `[.., classes]`: 1 at the class, 0 elsewhere. A number that
    /// is no class gives zeros only. Nothing is differentiated through it.
    #[track_caller]
    pub fn one_hot(&self, classes: usize) -> Var {
        let shape = self.shape();
        let names = self.graph().constant([classes], (0..classes).map(|c| c as f64).collect());
        self.reshape(&[&shape[..], &[1]].concat()).sub(&names).sign().abs().rsub_scalar(1.0)
    }
}

/// Labels within and beyond the classes.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], usize); 3] = [(&[7], 5), (&[2, 3, 4], 4), (&[3, 2], 1)];
    cases
        .into_iter()
        .map(|(shape, classes)| {
            let oracle = move |x: &[sample::Array]| {
                let rows = x[0]
                    .data
                    .iter()
                    .flat_map(|&v| (0..classes).map(move |c| f64::from(u8::from(v == c as f64))));
                sample::array([shape, &[classes]].concat(), rows.collect())
            };
            let inputs = [(shape, Domain::Label(classes + 1))];
            sample::composite("one_hot", &inputs, move |x| x[0].one_hot(classes), oracle)
        })
        .collect()
}
