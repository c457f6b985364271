//! Launches of `kernels/norm.cu`.

use super::Sets;
use crate::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Specialisation, THREADS, int};

/// A launch list under construction, with what all the launches share.
struct Norm<'a> {
    sets: Sets,
    affine: bool,
    gpu: &'a GpuTraits,
    list: LaunchList,
}

/// Threads side by side on neighbouring channels.
fn lanes(c: usize) -> usize {
    if c >= 32 { 32 } else { 8 }
}

impl<'a> Norm<'a> {
    fn new(sets: Sets, affine: bool, gpu: &'a GpuTraits) -> Self {
        Norm { sets, affine, gpu, list: LaunchList::default() }
    }

    /// Slices of the inner index: enough to give every multiprocessor two blocks, of at least four turns a row each.
    fn slices(&self) -> usize {
        let blocks = self.sets.c.div_ceil(lanes(self.sets.c)) * self.sets.outer;
        let rows = THREADS / lanes(self.sets.c);
        (2 * self.gpu.multiprocessors / blocks).min(self.sets.rows / (4 * rows)).clamp(1, 128)
    }

    /// The shape as the kernels take it.
    fn shape(&self) -> LaunchArg {
        let Sets { outer, rows, groups, c } = self.sets;
        [outer, rows, c, c / groups].map(|v| v as i32)[..].into()
    }

    fn push(&mut self, kernel: &'static str, grid: [usize; 3], args: Vec<LaunchArg>) {
        let lanes = format!("LANES={}", lanes(self.sets.c));
        let affine = format!("AFFINE={}", u8::from(self.affine));
        let constants = ["IN=float".into(), "OUT=float".into(), lanes, affine];
        self.list.push(Launch::new(Specialisation::new("norm.cu", constants), kernel, grid, args));
    }

    /// Runs a kernel that makes partial results, and says where they are.
    fn partial(&mut self, kernel: &'static str, args: Vec<LaunchArg>) -> LaunchArg {
        let Sets { outer, c, .. } = self.sets;
        let slices = self.slices();
        let partial = self.list.workspace(8 * slices * outer * c);
        let args = [self.shape(), int(slices)].into_iter().chain(args).chain([partial.clone()]).collect();
        self.push(kernel, [c.div_ceil(lanes(c)), outer, slices], args);
        partial
    }

    /// Runs a kernel that has a warp for each set.
    fn finish(&mut self, kernel: &'static str, args: Vec<LaunchArg>) {
        let args = [self.shape(), int(self.slices())].into_iter().chain(args).collect();
        self.push(kernel, [(32 * self.sets.count()).div_ceil(THREADS), 1, 1], args);
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

const X: LaunchArg = LaunchArg::Input(0);
const STATS: LaunchArg = LaunchArg::Input(1);
const DY: LaunchArg = LaunchArg::Input(2);

pub(super) fn stats(sets: Sets, gpu: &GpuTraits) -> LaunchList {
    let mut n = Norm::new(sets, false, gpu);
    let partial = n.partial("norm_stats", vec![X]);
    n.finish("norm_finish", vec![partial, LaunchArg::Output]);
    n.list
}

pub(super) fn normalize(sets: Sets, eps: f64, affine: bool, gpu: &GpuTraits) -> LaunchList {
    let mut n = Norm::new(sets, affine, gpu);
    let (gamma, beta) = (n.if_affine(2), n.if_affine(3));
    n.apply("norm_apply", vec![(eps as f32).into(), X, STATS, gamma, beta, LaunchArg::Output]);
    n.list
}

pub(super) fn grad_x(sets: Sets, eps: f64, affine: bool, gpu: &GpuTraits) -> LaunchList {
    let mut n = Norm::new(sets, affine, gpu);
    let eps = LaunchArg::from(eps as f32);
    let partial = n.partial("norm_grad_sums", vec![eps.clone(), X, DY, STATS]);
    let (gamma, averages) = (n.if_affine(3), n.list.workspace(8 * sets.count()));
    n.finish("norm_grad_finish", vec![partial, gamma.clone(), averages.clone()]);
    n.apply("norm_grad_apply", vec![eps, X, DY, STATS, averages, gamma, LaunchArg::Output]);
    n.list
}

pub(super) fn grad_affine(sets: Sets, eps: f64, gpu: &GpuTraits) -> LaunchList {
    let mut n = Norm::new(sets, false, gpu);
    let partial = n.partial("norm_grad_sums", vec![(eps as f32).into(), X, DY, STATS]);
    let args = vec![n.shape(), int(n.slices()), partial, LaunchArg::Output];
    n.push("norm_grad_affine", [sets.c.div_ceil(THREADS), 1, 1], args);
    n.list
}
