//! Pictures for people: slices of float images side by side, as 8-bit images.
//!
//! Every tile is drawn in a fixed display window, so that panels of different steps can be compared; differences are
//! drawn in the perceptually uniform colour map magma (van der Walt and Smith, 2015; nine control points). Values that
//! are not finite are drawn in pure magenta, which no window produces.

use crate::error::{Error, Result};
use crate::fsio;
use std::path::Path;

/// Magma at 0, 1/8, ..., 1 (sRGB).
const MAGMA: [[u8; 3]; 9] = [
    [0x00, 0x00, 0x04],
    [0x1d, 0x11, 0x47],
    [0x51, 0x12, 0x7c],
    [0x82, 0x26, 0x81],
    [0xb6, 0x36, 0x79],
    [0xe6, 0x51, 0x64],
    [0xfb, 0x88, 0x61],
    [0xfe, 0xc2, 0x87],
    [0xfc, 0xfd, 0xbf],
];
const NOT_FINITE: [u8; 3] = [255, 0, 255];
const SEPARATOR: [u8; 3] = [64, 64, 64];

/// An 8-bit image, grey or RGB, row by row from the top left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// From interleaved pixels: 1 channel is grey, 3 are RGB. Fails on another number of channels, an empty image, or
    /// a length that does not fit.
    pub fn new(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Result<Self> {
        if !matches!(channels, 1 | 3) {
            return Err(Error::input(format!("a picture has 1 (grey) or 3 (RGB) channels, not {channels}")));
        }
        check_extent(pixels.len(), channels, height, width)?;
        Ok(Image { width, height, channels, pixels })
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// 1 for grey, 3 for RGB.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Interleaved pixels.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The same in RGB.
    pub fn to_rgb(&self) -> Image {
        let pixels = match self.channels {
            1 => self.pixels.iter().flat_map(|&v| [v; 3]).collect(),
            _ => self.pixels.clone(),
        };
        Image { channels: 3, pixels, ..*self }
    }

    /// Every pixel repeated `factor` times along both axes (nearest neighbour; 0 counts as 1).
    pub fn enlarge(&self, factor: usize) -> Image {
        let factor = factor.max(1);
        let mut pixels = Vec::with_capacity(self.pixels.len() * factor * factor);
        for row in self.pixels.chunks_exact(self.width * self.channels) {
            let wide: Vec<u8> = row.chunks_exact(self.channels).flat_map(|p| p.repeat(factor)).collect();
            (0..factor).for_each(|_| pixels.extend_from_slice(&wide));
        }
        Image { width: self.width * factor, height: self.height * factor, channels: self.channels, pixels }
    }

    /// The bytes of a PNG file. Fails only beyond PNG's limits of size.
    pub fn png(&self) -> Result<Vec<u8>> {
        let too_large = |e: &dyn std::fmt::Display| {
            Error::input(format!(
                "a picture of {} x {} cannot be a PNG: {e}; show fewer tiles",
                self.width, self.height
            ))
        };
        let side = |n: usize| u32::try_from(n).map_err(|e| too_large(&e));
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side(self.width)?, side(self.height)?);
        encoder.set_color(if self.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder.set_filter(png::Filter::Adaptive);
        let mut writer = encoder.write_header().map_err(|e| too_large(&e))?;
        writer.write_image_data(&self.pixels).map_err(|e| too_large(&e))?;
        writer.finish().map_err(|e| too_large(&e))?;
        Ok(bytes)
    }

    /// Writes a PNG file atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        fsio::write_bytes(path, &self.png()?)
    }

    fn rgb_at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * self.channels;
        match self.channels {
            1 => [self.pixels[at]; 3],
            _ => [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]],
        }
    }
}

/// How numbers become colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Black to white.
    Grey,
    /// Black over purple and orange to pale yellow.
    Magma,
}

