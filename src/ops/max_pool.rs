//! Max pooling. Where values tie the first one (row-major) wins, as in PyTorch.
//!
//! The pooled position is found again from `x` wherever it is needed, so that no index tensor is stored:
//! `max_pool(x)`, its gradient `scatter(x, dy)` and that one's adjoint `gather(x, v)` close under differentiation.

use crate::device::cpu::{Io, parallel};
use crate::device::launch::{
    ALIGNED, ELEMENT, GpuTraits, Launch, LaunchArg, LaunchList, Operands, Specialisation, THREADS,
};
use crate::dispatch_real;
use crate::dtype::{DType, Real};
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::ops::sample::{self, Array, Domain, Sample};
use crate::shape::Shape;

/// The most pixels of a window whose values a thread keeps in registers.
const MOST_TAPS: usize = 9;

/// Channels that move as one: 16 bytes where they divide `c`.
fn vector(dtype: DType, c: usize) -> usize {
    let most = ALIGNED / dtype.size();
    if c.is_multiple_of(most) { most } else { 1 }
}

/// The window. One entry per spatial axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Extents.
    pub kernel: Vec<usize>,
    /// Steps between windows.
    pub stride: Vec<usize>,
    /// Positions (never picked) before and behind the input.
    pub padding: Vec<usize>,
    /// Whether a last window that sticks out is kept.
    pub ceil: bool,
}

impl Window {
    /// The same extent and stride along each of `dims` axes, no padding.
    pub fn new(dims: usize, kernel: usize, stride: usize) -> Self {
        Window { kernel: vec![kernel; dims], stride: vec![stride; dims], padding: vec![0; dims], ceil: false }
    }

    /// Number of windows along an axis of `extent`.
    pub fn output(&self, axis: usize, extent: usize) -> Result<usize, String> {
        let (k, s, p) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
        if 2 * p > k {
            return Err(format!("padding {p} is more than half of the window {k}"));
        }
        let room = (extent + 2 * p)
            .checked_sub(k)
            .ok_or(format!("a window of {k} does not fit {extent} padded by {p}"))?;
        let mut out = if self.ceil { room.div_ceil(s) } else { room / s } + 1;
        if self.ceil && (out - 1) * s >= extent + p {
            out -= 1; // a window must begin inside the input or its left padding
        }
        Ok(out)
    }

    fn pooled(&self, x: &Shape) -> Result<Shape, String> {
        let d = self.kernel.len();
        if x.rank() != d + 2 {
            return Err(format!("shape {x}; {d}D pooling expects {} axes, channels last", d + 2));
        }
        let mut y = vec![x[0]];
        for i in 0..d {
            y.push(self.output(i, x[i + 1])?);
        }
        y.push(x.channels());
        Ok(Shape::from(y))
    }

    fn sizes(&self, x: &Shape, y: &Shape) -> Sizes {
        let three = |v: &[usize], fill: usize| {
            let mut out = [fill; 3];
            out[3 - v.len()..].copy_from_slice(v);
            out
        };
        let d = self.kernel.len();
        Sizes {
            input: three(&x[1..=d], 1),
            output: three(&y[1..=d], 1),
            kernel: three(&self.kernel, 1),
            stride: three(&self.stride, 1),
            padding: three(&self.padding, 0),
            c: x.channels(),
        }
    }

    /// Whether windows tile the input, few enough pixels each for a thread's registers: then each pixel belongs to one window.
    fn tiles(&self) -> bool {
        self.kernel == self.stride
            && self.padding.iter().all(|&p| p == 0)
            && self.kernel.iter().product::<usize>() <= MOST_TAPS
    }

