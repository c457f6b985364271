//! Images: NIfTI volumes, orientation, the phantom, manifests, normalisation, data sets and the loader.
//!
//! From the bottom up: [`affine`] and [`nifti_header`] hold the geometry, [`names`] knows image files by their names, [`nifti_io`] reads and
//! writes volumes, [`orient`]
//! brings them to one order and cuts slices, [`manifest`] says which there are and [`folder`] finds them, [`answers`] what a table says of them,
//! [`normalise`] scales them, [`case`] holds one
//! subject's, [`dataset`] a split's, [`loader`] makes batches. [`notes`] collects
//! what was done to the data on the way. [`phantom`] makes up patients.

pub mod affine;
pub mod answers;
pub mod augment;
pub mod case;
pub mod check;
pub mod config;
pub mod dataset;
pub mod degrade;
pub mod duplicates;
pub mod fit;
pub mod folder;
pub mod folds;
pub mod formats;
pub mod labels;
pub mod loader;
pub mod manifest;
pub mod names;
mod nifti_fault;
pub mod nifti_header;
pub mod nifti_io;
mod nifti_stream;
mod nifti_values;
pub mod normalise;
pub mod notes;
pub mod orient;
mod pattern;
pub mod phantom;
mod sheet;
pub mod splits;
pub mod visits;
mod window;

pub use answers::Answers;
pub use case::Case;
pub use config::{Augment, DataConfig};
pub use dataset::{Dataset, OpenOptions, Sample};
pub use fit::DataFit;
pub use loader::{Batch, Loader, LoaderConfig};
pub use manifest::Split;
pub use nifti_io::Volume;
pub use notes::Notes;
