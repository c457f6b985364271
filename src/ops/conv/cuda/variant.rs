//! The ways to launch a convolution's kernels, by name: what a device's table of measured choices is written in.

use super::product::{Math, Pass, Tiles, geometry_argument, tiled};
use crate::ops::conv::geometry::ConvGeometry;
use std::fmt;
use std::str::FromStr;

/// What a variant is chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// The sizes.
    pub geometry: ConvGeometry,
    /// Which of the three products.
    pub pass: Pass,
    /// Its arithmetic.
    pub math: Math,
}

/// A way to launch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// On which kernels.
    pub kernels: Kernels,
    /// Rows of a block's tile; on the kernels for depthwise convolutions, pixels of a thread.
    pub bm: usize,
    /// Columns of a block's tile; there, channels of a thread.
    pub bn: usize,
    /// Slices of the sum.
    pub slices: usize,
}

/// Kernels that compute the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// `conv.cu` and `conv_grad_w.cu`: any convolution on any device.
    General,
    /// `conv_hopper.cu` and `conv_hopper_grad_w.cu`.
    Hopper,
    /// `conv_depthwise.cu` and `conv_depthwise_grad_w.cu`.
    Depthwise,
}

impl Kernels {
    /// The general ones last: they have no prefix.
    const ALL: [Kernels; 3] = [Kernels::Hopper, Kernels::Depthwise, Kernels::General];

    /// What a variant's name begins with.
    fn prefix(self) -> &'static str {
        match self {
            Kernels::General => "",
            Kernels::Hopper => "hopper ",
            Kernels::Depthwise => "depthwise ",
        }
    }
}

const PASSES: [(&str, Pass); 3] =
    [("forward", Pass::Forward), ("grad_x", Pass::GradX), ("grad_w", Pass::GradW)];

/// `forward bf16 1,64,128,...`: pass, arithmetic, and the 22 numbers of the geometry in the order of its fields.
impl fmt::Display for ConvShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pass = PASSES.iter().find(|p| p.1 == self.pass).map_or("", |p| p.0);
        let numbers = geometry_argument(&self.geometry).map(|n| n.to_string());
        write!(f, "{pass} {} {}", self.math.name(), numbers.join(","))
    }
}

impl FromStr for ConvShape {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("{s:?} names no convolution");
        let [pass, math, numbers] = s.split(' ').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let pass = PASSES.iter().find(|p| p.0 == pass).ok_or_else(wrong)?.1;
        // Sizes that the kernels can count.
        let number = |n: &str| n.parse().ok().filter(|n| *n <= i32::MAX as usize);
        let numbers: Option<Vec<usize>> = numbers.split(',').map(number).collect();
        let numbers: [usize; 22] = numbers.ok_or_else(wrong)?.try_into().map_err(|_| wrong())?;
        let three = |i: usize| [numbers[i], numbers[i + 1], numbers[i + 2]];
        let geometry = ConvGeometry {
            n: numbers[0],
            c: numbers[1],
            k: numbers[2],
            groups: numbers[3],
            input: three(4),
            output: three(7),
            kernel: three(10),
            stride: three(13),
            padding: three(16),
            dilation: three(19),
        };
        let g = &geometry;
        let counts = [g.n, g.c, g.k, g.groups]
            .into_iter()
            .chain([g.input, g.output, g.kernel, g.stride, g.dilation].into_iter().flatten());
        let positive = counts.into_iter().all(|n| n > 0);
        if !positive || !g.c.is_multiple_of(g.groups) || !g.k.is_multiple_of(g.groups) {
            return Err(wrong());
        }
        Ok(ConvShape { geometry, pass, math: math.parse().map_err(|_| wrong())? })
    }
}

/// `128x64/8`: rows and columns of a tile, and slices; `hopper 128x256/1`: on the kernels of sm_90a; `depthwise 4x8/1`: on those
/// for depthwise convolutions.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}x{}/{}", self.kernels.prefix(), self.bm, self.bn, self.slices)
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parse = || {
            let of = |k: Kernels| Some((k, s.strip_prefix(k.prefix())?));
            let (kernels, rest) = Kernels::ALL.into_iter().find_map(of)?;
            let (tile, slices) = rest.split_once('/')?;
            let (bm, bn) = tile.split_once('x')?;
            Some(Variant {
                kernels,
                bm: bm.parse().ok()?,
                bn: bn.parse().ok()?,
                slices: slices.parse().ok()?,
            })
        };
        parse().ok_or_else(|| format!("{s:?} names no variant"))
    }
}

impl Variant {
    /// Its tiles on the general kernels.
    pub fn tiles(&self, math: Math) -> Tiles {
        tiled(self.bm, self.bn, math)
    }
}
