// Weights scale · q, q of 8 bits with a sign, scale for each 32 inputs: Q8_0.
//
// Tile: [half][lower][lane] eight bytes, q + 128; then [half][row] scales as halves.
#pragma once

#include "tiles.cuh"

struct Q8_0 : Tiles<1088> {
    template <class Place>
    DEVICE static uint4 weights(Place tile, int half, int lower, int lane) {
        uint2 bytes = read<uint2>(tile + lane * 8 + (half * 2 + lower) * 256);
        uint32_t scale = low_twice(read<uint16_t>(tile + lane / 4 * 2 + 1024 + (half * 16 + lower * 8) * 2));
        return make_uint4(pair(bytes.x, 0x4140, scale), pair(bytes.x, 0x4342, scale), pair(bytes.y, 0x4140, scale),
                          pair(bytes.y, 0x4342, scale));
    }
    // Two bytes as the low bits of 1024 + byte, then exactly q, then times the scale.
    DEVICE static uint32_t pair(uint32_t bytes, unsigned which, uint32_t scale) {
        uint32_t q = fma_pair<f16>(__byte_perm(bytes, 0x64646464, which), 0x3c003c00, 0xe480e480);
        return fma_pair<f16>(q, scale, 0x80008000);
    }

    template <class Block>
    DEVICE static void repack(unsigned char* tile, const unsigned char* row, int block, int half, int lower, int lane) {
        Eight<Block> from(row, block * 64 + half * 32 + lane % 4 * 8);
        for (int i = 0; i < 8; i++) tile[lane * 8 + (half * 2 + lower) * 256 + i] = uint8_t(from.q(i, 128));
        if (lane % 4 == 0)
            *reinterpret_cast<f16*>(tile + lane / 4 * 2 + 1024 + (half * 16 + lower * 8) * 2) = from.scale();
    }
};
