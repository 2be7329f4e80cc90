// Rows of an m16n8k16 product: lane l has columns 2 * (l % 4) and one on, of rows l / 4 and l / 4 + 8.
#pragma once

#include "common.cuh"

// The highest number of a row, of which four lanes have their parts; they all get the same bits.
DEVICE float row_highest(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
// Likewise the sum.
DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
