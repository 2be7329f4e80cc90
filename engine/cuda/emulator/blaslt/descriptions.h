// What the caller says of a product: its operation, its matrices, what an algorithm may use.
#pragma once

#include "cublaslt_api.h"

struct cublasLtMatmulDescOpaque_t {
    cublasComputeType_t compute;
    cudaDataType_t scale_type;
    int transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
    // Device addresses of one factor each, or null.
    const float *scale_a = nullptr, *scale_b = nullptr;
};

// Column after column, each `stride` elements after the one before.
struct cublasLtMatrixLayoutOpaque_t {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t stride;
};

struct cublasLtMatmulPreferenceOpaque_t {
    uint64_t workspace_bytes = 0;
};

namespace emulator {

using Description = cublasLtMatmulDescOpaque_t;
using Layout = cublasLtMatrixLayoutOpaque_t;
using Preference = cublasLtMatmulPreferenceOpaque_t;

// Bytes of an element; zero for types that are not emulated.
inline size_t element_bytes(cudaDataType_t type) {
    switch (type) {
        case CUDA_R_32F: return 4;
        case CUDA_R_16F:
        case CUDA_R_16BF: return 2;
        case CUDA_R_8F_E4M3: return 1;
    }
    return 0;
}
// Bytes from a matrix's first element to behind its last.
inline size_t matrix_bytes(const Layout& layout) {
    return ((layout.columns - 1) * layout.stride + layout.rows) * element_bytes(layout.type);
}

}  // namespace emulator
