//! A recipe's schedule, spread over the recipe's epochs.

use crate::nn::schedule::{self, Plateau};
use crate::recipe::{Schedule, Train};

impl Schedule {
    /// The schedule as a function of the epoch. `maximise`: whether a larger validation score is better.
    pub fn over(&self, train: &Train, maximise: bool) -> schedule::Schedule {
        let total = (train.epochs + train.decay_epochs) as f64;
        match *self {
            Schedule::Constant => schedule::Schedule::Constant,
            Schedule::Linear => {
                schedule::Schedule::Linear { keep: train.epochs as f64, decay: train.decay_epochs as f64 }
            }
            Schedule::Step { every, gamma } => schedule::Schedule::Step { every: every.max(1) as f64, gamma },
            Schedule::Cosine => schedule::Schedule::Cosine { total, floor: 0.0 },
            Schedule::Poly { power } => schedule::Schedule::Poly { total, power },
            Schedule::Plateau { factor, patience } => {
                schedule::Schedule::Plateau(Plateau { factor, patience, maximise, ..Default::default() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::schedule::PlateauState;

    #[test]
    fn schedules_end_where_the_epochs_end() {
        let train = Train { epochs: 100, decay_epochs: 100, ..Default::default() };
        let at = |s: Schedule, e: f64| s.over(&train, true).factor(e, &PlateauState::default());
        // junyanz: 1 - max(0, e + 1 - 100) / 101
        assert_eq!((at(Schedule::Linear, 0.0), at(Schedule::Linear, 99.0)), (1.0, 1.0));
        assert!((at(Schedule::Linear, 199.0) - 1.0 / 101.0).abs() < 1e-12);
        assert!(at(Schedule::Cosine, 200.0) < 1e-12 && at(Schedule::Poly { power: 0.9 }, 200.0) < 1e-12);
        assert_eq!(at(Schedule::Step { every: 50, gamma: 0.1 }, 120.0), 0.1f64.powi(2));
    }
}
