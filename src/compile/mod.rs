//! From a traced graph to something that runs. (Differentiation, which operations need for their own second
//! derivatives, lives one level below in [`crate::ops::gradient`].)

pub mod plan;
