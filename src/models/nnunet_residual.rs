//! nnU-Net's network with a residual encoder (Isensee et al., "nnU-Net Revisited", MICCAI 2024): `ResidualEncoderUNet` of
//! dynamic-network-architectures.

use super::network::{Limits, Network, Signature, Wanted};
use super::{nnunet, padded};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::stages::Stages;
use crate::nn::{Ctx, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A convolution, stages of residual blocks with instance norm and leaky ReLU, the first of each with stride 2 and mean pooling in
/// its shortcut; one convolution a level up, predictions at every resolution.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output logits `[n, spatial.., channels]`, with deep
/// supervision followed by those of lower resolutions. Keys `encoder.stem.convs.0`,
/// `encoder.stages.{s}.blocks.{b}.{conv1, conv2, skip}`, and the decoder's as in `nnunet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NnunetResidual {
    /// Channels of the stages: doubled from 32 on, up to 320 in 3D and 512 in 2D.
    pub widths: Vec<usize>,
    /// Residual blocks of the stages.
    pub blocks: Vec<usize>,
    /// Stages, from the first on, that neither see nor halve the first axis: for thick slices.
    pub flat: usize,
    /// Whether lower resolutions predict too; their logits take part in the loss.
    pub deep_supervision: bool,
}

impl Default for NnunetResidual {
    fn default() -> Self {
        let (widths, blocks) = (vec![32, 64, 128, 256, 320, 320], vec![1, 3, 4, 6, 6, 6]);
        NnunetResidual { widths, blocks, flat: 0, deep_supervision: true }
    }
}

impl NnunetResidual {
    fn stages(&self) -> Stages<'_> {
        Stages { widths: &self.widths, flat: self.flat, deep_supervision: self.deep_supervision }
    }
}

impl Network for NnunetResidual {
    fn signature(&self) -> Signature {
        Signature::Dense
    }

    fn multiple(&self) -> usize {
        self.stages().multiple()
    }

    fn mixes_batch(&self) -> bool {
        false
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        let fits = self.blocks.len() == self.widths.len() && self.blocks.iter().all(|b| (1..=64).contains(b));
        limits.require(fits, "blocks", "in number as `widths`, each between 1 and 64")?;
        nnunet::check(&self.widths, self.flat, limits)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let (cx, stages) = (&cx.with_scheme(Scheme::He), self.stages());
        stages.apart(
            wanted.channels,
            &padded(x, self.multiple(), |x| {
                let stem = stages.layer(0, x, true);
                let mut h = cx.at("encoder.stem.convs.0").stage_conv(x, stem, true);
                let mut skips = Vec::new();
                for (s, &blocks) in self.blocks.iter().enumerate() {
                    for b in 0..blocks {
                        let cx = cx.at(format!("encoder.stages.{s}.blocks.{b}"));
                        h = stages.residual(&cx, &h, s, b == 0);
                    }
                    skips.push(h.clone());
                }
                stages.decode(&cx.at("decoder"), &skips, 1, wanted.channels)
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// The reference's count for four sequences and four labels.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let (spec, y) = describe(&NnunetResidual::default(), &[1, 32, 32, 32, 4], 4);
        assert_eq!((spec.param_count(), y.len()), (102_353_972, 5));
        assert!(spec.params.iter().any(|p| p.key == "encoder.stages.1.blocks.0.skip.1.conv.weight"));
    }
}
