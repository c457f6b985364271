//! The loops of Adam and AdamW on one stretch of the store.

use super::MOST_SLOTS;
use crate::dtype::Real;

/// `from + weight (to - from)`, in the form that is exact at the nearer end.
#[derive(Clone, Copy)]
pub(super) struct Lerp<T> {
    weight: T,
    rest: T,
    near_start: bool,
}

impl<T: Real> Lerp<T> {
    pub(super) fn new(weight: f64) -> Self {
        Lerp { weight: T::of(weight), rest: T::of(1.0 - weight), near_start: weight < 0.5 }
    }

    #[inline(always)]
    pub(super) fn at(&self, from: T, to: T) -> T {
        let way = to - from;
        if self.near_start { from + self.weight * way } else { to - way * self.rest }
    }
}

/// What a step of Adam needs besides the tensors.
pub(super) struct AdamScalars<T> {
    mean: Lerp<T>,
    keep: T,
    new: T,
    root: T,
    eps: T,
    size: T,
}

impl<T: Real> AdamScalars<T> {
    pub(super) fn new(beta1: f64, beta2: f64, eps: f64, lr: f64, t: f64) -> Self {
        AdamScalars {
            mean: Lerp::new(1.0 - beta1),
            keep: T::of(beta2),
            new: T::of(1.0 - beta2),
            root: T::of((1.0 - beta2.powf(t)).sqrt()),
            eps: T::of(eps),
            size: T::of(lr / (1.0 - beta1.powf(t))),
        }
    }
}

/// Adam on one stretch; `decay` gives the gradient and the parameter after weight decay.
#[inline(always)]
pub(super) fn adam<T: Real>(
    s: &AdamScalars<T>,
    amsgrad: bool,
    slots: [&mut [T]; MOST_SLOTS],
    grad: &[T],
    decay: impl Fn(T, T) -> (T, T),
) {
    let n = grad.len();
    let [p, m, v, top] = slots;
    let (p, m, v) = (&mut p[..n], &mut m[..n], &mut v[..n]);
    // Two loops, each without a branch, so that both vectorise.
    macro_rules! each {
        ($i:ident, $square:expr) => {
            for $i in 0..n {
                let (g, from) = decay(grad[$i], p[$i]);
                m[$i] = s.mean.at(m[$i], g);
                v[$i] = v[$i] * s.keep + s.new * g * g;
                p[$i] = from - s.size * m[$i] / ($square.sqrt() / s.root + s.eps);
            }
        };
    }
    if amsgrad {
        let top = &mut top[..n];
        each!(i, {
            top[i] = top[i].max(v[i]);
            top[i]
        });
    } else {
        each!(i, v[i]);
    }
}
