//! What happens to a finished sum before it is stored, and how operands are brought to the kernels that compute it.

use super::product::{Math, Pass, phases, product};
use crate::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, count, int};
use crate::device::pointwise::copy_as;
use crate::dtype::DType;
use crate::ops::conv::geometry::ConvGeometry;

/// Input `i` as the matrix kernels take it, and whether it is aligned: a copy, unless it is stored in their type.
pub fn operand(list: &mut LaunchList, io: &Operands, i: usize, gpu: &GpuTraits) -> (LaunchArg, bool) {
    let wanted = if gpu.math == Math::Bf16 { DType::Bf16 } else { DType::F32 };
    if io.inputs[i].dtype == wanted {
        return (LaunchArg::Input(i), io.inputs[i].aligned);
    }
    (copy_as(list, gpu, i, &io.inputs[i], wanted), true)
}

/// What happens to a finished sum before it is stored.
#[derive(Clone, Debug, Default)]
pub struct Epilogue {
    /// One number a channel, added first.
    pub bias: Option<LaunchArg>,
    /// A second tensor, which lies like the result.
    pub extra: Option<LaunchArg>,
    /// How that one is stored.
    pub extra_dtype: Option<DType>,
    /// C++ of the sum `v` and the second tensor's element `x`.
    pub activation: Option<String>,
    /// Statistics of what is stored, for a norm.
    pub stats: Option<Stats>,
}

/// Mean and variance of the channels of each of a result's sets of pixels, or the sums that a norm's gradient is made of.
#[derive(Clone, Debug)]
pub struct Stats {
    /// All pixels (1), or those of each image.
    pub sets: usize,
    /// Where they go.
    pub to: LaunchArg,
    /// Where the result is the gradient by a norm's result, that norm.
    pub normed: Option<Normed>,
}

/// A norm's input.
#[derive(Clone, Debug)]
pub struct Normed {
    /// Where it is.
    pub x: LaunchArg,
    /// How its elements are stored.
    pub kind: &'static str,
    /// Where its statistics are.
    pub stats: LaunchArg,
    /// Added to the variance.
    pub eps: f64,
    /// The first channel of the gradient that belongs to it.
    pub first: usize,
    /// Its channels.
    pub channels: usize,
}

impl Stats {
    /// The channels that they are of, of a result that has so many.
    pub(super) fn channels(&self, result: usize) -> usize {
        self.normed.as_ref().map_or(result, |n| n.channels)
    }

    /// The kernels' arguments for them: how many sets, partial ones for each of `tiles` tiles of all sets, themselves.
    pub(super) fn args(&self, list: &mut LaunchList, tiles: usize, channels: usize) -> Vec<LaunchArg> {
        let partial = list.workspace(MOMENTS * tiles * self.channels(channels));
        let mut args = vec![int(self.sets), partial, self.to.clone()];
        if let Some(n) = &self.normed {
            args.extend([n.x.clone(), n.stats.clone(), (n.eps as f32).into(), int(n.first), int(n.channels)]);
        }
        args
    }
}

/// The most tiles of one set whose statistics a last block joins.
pub(super) const MOST_TILES: usize = 1024;

/// Whether tiles of so many rows can leave statistics of `sets` sets of pixels: if none lies in two sets, and there are not too
/// many of each.
pub(super) fn tiles_suit(g: &ConvGeometry, pass: Pass, rows: usize, sets: usize) -> bool {
    let even = (0..3).all(|a| g.input[a].is_multiple_of(g.stride[a]));
    let m = product(g, pass).m;
    let alone = sets == 1 || sets == g.n && (m / g.n).is_multiple_of(rows) && (pass == Pass::Forward || even);
    alone && m.div_ceil(rows) * phases(g, pass) / sets <= MOST_TILES
}

impl Epilogue {
    /// The constants that tell the kernels; `out` is the type of what is stored.
    pub(crate) fn constants(&self, out: &str) -> Vec<String> {
        let mut all = vec![format!("OUT={out}")];
        if self.bias.is_some() {
            all.push("BIAS=1".into());
        }
        if self.extra.is_some() {
            all.push("EXTRA=1".into());
            if self.extra_dtype == Some(DType::Bf16) {
                all.push("EXTRA_TYPE=bf16".into());
            }
        }
        all.extend(self.activation.as_ref().map(|a| format!("ACTIVATION(v)={a}")));
        match &self.stats {
            Some(Stats { normed: Some(n), .. }) => {
                all.extend(["STATS=2".into(), format!("NORMED={}", n.kind)])
            }
            Some(_) => all.push("STATS=1".into()),
            None => {}
        }
        all
    }

    /// Its arguments of the kernels.
    pub(super) fn args(&self) -> [LaunchArg; 2] {
        [&self.bias, &self.extra].map(|a| a.clone().unwrap_or(LaunchArg::Null))
    }
}

/// The launch that adds `slices` partial results into the output.
pub fn sum_slices(
    gpu: &GpuTraits,
    partial: LaunchArg,
    results: usize,
    slices: usize,
    channels: usize,
    out: &str,
    epilogue: &Epilogue,
) -> Launch {
    let [bias, extra] = epilogue.args();
    let args = vec![
        partial,
        bias,
        extra,
        LaunchArg::Output,
        count(results),
        int(slices),
        int(channels),
        int(channels),
    ];
    let kernel = Specialisation::new("sum_slices.cu", epilogue.constants(out));
    Launch::new(kernel, "sum_slices", [gpu.blocks(results), 1, 1], args)
}

/// Bytes of a tile's statistics of a channel, or at most of its sums.
const MOMENTS: usize = 12;
