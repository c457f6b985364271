//! The learning rate over time, as factors of the rate in the recipe: pure functions of the epoch or the step. Only a
//! plateau remembers anything, in a state that goes into checkpoints.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate changes. Epochs are counted from 0 and may be fractions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Stays.
    #[default]
    Constant,
    /// Stays for `keep` epochs, then falls linearly: `1 - max(0, epoch + 1 - keep) / (decay + 1)`, which is junyanz's
    /// and reaches 1 / (decay + 1) in the last of `keep + decay` epochs.
    Linear {
        /// Epochs at the full rate.
        keep: f64,
        /// Epochs of the fall.
        decay: f64,
    },
    /// Times `gamma` every `every` epochs.
    Step {
        /// Epochs between changes.
        every: f64,
        /// Factor of a change.
        gamma: f64,
    },
    /// Half a cosine from 1 to `floor` over `total` epochs (Loshchilov and Hutter, ICLR 2017), then `floor`.
    Cosine {
        /// Epochs of the fall.
        total: f64,
        /// The last factor.
        #[serde(default)]
        floor: f64,
    },
    /// `(1 - epoch / total)^power`, as in nnU-Net, where the power is 0.9.
    Poly {
        /// Epochs until zero.
        total: f64,
        /// The exponent.
        #[serde(default = "nnunet_power")]
        power: f64,
    },
    /// Falls when validation stops getting better. The factor is kept in a [`PlateauState`].
    Plateau(Plateau),
}

fn nnunet_power() -> f64 {
    0.9
}

impl Schedule {
    /// The factor in an epoch. A plateau's is in its state.
    pub fn factor(&self, epoch: f64, plateau: &PlateauState) -> f64 {
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Linear { keep, decay } => {
                (1.0 - (epoch + 1.0 - keep).max(0.0) / (decay + 1.0)).max(0.0)
            }
            Schedule::Step { every, gamma } => gamma.powf((epoch / every).floor()),
            Schedule::Cosine { total, floor } => {
                floor + (1.0 - floor) * 0.5 * (1.0 + (PI * (epoch / total).clamp(0.0, 1.0)).cos())
            }
            Schedule::Poly { total, power } => (1.0 - epoch / total).max(0.0).powf(power),
            Schedule::Plateau(_) => plateau.factor,
        }
    }

    /// Tells a plateau what validation measured; nothing happens to other schedules.
    pub fn observe(&self, measure: f64, state: &mut PlateauState) {
        if let Schedule::Plateau(plateau) = self {
            plateau.observe(measure, state);
        }
    }
}

/// When and how far the rate falls on a plateau: PyTorch's `ReduceLROnPlateau` with a relative threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plateau {
    /// Factor of a change. (junyanz: 0.2)
    pub factor: f64,
    /// Measurements without an improvement that are let pass. (junyanz: 5)
    pub patience: u32,
    /// Share of the best by which a measurement must be better to count. (junyanz: 0.01)
    pub threshold: f64,
    /// Measurements after a change that do not count.
    pub cooldown: u32,
    /// The factor never falls below this.
    pub least: f64,
    /// Whether larger is better.
    pub maximise: bool,
}

impl Default for Plateau {
    fn default() -> Self {
        Plateau { factor: 0.1, patience: 10, threshold: 1e-4, cooldown: 0, least: 0.0, maximise: false }
    }
}

/// What a plateau remembers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateauState {
    /// The factor as of now.
    pub factor: f64,
    /// The best measurement so far.
    pub best: Option<f64>,
    /// Measurements since then that were not better.
    pub waited: u32,
    /// Measurements that do not count yet.
    pub cooling: u32,
}

impl Default for PlateauState {
    fn default() -> Self {
        PlateauState { factor: 1.0, best: None, waited: 0, cooling: 0 }
    }
}

impl Plateau {
    /// Takes note of a measurement and lowers the factor if it is time. NaN is never better.
    pub fn observe(&self, measure: f64, state: &mut PlateauState) {
        let better = match state.best {
            None => !measure.is_nan(),
            Some(best) if self.maximise => measure > best * (1.0 + self.threshold),
            Some(best) => measure < best * (1.0 - self.threshold),
        };
        if better {
            state.best = Some(measure);
            state.waited = 0;
        } else {
            state.waited += 1;
        }
        if state.cooling > 0 {
            state.cooling -= 1;
            state.waited = 0;
        }
        if state.waited > self.patience {
            state.factor = (state.factor * self.factor).max(self.least);
            state.cooling = self.cooldown;
            state.waited = 0;
        }
    }
}