    /// The one launch of `kernel` of `pool_tiles.cu`, for windows that tile.
    fn tiled(
        &self,
        [x, y]: [&Shape; 2],
        io: &Operands,
        kernel: &'static str,
        args: &[LaunchArg],
    ) -> LaunchList {
        let s = self.sizes(x, y);
        let aligned = io.output.aligned && io.inputs.iter().all(|i| i.aligned);
        let width = if aligned { vector(io.output.dtype, s.c) } else { 1 };
        let groups = s.c / width;
        let walked: [usize; 3] = match kernel {
            "tile_max" => s.output,
            _ => std::array::from_fn(|a| s.input[a].div_ceil(s.kernel[a])),
        };
        let rows = x[0] * walked[0] * walked[1];
        let along = (walked[2] * groups).div_ceil(THREADS).min(u16::MAX.into());
        let extents: Vec<i32> =
            [x[0], groups].into_iter().chain(s.input).chain(s.output).map(|v| v as i32).collect();
        let taps = ["KERNEL_D", "KERNEL_H", "KERNEL_W"].iter().zip(s.kernel).map(|(n, k)| format!("{n}={k}"));
        let constants = [format!("TYPE={}", io.output.kind()), format!("WIDTH={width}")];
        let file = Specialisation::new("pool_tiles.cu", constants.into_iter().chain(taps));
        let args = [&[extents[..].into()], args].concat();
        LaunchList::of(Launch::new(file, kernel, [rows.min(i32::MAX as usize), along, 1], args))
    }

    /// Pools `x` to `y`, into the output, or into the workspace for the winners' places, which `then` goes on with.
    fn launches(
        &self,
        [x, y]: [&Shape; 2],
        kind: &str,
        gpu: &GpuTraits,
        then: Option<&'static str>,
    ) -> LaunchList {
        let s = self.sizes(x, y);
        let head = [x[0], s.c, s.c, 1];
        let axes = [s.input, s.output, s.kernel, s.stride, s.padding, [1; 3]];
        let geometry: Vec<i32> = head.into_iter().chain(axes.concat()).map(|v| v as i32).collect();
        let mut list = LaunchList::default();
        let pooled = if then.is_some() { list.workspace(ELEMENT * y.numel()) } else { LaunchArg::Output };
        let place = list.workspace(size_of::<i32>() * y.numel());
        let mut push = |kernel, results: usize, [from, second, third]: [LaunchArg; 3]| {
            let args = vec![geometry[..].into(), from, second, third];
            let file = Specialisation::new("pool.cu", [format!("TYPE={kind}")]);
            list.push(Launch::new(file, kernel, [gpu.blocks(results), 1, 1], args));
        };
        push("max_pool", y.numel(), [LaunchArg::Input(0), pooled, place.clone()]);
        if let Some(kernel) = then {
            let results = if kernel == "max_pool_scatter" { x.numel() } else { y.numel() };
            push(kernel, results, [LaunchArg::Input(1), place, LaunchArg::Output]);
        }
        list
    }
}

#[derive(Clone, Copy)]
struct Sizes {
    input: [usize; 3],
    output: [usize; 3],
    kernel: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
    c: usize,
}

impl Sizes {
    fn image(&self) -> usize {
        self.input.iter().product::<usize>() * self.c
    }

    fn pooled(&self) -> usize {
        self.output.iter().product::<usize>() * self.c
    }

    /// Calls `f(pooled pixel, winners)` for every window of one image; `winners[c]` is the winning input pixel.
    fn each<T: Real>(&self, x: &[T], mut f: impl FnMut(usize, &[usize])) {
        let mut winners = vec![0; self.c];
        let mut best = vec![T::zero(); self.c];
        let range = |axis: usize, o: usize| {
            let from = (o * self.stride[axis]) as isize - self.padding[axis] as isize;
            (from.max(0) as usize)..((from + self.kernel[axis] as isize) as usize).min(self.input[axis])
        };
        let mut pixel = 0;
        for o in 0..self.output[0] {
            for p in 0..self.output[1] {
                for q in 0..self.output[2] {
                    let mut first = true;
                    for d in range(0, o) {
                        for h in range(1, p) {
                            for w in range(2, q) {
                                let at = (d * self.input[1] + h) * self.input[2] + w;
                                for c in 0..self.c {
                                    let v = x[at * self.c + c];
                                    if first || v > best[c] || (v.is_nan() && !best[c].is_nan()) {
                                        best[c] = v;
                                        winners[c] = at;
                                    }
                                }
                                first = false;
                            }
                        }
                    }
                    f(pixel, &winners);
                    pixel += 1;
                }
            }
        }
    }
}

