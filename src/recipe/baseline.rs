//! The baselines that a recipe may name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A way to predict without a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// The best pointwise function of the inputs.
    LookUp,
    /// The input as it is. With `data.degrade.downsample` this is cubic interpolation.
    Identity,
    /// The input with its intensities mapped so that their distribution is the targets' of the training split.
    Histogram,
    /// Gaussian smoothing.
    Gaussian,
    /// Median of neighbours.
    Median,
    /// Non-local means.
    Nlm,
}

impl Baseline {
    /// As in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Baseline::LookUp => "look-up",
            Baseline::Identity => "identity",
            Baseline::Histogram => "histogram",
            Baseline::Gaussian => "gaussian",
            Baseline::Median => "median",
            Baseline::Nlm => "nlm",
        }
    }
}
