//! Channels into space: upsampling by a convolution at low resolution (Shi et al., CVPR 2016).

use crate::graph::Var;
use crate::ops::sample::{self, Domain, Sample};

impl Var {
    /// `[n, spatial.., c r^d]` to `[n, spatial r.., c]`. Input channel `(c r + i) r + j` goes to row offset i and column
    /// offset j (in 2D), as in PyTorch.
    #[track_caller]
    pub fn pixel_shuffle(&self, r: usize) -> Var {
        let shape = self.shape();
        let dims = shape.rank().saturating_sub(2);
        if self.id().is_none() || r == 0 || !shape.channels().is_multiple_of(r.pow(dims as u32)) {
            let why =
                format!("pixel_shuffle: channels of shape {shape} do not divide by {r} along each axis");
            return self.graph().poison(&why, std::panic::Location::caller());
        }
        // The innermost factor of the channels belongs to the innermost axis: one axis at a time.
        let mut out = self.clone();
        for axis in (1..=dims).rev() {
            let s = out.shape();
            let outer = s[..axis].iter().product();
            let inner = s[axis + 1..=dims].iter().product();
            let c = s.channels() / r;
            let split = out.reshape(&[outer, s[axis], inner, c, r]).permute(&[0, 1, 4, 2, 3]);
            out = split.reshape(&s.with(axis, s[axis] * r).with(dims + 1, c));
        }
        out
    }

    /// The inverse: `[n, spatial r.., c]` to `[n, spatial.., c r^d]`, as in PyTorch.
    #[track_caller]
    pub fn pixel_unshuffle(&self, r: usize) -> Var {
        let shape = self.shape();
        let dims = shape.rank().saturating_sub(2);
        if self.id().is_none() || r == 0 || shape[1..=dims].iter().any(|e| !e.is_multiple_of(r)) {
            let why = format!("pixel_unshuffle: spatial extents of shape {shape} do not divide by {r}");
            return self.graph().poison(&why, std::panic::Location::caller());
        }
        let mut out = self.clone();
        for axis in 1..=dims {
            let s = out.shape();
            let outer = s[..axis].iter().product();
            let inner = s[axis + 1..=dims].iter().product();
            let c = s.channels();
            let split = out.reshape(&[outer, s[axis] / r, r, inner, c]).permute(&[0, 1, 3, 4, 2]);
            out = split.reshape(&s.with(axis, s[axis] / r).with(dims + 1, c * r));
        }
        out
    }
}

/// One to three dimensions, there and back.
pub fn samples() -> Vec<Sample> {
    let cases: [(&[usize], usize); 4] =
        [(&[2, 3, 6], 3), (&[2, 3, 2, 8], 2), (&[1, 2, 3, 9], 3), (&[1, 2, 1, 3, 16], 2)];
    let back = [(&[2usize, 9, 2][..], 3), (&[2, 4, 6, 2], 2), (&[1, 2, 4, 2, 3], 2)].into_iter().map(
        |(shape, r)| {
            let dims = shape.len() - 2;
            let mut out: Vec<usize> = shape[..=dims].iter().map(|&e| e / r).collect();
            out[0] = shape[0];
            out.push(shape[dims + 1] * r.pow(dims as u32));
            let oracle = move |x: &[sample::Array]| {
                sample::fill(out.clone(), |i| {
                    let (mut from, mut channel) = (i.to_vec(), i[dims + 1]);
                    // The innermost axis has the channel's last digit.
                    for axis in (1..=dims).rev() {
                        from[axis] = i[axis] * r + channel % r;
                        channel /= r;
                    }
                    from[dims + 1] = channel;
                    x[0].at(&from)
                })
            };
            let build = move |x: &[Var]| x[0].pixel_unshuffle(r);
            sample::composite("pixel_unshuffle", &[(shape, Domain::Normal)], build, oracle)
        },
    );
    cases
        .into_iter()
        .map(|(shape, r)| {
            let dims = shape.len() - 2;
            let mut out: Vec<usize> = shape[..=dims].iter().map(|&e| e * r).collect();
            out[0] = shape[0];
            out.push(shape[dims + 1] / r.pow(dims as u32));
            let oracle = move |x: &[sample::Array]| {
                sample::fill(out.clone(), |i| {
                    let mut from = vec![i[0]];
                    let mut channel = i[dims + 1];
                    for at in &i[1..=dims] {
                        from.push(at / r);
                        channel = channel * r + at % r;
                    }
                    from.push(channel);
                    x[0].at(&from)
                })
            };
            let build = move |x: &[Var]| x[0].pixel_shuffle(r);
            sample::composite("pixel_shuffle", &[(shape, Domain::Normal)], build, oracle)
        })
        .chain(back)
        .collect()
}
