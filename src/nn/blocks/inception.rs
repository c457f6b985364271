//! Branches side by side.

use crate::graph::Var;
use crate::nn::{Activation, ConvLayer, Ctx, Norm};
use crate::ops::concat::concat;

/// What a branch makes of the block's input.
pub type Branch<'a> = &'a dyn Fn(&Ctx, &Var) -> Var;

impl Ctx {
    /// Inception (Szegedy et al., CVPR 2015): branches side by side, their channels one behind the other. Keys `branch{1..}`.
    #[track_caller]
    pub fn inception<const N: usize>(&self, x: &Var, branches: [Branch; N]) -> Var {
        let all: Vec<Var> = (1..).zip(branches).map(|(i, f)| f(&self.at(format!("branch{i}")), x)).collect();
        concat(&all.iter().collect::<Vec<_>>(), x.rank().saturating_sub(1))
    }

    /// Atrous spatial pyramid pooling (Chen et al., "Rethinking Atrous Convolution", 2017): a 1x1 convolution, 3x3 convolutions of
    /// the given dilations and the mean over all pixels side by side, then 1x1 to `width` channels and dropout. Keys
    /// `convs.{i}.{0,1}`, of the mean `convs.{i}.{1,2}`, and `project.{0,1}`.
    #[track_caller]
    pub fn aspp(&self, x: &Var, width: usize, dilations: &[usize], norm: Norm, dropout: f64) -> Var {
        let (dims, convs) = (x.rank().saturating_sub(2), self.at("convs"));
        let one = || ConvLayer::new(width, 1).bias(norm.wants_bias());
        let relu = Some(Activation::Relu);
        let mut all = vec![convs.at(0).conv_norm([0, 1], x, one(), norm, relu)];
        for (i, &d) in (1..).zip(dilations) {
            let layer = ConvLayer::new(width, 3).padding(d).dilation(d).bias(norm.wants_bias());
            all.push(convs.at(i).conv_norm([0, 1], x, layer, norm, relu));
        }
        let cx = convs.at(all.len());
        let mean = cx.conv_norm([1, 2], &x.global_avg_pool(), one(), norm, relu);
        all.push(mean.resize_nearest(&x.shape()[1..=dims]));
        let seen = concat(&all.iter().collect::<Vec<_>>(), dims + 1);
        self.dropout(&self.at("project").conv_norm([0, 1], &seen, one(), norm, relu), dropout)
    }
}
