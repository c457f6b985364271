//! Convolutions in plain double-precision sums, on all cores: pass by pass what `geometry::products` says, with the innermost
//! loop along neighbours.

use gan::ops::conv::cuda::launch::Pass;
use gan::ops::conv::geometry::ConvGeometry;
use rayon::prelude::*;

/// The result of a pass of two operands: x and w, dy and w, or x and dy.
pub fn exact(g: &ConvGeometry, pass: Pass, a: &[f32], b: &[f32]) -> Vec<f64> {
    assert_eq!(g.groups, 1, "groups are tested elsewhere");
    let double = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let (a, b) = (double(a), double(b));
    match pass {
        Pass::Forward => forward(g, &a, &b),
        Pass::GradX => grad_x(g, &a, &b),
        Pass::GradW => grad_w(g, &a, &b),
    }
}

/// `to += factor * row`.
fn add(to: &mut [f64], factor: f64, row: &[f64]) {
    to.iter_mut().zip(row).for_each(|(to, v)| *to += factor * v);
}

/// The three coordinates of a flat index.
fn split(flat: usize, e: [usize; 3]) -> [usize; 3] {
    [flat / (e[1] * e[2]), flat / e[2] % e[1], flat % e[2]]
}

/// The input pixel that an output pixel meets through a tap.
fn source(g: &ConvGeometry, o: [usize; 3], tap: [usize; 3]) -> Option<usize> {
    let [d, h, w] = [0, 1, 2].map(|a| g.input_at(a, o[a], tap[a]));
    Some((d? * g.input[1] + h?) * g.input[2] + w?)
}

fn forward(g: &ConvGeometry, x: &[f64], w: &[f64]) -> Vec<f64> {
    let (c, k, taps) = (g.c, g.k, g.taps());
    // [tap, c, k]
    let mut across = vec![0.0; w.len()];
    for (at, v) in w.iter().enumerate() {
        across[at % (taps * c) * k + at / (taps * c)] = *v;
    }
    let mut y = vec![0.0; g.n * g.out_pixels() * k];
    y.par_chunks_mut(k).enumerate().for_each(|(row, y)| {
        let (image, o) = (row / g.out_pixels(), split(row % g.out_pixels(), g.output));
        for tap in 0..taps {
            let Some(at) = source(g, o, split(tap, g.kernel)) else { continue };
            let pixel = &x[(image * g.in_pixels() + at) * c..][..c];
            for (channel, v) in pixel.iter().enumerate() {
                add(y, *v, &across[(tap * c + channel) * k..][..k]);
            }
        }
    });
    y
}

fn grad_x(g: &ConvGeometry, dy: &[f64], w: &[f64]) -> Vec<f64> {
    let (c, k, taps) = (g.c, g.k, g.taps());
    // Which outputs through which taps see each coordinate of the input.
    let seen: [Vec<Vec<(usize, usize)>>; 3] = [0, 1, 2].map(|a| {
        let mut seen = vec![Vec::new(); g.input[a]];
        for o in 0..g.output[a] {
            for tap in 0..g.kernel[a] {
                if let Some(i) = g.input_at(a, o, tap) {
                    seen[i].push((o, tap));
                }
            }
        }
        seen
    });
    let mut dx = vec![0.0; g.n * g.in_pixels() * c];
    dx.par_chunks_mut(c).enumerate().for_each(|(row, dx)| {
        let (image, i) = (row / g.in_pixels(), split(row % g.in_pixels(), g.input));
        for &(od, td) in &seen[0][i[0]] {
            for &(oh, th) in &seen[1][i[1]] {
                for &(ow, tw) in &seen[2][i[2]] {
                    let o = (od * g.output[1] + oh) * g.output[2] + ow;
                    let tap = (td * g.kernel[1] + th) * g.kernel[2] + tw;
                    let pixel = &dy[(image * g.out_pixels() + o) * k..][..k];
                    for (channel, v) in pixel.iter().enumerate() {
                        add(dx, *v, &w[(channel * taps + tap) * c..][..c]);
                    }
                }
            }
        }
    });
    dx
}

fn grad_w(g: &ConvGeometry, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let (c, k, taps) = (g.c, g.k, g.taps());
    let mut dw = vec![0.0; k * taps * c];
    dw.par_chunks_mut(taps * c).enumerate().for_each(|(channel, dw)| {
        for row in 0..g.n * g.out_pixels() {
            let (image, o) = (row / g.out_pixels(), split(row % g.out_pixels(), g.output));
            let v = dy[row * k + channel];
            for (tap, dw) in dw.chunks_mut(c).enumerate() {
                let Some(at) = source(g, o, split(tap, g.kernel)) else { continue };
                add(dw, v, &x[(image * g.in_pixels() + at) * c..][..c]);
            }
        }
    });
    dw
}