/// A fixed display window: `low` is drawn darkest, `high` brightest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Display {
    /// The value drawn darkest.
    pub low: f32,
    /// The value drawn brightest.
    pub high: f32,
    /// The colours between.
    pub colours: Colours,
}

impl Display {
    /// A grey window.
    pub fn grey(low: f32, high: f32) -> Self {
        Display { low, high, colours: Colours::Grey }
    }

    /// A window in magma.
    pub fn magma(low: f32, high: f32) -> Self {
        Display { low, high, colours: Colours::Magma }
    }

    /// Draws `height` rows of `width` values. Grey stays grey unless a value is not finite. Fails when the length does
    /// not fit or the window is empty.
    pub fn draw(&self, values: &[f32], height: usize, width: usize) -> Result<Image> {
        check_extent(values.len(), 1, height, width)?;
        if !(self.low < self.high && (self.high - self.low).is_finite()) {
            return Err(Error::input(format!(
                "the display window is {} to {}; its lower end must be below its upper end",
                self.low, self.high
            )));
        }
        let share = |v: f32| ((v - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        let grey = |v: f32| (share(v) * 255.0).round() as u8;
        if self.colours == Colours::Grey && values.iter().all(|v| v.is_finite()) {
            return Image::new(width, height, 1, values.iter().map(|&v| grey(v)).collect());
        }
        let colour = |v: f32| match self.colours {
            _ if !v.is_finite() => NOT_FINITE,
            Colours::Grey => [grey(v); 3],
            Colours::Magma => magma(share(v)),
        };
        Image::new(width, height, 3, values.iter().flat_map(|&v| colour(v)).collect())
    }
}

/// One row of a comparison: slices of one size.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// What the network saw (the channel to show).
    pub input: &'a [f32],
    /// What it should have made.
    pub target: &'a [f32],
    /// What it made.
    pub output: &'a [f32],
}

/// How a comparison is drawn.
#[derive(Clone, Copy, Debug)]
pub struct ComparisonStyle {
    /// Window of the input.
    pub input: Display,
    /// Window of target and output.
    pub target: Display,
    /// The absolute error that is drawn brightest (magma, from 0).
    pub error_high: f32,
    /// Tiles smaller than this many pixels a side are enlarged by a whole factor, at most to it.
    pub min_side: usize,
}

impl ComparisonStyle {
    /// For images in [-1, 1]: the whole scale, errors up to a quarter of it, tiles of about 256 pixels.
    pub fn signed_unit() -> Self {
        let scale = Display::grey(-1.0, 1.0);
        ComparisonStyle { input: scale, target: scale, error_high: 0.5, min_side: 256 }
    }
}

/// Rows of input | target | output | |output - target|, all of `height` x `width`. Fails when a slice has another size
/// or a window is empty.
pub fn comparison(
    rows: &[Comparison],
    height: usize,
    width: usize,
    style: &ComparisonStyle,
) -> Result<Image> {
    let factor = (style.min_side / height.max(width).max(1)).max(1);
    let draw = |row: &Comparison| {
        check_extent(row.output.len(), 1, height, width)?;
        check_extent(row.target.len(), 1, height, width)?;
        let error: Vec<f32> = row.output.iter().zip(row.target).map(|(o, t)| (o - t).abs()).collect();
        let tiles = [
            style.input.draw(row.input, height, width)?,
            style.target.draw(row.target, height, width)?,
            style.target.draw(row.output, height, width)?,
            Display::magma(0.0, style.error_high).draw(&error, height, width)?,
        ];
        Ok(tiles.iter().map(|t| t.enlarge(factor)).collect())
    };
    grid(&rows.iter().map(draw).collect::<Result<Vec<Vec<Image>>>>()?, 2)
}

/// Tiles in rows, top left in their cells, with `gap` pixels between cells. Columns are as wide as their widest tile.
/// Grey when every tile is. Fails when there is no tile.
pub fn grid(rows: &[Vec<Image>], gap: usize) -> Result<Image> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    if columns == 0 {
        return Err(Error::input(
            "a panel needs at least one picture; check that the split has cases to show",
        ));
    }
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|r| r.get(c)).map(|t| t.width).max().unwrap_or(0))
        .collect();
    let heights: Vec<usize> = rows.iter().map(|r| r.iter().map(|t| t.height).max().unwrap_or(0)).collect();
    let extent = |sides: &[usize]| sides.iter().sum::<usize>() + gap * (sides.len() - 1);
    let (width, height) = (extent(&widths), extent(&heights));
    let channels = rows.iter().flatten().map(|t| t.channels).max().unwrap_or(1);
    let mut pixels = SEPARATOR[..channels].repeat(width * height);
    let mut top = 0;
    for (row, row_height) in rows.iter().zip(&heights) {
        let mut left = 0;
        for (tile, column_width) in row.iter().zip(&widths) {
            for (x, y) in (0..tile.height).flat_map(|y| (0..tile.width).map(move |x| (x, y))) {
                let at = ((top + y) * width + left + x) * channels;
                pixels[at..at + channels].copy_from_slice(&tile.rgb_at(x, y)[..channels]);
            }
            left += column_width + gap;
        }
        top += row_height + gap;
    }
    Image::new(width, height, channels, pixels)
}