/// `y = max of x` over each window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPool(pub Window);

/// `dx(winner) += dy`: the gradient of max pooling; linear in `dy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPoolScatter(pub Window);

/// `y = v(winner)`: the adjoint of the scatter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPoolGather(pub Window);

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        self.0.pooled(inputs[0])
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![Some(a.inputs[0].apply(MaxPoolScatter(self.0.clone()), &[a.dy]))]
    }

    fn cpu(&self, io: &mut Io) {
        let s = self.0.sizes(io.in_shape(0), io.out_shape());
        dispatch_real!(io.dtype(), T => {
            let x = io.input::<T>(0);
            gather(&s, x, x, io.output());
        });
    }

    fn storage(&self) -> Storage {
        Storage::Mixed { alike: &[0], free: &[] }
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        if self.0.tiles() {
            let args = [LaunchArg::Input(0), LaunchArg::Output];
            return Ok(self.0.tiled([io.shape(0), io.out()], io, "tile_max", &args));
        }
        Ok(self.0.launches([io.shape(0), io.out()], io.output.kind(), gpu, None))
    }
}

impl Op for MaxPoolGather {
    fn name(&self) -> &'static str {
        "max_pool_gather"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if inputs[0] != inputs[1] {
            return Err(format!("shapes {} and {} differ", inputs[0], inputs[1]));
        }
        self.0.pooled(inputs[0])
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![None, Some(a.inputs[0].apply(MaxPoolScatter(self.0.clone()), &[a.dy]))]
    }

    fn cpu(&self, io: &mut Io) {
        let s = self.0.sizes(io.in_shape(0), io.out_shape());
        dispatch_real!(io.dtype(), T => gather::<T>(&s, io.input(0), io.input(1), io.output()));
    }

    fn storage(&self) -> Storage {
        Storage::Mixed { alike: &[0, 1], free: &[] }
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        Ok(self.0.launches([io.shape(0), io.out()], io.output.kind(), gpu, Some("max_pool_gather")))
    }
}

impl Op for MaxPoolScatter {
    fn name(&self) -> &'static str {
        "max_pool_scatter"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        if self.0.pooled(inputs[0])? != *inputs[1] {
            return Err(format!("shape {} does not pool to {}", inputs[0], inputs[1]));
        }
        Ok(inputs[0].clone())
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        vec![None, Some(a.inputs[0].apply(MaxPoolGather(self.0.clone()), &[a.dy]))]
    }

    fn cpu(&self, io: &mut Io) {
        let s = self.0.sizes(io.in_shape(0), io.in_shape(1));
        dispatch_real!(io.dtype(), T => scatter::<T>(&s, io.input(0), io.input(1), io.output()));
    }

    fn storage(&self) -> Storage {
        Storage::Mixed { alike: &[0, 1], free: &[] }
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let shapes = [io.shape(0), io.shape(1)];
        if self.0.tiles() {
            let args = [LaunchArg::Input(0), LaunchArg::Input(1), LaunchArg::Output];
            return Ok(self.0.tiled(shapes, io, "tile_max_scatter", &args));
        }
        Ok(self.0.launches(shapes, io.output.kind(), gpu, Some("max_pool_scatter")))
    }
}

fn gather<T: Real>(s: &Sizes, x: &[T], v: &[T], out: &mut [T]) {
    parallel::for_chunks(out, s.pooled(), |start, y| {
        let from = start / s.pooled() * s.image();
        let v = &v[from..from + s.image()];
        s.each(&x[from..from + s.image()], |pixel, winners| {
            let line = &mut y[pixel * s.c..(pixel + 1) * s.c];
            line.iter_mut().zip(winners).enumerate().for_each(|(c, (o, at))| *o = v[at * s.c + c]);
        });
    });
}

fn scatter<T: Real>(s: &Sizes, x: &[T], dy: &[T], out: &mut [T]) {
    parallel::for_chunks(out, s.image(), |start, dx| {
        dx.fill(T::zero());
        let image = start / s.image();
        let dy = &dy[image * s.pooled()..];
        s.each(&x[start..start + s.image()], |pixel, winners| {
            winners.iter().enumerate().for_each(|(c, at)| dx[at * s.c + c] += dy[pixel * s.c + c]);
        });
    });
}

