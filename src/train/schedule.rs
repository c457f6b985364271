//! The learning rate as a function of the epoch.

use super::recipe::{Schedule, Train};

impl Schedule {
    /// The factor of the learning rate in epoch `epoch` (from 0). A plateau's factor is kept by the session.
    pub fn factor(&self, epoch: usize, train: &Train) -> f64 {
        let total = (train.epochs + train.decay_epochs).max(1) as f64;
        let share = (epoch as f64 / total).min(1.0);
        match *self {
            Schedule::Constant | Schedule::Plateau { .. } => 1.0,
            Schedule::Linear => {
                let past = (epoch + 1).saturating_sub(train.epochs) as f64;
                (1.0 - past / (train.decay_epochs + 1) as f64).max(0.0)
            }
            Schedule::Step { every, gamma } => gamma.powi((epoch / every.max(1)) as i32),
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
            Schedule::Poly { power } => (1.0 - share).powf(power),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_follow_their_formulas() {
        let train = Train { epochs: 100, decay_epochs: 100, ..Default::default() };
        let linear = |e| Schedule::Linear.factor(e, &train);
        // junyanz: 1 - max(0, e + 1 - 100) / 101
        assert_eq!((linear(0), linear(98), linear(99)), (1.0, 1.0, 1.0));
        assert!((linear(100) - 100.0 / 101.0).abs() < 1e-12 && (linear(199) - 1.0 / 101.0).abs() < 1e-12);
        assert_eq!(Schedule::Step { every: 50, gamma: 0.1 }.factor(120, &train), 0.1f64.powi(2));
        assert!((Schedule::Cosine.factor(100, &train) - 0.5).abs() < 1e-12);
        assert!((Schedule::Poly { power: 0.9 }.factor(150, &train) - 0.25f64.powf(0.9)).abs() < 1e-12);
        assert_eq!(Schedule::Constant.factor(500, &train), 1.0);
    }
}
