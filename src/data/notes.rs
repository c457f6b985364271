//! What was done to people's data without being asked for one by one: dropped, guessed, flipped, dealt, padded, clipped,
//! replaced. Whatever does such a thing adds a sentence here; the first lines of a run, and its `run.json`, say all of
//! them. docs/data.md lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Files or subjects that are named before "and N more".
const NAMED: usize = 3;

/// Sentences, each once. Clones share them, so that what loads images on many threads can add its own; they are told in an
/// order that does not depend on the threads.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// By sentence: what it was said of, if of anything.
    held: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
}

impl Notes {
    /// Says something about the data as a whole.
    pub fn add(&self, text: impl Into<String>) {
        self.with(|held| {
            held.entry(text.into()).or_default();
        });
    }

    /// Says something of one file or subject. What is said of many becomes one line that counts them and names some.
    pub fn about(&self, text: impl Into<String>, which: impl Into<String>) {
        self.with(|held| {
            held.entry(text.into()).or_default().insert(which.into());
        });
    }

    /// One line for each sentence.
    pub fn lines(&self) -> Vec<String> {
        self.with(|held| held.iter().map(|(text, of)| line(text, of)).collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, BTreeSet<String>>) -> T) -> T {
        // A poisoned lock only means that another thread panicked between two whole sentences.
        f(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn line(text: &str, of: &BTreeSet<String>) -> String {
    let named: Vec<&str> = of.iter().take(NAMED).map(String::as_str).collect();
    match of.len() {
        0 => text.to_string(),
        n if n <= NAMED => format!("{text}: {}", named.join(", ")),
        n => format!("{text}: {} and {} more", named.join(", "), n - NAMED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_said_once_and_many_are_counted() {
        let notes = Notes::default();
        let other = notes.clone();
        for i in [3, 1, 4, 1, 5] {
            other.about("NaN became 0 (data.nan)", format!("s{i}.nii"));
        }
        notes.add("left and right are mirrored");
        notes.add("left and right are mirrored");
        other.about("frame 2 is read (data.frame)", "a.nii");
        assert_eq!(
            notes.lines(),
            [
                "NaN became 0 (data.nan): s1.nii, s3.nii, s4.nii and 1 more",
                "frame 2 is read (data.frame): a.nii",
                "left and right are mirrored",
            ]
        );
    }
}
