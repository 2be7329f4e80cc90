// Quantised weights as they lie in the GPU's memory: GGUF blocks repacked so that whatever a warp multiplies in a step,
// 16 rows by 64 inputs, is one run of bytes.
//
// Tile (m, k) begins at byte (m · inputs / 64 + k) · TILE_BYTES; the last 16 rows are filled up with zeros. In a tile
// lane = row % 8 · 4 + place owns the eight inputs 32 half + 8 place .. + 7 of row and row + 8, half = 0, 1, as it
// does with dense weights. A format says where in its tile they lie, in the order of bits that is cheapest to take
// apart; formats of GGUF that differ in their blocks only share one.
//
// Weights become 16-bit numbers in registers, scales included, rather than whole numbers whose sums are scaled: that
// costs an operation or two a pair whatever the number of rows, while sums would have to be scaled for every 32 inputs
// and every row, of which there may be 64. Scales of 16 or 32 inputs are kept multiplied out (in GGUF Q4_K, Q5_K and
// Q6_K: a scale for 256 inputs, and 6 or 8 bits for each 16 or 32): taking those apart would be a third of the work at
// one row, and saves 7 to 10 % of the bytes.
#pragma once

#include "gguf_blocks.cuh"

template <int BYTES>
struct Tiles {
    using Number = f16;
    static constexpr bool REPACKED = true, ROW_SCALES = false;
    static constexpr float SCALE = 1;
    static constexpr int TILE_BYTES = BYTES, STEP_BYTES = BYTES;

    DEVICE static int eight(int half, int place) { return 4 * half + place; }
    // From a row to the one `rows` further, of multiples of 16.
    DEVICE static size_t row_bytes(int rows, int inputs) { return size_t(rows / 16) * (inputs / 64) * BYTES; }
    DEVICE static size_t offset(int row, int inputs, int block) {
        return row_bytes(row, inputs) + size_t(block) * BYTES;
    }
    DEVICE static const unsigned char* start(const void* weights, int row, int inputs, int block, int lane) {
        return static_cast<const unsigned char*>(weights) + offset(row, inputs, block) + lane * 16;
    }
    DEVICE static void copy(Shared to, const unsigned char* from, int valid, int) {
        // All rows of a tile are there, or none.
        int lane = threadIdx.x % WARP;
#pragma unroll
        for (int i = 0; i < BYTES; i += WARP * 16)
            if (i + WARP * 16 <= BYTES || i + lane * 16 < BYTES)
                copy_to_shared_16(to + i, from + i, valid + lane / 4 > 0);
    }
};
