//! Which source pixels an output pixel sees. A convolution and its input gradient are the same sum: every output pixel
//! gathers source pixels through taps. For the gradient of a strided convolution the outputs fall into classes (one per
//! residue of the position by the stride), each of which is a stride-1 gather through every `stride`-th tap: no zeros
//! are inserted and none are multiplied.

use crate::ops::conv::geometry::ConvGeometry;

/// One axis of a gather. Output `start + q * step` (`q < count`) sees source `q * src_step + offset + j * spacing`
/// through tap `tap + j * tap_step`, for `j < taps`. Taps that only ever see padding are left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub start: usize,
    pub step: usize,
    pub count: usize,
    pub src_step: isize,
    pub src_len: isize,
    pub taps: usize,
    tap: isize,
    tap_step: isize,
    pub offset: isize,
    pub spacing: isize,
}

impl Axis {
    /// Outputs gather inputs: the convolution itself, with the taps that see padding only.
    fn untrimmed(g: &ConvGeometry, axis: usize) -> Self {
        Axis {
            start: 0,
            step: 1,
            count: g.output[axis],
            src_step: g.stride[axis] as isize,
            src_len: g.input[axis] as isize,
            taps: g.kernel[axis],
            tap: 0,
            tap_step: 1,
            offset: -(g.padding[axis] as isize),
            spacing: g.dilation[axis] as isize,
        }
    }

    /// Inputs at `residue` modulo the stride gather outputs: the input gradient.
    fn backward(g: &ConvGeometry, axis: usize, residue: usize) -> Self {
        let (stride, dilation) = (g.stride[axis], g.dilation[axis]);
        let at = (residue + g.padding[axis]) as isize;
        // Tap `t` reaches output `(at - t * dilation) / stride` where that is whole: for every `period`-th tap.
        let common = gcd(stride, dilation);
        let period = stride / common;
        let first =
            (0..period.min(g.kernel[axis])).find(|&t| (at - (t * dilation) as isize) % stride as isize == 0);
        let taps = first.map_or(0, |t| (g.kernel[axis] - t).div_ceil(period));
        // From the last tap to the first: the sources then ascend.
        let tap = first.map_or(0, |t| (t + taps.saturating_sub(1) * period) as isize);
        let all = Axis {
            start: residue,
            step: stride,
            count: g.input[axis].saturating_sub(residue).div_ceil(stride),
            src_step: 1,
            src_len: g.output[axis] as isize,
            taps,
            tap,
            tap_step: -(period as isize),
            offset: (at - tap * dilation as isize) / stride as isize,
            spacing: (dilation / common) as isize,
        };
        all.trimmed()
    }

    fn trimmed(mut self) -> Self {
        let reach = (self.count as isize - 1) * self.src_step;
        while self.taps > 0 && self.offset + reach < 0 {
            self.offset += self.spacing;
            self.tap += self.tap_step;
            self.taps -= 1;
        }
        while self.taps > 0 && self.offset + (self.taps as isize - 1) * self.spacing >= self.src_len {
            self.taps -= 1;
        }
        self
    }

    /// The kernel index of tap `j`.
    fn tap(&self, j: usize) -> usize {
        (self.tap + j as isize * self.tap_step) as usize
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The three axes of a gather.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    pub axes: [Axis; 3],
    /// Kernel extents, to number the taps.
    kernel: [usize; 3],
}

/// Where an output pixel's window starts, before the taps' offsets: image, depth, row, column.
pub(super) type Window = [i32; 4];

impl Gather {
    /// The convolution.
    pub fn forward(g: &ConvGeometry) -> Self {
        Gather { axes: [0, 1, 2].map(|axis| Axis::untrimmed(g, axis).trimmed()), kernel: g.kernel }
    }

    /// The convolution with all its taps, in the kernel's order.
    pub fn every_tap(g: &ConvGeometry) -> Self {
        Gather { axes: [0, 1, 2].map(|axis| Axis::untrimmed(g, axis)), kernel: g.kernel }
    }

    /// Whether tap `j` sees anything but padding.
    pub fn sees(&self, j: usize) -> bool {
        let taps = self.split(j);
        (0..3).all(|axis| {
            let a = &self.axes[axis];
            let first = a.offset + taps[axis] as isize * a.spacing;
            first < a.src_len && first + (a.count as isize - 1) * a.src_step >= 0
        })
    }

    /// The input gradient, for the inputs at `residues` modulo the strides.
    fn backward(g: &ConvGeometry, residues: [usize; 3]) -> Self {
        Gather { axes: [0, 1, 2].map(|axis| Axis::backward(g, axis, residues[axis])), kernel: g.kernel }
    }