/// The slice `index` along `axis` (0 depth, 1 height, 2 width) of a volume `[depth, height, width]`: its values, rows
/// and columns. Fails when the volume has no such slice.
pub fn slice(
    volume: &[f32],
    dims: [usize; 3],
    axis: usize,
    index: usize,
) -> Result<(Vec<f32>, usize, usize)> {
    check_extent(volume.len(), dims[0], dims[1], dims[2])?;
    if axis > 2 || index >= dims[axis] {
        return Err(Error::input(format!(
            "there is no slice {index} along axis {axis} of a volume of {} x {} x {}; choose one inside",
            dims[0], dims[1], dims[2]
        )));
    }
    let (rows, columns) = [(1, 2), (0, 2), (0, 1)][axis];
    let strides = [dims[1] * dims[2], dims[2], 1];
    let at = |r: usize, c: usize| volume[index * strides[axis] + r * strides[rows] + c * strides[columns]];
    let values = (0..dims[rows]).flat_map(|r| (0..dims[columns]).map(move |c| (r, c))).map(|(r, c)| at(r, c));
    Ok((values.collect(), dims[rows], dims[columns]))
}

/// Magma at `share` in [0, 1], linear between the control points.
fn magma(share: f32) -> [u8; 3] {
    let position = share * (MAGMA.len() - 1) as f32;
    let below = (position as usize).min(MAGMA.len() - 2);
    let t = position - below as f32;
    std::array::from_fn(|c| {
        let (a, b) = (f32::from(MAGMA[below][c]), f32::from(MAGMA[below + 1][c]));
        (a + t * (b - a)).round() as u8
    })
}

