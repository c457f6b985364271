//! A glioma: nested, perturbed ellipsoids; necrosis in an enhancing rim in oedema.

use super::mix::{CORTEX, Mix, Uptake, WHITE};
use super::shape::{Ellipsoid, P3, Waves, step, sub};
use super::tissue::Tissue;
use crate::rng::Philox;

/// One subject's tumour, in plan coordinates (mm).
pub struct Tumour {
    body: Ellipsoid,
    ragged: Waves,
    rim: f32,
    core: f32,
    push: f32,
    /// Uptake of the enhancing rim over the cortex's, 1 to 1.5.
    avidity: f32,
}

impl Tumour {
    /// Somewhere in a hemisphere, between the ventricles and the cortex.
    pub fn new(rng: &mut Philox, brain: &Ellipsoid) -> Self {
        let side = if rng.uniform() < 0.5 { -1.0 } else { 1.0 };
        let towards = [side * rng.range(0.45, 0.62), rng.range(-0.5, 0.5), rng.range(-0.05, 0.45)];
        let centre = [0, 1, 2].map(|a| brain.centre[a] + brain.semi[a] * towards[a] as f32);
        let radius = rng.range(17.0, 27.0);
        let semi = [0, 1, 2].map(|_| (radius * rng.range(0.8, 1.2)) as f32);
        Tumour {
            body: Ellipsoid::new(centre, semi),
            ragged: Waves::new(rng, 8, 14.0, 40.0),
            rim: rng.range(0.52, 0.68) as f32,
            core: rng.range(0.26, 0.46) as f32,
            push: rng.range(1.0, 5.0) as f32,
            avidity: rng.range(1.0, 1.5) as f32,
        }
    }

    /// Mass effect: the anatomy that is seen at `p` comes from nearer the centre.
    pub fn pull(&self, p: P3) -> P3 {
        let d = sub(p, self.body.centre);
        let level = self.body.level(p);
        let strength =
            self.push * level * (-0.5 * level * level).exp() / (self.body.semi[0] * level.max(0.05));
        [0, 1, 2].map(|a| p[a] - d[a] * strength)
    }

    /// Paints the three parts where there is brain (`brain` is its opacity). Oedema follows the white matter.
    pub fn paint(&self, m: &mut Mix, p: P3, edge: f32, brain: f32) {
        let level = self.body.level(p);
        if level > 1.6 || brain <= 0.0 {
            return;
        }
        let ragged = self.ragged.at(p);
        let radius = self.body.semi[0].min(self.body.semi[1]).min(self.body.semi[2]);
        let part = |size: f32, rough: f32| {
            brain * (0.5 - (level - size * (1.0 + rough * ragged)) * radius / edge).clamp(0.0, 1.0)
        };
        let grey = m.of(Tissue::Grey) + m.of(Tissue::DeepGrey);
        m.paint(Tissue::Edema, 0.7 * WHITE, part(1.0, 0.16) * (1.0 - 0.8 * step(0.2, 0.8, grey)));
        m.paint(Tissue::Enhancing, Uptake::times(1.25 * CORTEX, self.avidity / 1.25), part(self.rim, 0.1));
        m.paint(Tissue::Necrosis, 0.2 * CORTEX, part(self.core, 0.14));
    }
}
