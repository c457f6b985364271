//! The choice of networks for images out of noise.

use super::image::require;
use super::{
    DcganDiscriminator, DcganGenerator, MlpDiscriminator, MlpGenerator, ResidualCritic, ResidualGenerator,
};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::{Ctx, Norm};
use serde::{Deserialize, Serialize};

/// A generator from noise. In a recipe: `generator = { kind = "dcgan", ngf = 32 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NoiseGenerator {
    /// DCGAN's.
    Dcgan(DcganGenerator),
    /// WGAN-GP's residual one.
    Residual(ResidualGenerator),
    /// Fully connected.
    Mlp(MlpGenerator),
}

/// What gives one number per image. In a recipe: `discriminator = { kind = "dcgan" }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NoiseDiscriminator {
    /// DCGAN's.
    Dcgan(DcganDiscriminator),
    /// WGAN-GP's residual critic.
    Residual(ResidualCritic),
    /// Fully connected.
    Mlp(MlpDiscriminator),
}

/// A generator from noise and what judges its images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseModel {
    /// Numbers of noise per image.
    #[serde(default = "default_nz")]
    pub nz: usize,
    /// From noise to images.
    pub generator: NoiseGenerator,
    /// From images to one number each.
    pub discriminator: NoiseDiscriminator,
}

fn default_nz() -> usize {
    100
}

impl NoiseModel {
    /// Traces the generator: `[n, nz]` to `[n, size, size, channels]` in (-1, 1).
    #[track_caller]
    pub fn generate(&self, cx: &Ctx, z: &Var, size: usize, channels: usize) -> Var {
        match &self.generator {
            NoiseGenerator::Dcgan(g) => g.forward(cx, z, size, channels),
            NoiseGenerator::Residual(g) => g.forward(cx, z, size, channels),
            NoiseGenerator::Mlp(g) => g.forward(cx, z, [size, size], channels),
        }
    }

    /// Traces the discriminator: `[n, size, size, c]` to `[n]`.
    #[track_caller]
    pub fn judge(&self, cx: &Ctx, x: &Var) -> Var {
        match &self.discriminator {
            NoiseDiscriminator::Dcgan(d) => d.forward(cx, x),
            NoiseDiscriminator::Residual(d) => d.forward(cx, x),
            NoiseDiscriminator::Mlp(d) => d.forward(cx, x),
        }
    }

    /// Whether the discriminator mixes the images of a batch.
    pub fn judges_batches(&self) -> bool {
        match &self.discriminator {
            NoiseDiscriminator::Dcgan(d) => d.norm == Norm::Batch,
            NoiseDiscriminator::Residual(d) => d.norm == Norm::Batch,
            NoiseDiscriminator::Mlp(_) => false,
        }
    }

    /// Whether the settings make sense for images of `size` x `size`.
    pub fn check(&self, size: usize) -> Result<()> {
        require((1..=4096).contains(&self.nz), "model", "nz", "between 1 and 4096; 100 is usual")?;
        let power = (8..=1024).contains(&size) && size.is_power_of_two();
        let sixteen = size >= 16 && size.is_multiple_of(16);
        let why_power = "on a power of two from 8 on for DCGAN's networks";
        let why_sixteen = "on a multiple of 16 for the residual networks";
        match &self.generator {
            NoiseGenerator::Dcgan(g) => {
                require((1..=1024).contains(&g.ngf), "model.generator", "ngf", "between 1 and 1024")?;
                require(power, "data", "canvas", why_power)?;
            }
            NoiseGenerator::Residual(g) => {
                require((1..=512).contains(&g.dim), "model.generator", "dim", "between 1 and 512")?;
                require(sixteen, "data", "canvas", why_sixteen)?;
            }
            NoiseGenerator::Mlp(g) => {
                let fine = g.widths.iter().all(|w| (1..=65536).contains(w));
                require(fine, "model.generator", "widths", "between 1 and 65536 each")?;
            }
        }
        match &self.discriminator {
            NoiseDiscriminator::Dcgan(d) => {
                require((1..=1024).contains(&d.ndf), "model.discriminator", "ndf", "between 1 and 1024")?;
                require(power, "data", "canvas", why_power)
            }
            NoiseDiscriminator::Residual(d) => {
                require((1..=512).contains(&d.dim), "model.discriminator", "dim", "between 1 and 512")?;
                require(sixteen, "data", "canvas", why_sixteen)
            }
            NoiseDiscriminator::Mlp(d) => {
                let fine = d.widths.iter().all(|w| (1..=65536).contains(w));
                require(fine, "model.discriminator", "widths", "between 1 and 65536 each")
            }
        }
    }
}
