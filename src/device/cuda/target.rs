//! Devices that are not at hand, by the architecture that is compiled for.

use super::device::{hopper_setting, window_setting};
use crate::device::launch::{GpuTraits, Math, Tailored};
use crate::error::Result;

/// What launches depend on for a device of an architecture with so many multiprocessors, or as many as the usual one has.
pub fn traits(architecture: &str, multiprocessors: Option<usize>, math: Math) -> Result<GpuTraits> {
    Ok(GpuTraits {
        multiprocessors: multiprocessors.unwrap_or_else(|| usual_multiprocessors(architecture)),
        math,
        fixed_shapes: true,
        fused: true,
        choices: None,
        hopper: if architecture == "sm_90a" { hopper_setting()? } else { Tailored::Off },
        window: window_setting()?,
    })
}

/// Of the device that most people mean by an architecture.
pub fn usual_multiprocessors(architecture: &str) -> usize {
    let digits: String = architecture.chars().filter(char::is_ascii_digit).collect();
    match digits.as_str() {
        "75" => 40,   // T4
        "80" => 108,  // A100
        "86" => 84,   // A40
        "89" => 142,  // L40S
        "90" => 132,  // H100, H200
        "100" => 148, // B200
        _ => 128,
    }
}
