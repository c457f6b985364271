//! Samples of the three convolutions, with a seven-loop oracle.

use super::{Conv, ConvGradW, ConvGradX, ConvSpec};
use crate::ops::sample::{self, Array, Domain, Sample};

/// input extents, kernel extents, stride, padding, dilation, n, c, k, groups
type Case =
    (&'static [usize], &'static [usize], &'static [usize], &'static [usize], &'static [usize], [usize; 4]);

const CASES: &[Case] = &[
    (&[5, 4], &[1, 1], &[1, 1], &[0, 0], &[1, 1], [2, 3, 4, 1]),
    (&[6, 5], &[3, 3], &[1, 1], &[1, 1], &[1, 1], [2, 3, 5, 1]),
    (&[8, 6], &[4, 4], &[2, 2], &[1, 1], &[1, 1], [2, 3, 6, 1]),
    (&[6, 6], &[4, 4], &[1, 1], &[1, 1], &[1, 1], [1, 5, 1, 1]),
    (&[2, 2], &[4, 4], &[2, 2], &[1, 1], &[1, 1], [2, 6, 5, 1]),
    (&[9, 7], &[7, 7], &[1, 1], &[3, 3], &[1, 1], [1, 1, 3, 1]),
    (&[7, 8], &[3, 3], &[2, 2], &[1, 1], &[1, 1], [1, 3, 4, 1]),
    (&[11, 10], &[3, 3], &[2, 2], &[3, 3], &[3, 3], [1, 2, 3, 1]),
    (&[10, 9], &[2, 2], &[3, 3], &[0, 0], &[1, 1], [1, 2, 3, 1]),
    (&[9, 8], &[3, 5], &[2, 1], &[1, 2], &[1, 2], [2, 3, 4, 1]),
    (&[6, 6], &[3, 3], &[1, 1], &[1, 1], &[1, 1], [2, 4, 6, 2]),
    (&[6, 6], &[3, 3], &[2, 2], &[1, 1], &[1, 1], [2, 5, 5, 5]),
    (&[4, 4], &[5, 5], &[1, 1], &[4, 4], &[1, 1], [1, 2, 2, 1]),
    (&[3, 37], &[3, 3], &[1, 1], &[1, 1], &[1, 1], [1, 17, 19, 1]),
    (&[12], &[5], &[1], &[4], &[2], [1, 4, 4, 2]),
    (&[10], &[4], &[2], &[1], &[1], [2, 3, 4, 1]),
    (&[4, 5, 6], &[3, 3, 3], &[1, 1, 1], &[1, 1, 1], &[1, 1, 1], [1, 2, 3, 1]),
    (&[6, 5, 6], &[3, 3, 3], &[2, 2, 2], &[1, 1, 1], &[1, 1, 1], [1, 2, 3, 1]),
    (&[4, 5, 6], &[1, 3, 2], &[1, 2, 1], &[0, 1, 1], &[1, 1, 1], [1, 2, 3, 1]),
    (&[5, 6, 5], &[3, 3, 3], &[1, 1, 1], &[2, 2, 2], &[2, 2, 2], [1, 4, 4, 2]),
    (&[3, 3, 9], &[3, 3, 3], &[1, 1, 1], &[1, 1, 1], &[1, 1, 1], [1, 8, 8, 1]),
    // Depthwise: vectors of channels and none, strides, dilations, several results a channel; and groups of a few channels.
    (&[7, 6], &[3, 3], &[1, 1], &[1, 1], &[1, 1], [2, 8, 8, 8]),
    (&[9, 8], &[4, 4], &[2, 2], &[1, 1], &[1, 1], [1, 16, 16, 16]),
    (&[9, 11], &[3, 3], &[1, 1], &[2, 2], &[2, 2], [1, 6, 6, 6]),
    (&[9, 10], &[3, 5], &[2, 3], &[1, 2], &[2, 1], [1, 4, 8, 4]),
    (&[6, 7], &[3, 3], &[1, 1], &[0, 0], &[1, 1], [2, 3, 9, 3]),
    (&[5, 6], &[7, 7], &[1, 1], &[3, 3], &[1, 1], [1, 4, 4, 4]),
    (&[14], &[5], &[2], &[2], &[1], [2, 7, 7, 7]),
    (&[5, 4, 6], &[3, 3, 3], &[1, 1, 1], &[1, 1, 1], &[1, 1, 1], [1, 4, 4, 4]),
    (&[6, 5, 7], &[2, 3, 3], &[2, 2, 2], &[0, 1, 1], &[1, 1, 1], [1, 3, 6, 3]),
    (&[6, 6], &[3, 3], &[1, 1], &[1, 1], &[1, 1], [1, 12, 12, 3]),
    (&[5, 6], &[3, 3], &[2, 1], &[1, 1], &[1, 1], [1, 9, 6, 3]),
    (&[4, 5], &[3, 3], &[1, 1], &[1, 1], &[1, 1], [1, 16, 24, 2]),
];

struct Loops {
    spec: ConvSpec,
    x: Vec<usize>,
    w: Vec<usize>,
    y: Vec<usize>,
}

impl Loops {
    fn new(case: &Case) -> Self {
        let &(input, kernel, stride, padding, dilation, [n, c, k, groups]) = case;
        let spec =
            ConvSpec { stride: stride.into(), padding: padding.into(), dilation: dilation.into(), groups };
        let around = |first: usize, middle: &[usize], last: usize| [&[first], middle, &[last]].concat();
        let output: Vec<usize> = (0..input.len())
            .map(|i| (input[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) / stride[i] + 1)
            .collect();
        Loops { spec, x: around(n, input, c), w: around(k, kernel, c / groups), y: around(n, &output, k) }
    }

    /// Calls `f(x index, w index, y index)` for every product of the trilinear form.
    fn each(&self, mut f: impl FnMut(&[usize], &[usize], &[usize])) {
        let d = self.spec.stride.len();
        let (cg, kg) = (self.w[d + 1], self.w[0] / self.spec.groups);
        sample::fill(self.y.clone(), |y| {
            sample::fill(self.w[1..].to_vec(), |tap| {
                let k = y[d + 1];
                let mut x = vec![y[0]];
                for i in 0..d {
                    let p = (y[i + 1] * self.spec.stride[i] + tap[i] * self.spec.dilation[i]) as i64
                        - self.spec.padding[i] as i64;
                    if p < 0 || p >= self.x[i + 1] as i64 {
                        return 0.0;
                    }
                    x.push(p as usize);
                }
                x.push(k / kg * cg + tap[d]);
                f(&x, &[&[k], tap].concat(), y);
                0.0
            });
            0.0
        });
    }
}

fn add(out: &mut Array, index: &[usize], v: f64) {
    let at: usize = index.iter().zip(&out.shape.strides()).map(|(i, s)| i * s).sum();
    out.data[at] += v;
}

fn zeros(shape: &[usize]) -> Array {
    sample::fill(shape.to_vec(), |_| 0.0)
}

/// All three operations on every geometry.
pub fn samples() -> Vec<Sample> {
    CASES
        .iter()
        .flat_map(|case| {
            let l = std::sync::Arc::new(Loops::new(case));
            let d = case.0.len();
            let note =
                format!("{:?} k{:?} s{:?} p{:?} d{:?} {:?}", case.0, case.1, case.2, case.3, case.4, case.5);
            let (f, gx, gw) = (l.clone(), l.clone(), l.clone());
            [
                sample::op(
                    "conv",
                    Conv(l.spec.clone()),
                    &[(&l.x, Domain::Normal), (&l.w, Domain::Normal)],
                    move |a| {
                        let mut out = zeros(&f.y);
                        f.each(|x, w, y| add(&mut out, y, a[0].at(x) * a[1].at(w)));
                        out
                    },
                ),
                sample::op(
                    "conv_grad_x",
                    ConvGradX { spec: l.spec.clone(), input: l.x[1..=d].to_vec() },
                    &[(&l.y, Domain::Normal), (&l.w, Domain::Normal)],
                    move |a| {
                        let mut out = zeros(&gx.x);
                        gx.each(|x, w, y| add(&mut out, x, a[0].at(y) * a[1].at(w)));
                        out
                    },
                ),
                sample::op(
                    "conv_grad_w",
                    ConvGradW { spec: l.spec.clone(), kernel: l.w[1..=d].to_vec() },
                    &[(&l.x, Domain::Normal), (&l.y, Domain::Normal)],
                    move |a| {
                        let mut out = zeros(&gw.w);
                        gw.each(|x, w, y| add(&mut out, w, a[0].at(x) * a[1].at(y)));
                        out
                    },
                ),
            ]
            .map(|s| s.noted(&note))
        })
        .collect()
}
