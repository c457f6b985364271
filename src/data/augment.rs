//! Random changes of a slice, the same for input and target where geometry is concerned.

use super::config::Augment;
use crate::rng::Philox;

/// How values between pixels are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Weighted mean of four pixels.
    Linear,
    /// The nearest pixel: for labels.
    Nearest,
}

/// The changes drawn for one slice.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    flip: bool,
    /// Output pixel offset from the centre to input pixel offset from the centre; `None` if it is the identity.
    warp: Option<[[f32; 3]; 2]>,
    gain: f32,
    noise: f32,
}

impl Drawn {
    /// Draws changes; the same number of random numbers is used whatever the settings.
    pub fn new(settings: &Augment, rng: &mut Philox) -> Self {
        let u: [f64; 6] = std::array::from_fn(|_| rng.uniform());
        let signed = |i: usize| 2.0 * u[i] - 1.0;
        let angle = (signed(1) * settings.rotate).to_radians();
        let scale = 1.0 / (1.0 + signed(2) * settings.zoom);
        let (dy, dx) = (signed(3) * settings.shift, signed(4) * settings.shift);
        let (s, c) = (angle.sin() * scale, angle.cos() * scale);
        let moves = settings.rotate > 0.0 || settings.zoom > 0.0 || settings.shift > 0.0;
        Drawn {
            flip: u[0] < settings.flip,
            warp: moves.then(|| [[c, -s, dy], [s, c, dx]].map(|r| r.map(|v| v as f32))),
            gain: (1.0 + signed(5) * settings.gain) as f32,
            noise: settings.noise as f32,
        }
    }

    /// Mirrors, rotates, scales and shifts an image `[h][w][c]`.
    pub fn geometry(&self, image: &mut [f32], [h, w, c]: [usize; 3], interpolation: Interpolation) {
        if c == 0 {
            // No target.
            return;
        }
        if self.flip {
            for row in image.chunks_mut(w * c) {
                for x in 0..w / 2 {
                    for k in 0..c {
                        row.swap(x * c + k, (w - 1 - x) * c + k);
                    }
                }
            }
        }
        let Some(m) = self.warp else { return };
        let source = image.to_vec();
        let centre = [(h as f32 - 1.0) / 2.0, (w as f32 - 1.0) / 2.0];
        // Beyond the edge the edge's pixels repeat.
        let at = |y: isize, x: isize, k: usize| {
            let (y, x) = (y.clamp(0, h as isize - 1) as usize, x.clamp(0, w as isize - 1) as usize);
            source[(y * w + x) * c + k]
        };
        for (p, pixel) in image.chunks_mut(c).enumerate() {
            let o = [(p / w) as f32 - centre[0], (p % w) as f32 - centre[1]];
            let [y, x] = [0, 1].map(|r| m[r][0] * o[0] + m[r][1] * o[1] + m[r][2] + centre[r]);
            if interpolation == Interpolation::Nearest {
                pixel
                    .iter_mut()
                    .enumerate()
                    .for_each(|(k, v)| *v = at(y.round() as isize, x.round() as isize, k));
                continue;
            }
            let (y0, x0) = (y.floor(), x.floor());
            let (fy, fx) = (y - y0, x - x0);
            let (y0, x0) = (y0 as isize, x0 as isize);
            for (k, v) in pixel.iter_mut().enumerate() {
                let top = at(y0, x0, k) * (1.0 - fx) + at(y0, x0 + 1, k) * fx;
                let bottom = at(y0 + 1, x0, k) * (1.0 - fx) + at(y0 + 1, x0 + 1, k) * fx;
                *v = top * (1.0 - fy) + bottom * fy;
            }
        }
    }

    /// Changes the input's intensities: gain above -1, then noise.
    pub fn intensity(&self, image: &mut [f32], rng: &mut Philox) {
        if self.gain != 1.0 {
            image.iter_mut().for_each(|v| *v = (*v + 1.0) * self.gain - 1.0);
        }
        if self.noise > 0.0 {
            image.iter_mut().for_each(|v| *v += self.noise * rng.normal() as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_mirrors_columns_of_all_channels() {
        let all = Augment { flip: 1.0, ..Augment::NONE };
        let mut v = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        Drawn::new(&all, &mut Philox::new(1, 1)).geometry(&mut v, [1, 3, 2], Interpolation::Linear);
        assert_eq!(v, [3.0, 30.0, 2.0, 20.0, 1.0, 10.0]);
        Drawn::new(&Augment::NONE, &mut Philox::new(1, 1)).geometry(&mut v, [1, 3, 2], Interpolation::Linear);
        assert_eq!(v[0], 3.0);
    }

    #[test]
    fn a_warp_moves_what_it_should_and_nearest_invents_no_value() {
        let quarter =
            Drawn { flip: false, warp: Some([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]), gain: 1.0, noise: 0.0 };
        let mut v: Vec<f32> = (0..9).map(|i| i as f32).collect();
        quarter.geometry(&mut v, [3, 3, 1], Interpolation::Linear);
        assert_eq!(v, [6.0, 3.0, 0.0, 7.0, 4.0, 1.0, 8.0, 5.0, 2.0]);
        let all = Augment { rotate: 30.0, zoom: 0.2, shift: 2.0, ..Augment::NONE };
        let mut labels: Vec<f32> = (0..100).map(|i| if i % 7 == 0 { 4.0 } else { 0.0 }).collect();
        Drawn::new(&all, &mut Philox::new(1, 1)).geometry(&mut labels, [10, 10, 1], Interpolation::Nearest);
        assert!(labels.iter().all(|v| *v == 0.0 || *v == 4.0) && labels.contains(&4.0));
    }

    #[test]
    fn gain_leaves_the_background_alone() {
        let d = Drawn { flip: false, warp: None, gain: 1.5, noise: 0.0 };
        let mut v = [-1.0, 0.0];
        d.intensity(&mut v, &mut Philox::new(1, 1));
        assert_eq!(v, [-1.0, 0.5]);
    }
}
