//! Generated images against real ones, as sets: distances with the floor of real against real, and sheets to look at.

use crate::data::{Case, Dataset, Sample};
use crate::error::Result;
use crate::metrics::distribution::{Rows, floor, kid, sliced_wasserstein};
use crate::metrics::diversity::{Diversity, diversity};
use crate::metrics::features::{DIMENSION, describe};
use crate::watch::panels::{Display, Image, grid};

/// At most so many real images are compared.
pub const MOST: usize = 256;
/// Random directions of the sliced Wasserstein distance.
const PROJECTIONS: usize = 128;
/// Draws of other real images behind a floor, and from at most how many.
const DRAWS: usize = 20;
const OTHERS: usize = 4 * MOST;
/// Seed of directions and draws: the same for all runs, so that their numbers can be compared.
const SEED: u64 = 1;

/// Real images of a split, evenly spaced, with their descriptions.
pub struct RealImages {
    pixels: Vec<f32>,
    /// n, h, w, c.
    shape: [usize; 4],
    features: Vec<f64>,
}

/// Distances between two sets of images.
#[derive(Clone, Copy, Debug)]
pub struct Distances {
    /// Kernel distance.
    pub kid: f64,
    /// Sliced Wasserstein distance of order 1.
    pub swd: f64,
    /// How diverse the one set is beside the other.
    pub diversity: Diversity,
}

impl RealImages {
    /// Of the slices that training would use.
    pub fn of(set: &Dataset) -> Result<Self> {
        Self::at_most(set, MOST)
    }

    fn at_most(set: &Dataset, most: usize) -> Result<Self> {
        let (n, [h, w, c]) = (set.len().min(most), set.input_shape());
        let mut pixels = vec![0.0; n * h * w * c];
        for (i, image) in pixels.chunks_mut(h * w * c).enumerate() {
            set.read(i * set.len() / n, image, &mut [])?;
        }
        let shape = [n, h, w, c];
        let features = describe(&pixels, shape)?;
        Ok(RealImages { pixels, shape, features })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.shape[1], self.shape[2]]
    }

    /// From generated images of the same extents.
    pub fn distances(&self, made: &[f32]) -> Result<Distances> {
        let [_, h, w, c] = self.shape;
        let features = describe(made, [made.len() / (h * w * c), h, w, c])?;
        let (real, made) = (Rows::new(&self.features, DIMENSION)?, Rows::new(&features, DIMENSION)?);
        Ok(Distances {
            kid: kid(made, real)?,
            swd: sliced_wasserstein(made, real, PROJECTIONS, 1, SEED)?,
            diversity: diversity(made, real)?,
        })
    }

    /// Of as many real images of other subjects, the training split's: what a perfect generator would reach.
    pub fn floor(&self, train: &Dataset) -> Result<Distances> {
        let others = Self::at_most(train, OTHERS)?;
        let (real, others) = (Rows::new(&self.features, DIMENSION)?, Rows::new(&others.features, DIMENSION)?);
        let swd = |a: Rows, b: Rows| sliced_wasserstein(a, b, PROJECTIONS, 1, SEED);
        Ok(Distances {
            kid: floor(real, others, DRAWS, SEED, kid)?,
            swd: floor(real, others, DRAWS, SEED, swd)?,
            diversity: diversity(real, real)?,
        })
    }

    /// A sheet: `rows` rows of real images on the left, of generated ones on the right.
    pub fn sheet(&self, made: &[f32], rows: usize) -> Result<Image> {
        let columns = 2 * rows;
        let [_, h, w, c] = self.shape;
        let each = h * w * c;
        // Real ones from all over the split, not neighbours.
        let apart = (self.len() / (rows * columns)).max(1);
        let mut lines = Vec::new();
        for r in 0..rows {
            let mut line = Vec::new();
            for (pixels, step) in [(self.pixels.as_slice(), apart), (made, 1)] {
                for i in 0..columns {
                    let at = (r * columns + i) * step % (pixels.len() / each);
                    line.push(tile(&pixels[at * each..(at + 1) * each], [h, w, c])?);
                }
            }
            lines.push(line);
        }
        grid(&lines, 2)
    }
}

/// Subjects of which images are made, and real images that these are to be like, of other subjects.
pub struct Unpaired {
    cases: Vec<Case>,
    /// Of which case and which slice images are compared.
    chosen: Vec<Sample>,
    /// The real images.
    pub real: RealImages,
}

impl Unpaired {
    /// Of a split of two sets (`data.unpaired`).
    pub fn of(set: &Dataset) -> Result<Self> {
        let others = set.others().expect("two sets");
        let (all, n) = (set.samples(), set.len().min(MOST));
        Ok(Unpaired {
            cases: (0..set.cases()).map(|i| set.case(i)).collect::<Result<_>>()?,
            chosen: (0..n).map(|i| all[i * all.len() / n]).collect(),
            real: RealImages::of(others)?,
        })
    }

    /// How many subjects images are made of.
    pub fn cases(&self) -> usize {
        self.cases.len()
    }

    /// Slices that `make` makes of the subjects, evenly spaced among those that training would use.
    pub fn made(&self, mut make: impl FnMut(&Case) -> Result<Vec<f32>>) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for (i, case) in self.cases.iter().enumerate() {
            let slices = make(case)?;
            let each = slices.len() / case.input_shape[0];
            for sample in self.chosen.iter().filter(|s| s.case == i) {
                all.extend(&slices[sample.slice * each..(sample.slice + 1) * each]);
            }
        }
        Ok(all)
    }
}

/// A picture of the first channel of an image `[h, w, c]` in [-1, 1], pixel by pixel.
pub fn pixels(image: &[f32], [h, w, c]: [usize; 3]) -> Result<Image> {
    let first: Vec<f32> = image.iter().step_by(c).copied().collect();
    Display::grey(-1.0, 1.0).draw(&first, h, w)
}

/// The same, large enough to look at.
pub fn tile(image: &[f32], [h, w, c]: [usize; 3]) -> Result<Image> {
    Ok(pixels(image, [h, w, c])?.enlarge((128 / h.max(w).max(1)).max(1)))
}
