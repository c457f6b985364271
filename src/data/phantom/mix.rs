//! The content of a voxel: shares of tissues, and tracer uptake.

use super::tissue::{COUNT, Tissue};

/// Uptake of cortex relative to cerebellar grey matter, before regional differences.
pub const CORTEX: f32 = 1.15;
/// Uptake of white matter: a quarter of the cortex (128:32).
pub const WHITE: f32 = CORTEX * 32.0 / 128.0;
/// Uptake of skin: an eighth of the cortex (128:16).
pub const SKIN: f32 = CORTEX * 16.0 / 128.0;

/// The content of one voxel.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Share of each tissue; the sum is 1.
    pub share: [f32; COUNT],
    /// Tracer uptake (SUVR, cerebellar grey matter 1) before blur and noise.
    pub uptake: Uptake,
}

/// Tracer uptake as it is, and as one would expect it who knows the anatomy but not what is hidden from the MR.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uptake {
    /// What the scanner measures.
    pub real: f32,
    /// The mean over what is hidden.
    pub expected: f32,
}

impl From<f32> for Uptake {
    fn from(v: f32) -> Self {
        Uptake { real: v, expected: v }
    }
}

impl Uptake {
    /// An expected uptake that differs by a hidden factor.
    pub fn times(expected: f32, hidden: f32) -> Self {
        Uptake { real: expected * hidden, expected }
    }
}

impl Mix {
    /// Air.
    pub fn air() -> Self {
        let mut share = [0.0; COUNT];
        share[Tissue::Air as usize] = 1.0;
        Mix { share, uptake: Uptake::default() }
    }

    /// Paints a tissue with opacity `alpha` over what is there.
    pub fn paint(&mut self, tissue: Tissue, uptake: impl Into<Uptake>, alpha: f32) {
        if alpha <= 0.0 {
            return;
        }
        self.share.iter_mut().for_each(|s| *s *= 1.0 - alpha);
        self.share[tissue as usize] += alpha;
        let uptake = uptake.into();
        self.uptake.real += alpha * (uptake.real - self.uptake.real);
        self.uptake.expected += alpha * (uptake.expected - self.uptake.expected);
    }

    /// Share of one tissue.
    pub fn of(&self, tissue: Tissue) -> f32 {
        self.share[tissue as usize]
    }

    /// The tissue with the largest share.
    pub fn dominant(&self) -> usize {
        (0..COUNT).fold(0, |best, t| if self.share[t] > self.share[best] { t } else { best })
    }
}
