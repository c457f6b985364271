//! Vectors of the instruction sets that the kernels are compiled for.

#![allow(unsafe_code)]

use crate::dtype::Real;

/// A register's worth of numbers.
///
/// # Safety of the methods
/// The processor must have the instruction set of the implementing type; pointers must be valid for `LANES` elements
/// (of any alignment).
pub(super) trait Vector<T>: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(v: T) -> Self;
    unsafe fn load(p: *const T) -> Self;
    unsafe fn store(self, p: *mut T);
    unsafe fn add(self, other: Self) -> Self;
    /// `self * b + c`.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// What [`Vector::permute`] goes by.
    type Index: Copy;
    /// For every lane, lane `j` of its group of `group` neighbours, which divides [`Vector::LANES`].
    unsafe fn index(group: usize, j: usize) -> Self::Index;
    /// Every lane becomes the one that the index names.
    unsafe fn permute(self, index: Self::Index) -> Self;
}

/// Four numbers, for any processor: compiles to whatever its baseline has.
#[derive(Clone, Copy)]
pub(super) struct Portable<T>([T; 4]);

impl<T: Real> Vector<T> for Portable<T> {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        Portable([T::zero(); 4])
    }
    #[inline(always)]
    unsafe fn splat(v: T) -> Self {
        Portable([v; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> Self {
        // SAFETY: by the contract of the trait.
        Portable(unsafe { p.cast::<[T; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut T) {
        // SAFETY: by the contract of the trait.
        unsafe { p.cast::<[T; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        Portable([a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]])
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // Not `T::mul_add`: without the instruction that is a function call.
        let (a, b, c) = (self.0, b.0, c.0);
        Portable([a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]])
    }
    type Index = [usize; 4];
    #[inline(always)]
    unsafe fn index(group: usize, j: usize) -> [usize; 4] {
        [0, 1, 2, 3].map(|lane| (lane / group * group + j) % 4)
    }
    #[inline(always)]
    unsafe fn permute(self, index: [usize; 4]) -> Self {
        Portable(index.map(|lane| self.0[lane % 4]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    /// For every lane of `L`, lane `j` of its group.
    fn lanes<const L: usize>(group: usize, j: usize) -> [usize; L] {
        std::array::from_fn(|lane| lane / group * group + j)
    }

    macro_rules! vector {
        ($register:ty, $t:ty, $lanes:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $add:ident, $fma:ident,
         $index:ty, $make:expr, $permute:expr) => {
            impl Vector<$t> for $register {
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn zero() -> Self {
                    // SAFETY: by the contract of the trait; so too below.
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn splat(v: $t) -> Self {
                    unsafe { $splat(v) }
                }
                #[inline(always)]
                unsafe fn load(p: *const $t) -> Self {
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut $t) {
                    unsafe { $store(p, self) }
                }
                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    unsafe { $add(self, other) }
                }
                #[inline(always)]
                unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                    unsafe { $fma(self, b, c) }
                }
                type Index = $index;
                #[inline(always)]
                unsafe fn index(group: usize, j: usize) -> $index {
                    unsafe { $make(lanes::<$lanes>(group, j)) }
                }
                #[inline(always)]
                unsafe fn permute(self, index: $index) -> Self {
                    unsafe { $permute(index, self) }
                }
            }
        };
    }

    vector!(
        __m512,
        f32,
        16,
        _mm512_setzero_ps,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_fmadd_ps,
        __m512i,
        |l: [usize; 16]| _mm512_loadu_si512(l.map(|i| i as i32).as_ptr().cast()),
        |index, v| _mm512_permutexvar_ps(index, v)
    );
    vector!(
        __m512d,
        f64,
        8,
        _mm512_setzero_pd,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_add_pd,
        _mm512_fmadd_pd,
        __m512i,
        |l: [usize; 8]| _mm512_loadu_si512(l.map(|i| i as i64).as_ptr().cast()),
        |index, v| _mm512_permutexvar_pd(index, v)
    );
    vector!(
        __m256,
        f32,
        8,
        _mm256_setzero_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_fmadd_ps,
        __m256i,
        |l: [usize; 8]| _mm256_loadu_si256(l.map(|i| i as i32).as_ptr().cast()),
        |index, v| _mm256_permutevar8x32_ps(v, index)
    );
    vector!(
        __m256d,
        f64,
        4,
        _mm256_setzero_pd,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_add_pd,
        _mm256_fmadd_pd,
        __m256i,
        // Halves of numbers, two by two.
        |l: [usize; 4]| _mm256_loadu_si256(l.map(|i| [2 * i as i32, 2 * i as i32 + 1]).as_ptr().cast()),
        |index, v| _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(v), index))
    );
}
