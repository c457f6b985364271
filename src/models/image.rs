//! The choice of networks for images: what turns one into another, and what judges one.

use super::{MultiScaleGan, PatchGan, PixelGan, ResnetGenerator, UnetGenerator};
use crate::error::{Error, Result};
use crate::graph::Var;
use crate::nn::{Ctx, Norm};
use serde::{Deserialize, Serialize};

/// A generator. In a recipe: `generator = { kind = "resnet", blocks = 6 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ImageGenerator {
    /// pix2pix's U-Net.
    Unet(UnetGenerator),
    /// CycleGAN's residual network.
    Resnet(ResnetGenerator),
}

/// A discriminator. In a recipe: `discriminator = { kind = "patch" }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ImageDiscriminator {
    /// Judges overlapping patches.
    Patch(PatchGan),
    /// Judges pixels.
    Pixel(PixelGan),
    /// Judges patches at several resolutions.
    MultiScale(MultiScaleGan),
}

impl ImageGenerator {
    /// Traces the network: `[n, spatial.., c]` to `[n, spatial.., channels]` in (-1, 1).
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var, channels: usize) -> Var {
        match self {
            ImageGenerator::Unet(g) => g.forward(cx, x, channels),
            ImageGenerator::Resnet(g) => g.forward(cx, x, channels),
        }
    }

    /// Spatial extents divide by this inside.
    pub fn multiple(&self) -> usize {
        match self {
            ImageGenerator::Unet(g) => 1 << g.downs,
            ImageGenerator::Resnet(_) => ResnetGenerator::MULTIPLE,
        }
    }

    /// Whether the settings make sense; `key` is where they stand in the recipe.
    pub fn check(&self, key: &str) -> Result<()> {
        let (width, dropout) = match self {
            ImageGenerator::Unet(g) => {
                require((2..=10).contains(&g.downs), key, "downs", "between 2 and 10")?;
                (g.ngf, g.dropout)
            }
            ImageGenerator::Resnet(g) => {
                require(g.blocks <= 64, key, "blocks", "at most 64; 9 suits 256 x 256")?;
                (g.ngf, g.dropout)
            }
        };
        require((1..=1024).contains(&width), key, "ngf", "between 1 and 1024")?;
        require((0.0..1.0).contains(&dropout), key, "dropout", "in [0, 1)")
    }
}

impl ImageDiscriminator {
    /// Traces the network: `[n, spatial.., c]` to one set of logits per resolution.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var) -> Vec<Var> {
        match self {
            ImageDiscriminator::Patch(d) => vec![d.forward(cx, x)],
            ImageDiscriminator::Pixel(d) => vec![d.forward(cx, x)],
            ImageDiscriminator::MultiScale(d) => d.forward(cx, x),
        }
    }

    /// Normalisation of its inner layers.
    pub fn norm(&self) -> Norm {
        match self {
            ImageDiscriminator::Patch(d) => d.norm,
            ImageDiscriminator::Pixel(d) => d.norm,
            ImageDiscriminator::MultiScale(d) => d.patch.norm,
        }
    }

    /// Whether the settings make sense; `key` is where they stand in the recipe.
    pub fn check(&self, key: &str) -> Result<()> {
        let (ndf, layers) = match self {
            ImageDiscriminator::Patch(d) => (d.ndf, d.layers),
            ImageDiscriminator::Pixel(d) => (d.ndf, 1),
            ImageDiscriminator::MultiScale(d) => {
                require((1..=6).contains(&d.scales), key, "scales", "between 1 and 6")?;
                (d.patch.ndf, d.patch.layers)
            }
        };
        require((1..=1024).contains(&ndf), key, "ndf", "between 1 and 1024")?;
        require((1..=8).contains(&layers), key, "layers", "between 1 and 8; 3 is the 70 x 70 PatchGAN")
    }
}

/// One sentence that names the key, unless `fine`.
pub(crate) fn require(fine: bool, key: &str, name: &str, why: &str) -> Result<()> {
    if fine { Ok(()) } else { Err(Error::input(format!("`{key}.{name}` must lie {why}"))) }
}
