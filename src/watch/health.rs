//! Whether a GAN's two sides are in balance: warnings, in words that say what to do.
//!
//! The numbers come from the training step itself (`health/D_acc_real`, `health/D_acc_fake`, `grad_norm/G`, ...) and, for
//! the diversity of what is generated, from validation (`health/diversity`, `health/nearest`). A warning is given once,
//! and again only after things had become better in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Logged steps over which the balance is looked at.
const WINDOW: usize = 20;
/// A discriminator that is right this often leaves the generator little to learn from ...
const TOO_GOOD: f64 = 0.98;
/// ... until it is right less often than this.
const GOOD_AGAIN: f64 = 0.9;
/// A discriminator that is right less often than this is worse than guessing.
const TOO_BAD: f64 = 0.4;
/// A gradient is an outlier when it is so many times as long as usual.
const OUTLIER: f64 = 100.0;
/// A gradient of all parameters together that is shorter than this moves nothing.
const VANISHED: f64 = 1e-9;
/// Generated images that are less diverse than this share of the real ones' diversity have collapsed.
pub const COLLAPSED: f64 = 0.3;
/// Share of the training, and steps, before which a generator is not expected to be diverse.
const WARM_UP: (f64, u64) = (0.25, 200);

/// Remembers what was logged, and what was said.
#[derive(Default)]
pub struct Health {
    recent: BTreeMap<String, VecDeque<f64>>,
    said: BTreeSet<String>,
}

