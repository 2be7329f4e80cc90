// How the sums of a product's warps and splits become its result: always added as a binary tree, neighbours first.
#pragma once

#include "common.cuh"

DEVICE float4 operator+(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// The sum of COUNT quadruples that lie `stride` floats apart.
template <int COUNT>
DEVICE float4 tree_sum(const float* first, size_t stride) {
    if constexpr (COUNT == 1)
        return *reinterpret_cast<const float4*>(first);
    else
        return tree_sum<COUNT / 2>(first, stride) + tree_sum<COUNT / 2>(first + COUNT / 2 * stride, stride);
}
DEVICE float4 tree_sum(int count, const float* first, size_t stride) {
    switch (count) {
        case 2: return tree_sum<2>(first, stride);
        case 4: return tree_sum<4>(first, stride);
        case 8: return tree_sum<8>(first, stride);
        default: return tree_sum<16>(first, stride);
    }
}

// silu(gate) · up.
DEVICE float gated(float gate, float up) { return gate / (1.f + __expf(-gate)) * up; }
DEVICE float4 gated(float4 gate, float4 up) {
    return make_float4(gated(gate.x, up.x), gated(gate.y, up.y), gated(gate.z, up.z), gated(gate.w, up.w));
}

// Multiplies by the weight rows' scales, of which `valid` are there, and by `factor`.
DEVICE void scale(float4& sum, const float* scales, int valid, float factor) {
    sum.x *= (valid > 0 ? scales[0] : 0.f) * factor;
    sum.y *= (valid > 1 ? scales[1] : 0.f) * factor;
    sum.z *= (valid > 2 ? scales[2] : 0.f) * factor;
    sum.w *= (valid > 3 ? scales[3] : 0.f) * factor;
}

template <class Out>
struct Writer {
    Out* out;
    int stride, outputs;

    // Writes four results side by side, at once where they lie aligned, or those of them that there are.
    DEVICE void write(int row, int column, float4 result) const {
        Out four[4] = {from_float<Out>(result.x), from_float<Out>(result.y), from_float<Out>(result.z),
                       from_float<Out>(result.w)};
        Out* to = out + size_t(row) * stride + column;
        if (column + 4 <= outputs && reinterpret_cast<uintptr_t>(to) % sizeof four == 0) {
            if constexpr (sizeof(Out) == 4)
                *reinterpret_cast<float4*>(to) = result;
            else
                *reinterpret_cast<uint2*>(to) = make_uint2(pack(four[0], four[1]), pack(four[2], four[3]));
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (column + i < outputs) to[i] = four[i];
        }
    }
};

// Calls `write(row, column, sums)` with the sums over all splits for each row and each fourth of the block's OUTPUTS
// columns; `sums[1]` belongs to column + OUTPUTS, where the block has more ROWS than outputs. `block_sum(row, column)`
// is what this block has summed up. With several splits all but the last block to arrive only leave their sums behind.
template <int N, int ROWS, int OUTPUTS, class BlockSum, class Write>
DEVICE void finish(const BlockSum& block_sum, const Write& write, int rows, float* workspace, unsigned* counters,
                   int splits) {
    constexpr int HALVES = ROWS / OUTPUTS;
    if (splits == 1) {
        for (int i = threadIdx.x; i < rows * (OUTPUTS / 4); i += blockDim.x) {
            int row = i / (OUTPUTS / 4), column = i % (OUTPUTS / 4) * 4;
            float4 sums[2];
#pragma unroll
            for (int half = 0; half < HALVES; half++) sums[half] = block_sum(row, column + half * OUTPUTS);
            write(row, column, sums);
        }
        return;
    }
    float* tile = workspace + size_t(blockIdx.x) * splits * (N * ROWS);
    for (int i = threadIdx.x; i < rows * (ROWS / 4); i += blockDim.x) {
        int row = i / (ROWS / 4), column = i % (ROWS / 4) * 4;
        *reinterpret_cast<float4*>(tile + blockIdx.y * (N * ROWS) + row * ROWS + column) = block_sum(row, column);
    }
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(&counters[blockIdx.x], 1u) == unsigned(splits - 1);
    __syncthreads();
    if (!last) return;
    __threadfence();
    if (threadIdx.x == 0) counters[blockIdx.x] = 0;
#pragma unroll 2
    for (int i = threadIdx.x; i < rows * (OUTPUTS / 4); i += blockDim.x) {
        int row = i / (OUTPUTS / 4), column = i % (OUTPUTS / 4) * 4;
        float4 sums[2];
#pragma unroll
        for (int half = 0; half < HALVES; half++)
            sums[half] = tree_sum(splits, tile + row * ROWS + column + half * OUTPUTS, N * ROWS);
        write(row, column, sums);
    }
}
