//! What a training shows while it goes on and leaves behind: event files for TensorBoard, tables, pictures, warnings.

pub mod csvlog;
pub mod curves;
pub mod health;
pub mod model_graph;
pub mod panels;
pub mod table;
pub mod tensorboard;
