//! Structural similarity (Wang et al., IEEE TIP 2004), differentiable.

use crate::graph::Var;
use crate::ops::concat::concat;
use crate::ops::conv::ConvSpec;
use crate::ops::max_pool::Window;
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
        let ([mxx, myy, mxy], [vx, vy, vxy]) = self.moments(x, y);
        let [c1, c2] = self.k.map(|k| (k * self.range).powi(2));
        let above = mxy.mul_scalar(2.0).add_scalar(c1).mul(&vxy.mul_scalar(2.0).add_scalar(c2));
        let below = mxx.add(&myy).add_scalar(c1).mul(&vx.add(&vy).add_scalar(c2));
        above.div(&below).mean_all()
    }

    /// Products of the means, and variances and the covariance, at all positions where the window fits.
    fn moments(&self, x: &Var, y: &Var) -> ([Var; 3], [Var; 3]) {
        let n = x.shape().first().copied().unwrap_or(1);
        let all = self.blur(&concat(&[x, y, &x.square(), &y.square(), &x.mul(y)], 0));
        let part = |i: usize| all.slice(0, i * n, n);
        let (mx, my) = (part(0), part(1));
        let (mxx, myy, mxy) = (mx.square(), my.square(), mx.mul(&my));
        let (vx, vy, vxy) = (part(2).sub(&mxx), part(3).sub(&myy), part(4).sub(&mxy));
        ([mxx, myy, mxy], [vx, vy, vxy])
    }

    /// The term of luminance and that of contrast and structure, at all positions where the window fits.
    fn terms(&self, x: &Var, y: &Var) -> [Var; 2] {
        let ([mxx, myy, mxy], [vx, vy, vxy]) = self.moments(x, y);
        let [c1, c2] = self.k.map(|k| (k * self.range).powi(2));
        let luminance = mxy.mul_scalar(2.0).add_scalar(c1).div(&mxx.add(&myy).add_scalar(c1));
        let contrast = vxy.mul_scalar(2.0).add_scalar(c2).div(&vx.add(&vy).add_scalar(c2));
        [luminance, contrast]
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

/// Structural similarity at several scales (Wang, Simoncelli and Bovik, "Multiscale structural similarity", Asilomar 2003): the
/// product over the scales of the means of contrast and structure, the last one with luminance, each to the power of its weight.
/// Scales are made by averaging 2 x 2 (x 2) pixels, of odd extents without the last one.
///
/// A mean below [`MsSsim::LEAST`] counts as that: no power of a negative number is taken, and no gradient is infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct MsSsim {
    /// The similarity at each scale.
    pub ssim: Ssim,
    /// The scales' weights, from the finest on. They sum to one.
    pub weights: Vec<f64>,
}

impl MsSsim {
    /// The paper's weights.
    pub const WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

    /// What a mean of a scale counts as at the least.
    pub const LEAST: f64 = 1e-4;

    /// How many scales images of these spatial extents have room for: the window must fit into the coarsest.
    pub fn scales(size: &[usize]) -> usize {
        let (least, window) = (size.iter().min().copied().unwrap_or(0), Ssim::new(1.0).window);
        (1..Self::WEIGHTS.len()).find(|scales| least >> scales < window).unwrap_or(Self::WEIGHTS.len())
    }

    /// With as many of the paper's scales as images `[n, spatial.., c]` have room for, the weights divided by their sum.
    pub fn of(x: &Var, range: f64) -> Self {
        let shape = x.shape();
        let scales = Self::scales(&shape[1..shape.rank().max(2) - 1]);
        let total: f64 = Self::WEIGHTS[..scales].iter().sum();
        let weights = Self::WEIGHTS[..scales].iter().map(|w| w / total).collect();
        MsSsim { ssim: Ssim::new(range), weights }
    }

    /// The mean over images and channels of their index. 1 means equal; `1 - index` is a loss.
    #[track_caller]
    pub fn index(&self, x: &Var, y: &Var) -> Var {
        x.graph().exact(|| {
            let (mut x, mut y) = (x.clone(), y.clone());
            let dims = x.rank().saturating_sub(2);
            let space: Vec<usize> = (1..=dims).collect();
            let mut log: Option<Var> = None;
            for (scale, &weight) in self.weights.iter().enumerate() {
                let [luminance, contrast] = self.ssim.terms(&x, &y);
                let last = scale + 1 == self.weights.len();
                let mean = if last { luminance.mul(&contrast) } else { contrast }.mean(&space);
                let own = mean.clamp(Self::LEAST, f64::INFINITY).log().mul_scalar(weight);
                log = Some(log.map_or(own.clone(), |l| l.add(&own)));
                if !last {
                    let half = Window::new(dims, 2, 2);
                    (x, y) = (x.avg_pool(&half, true), y.avg_pool(&half, true));
                }
            }
            log.map_or_else(|| x.mean_all().mul_scalar(0.0).add_scalar(1.0), |l| l.exp().mean_all())
        })
    }
}

