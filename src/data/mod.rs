//! Images: NIfTI volumes, orientation, the phantom, manifests, normalisation, data sets and the loader.

pub mod affine;
pub mod manifest;
pub mod nifti_header;
pub mod nifti_io;
pub mod normalise;
pub mod orient;
pub mod phantom;
