//! The `gan` command.
fn main() {}
