//! Which device a command asks for, and what is opened for it.

use super::device::Device;
use super::probe::probe;
use crate::device::cuda::driver::Driver;
use crate::device::launch::Math;
use crate::error::{Error, Result};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first NVIDIA device if it is usable and computes what the CPU does, else the CPU.
    Auto,
    /// This machine's processor.
    Cpu,
    /// The NVIDIA device of this number.
    Cuda(usize),
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Choice::Auto),
            "cpu" => Ok(Choice::Cpu),
            "cuda" => Ok(Choice::Cuda(0)),
            _ => s
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Choice::Cuda)
                .ok_or_else(|| "write auto, cpu, cuda or cuda:N".to_string()),
        }
    }
}

impl Choice {
    /// Opens the device. What was named is used or refused; `auto` takes the CPU where there is no driver or
    /// `CUDA_VISIBLE_DEVICES` hides all devices, and says why where there is a driver that can't be used.
    pub fn open(self, precision: Math) -> Result<(Device, Option<String>)> {
        let opened = self.find(precision)?;
        if precision != Math::Fma && matches!(opened.0, Device::Cpu) {
            let why = opened.1.map(|note| format!(" ({note})")).unwrap_or_default();
            return Err(Error::input(format!(
                "the CPU computes in f32 only{why}; leave `--precision {}` out, or name a GPU with `--device cuda`",
                precision.name()
            )));
        }
        Ok(opened)
    }

    fn find(self, precision: Math) -> Result<(Device, Option<String>)> {
        match self {
            Choice::Cpu => Ok((Device::Cpu, None)),
            Choice::Cuda(n) => Ok((Device::cuda(n, precision)?, None)),
            Choice::Auto if all_hidden() || !Driver::is_present() => Ok((Device::Cpu, None)),
            Choice::Auto => {
                match Device::cuda(0, precision).and_then(|device| probe(&device).map(|_| device)) {
                    Ok(device) => Ok((device, None)),
                    Err(e) => {
                        Ok((Device::Cpu, Some(format!("there is an NVIDIA driver, but not used: {e}"))))
                    }
                }
            }
        }
    }
}

/// Whether `CUDA_VISIBLE_DEVICES` hides all devices: none is named, or first one that cannot be.
fn all_hidden() -> bool {
    std::env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|v| v.trim().is_empty() || v.trim().starts_with("-1"))
}
