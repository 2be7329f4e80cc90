//! Calls of the CUDA driver: every code is looked at, and says which call gave it.
//!
//! The driver's library is loaded when it is first needed, so that one binary serves machines with and without it.
#![expect(unsafe_code, reason = "calls of the CUDA driver")]

use std::{ffi::CStr, ptr};

use cudarc::driver::sys::{self, CUresult};

/// A call of the driver, or of a library beside it, that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// The device has no room.
    #[error(
        "the GPU has no room for {what}: quantise the weights, lower max_step_tokens or max_context, or use \
         --device cpu"
    )]
    OutOfMemory {
        /// What was asked for.
        what: String,
    },
    /// Another failure.
    #[error("{call}: {reason}")]
    Call {
        /// The call.
        call: &'static str,
        /// What the driver says of it.
        reason: String,
    },
    /// There is nothing to compute with.
    #[error("{0}")]
    Absent(String),
}

impl CudaError {
    /// No room for so many bytes.
    pub(super) fn no_room(bytes: usize) -> Self {
        Self::OutOfMemory { what: format!("{bytes} bytes more") }
    }
}

/// Whether `call` succeeded.
pub(super) fn check(call: &'static str, code: CUresult) -> Result<(), CudaError> {
    match code {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(CudaError::OutOfMemory { what: format!("what {call} takes") }),
        code => Err(CudaError::Call { call, reason: describe(code) }),
    }
}

/// The driver's own words.
fn describe(code: CUresult) -> String {
    let text = |get: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult| {
        let mut text = ptr::null();
        // SAFETY: the driver writes a pointer to a string that it keeps, or null.
        unsafe {
            let _ = get(code, &mut text);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    };
    match (text(sys::cuGetErrorName), text(sys::cuGetErrorString)) {
        (Some(name), Some(meaning)) => format!("{name} ({meaning})"),
        _ => format!("error {}", code as u32),
    }
}

/// Calls the driver, and returns from the function where it fails.
macro_rules! driver {
    ($call:ident($($argument:expr),* $(,)?)) => {
        $crate::kernels::cuda::driver::check(stringify!($call), cudarc::driver::sys::$call($($argument),*))
    };
}
pub(super) use driver;
