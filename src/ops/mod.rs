//! One file, one operation.

pub mod conv;
