//! Element types.

use num_traits::Float;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision: what training uses on the CPU.
    F32,
    /// IEEE double precision: what gradient checks and reference runs use.
    F64,
    /// The upper half of an f32: how a GPU stores values under mixed precision. Nothing computes in it.
    Bf16,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 => 8,
            DType::Bf16 => 2,
        }
    }

    /// The name used in messages and files.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
        }
    }
}

mod sealed {
    /// Only here: see [`super::Real`].
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A floating-point type that the CPU device computes in: `f32` or `f64`, and no other can be added from outside. Memory is
/// read as whichever is asked for, so every bit pattern must be a value of it.
///
/// ```compile_fail,E0603
/// fn of<T: gan::dtype::sealed::Sealed>() {} // private, so nobody else can implement it
/// ```
pub trait Real:
    sealed::Sealed
    + Float
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + std::iter::Sum
    + Default
    + std::fmt::Debug
    + std::fmt::Display
    + bytemuck::Pod
    + Send
    + Sync
    + 'static
{
    /// The corresponding run-time tag.
    const DTYPE: DType;
    /// Rounds from double precision.
    fn of(v: f64) -> Self;
    /// Widens to double precision.
    fn f64(self) -> f64;
}

impl Real for f32 {
    const DTYPE: DType = DType::F32;
    fn of(v: f64) -> Self {
        v as f32
    }
    fn f64(self) -> f64 {
        self as f64
    }
}

impl Real for f64 {
    const DTYPE: DType = DType::F64;
    fn of(v: f64) -> Self {
        v
    }
    fn f64(self) -> f64 {
        self
    }
}

/// Runs `$body` with `$T` bound to the Rust type of a [`DType`].
#[macro_export]
macro_rules! dispatch_real {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::dtype::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::dtype::DType::Bf16 => unreachable!("the CPU computes in f32 and f64"),
        }
    };
}
