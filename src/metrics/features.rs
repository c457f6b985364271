//! A fixed random convolutional network that describes images by a vector each. Random filters with rectifiers and
//! pooling tell textures and shapes apart without any training (Jarrett et al., ICCV 2009; Ulyanov et al., "Deep Image
//! Prior", CVPR 2018), so a distance between such descriptions needs no downloaded network. Its values are comparable
//! with each other only, not with those on Inception's features.
//!
//! Five 3x3 convolutions with leaky ReLUs, all but the first with stride 2, borders mirrored. A description holds the
//! mean and the standard deviation of every channel of every layer over the image. The weights are uniform numbers from
//! the project's own generator, exact in single precision; [`checksum`] proves that they are the ones meant.

use super::Value;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::{Program, States};
use crate::graph::{Graph, Var};
use crate::ops::conv::ConvSpec;
use crate::rng::Philox;
use sha2::{Digest, Sha256};

/// Outputs of the layers.
const WIDTHS: [usize; 5] = [16, 24, 32, 48, 64];

/// Numbers in a description.
pub const DIMENSION: usize = 2 * (16 + 24 + 32 + 48 + 64);

/// The seed of the weights.
const SEED: u64 = 20_240_229;

/// Least extent of an image that can be described.
pub const SMALLEST: usize = 16;

/// Images that are described at once.
const BATCH: usize = 16;

/// The weights of a layer, `[out, 3, 3, in]`: uniform with variance 2 / fan in, which keeps the scale from layer to layer.
fn weights(layer: usize, inputs: usize) -> Vec<f32> {
    let mut rng = Philox::named(SEED, &format!("features {layer} of {inputs}"));
    let bound = (6.0 / (9 * inputs) as f64).sqrt() as f32;
    (0..WIDTHS[layer] * 9 * inputs).map(|_| (rng.range(-1.0, 1.0) as f32) * bound).collect()
}

/// SHA-256, as hexadecimal digits, of all weights for images of so many channels (little-endian, layer by layer).
pub fn checksum(channels: usize) -> String {
    let mut hash = Sha256::new();
    for layer in 0..WIDTHS.len() {
        for w in weights(layer, if layer == 0 { channels } else { WIDTHS[layer - 1] }) {
            hash.update(w.to_le_bytes());
        }
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Describes images `[n, h, w, c]`, channels last, on an intensity scale that is the same for all sets compared ([-1, 1]
/// is meant): n rows of [`DIMENSION`] numbers. Extents must be at least [`SMALLEST`].
pub fn describe<T: Value>(images: &[T], [n, h, w, c]: [usize; 4]) -> Result<Vec<f64>> {
    if n * h * w * c != images.len() || c == 0 {
        return Err(Error::input(format!(
            "the extents {n} x {h} x {w} x {c} do not describe {} values; check the shape",
            images.len()
        )));
    }
    if h.min(w) < SMALLEST {
        return Err(Error::input(format!(
            "images of {h} x {w} are too small to be described by features; at least {SMALLEST} x {SMALLEST} is needed"
        )));
    }
    let mut out = Vec::with_capacity(n * DIMENSION);
    let each = h * w * c;
    let mut batch = BATCH.min(n);
    let mut program = program([batch, h, w, c])?;
    let mut states = States::new();
    let mut first = 0;
    while first < n {
        if n - first < batch {
            batch = n - first;
            program = self::program([batch, h, w, c])?;
        }
        let values: Vec<f32> =
            images[first * each..(first + batch) * each].iter().map(|&v| v.into() as f32).collect();
        program.run(&mut states, &[("images", &values)]);
        out.extend(program.output_f64(&mut states, "features"));
        first += batch;
    }
    Ok(out)
}

fn program(shape: [usize; 4]) -> Result<Program> {
    let graph = Graph::new(DType::F32);
    let x = graph.input("images", shape);
    let y = trace(&graph, &x);
    graph.check()?;
    Program::new(&graph, &[("features", &y)])
}

fn trace(graph: &Graph, x: &Var) -> Var {
    let n = x.shape()[0];
    let mut h = x.clone();
    let mut parts = Vec::new();
    for (layer, &width) in WIDTHS.iter().enumerate() {
        let inputs = h.channels();
        let values = weights(layer, inputs).into_iter().map(f64::from).collect();
        let w = graph.constant([width, 3, 3, inputs], values);
        let stride = if layer == 0 { 1 } else { 2 };
        h = h.pad_reflect(1).conv(&w, &ConvSpec::new(2, stride, 0)).leaky_relu(0.2);
        let flat = |v: Var| v.reshape(&[n, width]);
        parts.push(flat(h.mean(&[1, 2])));
        parts.push(flat(h.variance(&[1, 2], false).sqrt()));
    }
    crate::ops::concat::concat(&parts.iter().collect::<Vec<_>>(), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(n: usize, f: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
        let at = |i: usize| f(i / 400, i / 20 % 20, i % 20);
        (0..n * 400).map(at).collect()
    }

    #[test]
    fn the_weights_are_the_ones_meant() {
        assert_eq!(checksum(1), "32dbdef6ed8c5de8f0fdd65641d94093056e789042c6ff683b3e6f79e7997131");
        assert_ne!(checksum(1), checksum(2));
    }

    #[test]
    fn a_description_belongs_to_its_image_alone() {
        let x = images(19, |i, r, c| ((i * 7 + r * 3 + c * c) % 11) as f64 / 5.0 - 1.0);
        let all = describe(&x, [19, 20, 20, 1]).expect("valid");
        assert_eq!(all.len(), 19 * DIMENSION);
        let last = describe(&x[18 * 400..], [1, 20, 20, 1]).expect("valid");
        assert_eq!(last, all[18 * DIMENSION..]);
        assert!(all.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn textures_of_equal_mean_differ() {
        let stripes = images(1, |_, r, _| if r % 2 == 0 { 1.0 } else { -1.0 });
        let blocks = images(1, |_, r, c| if (r / 5 + c / 5) % 2 == 0 { 1.0 } else { -1.0 });
        let of = |x: &[f64]| describe(x, [1, 20, 20, 1]).expect("valid");
        let gap: f64 = of(&stripes).iter().zip(of(&blocks)).map(|(a, b)| (a - b).powi(2)).sum();
        assert!(gap.sqrt() > 0.5, "{}", gap.sqrt());
    }

    #[test]
    fn what_cannot_be_described_is_said() {
        assert!(describe(&[0.0f32; 100], [1, 10, 10, 1]).expect_err("small").to_string().contains("16 x 16"));
        assert!(describe(&[0.0f32; 100], [1, 20, 20, 1]).expect_err("short").to_string().contains("shape"));
    }
}
