// Products of a weight matrix with the few rows of a decoding step: out[r][o] = x[r] · weights[o], 1 to 64 rows.
//
// What bounds them is reading the weights once, so everything serves having much of the matrix under way. A block
// has eight warps. Each takes `TILES` tiles of 16 weight rows over its part of the inputs, 64 inputs a step; weights
// and the rows' numbers come through a ring of `stages` steps in shared memory, by asynchronous copies. Tensor cores
// multiply (m16n8k16, weights are `a`, up to N rows of x are `b`). The order of a sum over inputs is free as long as
// both operands take the same, so a lane takes eight inputs that lie side by side, 16 bytes, as its part of two
// instructions: no shuffles, no bank conflicts, and dense weights stay as they are, for cuBLASLt to use too.
//
// Sums. The inputs' 64-blocks are cut into `parts` = K_WARPS · splits runs; warp k of split s sums up run
// s · K_WARPS + k from its first to its last, and the runs are added as a binary tree, neighbours first. Kernels with
// larger N let fewer warps of a block share the inputs and more share x: as long as the host chooses `splits` such
// that `parts` stays the same, a row's bits depend neither on N nor on the other rows nor on its place among them.
//
// What the host chooses (`inputs` is a multiple of 64; for GATED, weights are [gate; up] and `outputs` counts one of
// them, for repacked formats a multiple of 16):
//   block        256 threads
//   K_WARPS      LINEAR: N = 8: 8, 16: 8, 32: 4, 64: 2.   GATED, LOGITS: 2
//   TILES        LINEAR with repacked weights and N = 8: 1.   else 2
//   ROWS         weight rows of a block = (8 / K_WARPS) · TILES · 16;   OUTPUTS = GATED ? ROWS / 2 : ROWS
//   base         LINEAR 8; GATED, LOGITS 2
//   parts        base · f; f = 1, doubled while f < 4, ceil(outputs / (LINEAR ? 32 : GATED ? 64 : 128)) · f is less
//                than 3/4 · multiprocessors, and base · 2 f <= inputs / 256
//   splits       parts / K_WARPS, a power of two up to 16
//   grid         (ceil(outputs / OUTPUTS), splits)
//   STAGE        bytes of a step = 8 · TILES · TILE_BYTES + K_WARPS · N · 128;
//                TILE_BYTES = 2048 (dense), 1024 (fp8), 1088 (q8_0), 896 (q6k), 768 (q5k), 640 (q4k)
//   stages       2 to 8: floor(half / STAGE) where that is at least 3 and there are more blocks than multiprocessors,
//                else floor(block / STAGE); block = shared memory that a block may have, half = (shared memory of a
//                multiprocessor) / 2 - 1024. Changes no bits
//   shared bytes max(stages · STAGE, K_WARPS · N · (ROWS + 4) · 4), above 48 KiB by the function's attribute
//   workspace    splits > 1: grid.x · splits · N · ROWS floats, need not be initialised
//   counters     splits > 1: grid.x zeros, which the kernel leaves zero
#pragma once

#include "linear_run.cuh"
#include "linear_sum.cuh"

template <class Format, int N, Kind KIND, class Out>
DEVICE void product(Out* out, int out_stride, const void* weights, const float* row_scales,
                    const typename Format::Number* x, int rows, int outputs, int inputs, float* workspace,
                    unsigned* counters, int splits, int stages) {
    using G = Geometry<Format, N, KIND>;
    DYNAMIC_SHARED(unsigned char, shared);
    float sums[G::TILES][N / 8][4] = {};
    multiply_run<Format, N, KIND>(sums, shared, weights, x, rows, outputs, inputs, splits, stages);

    // All warps' sums as rows of shared memory, over the ring, for coalesced writes. ROWS + 4 keeps lanes' banks apart.
    float* parts = reinterpret_cast<float*>(shared);
    __syncthreads();
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (int tile = 0; tile < G::TILES; tile++)
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int row = warp / G::ROW_WARPS * N + n * 8 + lane % 4 * 2 + i % 2;
                int column = G::tile_row(warp % G::ROW_WARPS, tile) + lane / 4 + i / 2 * 8;
                parts[row * (G::ROWS + 4) + column] = sums[tile][n][i];
            }
    __syncthreads();
    auto block_sum = [&](int row, int column) {
        return tree_sum<G::K_WARPS>(parts + row * (G::ROWS + 4) + column, N * (G::ROWS + 4));
    };
    auto write = [&](int row, int column, float4 (&sum)[2]) {
        Writer<Out> to = {out, out_stride, outputs};
        if (Format::ROW_SCALES) {
#pragma unroll
            for (int half = 0; half <= (KIND == GATED); half++)
                scale(sum[half], row_scales + G::weight_row(column + half * G::OUTPUTS, outputs),
                      outputs - int(blockIdx.x) * G::OUTPUTS - column, Format::SCALE);
        }
        to.write(row, blockIdx.x * G::OUTPUTS + column, KIND == GATED ? gated(sum[0], sum[1]) : sum[0]);
    };
    finish<N, G::ROWS, G::OUTPUTS>(block_sum, write, rows, workspace, counters, splits);
}

// The kernels of a weight format `W`, read by the struct FORMAT, with rows of type X.
#define LINEAR_KERNEL(NAME, KIND, OUT, W, X, FORMAT, N)                                                               \
    KERNEL(__launch_bounds__(BLOCK, 2) NAME##_##W##_##X##_##N)                                                        \
    (OUT * out, int out_stride, const void* weights, const float* row_scales, const X* x, int rows, int outputs,      \
     int inputs, float* workspace, unsigned* counters, int splits, int stages) {                                      \
        product<FORMAT, N, KIND>(out, out_stride, weights, row_scales, x, rows, outputs, inputs, workspace, counters, \
                                 splits, stages);                                                                     \
    }                                                                                                                 \
    REGISTER(NAME##_##W##_##X##_##N)
#define LINEAR_KERNELS_OF(N, W, X, FORMAT)                 \
    LINEAR_KERNEL(linear, LINEAR, X, W, X, FORMAT, N)      \
    LINEAR_KERNEL(gated, GATED, X, W, X, FORMAT, N)        \
    LINEAR_KERNEL(logits, LOGITS, float, W, X, FORMAT, N)
#define LINEAR_KERNELS(W, X, ...)            \
    LINEAR_KERNELS_OF(8, W, X, __VA_ARGS__)  \
    LINEAR_KERNELS_OF(16, W, X, __VA_ARGS__) \
    LINEAR_KERNELS_OF(32, W, X, __VA_ARGS__) \
    LINEAR_KERNELS_OF(64, W, X, __VA_ARGS__)