/// A linear rise over the first steps (Goyal et al. 2017), multiplied with any schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Warmup {
    /// Steps until the full rate; 0 for none.
    pub steps: u64,
    /// Factor of the first step.
    pub start: f64,
}

impl Warmup {
    /// The factor in a step, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        if step >= self.steps {
            return 1.0;
        }
        self.start + (1.0 - self.start) * step as f64 / self.steps as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(schedule: Schedule, epoch: f64) -> f64 {
        schedule.factor(epoch, &PlateauState::default())
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a}, not {b}");
    }

    #[test]
    fn factors_follow_their_formulas() {
        let linear = Schedule::Linear { keep: 100.0, decay: 100.0 };
        near(at(linear, 0.0), 1.0);
        near(at(linear, 99.0), 1.0);
        near(at(linear, 100.0), 100.0 / 101.0);
        near(at(linear, 199.0), 1.0 / 101.0);
        near(at(linear, 500.0), 0.0);
        let step = Schedule::Step { every: 50.0, gamma: 0.1 };
        near(at(step, 49.0), 1.0);
        near(at(step, 50.0), 0.1);
        near(at(step, 149.5), 0.01);
        let cosine = Schedule::Cosine { total: 80.0, floor: 0.2 };
        near(at(cosine, 0.0), 1.0);
        near(at(cosine, 40.0), 0.6);
        near(at(cosine, 20.0), 0.2 + 0.4 * (1.0 + 0.5f64.sqrt()));
        near(at(cosine, 300.0), 0.2);
        let poly = Schedule::Poly { total: 1000.0, power: 0.9 };
        near(at(poly, 750.0), 0.25f64.powf(0.9));
        near(at(poly, 1001.0), 0.0);
        near(at(Schedule::Constant, 1e9), 1.0);
    }

    #[test]
    fn warm_up_rises_to_one() {
        let w = Warmup { steps: 4, start: 0.2 };
        let got: Vec<f64> = (0..6).map(|s| w.factor(s)).collect();
        got.iter().zip([0.2, 0.4, 0.6, 0.8, 1.0, 1.0]).for_each(|(a, b)| near(*a, b));
        near(Warmup::default().factor(0), 1.0);
    }

    /// The rates that PyTorch's `ReduceLROnPlateau` gives for the same measurements.
    #[test]
    fn plateaus_are_pytorchs() {
        let measures = [
            5.0, 4.0, 4.2, 4.1, 3.999, 3.9, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5,
            3.5,
        ];
        let base = Plateau { factor: 0.5, patience: 2, threshold: 0.01, ..Plateau::default() };
        // When (counted from 0) the rate falls, and to what.
        let cases: [(Plateau, &[(usize, f64)]); 3] = [
            (base, &[(4, 0.5), (8, 0.25), (11, 0.125), (15, 0.0625), (18, 0.03125)]),
            (Plateau { patience: 1, cooldown: 2, least: 0.2, ..base }, &[(3, 0.5), (7, 0.25), (11, 0.2)]),
            (
                Plateau {
                    factor: 0.1,
                    patience: 3,
                    threshold: 1e-4,
                    cooldown: 1,
                    least: 0.0,
                    maximise: true,
                },
                &[(4, 0.1), (9, 0.01), (14, 0.001), (19, 0.0001)],
            ),
        ];
        for (plateau, falls) in cases {
            let (mut state, mut want) = (PlateauState::default(), 1.0);
            for (i, m) in measures.into_iter().enumerate() {
                plateau.observe(m, &mut state);
                want = falls.iter().find(|f| f.0 == i).map_or(want, |f| f.1);
                near(state.factor, want);
            }
        }
    }

    #[test]
    fn states_and_recipes_survive_being_written() {
        let text = r#"{"kind":"plateau","patience":5,"factor":0.2}"#;
        let schedule: Schedule = serde_json::from_str(text).expect("a schedule");
        assert_eq!(schedule, Schedule::Plateau(Plateau { patience: 5, factor: 0.2, ..Plateau::default() }));
        let mut state = PlateauState::default();
        [3.0, 2.0, 2.5].into_iter().for_each(|m| schedule.observe(m, &mut state));
        let text = serde_json::to_string(&state).expect("is written");
        assert_eq!(serde_json::from_str::<PlateauState>(&text).expect("is read"), state);
        assert!(serde_json::from_str::<Schedule>(r#"{"kind":"linear","keep":1,"decays":2}"#).is_err());
        assert!(serde_json::from_str::<Schedule>(r#"{"kind":"plateau","patients":5}"#).is_err());
    }
}
