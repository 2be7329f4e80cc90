// cuBLASLt's products against plain sums, and what the library refuses.
#include <cstring>
#include <vector>

#include "cublaslt_api.h"
#include "driver_calls.h"
#include "halves.h"

extern "C" {
cublasStatus_t cublasLtCreate(cublasLtHandle_t*);
cublasStatus_t cublasLtDestroy(cublasLtHandle_t);
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t*, cublasComputeType_t, cudaDataType_t);
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t);
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, const void*,
                                              size_t);
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t*, cudaDataType_t, uint64_t, uint64_t, int64_t);
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t);
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t*);
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t);
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t*, int*);
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t, const void*, const void*, cublasLtMatrixLayout_t,
                              const void*, cublasLtMatrixLayout_t, const void*, const void*, cublasLtMatrixLayout_t,
                              void*, cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t*, void*, size_t, cudaStream_t);
}

#define BLAS_DONE(call) CHECK((call) == CUBLAS_STATUS_SUCCESS)

namespace {

struct Shape {
    uint64_t m, n, k;
    bool transpose_a, transpose_b;
    cudaDataType_t in, out;
};

// A product's handles, and its operands in the device's memory.
struct Trial {
    Shape shape;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t description;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;

    explicit Trial(Shape shape) : shape(shape) {
        auto [m, n, k, transpose_a, transpose_b, in, out] = shape;
        int turned_a = transpose_a, turned_b = transpose_b;
        BLAS_DONE(cublasLtCreate(&handle));
        BLAS_DONE(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F));
        BLAS_DONE(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &turned_a, 4));
        BLAS_DONE(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSB, &turned_b, 4));
        BLAS_DONE(cublasLtMatrixLayoutCreate(&a, in, transpose_a ? k : m, transpose_a ? m : k, transpose_a ? k : m));
        BLAS_DONE(cublasLtMatrixLayoutCreate(&b, in, transpose_b ? n : k, transpose_b ? k : n, transpose_b ? n : k));
        BLAS_DONE(cublasLtMatrixLayoutCreate(&d, out, m, n, m));
        BLAS_DONE(cublasLtMatmulPreferenceCreate(&preference));
    }
    ~Trial() {
        for (cublasLtMatrixLayout_t layout : {a, b, d}) cublasLtMatrixLayoutDestroy(layout);
        cublasLtMatmulPreferenceDestroy(preference);
        cublasLtMatmulDescDestroy(description);
        cublasLtDestroy(handle);
    }

    cublasStatus_t choose(cublasLtMatmulHeuristicResult_t* result) const {
        int count;
        return cublasLtMatmulAlgoGetHeuristic(handle, description, a, b, d, d, preference, 1, result, &count);
    }
    cublasStatus_t run(CUdeviceptr a_at, CUdeviceptr b_at, CUdeviceptr d_at, float beta, CUstream stream) const {
        cublasLtMatmulHeuristicResult_t result;
        BLAS_DONE(choose(&result));
        float alpha = 2;
        auto at = [](CUdeviceptr address) { return reinterpret_cast<void*>(address); };
        return cublasLtMatmul(handle, description, &alpha, at(a_at), a, at(b_at), b, &beta, at(d_at), d, at(d_at), d,
                              &result.algo, nullptr, 0, stream);
    }
};

size_t bytes_of(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : type == CUDA_R_8F_E4M3 ? 1 : 2; }
// Small whole numbers, which every type holds: 0, 1, 2 or 3 by their index.
void put(std::vector<char>& bytes, cudaDataType_t type, size_t i, float x) {
    static const unsigned char e4m3[] = {0x00, 0x38, 0x40, 0x44};
    uint16_t half = type == CUDA_R_16F ? emulator::float_to_f16(x) : emulator::float_to_bf16(x);
    if (type == CUDA_R_32F) memcpy(&bytes[i * 4], &x, 4);
    if (type == CUDA_R_16F || type == CUDA_R_16BF) memcpy(&bytes[i * 2], &half, 2);
    if (type == CUDA_R_8F_E4M3) bytes[i] = char(e4m3[int(x)]);
}
float get(const std::vector<char>& bytes, cudaDataType_t type, size_t i) {
    float x;
    uint16_t half;
    if (type == CUDA_R_32F) return memcpy(&x, &bytes[i * 4], 4), x;
    memcpy(&half, &bytes[i * 2], 2);
    return type == CUDA_R_16F ? emulator::f16_to_float(half) : emulator::bf16_to_float(half);
}

