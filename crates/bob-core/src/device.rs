//! The one place that names a backend.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::{UnknownName, find};

/// A tensor backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendName {
    /// Pure Rust on the processor; the default.
    Flex,
    /// Any GPU with Vulkan, Metal or DirectX through wgpu.
    Wgpu,
    /// LibTorch on the processor.
    Tch,
}

impl BackendName {
    /// Every backend, compiled in or not.
    pub const ALL: [Self; 3] = [Self::Flex, Self::Wgpu, Self::Tch];

    /// Its name on the command line and in records; also the name of the Cargo feature that links it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
            Self::Tch => "tch",
        }
    }

    /// Whether it computes in `precision`: bfloat16 is LibTorch's alone.
    pub const fn computes_in(self, precision: Precision) -> bool {
        matches!((self, precision), (_, Precision::F32) | (Self::Tch, Precision::Bf16))
    }

    /// Whether it computes in `precision`, as a result.
    ///
    /// # Errors
    /// [`DeviceError::Precision`] where it does not.
    pub fn check(self, precision: Precision) -> Result<(), DeviceError> {
        if self.computes_in(precision) {
            Ok(())
        } else {
            Err(DeviceError::Precision {
                backend: self,
                precision,
            })
        }
    }

    /// Whether this program was built with it.
    pub const fn is_compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Tch => cfg!(feature = "tch"),
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BackendName {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        find("backend", name, &Self::ALL, |backend| backend.as_str()).copied()
    }
}

/// The type of the numbers that a backbone multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 throughout; the default.
    F32,
    /// bfloat16 with float32 parameters; see [`Autocast`](crate::Autocast).
    Bf16,
}

impl Precision {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// Its name on the command line and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Precision {
    type Err = PrecisionError;

    fn from_str(name: &str) -> Result<Self, PrecisionError> {
        if matches!(name, "f16" | "fp16" | "float16" | "half") {
            return Err(PrecisionError::Float16);
        }
        Ok(*find("precision", name, &Self::ALL, |precision| precision.as_str())?)
    }
}

/// Why a name is that of no precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrecisionError {
    /// It is known and refused.
    #[error("float16 ends at 65504, which activations of pretrained backbones exceed; use `bf16`")]
    Float16,
    /// It is not known.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
}

/// Why a backend cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The program was built without it.
    #[error("backend `{0}` is not in this build; build with `--features {0}`")]
    NotCompiled(BackendName),
    /// It does not compute in the precision asked for.
    #[error("backend `{backend}` does not compute in `{precision}`; `{}` does", BackendName::Tch)]
    Precision {
        /// The backend.
        backend: BackendName,
        /// What it was asked for.
        precision: Precision,
    },
}

/// The device of `backend`. There is no second choice: a measurement must run where its label says.
///
/// # Errors
/// [`DeviceError::NotCompiled`] where the program was built without the backend.
pub fn select(backend: BackendName) -> Result<Device, DeviceError> {
    match backend {
        #[cfg(feature = "flex")]
        BackendName::Flex => Ok(Device::flex()),
        #[cfg(feature = "wgpu")]
        BackendName::Wgpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "tch")]
        BackendName::Tch => {
            #[expect(deprecated, reason = "0.22 is the last line of burn with LibTorch")]
            let device = Device::libtorch();
            Ok(device)
        }
        #[allow(unreachable_patterns, reason = "every backend may be compiled in")]
        _ => Err(DeviceError::NotCompiled(backend)),
    }
}

/// The type of the floats that `device` computes with, read back from it.
pub fn float_dtype(device: &Device) -> DType {
    device.settings().float_dtype.into()
}

/// Whether tensors on `device` are values in this process's memory: reading an unshared one, or making one from
/// values, copies nothing. Never while the device tracks gradients.
#[cfg(feature = "flex")]
pub fn is_host(device: &Device) -> bool {
    *device == Device::flex() && !device.is_autodiff()
}

/// Whether tensors on `device` are values in this process's memory: never so in a build without `flex`.
#[cfg(not(feature = "flex"))]
pub fn is_host(_device: &Device) -> bool {
    false
}
