//! Discriminators at several resolutions (Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with
//! Conditional GANs", CVPR 2018, section 3.2): coarse ones see the whole, fine ones the detail.

use super::PatchGan;
use super::network::{Limits, Network, Signature, Wanted};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::Ctx;
use crate::ops::max_pool::Window;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The same [`PatchGan`], with weights of its own, on the image and on halved copies of it. The copies are means over
/// 3x3 windows, zeros beyond the border not counted. Keys: `layer{i}.` before the PatchGAN's, with the finest image at
/// the highest `i`, as in pix2pixHD (whose convolutions, unlike these, pad by 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MultiScaleGan {
    /// Number of resolutions.
    #[serde(default = "default_scales")]
    pub scales: usize,
    /// The discriminator at each resolution; in a recipe `patch = { layers = 3 }`.
    #[serde(default)]
    pub patch: PatchGan,
}

fn default_scales() -> usize {
    3
}

impl Network for MultiScaleGan {
    fn signature(&self) -> Signature {
        Signature::Patches
    }

    fn mixes_batch(&self) -> bool {
        self.patch.mixes_batch()
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require((1..=6).contains(&self.scales), "scales", "between 1 and 6")?;
        self.patch.check(&Limits { key: &format!("{}.patch", limits.key), ..limits.clone() })
    }

    /// One set of logits per resolution, the finest first.
    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, _: &Wanted) -> Vec<Var> {
        let dims = x.rank().saturating_sub(2);
        let halving = Window { padding: vec![1; dims], ..Window::new(dims, 3, 2) };
        let mut image = x.clone();
        (0..self.scales)
            .rev()
            .map(|i| {
                let logits = self.patch.modules(&cx.at(format!("layer{i}")), &image);
                if i > 0 {
                    image = image.avg_pool(&halving, false);
                }
                logits
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};
    use crate::nn::Norm;

    #[test]
    fn three_patchgans_see_three_resolutions() {
        let patch = PatchGan { layers: 3, ndf: 64, norm: Norm::Instance };
        let d = MultiScaleGan { scales: 3, patch };
        let (spec, logits) = describe(&d, &[1, 128, 128, 3], 1);
        let sizes: Vec<usize> = logits.iter().map(|l| l[1]).collect();
        assert_eq!(sizes, [14, 6, 2]);
        assert_eq!(spec.param_count(), 3 * 2_764_737);
        assert_eq!(keys(&spec, ".0.weight"), ["layer2", "layer1", "layer0"]);
    }
}
