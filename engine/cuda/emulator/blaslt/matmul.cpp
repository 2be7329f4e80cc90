// The library's handle, its choice of an algorithm, and products as work of a stream.
#include <cstdio>
#include <cstring>

#include "allocations.h"
#include "context.h"
#include "device.h"
#include "failures.h"
#include "product.h"
#include "stream.h"

using namespace emulator;

struct cublasLtContext {};

namespace {

constexpr uint64_t ALGORITHM = 0x6d65746c75d5, WORKSPACE_BYTES = 1 << 20;

bool is_single(cublasComputeType_t compute, cudaDataType_t type) {
    if (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC) return true;
    // The others let single precision be rounded to something shorter.
    bool fast = compute == CUBLAS_COMPUTE_32F_FAST_16F || compute == CUBLAS_COMPUTE_32F_FAST_16BF ||
                compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    return fast && type == CUDA_R_32F;
}

// As the documentation of cublasLtMatmul says: types, then what FP8 asks for.
cublasStatus_t check_types(const Description& description, const Layout& a, const Layout& b, const Layout& c,
                           const Layout& d) {
    bool single = is_single(description.compute, a.type) && description.scale_type == CUDA_R_32F;
    if (!single) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a.type != b.type || c.type != d.type) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (element_bytes(a.type) == 0 || element_bytes(d.type) < 2) return CUBLAS_STATUS_NOT_SUPPORTED;
    bool scaled = description.scale_a != nullptr || description.scale_b != nullptr;
    if (a.type != CUDA_R_8F_E4M3) {
        bool there = !scaled && (d.type == a.type || d.type == CUDA_R_32F);
        return there ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (capability() < 89) return CUBLAS_STATUS_NOT_SUPPORTED;
    bool transposed_first = description.transpose_a == CUBLAS_OP_T && description.transpose_b == CUBLAS_OP_N;
    // Below compute capability 10.0 only the first matrix may, and must, be transposed.
    if (!transposed_first && capability() < 100) return CUBLAS_STATUS_NOT_SUPPORTED;
    bool aligned = a.rows % 16 == 0 && a.columns % 16 == 0 && a.stride % 16 == 0 && b.stride % 16 == 0 &&
                   d.stride * element_bytes(d.type) % 16 == 0;
    return aligned ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t check(const Description* description, const Layout* a, const Layout* b, const Layout* c,
                     const Layout* d) {
    if (description == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    for (const Layout* layout : {a, b, c, d}) {
        if (layout == nullptr || layout->rows == 0 || layout->columns == 0) return CUBLAS_STATUS_INVALID_VALUE;
        if (layout->stride < int64_t(layout->rows)) return CUBLAS_STATUS_INVALID_VALUE;
    }
    bool a_turned = description->transpose_a == CUBLAS_OP_T, b_turned = description->transpose_b == CUBLAS_OP_T;
    uint64_t m = a_turned ? a->columns : a->rows, k = a_turned ? a->rows : a->columns;
    uint64_t n = b_turned ? b->rows : b->columns, k_of_b = b_turned ? b->columns : b->rows;
    for (const Layout* out : {c, d}) {
        if (out->rows != m || out->columns != n) return CUBLAS_STATUS_INVALID_VALUE;
    }
    return k == k_of_b ? check_types(*description, *a, *b, *c, *d) : CUBLAS_STATUS_INVALID_VALUE;
}

// An algorithm is for the types and transpositions that it was chosen for.
cublasLtMatmulAlgo_t algorithm(const Description& description, const Layout& a, const Layout& d) {
    uint64_t types = uint64_t(a.type) << 8 | d.type;
    uint64_t transposed = uint64_t(description.transpose_a) << 1 | description.transpose_b;
    return {{ALGORITHM, types, transposed, uint64_t(description.compute), 0, 0, 0, 0}};
}

bool is_aligned(const void* address, const Layout& layout) {
    return reinterpret_cast<uintptr_t>(address) % (layout.type == CUDA_R_32F ? 4 : 16) == 0;
}

void run(const Product& product, void* workspace) {
    if (launch_fails()) return break_context(CUDA_ERROR_ILLEGAL_ADDRESS);
    bool workspace_there = workspace == nullptr || is_allocated(workspace, WORKSPACE_BYTES);
    if (!is_in_place(product) || !workspace_there) {
        fprintf(stderr, "emulator: cublasLtMatmul: an operand or the workspace is not the device's memory\n");
        return break_context(CUDA_ERROR_ILLEGAL_ADDRESS);
    }
    // What is there is the algorithm's to overwrite.
    if (workspace != nullptr) memset(workspace, 0xff, WORKSPACE_BYTES);
    carry_out(product);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 130000; }

BLAS_API cublasLtCreate(cublasLtHandle_t* handle) {
    static cublasLtContext only;
    if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    std::lock_guard guard(lock);
    if (driver_error() != CUDA_SUCCESS) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = &only;
    return CUBLAS_STATUS_SUCCESS;
}
BLAS_API cublasLtDestroy(cublasLtHandle_t handle) {
    return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

BLAS_API cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                                        cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                        cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int wanted,
                                        cublasLtMatmulHeuristicResult_t* results, int* count) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (preference == nullptr || wanted <= 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (results == nullptr || count == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    *count = 0;
    cublasStatus_t status = check(description, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    size_t workspace = preference->workspace_bytes >= WORKSPACE_BYTES ? WORKSPACE_BYTES : 0;
    results[0] = {algorithm(*description, *a, *d), workspace, CUBLAS_STATUS_SUCCESS, 1.0f, {}};
    results[0].algo.data[4] = workspace;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

BLAS_API cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha, const void* a,
                        cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                        const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                        cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* chosen, void* workspace,
                        size_t workspace_bytes, cudaStream_t stream) {
    if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
    cublasStatus_t status = check(description, a_layout, b_layout, c_layout, d_layout);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (a == nullptr || b == nullptr || d == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    Product product = {*description, {*a_layout, a}, {*b_layout, b}, {*c_layout, c}, {*d_layout, d}, 0, 0};
    memcpy(&product.alpha, alpha, sizeof(float));
    memcpy(&product.beta, beta, sizeof(float));
    for (const Matrix* matrix : {&product.a, &product.b, &product.d}) {
        if (!is_aligned(matrix->start, matrix->layout)) return CUBLAS_STATUS_INVALID_VALUE;
    }
    size_t needed = 0;
    if (chosen != nullptr) {
        cublasLtMatmulAlgo_t expected = algorithm(*description, *a_layout, *d_layout);
        if (memcmp(chosen, &expected, 4 * sizeof(uint64_t)) != 0) return CUBLAS_STATUS_INVALID_VALUE;
        needed = chosen->data[4];
    }
    if (workspace_bytes < needed || (needed > 0 && workspace == nullptr)) return CUBLAS_STATUS_INVALID_VALUE;
    if (needed == 0) workspace = nullptr;
    CUresult error = context_call([&] { return ask(stream, [=] { run(product, workspace); }); });
    return error == CUDA_SUCCESS ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
