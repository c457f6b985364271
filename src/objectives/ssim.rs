//! Structural similarity (Wang et al., IEEE TIP 2004), differentiable.

use crate::graph::Var;
use crate::ops::concat::concat;
use crate::ops::conv::ConvSpec;
use crate::ops::sample::{Array, Domain, Sample, array, composite};
use crate::shape::Shape;

/// What the index depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ssim {
    /// Extent of the Gaussian window along each axis.
    pub window: usize,
    /// Standard deviation of the window, in pixels.
    pub sigma: f64,
    /// Difference between the largest and the least possible value.
    pub range: f64,
    /// The constants K1 and K2 of the paper.
    pub k: [f64; 2],
}

impl Ssim {
    /// The paper's: an 11 pixel window with sigma 1.5, K1 = 0.01, K2 = 0.03.
    pub fn new(range: f64) -> Self {
        Ssim { window: 11, sigma: 1.5, range, k: [0.01, 0.03] }
    }

    /// The window's weights, which sum to one.
    fn weights(&self) -> Vec<f64> {
        let centre = (self.window as f64 - 1.0) / 2.0;
        let raw: Vec<f64> =
            (0..self.window).map(|i| (-((i as f64 - centre) / self.sigma).powi(2) / 2.0).exp()).collect();
        let total: f64 = raw.iter().sum();
        raw.into_iter().map(|w| w / total).collect()
    }

    /// The mean index of two images `[n, spatial.., c]` over all positions where the window fits (the valid region),
    /// channel by channel, with biased moments. 1 means equal; `1 - index` is a loss.
    #[track_caller]
    pub fn index(&self, x: &Var, y: &Var) -> Var {
        // Variances are differences of near numbers, of which bf16 would leave nothing.
        x.graph().exact(|| self.traced(x, y))
    }

    fn traced(&self, x: &Var, y: &Var) -> Var {
        let n = x.shape().first().copied().unwrap_or(1);
        let all = self.blur(&concat(&[x, y, &x.square(), &y.square(), &x.mul(y)], 0));
        let part = |i: usize| all.slice(0, i * n, n);
        let (mx, my) = (part(0), part(1));
        let (mxx, myy, mxy) = (mx.square(), my.square(), mx.mul(&my));
        let (vx, vy, vxy) = (part(2).sub(&mxx), part(3).sub(&myy), part(4).sub(&mxy));
        let [c1, c2] = self.k.map(|k| (k * self.range).powi(2));
        let above = mxy.mul_scalar(2.0).add_scalar(c1).mul(&vxy.mul_scalar(2.0).add_scalar(c2));
        let below = mxx.add(&myy).add_scalar(c1).mul(&vx.add(&vy).add_scalar(c2));
        above.div(&below).mean_all()
    }

    /// Weighted means over the window: a depthwise convolution along each spatial axis in turn.
    fn blur(&self, x: &Var) -> Var {
        let (c, dims) = (x.channels(), x.rank().saturating_sub(2));
        let spec = ConvSpec { groups: c, ..ConvSpec::new(dims, 1, 0) };
        (0..dims).fold(x.clone(), |x, axis| {
            let mut shape = vec![1; dims + 2];
            shape[0] = c;
            shape[axis + 1] = self.window;
            x.conv(&x.graph().constant(shape, self.weights()), &spec)
        })
    }
}

/// One to three dimensions, against the definition position by position.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], usize); 4] =
        [(&[2, 8, 2], 5), (&[2, 7, 6, 2], 3), (&[1, 12, 11, 1], 11), (&[1, 4, 5, 4, 2], 3)];
    cases
        .into_iter()
        .map(|(shape, window)| {
            let ssim = Ssim { window, range: 1.0, ..Ssim::new(1.0) };
            let build = move |v: &[Var]| ssim.index(&v[0], &v[1]);
            let oracle = move |v: &[Array]| array(Shape::scalar(), vec![naive(&ssim, &v[0], &v[1])]);
            let inputs = [(shape, Domain::Unit), (shape, Domain::Unit)];
            composite("ssim", &inputs, build, oracle).noted(&format!("{window}"))
        })
        .collect()
}

/// Central moments, taken directly (not as differences of raw ones), with the full window at once.
fn naive(s: &Ssim, x: &Array, y: &Array) -> f64 {
    use crate::ops::sample::fill;
    let rank = x.shape.rank();
    let space: Vec<usize> = x.shape[1..rank - 1].to_vec();
    let mut out: Vec<usize> = x.shape.to_vec();
    out[1..rank - 1].iter_mut().for_each(|e| *e -= s.window - 1);
    let centre = (s.window as f64 - 1.0) / 2.0;
    let map = fill(out, |at| {
        let mut taps = Vec::new();
        fill(vec![s.window; space.len()], |tap| {
            let r2: f64 = tap.iter().map(|&t| (t as f64 - centre).powi(2)).sum();
            let mut from = at.to_vec();
            tap.iter().enumerate().for_each(|(i, t)| from[i + 1] += t);
            taps.push(((-r2 / (2.0 * s.sigma * s.sigma)).exp(), x.at(&from), y.at(&from)));
            0.0
        });
        let total: f64 = taps.iter().map(|t| t.0).sum();
        let mean = |f: &dyn Fn(f64, f64) -> f64| taps.iter().map(|t| t.0 * f(t.1, t.2)).sum::<f64>() / total;
        let (mx, my) = (mean(&|x, _| x), mean(&|_, y| y));
        let vx = mean(&|x, _| (x - mx).powi(2));
        let vy = mean(&|_, y| (y - my).powi(2));
        let vxy = mean(&|x, y| (x - mx) * (y - my));
        let (c1, c2) = ((s.k[0] * s.range).powi(2), (s.k[1] * s.range).powi(2));
        (2.0 * mx * my + c1) * (2.0 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    });
    map.data.iter().sum::<f64>() / map.data.len() as f64
}
