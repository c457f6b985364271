//! Separable linear maps along the spatial axes: resizing (nearest, linear), average pooling, and reflecting,
//! replicating and circular padding. Each output position along an axis is a weighted sum of few input positions; so
//! is the adjoint. One operation, with its transpose, therefore serves them all, in every order of derivative.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation};
use crate::dispatch_real;
use crate::dtype::Real;
use crate::graph::{GradArgs, Op, Var};
use crate::ops::max_pool::Window;
use crate::ops::sample::{self, Array, Domain, Sample};
use crate::shape::Shape;

/// What happens along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AxisMap {
    /// Nothing.
    Keep,
    /// Nearest neighbour to `out` positions: output `o` takes `floor(o in / out)`.
    Nearest {
        /// Output extent.
        out: usize,
    },
    /// Linear interpolation to `out` positions. `corners` aligns the first and last samples; otherwise the borders of
    /// the first and last cells align (half-pixel centres), as PyTorch's `align_corners` says.
    Linear {
        /// Output extent.
        out: usize,
        /// Whether the corner samples coincide.
        corners: bool,
    },
    /// Mean over windows.
    Average {
        /// Window extent.
        kernel: usize,
        /// Steps between windows.
        stride: usize,
        /// Zeros before and behind.
        padding: usize,
        /// Whether padding counts in the divisor.
        count_padding: bool,
    },
    /// Mean over `out` bins that share the extent as evenly as whole numbers allow.
    Bins {
        /// Output extent.
        out: usize,
    },
    /// Padding by mirroring without repeating the border element.
    Reflect {
        /// Elements before.
        before: usize,
        /// Elements behind.
        behind: usize,
    },
    /// Padding by the border element.
    Replicate {
        /// Elements before.
        before: usize,
        /// Elements behind.
        behind: usize,
    },
    /// Padding from the other end.
    Circular {
        /// Elements before.
        before: usize,
        /// Elements behind.
        behind: usize,
    },
}

use AxisMap::*;

/// For every output position the inputs that it sees, with weights.
struct Table {
    starts: Vec<usize>,
    taps: Vec<(usize, f64)>,
}

impl Table {
    fn row(&self, o: usize) -> &[(usize, f64)] {
        &self.taps[self.starts[o]..self.starts[o + 1]]
    }

    fn from_rows(rows: impl Iterator<Item = Vec<(usize, f64)>>) -> Self {
        let mut table = Table { starts: vec![0], taps: Vec::new() };
        for row in rows {
            table.taps.extend(row);
            table.starts.push(table.taps.len());
        }
        table
    }

    fn transposed(&self, inputs: usize) -> Self {
        let mut rows = vec![Vec::new(); inputs];
        for o in 0..self.starts.len() - 1 {
            self.row(o).iter().for_each(|&(i, w)| rows[i].push((o, w)));
        }
        Table::from_rows(rows.into_iter())
    }
}

impl AxisMap {
    fn out(&self, n: usize) -> Result<usize, String> {
        match *self {
            Keep => Ok(n),
            Nearest { out } | Linear { out, .. } | Bins { out } if out > 0 => Ok(out),
            Nearest { .. } | Linear { .. } | Bins { .. } => Err("an extent of 0 is asked for".into()),
            Average { kernel, stride, padding, .. } => {
                Window { kernel: vec![kernel], stride: vec![stride], padding: vec![padding], ceil: false }
                    .output(0, n)
            }
            Reflect { before, behind } if before.max(behind) >= n => Err(format!(
                "reflecting {} elements needs an extent of more than that, not {n}",
                before.max(behind)
            )),
            Circular { before, behind } if before.max(behind) > n => Err(format!(
                "circular padding of {} needs an extent of at least that, not {n}",
                before.max(behind)
            )),
            Reflect { before, behind } | Replicate { before, behind } | Circular { before, behind } => {
                Ok(before + n + behind)
            }
        }
    }

