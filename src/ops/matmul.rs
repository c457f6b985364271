//! Matrix products, batched.

use crate::device::cpu::gemm::{Mat, gemm};
use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, count, int};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::conv::cuda::launch::{Epilogue, Product, operand, slices, sum_slices, tiles};
use crate::ops::sample::{self, Domain, Sample};
use crate::shape::Shape;

/// `y = op(a) op(b)` over the last two axes, where `op` transposes if asked to; all axes before them agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMul {
    /// Whether `a` is stored transposed.
    pub ta: bool,
    /// Whether `b` is stored transposed.
    pub tb: bool,
}

/// Output elements per piece of work.
const TILE: usize = 16 * 1024;

impl MatMul {
    /// m, n, k.
    fn sizes(&self, a: &Shape, b: &Shape) -> [usize; 3] {
        let r = a.rank();
        let (m, k) = if self.ta { (a[r - 1], a[r - 2]) } else { (a[r - 2], a[r - 1]) };
        [m, if self.tb { b[r - 2] } else { b[r - 1] }, k]
    }
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (a, b, r) = (inputs[0], inputs[1], inputs[0].rank());
        let fault = || format!("shapes {a} and {b} (transposed: {}, {}) do not multiply", self.ta, self.tb);
        if r < 2 || b.rank() != r || a[..r - 2] != b[..r - 2] {
            return Err(fault());
        }
        let [m, n, k] = self.sizes(a, b);
        if k != if self.tb { b[r - 1] } else { b[r - 2] } {
            return Err(fault());
        }
        Ok([&a[..r - 2], &[m, n]].concat().into())
    }

    fn grad(&self, args: &GradArgs) -> Vec<Option<Var>> {
        let (a, b, dy) = (&args.inputs[0], &args.inputs[1], args.dy);
        vec![
            args.want(
                0,
                || if self.ta { b.matmul(dy, self.tb, true) } else { dy.matmul(b, false, !self.tb) },
            ),
            args.want(
                1,
                || if self.tb { dy.matmul(a, true, self.ta) } else { a.matmul(dy, !self.ta, false) },
            ),
        ]
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        let [_, _, k] = self.sizes(inputs[0], inputs[1]);
        2 * (output.numel() * k) as u64
    }

    fn product_flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        self.flops(inputs, output)
    }

    fn cpu(&self, io: &mut Io) {
        let [m, n, k] = self.sizes(io.in_shape(0), io.in_shape(1));
        dispatch_real!(io.dtype(), T => self.run::<T>(io.input(0), io.input(1), io.output(), m, n, k));
    }

    fn storage(&self) -> Storage {
        Storage::Product(&[0, 1])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let [m, n, k] = self.sizes(io.shape(0), io.shape(1));
        let batches = io.out().numel() / (m * n).max(1);
        let t = tiles(Product { m, n, k }, gpu.math);
        let (rows, columns) = (m.div_ceil(t.bm), n.div_ceil(t.bn));
        let slices = slices(rows * columns * batches, k.div_ceil(t.bk), gpu.multiprocessors);
        let (a_pitch, b_pitch) = (if self.ta { m } else { k }, if self.tb { k } else { n });
        let mut list = LaunchList::default();
        let [(a, a_aligned), (b, b_aligned)] = [0, 1].map(|i| operand(&mut list, io, i, gpu));
        // Copies run along the rows as they are stored; a batch is a whole number of rows.
        let vec = |pitch: usize, aligned: bool| if aligned { gpu.math.vector(&[pitch]) } else { 1 };
        let stored = |across: bool| if across { "ACROSS_K" } else { "ALONG_K" };
        let constants = [
            gpu.math.constant().to_string(),
            format!("A_STORED={}", stored(self.ta)),
            format!("B_STORED={}", stored(!self.tb)),
            format!("VEC_A={}", vec(a_pitch, a_aligned)),
            format!("VEC_B={}", vec(b_pitch, b_aligned)),
            format!("OUT={}", if slices > 1 { "float" } else { io.output.kind() }),
        ];
        let partial =
            if slices > 1 { list.workspace(4 * slices * io.out().numel()) } else { LaunchArg::Null };
        let args = vec![
            int(m),
            int(n),
            int(k),
            a,
            b,
            LaunchArg::Null,
            LaunchArg::Output,
            partial.clone(),
            int(slices),
            int(a_pitch),
            int(b_pitch),
            int(n),
            count(m * k),
            count(n * k),
            count(m * n),
        ];
        let kernel = Specialisation::new("matmul.cu", constants.into_iter().chain(t.constants()));
        list.push(Launch {
            threads: t.threads(),
            shared: t.shared(gpu.math),
            ..Launch::new(kernel, "matmul", [rows * columns * batches, slices, 1], args)
        });
        if slices > 1 {
            list.push(sum_slices(
                gpu,
                partial,
                io.out().numel(),
                slices,
                n,
                io.output.kind(),
                &Epilogue::default(),
            ));
        }
        Ok(list)
    }
}

