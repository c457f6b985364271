//! What is fitted on the training split.

use super::normalise::Fitted;
use serde::{Deserialize, Serialize};

/// What is fitted on the training split and must be stored with the network: a prediction needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFit {
    /// Height and width of the slices.
    pub canvas: [usize; 2],
    /// Per input channel: the data set's normalisation, or none if each volume has its own.
    pub input: Vec<Option<Fitted>>,
    /// Per target channel: the data set's normalisation. With `scope = "volume"` it serves only where the target is unknown.
    pub target: Vec<Fitted>,
}