fn check_extent(len: usize, depth: usize, height: usize, width: usize) -> Result<()> {
    let wanted = depth.checked_mul(height).and_then(|n| n.checked_mul(width));
    if len > 0 && wanted == Some(len) {
        return Ok(());
    }
    Err(Error::input(format!(
        "a picture of {height} x {width} was given {len} values for {depth} plane(s); check the slice's shape"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_colours() {
        let grey = Display::grey(-1.0, 1.0).draw(&[-2.0, -1.0, 0.0, 1.0, 3.0, 0.5], 2, 3).unwrap();
        assert_eq!((grey.channels(), grey.pixels()), (1, &[0, 0, 128, 255, 255, 191][..]));
        let hot = Display::magma(0.0, 1.0).draw(&[0.0, 0.125, 1.0, 0.0625], 1, 4).unwrap();
        assert_eq!(hot.pixels(), [0, 0, 4, 0x1d, 0x11, 0x47, 0xfc, 0xfd, 0xbf, 15, 9, 38]);
        let broken = Display::grey(0.0, 1.0).draw(&[f32::NAN, 1.0], 1, 2).unwrap();
        assert_eq!(broken.pixels(), [255, 0, 255, 255, 255, 255]);
    }

    #[test]
    fn a_grid_places_every_tile() {
        let tile = |v: u8, w: usize, h: usize| Image::new(w, h, 1, vec![v; w * h]).unwrap();
        let g = grid(&[vec![tile(1, 2, 1), tile(2, 1, 2)], vec![tile(3, 1, 1)]], 1).unwrap();
        assert_eq!((g.width(), g.height(), g.channels()), (4, 4, 1));
        assert_eq!(g.pixels(), [1, 1, 64, 2, 64, 64, 64, 2, 64, 64, 64, 64, 3, 64, 64, 64]);
        let mixed = grid(&[vec![tile(9, 1, 1), Image::new(1, 1, 3, vec![1, 2, 3]).unwrap()]], 0).unwrap();
        assert_eq!(mixed.pixels(), [9, 9, 9, 1, 2, 3]);
        assert_eq!(tile(7, 1, 2).enlarge(2).pixels(), [7; 8]);
        assert_eq!(
            Image::new(2, 1, 3, vec![1, 2, 3, 4, 5, 6]).unwrap().enlarge(2).pixels(),
            [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6].repeat(2)
        );
    }

    #[test]
    fn a_comparison_is_four_tiles_a_row_and_reads_back_from_png() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("panel.png");
        let (a, b) = (vec![0.0f32; 12], vec![0.5f32; 12]);
        let row = Comparison { input: &a, target: &a, output: &b };
        let style = ComparisonStyle { min_side: 8, ..ComparisonStyle::signed_unit() };
        let panel = comparison(&[row, row], 3, 4, &style).unwrap();
        assert_eq!((panel.width(), panel.height(), panel.channels()), (4 * 8 + 3 * 2, 2 * 6 + 2, 3));
        panel.save(&path).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let mut back = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; back.output_buffer_size().unwrap()];
        let info = back.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (38, 14, png::ColorType::Rgb));
        assert_eq!(pixels, panel.pixels());
        // The error of 0.5 is the brightest colour; the output's grey is 191.
        assert_eq!(pixels[3 * 37..][..3], MAGMA[8]);
        assert_eq!(pixels[3 * (13 * 38 + 20)..][..3], [191; 3]);
    }

    #[test]
    fn slices_along_each_axis() {
        let v: Vec<f32> = (0..24u8).map(f32::from).collect();
        assert_eq!(slice(&v, [2, 3, 4], 0, 1).unwrap(), ((12..24u8).map(f32::from).collect(), 3, 4));
        assert_eq!(
            slice(&v, [2, 3, 4], 1, 2).unwrap(),
            (vec![8.0, 9.0, 10.0, 11.0, 20.0, 21.0, 22.0, 23.0], 2, 4)
        );
        assert_eq!(slice(&v, [2, 3, 4], 2, 3).unwrap(), (vec![3.0, 7.0, 11.0, 15.0, 19.0, 23.0], 2, 3));
        assert!(slice(&v, [2, 3, 4], 0, 2).is_err() && slice(&v, [2, 3, 5], 0, 0).is_err());
    }

    #[test]
    fn misuse_is_refused() {
        assert!(Image::new(2, 2, 4, vec![0; 16]).is_err() && Image::new(0, 0, 1, vec![]).is_err());
        assert!(Display::grey(1.0, 1.0).draw(&[0.0], 1, 1).unwrap_err().to_string().contains("window"));
        assert!(grid(&[], 1).is_err() && grid(&[vec![]], 1).is_err());
        let short = Comparison { input: &[0.0], target: &[0.0], output: &[] };
        assert!(comparison(&[short], 1, 1, &ComparisonStyle::signed_unit()).is_err());
    }
}
