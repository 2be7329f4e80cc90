//! Products of prompts: cuBLASLt, with one algorithm per matrix, whatever the number of rows.
//!
//! The library's algorithms differ in the order of their sums. The one that suits a full step is taken for every
//! step, so that a prompt's rows are the same bits however it is cut into steps and whoever is beside it.
#![expect(unsafe_code, reason = "calls of cuBLASLt")]

use std::{ffi::c_void, ptr, sync::Arc};

use cudarc::cublaslt::sys::{self, cublasStatus_t as Status};

use super::{driver::CudaError, element::Element, gpu::Gpu, memory::Buffer};

/// Bytes that an algorithm may use beside its operands; what cuBLAS takes on Hopper.
const WORKSPACE: usize = 32 << 20;

/// What a product's operands are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operands {
    /// Weights, rows and products alike.
    Same(Element),
    /// Weights and rows are e4m3 bytes, products are in single precision.
    Fp8,
}

/// A product `out[row][output] = Σ weights[output][input] · x[row][input]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sizes {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// Numbers from one row of products to the next.
    pub(super) stride: usize,
}

/// The library, ready.
#[derive(Debug)]
pub(super) struct Blas {
    gpu: Arc<Gpu>,
    handle: sys::cublasLtHandle_t,
    workspace: Buffer<u8>,
}

// SAFETY: the handle may be used from any thread.
unsafe impl Send for Blas {}
// SAFETY: the same; the workspace is used in the stream's order.
unsafe impl Sync for Blas {}

impl Blas {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Arc<Self>, CudaError> {
        // SAFETY: looks whether the library is there.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::Absent(
                "cuBLASLt is not installed (libcublasLt.so.13): it is part of the CUDA toolkit and of the package \
                 libcublas"
                    .to_owned(),
            ));
        }
        gpu.bind()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the handle is written.
        check("cublasLtCreate", unsafe { sys::cublasLtCreate(&mut handle) })?;
        Ok(Arc::new(Self { gpu: Arc::clone(gpu), handle, workspace: Buffer::new(gpu, WORKSPACE)? }))
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: the handle is ours.
        let _ = unsafe { sys::cublasLtDestroy(self.handle) };
    }
}

/// A product's description and the algorithm chosen for it.
#[derive(Debug)]
pub(super) struct Product {
    blas: Arc<Blas>,
    description: Description,
    weights: Layout,
    sizes: Sizes,
    operands: Operands,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: handles and algorithm are plain memory, used by one thread at a time.
unsafe impl Send for Product {}

impl Product {
    /// The product whose algorithm suits `rows` rows, those of a full step; `None` where the library has no algorithm
    /// for it: sizes that are no multiple of anything.
    pub(super) fn new(
        blas: &Arc<Blas>,
        sizes: Sizes,
        operands: Operands,
        rows: usize,
    ) -> Result<Option<Self>, CudaError> {
        let Sizes { outputs, inputs, stride } = sizes;
        let (input, output) = (operands.input(), operands.output());
        let description = Description::new()?;
        // Column by column, as the library counts, the weights are `[inputs, outputs]`.
        let weights = Layout::new(input, (inputs, outputs), inputs)?;
        let x = Layout::new(input, (inputs, rows), inputs)?;
        let out = Layout::new(output, (outputs, rows), stride)?;
        let preference = Preference::new(WORKSPACE)?;
        // SAFETY: an all-zero result is a valid one.
        let (mut found, mut count) = (unsafe { std::mem::zeroed::<sys::cublasLtMatmulHeuristicResult_t>() }, 0);
        // SAFETY: all handles are alive; at most one result is written.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                blas.handle,
                description.0,
                weights.0,
                x.0,
                out.0,
                out.0,
                preference.0,
                1,
                &mut found,
                &mut count,
            )
        };
        if status == Status::CUBLAS_STATUS_NOT_SUPPORTED || (status == Status::CUBLAS_STATUS_SUCCESS && count == 0) {
            return Ok(None);
        }
        check("cublasLtMatmulAlgoGetHeuristic", status)?;
        let blas = Arc::clone(blas);
        Ok(Some(Self { blas, description, weights, sizes, operands, algorithm: found.algo }))
    }

    /// Starts the product of `rows` rows at `x`.
    ///
    /// # Safety
    /// What the addresses point to is as long as the sizes say, and made of what the operands say.
    pub(super) unsafe fn launch(&self, weights: u64, x: u64, rows: usize, out: u64) -> Result<(), CudaError> {
        if rows == 0 {
            return Ok(());
        }
        let Sizes { outputs, inputs, stride } = self.sizes;
        let x_layout = Layout::new(self.operands.input(), (inputs, rows), inputs)?;
        let out_layout = Layout::new(self.operands.output(), (outputs, rows), stride)?;
        let (one, zero) = (1_f32, 0_f32);
        // SAFETY: handles are alive; addresses by this function's contract; alpha and beta are read before it returns.
        let status = unsafe {
            sys::cublasLtMatmul(
                self.blas.handle,
                self.description.0,
                ptr::from_ref(&one).cast(),
                weights as *const c_void,
                self.weights.0,
                x as *const c_void,
                x_layout.0,
                ptr::from_ref(&zero).cast(),
                out as *const c_void,
                out_layout.0,
                out as *mut c_void,
                out_layout.0,
                &self.algorithm,
                self.blas.workspace.at(0) as *mut c_void,
                WORKSPACE,
                self.blas.gpu.stream().cast(),
            )
        };
        check("cublasLtMatmul", status)
    }
}

