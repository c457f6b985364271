//! Places in a method by the names that the user knows them by.

use std::collections::HashMap;

/// Where the settings that were put into a preset come from: by their place in it, the user's key.
#[derive(Clone, Debug, Default)]
pub struct Keys(pub HashMap<String, String>);

impl Keys {
    /// The user's key for a place in the method.
    pub fn name(&self, place: &str) -> String {
        // The longest known place that this one lies in.
        let mut end = place.len();
        while end > 0 {
            if let Some(key) = self.0.get(&place[..end]) {
                return format!("{key}{}", &place[end..]);
            }
            end = place[..end].rfind(['.', '[']).unwrap_or(0);
        }
        place.to_string()
    }
}
