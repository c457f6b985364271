//! The residual generator of CycleGAN (Zhu et al., ICCV 2017, appendix 7.2, after Johnson et al., ECCV 2016; keys as in
//! junyanz's `ResnetGenerator`).

use super::network::{Limits, Network, Signature, Wanted};
use super::padded;
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Two convolutions down, residual blocks, two transposed convolutions up; borders are mirrored.
///
/// Input `[n, h, w, c]` of any size (it is padded to a multiple of 4 and the output cropped back), at least 8 along each
/// axis; output `[n, h, w, channels]` in (-1, 1). 3D inputs `[n, d, h, w, c]` work alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResnetGenerator {
    /// Residual blocks: 9 for 256x256 images, 6 for smaller ones.
    #[serde(default = "default_blocks")]
    pub blocks: usize,
    /// Channels of the first level; the blocks have four times as many.
    #[serde(default = "default_ngf")]
    pub ngf: usize,
    /// Normalisation.
    #[serde(default = "default_norm")]
    pub norm: Norm,
    /// Probability of dropout inside the blocks; 0 for none.
    #[serde(default)]
    pub dropout: f64,
}

fn default_blocks() -> usize {
    9
}

fn default_ngf() -> usize {
    64
}

fn default_norm() -> Norm {
    Norm::Instance
}

impl Default for ResnetGenerator {
    fn default() -> Self {
        ResnetGenerator { blocks: 9, ngf: 64, norm: Norm::Instance, dropout: 0.0 }
    }
}

impl Network for ResnetGenerator {
    fn signature(&self) -> Signature {
        Signature::Image
    }

    fn multiple(&self) -> usize {
        4
    }

    fn mixes_batch(&self) -> bool {
        self.norm == Norm::Batch
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        limits.require(self.blocks <= 64, "blocks", "at most 64; 9 suits 256 x 256")?;
        limits.width("ngf", self.ngf, 1024)?;
        limits.dropout(self.dropout)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        vec![padded(x, self.multiple(), |x| self.inside(&cx.at("model"), x, wanted.channels))]
    }
}

impl ResnetGenerator {
    fn inside(&self, cx: &Ctx, x: &Var, channels: usize) -> Var {
        let bias = self.norm.wants_bias();
        // Modules are numbered as in the reference, where padding, norm and activation count too.
        let normed = |i: usize, h: &Var| cx.norm(i, h, self.norm).relu();
        let mut h = normed(2, &cx.conv(1, &x.pad_reflect(3), ConvLayer::new(self.ngf, 7).bias(bias)));
        for (level, i) in [(1, 4), (2, 7)] {
            let down = ConvLayer::same(self.ngf << level, 3).stride(2).bias(bias);
            h = normed(i + 1, &cx.conv(i, &h, down));
        }
        for block in 0..self.blocks {
            h = self.block(&cx.at(10 + block).at("conv_block"), &h);
        }
        let up = 10 + self.blocks;
        for (level, i) in [(1, up), (0, up + 3)] {
            let layer = ConvLayer::transposed(self.ngf << level, 3).stride(2).padding(1).output_padding(1);
            h = normed(i + 1, &cx.conv(i, &h, layer.bias(bias)));
        }
        cx.conv(up + 7, &h.pad_reflect(3), ConvLayer::new(channels, 7)).tanh()
    }

    /// `x + norm(conv(relu(norm(conv(x)))))`.
    fn block(&self, cx: &Ctx, x: &Var) -> Var {
        let conv = ConvLayer::new(x.channels(), 3).bias(self.norm.wants_bias());
        let second = if self.dropout > 0.0 { 6 } else { 5 };
        let h = cx.conv(1, &x.pad_reflect(1), conv.clone());
        let h = cx.dropout(&cx.norm(2, &h, self.norm).relu(), self.dropout);
        let h = cx.conv(second, &h.pad_reflect(1), conv);
        x.add(&cx.norm(second + 1, &h, self.norm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::tests::{describe, keys};

    #[test]
    fn parameters_and_keys_are_those_of_the_reference() {
        let of = |g: ResnetGenerator| describe(&g, &[1, 16, 16, 3], 3).0;
        let nine = of(ResnetGenerator::default());
        assert_eq!(nine.param_count(), 11_378_179);
        let numbers: Vec<String> = [1, 4, 7].iter().map(|i| format!("model.{i}")).collect();
        let blocks = (10..19).flat_map(|i| [1, 5].map(|j| format!("model.{i}.conv_block.{j}")));
        let ends = [19, 22, 26].iter().map(|i| format!("model.{i}"));
        assert_eq!(keys(&nine, ".weight"), numbers.into_iter().chain(blocks).chain(ends).collect::<Vec<_>>());
        let six = of(ResnetGenerator { blocks: 6, ..Default::default() });
        assert_eq!(six.param_count(), 7_837_699);
        assert!(keys(&six, ".weight").ends_with(&["model.16".into(), "model.19".into(), "model.23".into()]));
    }

    #[test]
    fn batch_norm_takes_the_next_number_and_dropout_moves_the_second_convolution() {
        let g = ResnetGenerator { blocks: 1, norm: Norm::Batch, dropout: 0.5, ..Default::default() };
        let (spec, _) = describe(&g, &[1, 16, 16, 1], 1);
        let inner: Vec<String> =
            keys(&spec, ".weight").into_iter().filter(|k| k.contains("conv_block")).collect();
        assert_eq!(inner, [1, 2, 6, 7].map(|i| format!("model.10.conv_block.{i}")));
        assert!(
            keys(&spec, ".bias").contains(&"model.2".into())
                && !keys(&spec, ".bias").contains(&"model.1".into())
        );
    }

    #[test]
    fn any_size_comes_back() {
        let g = ResnetGenerator { blocks: 1, ngf: 2, ..Default::default() };
        for shape in [[2, 13, 10, 1], [1, 8, 9, 1]] {
            assert_eq!(describe(&g, &shape, 3).1[0][..], [shape[0], shape[1], shape[2], 3]);
        }
    }
}
