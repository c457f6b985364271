//! The session that trains: it enters a run's folder, takes steps, watches, validates, saves, and recovers.

pub mod advice;
pub mod guard;
pub mod init;
pub mod kernels;
pub mod options;
pub mod record;
pub mod reporter;
mod said;
pub mod session;
pub mod setup;
pub mod start;
