//! Dense blocks: every layer sees all before it.

use crate::graph::Var;
use crate::nn::{ConvLayer, Ctx, Norm};
use crate::ops::concat::concat;

impl Ctx {
    /// DenseNet's block (Huang et al., CVPR 2017): `layers` layers that add `growth` channels each, with norm and ReLU before a 1x1
    /// convolution to `inner` times as many and before a 3x3 convolution. Keys `denselayer{i}.{norm1, conv1, norm2, conv2}`.
    #[track_caller]
    pub fn dense_block(
        &self,
        x: &Var,
        layers: usize,
        growth: usize,
        inner: usize,
        norm: Norm,
        dropout: f64,
    ) -> Var {
        let bias = norm.wants_bias();
        (1..=layers).fold(x.clone(), |seen, i| {
            let cx = self.at(format!("denselayer{i}"));
            let h = cx.norm("norm1", &seen, norm).relu();
            let h = cx.conv("conv1", &h, ConvLayer::new(inner * growth, 1).bias(bias));
            let h = cx.norm("norm2", &h, norm).relu();
            let h = cx.dropout(&cx.conv("conv2", &h, ConvLayer::same(growth, 3).bias(bias)), dropout);
            concat(&[&seen, &h], x.rank().saturating_sub(1))
        })
    }

    /// ESRGAN's residual in residual dense block (Wang et al., ECCV Workshops 2018): three dense blocks of five convolutions
    /// without norms, each added with the factor 0.2, and their result again. Keys `rdb{1..3}.conv{1..5}`.
    #[track_caller]
    pub fn rrdb(&self, x: &Var, growth: usize) -> Var {
        let h = (1..=3).fold(x.clone(), |h, i| self.at(format!("rdb{i}")).residual_dense(&h, growth));
        x.add(&h.mul_scalar(0.2))
    }

    fn residual_dense(&self, x: &Var, growth: usize) -> Var {
        let mut seen = x.clone();
        for i in 1..=4 {
            let h = self.conv(format!("conv{i}"), &seen, ConvLayer::same(growth, 3)).leaky_relu(0.2);
            seen = concat(&[&seen, &h], x.rank().saturating_sub(1));
        }
        x.add(&self.conv("conv5", &seen, ConvLayer::same(x.channels(), 3)).mul_scalar(0.2))
    }
}
