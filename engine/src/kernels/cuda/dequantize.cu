// Quantised weights as dense ones, the very numbers that the products of a decoding step multiply with: for prompts,
// whose products are cuBLASLt's.
#include "fp8.cuh"
#include "q4k.cuh"
#include "q5k.cuh"
#include "q6k.cuh"
#include "q8_0.cuh"

// A warp for each tile, four to a block: grid (ceil(outputs / 16), ceil(inputs / 256)).
template <class Format>
DEVICE void dequantize(f16* out, const void* weights, int outputs, int inputs) {
    int lane = threadIdx.x % WARP, block = blockIdx.y * 4 + threadIdx.x / WARP;
    if (block >= inputs / 64) return;
    const unsigned char* tile =
        static_cast<const unsigned char*>(weights) + Format::offset(blockIdx.x * 16, inputs, block);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int half = i % 2, lower = i / 2, row = blockIdx.x * 16 + lower * 8 + lane / 4;
        uint4 eight = Format::weights(tile, half, lower, lane);
        f16* to = out + size_t(row) * inputs + block * 64 + 8 * Format::eight(half, lane % 4);
        if (row < outputs) *reinterpret_cast<uint4*>(to) = eight;
    }
}

// A block of 128 threads for each row: grid (outputs).
template <class X>
DEVICE void dequantize_fp8(X* out, const uint8_t* weights, const float* row_scales, int inputs) {
    float scale = row_scales[blockIdx.x] * E4M3_SCALE<X>;
    for (int i = threadIdx.x; i < inputs; i += blockDim.x) {
        uint32_t pair = from_e4m3<X>(uint32_t(weights[size_t(blockIdx.x) * inputs + i]) << 8);
        out[size_t(blockIdx.x) * inputs + i] = from_float<X>(to_float(low_half<X>(pair)) * scale);
    }
}

#define DEQUANTIZE(W, FORMAT)                                                                                        \
    KERNEL(__launch_bounds__(128) dequantize_##W##_f16)(f16 * out, const void* weights, int outputs, int inputs) {   \
        begin();                                                                                                     \
        dequantize<FORMAT>(out, weights, outputs, inputs);                                                           \
    }                                                                                                                \
    REGISTER(dequantize_##W##_f16)
DEQUANTIZE(q4k, Q4K)
DEQUANTIZE(q5k, Q5K)
DEQUANTIZE(q6k, Q6K)
DEQUANTIZE(q8_0, Q8_0)

#define DEQUANTIZE_FP8(X)                                                                  \
    KERNEL(__launch_bounds__(128) dequantize_fp8_##X)                                      \
    (X * out, const uint8_t* weights, const float* row_scales, int inputs) {               \
        begin();                                                                           \
        dequantize_fp8(out, weights, row_scales, inputs);                                  \
    }                                                                                      \
    REGISTER(dequantize_fp8_##X)
DEQUANTIZE_FP8(bf16)
DEQUANTIZE_FP8(f16)
