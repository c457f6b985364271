//! What TMA (sm_90) is told of a tensor of bf16 numbers: where it lies, and which box of it one copy takes.
//!
//! Axes go from the fastest to the slowest. Boxes have rows of 64 elements (128 bytes), whose 16-byte chunks are permuted in
//! shared memory; what a box covers outside the tensor arrives as zeros. Source: CUDA driver API, "Tensor Map Object
//! Management".

/// The bytes of an encoded map.
pub const BYTES: usize = 128;

/// The alignment of an encoded map.
pub const ALIGNED: usize = 64;

/// Elements in a row of a box.
pub const ROW: usize = 64;

/// Which elements a copy takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// A block of so many elements along each axis.
    Tiled(Vec<usize>),
    /// The channels of so many pixels, as a convolution meets them: the axes are channels, spatial ones, images. Pixels are
    /// counted from a given one in steps of `steps`, within `lower ..extent + upper` along each spatial axis, from there to
    /// the next row, and from the last one into the next image.
    Im2col {
        /// Where the walk begins along each spatial axis, below 0 for padding.
        lower: Vec<i32>,
        /// By how much it ends behind the extent, or before it.
        upper: Vec<i32>,
        /// Distance of neighbouring pixels along each spatial axis.
        steps: Vec<usize>,
        /// How many pixels.
        pixels: usize,
    },
}

/// A tensor, dense but for its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// Elements along each axis, the fastest first.
    pub extents: Vec<usize>,
    /// What a copy takes.
    pub take: Take,
}

impl TensorMap {
    /// Bytes between neighbours along the second and later axes.
    pub fn strides(&self) -> Vec<u64> {
        let mut all = Vec::new();
        let mut bytes = 2u64;
        for &extent in &self.extents[..self.extents.len() - 1] {
            bytes *= extent as u64;
            all.push(bytes);
        }
        all
    }

    /// Bytes of the tensor.
    pub fn bytes(&self) -> u64 {
        2 * self.extents.iter().map(|&e| e as u64).product::<u64>()
    }

    /// Whether TMA takes such a map: the driver's own conditions, and that an offset within an im2col box, up to
    /// `reach` along each spatial axis, fits into its instruction.
    pub fn is_valid(&self, reach: &[usize]) -> bool {
        let offsets = match (&self.take, self.extents.len()) {
            (Take::Tiled(_), _) => usize::MAX,
            (_, 4) => 255,
            _ => 31,
        };
        self.check(0).is_ok() && reach.iter().all(|&r| r < offsets)
    }

    /// Why the driver would not encode the map of a tensor at an address.
    pub fn check(&self, address: u64) -> Result<(), String> {
        let rank = self.extents.len();
        let require = |holds: bool, what: &dyn Fn() -> String| if holds { Ok(()) } else { Err(what()) };
        let ranks = if matches!(self.take, Take::Tiled(_)) { 2..=5 } else { 4..=5 };
        require(ranks.contains(&rank), &|| format!("a map of {rank} axes; {ranks:?} are taken"))?;
        require(address.is_multiple_of(16), &|| {
            format!("a map of a tensor at {address:#x}, no multiple of 16")
        })?;
        let extents = self.extents.iter().all(|&e| e > 0 && e as u64 <= 1 << 32);
        require(extents, &|| format!("a map of a tensor of {:?} elements", self.extents))?;
        let strides = self.strides();
        let fine = strides.iter().all(|s| s.is_multiple_of(16) && *s < 1 << 40);
        require(fine, &|| {
            format!("a map with strides of {strides:?} bytes: multiples of 16 below 2^40 are taken")
        })?;
        match &self.take {
            Take::Tiled(taken) => {
                let fine =
                    taken.len() == rank && taken.iter().all(|e| (1..=256).contains(e)) && taken[0] == ROW;
                require(fine, &|| {
                    format!("a map with boxes of {taken:?}: rows of {ROW}, 1 to 256 along each axis")
                })
            }
            Take::Im2col { lower, upper, steps, pixels } => {
                let corners = if rank == 4 { -128..=127 } else { -16..=15 };
                let all = lower.len() == rank - 2 && upper.len() == rank - 2 && steps.len() == rank - 2;
                let fine = all && lower.iter().chain(upper).all(|c| corners.contains(c));
                require(fine, &|| {
                    format!("a map with corners at {lower:?} and {upper:?}: {corners:?} are taken")
                })?;
                let room =
                    (0..rank - 2).all(|a| self.extents[1 + a] as i64 + i64::from(upper[a] - lower[a]) > 0);
                require(room, &|| format!("a map whose corners {lower:?} and {upper:?} hold no pixel"))?;
                let fine = steps.iter().all(|s| (1..=8).contains(s));
                require(fine, &|| format!("a map with steps of {steps:?}: 1 to 8 are taken"))?;
                require((1..=1024).contains(pixels), &|| {
                    format!("a map of {pixels} pixels: 1 to 1024 are taken")
                })
            }
        }
    }