    fn taps(&self, n: usize, o: usize) -> Vec<(usize, f64)> {
        let (last, at) = (n as i64 - 1, o as i64);
        match *self {
            Keep => vec![(o, 1.0)],
            Nearest { out } => vec![(o * n / out, 1.0)],
            Linear { out, corners } => {
                let p = if corners {
                    if out > 1 { o as f64 * (n - 1) as f64 / (out - 1) as f64 } else { 0.0 }
                } else {
                    ((o as f64 + 0.5) * n as f64 / out as f64 - 0.5).max(0.0)
                };
                let low = (p as usize).min(n - 1);
                let t = p - low as f64;
                if t == 0.0 || low + 1 == n { vec![(low, 1.0)] } else { vec![(low, 1.0 - t), (low + 1, t)] }
            }
            Average { kernel, stride, padding, count_padding } => {
                let from = (o * stride) as i64 - padding as i64;
                let inside = from.max(0)..(from + kernel as i64).min(n as i64);
                let divisor = if count_padding { kernel as f64 } else { (inside.end - inside.start) as f64 };
                inside.map(|i| (i as usize, 1.0 / divisor)).collect()
            }
            Bins { out } => {
                let bin = o * n / out..((o + 1) * n).div_ceil(out);
                let w = 1.0 / bin.len() as f64;
                bin.map(|i| (i, w)).collect()
            }
            Reflect { before, .. } => {
                let p = (at - before as i64).abs();
                vec![((last - (last - p).abs()) as usize, 1.0)]
            }
            Replicate { before, .. } => vec![((at - before as i64).clamp(0, last) as usize, 1.0)],
            Circular { before, .. } => vec![((at - before as i64).rem_euclid(n as i64) as usize, 1.0)],
        }
    }

    fn table(&self, n: usize, out: usize) -> Table {
        Table::from_rows((0..out).map(|o| self.taps(n, o)))
    }
}

/// Applies one map per spatial axis of `x [n, spatial.., c]`; with `adjoint`, the transposed maps, from the mapped
/// extents back to `input`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resample {
    /// One per spatial axis.
    pub maps: Vec<AxisMap>,
    /// Spatial extents before mapping.
    pub input: Vec<usize>,
    /// Whether this is the transpose.
    pub adjoint: bool,
}

impl Resample {
    fn mapped(&self) -> Result<Vec<usize>, String> {
        self.maps.iter().zip(&self.input).map(|(m, &n)| m.out(n)).collect()
    }

    /// Extents before and after, and tables, of three spatial axes: those that are missing keep their one position.
    fn three_axes(&self, x: &Shape, y: &Shape) -> ([usize; 3], [usize; 3], [Table; 3]) {
        let mapped = self.mapped().expect("checked when traced");
        let missing = 3 - self.maps.len();
        let extents = |s: &Shape| std::array::from_fn(|i| if i < missing { 1 } else { s[1 + i - missing] });
        let tables = std::array::from_fn(|i| {
            let Some(i) = i.checked_sub(missing) else { return Keep.table(1, 1) };
            let t = self.maps[i].table(self.input[i], mapped[i]);
            if self.adjoint { t.transposed(self.input[i]) } else { t }
        });
        (extents(x), extents(y), tables)
    }

    fn run<T: Real>(&self, io: &mut Io) {
        let (from, to, tables) = self.three_axes(io.in_shape(0), io.out_shape());
        let (x, out) = (io.input::<T>(0), io.output::<T>());
        let c = io.in_shape(0).channels();
        if out.is_empty() {
            return;
        }
        // One row of the innermost spatial axis at a time.
        let width = to[2] * c;
        let rows = (parallel::CHUNK / width).max(1);
        parallel::for_chunks(out, rows * width, |start, piece| {
            for (r, line) in piece.chunks_mut(width).enumerate() {
                let row = start / width + r;
                let (n, p, q) = (row / (to[1] * to[0]), row / to[1] % to[0], row % to[1]);
                line.fill(T::zero());
                for &(i, wi) in tables[0].row(p) {
                    for &(j, wj) in tables[1].row(q) {
                        let source = &x[((n * from[0] + i) * from[1] + j) * from[2] * c..][..from[2] * c];
                        for (pixel, o) in line.chunks_mut(c).enumerate() {
                            for &(k, wk) in tables[2].row(pixel) {
                                let w = T::of(wi * wj * wk);
                                o.iter_mut().zip(&source[k * c..(k + 1) * c]).for_each(|(o, &v)| *o += w * v);
                            }
                        }
                    }
                }
            }
        });
    }
}

