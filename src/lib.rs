//! `gan`: trains generative adversarial networks on medical images.
//!
//! The crate is layered; imports go downward only (`tests/architecture.rs` proves it):
//!
//! | level | modules | what they know |
//! |---|---|---|
//! | 0 | [`error`], [`dtype`], [`shape`], [`rng`], [`fsio`] | nothing of the others |
//! | 1 | [`device`] | bytes, threads, matrix products; no operation |
//! | 2 | [`graph`] | nodes, the `Op` trait, the `Var` handle, layer paths |
//! | 3 | [`ops`] | one file per operation |
//! | 4 | [`compile`], [`exec`] | gradient, plan, run |
//! | 5 | [`nn`] | layers, initialisation, optimisers |
//! | 6 | [`models`], [`objectives`], [`data`], [`metrics`], [`weights`], [`export`] | networks, losses, images, measures, other programs' files |
//! | 7 | [`methods`] | which networks are trained, by which losses |
//! | 8 | [`recipe`] | everything that determines a run, as text |
//! | 9 | [`watch`] | event files, tables, pictures |
//! | 10 | [`run`] | a run's folder, checkpoints, trained networks |
//! | 11 | [`evaluate`] | how good predictions are |
//! | 12 | [`train`] | the session that trains |
//! | 13 | [`profile`], [`report`] | where a step's time goes; pages of results |
//! | 14 | [`cli`] | one file per subcommand |

pub mod dtype;
pub mod error;
pub mod fsio;
pub mod rng;
pub mod shape;

pub mod cli;
pub mod compile;
pub mod data;
pub mod device;
pub mod evaluate;
pub mod exec;
pub mod export;
pub mod graph;
pub mod methods;
pub mod metrics;
pub mod models;
pub mod nn;
pub mod objectives;
pub mod ops;
pub mod profile;
pub mod recipe;
pub mod report;
pub mod run;
pub mod train;
pub mod watch;
pub mod weights;
