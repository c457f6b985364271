//! The choice of networks that give one answer per pixel: segmentation, super-resolution, denoising.

use super::image::require;
use super::{Denoiser, SegmentationUnet, Srcnn, Vdsr};
use crate::error::Result;
use crate::graph::Var;
use crate::nn::Ctx;
use serde::{Deserialize, Serialize};

/// A network. In a recipe: `network = { kind = "unet", base = 32 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DenseNetwork {
    /// U-Net, 2D or 3D as the images are.
    Unet(SegmentationUnet),
    /// Three layers.
    Srcnn(Srcnn),
    /// Twenty layers beside a shortcut; as many channels out as in.
    Vdsr(Vdsr),
    /// Finds the noise and takes it off; as many channels out as in.
    Denoiser(Denoiser),
}

impl DenseNetwork {
    /// Traces the network: `[n, spatial.., c]` to `[n, spatial.., channels]`, several of them (the first one counts)
    /// where lower resolutions are supervised too.
    #[track_caller]
    pub fn forward(&self, cx: &Ctx, x: &Var, channels: usize) -> Vec<Var> {
        match self {
            DenseNetwork::Unet(u) => u.forward(cx, x, channels),
            DenseNetwork::Srcnn(s) => vec![s.forward(cx, x, channels)],
            DenseNetwork::Vdsr(v) => vec![v.forward(cx, x)],
            DenseNetwork::Denoiser(d) => vec![d.forward(cx, x)],
        }
    }

    /// Spatial extents divide by this inside.
    pub fn multiple(&self) -> usize {
        match self {
            DenseNetwork::Unet(u) => u.multiple(),
            _ => 1,
        }
    }

    /// Whether the settings make sense for so many channels; `key` is where they stand in the recipe.
    pub fn check(&self, key: &str, inputs: usize, outputs: usize) -> Result<()> {
        let width = match self {
            DenseNetwork::Unet(u) => {
                require((1..=6).contains(&u.downs), key, "downs", "between 1 and 6")?;
                return require((1..=512).contains(&u.base), key, "base", "between 1 and 512");
            }
            DenseNetwork::Srcnn(s) => {
                let odd = s.kernels.iter().all(|k| k % 2 == 1 && *k < 64);
                require(odd, key, "kernels", "below 64 and be odd, each")?;
                let fine = s.widths.iter().all(|w| (1..=1024).contains(w));
                return require(fine, key, "widths", "between 1 and 1024 each");
            }
            DenseNetwork::Vdsr(Vdsr { layers, width })
            | DenseNetwork::Denoiser(Denoiser { layers, width, .. }) => {
                require((2..=100).contains(layers), key, "layers", "between 2 and 100")?;
                let same = inputs == outputs;
                require(
                    same,
                    "data",
                    "target",
                    "in as many channels as `data.input` for a network with a shortcut",
                )?;
                width
            }
        };
        require((1..=1024).contains(width), key, "width", "between 1 and 1024")
    }
}
