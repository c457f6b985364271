//! Discriminators at several resolutions (Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with
//! Conditional GANs", CVPR 2018, section 3.2): coarse ones see the whole, fine ones the detail.

use super::PatchGan;
use crate::graph::Var;
use crate::nn::Ctx;
use crate::ops::max_pool::Window;
use serde::{Deserialize, Serialize};

/// The same [`PatchGan`], with weights of its own, on the image and on halved copies of it. The copies are means over
/// 3x3 windows, zeros beyond the border not counted. Keys: `layer{i}.` before the PatchGAN's, with the finest image at
/// the highest `i`, as in pix2pixHD (whose convolutions, unlike these, pad by 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiScaleGan {
    /// Number of resolutions.
    #[serde(default = "default_scales")]
    pub scales: usize,
    /// What judges each; in a recipe `patch = { layers = 3 }`.
    pub patch: PatchGan,
}

fn default_scales() -> usize {
    3
}

impl MultiScaleGan {
    /// Traces the network: `[n, h, w, c]` to logits `[n, h', w', 1]`, one set per resolution, the finest first.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var) -> Vec<Var> {
        let dims = x.rank().saturating_sub(2);
        let halving = Window { padding: vec![1; dims], ..Window::new(dims, 3, 2) };
        let mut image = x.clone();
        (0..self.scales)
            .rev()
            .map(|i| {
                let logits = self.patch.forward_as(cx, &format!("layer{i}"), &image);
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
        let spec = describe(&[1, 128, 128, 3], |cx, x| {
            let logits = d.forward(cx, x);
            let sizes: Vec<usize> = logits.iter().map(|l| l.shape()[1]).collect();
            assert_eq!(sizes, [14, 6, 2]);
            logits[0].clone()
        });
        assert_eq!(spec.param_count(), 3 * 2_764_737);
        assert_eq!(keys(&spec, ".0.weight"), ["layer2", "layer1", "layer0"]);
    }
}
