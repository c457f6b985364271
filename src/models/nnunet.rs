//! The U-Net of nnU-Net (Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
//! Nature Methods 2021): `PlainConvUNet` of dynamic-network-architectures.

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::blocks::stages::Stages;
use crate::nn::{Ctx, Scheme};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Stages of convolutions with instance norm and leaky ReLU, the first of each with stride 2; transposed convolutions up, skips by
/// concatenation, predictions at every resolution.
///
/// Input `[n, spatial.., c]` in two or three dimensions, of any size; output logits `[n, spatial.., channels]`, with deep
/// supervision followed by those of lower resolutions. Keys `encoder.stages.{s}.0.convs.{i}.{conv, norm}`,
/// `decoder.{transpconvs.{k}, stages.{k}.convs.{i}, seg_layers.{k}}` with k from the lowest resolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Nnunet {
    /// Channels of the stages: doubled from 32 on, up to 320 in 3D and 512 in 2D.
    pub widths: Vec<usize>,
    /// Stages, from the first on, that neither see nor halve the first axis: for thick slices.
    pub flat: usize,
    /// Convolutions of a stage, on the way down and up.
    pub convs: usize,
    /// Whether lower resolutions predict too; their logits take part in the loss.
    pub deep_supervision: bool,
}

impl Default for Nnunet {
    fn default() -> Self {
        Nnunet { widths: vec![32, 64, 128, 256, 320, 320], flat: 0, convs: 2, deep_supervision: true }
    }
}

impl Nnunet {
    fn stages(&self) -> Stages<'_> {
        Stages { widths: &self.widths, flat: self.flat, deep_supervision: self.deep_supervision }
    }
}

impl Network for Nnunet {
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
        limits.require((1..=8).contains(&self.convs), "convs", "between 1 and 8")?;
        check(&self.widths, self.flat, limits)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        let (cx, stages) = (&cx.with_scheme(Scheme::He), self.stages());
        stages.apart(
            wanted.channels,
            &padded(x, self.multiple(), |x| {
                let (mut h, mut skips) = (x.clone(), Vec::new());
                for s in 0..self.widths.len() {
                    let cx = cx.at(format!("encoder.stages.{s}.0.convs"));
                    for i in 0..self.convs {
                        let layer = stages.layer(s, x, i == 0);
                        h = cx.at(i).stage_conv(&h, layer, true);
                    }
                    skips.push(h.clone());
                }
                stages.decode(&cx.at("decoder"), &skips, self.convs, wanted.channels)
            }),
        )
    }
}

/// What both of nnU-Net's networks ask of their stages.
pub(super) fn check(widths: &[usize], flat: usize, limits: &Limits) -> Result<()> {
    limits.require((2..=9).contains(&widths.len()), "widths", "in number between 2 and 9")?;
    limits.require(widths.iter().all(|w| (1..=2048).contains(w)), "widths", "between 1 and 2048 each")?;
    limits.require(flat < widths.len(), "flat", "below the number of `widths`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::describe;

    /// The reference's counts of a 3D network for four sequences, and of a 2D network of seven stages.
    #[test]
    fn parameters_are_those_of_the_reference() {
        let (spec, y) = describe(&Nnunet::default(), &[1, 32, 32, 32, 4], 4);
        assert_eq!((spec.param_count(), y.len()), (31_199_796, 5));
        assert!(y.iter().all(|y| y[..] == [1, 32, 32, 32, 4]));
        let widths = vec![32, 64, 128, 256, 512, 512, 512];
        let flat = Nnunet { widths, ..Default::default() };
        assert_eq!(describe(&flat, &[1, 64, 64, 1], 2).0.param_count(), 33_471_820);
    }
}