    /// The map as the tests' emulator reads it (`MapDescription` in `kernels/emu/hopper.hpp`).
    pub fn describe(&self, address: u64) -> Vec<u8> {
        let mut bytes = address.to_ne_bytes().to_vec();
        let mut words = |values: &[u32], room: usize| {
            (0..room).for_each(|i| bytes.extend(values.get(i).copied().unwrap_or(0).to_ne_bytes()));
        };
        let strides: Vec<u32> = self.strides().iter().flat_map(|s| [*s as u32, (s >> 32) as u32]).collect();
        words(&strides, 8);
        words(&self.extents.iter().map(|&e| e as u32).collect::<Vec<_>>(), 5);
        words(&[0x7061_4d54], 1);
        let none = Vec::new();
        let (taken, lower, upper, steps, im2col) = match &self.take {
            Take::Tiled(extents) => (extents.clone(), &none, &none, vec![1; 5], 0),
            Take::Im2col { lower, upper, steps, pixels } => {
                (vec![ROW, *pixels], lower, upper, [&[1], &steps[..], &[1; 4]].concat(), 1)
            }
        };
        words(&taken.iter().map(|&e| e as u32).collect::<Vec<_>>(), 5);
        for corners in [lower, upper] {
            (0..3).for_each(|i| bytes.extend((corners.get(i).copied().unwrap_or(0) as i16).to_ne_bytes()));
        }
        bytes.extend(steps[..5].iter().map(|&s| s as u8));
        bytes.extend([self.extents.len() as u8, im2col]);
        bytes.resize(BYTES, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_copy_engine_does_not_take_is_known() {
        let tiled = |extents: &[usize], take: &[usize]| {
            TensorMap { extents: extents.to_vec(), take: Take::Tiled(take.to_vec()) }.is_valid(&[])
        };
        assert!(tiled(&[64, 9, 128], &[64, 1, 128]));
        assert!(!tiled(&[60, 9], &[64, 1]), "rows of 120 bytes");
        assert!(!tiled(&[64, 900], &[64, 257]));
        let im2col = |lower: i32, step: usize, reach: usize| {
            let take =
                Take::Im2col { lower: vec![lower; 2], upper: vec![-1; 2], steps: vec![step; 2], pixels: 128 };
            TensorMap { extents: vec![8, 5, 7, 2], take }.is_valid(&[reach])
        };
        assert!(im2col(-1, 2, 3));
        assert!(!im2col(-129, 2, 3) && !im2col(-1, 9, 3) && !im2col(-1, 2, 255));
    }

    #[test]
    fn what_the_driver_would_not_encode_is_told() {
        let tiled = |extents: &[usize], take: &[usize]| TensorMap {
            extents: extents.to_vec(),
            take: Take::Tiled(take.to_vec()),
        };
        let im2col = |extents: &[usize], lower: i32, upper: i32, step: usize, pixels: usize| {
            let n = extents.len().saturating_sub(2);
            let (lower, upper, steps) = (vec![lower; n], vec![upper; n], vec![step; n]);
            TensorMap { extents: extents.to_vec(), take: Take::Im2col { lower, upper, steps, pixels } }
        };
        assert_eq!(tiled(&[64, 9, 128], &[64, 1, 128]).check(4096), Ok(()));
        assert_eq!(im2col(&[8, 5, 7, 2], -1, -1, 2, 128).check(16), Ok(()));
        let cases = [
            (tiled(&[64, 9], &[64, 9]), 8, "no multiple of 16"),
            (tiled(&[64, 0], &[64, 1]), 0, "elements"),
            (tiled(&[60, 9], &[64, 1]), 0, "strides"),
            (tiled(&[64, 1 << 20, 1 << 20, 2], &[64, 1, 1, 1]), 0, "below 2^40"),
            (tiled(&[64, 900], &[64, 257]), 0, "1 to 256"),
            (tiled(&[128, 9], &[128, 1]), 0, "rows of 64"),
            (tiled(&[64], &[64]), 0, "axes"),
            (im2col(&[8, 5, 7], -1, -1, 2, 128), 0, "axes"),
            (im2col(&[8, 5, 7, 2], -129, -1, 2, 128), 0, "corners at"),
            (im2col(&[8, 5, 7, 3, 2], -17, -1, 2, 128), 0, "corners at"),
            (im2col(&[8, 5, 7, 2], 3, -3, 2, 128), 0, "hold no pixel"),
            (im2col(&[8, 5, 7, 2], -1, -1, 9, 128), 0, "steps"),
            (im2col(&[8, 5, 7, 2], -1, -1, 2, 1025), 0, "pixels"),
        ];
        for (map, address, why) in cases {
            let told = map.check(address).expect_err(why);
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn strides_are_those_of_a_dense_tensor() {
        let map = TensorMap { extents: vec![8, 5, 7, 2], take: Take::Tiled(vec![64; 4]) };
        assert_eq!(map.strides(), [16, 80, 560]);
        assert_eq!(map.bytes(), 1120);
        assert_eq!(map.describe(5).len(), BYTES);
    }
}
