//! Which variant of a kernel is taken for which shape, where that was measured. Both are names, which only the operations
//! understand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// A table of variants by shape, which notes what it is asked for.
#[derive(Debug, Default)]
pub struct Choices {
    table: BTreeMap<String, String>,
    asked: Mutex<BTreeSet<String>>,
}

/// As [`super::launch::GpuTraits`] compares: what was asked does not count.
impl PartialEq for Choices {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table
    }
}

impl Eq for Choices {}

impl Choices {
    /// A table for the rest of the process: some kilobytes, once a run.
    pub fn leak(table: BTreeMap<String, String>) -> &'static Self {
        Box::leak(Box::new(Choices { table, asked: Mutex::default() }))
    }

    /// The variant of a shape.
    pub fn of(&self, shape: &str) -> Option<&str> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(shape.to_string());
        self.table.get(shape).map(String::as_str)
    }

    /// The shapes that it was asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