impl MatMul {
    fn run<T: Real>(&self, a: &[T], b: &[T], out: &mut [T], m: usize, n: usize, k: usize) {
        if m * n == 0 {
            return;
        }
        let rows = (TILE / n).clamp(1, m);
        // A piece is some rows of one matrix of the batch; rows of the last piece of a matrix may be fewer, so pieces
        // are cut matrix by matrix.
        for (i, matrix) in out.chunks_mut(m * n).enumerate() {
            let (a, b) = (&a[i * m * k..(i + 1) * m * k], &b[i * k * n..(i + 1) * k * n]);
            let right = if self.tb { Mat::cols(b, k) } else { Mat::rows(b, n) };
            parallel::for_chunks(matrix, rows * n, |start, piece| {
                let first = start / n;
                let left = if self.ta { Mat::cols(&a[first..], m) } else { Mat::rows(&a[first * k..], k) };
                gemm(piece.len() / n, n, k, left, right, piece, n, false);
            });
        }
    }
}

impl Var {
    /// `op(self) op(b)` over the last two axes; `ta`, `tb` say which of the two are stored transposed.
    #[track_caller]
    pub fn matmul(&self, b: &Var, ta: bool, tb: bool) -> Var {
        self.apply(MatMul { ta, tb }, &[b])
    }

    /// `x w^T + b` with `x [.., in]`, `w [out, in]`, `b [out]`.
    #[track_caller]
    pub fn linear(&self, w: &Var, b: Option<&Var>) -> Var {
        let own = self.shape();
        let rows = own.numel() / own.channels();
        let y = self.reshape(&[rows, own.channels()]).matmul(w, false, true);
        let y = y.reshape(&own.with(own.rank().saturating_sub(1), w.shape()[0]));
        b.map_or(y.clone(), |b| y.add(b))
    }
}

/// Every combination of transpositions, plain and batched, and the linear layer.
pub fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
        for (batch, m, n, k) in
            [(vec![], 3, 4, 5), (vec![2], 4, 1, 3), (vec![2, 2], 1, 6, 2), (vec![], 37, 18, 33)]
        {
            let stored = |t: bool, r: usize, c: usize| if t { [c, r] } else { [r, c] };
            let shape = |t, r, c| [&batch[..], &stored(t, r, c)].concat();
            let (sa, sb) = (shape(ta, m, k), shape(tb, k, n));
            let out = [&batch[..], &[m, n]].concat();
            let sample = sample::op(
                "matmul",
                MatMul { ta, tb },
                &[(&sa, Domain::Normal), (&sb, Domain::Normal)],
                move |x| {
                    sample::fill(out.clone(), |index| {
                        let (lead, last) = index.split_at(index.len() - 2);
                        let at = |v: &sample::Array, t, r, c| v.at(&[lead, &stored(t, r, c)].concat());
                        (0..k).map(|i| at(&x[0], ta, last[0], i) * at(&x[1], tb, i, last[1])).sum()
                    })
                },
            );
            all.push(sample.noted(&format!("{ta} {tb}")));
        }
    }
    all.push(sample::composite(
        "linear",
        &[(&[2, 3, 5], Domain::Normal), (&[4, 5], Domain::Normal), (&[4], Domain::Normal)],
        |x| x[0].linear(&x[1], Some(&x[2])),
        |x| {
            sample::fill([2, 3, 4], |i| {
                x[2].at(&[i[2]])
                    + (0..5).map(|j| x[0].at(&[i[0], i[1], j]) * x[1].at(&[i[2], j])).sum::<f64>()
            })
        },
    ));
    all
}
