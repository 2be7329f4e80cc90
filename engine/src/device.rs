//! Which device computes.

use crate::error::LoadError;

/// The device asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA GPU; an error where there is none.
    Cuda,
}

impl DeviceChoice {
    /// The CPU, or why what was asked for cannot be had in this build.
    pub(crate) fn resolve(self) -> Result<(), LoadError> {
        match self {
            Self::Auto | Self::Cpu => Ok(()),
            Self::Cuda => Err(LoadError::Device(
                "device cuda: this binary has no CUDA kernels; use --device cpu or auto".to_owned(),
            )),
        }
    }
}
