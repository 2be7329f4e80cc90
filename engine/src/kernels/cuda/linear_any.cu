// Products with dense weights of any shape, and all products in single precision: one warp for each output and up to
// eight rows, multiplied and added in an order that depends on the number of inputs only.
//
// Grid (ceil(outputs / 8), ceil(rows / 8)), 256 threads.
#include "linear_sum.cuh"

constexpr int ROWS = 8;
constexpr int WARPS = 8;

// The products of one weight row with the rows of x; every lane gets them.
template <class X>
DEVICE void dot(float (&sums)[ROWS], const X* weights, const X* x, int rows, int inputs) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] = 0;
#pragma unroll 4
    for (int k = threadIdx.x % WARP; k < inputs; k += WARP) {
        float weight = to_float(weights[k]);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (r < rows) sums[r] = fmaf(to_float(x[size_t(r) * inputs + k]), weight, sums[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] = warp_sum(sums[r]);
}

template <bool GATED, class X, class Out>
DEVICE void any_product(Out* out, int out_stride, const X* weights, const X* x, int rows, int outputs, int inputs) {
    int output = blockIdx.x * WARPS + threadIdx.x / WARP, first = blockIdx.y * ROWS;
    if (output >= outputs) return;
    rows = min(rows - first, ROWS);
    x += size_t(first) * inputs;
    float sums[ROWS], up[ROWS];
    dot(sums, weights + size_t(output) * inputs, x, rows, inputs);
    if (GATED) dot(up, weights + size_t(outputs + output) * inputs, x, rows, inputs);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (r < rows && threadIdx.x % WARP == 0)
            out[size_t(first + r) * out_stride + output] = from_float<Out>(GATED ? gated(sums[r], up[r]) : sums[r]);
}

#define ANY_KERNEL(NAME, GATED, OUT, X)                                                                               \
    KERNEL(__launch_bounds__(WARPS* WARP) NAME)                                                                       \
    (OUT * out, int out_stride, const X* weights, const X* x, int rows, int outputs, int inputs) {                    \
        begin();                                                                                                      \
        any_product<GATED>(out, out_stride, weights, x, rows, outputs, inputs);                                       \
    }                                                                                                                 \
    REGISTER(NAME)
ANY_KERNEL(linear_f32, false, float, float)
ANY_KERNEL(gated_f32, true, float, float)
ANY_KERNEL(logits_f32, false, float, float)
ANY_KERNEL(linear_any_bf16_bf16, false, bf16, bf16)
ANY_KERNEL(gated_any_bf16_bf16, true, bf16, bf16)
ANY_KERNEL(logits_any_bf16_bf16, false, float, bf16)
ANY_KERNEL(linear_any_f16_f16, false, f16, f16)
ANY_KERNEL(gated_any_f16_f16, true, f16, f16)
ANY_KERNEL(logits_any_f16_f16, false, float, f16)
