//! The sizes of a convolution, shared by its three derivatives.

/// Everything that determines a convolution's index arithmetic. Spatial extents are always three (`[d, h, w]`);
/// 2D has `d = 1`, 1D `d = h = 1`, with kernel 1, stride 1, no padding and dilation 1 there.
///
/// Layouts, all row-major: `x [n, d, h, w, c]`, `w [k, kd, kh, kw, c / groups]`, `y [n, od, oh, ow, k]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvGeometry {
    /// Batch size.
    pub n: usize,
    /// Input channels (all groups together).
    pub c: usize,
    /// Output channels (all groups together).
    pub k: usize,
    /// Number of groups; divides `c` and `k`.
    pub groups: usize,
    /// Input extents.
    pub input: [usize; 3],
    /// Output extents.
    pub output: [usize; 3],
    /// Kernel extents.
    pub kernel: [usize; 3],
    /// Steps between outputs.
    pub stride: [usize; 3],
    /// Zeros before the first input element (those behind the last one follow from `output`).
    pub padding: [usize; 3],
    /// Steps between kernel taps.
    pub dilation: [usize; 3],
}

impl ConvGeometry {
    /// Number of kernel taps.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Input channels per group.
    pub fn group_c(&self) -> usize {
        self.c / self.groups
    }

    /// Output channels per group.
    pub fn group_k(&self) -> usize {
        self.k / self.groups
    }

    /// Input pixels of one image.
    pub fn in_pixels(&self) -> usize {
        self.input.iter().product()
    }

    /// Output pixels of one image.
    pub fn out_pixels(&self) -> usize {
        self.output.iter().product()
    }

    /// Multiply-adds count two; taps that fall on padding are counted (as PyTorch's own counter does).
    pub fn flops(&self) -> u64 {
        2 * (self.n * self.out_pixels() * self.k * self.taps() * self.group_c()) as u64
    }

    /// The input position along `axis` that output `o` sees through tap `t`, or `None` in the padding.
    #[inline]
    pub fn input_at(&self, axis: usize, o: usize, t: usize) -> Option<usize> {
        let p = (o * self.stride[axis] + t * self.dilation[axis]).wrapping_sub(self.padding[axis]);
        (p < self.input[axis]).then_some(p)
    }
}
