//! Methods out of presets.

use gan::methods::{Method, preset};

/// The method that `[model]` and `[loss]`, given as TOML, mean for images of so many channels: of the input, of the target, and
/// of what is predicted.
pub fn method(model: &str, loss: &str, [inputs, targets, outputs]: [usize; 3]) -> Method {
    let table = |text: &str| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    let found = preset::expand(&table(model), &table(loss)).unwrap_or_else(|e| panic!("{e}"));
    Method::of_channels(&found.spec, inputs, targets, outputs)
}