impl Var {
    /// Maximum over each window.
    #[track_caller]
    pub fn max_pool(&self, window: &Window) -> Var {
        self.apply(MaxPool(window.clone()), &[])
    }
}

/// Windows that tile, overlap, are padded, stick out; one to three dimensions.
pub fn samples() -> Vec<Sample> {
    let mut cases = Vec::new();
    for d in 1..=3 {
        for (k, s, p, extent) in [(2, 2, 0, 6), (3, 2, 1, 7), (3, 1, 1, 5)] {
            let w = Window { padding: vec![p; d], ..Window::new(d, k, s) };
            cases.push((w, [&[2][..], &vec![extent; d], &[2]].concat()));
        }
    }
    cases.push((Window { ceil: true, ..Window::new(2, 3, 2) }, vec![1, 6, 6, 2]));
    // Tiles of whole vectors of channels; the last row and column belong to no window, or to one that sticks out.
    cases.push((Window::new(2, 2, 2), vec![2, 5, 7, 8]));
    cases.push((Window { ceil: true, ..Window::new(2, 2, 2) }, vec![1, 3, 5, 8]));
    cases.push((
        Window { kernel: vec![2, 1, 3], stride: vec![2, 1, 3], ..Window::new(3, 2, 2) },
        vec![1, 3, 2, 7, 8],
    ));
    cases.push((Window { ceil: true, padding: vec![1], ..Window::new(1, 2, 3) }, vec![1, 5, 2]));
    let mut all = Vec::new();
    for (w, shape) in cases {
        let y = w.pooled(&Shape::from(shape.as_slice())).expect("samples fit");
        let (x, dy): (&[usize], &[usize]) = (&shape, &y);
        let note = format!("{w:?}");
        let of = w.clone();
        all.push(sample::op("max_pool", MaxPool(w.clone()), &[(x, Domain::Distinct)], move |a| {
            naive(&of, &a[0], |at| a[0].at(at))
        }));
        let of = w.clone();
        all.push(
            sample::op(
                "max_pool_gather",
                MaxPoolGather(w.clone()),
                &[(x, Domain::Distinct), (x, Domain::Normal)],
                move |a| naive(&of, &a[0], |at| a[1].at(at)),
            )
            .fixing(0),
        );
        let of = w.clone();
        let inputs = [(x, Domain::Distinct), (dy, Domain::Normal)];
        all.push(
            sample::op("max_pool_scatter", MaxPoolScatter(w.clone()), &inputs, move |a| {
                let mut out = sample::fill(a[0].shape.clone(), |_| 0.0);
                let strides = out.shape.strides();
                let mut upstream = a[1].data.iter();
                naive(&of, &a[0], |at| {
                    let flat: usize = at.iter().zip(&strides).map(|(i, s)| i * s).sum();
                    out.data[flat] += upstream.next().expect("one gradient per window");
                    0.0
                });
                out
            })
            .fixing(0),
        );
        let start = all.len() - 3;
        all[start..].iter_mut().for_each(|s| s.name = format!("{} {note}", s.name));
    }
    all
}

/// Looks at every position of every window; `pick` is called with the winner's index, window by window.
fn naive(w: &Window, x: &Array, mut pick: impl FnMut(&[usize]) -> f64) -> Array {
    let y = w.pooled(&x.shape).expect("samples fit");
    let d = w.kernel.len();
    sample::fill(y, |index| {
        let mut best: Option<(f64, Vec<usize>)> = None;
        sample::fill(w.kernel.clone(), |tap| {
            let mut at = vec![index[0]];
            for i in 0..d {
                let p = (index[i + 1] * w.stride[i] + tap[i]) as i64 - w.padding[i] as i64;
                if p < 0 || p >= x.shape[i + 1] as i64 {
                    return 0.0;
                }
                at.push(p as usize);
            }
            at.push(index[d + 1]);
            if best.as_ref().is_none_or(|(v, _)| x.at(&at) > *v) {
                best = Some((x.at(&at), at));
            }
            0.0
        });
        pick(&best.expect("a window sees at least one element").1)
    })
}
