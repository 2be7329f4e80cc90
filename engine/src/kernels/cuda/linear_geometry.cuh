// How a product is shared out among blocks and warps; what the host has to know of it is in linear.cuh.
#pragma once

#include "common.cuh"

enum Kind { LINEAR, GATED, LOGITS };

constexpr int WARPS = 8;
constexpr int BLOCK = WARPS * WARP;
// Inputs of a step.
constexpr int STEP = 64;
// Weight rows of a tile, those of one matrix instruction.
constexpr int TILE = 16;

template <class Format, int N, Kind KIND>
struct Geometry {
    static constexpr int K_WARPS = KIND != LINEAR ? 2 : N <= 16 ? 8 : N == 32 ? 4 : 2;
    static constexpr int ROW_WARPS = WARPS / K_WARPS;
    static constexpr int TILES = KIND == LINEAR && N == 8 && Format::REPACKED ? 1 : 2;
    static constexpr int ROWS = ROW_WARPS * TILES * TILE;
    static constexpr int OUTPUTS = KIND == GATED ? ROWS / 2 : ROWS;
    static constexpr int WEIGHT_BYTES = WARPS * TILES * Format::TILE_BYTES;
    static constexpr int ROW_BYTES = N * STEP * 2;
    static constexpr int STAGE_BYTES = WEIGHT_BYTES + K_WARPS * ROW_BYTES;
    // The most stages that any block has room for.
    static constexpr int MOST_STAGES = 227 * 1024 / STAGE_BYTES < 8 ? 227 * 1024 / STAGE_BYTES : 8;

    // Where tile `tile` of row warp `warp` begins, in rows of the block; a GATED block has its gates first.
    DEVICE static int tile_row(int warp, int tile) {
        return TILE * (KIND == GATED ? tile * ROW_WARPS + warp : warp * TILES + tile);
    }
    // The weight row that this row of the block is.
    DEVICE static int weight_row(int row, int outputs) {
        int first = blockIdx.x * OUTPUTS;
        return KIND == GATED && row >= OUTPUTS ? outputs + first + row - OUTPUTS : first + row;
    }
};

// What a warp works on: a run of 64-blocks of the inputs.
struct Run {
    int first, count, longest;
};
DEVICE Run run_of(int part, int parts, int blocks) {
    int each = blocks / parts, more = blocks % parts;
    return {part * each + min(part, more), each + (part < more), each + (more > 0)};
}
