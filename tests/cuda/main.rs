//! What the program asks of the NVIDIA driver, without one: a stand-in keeps a log of all calls (and ends the process at
//! one that no program should make), can be short of memory, old, or break in the middle.

mod calls;
mod carry;
#[path = "../common/mod.rs"]
mod common;
mod launches;
mod messages;
mod profile;
mod standin;
mod tools;
mod tune;
mod workers;