    /// The input gradient's class number `i`, of as many as the product of the strides.
    pub fn class(g: &ConvGeometry, i: usize) -> Self {
        let [_, h, w] = g.stride;
        Gather::backward(g, [i / (h * w), i / w % h, i % w])
    }

    /// Number of taps that see anything.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.taps).product()
    }

    /// The number that tap `j` of this gather has in the kernel.
    pub fn kernel_tap(&self, j: usize) -> usize {
        let [d, h, w] = self.split(j);
        let [ad, ah, aw] = &self.axes;
        (ad.tap(d) * self.kernel[1] + ah.tap(h)) * self.kernel[2] + aw.tap(w)
    }

    fn split(&self, j: usize) -> [usize; 3] {
        let [_, h, w] = self.axes.map(|a| a.taps);
        [j / (h * w), j / w % h, j % w]
    }

    /// Lists the windows of those among the output pixels `first..first + count` that belong to this gather, and their
    /// positions in that range; returns how many there are. `extent` are the output's, all classes together.
    pub fn windows(
        &self,
        extent: [usize; 3],
        first: usize,
        count: usize,
        windows: &mut [Window],
        places: &mut [usize],
    ) -> usize {
        let [d, h, w] = extent;
        let [ad, ah, aw] = &self.axes;
        let mut found = 0;
        let (mut line, mut x0) = (first / w, first % w);
        let mut at = 0;
        while at < count {
            let here = (w - x0).min(count - at);
            let (y, z, image) = (line % h, line / h % d, line / (h * d));
            if y % ah.step == ah.start && z % ad.step == ad.start {
                let (qz, qy) = (z / ad.step, y / ah.step);
                let mut qx = x0.saturating_sub(aw.start).div_ceil(aw.step);
                loop {
                    let x = aw.start + qx * aw.step;
                    if x >= x0 + here {
                        break;
                    }
                    windows[found] = [
                        image as i32,
                        (qz as isize * ad.src_step) as i32,
                        (qy as isize * ah.src_step) as i32,
                        (qx as isize * aw.src_step) as i32,
                    ];
                    places[found] = at + x - x0;
                    found += 1;
                    qx += 1;
                }
            }
            at += here;
            line += 1;
            x0 = 0;
        }
        found
    }

    /// Calls `put(window's index, column, columns, source)` for runs of the gathered matrix's columns: taps
    /// `taps` times the `depth` channels from `channel` on, of `channels` in all. `source` is where the run starts in
    /// the source, `None` for padding.
    #[inline]
    pub fn runs(
        &self,
        windows: &[Window],
        taps: std::ops::Range<usize>,
        (channels, channel, depth): (usize, usize, usize),
        mut put: impl FnMut(usize, usize, usize, Option<usize>),
    ) {
        let [ad, ah, aw] = &self.axes;
        // Neighbouring taps see neighbouring pixels, which are one run when all their channels are wanted.
        let joined = aw.spacing == 1 && depth == channels;
        let (lines, plane) = (aw.src_len as usize, (ah.src_len * aw.src_len) as usize);
        let inside = |p: isize, a: &Axis| (p >= 0 && p < a.src_len).then_some(p as usize);
        if taps.is_empty() {
            return;
        }
        let begin = self.split(taps.start);
        for (i, window) in windows.iter().enumerate() {
            let [image, z, y, x] = window.map(|v| v as isize);
            let [mut jd, mut jh, mut jw] = begin;
            let (mut tap, mut col) = (taps.start, 0);
            while tap < taps.end {
                let run = (aw.taps - jw).min(taps.end - tap);
                let line = inside(z + ad.offset + jd as isize * ad.spacing, ad)
                    .zip(inside(y + ah.offset + jh as isize * ah.spacing, ah))
                    .map(|(z, y)| (image as usize * ad.src_len as usize + z) * plane + y * lines);
                let x = x + aw.offset + jw as isize * aw.spacing;
                match line {
                    None => put(i, col, run * depth, None),
                    Some(line) if joined => {
                        let left = (-x).clamp(0, run as isize) as usize;
                        let right = (aw.src_len - x).clamp(left as isize, run as isize) as usize;
                        if left > 0 {
                            put(i, col, left * depth, None);
                        }
                        if right > left {
                            let from = line + (x + left as isize) as usize;
                            put(i, col + left * depth, (right - left) * depth, Some(from * channels));
                        }
                        if run > right {
                            put(i, col + right * depth, (run - right) * depth, None);
                        }
                    }
                    Some(line) => {
                        for j in 0..run {
                            let from = inside(x + j as isize * aw.spacing, aw);
                            put(i, col + j * depth, depth, from.map(|x| (line + x) * channels + channel));
                        }
                    }
                }
                col += run * depth;
                tap += run;
                jw = 0;
                jh += 1;
                if jh == ah.taps {
                    jh = 0;
                    jd += 1;
                }
            }
        }
    }
}
