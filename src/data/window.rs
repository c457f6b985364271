//! Where in a slice a canvas lies.

use super::config::{DataConfig, Window};
use super::orient::Plane;

/// How volumes are cut into slices.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub plane: Plane,
    pub window: Window,
}

impl View {
    pub fn of(config: &DataConfig) -> Self {
        View { plane: config.plane, window: config.window }
    }
}

/// Where a canvas lies in a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub size: [usize; 2],
    pub canvas: [usize; 2],
    /// The canvas's corner in the slice; negative where the canvas is larger.
    pub start: [isize; 2],
}

impl Place {
    pub fn centred(size: [usize; 2], canvas: [usize; 2]) -> Self {
        let start = [0, 1].map(|a| {
            let (s, c) = (size[a] as isize, canvas[a] as isize);
            // Rounded towards the corner on either side.
            if s >= c { (s - c) / 2 } else { -((c - s) / 2) }
        });
        Place { size, canvas, start }
    }

    /// Visits the pixels that slice and canvas share: (index in the slice, index in the canvas).
    pub fn overlap(&self, mut visit: impl FnMut(usize, usize)) {
        // First shared index on either side, and how many.
        let along = |a: usize| {
            let (slice, canvas) = (self.start[a].max(0) as usize, (-self.start[a]).max(0) as usize);
            let n = (self.size[a].saturating_sub(slice)).min(self.canvas[a].saturating_sub(canvas));
            (slice, canvas, n)
        };
        let ((sy, cy, ny), (sx, cx, nx)) = (along(0), along(1));
        for y in 0..ny {
            for x in 0..nx {
                visit((sy + y) * self.size[1] + sx + x, (cy + y) * self.canvas[1] + cx + x);
            }
        }
    }
}

/// The corner of the window with the largest sum; the first of equals.
pub(super) fn brightest(image: &[f32], [h, w]: [usize; 2], canvas: [usize; 2]) -> [isize; 2] {
    let middle = Place::centred([h, w], canvas).start;
    // Sums of everything above and to the left.
    let mut sums = vec![0.0f64; (h + 1) * (w + 1)];
    for y in 0..h {
        for x in 0..w {
            sums[(y + 1) * (w + 1) + x + 1] =
                f64::from(image[y * w + x]) + sums[y * (w + 1) + x + 1] + sums[(y + 1) * (w + 1) + x]
                    - sums[y * (w + 1) + x];
        }
    }
    let (ny, nx) = (canvas[0].min(h), canvas[1].min(w));
    let (mut best, mut most) = ([0, 0], f64::NEG_INFINITY);
    for y in 0..=h - ny {
        for x in 0..=w - nx {
            let at = |y: usize, x: usize| sums[y * (w + 1) + x];
            let sum = at(y + ny, x + nx) - at(y, x + nx) - at(y + ny, x) + at(y, x);
            if sum > most {
                (best, most) = ([y as isize, x as isize], sum);
            }
        }
    }
    [0, 1].map(|a| if [h, w][a] > canvas[a] { best[a] } else { middle[a] })
}

/// The corner of the window around the middle of what is above 0, as far as the slice reaches; the middle of the slice if
/// there is nothing.
pub(super) fn around(inside: &[f32], size: [usize; 2], canvas: [usize; 2]) -> [isize; 2] {
    let middle = Place::centred(size, canvas).start;
    let Some(at) = centroid(inside, size[1]) else { return middle };
    [0, 1].map(|a| {
        if size[a] <= canvas[a] {
            return middle[a];
        }
        (at[a].round() as isize - canvas[a] as isize / 2).clamp(0, (size[a] - canvas[a]) as isize)
    })
}

/// The mean place of what is above 0, if there is any.
fn centroid(inside: &[f32], w: usize) -> Option<[f64; 2]> {
    let places = || inside.iter().enumerate().filter(|(_, v)| **v > 0.0).map(|(i, _)| [i / w, i % w]);
    let n = places().count() as f64;
    let sum = places().fold([0.0, 0.0], |s, p| [s[0] + p[0] as f64, s[1] + p[1] as f64]);
    (n > 0.0).then(|| sum.map(|v| v / n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(place: Place) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        place.overlap(|s, c| all.push((s, c)));
        all
    }

    #[test]
    fn a_canvas_lies_where_it_should() {
        // A slice of 3 x 2 on a canvas of 1 x 4: the middle row, in the middle.
        assert_eq!(pairs(Place::centred([3, 2], [1, 4])), [(2, 1), (3, 2)]);
        let corner = Place { size: [3, 3], canvas: [2, 2], start: [1, 1] };
        assert_eq!(pairs(corner), [(4, 0), (5, 1), (7, 2), (8, 3)]);
    }

    #[test]
    fn the_brightest_window_and_the_middle_of_a_region_are_found() {
        let mut image = vec![0.0; 48];
        for at in [26, 27, 34, 35] {
            image[at] = 1.0;
        }
        // Rows 3 and 4, columns 2 and 3 of 6 x 8.
        assert_eq!(brightest(&image, [6, 8], [2, 2]), [3, 2]);
        assert_eq!(centroid(&image, 8), Some([3.5, 2.5]));
        assert_eq!(centroid(&[0.0; 48], 8), None);
        assert_eq!(around(&image, [6, 8], [4, 4]), [2, 1]);
        assert_eq!(around(&[0.0; 48], [6, 8], [4, 4]), [1, 2]);
        // An axis on which the canvas is larger stays centred.
        assert_eq!(brightest(&image, [6, 8], [8, 2]), [-1, 2]);
    }
}
