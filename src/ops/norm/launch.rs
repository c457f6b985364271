//! Launches of `kernels/norm.cu`.

use super::{JoinStats, NormGradX, Sets};
use crate::device::launch::{
    GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, THREADS, int,
};

/// A launch list under construction, with what all the launches share.
struct Norm<'a> {
    sets: Sets,
    /// Types of x (and dx) and of y (and dy).
    kinds: [&'static str; 2],
    affine: bool,
    gpu: &'a GpuTraits,
    list: &'a mut LaunchList,
}

/// Threads side by side on neighbouring channels.
fn lanes(c: usize) -> usize {
    if c >= 32 { 32 } else { 8 }
}

/// A shape as the kernels take it.
fn shape(Sets { outer, rows, groups, c }: Sets) -> LaunchArg {
    [outer, rows, c, c / groups].map(|v| v as i32)[..].into()
}

impl<'a> Norm<'a> {
    fn new(
        list: &'a mut LaunchList,
        sets: Sets,
        kinds: [&'static str; 2],
        affine: bool,
        gpu: &'a GpuTraits,
    ) -> Self {
        Norm { sets, kinds, affine, gpu, list }
    }

    /// Slices of the inner index: enough to give every multiprocessor two blocks, of at least four turns a row each.
    fn slices(&self) -> usize {
        let blocks = self.sets.c.div_ceil(lanes(self.sets.c)) * self.sets.outer;
        let rows = THREADS / lanes(self.sets.c);
        (2 * self.gpu.multiprocessors / blocks).min(self.sets.rows / (4 * rows)).clamp(1, 128)
    }

    /// The shape as the kernels take it.
    fn shape(&self) -> LaunchArg {
        shape(self.sets)
    }

    fn push(&mut self, kernel: &'static str, grid: [usize; 3], args: Vec<LaunchArg>) {
        let lanes = format!("LANES={}", lanes(self.sets.c));
        let [x, y] = self.kinds;
        let constants = [format!("IN={x}"), format!("OUT={y}"), lanes];
        self.list.push(Launch::new(Specialisation::new("norm.cu", constants), kernel, grid, args));
    }

    /// Runs a kernel whose partial results have `bytes` each, and whose last blocks write `output`; says where the partial
    /// ones are.
    fn sums(
        &mut self,
        kernel: &'static str,
        args: Vec<LaunchArg>,
        bytes: usize,
        output: LaunchArg,
    ) -> LaunchArg {
        let Sets { outer, c, .. } = self.sets;
        let (slices, tiles) = (self.slices(), c.div_ceil(lanes(c)));
        let partial = self.list.workspace(bytes * slices * outer * c);
        let ends = [partial.clone(), output, self.list.counters(tiles * outer)];
        let args = [self.shape(), int(slices)].into_iter().chain(args).chain(ends).collect();
        self.push(kernel, [outer, tiles, slices], args);
        partial
    }

    /// Blocks for a warp for each set.
    fn warps(&self) -> [usize; 3] {
        warps(self.sets)
    }

    /// Whether a set is a single channel.
    fn single(&self) -> bool {
        self.sets.groups == self.sets.c
    }

    /// Runs a kernel that goes over all elements.
    fn apply(&mut self, kernel: &'static str, args: Vec<LaunchArg>) {
        let blocks = self.gpu.blocks(self.sets.outer * self.sets.rows * self.sets.c);
        let args = [self.shape()].into_iter().chain(args).collect();
        self.push(kernel, [blocks, 1, 1], args);
    }

    /// Input `i`, if scale and shift are given.
    fn if_affine(&self, i: usize) -> LaunchArg {
        if self.affine { LaunchArg::Input(i) } else { LaunchArg::Null }
    }
}

/// Blocks for a warp for each set.
fn warps(sets: Sets) -> [usize; 3] {
    [(32 * sets.count()).div_ceil(THREADS), 1, 1]
}

/// Bytes of the kernels' partial statistics of a channel, and of its partial sums.
const MOMENTS: usize = 12;
const PAIR: usize = 8;

const X: LaunchArg = LaunchArg::Input(0);
const STATS: LaunchArg = LaunchArg::Input(1);

/// Appends what computes the statistics of `x`, elements of the given kind, into `to`.
pub(crate) fn stats_launches(
    list: &mut LaunchList,
    sets: Sets,
    kind: &'static str,
    x: LaunchArg,
    to: LaunchArg,
    gpu: &GpuTraits,
) {
    // There is no y: any type will do, and most of the gradients' kernels are of this one.
    let mut n = Norm::new(list, sets, [kind, kind], false, gpu);
    let single = n.single();
    let partial = n.sums("norm_stats", vec![x], MOMENTS, if single { to.clone() } else { LaunchArg::Null });
    if !single {
        let args = vec![n.shape(), int(n.slices()), partial, to];
        n.push("norm_finish", n.warps(), args);
    }
}

pub(super) fn normalize(sets: Sets, io: &Operands, eps: f64, affine: bool, gpu: &GpuTraits) -> LaunchList {
    let mut list = LaunchList::default();
    let mut n = Norm::new(&mut list, sets, [io.inputs[0].kind(), io.output.kind()], affine, gpu);
    let (gamma, beta) = (n.if_affine(2), n.if_affine(3));
    n.apply("norm_apply", vec![(eps as f32).into(), X, STATS, gamma, beta, LaunchArg::Output]);
    list
}

/// Where dy begins, a slice of a tensor's channels, and how many channels that has.
fn slice(io: &Operands, first: usize) -> [LaunchArg; 2] {
    [LaunchArg::InputAt(2, first), int(io.shape(2).channels())]
}

/// The operands of a norm's gradient, wherever they are: x, its statistics, and dy, which may be a slice of the channels of a tensor
/// of `pitch` channels; `kinds` are the types of x and dy.
pub(crate) struct GradOperands {
    pub(crate) kinds: [&'static str; 2],
    pub(crate) x: LaunchArg,
    pub(crate) stats: LaunchArg,
    pub(crate) dy: LaunchArg,
    pub(crate) pitch: usize,
}

/// Appends what computes the sums that a norm's gradient is made of, into `to`.
pub(crate) fn grad_sums(
    list: &mut LaunchList,
    sets: Sets,
    operands: GradOperands,
    eps: f64,
    to: LaunchArg,
    gpu: &GpuTraits,
) {
    let GradOperands { kinds, x, stats, dy, pitch } = operands;
    let mut n = Norm::new(list, sets, kinds, false, gpu);
    n.sums("norm_grad_sums", vec![(eps as f32).into(), x, dy, int(pitch), stats], PAIR, to);
}

/// The statistics of groups from those of channels, for so many images.
pub(super) fn join(op: &JoinStats, images: usize, gpu: &GpuTraits) -> LaunchList {
    let mut list = LaunchList::default();
    let sets = Sets { outer: images, rows: 1, groups: op.groups, c: op.channels };
    let mut n = Norm::new(&mut list, sets, ["float"; 2], false, gpu);
    let args = vec![n.shape(), X, LaunchArg::Output];
    n.push("norm_join", n.warps(), args);
    list
}

pub(super) fn grad_x(op: &NormGradX, sets: Sets, io: &Operands, gpu: &GpuTraits) -> LaunchList {
    let NormGradX { eps, affine, first, shared, .. } = *op;
    let mut list = LaunchList::default();
    let mut n = Norm::new(&mut list, sets, [io.inputs[0].kind(), io.inputs[2].kind()], affine, gpu);
    let (sums, gamma, mut averages) = (LaunchArg::Input(3), n.if_affine(4), LaunchArg::Null);
    if !n.single() || shared > 1 {
        averages = n.list.workspace(8 * sets.count());
        let joint = Sets { groups: sets.groups / shared, ..sets };
        let args = vec![shape(joint), int(shared), sums.clone(), gamma.clone(), averages.clone()];
        n.push("norm_averages", warps(joint), args);
    }
    let [dy, pitch] = slice(io, first);
    let args = vec![(eps as f32).into(), X, dy, pitch, STATS, sums, averages, gamma, LaunchArg::Output];
    n.apply("norm_grad_apply", args);
    list
}
