//! Convolution layers: what PyTorch's `Conv1d` to `Conv3d` and `ConvTranspose1d` to `ConvTranspose3d` are given.

use super::params::{Ctx, Layout};
use crate::graph::Var;
use crate::ops::conv::ConvSpec;
use crate::ops::pad_mode::PadMode;
use std::fmt::Display;

/// One number for every spatial axis, or one number each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerAxis {
    /// The same along every axis.
    All(usize),
    /// Axis by axis, in the image's order.
    Each(Vec<usize>),
}

impl PerAxis {
    fn of(&self, dims: usize) -> Vec<usize> {
        match self {
            PerAxis::All(n) => vec![*n; dims],
            PerAxis::Each(list) => list.clone(),
        }
    }
}

impl From<usize> for PerAxis {
    fn from(n: usize) -> Self {
        PerAxis::All(n)
    }
}

impl From<&[usize]> for PerAxis {
    fn from(list: &[usize]) -> Self {
        PerAxis::Each(list.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for PerAxis {
    fn from(list: [usize; N]) -> Self {
        PerAxis::Each(list.to_vec())
    }
}

/// A convolution to `out` channels. The defaults are PyTorch's: stride 1, no padding, one group, a bias.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvLayer {
    out: usize,
    kernel: PerAxis,
    stride: PerAxis,
    padding: PerAxis,
    mode: PadMode,
    dilation: PerAxis,
    groups: usize,
    bias: bool,
    spectral: bool,
    /// A transposed convolution's output padding; `None` for a plain one.
    transposed: Option<PerAxis>,
}

impl ConvLayer {
    /// With a kernel of the given extents.
    pub fn new(out: usize, kernel: impl Into<PerAxis>) -> Self {
        ConvLayer {
            out,
            kernel: kernel.into(),
            stride: 1.into(),
            padding: 0.into(),
            mode: PadMode::Zero,
            dilation: 1.into(),
            groups: 1,
            bias: true,
            spectral: false,
            transposed: None,
        }
    }

    /// A transposed convolution.
    pub fn transposed(out: usize, kernel: impl Into<PerAxis>) -> Self {
        ConvLayer { transposed: Some(0.into()), ..Self::new(out, kernel) }
    }

    /// With an odd `kernel` and the padding that keeps the image's extents.
    pub fn same(out: usize, kernel: usize) -> Self {
        Self::new(out, kernel).padding(kernel / 2)
    }

    /// Steps between outputs (of a transposed convolution: between inputs).
    pub fn stride(self, stride: impl Into<PerAxis>) -> Self {
        ConvLayer { stride: stride.into(), ..self }
    }

    /// Elements before and behind the image.
    pub fn padding(self, padding: impl Into<PerAxis>) -> Self {
        ConvLayer { padding: padding.into(), ..self }
    }

    /// What is padded with; zeros where not said. A transposed convolution knows zeros only, as in PyTorch.
    pub fn padding_mode(self, mode: PadMode) -> Self {
        ConvLayer { mode, ..self }
    }

    /// Steps between the kernel's taps.
    pub fn dilation(self, dilation: impl Into<PerAxis>) -> Self {
        ConvLayer { dilation: dilation.into(), ..self }
    }

    /// Groups of channels that do not see each other; as many as channels for a depthwise convolution.
    pub fn groups(self, groups: usize) -> Self {
        ConvLayer { groups, ..self }
    }

    /// Whether a bias is added.
    pub fn bias(self, bias: bool) -> Self {
        ConvLayer { bias, ..self }
    }

    /// With its weight divided by the largest singular value (Miyato et al., ICLR 2018); not for transposed convolutions.
    pub fn spectral(self) -> Self {
        ConvLayer { spectral: true, ..self }
    }

    /// Elements by which a transposed convolution's output is larger behind than the least that leads to its input.
    pub fn output_padding(self, amount: impl Into<PerAxis>) -> Self {
        ConvLayer { transposed: Some(amount.into()), ..self }
    }
}

impl Ctx {
    /// A convolution of `x [n, spatial.., c]`; tensors `<key>.weight` and `<key>.bias`.
    #[track_caller]
    pub fn conv(&self, key: impl Display, x: &Var, layer: ConvLayer) -> Var {
        self.layer(key, |cx| {
            let dims = x.rank().saturating_sub(2);
            let kernel = layer.kernel.of(dims);
            let taps: usize = kernel.iter().product();
            let groups = layer.groups.max(1);
            // Of a transposed convolution PyTorch takes the fan in from its weight's second axis, too.
            let (first, last) = match layer.transposed {
                None => (layer.out, x.channels() / groups),
                Some(_) => (x.channels(), layer.out / groups),
            };
            let fan_in = last * taps;
            let shape = [&[first], &kernel[..], &[last]].concat();
            let (layout, init) = (Layout::ChannelsSecond, cx.scheme().weight(fan_in));
            let w = match layer.spectral {
                true => cx.spectral_weight(&shape, layout, init),
                false => cx.param("weight", &shape, layout, init),
            };
            let padding = layer.padding.of(dims);
            let mut spec = ConvSpec {
                stride: layer.stride.of(dims),
                padding: padding.clone(),
                dilation: layer.dilation.of(dims),
                groups,
            };
            let y = match &layer.transposed {
                Some(output_padding) => x.conv_transpose(&w, &spec, &output_padding.of(dims)),
                None if layer.mode == PadMode::Zero => x.conv(&w, &spec),
                None => {
                    spec.padding = vec![0; dims];
                    let both: Vec<(usize, usize)> = padding.iter().map(|&p| (p, p)).collect();
                    x.pad_spatial(&both, layer.mode).conv(&w, &spec)
                }
            };
            if layer.bias { cx.add_bias(y, layer.out, fan_in) } else { y }
        })
    }
}