impl Operands {
    fn input(self) -> sys::cudaDataType {
        match self {
            Self::Same(element) => data_type(element),
            Self::Fp8 => sys::cudaDataType_t::CUDA_R_8F_E4M3,
        }
    }

    fn output(self) -> sys::cudaDataType {
        match self {
            Self::Same(element) => data_type(element),
            Self::Fp8 => sys::cudaDataType_t::CUDA_R_32F,
        }
    }
}

fn data_type(element: Element) -> sys::cudaDataType {
    match element {
        Element::F32 => sys::cudaDataType_t::CUDA_R_32F,
        Element::F16 => sys::cudaDataType_t::CUDA_R_16F,
        Element::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    }
}

fn check(call: &'static str, status: Status) -> Result<(), CudaError> {
    match status {
        Status::CUBLAS_STATUS_SUCCESS => Ok(()),
        status => Err(CudaError::Call { call, reason: format!("{status:?}") }),
    }
}

/// How operands are multiplied: the weights transposed, sums in single precision.
#[derive(Debug)]
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn new() -> Result<Self, CudaError> {
        let (compute, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F);
        let mut handle = ptr::null_mut();
        // SAFETY: the handle is written.
        check("cublasLtMatmulDescCreate", unsafe { sys::cublasLtMatmulDescCreate(&mut handle, compute, scale) })?;
        let description = Self(handle);
        // CUBLAS_OP_T, which the bindings have with another library.
        let transposed = 1_i32;
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
        // SAFETY: the value is of the attribute's type.
        let status = unsafe {
            let (value, size) = (ptr::from_ref(&transposed).cast(), size_of_val(&transposed));
            sys::cublasLtMatmulDescSetAttribute(handle, attribute, value, size)
        };
        check("cublasLtMatmulDescSetAttribute", status)?;
        Ok(description)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: the handle is ours.
        let _ = unsafe { sys::cublasLtMatmulDescDestroy(self.0) };
    }
}

/// A matrix whose columns begin every `stride` numbers.
#[derive(Debug)]
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(numbers: sys::cudaDataType, (rows, columns): (usize, usize), stride: usize) -> Result<Self, CudaError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the handle is written.
        let status = unsafe {
            sys::cublasLtMatrixLayoutCreate(&mut handle, numbers, rows as u64, columns as u64, stride as i64)
        };
        check("cublasLtMatrixLayoutCreate", status)?;
        Ok(Self(handle))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: the handle is ours.
        let _ = unsafe { sys::cublasLtMatrixLayoutDestroy(self.0) };
    }
}

/// What an algorithm may use.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(workspace: usize) -> Result<Self, CudaError> {
        let mut handle = ptr::null_mut();
        // SAFETY: the handle is written.
        check("cublasLtMatmulPreferenceCreate", unsafe { sys::cublasLtMatmulPreferenceCreate(&mut handle) })?;
        let preference = Self(handle);
        let attribute = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        // SAFETY: the value is of the attribute's type.
        let status = unsafe {
            let (value, size) = (ptr::from_ref(&workspace).cast(), size_of_val(&workspace));
            sys::cublasLtMatmulPreferenceSetAttribute(handle, attribute, value, size)
        };
        check("cublasLtMatmulPreferenceSetAttribute", status)?;
        Ok(preference)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: the handle is ours.
        let _ = unsafe { sys::cublasLtMatmulPreferenceDestroy(self.0) };
    }
}
