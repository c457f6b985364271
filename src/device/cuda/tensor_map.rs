//! Encoding maps for TMA (sm_90a): the driver's part, which only drivers for CUDA 12 and newer have.

#![allow(unsafe_code)]

use super::driver::{Driver, done};
use crate::device::tensor_map::{ROW, Take, TensorMap};
use crate::error::{Error, Result};
use cudarc::driver::sys;
use std::ffi::{c_int, c_void};

type Tiled = unsafe extern "C" fn(
    *mut sys::CUtensorMap,
    sys::CUtensorMapDataType,
    u32,
    *mut c_void,
    *const u64,
    *const u64,
    *const u32,
    *const u32,
    sys::CUtensorMapInterleave,
    sys::CUtensorMapSwizzle,
    sys::CUtensorMapL2promotion,
    sys::CUtensorMapFloatOOBfill,
) -> sys::CUresult;

type Im2col = unsafe extern "C" fn(
    *mut sys::CUtensorMap,
    sys::CUtensorMapDataType,
    u32,
    *mut c_void,
    *const u64,
    *const u64,
    *const c_int,
    *const c_int,
    u32,
    u32,
    *const u32,
    sys::CUtensorMapInterleave,
    sys::CUtensorMapSwizzle,
    sys::CUtensorMapL2promotion,
    sys::CUtensorMapFloatOOBfill,
) -> sys::CUresult;

const TILED: &[u8] = b"cuTensorMapEncodeTiled\0";
const IM2COL: &[u8] = b"cuTensorMapEncodeIm2col\0";

fn function<F: Copy>(name: &[u8]) -> Option<F> {
    // SAFETY: a `Driver` exists, so its library is loaded for good; the callers' types are those of the CUDA driver API, the
    // same in every version that has these functions.
    unsafe { sys::culib().get::<F>(name) }.ok().map(|f| *f)
}

impl Driver {
    /// Whether it can encode maps.
    pub(super) fn has_tensor_maps(&self) -> bool {
        function::<Tiled>(TILED).is_some() && function::<Im2col>(IM2COL).is_some()
    }

    /// The map of a tensor of bf16 numbers at an address, encoded.
    pub(super) fn tensor_map(&self, map: &TensorMap, address: u64) -> Result<Vec<u8>> {
        let lacking = || Error::input("the NVIDIA driver cannot encode tensor maps; see `gan doctor`");
        let mut encoded = sys::CUtensorMap { opaque: [0; 16] };
        let rank = map.extents.len();
        let extents: Vec<u64> = map.extents.iter().map(|&e| e as u64).collect();
        let strides = map.strides();
        let numbers = |values: &[usize]| values.iter().map(|&v| v as u32).collect::<Vec<u32>>();
        let kind = sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
        let interleave = sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE;
        let swizzle = sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B;
        let promotion = sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
        let fill = sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
        let at = address as *mut c_void;
        let code = match &map.take {
            Take::Tiled(extent) => {
                let encode = function::<Tiled>(TILED).ok_or_else(lacking)?;
                let (extent, steps) = (numbers(extent), vec![1u32; rank]);
                // SAFETY: all lists have one number for each axis (strides one less); the address is only noted.
                unsafe {
                    encode(
                        &mut encoded,
                        kind,
                        rank as u32,
                        at,
                        extents.as_ptr(),
                        strides.as_ptr(),
                        extent.as_ptr(),
                        steps.as_ptr(),
                        interleave,
                        swizzle,
                        promotion,
                        fill,
                    )
                }
            }
            Take::Im2col { lower, upper, steps, pixels } => {
                let encode = function::<Im2col>(IM2COL).ok_or_else(lacking)?;
                let steps = [&[1], &numbers(steps)[..], &[1]].concat();
                // SAFETY: as above; corners have one number for each spatial axis, the fastest first.
                unsafe {
                    encode(
                        &mut encoded,
                        kind,
                        rank as u32,
                        at,
                        extents.as_ptr(),
                        strides.as_ptr(),
                        lower.as_ptr(),
                        upper.as_ptr(),
                        ROW as u32,
                        *pixels as u32,
                        steps.as_ptr(),
                        interleave,
                        swizzle,
                        promotion,
                        fill,
                    )
                }
            }
        };
        done(code.result(), &format!("encode the tensor map {map:?}"))?;
        // As CUTLASS does: drivers up to 13.1 set a bit for small tensors that must not be set.
        if self.version <= (13, 1) && map.bytes() < 128 << 10 {
            encoded.opaque[1] &= !(1 << 21);
        }
        Ok(bytemuck::cast_slice(&encoded.opaque).to_vec())
    }
}
