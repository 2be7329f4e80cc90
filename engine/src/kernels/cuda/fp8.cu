// 8-bit floating-point numbers (e4m3): rows into them, with one scale for each row, and products of such rows out of
// them.
#include "fp8.cuh"

// One block of 256 threads for each row: scales[row] = max |x| / 448, out = x / scale.
template <class X>
DEVICE void quantize_fp8(uint8_t* out, float* scales, const X* x, int width) {
    __shared__ float maxima[8];
    const X* row = x + size_t(blockIdx.x) * width;
    float most = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) most = fmaxf(most, fabsf(to_float(row[i])));
    most = warp_max(most);
    if (threadIdx.x % WARP == 0) maxima[threadIdx.x / WARP] = most;
    __syncthreads();
    for (int i = 0; i < 8; i++) most = fmaxf(most, maxima[i]);
    // The smallest normal number: a row of zeros, or of next to nothing, has no inverse.
    float scale = fmaxf(most / 448.f, 1.17549435e-38f);
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        out[size_t(blockIdx.x) * width + i] = to_e4m3(to_float(row[i]) / scale);
}

// Grid (rows), blocks of 256 threads: out[r][o] = product[r][o] · row_scales[r] · column_scales[o].
template <class X>
DEVICE void scale_fp8(X* out, const float* product, const float* row_scales, const float* column_scales, int outputs) {
    size_t first = size_t(blockIdx.x) * outputs;
    float scale = row_scales[blockIdx.x];
    for (int i = threadIdx.x; i < outputs; i += blockDim.x)
        out[first + i] = from_float<X>(product[first + i] * scale * column_scales[i]);
}

#define FP8_KERNELS(X, T)                                                                                           \
    KERNEL(__launch_bounds__(256) quantize_fp8_##X)(uint8_t * out, float* scales, const T* x, int width) {         \
        begin();                                                                                                   \
        quantize_fp8(out, scales, x, width);                                                                       \
    }                                                                                                              \
    REGISTER(quantize_fp8_##X)                                                                                     \
    KERNEL(__launch_bounds__(256) scale_fp8_##X)                                                                   \
    (T * out, const float* product, const float* row_scales, const float* column_scales, int outputs) {            \
        begin();                                                                                                   \
        scale_fp8(out, product, row_scales, column_scales, outputs);                                               \
    }                                                                                                              \
    REGISTER(scale_fp8_##X)
FP8_KERNELS(bf16, bf16)
FP8_KERNELS(f16, f16)
