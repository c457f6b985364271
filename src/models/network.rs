//! What a network is to those who train it: a signature, settings within limits, and a forward pass.

use crate::error::{Error, Result};
use crate::graph::Var;
use crate::nn::Ctx;
use serde::Serialize;
use std::fmt::{self, Debug, Display, Formatter};

/// What goes into a network and what comes out. Any role in a method takes any network of a signature that fits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Images to images of the same extents, values in (-1, 1): a generator that ends in tanh.
    Image,
    /// Images to values per pixel without bounds: logits of regions or classes, or an image.
    Dense,
    /// Images to logits of overlapping patches, at one resolution or several: a discriminator.
    Patches,
    /// Images to a vector each: the one logit of a discriminator, the logits of classes, an embedding.
    Vector,
    /// Vectors of noise to images.
    Noise,
}

impl Signature {
    /// As in messages.
    pub fn text(self) -> &'static str {
        match self {
            Signature::Image => "image -> image in (-1, 1)",
            Signature::Dense => "image -> values per pixel",
            Signature::Patches => "image -> logits of patches",
            Signature::Vector => "image -> vector",
            Signature::Noise => "noise -> image",
        }
    }
}

impl Display for Signature {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What is wanted of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Channels of its output, or elements of its vector.
    pub channels: usize,
    /// Spatial extents of the images in the step.
    pub size: Vec<usize>,
}

/// What a network is asked to work on, as far as it is known: a recipe is checked before its images are opened.
#[derive(Clone, Debug)]
pub struct Limits<'a> {
    /// Where the network's settings stand in the recipe, such as `model.generator`.
    pub key: &'a str,
    /// Channels of its input, or numbers of noise.
    pub inputs: usize,
    /// Channels of its output.
    pub outputs: usize,
    /// Spatial extents of the images.
    pub size: Option<&'a [usize]>,
}

impl Limits<'_> {
    /// One sentence that names the setting, unless `fine`.
    pub fn require(&self, fine: bool, name: &str, why: &str) -> Result<()> {
        require(fine, self.key, name, why)
    }

    /// Refuses widths, that is channels of a layer, beyond `1..=most`.
    pub fn width(&self, name: &str, width: usize, most: usize) -> Result<()> {
        self.require((1..=most).contains(&width), name, &format!("between 1 and {most}"))
    }

    /// Refuses what is no probability that leaves something over.
    pub fn dropout(&self, probability: f64) -> Result<()> {
        self.require((0.0..1.0).contains(&probability), "dropout", "in [0, 1)")
    }

    /// Refuses a network with a shortcut from its input to its output where these differ in channels.
    pub fn same_channels(&self) -> Result<()> {
        let why = "in as many channels as `data.input` for a network with a shortcut";
        require(self.inputs == self.outputs, "data", "target", why)
    }

    /// Refuses images that are not square and whose extent is not `fine`; gives the reason `why`.
    pub fn square(&self, fine: impl Fn(usize) -> bool, why: &str) -> Result<()> {
        match self.size {
            None => Ok(()),
            Some(&[h, w]) if h == w => require(fine(h), "data", "canvas", why),
            Some(&[h, w]) => Err(Error::input(format!(
                "this model makes square images, but slices are {h} x {w}; set for example `data.canvas` = [64, 64]"
            ))),
            Some(_) => Err(Error::input("this model takes slices, not volumes; remove `data.patch`")),
        }
    }
}

/// One sentence that names the key, unless `fine`.
pub(crate) fn require(fine: bool, key: &str, name: &str, why: &str) -> Result<()> {
    if fine { Ok(()) } else { Err(Error::input(format!("`{key}.{name}` must lie {why}"))) }
}

/// A network with its settings. Its file holds these, its layers under the keys of its reference implementation, its limits
/// and its tests; one line of the registry ([`super::registry`]) makes it known.
pub trait Network: Debug + Send + Sync {
    /// What goes in and what comes out.
    fn signature(&self) -> Signature;

    /// Spatial extents divide by this inside; images of other extents are padded and the output is cropped.
    fn multiple(&self) -> usize {
        1
    }

    /// Whether it takes volumes as well as slices.
    fn takes_volumes(&self) -> bool {
        true
    }

    /// Whether the output of an image depends on the others in its batch while training: batch norm.
    fn mixes_batch(&self) -> bool;

    /// Whether the settings make sense.
    fn check(&self, limits: &Limits) -> Result<()>;

    /// Traces the network on `x`: images `[n, spatial.., c]` or noise `[n, numbers]`.
    ///
    /// The first output is the network's. Others have the same meaning: predictions at lower resolutions, enlarged to the
    /// image's extents (deep supervision), or logits of lower resolutions (discriminators).
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var>;
}

impl Wanted {
    /// Shapes a network's vectors: `[n, channels]`, or `[n]` where one number is wanted, as of a discriminator.
    pub fn vector(&self, y: &Var) -> Var {
        let n = y.shape()[0];
        if self.channels == 1 { y.reshape(&[n]) } else { y.reshape(&[n, self.channels]) }
    }
}

/// The settings of a network, as in a recipe.
pub(super) fn settings(network: &(impl Serialize + ?Sized)) -> serde_json::Map<String, serde_json::Value> {
    match serde_json::to_value(network) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    }
}
