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

/// Why a backend cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The program was built without it.
    #[error("backend `{0}` is not in this build; build with `--features {0}`")]
    NotCompiled(BackendName),
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