/// One to three dimensions, against the definition position by position.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], usize); 4] =
        [(&[2, 8, 2], 5), (&[2, 7, 6, 2], 3), (&[1, 12, 11, 1], 11), (&[1, 4, 5, 4, 2], 3)];
    let single = cases.into_iter().map(|(shape, window)| {
        let ssim = Ssim { window, range: 1.0, ..Ssim::new(1.0) };
        let build = move |v: &[Var]| ssim.index(&v[0], &v[1]);
        let oracle = move |v: &[Array]| array(Shape::scalar(), vec![naive(&ssim, &v[0], &v[1])]);
        let inputs = [(shape, Domain::Unit), (shape, Domain::Unit)];
        composite("ssim", &inputs, build, oracle).noted(&format!("{window}"))
    });
    let cases: [(&[usize], &[f64]); 4] = [
        (&[2, 9, 8, 2], &[0.4, 0.6]),
        (&[2, 5, 6, 1], &[1.0]),
        (&[1, 13, 12, 1], &[0.2, 0.3, 0.5]),
        (&[1, 6, 7, 6, 2], &[0.7, 0.3]),
    ];
    let multi = cases.into_iter().map(|(shape, weights)| {
        let ssim = Ssim { window: 3, range: 1.0, ..Ssim::new(1.0) };
        let multi = MsSsim { ssim, weights: weights.to_vec() };
        let own = multi.clone();
        // Images that have something in common.
        let build = move |v: &[Var]| own.index(&v[0], &v[0].mul_scalar(0.75).add(&v[1].mul_scalar(0.25)));
        let oracle = move |v: &[Array]| {
            let data = v[0].data.iter().zip(&v[1].data).map(|(a, b)| 0.75 * a + 0.25 * b).collect();
            let y = array(v[0].shape.clone(), data);
            array(Shape::scalar(), vec![naive_multi(&multi, &v[0], &y)])
        };
        let inputs = [(shape, Domain::Unit), (shape, Domain::Unit)];
        composite("ms_ssim", &inputs, build, oracle).noted(&weights.len().to_string())
    });
    single.chain(multi).collect()
}

/// Image by image and channel by channel.
fn naive_multi(s: &MsSsim, x: &Array, y: &Array) -> f64 {
    use crate::ops::sample::fill;
    let (n, c) = (x.shape[0], x.shape.channels());
    let plane = |a: &Array, image: usize, channel: usize| {
        let mut shape = a.shape.to_vec();
        (shape[0], shape[a.shape.rank() - 1]) = (1, 1);
        fill(shape, |at| {
            let mut from = at.to_vec();
            (from[0], from[at.len() - 1]) = (image, channel);
            a.at(&from)
        })
    };
    let halved = |a: &Array| {
        let mut shape = a.shape.to_vec();
        let dims = shape.len() - 2;
        shape[1..=dims].iter_mut().for_each(|e| *e /= 2);
        fill(shape, |at| {
            let corners = (0..1 << dims).map(|corner: usize| {
                let mut from = at.to_vec();
                (0..dims).for_each(|i| from[i + 1] = 2 * at[i + 1] + (corner >> i & 1));
                a.at(&from)
            });
            corners.sum::<f64>() / f64::from(1 << dims)
        })
    };
    let mut total = 0.0;
    for (image, channel) in (0..n).flat_map(|i| (0..c).map(move |j| (i, j))) {
        let (mut a, mut b) = (plane(x, image, channel), plane(y, image, channel));
        let mut product = 1.0;
        for (scale, weight) in s.weights.iter().enumerate() {
            let last = scale + 1 == s.weights.len();
            product *= naive_mean(&s.ssim, &a, &b, last).powf(*weight);
            (a, b) = (halved(&a), halved(&b));
        }
        total += product;
    }
    total / (n * c) as f64
}

/// Central moments, taken directly (not as differences of raw ones), with the full window at once.
fn naive(s: &Ssim, x: &Array, y: &Array) -> f64 {
    naive_mean(s, x, y, true)
}

/// As [`naive`], with the term of luminance or without it.
fn naive_mean(s: &Ssim, x: &Array, y: &Array, luminance: bool) -> f64 {
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
        let contrast = (2.0 * vxy + c2) / (vx + vy + c2);
        if luminance { contrast * (2.0 * mx * my + c1) / (mx * mx + my * my + c1) } else { contrast }
    });
    map.data.iter().sum::<f64>() / map.data.len() as f64
}
