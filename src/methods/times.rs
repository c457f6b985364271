//! How often an update comes, as a function of the step alone: a resumed run needs to remember nothing.

/// In which steps, and how often in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Updates in a step that has some.
    pub times: u64,
    /// Every so-many-th step has some.
    pub every: u64,
    /// The first step that has some.
    pub from: u64,
    /// The first step from then on that has none any more.
    pub until: Option<u64>,
    /// Steps with more updates.
    pub warm: Option<Warm>,
}

/// Steps with more updates than usual: at the beginning, and now and then (Arjovsky et al., ICML 2017).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warm {
    /// As many steps at the beginning.
    pub first: u64,
    /// Every so-many-th one; 0 for none.
    pub every: u64,
    /// Updates in those.
    pub times: u64,
}

impl Default for Times {
    fn default() -> Self {
        Times { times: 1, every: 1, from: 0, until: None, warm: None }
    }
}

impl Times {
    /// Updates in step `step` (from 0).
    pub fn count(&self, step: u64) -> u64 {
        self.before(step + 1) - self.before(step)
    }

    /// Updates in all steps before.
    pub fn before(&self, step: u64) -> u64 {
        let last = self.until.map_or(step, |until| step.min(until));
        // How many steps had some.
        let steps = last.saturating_sub(self.from).div_ceil(self.every.max(1));
        let Some(warm) = self.warm else { return steps * self.times };
        let multiples = |n: u64| if warm.every > 0 { n.div_ceil(warm.every) } else { 0 };
        let first = steps.min(warm.first);
        let often = first + multiples(steps) - multiples(first);
        often * warm.times + (steps - often) * self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wasserstein_critic_is_updated_often_at_first_and_now_and_then() {
        let critic =
            Times { times: 5, warm: Some(Warm { first: 25, every: 500, times: 100 }), ..Times::default() };
        let counts: Vec<u64> = (0..1001).map(|s| critic.count(s)).collect();
        assert!(counts[..25].iter().all(|c| *c == 100));
        assert_eq!((25..1001).filter(|&s| counts[s] == 100).collect::<Vec<_>>(), [500, 1000]);
        assert!(counts.iter().all(|c| *c == 5 || *c == 100));
        let mut sum = 0;
        for (s, c) in counts.iter().enumerate() {
            assert_eq!(critic.before(s as u64), sum, "before step {s}");
            sum += c;
        }
    }

    #[test]
    fn updates_may_be_rare_and_end() {
        let rare = Times { every: 4, from: 10, until: Some(20), times: 2, ..Times::default() };
        let with: Vec<(u64, u64)> = (0..40).map(|s| (s, rare.count(s))).filter(|(_, n)| *n > 0).collect();
        assert_eq!(with, [(10, 2), (14, 2), (18, 2)]);
        assert_eq!((rare.before(10), rare.before(15), rare.before(1000)), (0, 4, 6));
    }
}