impl Op for Resample {
    fn name(&self) -> &'static str {
        if self.adjoint { "resample_adjoint" } else { "resample" }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (x, d) = (inputs[0], self.maps.len());
        if x.rank() != d + 2 || d > 3 || self.input.len() != d {
            return Err(format!("shape {x} for {d} spatial axes"));
        }
        let mapped = self.mapped()?;
        let (from, to) = if self.adjoint { (&mapped, &self.input) } else { (&self.input, &mapped) };
        if x[1..=d] != from[..] {
            return Err(format!("shape {x} where spatial extents {from:?} are expected"));
        }
        Ok([&[x[0]], &to[..], &[x.channels()]].concat().into())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![Some(a.dy.apply(Resample { adjoint: !self.adjoint, ..self.clone() }, &[]))]
    }

    fn flops(&self, _: &[&Shape], output: &Shape) -> u64 {
        2 * output.numel() as u64
    }

    fn cpu(&self, io: &mut Io) {
        dispatch_real!(io.dtype(), T => self.run::<T>(io));
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let (from, to, tables) = self.three_axes(io.shape(0), io.out());
        let extents: Vec<i32> = [[io.out()[0], io.out().channels()].as_slice(), &from, &to]
            .concat()
            .iter()
            .map(|&v| v as i32)
            .collect();
        let mut list = LaunchList::default();
        let mut args = vec![extents[..].into(), LaunchArg::Input(0), LaunchArg::Output];
        for table in tables {
            args.push(list.ints(table.starts));
            args.push(list.ints(table.taps.iter().map(|t| t.0)));
            args.push(list.floats(table.taps.iter().map(|t| t.1)));
        }
        let kernel = Specialisation::new("resample.cu", ["IN=float", "OUT=float"]);
        list.push(Launch::new(kernel, "resample", [gpu.blocks(io.out().numel()), 1, 1], args));
        Ok(list)
    }
}

impl Var {
    /// Maps each spatial axis of `[n, spatial.., c]`.
    #[track_caller]
    pub fn resample(&self, maps: &[AxisMap]) -> Var {
        let shape = self.shape();
        let input = shape.get(1..=maps.len()).map(<[usize]>::to_vec).unwrap_or_default();
        self.apply(Resample { maps: maps.to_vec(), input, adjoint: false }, &[])
    }

    /// Nearest-neighbour resize to the given spatial extents.
    #[track_caller]
    pub fn resize_nearest(&self, size: &[usize]) -> Var {
        self.resample(&size.iter().map(|&out| Nearest { out }).collect::<Vec<_>>())
    }

    /// (Bi-, tri-)linear resize to the given spatial extents.
    #[track_caller]
    pub fn resize_linear(&self, size: &[usize], corners: bool) -> Var {
        self.resample(&size.iter().map(|&out| Linear { out, corners }).collect::<Vec<_>>())
    }

    /// Average pooling.
    #[track_caller]
    pub fn avg_pool(&self, w: &Window, count_padding: bool) -> Var {
        let map = |i: usize| Average {
            kernel: w.kernel[i],
            stride: w.stride[i],
            padding: w.padding[i],
            count_padding,
        };
        self.resample(&(0..w.kernel.len()).map(map).collect::<Vec<_>>())
    }

    /// Mean over all spatial positions: `[n, spatial.., c]` to `[n, 1.., c]`.
    #[track_caller]
    pub fn global_avg_pool(&self) -> Var {
        self.mean(&(1..self.rank().saturating_sub(1)).collect::<Vec<_>>())
    }

    /// Reflecting padding by the same amount on both ends of every spatial axis.
    #[track_caller]
    pub fn pad_reflect(&self, amount: usize) -> Var {
        let dims = self.rank().saturating_sub(2);
        self.resample(&vec![Reflect { before: amount, behind: amount }; dims])
    }
}

