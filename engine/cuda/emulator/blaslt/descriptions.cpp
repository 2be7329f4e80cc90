#include "descriptions.h"

#include <cstring>

using namespace emulator;

namespace {

// Copies an attribute's value, if it has the size of what it is for.
template <class T>
cublasStatus_t take(T& field, const void* value, size_t size) {
    if (value == nullptr || size != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&field, value, sizeof(T));
    return CUBLAS_STATUS_SUCCESS;
}
// For an attribute of which one value only is emulated.
template <class T>
cublasStatus_t require(T only, const void* value, size_t size) {
    T given;
    cublasStatus_t status = take(given, value, size);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    return given == only ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

template <class T>
cublasStatus_t destroy(T* description) {
    if (description == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    delete description;
    return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

BLAS_API cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* out, cublasComputeType_t compute, cudaDataType_t scale_type) {
    if (out == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    *out = new Description{compute, scale_type};
    return CUBLAS_STATUS_SUCCESS;
}
BLAS_API cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) { return destroy(description); }

BLAS_API cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t name,
                                        const void* value, size_t size) {
    if (description == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    switch (name) {
        case CUBLASLT_MATMUL_DESC_TRANSA: return take(description->transpose_a, value, size);
        case CUBLASLT_MATMUL_DESC_TRANSB: return take(description->transpose_b, value, size);
        case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: return take(description->scale_a, value, size);
        case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: return take(description->scale_b, value, size);
        case CUBLASLT_MATMUL_DESC_TRANSC: return require<int>(CUBLAS_OP_N, value, size);
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return require<int>(CUBLASLT_EPILOGUE_DEFAULT, value, size);
        // Factors in host memory; one factor for all of a matrix.
        case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
        case CUBLASLT_MATMUL_DESC_B_SCALE_MODE: return require<int>(0, value, size);
        case CUBLASLT_MATMUL_DESC_FAST_ACCUM: {
            int8_t either;
            return take(either, value, size);
        }
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

BLAS_API cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* out, cudaDataType_t type, uint64_t rows, uint64_t columns,
                                    int64_t stride) {
    if (out == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    *out = new Layout{type, rows, columns, stride};
    return CUBLAS_STATUS_SUCCESS;
}
BLAS_API cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }

BLAS_API cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* out) {
    if (out == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    *out = new Preference;
    return CUBLAS_STATUS_SUCCESS;
}
BLAS_API cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return destroy(preference); }

// Others than the workspace narrow a choice that is not emulated.
BLAS_API cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                              cublasLtMatmulPreferenceAttributes_t name, const void* value,
                                              size_t size) {
    if (preference == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return take(preference->workspace_bytes, value, size);
    return value == nullptr ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}
