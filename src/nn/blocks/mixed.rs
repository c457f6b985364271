//! The blocks of Inception v3 (Szegedy et al., CVPR 2016), for images in two dimensions. Keys as in torchvision.

use crate::graph::Var;
use crate::nn::{Activation, ConvLayer, Ctx, Norm};
use crate::ops::concat::concat;
use crate::ops::max_pool::Window;

/// The kinds of blocks, as torchvision calls them, with what differs among those of a kind.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// At 35 x 35 pixels, with the channels behind pooling.
    A(usize),
    /// Halves them.
    B,
    /// At 17 x 17, with the channels inside the branches.
    C(usize),
    /// Halves them.
    D,
    /// At 8 x 8.
    E,
}

/// The end of a convolution's key, its channels, and its kernel.
type Layer = (&'static str, usize, [usize; 2]);

/// What all blocks have in common.
#[derive(Clone, Copy, Debug)]
pub struct Mixed {
    /// Factor of all channels.
    pub width: f64,
    /// Normalisation.
    pub norm: Norm,
}

impl Mixed {
    /// A row of convolutions that keep the extents; with `halves` the last of them has stride 2 and no padding.
    fn row(&self, cx: &Ctx, x: &Var, name: &str, halves: bool, layers: &[Layer]) -> Var {
        (1..).zip(layers).fold(x.clone(), |h, (i, &(end, channels, kernel))| {
            let last = halves && i == layers.len();
            let padding = if last { [0, 0] } else { kernel.map(|k| k / 2) };
            self.unit(&cx.at(format!("{name}{end}")), &h, channels, kernel, 1 + usize::from(last), padding)
        })
    }

    /// Convolution, norm and ReLU. Keys `conv`, `bn`.
    #[track_caller]
    pub fn unit(
        &self,
        cx: &Ctx,
        x: &Var,
        c: usize,
        kernel: [usize; 2],
        stride: usize,
        pad: [usize; 2],
    ) -> Var {
        let channels = ((c as f64 * self.width).round() as usize).max(1);
        let layer = ConvLayer::new(channels, kernel).stride(stride).padding(pad).bias(self.norm.wants_bias());
        cx.conv_norm(["conv", "bn"], x, layer, self.norm, Some(Activation::Relu))
    }

    /// A block's branches one behind the other.
    #[track_caller]
    pub fn apply(&self, cx: &Ctx, x: &Var, kind: Kind) -> Var {
        let row = |name, halves, layers: &[Layer]| self.row(cx, x, name, halves, layers);
        let means = || x.avg_pool(&Window { padding: vec![1; 2], ..Window::new(2, 3, 1) }, true);
        let behind = |c| self.row(cx, &means(), "branch_pool", false, &[("", c, [1, 1])]);
        let most = || x.max_pool(&Window::new(2, 3, 2));
        let (one, three, wide, tall) = ([1, 1], [3, 3], [1, 7], [7, 1]);
        let all = match kind {
            Kind::A(pool) => vec![
                row("branch1x1", false, &[("", 64, one)]),
                row("branch5x5_", false, &[("1", 48, one), ("2", 64, [5, 5])]),
                row("branch3x3dbl_", false, &[("1", 64, one), ("2", 96, three), ("3", 96, three)]),
                behind(pool),
            ],
            Kind::B => vec![
                row("branch3x3", true, &[("", 384, three)]),
                row("branch3x3dbl_", true, &[("1", 64, one), ("2", 96, three), ("3", 96, three)]),
                most(),
            ],
            Kind::C(c) => vec![
                row("branch1x1", false, &[("", 192, one)]),
                row("branch7x7_", false, &[("1", c, one), ("2", c, wide), ("3", 192, tall)]),
                row(
                    "branch7x7dbl_",
                    false,
                    &[("1", c, one), ("2", c, tall), ("3", c, wide), ("4", c, tall), ("5", 192, wide)],
                ),
                behind(192),
            ],
            Kind::D => vec![
                row("branch3x3_", true, &[("1", 192, one), ("2", 320, three)]),
                row(
                    "branch7x7x3_",
                    true,
                    &[("1", 192, one), ("2", 192, wide), ("3", 192, tall), ("4", 192, three)],
                ),
                most(),
            ],
            Kind::E => {
                let fork = |h: &Var, name: &str| {
                    [("a", [1, 3]), ("b", [3, 1])]
                        .map(|(end, k)| self.row(cx, h, name, false, &[(end, 384, k)]))
                };
                let [a, b] = fork(&row("branch3x3_", false, &[("1", 384, one)]), "branch3x3_2");
                let double = row("branch3x3dbl_", false, &[("1", 448, one), ("2", 384, three)]);
                let [c, d] = fork(&double, "branch3x3dbl_3");
                vec![row("branch1x1", false, &[("", 320, one)]), a, b, c, d, behind(192)]
            }
        };
        concat(&all.iter().collect::<Vec<_>>(), 3)
    }
}