impl Health {
    /// Takes what was logged at a step; returns what there is to warn of.
    pub fn logged(&mut self, values: &[(String, f64)]) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, value) in values {
            if let Some(net) = name.strip_prefix("grad_norm/") {
                warnings.extend(self.gradient(net, *value));
            }
            if name.starts_with("grad_norm/") || name.starts_with("health/") {
                let list = self.recent.entry(name.clone()).or_default();
                list.push_back(*value);
                if list.len() > WINDOW {
                    list.pop_front();
                }
            }
        }
        let discriminators: Vec<String> = values
            .iter()
            .filter_map(|(n, _)| Some(n.strip_prefix("health/")?.strip_suffix("_acc_real")?.to_string()))
            .collect();
        warnings.extend(discriminators.iter().filter_map(|d| self.balance(d)));
        warnings
    }

    /// Takes what validation found at a step of `total`; returns what there is to warn of.
    pub fn validated(&mut self, scores: &[(String, f64)], step: u64, total: u64) -> Option<String> {
        let of = |name: &str| scores.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        let (spread, nearest) = (of("health/diversity")?, of("health/nearest")?);
        let low = spread.min(nearest) < COLLAPSED;
        let warm = step as f64 >= WARM_UP.0 * total as f64 && step >= WARM_UP.1;
        let say = self.once("collapse", low && warm, !low);
        say.then(|| {
            format!(
                "the generated images hardly differ from each other (diversity {spread:.2}, distance to the nearest {nearest:.2}; real images have 1): the generator may have collapsed; look at the pictures, bring the two sides into balance by `optimiser.lr_discriminator` (lower where the discriminator is always right, higher where it is wrong), or try `loss.gan = \"hinge\"` or a Wasserstein loss"
            )
        })
    }

    fn gradient(&mut self, net: &str, norm: f64) -> Option<String> {
        let usual = self.recent.get(&format!("grad_norm/{net}")).filter(|l| l.len() == WINDOW).map(|l| {
            let mut sorted: Vec<f64> = l.iter().copied().collect();
            sorted.sort_by(f64::total_cmp);
            sorted[WINDOW / 2]
        })?;
        if self.once(&format!("vanished {net}"), norm.max(usual) < VANISHED, norm > VANISHED) {
            return Some(format!(
                "the gradient of {net} has vanished ({norm:.1e}): it learns nothing any more; lower `optimiser.lr`, or use `loss.gan = \"lsgan\"`, whose gradient does not saturate"
            ));
        }
        let long = usual > VANISHED && norm > OUTLIER * usual;
        self.once(&format!("long {net}"), long, norm < 10.0 * usual).then(|| {
            format!(
                "the gradient of {net} is {:.0} times as long as usual ({norm:.2e} instead of {usual:.2e}): set `optimiser.clip_norm`, for example to {:.1e}, or lower `optimiser.lr`",
                norm / usual,
                10.0 * usual
            )
        })
    }

    fn balance(&mut self, net: &str) -> Option<String> {
        let mean = |which: &str| {
            let list = self.recent.get(&format!("health/{net}_acc_{which}"))?;
            (list.len() == WINDOW).then(|| list.iter().sum::<f64>() / WINDOW as f64)
        };
        let (real, fake) = (mean("real")?, mean("fake")?);
        let both = 0.5 * (real + fake);
        if self.once(&format!("too good {net}"), real.min(fake) > TOO_GOOD, both < GOOD_AGAIN) {
            return Some(format!(
                "{net} tells real from generated images nearly every time (right about {:.0} % of real and {:.0} % of generated ones): its generator gets little to learn from; lower `optimiser.lr_discriminator` or the discriminator's size, or use `loss.gan = \"lsgan\"`",
                100.0 * real,
                100.0 * fake
            ));
        }
        self.once(&format!("too bad {net}"), both < TOO_BAD, both > 0.5).then(|| {
            format!(
                "{net} is wrong more often than a coin would be (right about {:.0} % of real and {:.0} % of generated images): its generator runs away from it; raise `optimiser.lr_discriminator` or lower `optimiser.lr`",
                100.0 * real,
                100.0 * fake
            )
        })
    }

    /// Whether to speak: when it is `bad` for the first time since it was `well`.
    fn once(&mut self, what: &str, bad: bool, well: bool) -> bool {
        if well {
            self.said.remove(what);
        }
        bad && self.said.insert(what.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(real: f64, fake: f64, norm: f64) -> Vec<(String, f64)> {
        let named = [
            ("loss/G", 1.0),
            ("health/D_acc_real", real),
            ("health/D_acc_fake", fake),
            ("grad_norm/G", norm),
        ];
        named.map(|(n, v)| (n.to_string(), v)).to_vec()
    }

    fn after(health: &mut Health, rows: usize, real: f64, fake: f64, norm: f64) -> Vec<String> {
        (0..rows).flat_map(|_| health.logged(&row(real, fake, norm))).collect()
    }

    #[test]
    fn a_balanced_gan_is_left_in_peace() {
        let mut health = Health::default();
        for i in 0..200 {
            let swing = f64::from(i % 7) / 20.0;
            assert!(health.logged(&row(0.55 + swing, 0.8 - swing, 1.0 + swing)).is_empty());
        }
    }

    #[test]
    fn a_discriminator_that_always_wins_is_named_once_until_it_loses() {
        let mut health = Health::default();
        assert!(after(&mut health, WINDOW - 1, 1.0, 0.99, 1.0).is_empty());
        let said = after(&mut health, 50, 1.0, 0.99, 1.0);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("D tells real") && said[0].contains("lr_discriminator"), "{said:?}");
        assert!(after(&mut health, WINDOW, 0.7, 0.7, 1.0).is_empty());
        assert_eq!(after(&mut health, WINDOW, 1.0, 1.0, 1.0).len(), 1);
    }

    #[test]
    fn a_discriminator_that_is_worse_than_a_coin_is_named() {
        let said = after(&mut Health::default(), 50, 0.1, 0.5, 1.0);
        assert!(said.len() == 1 && said[0].contains("worse") | said[0].contains("coin"), "{said:?}");
    }

    #[test]
    fn gradients_that_explode_or_vanish_are_named() {
        let mut health = Health::default();
        assert!(after(&mut health, WINDOW, 0.6, 0.6, 2.0).is_empty());
        assert!(after(&mut health, 1, 0.6, 0.6, 150.0).is_empty());
        let said = after(&mut health, 1, 0.6, 0.6, 500.0);
        assert!(
            said.len() == 1 && said[0].contains("250 times") && said[0].contains("clip_norm"),
            "{said:?}"
        );
        let said = after(&mut health, 50, 0.6, 0.6, 1e-12);
        assert!(said.len() == 1 && said[0].contains("vanished"), "{said:?}");
    }

    #[test]
    fn a_collapse_is_named_when_training_is_under_way() {
        let mut health = Health::default();
        let seen =
            |d: f64, n: f64| vec![("health/diversity".to_string(), d), ("health/nearest".to_string(), n)];
        assert_eq!(health.validated(&seen(0.1, 0.1), 210, 2000), None);
        assert_eq!(health.validated(&seen(0.1, 0.1), 100, 200), None);
        assert_eq!(health.validated(&seen(0.9, 0.8), 1000, 2000), None);
        let said = health.validated(&seen(0.9, 0.1), 1000, 2000).expect("a warning");
        assert!(said.contains("collapsed") && said.contains("0.10"), "{said}");
        assert_eq!(health.validated(&seen(0.9, 0.1), 1200, 2000), None);
        assert_eq!(health.validated(&[], 1200, 2000), None);
    }
}
