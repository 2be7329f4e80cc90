// Dense weights, row after row, of the type of the rows of x.
#pragma once

#include "common.cuh"

template <class T>
struct Dense {
    using Number = T;
    static constexpr bool REPACKED = false, ROW_SCALES = false;
    static constexpr float SCALE = 1;
    static constexpr int TILE_BYTES = 2048;
    // From a tile to the next along the inputs.
    static constexpr int STEP_BYTES = 128;

    // Which eight inputs of a step lane % 4 = `place` takes in a half of it.
    DEVICE static int eight(int half, int place) { return 4 * half + place; }

    // Where a lane's first 16 bytes of the 16 rows from `row` come from, at a block of 64 inputs.
    DEVICE static const unsigned char* start(const void* weights, int row, int inputs, int block, int lane) {
        const T* first = static_cast<const T*>(weights) + size_t(row + lane / 4) * inputs;
        return reinterpret_cast<const unsigned char*>(first + block * 64 + lane % 4 * 8);
    }
    // From a row to the one `rows` further.
    DEVICE static size_t row_bytes(int rows, int inputs) { return sizeof(T) * rows * inputs; }
    // Starts a lane's copies of a tile, of which `valid` rows from the lane's first one on are there.
    DEVICE static void copy(Shared to, const unsigned char* from, int valid, int inputs) {
        const unsigned char* lower = from + row_bytes(8, inputs);
        copy_to_shared_16_ahead(to, from, valid > 0);
        copy_to_shared_16_ahead(to + 512, from + 64, valid > 0);
        copy_to_shared_16_ahead(to + 1024, lower, valid > 8);
        copy_to_shared_16_ahead(to + 1536, lower + 64, valid > 8);
    }

    // The lane's eight weights of row lane / 4 (+ 8 for `lower`) in a half of the step, as four pairs.
    DEVICE static uint4 weights(Shared tile, int half, int lower, int lane) {
        return read<uint4>(tile + lane * 16 + (lower * 2 + half) * 512);
    }
};