void check_product(const Setting& gpu, Shape shape) {
    Trial trial(shape);
    auto [m, n, k, transpose_a, transpose_b, in, out] = shape;
    std::vector<char> a(m * k * bytes_of(in)), b(k * n * bytes_of(in)), d(m * n * bytes_of(out));
    auto a_value = [&](uint64_t row, uint64_t column) { return float((row * 3 + column * 5) % 4); };
    auto b_value = [&](uint64_t row, uint64_t column) { return float((row + column * 7) % 3); };
    for (uint64_t x = 0; x < k; x++) {
        for (uint64_t i = 0; i < m; i++) put(a, in, transpose_a ? i * k + x : x * m + i, a_value(i, x));
        for (uint64_t j = 0; j < n; j++) put(b, in, transpose_b ? x * n + j : j * k + x, b_value(x, j));
    }
    for (uint64_t i = 0; i < m * n; i++) put(d, out, i, 1);
    CUdeviceptr a_at = gpu.memory(a.size()), b_at = gpu.memory(b.size()), d_at = gpu.memory(d.size());
    DONE(cuMemcpyHtoD_v2(a_at, a.data(), a.size()));
    DONE(cuMemcpyHtoD_v2(b_at, b.data(), b.size()));
    DONE(cuMemcpyHtoD_v2(d_at, d.data(), d.size()));
    BLAS_DONE(trial.run(a_at, b_at, d_at, 3, gpu.stream));
    DONE(cuStreamSynchronize(gpu.stream));
    DONE(cuMemcpyDtoH_v2(d.data(), d_at, d.size()));
    for (uint64_t i = 0; i < m; i++) {
        for (uint64_t j = 0; j < n; j++) {
            float sum = 0;
            for (uint64_t x = 0; x < k; x++) sum += a_value(i, x) * b_value(x, j);
            std::vector<char> expected(4);
            put(expected, out, 0, 2 * sum + 3);
            CHECK(get(d, out, j * m + i) == get(expected, out, 0));
        }
    }
    for (CUdeviceptr at : {a_at, b_at, d_at}) DONE(cuMemFree_v2(at));
}

void check_refusals() {
    cublasLtMatmulHeuristicResult_t result;
    constexpr cudaDataType_t FP8 = CUDA_R_8F_E4M3, BF16 = CUDA_R_16BF;
    CHECK(Trial({32, 5, 48, true, false, FP8, BF16}).choose(&result) == CUBLAS_STATUS_SUCCESS);
    CHECK(Trial({32, 5, 48, false, false, FP8, BF16}).choose(&result) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(Trial({24, 5, 48, true, false, FP8, BF16}).choose(&result) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(Trial({32, 5, 40, true, false, FP8, BF16}).choose(&result) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(Trial({32, 5, 48, true, false, CUDA_R_16F, BF16}).choose(&result) == CUBLAS_STATUS_NOT_SUPPORTED);
    setenv("EMULATOR_CAPABILITY", "8.0", 1);
    CHECK(Trial({32, 5, 48, true, false, FP8, BF16}).choose(&result) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(Trial({32, 5, 48, true, false, BF16, BF16}).choose(&result) == CUBLAS_STATUS_SUCCESS);
    unsetenv("EMULATOR_CAPABILITY");
}

void check_captured_product(const Setting& gpu) {
    Trial trial({16, 2, 16, true, false, CUDA_R_32F, CUDA_R_32F});
    CUdeviceptr a = gpu.memory(16 * 16 * 4), b = gpu.memory(2 * 16 * 4), d = gpu.memory(16 * 2 * 4);
    CUgraph graph;
    CUgraphExec executable;
    DONE(cuStreamBeginCapture_v2(gpu.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    BLAS_DONE(trial.run(a, b, d, 0, gpu.stream));
    DONE(cuStreamEndCapture(gpu.stream, &graph));
    DONE(cuGraphInstantiateWithFlags(&executable, graph, 0));
    std::vector<float> ones(256, 1), found(32);
    DONE(cuMemcpyHtoD_v2(a, ones.data(), 1024));
    DONE(cuMemcpyHtoD_v2(b, ones.data(), 128));
    DONE(cuGraphLaunch(executable, gpu.stream));
    DONE(cuStreamSynchronize(gpu.stream));
    DONE(cuMemcpyDtoH_v2(found.data(), d, 128));
    for (float x : found) CHECK(x == 32);
}

}  // namespace

void check_products() {
    Setting gpu;
    for (cudaDataType_t type : {CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF}) {
        for (int transposed = 0; transposed < 4; transposed++) {
            check_product(gpu, {37, 5, 21, bool(transposed & 1), bool(transposed & 2), type, type});
        }
        check_product(gpu, {64, 3, 16, true, false, type, CUDA_R_32F});
        check_product(gpu, {32, 7, 48, true, false, CUDA_R_8F_E4M3, type});
    }
    check_refusals();
    check_captured_product(gpu);
}