/// Every map in one to three dimensions, growing and shrinking, and its adjoint.
pub fn samples() -> Vec<Sample> {
    let pad = |f: fn(usize, usize) -> AxisMap| vec![f(2, 1), f(0, 1), f(1, 2)];
    let families: Vec<Vec<AxisMap>> = vec![
        vec![Nearest { out: 6 }, Nearest { out: 8 }, Nearest { out: 3 }],
        vec![
            Linear { out: 7, corners: false },
            Linear { out: 9, corners: false },
            Linear { out: 3, corners: false },
        ],
        vec![
            Linear { out: 7, corners: true },
            Linear { out: 2, corners: true },
            Linear { out: 1, corners: true },
        ],
        vec![Average { kernel: 2, stride: 2, padding: 0, count_padding: true }; 3],
        vec![Average { kernel: 3, stride: 2, padding: 1, count_padding: true }; 3],
        vec![Average { kernel: 3, stride: 1, padding: 1, count_padding: false }; 3],
        vec![Bins { out: 3 }, Bins { out: 1 }, Bins { out: 2 }],
        pad(|before, behind| Reflect { before, behind }),
        pad(|before, behind| Replicate { before, behind }),
        pad(|before, behind| Circular { before, behind }),
        vec![Keep, Reflect { before: 1, behind: 0 }, Nearest { out: 9 }],
    ];
    let input = [4, 5, 6];
    let mut all = Vec::new();
    for maps in families {
        for d in 1..=3 {
            let (maps, input) = (maps[..d].to_vec(), input[..d].to_vec());
            for adjoint in [false, true] {
                let op = Resample { maps: maps.clone(), input: input.clone(), adjoint };
                let mapped = op.mapped().expect("samples fit");
                let spatial = if adjoint { &mapped } else { &input };
                let shape = [&[2], &spatial[..], &[3]].concat();
                let (m, i) = (maps.clone(), input.clone());
                let sample = sample::op(op.name(), op.clone(), &[(&shape, Domain::Normal)], move |x| {
                    naive(&m, &i, &mapped, adjoint, &x[0])
                });
                all.push(sample.noted(&format!("{maps:?}")));
            }
        }
    }
    all
}

/// The weight of input `i` for output `o`, from the definition of each map: nothing shared with the tables.
fn weight(map: AxisMap, n: usize, i: usize, o: usize) -> f64 {
    let (nf, xi, xo) = (n as f64, i as f64, o as f64);
    let hat = |p: f64| (1.0 - (p - xi).abs()).max(0.0);
    let is = |b: bool| f64::from(u8::from(b));
    let signed = |before: usize| o as i64 - before as i64;
    match map {
        Keep => is(i == o),
        Nearest { out } => is((xo * nf / out as f64 + 1e-9).floor() == xi),
        Linear { out, corners: true } => {
            hat(if out == 1 { 0.0 } else { xo / (out as f64 - 1.0) * (nf - 1.0) })
        }
        Linear { out, corners: false } => hat(((xo + 0.5) / (out as f64 / nf) - 0.5).clamp(0.0, nf - 1.0)),
        Average { kernel, stride, padding, count_padding } => {
            let sees = |i: i64| {
                let t = i + padding as i64 - (o * stride) as i64;
                t >= 0 && t < kernel as i64
            };
            let seen = (0..n as i64).filter(|&i| sees(i)).count();
            is(sees(i as i64)) / if count_padding { kernel as f64 } else { seen as f64 }
        }
        Bins { out } => {
            let (lo, hi) = ((xo * nf / out as f64).floor(), ((xo + 1.0) * nf / out as f64).ceil());
            is(xi >= lo && xi < hi) / (hi - lo)
        }
        Reflect { before, .. } => {
            let mut p = signed(before);
            if p < 0 {
                p = -p;
            }
            if p >= n as i64 {
                p = 2 * (n as i64 - 1) - p;
            }
            is(p == i as i64)
        }
        Replicate { before, .. } => is(signed(before).max(0).min(n as i64 - 1) == i as i64),
        Circular { before, .. } => is((signed(before) + n as i64) % n as i64 == i as i64),
    }
}

fn naive(maps: &[AxisMap], input: &[usize], mapped: &[usize], adjoint: bool, x: &Array) -> Array {
    let to = if adjoint { input } else { mapped };
    sample::fill([&[x.shape[0]], to, &[x.shape.channels()]].concat(), |out| {
        let mut sum = 0.0;
        sample::fill(x.shape.to_vec(), |own| {
            let d = maps.len();
            if own[0] == out[0] && own[d + 1] == out[d + 1] {
                let w: f64 = (0..d)
                    .map(|a| {
                        let (i, o) =
                            if adjoint { (out[a + 1], own[a + 1]) } else { (own[a + 1], out[a + 1]) };
                        weight(maps[a], input[a], i, o)
                    })
                    .product();
                sum += w * x.at(own);
            }
            0.0
        });
        sum
    })
}
